//! Who is told that a packet was rejected, and how: the section "Rejecting" of docs/policy.md. Called by `engine` for each
//! packet that arrives.
//!
//! Says it of the packet's bytes, with an arithmetic of its own for checksums. Where the page leaves it to the history whether
//! a packet is answered (a connection that may have timed out, a source that has had its answers), either will do.

use std::collections::HashMap;

use proxy_common::abi::reason::Reason;
use proxy_common::packet::transport::{ACK, FIN, RST, SYN};
use proxy_common::packet::{Addr, Fragment, PacketInfo, Slice, icmp, parse, protocol};
use tollgate::policy::model::{DefaultAction, Interface, Policy, Refusal};

use crate::rules::{Past, service_of};

/// Answers that a source gets at once, and how often another one.
const AT_ONCE: u64 = 20;
const ANOTHER_NS: u64 = 100_000_000;
/// After a SYN of this host its connection is remembered for as long as this, whatever follows: the shortest of TCP's timeouts
/// in the policy.
const REMEMBERED_NS: u64 = 5_000_000_000;
const HOPS: u8 = 64;
const ETHERNET: usize = 14;
const TAG: usize = 4;
const TAGS: [[u8; 2]; 3] = [[0x81, 0], [0x88, 0xa8], [0x91, 0]];

/// A packet that arrived, and what it was decided for.
pub struct Rejected<'a> {
    pub frame: &'a [u8],
    pub p: &'a PacketInfo,
    pub reason: Reason,
    pub now_ns: u64,
}

/// The answers that were given.
pub struct Answers {
    since_ns: u64,
    /// How many by source: an IPv4 address, an IPv6 /64.
    given: HashMap<(bool, u64), u64>,
}

impl Answers {
    /// None yet.
    pub fn new(since_ns: u64) -> Self {
        Self { since_ns, given: HashMap::new() }
    }

    /// Checks whether a packet was rightly answered, or rightly not.
    pub fn check(
        &mut self,
        policy: &Policy,
        entry: &Interface,
        past: &Past,
        packet: &Rejected<'_>,
        answer: Option<&[u8]>,
    ) {
        let p = packet.p;
        let given = self.given.entry((p.v6, p.source.hi)).or_default();
        let may = rejects(policy, entry, p, packet.reason) && may_be_answered(packet.frame, p);
        let Some(answer) = answer else {
            let silent = !may || may_be_ours(past, p) || *given >= AT_ONCE;
            assert!(silent, "rejected, and the sender is not told: {p:?}");
            return;
        };
        assert!(may, "an answer to {:?} {p:?}", packet.reason);
        assert!(!is_ours(past, p, packet.now_ns), "the answer would end a connection of this host: {p:?}");
        *given += 1;
        let refilled = (packet.now_ns - self.since_ns) / ANOTHER_NS;
        assert!(*given <= AT_ONCE + refilled, "the answer number {given} to {p:?}");
        inspect(packet.frame, p, answer);
    }
}

/// The policy says that the sender is told.
fn rejects(policy: &Policy, entry: &Interface, p: &PacketInfo, reason: Reason) -> bool {
    match reason {
        Reason::NoService => entry.default == DefaultAction::Reject,
        Reason::ServiceRefused | Reason::ServiceDenied => {
            service_of(policy, p).is_some_and(|service| service.refuse == Refusal::Reject)
        }
        _ => false,
    }
}

/// A SYN of a connection that this host has begun at some time.
fn may_be_ours(past: &Past, p: &PacketInfo) -> bool {
    is_ours(past, p, 0)
}

/// The same, of one that is remembered at this time for sure.
fn is_ours(past: &Past, p: &PacketInfo, now_ns: u64) -> bool {
    let ends = (p.source, p.destination, p.source_port, p.destination_port);
    let opened = past.opened_ns.get(&ends).filter(|_| p.protocol == protocol::TCP);
    opened.is_some_and(|opened_ns| now_ns.saturating_sub(*opened_ns) <= REMEMBERED_NS)
}

/// It is none of those that never get an answer.
fn may_be_answered(frame: &[u8], p: &PacketInfo) -> bool {
    let to_one = |address: Addr| {
        let first = address.hi >> 56;
        if p.v6 { first != 0xff } else { first != 0 && first < 224 }
    };
    let icmp = [protocol::ICMP, protocol::ICMPV6].contains(&p.protocol);
    p.fragment == Fragment::Whole
        && (frame[0] | frame[6]) & 1 == 0
        && to_one(p.source)
        && to_one(p.destination)
        && (!icmp || icmp::is_echo_request(p))
        && !(p.protocol == protocol::TCP && p.tcp_flags & RST != 0)
}

