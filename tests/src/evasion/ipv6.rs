//! IPv6's header and its chain of extension headers: alone, in chains, out of order, cut, and with lengths that lie.

use proxy_common::abi::reason::Reason;

use super::build::{
    CLOSED, FROM, Family, Hosts, LINK, OPEN, OPEN_UDP, TCP, UDP, cuts, tcp_header, udp_header,
};
use super::{Suite, Twin};
use crate::frames::{IPV6, SYN};

/// Numbers of extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const NO_NEXT: u8 = 59;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Extension headers that a transport header may follow, with their names.
const WALKED: [(&str, u8); 5] = [
    ("hop-by-hop", HOP_BY_HOP),
    ("destination options", DESTINATION),
    ("a routing header with nothing left", ROUTING),
    ("an authentication header", AH),
    ("an atomic fragment", FRAGMENT),
];

pub(super) fn add(suite: &mut Suite) {
    alone(suite);
    order(suite);
    routing(suite);
    final_headers(suite);
    length_lies(suite);
    too_many(suite);
    truncated(suite);
    payload_lengths(suite);
    mapped_sources(suite);
}

fn hosts(suite: &mut Suite) -> Hosts {
    suite.hosts(Family::V6)
}

/// An extension header of 16 bytes (8 for a fragment's), whose second half shows a TCP header's ports.
pub(super) fn extension(kind: u8, next: u8, shown: u16) -> Vec<u8> {
    // AH counts in words of four bytes less two, the others in eights less one.
    let length = if kind == AH { 2 } else { 1 };
    if kind == FRAGMENT {
        return vec![next, 0, 0, 0, 0, 0, 0, 9];
    }
    let mut header = vec![next, length, 0, 0, 0, 0, 0, 0];
    if kind == HOP_BY_HOP || kind == DESTINATION {
        // One option of an experimental kind that hosts skip, to the header's end.
        header[2..4].copy_from_slice(&[0x1e, 12]);
    }
    header.extend(FROM.to_be_bytes());
    header.extend(shown.to_be_bytes());
    header.extend([0; 4]);
    header
}

/// A packet with a chain of extension headers before a segment.
pub(super) fn chain(hosts: &Hosts, kinds: &[u8], last: u8, shown: u16, segment: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (place, kind) in kinds.iter().enumerate() {
        payload.extend(extension(*kind, kinds.get(place + 1).copied().unwrap_or(last), shown));
    }
    payload.extend(segment);
    hosts.inward().packet(kinds.first().copied().unwrap_or(last), &payload)
}

fn frame(packet: &[u8]) -> Vec<u8> {
    LINK.frame(IPV6, packet)
}

/// A chain to the open port, with the closed one shown where a naive parser looks.
fn passing(hosts: &Hosts, kinds: &[u8]) -> Twin {
    let packet = chain(hosts, kinds, TCP, CLOSED, &tcp_header(OPEN, SYN));
    Twin::new(frame(&packet), Reason::ServiceAllowed)
}

fn alone(suite: &mut Suite) {
    for (what, kind) in WALKED {
        let hosts = hosts(suite);
        let packet = chain(&hosts, &[kind], TCP, OPEN, &tcp_header(CLOSED, SYN));
        let name = format!("ipv6: {what} before a closed port, TCP");
        suite.add(name, frame(&packet), &[Reason::NoService], passing(&hosts, &[kind]));

        let hosts = self::hosts(suite);
        let packet = chain(&hosts, &[kind], UDP, OPEN_UDP, &udp_header(CLOSED, 0));
        let twin = chain(&hosts, &[kind], UDP, CLOSED, &udp_header(OPEN_UDP, 0));
        let twin = Twin::new(frame(&twin), Reason::ServiceAllowed);
        let name = format!("ipv6: {what} before a closed port, UDP");
        suite.add(name, frame(&packet), &[Reason::NoService], twin);
    }
    for (what, kinds) in [
        ("hop-by-hop and destination options", &[HOP_BY_HOP, DESTINATION][..]),
        ("every header that may be walked", &[HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, AH, DESTINATION]),
        ("destination options twice", &[DESTINATION, DESTINATION]),
        ("two authentication headers", &[AH, AH]),
    ] {
        let hosts = hosts(suite);
        let packet = chain(&hosts, kinds, TCP, OPEN, &tcp_header(CLOSED, SYN));
        let name = format!("ipv6: {what} before a closed port");
        suite.add(name, frame(&packet), &[Reason::NoService], passing(&hosts, kinds));
    }
}

