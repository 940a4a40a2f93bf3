//! A random sequence of frames in both directions, and the time of each: what [`super::run()`] has judged three times.
//!
//! The sequence remembers what it sent, so that replies, errors and later fragments follow; some frames are damaged
//! afterwards, and some are noise from the start.

use std::collections::VecDeque;
use std::net::IpAddr;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tollgate::policy::Policy;

use super::mutate;
use super::packets;
use super::pools::Pools;
use super::wire::{self, Header, Payload};

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;
pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// The limiter's cells hold 78 hours and are swept by the daemon. Without one, a sequence must end before.
const LONGEST_NS: u64 = 70 * 3600 * SECOND_NS;
/// What is remembered of each kind.
const MEMORY: usize = 24;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub now_ns: u64,
    /// This host sends it.
    pub egress: bool,
}

/// A frame that must follow for an edge to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planned {
    /// The last frame once more.
    Same,
    /// The last frame from an address close by.
    Neighbour,
    /// A later fragment of the datagram that began last.
    Later,
    /// Another first fragment of it.
    First,
    /// A reply to what this host sent last; with these flags, if it is TCP.
    Reply(u8),
    /// An error about what this host sent last.
    Error,
}

/// Both ends of what was sent, seen from this host.
#[derive(Clone, Debug)]
pub struct Sent {
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    /// Ports; the identifier twice for an echo.
    pub(super) ports: (u16, u16),
    /// The whole IP packet, to be quoted.
    pub(super) packet: Vec<u8>,
    pub(super) protocol: u8,
}

/// A datagram of which a first fragment arrived.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) id: u32,
}

/// The sequence.
#[derive(Debug)]
pub struct Traffic {
    pub(super) rng: StdRng,
    pub(super) pools: Pools,
    pub(super) sent: Vec<Sent>,
    pub(super) begun: Vec<Begun>,
    now_ns: u64,
    end_ns: u64,
    /// This host sent the last frame.
    egress: bool,
    /// What comes next, and how much later.
    planned: VecDeque<(u64, Planned)>,
    /// Moments at which something ends, and those beside them.
    edges: Vec<u64>,
}

impl Traffic {
    /// Of a policy. The same generator in the same state gives the same sequence.
    pub fn new(policy: &Policy, mut rng: StdRng) -> Self {
        let pools = Pools::of(policy, &mut rng);
        // At boot, later, and where the limiter's 48 bits of time are about to wrap.
        let starts = [0, 1, SECOND_NS, 3600 * SECOND_NS, (1 << 48) - 5 * SECOND_NS, (7 << 48) - 1, 1 << 60];
        let now_ns = starts.choose(&mut rng).copied().unwrap_or(0);
        let end_ns = if pools.unlimited { u64::MAX } else { now_ns + LONGEST_NS };
        let (sent, begun, edges) = (Vec::new(), Vec::new(), Vec::new());
        Self { rng, pools, sent, begun, now_ns, end_ns, egress: false, planned: VecDeque::new(), edges }
    }

    /// Puts the next frame into `frame`, which holds the last one: some come in bursts, to use up limits.
    pub fn next_into(&mut self, frame: &mut Vec<u8>) -> Step {
        if let Some((leap, planned)) = self.planned.pop_front() {
            self.leap(leap);
            match planned {
                Planned::Same => {}
                Planned::Neighbour => {
                    let nth = self.rng.random_range(0..4);
                    wire::change_source(frame, nth);
                }
                Planned::Later => self.part(frame, false),
                Planned::First => self.part(frame, true),
                Planned::Reply(_) | Planned::Error => self.answer(frame, planned),
            }
            // An error quotes a whole packet, which may be as long as a frame.
            frame.truncate(mutate::MOST_BYTES);
            return Step { now_ns: self.now_ns, egress: self.egress };
        }
        self.pass_time();
        self.egress = self.rng.random_bool(0.2);
        let egress = self.egress;
        self.fill(frame, egress);
        frame.truncate(mutate::MOST_BYTES);
        if self.rng.random_bool(0.05) {
            let times = self.one(&[1, 2, 4, 8, 16], 1);
            self.burst(times);
        }
        Step { now_ns: self.now_ns, egress }
    }

    fn part(&mut self, frame: &mut Vec<u8>, first: bool) {
        let Some(begun) = self.begun.last().copied() else { return };
        self.egress = false;
        let packet = packets::part(self, begun, first);
        wire::frame(frame, &[], if begun.source.is_ipv6() { 0x86dd } else { 0x0800 }, &packet);
    }

