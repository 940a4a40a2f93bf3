//! Flows that this host began, and how long each is remembered.

use std::collections::HashMap;
use std::net::IpAddr;

use tollgate::policy::model::{Timeouts, Transport as Protocol};

use super::transport::TcpFlags;

/// Both ends of a flow; `local` is the side of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub local: IpAddr,
    pub remote: IpAddr,
    pub kind: FlowKind,
}

/// What tells flows between two addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowKind {
    Ports { protocol: Protocol, local: u16, remote: u16 },
    Echo { identifier: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    TcpOpening,
    TcpEstablished,
    TcpClosing,
    Udp,
    Echo,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    state: State,
    /// When a packet of it was last noted.
    seen_ns: u64,
}

/// Packets of a flow that come this soon after one that was noted are not noted, or sooner if the timeout is short.
const NOTED_EVERY_NS: u64 = 1_000_000_000;
const NOTED_IN_A_TIMEOUT: u64 = 8;

/// Every flow that this host ever began.
#[derive(Debug)]
pub struct Flows {
    timeouts: Timeouts,
    flows: HashMap<FlowKey, Flow>,
}

impl Flows {
    /// None yet.
    pub fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, flows: HashMap::new() }
    }

    /// This host sends a packet that begins a flow, or a datagram of one that is remembered. TCP begins anew.
    pub fn begin(&mut self, key: FlowKey, now_ns: u64) {
        let state = match key.kind {
            FlowKind::Ports { protocol: Protocol::Tcp, .. } => State::TcpOpening,
            FlowKind::Ports { protocol: Protocol::Udp, .. } => State::Udp,
            FlowKind::Echo { .. } => State::Echo,
        };
        if state != State::TcpOpening && self.knows(&key, now_ns) {
            self.note(&key, now_ns);
        } else {
            self.flows.insert(key, Flow { state, seen_ns: now_ns });
        }
    }

    /// Notes a packet that changes nothing, unless it comes too soon for that.
    fn note(&mut self, key: &FlowKey, now_ns: u64) {
        let timeout_ns = self.flows.get(key).map_or(0, |flow| self.timeout_ns(flow));
        if let Some(flow) = self.flows.get_mut(key)
            && now_ns.saturating_sub(flow.seen_ns) > NOTED_EVERY_NS.min(timeout_ns / NOTED_IN_A_TIMEOUT)
        {
            flow.seen_ns = now_ns;
        }
    }

    /// True if the flow is remembered. Exactly at its timeout it still is.
    pub fn knows(&self, key: &FlowKey, now_ns: u64) -> bool {
        self.flows.get(key).is_some_and(|flow| self.is_alive(flow, now_ns))
    }

    /// This host sends a packet of a flow without beginning one. Only its end is noted, and wakes none that timed out.
    pub fn sent(&mut self, key: &FlowKey, flags: TcpFlags, now_ns: u64) {
        if (flags.fin || flags.rst)
            && self.knows(key, now_ns)
            && let Some(flow) = self.flows.get_mut(key)
        {
            flow.seen_ns = now_ns;
            flow.state = flow.state.closed();
        }
    }

    /// A packet arrives from the other side. True, and noted, if it is of a flow that is remembered.
    ///
    /// Once closing, a flow stays so until a new SYN of this host.
    pub fn received(&mut self, key: &FlowKey, flags: TcpFlags, now_ns: u64) -> bool {
        if !self.knows(key, now_ns) {
            return false;
        }
        if let Some(flow) = self.flows.get_mut(key) {
            let before = flow.state;
            if flags.fin || flags.rst {
                flow.state = flow.state.closed();
            } else if flags.syn && flags.ack && flow.state == State::TcpOpening {
                flow.state = State::TcpEstablished;
            }
            if flow.state != before {
                flow.seen_ns = now_ns;
                return true;
            }
        }
        self.note(key, now_ns);
        true
    }

    fn is_alive(&self, flow: &Flow, now_ns: u64) -> bool {
        now_ns.saturating_sub(flow.seen_ns) <= self.timeout_ns(flow)
    }

    fn timeout_ns(&self, flow: &Flow) -> u64 {
        match flow.state {
            State::TcpOpening => self.timeouts.tcp_opening_ns,
            State::TcpEstablished => self.timeouts.tcp_established_ns,
            State::TcpClosing => self.timeouts.tcp_closing_ns,
            State::Udp => self.timeouts.udp_ns,
            State::Echo => self.timeouts.icmp_ns,
        }
    }
}

impl State {
    /// After a FIN or RST of either side; other protocols have none.
    fn closed(self) -> Self {
        match self {
            Self::TcpOpening | Self::TcpEstablished | Self::TcpClosing => Self::TcpClosing,
            Self::Udp | Self::Echo => self,
        }
    }
}