fn order(suite: &mut Suite) {
    for (what, kind) in WALKED {
        let hosts = hosts(suite);
        let packet = chain(&hosts, &[kind, HOP_BY_HOP], TCP, OPEN, &tcp_header(OPEN, SYN));
        suite.add(
            format!("ipv6: hop-by-hop after {what}"),
            frame(&packet),
            &[Reason::MalformedIpv6, Reason::Ipv6HeaderChain],
            passing(&hosts, &[HOP_BY_HOP, if kind == HOP_BY_HOP { DESTINATION } else { kind }]),
        );
    }
    let hosts = hosts(suite);
    let packet = chain(&hosts, &[FRAGMENT, FRAGMENT], TCP, OPEN, &tcp_header(OPEN, SYN));
    suite.add(
        "ipv6: two fragment headers",
        frame(&packet),
        &[Reason::MalformedIpv6, Reason::Ipv6HeaderChain, Reason::FragmentMalformed, Reason::FragmentOrphan],
        passing(&hosts, &[FRAGMENT]),
    );
}

fn routing(suite: &mut Suite) {
    for kind in [0, 1, 2, 3, 4, 253] {
        let hosts = hosts(suite);
        let with = |left| {
            let mut packet = chain(&hosts, &[ROUTING], TCP, CLOSED, &tcp_header(OPEN, SYN));
            packet[42] = kind;
            packet[43] = left;
            frame(&packet)
        };
        let name = format!("ipv6: routing header of type {kind} with segments left");
        let twin = Twin::new(with(0), Reason::ServiceAllowed);
        suite.sweep(name, (1..=255).map(with).collect(), &[Reason::Ipv6RoutingHeader], twin);
    }
    for (what, before) in [("hop-by-hop", HOP_BY_HOP), ("destination options", DESTINATION), ("AH", AH)] {
        let hosts = hosts(suite);
        let mut packet = chain(&hosts, &[before, ROUTING], TCP, CLOSED, &tcp_header(OPEN, SYN));
        packet[40 + 16 + 3] = 1;
        let name = format!("ipv6: routing header with a segment left after {what}");
        suite.add(name, frame(&packet), &[Reason::Ipv6RoutingHeader], passing(&hosts, &[before, ROUTING]));
    }
    let hosts = hosts(suite);
    let mut packet = chain(&hosts, &[ROUTING, ROUTING], TCP, CLOSED, &tcp_header(OPEN, SYN));
    packet[40 + 16 + 3] = 1;
    let name = "ipv6: a second routing header with a segment left";
    suite.add(name, frame(&packet), &[Reason::Ipv6RoutingHeader], passing(&hosts, &[ROUTING]));
}

/// Headers behind which no port can be known.
fn final_headers(suite: &mut Suite) {
    for (what, kind) in [("no next header", NO_NEXT), ("ESP", ESP)] {
        for (where_, before) in [("first", &[][..]), ("after destination options", &[DESTINATION][..])] {
            let hosts = hosts(suite);
            let sweep = [tcp_header(OPEN, SYN), extension(DESTINATION, TCP, OPEN), udp_header(OPEN_UDP, 0)]
                .map(|payload| frame(&chain(&hosts, before, kind, OPEN, &payload)));
            let name = format!("ipv6: {what} before an open port, {where_}");
            let expected = [Reason::NoService, Reason::MalformedIpv6];
            suite.sweep(name, sweep.to_vec(), &expected, passing(&hosts, before));
        }
    }
    for (what, kind) in [
        ("a mobility header", MOBILITY),
        ("HIP", HIP),
        ("shim6", SHIM6),
        ("experimental header 253", 253),
        ("experimental header 254", 254),
    ] {
        let hosts = hosts(suite);
        let sweep = [(OPEN, CLOSED), (CLOSED, CLOSED)]
            .map(|(shown, port)| frame(&chain(&hosts, &[kind], TCP, shown, &tcp_header(port, SYN))));
        let name = format!("ipv6: {what} before a closed port");
        let expected = [Reason::NoService, Reason::MalformedIpv6, Reason::Ipv6HeaderChain];
        suite.sweep(name, sweep.to_vec(), &expected, passing(&hosts, &[DESTINATION]));
    }
}

