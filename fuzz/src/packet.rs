//! The packet parser: any frame that a stranger may send.

use etherparse::{SlicedPacket, TransportSlice};
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::packet::{Fragment, PacketInfo, PacketView, Slice, icmp, parse, protocol};

use crate::engine;

/// Length of an Ethernet header and the shortest IP header.
const SHORTEST: usize = 34;
const MALFORMED: [Reason; 3] = [Reason::MalformedEthernet, Reason::MalformedIpv4, Reason::MalformedIpv6];

/// Parses any bytes as a frame.
///
/// # Panics
/// If what is said of a packet is not in the packet, or the reference interpreter reads another.
pub fn run(data: &[u8]) {
    engine::alone(data);
    match parse(&Slice(data)) {
        Ok(p) => {
            lengths(data, &p);
            header(data, &p);
            cuts(data, &p);
            quote(data, &p);
            second_opinion(data, &p);
        }
        Err(reason) => {
            assert!(!reason.has_rule(), "the parser knows no rules: {reason:?}");
            let passes = matches!(reason.verdict(), Verdict::Pass);
            let link = matches!(reason, Reason::Arp | Reason::LinkControl);
            assert_eq!(passes, link, "what is no packet of ours passes only for the link: {reason:?}");
        }
    }
}

fn lengths(data: &[u8], p: &PacketInfo) {
    assert!(p.transport_at >= SHORTEST, "the transport header overlaps the IP header: {p:?}");
    assert!(p.transport_at <= p.end && p.end <= data.len(), "the packet leaves its frame: {p:?}");
    if !p.v6 {
        let four = [p.source, p.destination].iter().all(|addr| addr.lo == 0 && addr.hi << 32 == 0);
        assert!(four, "an IPv4 address has 32 bits: {p:?}");
    }
    assert!(p.fragment == Fragment::Whole || p.v6 || p.fragment_id <= 0xffff);
    let fits = p.fragment != Fragment::Later || p.end > p.transport_at;
    assert!(fits, "a fragment that carries nothing was accepted: {p:?}");
}

/// What is said of the transport header stands there, inside the packet; where nothing was read, nothing is said.
fn header(data: &[u8], p: &PacketInfo) {
    let inside = &data[p.transport_at..p.end];
    let word = |at: usize| u16::from_be_bytes([inside[at], inside[at + 1]]);
    let said = (p.source_port, p.destination_port, p.tcp_flags, p.icmp_type, p.icmp_code);
    let there = match (p.fragment, p.protocol) {
        (Fragment::Later, _) => (0, 0, 0, 0, 0),
        (_, protocol::TCP) => {
            assert!(inside.len() >= 20, "a TCP header leaves its packet: {p:?}");
            assert!(
                usize::from(inside[12] >> 4) * 4 <= inside.len(),
                "TCP options leave their packet: {p:?}"
            );
            (word(0), word(2), inside[13], 0, 0)
        }
        (_, protocol::UDP) => {
            assert!(inside.len() >= 8, "a UDP header leaves its packet: {p:?}");
            (word(0), word(2), 0, 0, 0)
        }
        // The other family's ICMP is a protocol like any other.
        (_, icmp) if icmp == if p.v6 { protocol::ICMPV6 } else { protocol::ICMP } => {
            assert!(inside.len() >= 8, "an ICMP header leaves its packet: {p:?}");
            (word(4), 0, 0, inside[0], inside[1])
        }
        _ => (0, 0, 0, 0, 0),
    };
    assert_eq!(said, there, "(source port, destination port, TCP flags, ICMP type, ICMP code) of {p:?}");
}

/// Padding says nothing, and a packet that is cut anywhere is malformed.
fn cuts(data: &[u8], p: &PacketInfo) {
    assert_eq!(parse(&Slice(&data[..p.end])), Ok(*p), "padding changes a packet");
    let padded = [data, &[0xff; 9]].concat();
    assert_eq!(parse(&Slice(&padded)), Ok(*p), "padding changes a packet");
    let middle = p.end / 2;
    for cut in [0, 13, 14, middle, p.transport_at - 1, p.end - 1] {
        let cut = cut.min(p.end - 1);
        let reason = parse(&Slice(&data[..cut])).expect_err("a packet that was cut is whole");
        assert!(MALFORMED.contains(&reason), "cut after {cut} of {} bytes: {reason:?}", p.end);
    }
}

/// A quoted packet is read from inside the error that quotes it.
fn quote(data: &[u8], p: &PacketInfo) {
    let quoted = icmp::quote(&Slice(data), p);
    assert_eq!(quoted, icmp::quote(&Slice(&data[..p.end]), p), "padding changes what is quoted");
    if let Some(quote) = quoted {
        let shortest = p.transport_at + 8 + if p.v6 { 40 } else { 20 } + 8;
        assert!(shortest <= p.end, "the quote leaves its packet: {p:?}");
        let known = [protocol::TCP, protocol::UDP, if p.v6 { protocol::ICMPV6 } else { protocol::ICMP }];
        assert!(known.contains(&quote.protocol), "{quote:?}");
    }
    assert_eq!(Slice(data).bytes::<1>(data.len()), None);
}

/// Where another parser sees ports, it sees the same. Not of fragments: etherparse reads ports from some later ones, behind
/// more than one header of destination options.
fn second_opinion(data: &[u8], p: &PacketInfo) {
    if p.fragment != Fragment::Whole || ![protocol::TCP, protocol::UDP].contains(&p.protocol) {
        return;
    }
    let Ok(other) = SlicedPacket::from_ethernet(data) else { return };
    let ports = match other.transport {
        Some(TransportSlice::Tcp(tcp)) => (protocol::TCP, tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (protocol::UDP, udp.source_port(), udp.destination_port()),
        _ => return,
    };
    assert_eq!((p.protocol, p.source_port, p.destination_port), ports, "etherparse differs");
}