    fn answer(&mut self, frame: &mut Vec<u8>, planned: Planned) {
        let Some(sent) = self.sent.last() else { return };
        self.egress = false;
        let v6 = sent.local.is_ipv6();
        let payload = match planned {
            Planned::Reply(flags) => packets::reply_to(sent, flags),
            _ => wire::icmp(v6, if v6 { 1 } else { 3 }, 1, 0, &sent.packet),
        };
        let packet = wire::packet(&Header::default(), sent.remote, sent.local, &payload);
        wire::frame(frame, &[], if v6 { 0x86dd } else { 0x0800 }, &packet);
    }

    /// Plans the last frame again: as often as it takes to use up a limit, and then at moments when a token has come back or
    /// nearly so.
    pub(super) fn burst(&mut self, times: usize) {
        self.flood(times);
        for _ in 0..times.min(5) {
            let exact = self.one(&self.pools.refills.clone(), 0);
            let leap = match self.rng.random_range(0..6) {
                0 => exact,
                1 => exact.saturating_sub(1),
                2 => exact + 1,
                _ => 0,
            };
            self.planned.push_back((leap.min(60 * SECOND_NS), Planned::Same));
        }
    }

    /// Plans the last frame again, from one source or several, while no time passes.
    fn flood(&mut self, times: usize) {
        let crowd = self.rng.random_bool(0.4);
        for _ in 0..times {
            let another = crowd && self.rng.random_bool(0.7);
            self.planned.push_back((0, if another { Planned::Neighbour } else { Planned::Same }));
        }
    }

    /// Plans the life of the flow that was begun last: how it gets into one of its states, and a reply when it is about to be
    /// forgotten.
    pub(super) fn plan_life(&mut self, protocol: u8) {
        let [opening, established, closing, udp, icmp] = self.pools.timeouts;
        let handshake = (0, Planned::Reply(SYN | ACK));
        let timeout_ns = match (protocol, self.rng.random_range(0..4)) {
            (6, 0) => opening,
            (6, 1) => {
                self.planned.extend([handshake, (0, Planned::Reply(ACK | FIN))]);
                closing
            }
            (6, _) => {
                self.planned.push_back(handshake);
                established
            }
            (17, _) => udp,
            _ => icmp,
        };
        let mut near = |ns: u64| ns + self.rng.random_range(0..3) - 1;
        let (noted_ns, ended_ns) = (near((timeout_ns / 8).min(SECOND_NS)), near(timeout_ns));
        // About when a packet of it counts again, so that it lives on or not.
        let again_ns = if self.rng.random_bool(0.5) { noted_ns } else { 0 };
        self.planned.push_back((again_ns, Planned::Reply(ACK)));
        let last = if self.rng.random_bool(0.3) { Planned::Error } else { Planned::Reply(ACK) };
        self.planned.push_back((ended_ns - again_ns, last));
    }

    fn fill(&mut self, frame: &mut Vec<u8>, egress: bool) {
        match self.rng.random_range(0..100) {
            0..3 => self.noise(frame),
            3..6 => packets::link(self, frame),
            _ => self.ip(frame, egress),
        }
        if self.rng.random_bool(0.08) {
            mutate::damage(&mut self.rng, frame);
        }
    }

    fn leap(&mut self, ns: u64) {
        let now_ns = self.now_ns.saturating_add(ns);
        if now_ns <= self.end_ns {
            self.now_ns = now_ns;
        }
    }

    fn pass_time(&mut self) {
        let rng = &mut self.rng;
        let leap = match rng.random_range(0..200) {
            0..110 => 0,
            110..130 => rng.random_range(0..1000),
            130..150 => rng.random_range(0..50_000_000),
            150..170 => rng.random_range(0..2 * SECOND_NS),
            170..180 => SECOND_NS + rng.random_range(0..3) - 1,
            180..190 => {
                let exact = self.pools.refills.choose(rng).copied().unwrap_or(SECOND_NS);
                (exact + rng.random_range(0..3)).saturating_sub(1).min(600 * SECOND_NS)
            }
            190..198 => {
                let now_ns = self.now_ns;
                self.edges.retain(|edge| *edge > now_ns);
                self.edges.choose(rng).map_or(0, |edge| edge - now_ns)
            }
            198 => rng.random_range(0..2 * 3600 * SECOND_NS),
            _ if self.pools.unlimited => rng.random_range(0..20 * 86_400 * SECOND_NS),
            _ => rng.random_range(0..60 * SECOND_NS),
        };
        self.leap(leap);
    }

    /// Remembers when what happens now is forgotten.
    pub(super) fn ends_after(&mut self, ns: u64) {
        if self.edges.len() < MEMORY {
            let around = self.rng.random_range(0..3);
            self.edges.push((self.now_ns.saturating_add(ns) + around).saturating_sub(1));
        }
    }