fn length_lies(suite: &mut Suite) {
    // A header whose length is read in the wrong unit ends elsewhere, where the other port stands.
    for words in [1, 2, 4, 6, 8, 14] {
        let hosts = hosts(suite);
        let with = |real: u16, shown: u16| {
            let mut packet = vec![TCP, words, 0, 0];
            packet.resize((usize::from(words) + 2) * 4, 0);
            packet.extend(tcp_header(real, SYN));
            // At eights plus one, and at fours plus one, if they lie behind the segment.
            for naive in [(usize::from(words) + 1) * 8, (usize::from(words) + 1) * 4] {
                if naive > packet.len() {
                    packet.resize(naive, 0);
                    packet.extend(tcp_header(shown, SYN));
                }
            }
            frame(&hosts.inward().packet(AH, &packet))
        };
        let name = format!("ipv6: authentication header of length {words} before a closed port");
        // Odd lengths break IPv6's alignment.
        let expected = [Reason::NoService, Reason::MalformedIpv6];
        let twin = if words % 2 == 0 {
            Twin::new(with(OPEN, CLOSED), Reason::ServiceAllowed)
        } else {
            passing(&hosts, &[AH])
        };
        suite.add(name, with(CLOSED, OPEN), if words % 2 == 0 { &expected[..1] } else { &expected }, twin);
    }
    let hosts = hosts(suite);
    let packet =
        hosts.inward().packet(AH, &[&[TCP, 0, 0, 0, 0, 0, 0, 0][..], &tcp_header(OPEN, SYN)].concat());
    suite.add(
        "ipv6: authentication header of length 0",
        frame(&packet),
        &[Reason::MalformedIpv6, Reason::NoService],
        passing(&hosts, &[AH]),
    );
    for (what, kind) in WALKED.into_iter().filter(|(_, kind)| *kind != FRAGMENT) {
        let hosts = self::hosts(suite);
        let whole = chain(&hosts, &[kind], TCP, CLOSED, &tcp_header(OPEN, SYN));
        let room = if kind == AH { 10 } else { 5 };
        let sweep = (room..=255).map(|length| {
            let mut packet = whole.clone();
            packet[41] = length;
            frame(&packet)
        });
        let name = format!("ipv6: {what} longer than the packet");
        let expected = [Reason::MalformedIpv6, Reason::MalformedTcp];
        suite.sweep(name, sweep.collect(), &expected, passing(&hosts, &[kind]));
    }
    // The byte where others have their length is reserved in a fragment header.
    let hosts = self::hosts(suite);
    let with = |reserved, port| {
        let mut packet = chain(&hosts, &[FRAGMENT], TCP, CLOSED, &tcp_header(port, SYN));
        packet.extend(tcp_header(OPEN, SYN));
        packet[4..6].copy_from_slice(&48u16.to_be_bytes());
        packet[41] = reserved;
        frame(&packet)
    };
    let twin = Twin::new(with(1, OPEN), Reason::ServiceAllowed);
    let sweep = (0..=255).map(|reserved| with(reserved, CLOSED)).collect();
    suite.sweep("ipv6: a fragment header's reserved byte", sweep, &[Reason::NoService], twin);
}

fn too_many(suite: &mut Suite) {
    for (what, kind) in WALKED.into_iter().filter(|(_, kind)| [DESTINATION, ROUTING, AH].contains(kind)) {
        for count in [9, 10, 16, 40] {
            let hosts = hosts(suite);
            let packet = chain(&hosts, &vec![kind; count], TCP, OPEN, &tcp_header(OPEN, SYN));
            let name = format!("ipv6: {what}, {count} times");
            suite.add(name, frame(&packet), &[Reason::Ipv6HeaderChain], passing(&hosts, &[kind; 8]));
        }
    }
    let hosts = hosts(suite);
    let kinds = [&[HOP_BY_HOP][..], &[DESTINATION; 7], &[FRAGMENT]].concat();
    let packet = chain(&hosts, &kinds, TCP, OPEN, &tcp_header(OPEN, SYN));
    let name = "ipv6: a fragment header as the ninth header";
    suite.add(name, frame(&packet), &[Reason::Ipv6HeaderChain], passing(&hosts, &kinds[1..]));
}