/// The bytes of an answer are what the page says.
fn inspect(frame: &[u8], p: &PacketInfo, answer: &[u8]) {
    let network_at = network_at(frame);
    let a = parse(&Slice(answer)).expect("an answer is a packet");
    let turned = [&frame[6..12], &frame[..6], &frame[12..network_at]].concat();
    assert_eq!(answer[..network_at], turned, "the link header is not turned round: {p:?}");
    assert_eq!(a.end, answer.len(), "something stands behind the answer: {a:?}");
    assert_eq!((a.v6, a.hop_limit, a.fragment), (p.v6, HOPS, Fragment::Whole), "{a:?}");
    assert_eq!((a.source, a.destination), (p.destination, p.source), "from another address: {a:?}");
    if !p.v6 {
        assert_eq!(sum(&answer[network_at..a.transport_at], 0), 0xffff, "checksum of the IPv4 header");
    }
    // ICMP of IPv4 has no pseudo-header.
    let addresses = if p.v6 {
        &answer[network_at + 8..network_at + 40]
    } else {
        &answer[a.transport_at - 8..a.transport_at]
    };
    let message = &answer[a.transport_at..];
    let pseudo = if a.protocol == protocol::ICMP {
        0
    } else {
        sum(addresses, u32::from(a.protocol) + message.len() as u32)
    };
    assert_eq!(sum(message, u32::from(pseudo)), 0xffff, "checksum of the message: {a:?}");
    if p.protocol == protocol::TCP {
        let header = &frame[p.transport_at..p.end];
        reset(p, header, &a, message);
    } else {
        unreachable(p, &frame[network_at..p.end], &a, message);
    }
}

/// RFC 9293 section 3.10.7.1.
fn reset(p: &PacketInfo, header: &[u8], a: &PacketInfo, message: &[u8]) {
    let number =
        |from: &[u8], at: usize| from[at..at + 4].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    assert_eq!((a.protocol, message.len()), (protocol::TCP, 20), "{a:?}");
    assert_eq!((a.source_port, a.destination_port), (p.destination_port, p.source_port), "{a:?}");
    let expected = if p.tcp_flags & ACK != 0 {
        (RST, number(header, 8), 0)
    } else {
        let data = header.len() - usize::from(header[12] >> 4) * 4;
        let marks = [SYN, FIN].iter().filter(|flag| p.tcp_flags & **flag != 0).count();
        (RST | ACK, 0, number(header, 4).wrapping_add((data + marks) as u32))
    };
    assert_eq!((a.tcp_flags, number(message, 4), number(message, 8)), expected, "flags and numbers of {a:?}");
}

/// RFC 792 and RFC 4443. `packet` begins with the IP header.
fn unreachable(p: &PacketInfo, packet: &[u8], a: &PacketInfo, message: &[u8]) {
    let port = p.protocol == protocol::UDP;
    let expected = match (p.v6, port) {
        (false, true) => (protocol::ICMP, 3, 3),
        (false, false) => (protocol::ICMP, 3, 13),
        (true, true) => (protocol::ICMPV6, 1, 4),
        (true, false) => (protocol::ICMPV6, 1, 1),
    };
    assert_eq!((a.protocol, a.icmp_type, a.icmp_code), expected, "{a:?}");
    let most = if p.v6 { 104 } else { usize::from(packet[0] & 15) * 4 + 8 };
    assert_eq!(message[4..8], [0; 4], "{a:?}");
    assert_eq!(message[8..], packet[..packet.len().min(most)], "what is quoted is not the packet: {a:?}");
}

/// Where the IP header begins.
fn network_at(frame: &[u8]) -> usize {
    let kinds = frame[ETHERNET - 2..].chunks(2).step_by(TAG / 2);
    ETHERNET + TAG * kinds.take_while(|kind| TAGS.iter().any(|tag| tag == kind)).count()
}

/// The one's complement sum of 16-bit words (RFC 1071); with the checksum among them all bits are set.
fn sum(bytes: &[u8], before: u32) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum = bytes.chunks(2).map(word).sum::<u32>() + before;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}
