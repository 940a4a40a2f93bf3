//! Packets that other filters let through: each with the reason that it must end with here, and beside it its twin, the
//! nearest honest packet, which must pass. Written from docs/policy.md and docs/operations.md.
//!
//! One theme a file; `tests/evasion.rs` runs them all by both programs in the kernel, `tests/explain_evasion.rs` on a live
//! interface.

mod build;
mod fragments;
mod icmp;
mod ipv4;
mod ipv6;
mod link;
mod protocols;
mod run;
mod sources;
mod state;
mod tcp;
mod udp;

use proxy_common::abi::reason::Reason;

pub use self::build::{Family, Hosts, LINK};
pub use self::run::{HOOKS, POLICY, Row, Trials};

/// Cases that do not end as the documents say, each with what is wrong: shown as gaps. A case that ends well again must
/// be taken off the list.
pub const KNOWN_GAPS: &[(&str, &str)] = &[];

/// A second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// What happens before the packet in question.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, counted from the case's begin.
    pub at_ns: u64,
    /// It arrives; else this host sends it.
    pub ingress: bool,
    /// The frame.
    pub frame: Vec<u8>,
}

impl Event {
    /// This host sends a frame at the begin.
    pub fn sent(frame: Vec<u8>) -> Self {
        Self { at_ns: 0, ingress: false, frame }
    }

    /// A frame arrives at the begin.
    pub fn arrived(frame: Vec<u8>) -> Self {
        Self { at_ns: 0, ingress: true, frame }
    }

    /// The same, later.
    pub fn at(self, at_ns: u64) -> Self {
        Self { at_ns, ..self }
    }
}

/// Where a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Where strangers are.
    Outer,
    /// Where the containers' zone belongs.
    Inside,
}

/// The nearest honest packet.
#[derive(Clone, Debug)]
pub struct Twin {
    /// What happens before.
    pub before: Vec<Event>,
    /// When the packet arrives, counted from the twin's begin.
    pub at_ns: u64,
    /// Where it arrives.
    pub interface: Interface,
    /// The packet.
    pub frame: Vec<u8>,
    /// What it must pass as.
    pub passes_as: Reason,
}

impl Twin {
    /// A packet without a history.
    pub fn new(frame: Vec<u8>, passes_as: Reason) -> Self {
        Self { before: Vec::new(), at_ns: 0, interface: Interface::Outer, frame, passes_as }
    }

    /// A packet after others.
    pub fn after(before: Vec<Event>, at_ns: u64, frame: Vec<u8>, passes_as: Reason) -> Self {
        Self { before, at_ns, ..Self::new(frame, passes_as) }
    }

    /// The same on the inside interface.
    pub fn inside(self) -> Self {
        Self { interface: Interface::Inside, ..self }
    }
}

/// A packet, or a sweep of packets, that must die.
#[derive(Clone, Debug)]
pub struct Case {
    /// Theme and what is wrong with the packet; unique.
    pub name: String,
    /// What happens before.
    pub before: Vec<Event>,
    /// When the packet arrives, counted from the case's begin.
    pub at_ns: u64,
    /// The packet; several are a sweep, each of which must end as expected.
    pub frame: Vec<Vec<u8>>,
    /// What it may end with.
    pub expected: Vec<Reason>,
    /// What must pass.
    pub twin: Twin,
}

/// The cases so far, and hosts for the next one.
#[derive(Debug, Default)]
pub struct Suite {
    cases: Vec<Case>,
    hosts: u16,
}

impl Suite {
    /// Hosts that no other case has, so that none meets another's flows and fragments.
    pub fn hosts(&mut self, family: Family) -> Hosts {
        self.hosts += 1;
        Hosts { family, number: self.hosts }
    }

    /// A case without a history.
    pub fn add(&mut self, name: impl Into<String>, frame: Vec<u8>, expected: &[Reason], twin: Twin) {
        self.sweep(name, vec![frame], expected, twin);
    }

    /// A case of several packets.
    pub fn sweep(&mut self, name: impl Into<String>, frame: Vec<Vec<u8>>, expected: &[Reason], twin: Twin) {
        let expected = expected.to_vec();
        self.cases.push(Case { name: name.into(), before: Vec::new(), at_ns: 0, frame, expected, twin });
    }

    /// A case with a history.
    pub fn after(
        &mut self,
        name: impl Into<String>,
        (before, at_ns): (Vec<Event>, u64),
        frame: Vec<u8>,
        expected: &[Reason],
        twin: Twin,
    ) {
        let (frame, expected) = (vec![frame], expected.to_vec());
        self.cases.push(Case { name: name.into(), before, at_ns, frame, expected, twin });
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut suite = Suite::default();
    for theme in [
        link::add,
        ipv4::add,
        ipv6::add,
        fragments::add,
        tcp::add,
        udp::add,
        icmp::add,
        sources::add,
        protocols::add,
        state::add,
    ] {
        theme(&mut suite);
    }
    suite.cases
}