fn truncated(suite: &mut Suite) {
    for (what, kind) in WALKED.into_iter().chain([("nothing", TCP)]) {
        let hosts = hosts(suite);
        let kinds = if kind == TCP { &[][..] } else { &[kind] };
        let whole = chain(&hosts, kinds, TCP, CLOSED, &tcp_header(OPEN, SYN));
        let name = format!("ipv6: {what} before TCP, cut at each byte");
        suite.sweep(name, cuts(&whole, 0), &[Reason::MalformedIpv6], passing(&hosts, kinds));

        // The payload length tells the truth of what is left.
        let hosts = self::hosts(suite);
        let whole = chain(&hosts, kinds, TCP, CLOSED, &tcp_header(OPEN, SYN));
        let sweep = (40..whole.len()).map(|length| {
            let mut packet = whole[..length].to_vec();
            packet[4..6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
            frame(&packet)
        });
        let name = format!("ipv6: {what} before TCP, shortened at each byte");
        let mut expected = vec![Reason::MalformedTcp, Reason::MalformedIpv6];
        if kind == FRAGMENT {
            expected.push(Reason::FragmentMalformed);
        }
        suite.sweep(name, sweep.collect(), &expected, passing(&hosts, kinds));
    }
}

fn with_payload_length(mut packet: Vec<u8>, length: u16) -> Vec<u8> {
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    frame(&packet)
}

fn payload_lengths(suite: &mut Suite) {
    let hosts = hosts(suite);
    let packet = hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]);
    let sweep = [21, 22, 28, 40, 276, 0x1400, 0x8014, 0xffff]
        .map(|length| with_payload_length(packet.clone(), length));
    let name = "ipv6: payload length beyond the frame";
    suite.sweep(name, sweep.to_vec(), &[Reason::MalformedIpv6], hosts.honest());

    let hosts = self::hosts(suite);
    let packet = hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]);
    let sweep = (0..20).map(|length| with_payload_length(packet.clone(), length)).collect();
    let padded = Twin::new(frame(&[&packet[..], &[0; 8]].concat()), Reason::ServiceAllowed);
    let expected = [Reason::MalformedTcp, Reason::MalformedIpv6];
    suite.sweep("ipv6: the TCP header stands in the link's padding", sweep, &expected, padded);

    let hosts = self::hosts(suite);
    let packet = hosts.inward().udp(FROM, OPEN_UDP, &[]);
    let sweep = (0..8).map(|length| with_payload_length(packet.clone(), length)).collect();
    let padded = Twin::new(frame(&[&packet[..], &[0; 8]].concat()), Reason::ServiceAllowed);
    let expected = [Reason::MalformedUdp, Reason::MalformedIpv6];
    suite.sweep("ipv6: the UDP header stands in the link's padding", sweep, &expected, padded);

    // RFC 2675: a length of zero, and the true one in an option.
    let hosts = self::hosts(suite);
    let jumbo = [&[TCP, 0, 0xc2, 4, 0, 1, 0, 0][..], &tcp_header(OPEN, SYN)].concat();
    let packet = hosts.inward().packet(HOP_BY_HOP, &jumbo);
    let sweep = vec![with_payload_length(packet.clone(), 0)];
    suite.sweep("ipv6: a jumbogram", sweep, &expected[1..], passing(&hosts, &[HOP_BY_HOP]));
}

/// No packet carries IPv4 addresses in IPv6 form: no service for the LAN may take them for the LAN's.
fn mapped_sources(suite: &mut Suite) {
    for (what, low, port) in [
        ("the LAN", 0xc0a8_0005u32, super::build::LAN_ONLY),
        ("a denied host", 0x6442_0005, OPEN),
        ("loopback", 0x7f00_0001, OPEN),
    ] {
        let hosts = hosts(suite);
        let source = std::net::Ipv4Addr::from(low).to_ipv6_mapped();
        let packet = hosts.from(source).tcp(FROM, port, SYN, 1, &[]);
        suite.add(
            format!("ipv6: {what}'s IPv4 address in IPv6 form"),
            frame(&packet),
            &[Reason::SourceInvalid, Reason::SourceDenied, Reason::ServiceRefused],
            Twin::new(frame(&hosts.from(hosts.lan()).tcp(FROM, port, SYN, 1, &[])), Reason::ServiceAllowed),
        );
    }
}