    fn noise(&mut self, frame: &mut Vec<u8>) {
        let length = self.rng.random_range(0..160);
        frame.clear();
        frame.resize(length, 0);
        self.rng.fill(frame.as_mut_slice());
        if self.rng.random_bool(0.7) && length > 14 {
            // Something to read for the parsers.
            let v6 = self.rng.random_bool(0.5);
            let (ethertype, first) = if v6 { ([0x86, 0xdd], 0x60) } else { ([0x08, 0x00], 0x45) };
            frame[12..14].copy_from_slice(&ethertype);
            frame[14] = first;
        }
    }

    fn ip(&mut self, frame: &mut Vec<u8>, egress: bool) {
        let packet = if egress { packets::outgoing(self) } else { packets::incoming(self) };
        let tags: &[u16] = match self.rng.random_range(0..40) {
            0..3 => &[0x8100],
            3..5 => &[0x88a8, 0x8100],
            5 => &[0x9100, 0x88a8],
            6 if self.rng.random_bool(0.3) => &[0x8100, 0x8100, 0x8100],
            _ => &[],
        };
        let v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        wire::frame(frame, tags, if v6 { 0x86dd } else { 0x0800 }, &packet);
        if self.rng.random_bool(0.3) && frame.len() < 60 {
            frame.resize(60, 0);
        }
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T], otherwise: T) -> T {
        of.choose(&mut self.rng).copied().unwrap_or(otherwise)
    }

    /// An address of the other side, mostly one at an edge of the policy.
    pub(super) fn remote(&mut self, v6: bool) -> IpAddr {
        let pool = if v6 { &self.pools.v6 } else { &self.pools.v4 };
        if self.rng.random_bool(0.03) {
            return if v6 {
                IpAddr::from(self.rng.random::<[u8; 16]>())
            } else {
                IpAddr::from(self.rng.random::<[u8; 4]>())
            };
        }
        // The first few are ordinary.
        let pool = if self.rng.random_bool(0.4) { &pool[..pool.len().min(4)] } else { pool };
        pool.choose(&mut self.rng).copied().unwrap_or(IpAddr::from([203, 0, 113, 9]))
    }

    /// An address of this host.
    pub(super) fn local(&mut self, v6: bool) -> IpAddr {
        let local: &[&str] = if v6 {
            &["2001:db8::104", "fe80::104", "ff02::1", "ff02::fb"]
        } else {
            &["192.0.2.104", "10.1.2.104", "224.0.0.251"]
        };
        let last = if self.rng.random_bool(0.9) { 1 } else { local.len() };
        self.one(&local[..last], local[0]).parse().unwrap_or(IpAddr::from([192, 0, 2, 104]))
    }

    /// A port, mostly at an edge of a service.
    pub(super) fn port(&mut self) -> u16 {
        if self.rng.random_bool(0.05) {
            return self.rng.random();
        }
        self.pools.ports.choose(&mut self.rng).copied().unwrap_or(80)
    }

    /// A port of clients; few, so that flows meet again.
    pub(super) fn client_port(&mut self) -> u16 {
        self.one(&[40_000, 40_001, 53, 443, 5353], 40_000)
    }

    /// Remembers what this host sent.
    pub(super) fn note_sent(&mut self, sent: Sent) {
        for timeout_ns in self.pools.timeouts {
            if self.rng.random_bool(0.2) {
                self.ends_after(timeout_ns);
            }
        }
        if self.sent.len() == MEMORY {
            self.sent.swap_remove(0);
        }
        self.sent.push(sent);
    }

    /// Puts an IP header in front, with fragments, options and extensions as they come.
    pub(super) fn wrap(&mut self, source: IpAddr, destination: IpAddr, payload: &Payload) -> Vec<u8> {
        let header = packets::header(self, source.is_ipv6());
        self.wrap_with(&header, source, destination, payload)
    }

    /// The same with a header of the caller.
    pub(super) fn wrap_with(
        &mut self,
        header: &Header,
        from: IpAddr,
        to: IpAddr,
        payload: &Payload,
    ) -> Vec<u8> {
        if header.offset == 0 && header.more {
            let protocol = header.inner.first().map_or(payload.protocol, |(number, _)| *number);
            if self.begun.len() == MEMORY {
                self.begun.swap_remove(0);
            }
            self.begun.push(Begun { source: from, destination: to, protocol, id: header.id });
            if self.rng.random_bool(0.3) {
                if self.rng.random_bool(0.3) {
                    self.planned.push_back((0, Planned::First));
                }
                let leap = [0, 30 * SECOND_NS - 1, 30 * SECOND_NS, 30 * SECOND_NS + 1];
                let leap = self.one(&leap, 0);
                self.planned.push_back((leap, Planned::Later));
            }
        }
        wire::packet(header, from, to, payload)
    }
}
