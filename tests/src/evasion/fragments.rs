//! Fragments: ports exist in the first one alone, and the others follow it or die.

use proxy_common::abi::reason::Reason;

use super::build::{
    CLOSED, FAMILIES, Family, Hosts, ICMP, LAN_ONLY, LINK, NOBODY, OPEN, OPEN_UDP, Piece, TCP, UDP, fragment,
    tcp_header, udp_header,
};
use super::{Event, SECOND, Suite, Twin};
use crate::frames::{ACK, Path, SYN};

pub(super) fn add(suite: &mut Suite) {
    for family in FAMILIES {
        tiny(suite, family);
        orphans(suite, family);
        rewriting(suite, family);
        refused(suite, family);
        limits(suite, family);
    }
    special(suite);
}

/// A frame of a piece.
fn frame(path: &Path, protocol: u8, piece: Piece, payload: &[u8]) -> Vec<u8> {
    LINK.ip(&fragment(path, protocol, piece, payload))
}

fn first(id: u16) -> Piece {
    Piece { id, offset: 0, more: true }
}

fn last(id: u16, offset: u16) -> Piece {
    Piece { id, offset, more: false }
}

/// The first fragment, 24 bytes long, of a segment to a TCP port.
fn first_tcp(path: &Path, id: u16, port: u16) -> Vec<u8> {
    frame(path, TCP, first(id), &[&tcp_header(port, SYN)[..], &[0; 4]].concat())
}

/// The first fragment, 24 bytes long, of a long datagram to a UDP port.
fn first_udp(path: &Path, id: u16, port: u16) -> Vec<u8> {
    frame(path, UDP, first(id), &[&udp_header(port, 1000)[..], &[0; 16]].concat())
}

/// A later fragment that looks like a segment to the open port.
fn later(path: &Path, protocol: u8, piece: Piece) -> Vec<u8> {
    let payload = if protocol == UDP { udp_header(OPEN_UDP, 0) } else { tcp_header(OPEN, SYN) };
    frame(path, protocol, piece, &payload)
}

/// The honest pair: a first fragment to the open service, and its last.
fn pair(hosts: &Hosts) -> Twin {
    let path = hosts.inward();
    let before = vec![Event::arrived(first_tcp(&path, hosts.number, OPEN))];
    Twin::after(before, 0, later(&path, TCP, last(hosts.number, 3)), Reason::FragmentKnown)
}

fn tiny(suite: &mut Suite, family: Family) {
    for (what, protocol, header) in
        [("TCP", TCP, tcp_header(OPEN, SYN)), ("UDP", UDP, udp_header(OPEN_UDP, 1000))]
    {
        let hosts = suite.hosts(family);
        let twin = if protocol == TCP { first_tcp } else { first_udp };
        let port = if protocol == TCP { OPEN } else { OPEN_UDP };
        let twin = Twin::new(twin(&hosts.inward(), hosts.number, port), Reason::ServiceAllowed);
        let sweep =
            (0..header.len()).map(|n| frame(&hosts.inward(), protocol, first(hosts.number), &header[..n]));
        let name = format!("fragments: a first fragment with part of the {what} header, {family}");
        suite.sweep(name, sweep.collect(), &[Reason::FragmentMalformed], twin);
    }
    // The header's own length says that it goes on in the next fragment, where its options are.
    let hosts = suite.hosts(family);
    let mut header = tcp_header(OPEN, SYN);
    header[12] = 0xf0;
    header.extend([1; 4]);
    let tiny = frame(&hosts.inward(), TCP, first(hosts.number), &header);
    header.extend([1; 40]);
    let twin = Twin::new(frame(&hosts.inward(), TCP, first(hosts.number), &header), Reason::ServiceAllowed);
    let name = format!("fragments: a first fragment with part of the TCP options, {family}");
    suite.add(name, tiny, &[Reason::FragmentMalformed, Reason::MalformedTcp], twin);
}

fn orphans(suite: &mut Suite, family: Family) {
    let orphan = &[Reason::FragmentOrphan];
    for (what, protocol, offset) in [("TCP", TCP, 3), ("TCP", TCP, 185), ("UDP", UDP, 1), ("UDP", UDP, 185)] {
        let hosts = suite.hosts(family);
        let path = hosts.inward();
        let pieces = [false, true].map(|more| Piece { id: hosts.number, offset, more }).map(|piece| {
            match piece.more {
                true => frame(&path, protocol, piece, &[0x50; 24]),
                false => later(&path, protocol, piece),
            }
        });
        let name = format!("fragments: {what} at {} looks like an open port, {family}", offset * 8);
        suite.sweep(name, pieces.to_vec(), orphan, pair(&hosts));
    }
    // Each differs from the datagram that passed in one thing.
    let hosts = suite.hosts(family);
    let (path, id) = (hosts.inward(), hosts.number);
    let near = Path::new(path.source, hosts.other());
    let mut different = vec![
        ("identification", later(&path, TCP, last(id ^ 0x8000, 3))),
        ("source", later(&hosts.from(hosts.other()), TCP, last(id, 3))),
        ("destination", later(&near, TCP, last(id, 3))),
    ];
    if family == Family::V4 {
        // RFC 8200 does not ask for the protocol: later fragments of IPv6 may lie about it.
        different.push(("protocol", later(&path, UDP, last(id, 3))));
    }
    for (what, frame) in different {
        let before = vec![Event::arrived(first_tcp(&path, id, OPEN))];
        let name = format!("fragments: another {what} than the first fragment's, {family}");
        suite.after(name, (before, 0), frame, orphan, pair(&hosts));
    }
    let hosts = suite.hosts(family);
    let (path, id) = (hosts.inward(), hosts.number);
    for (what, late) in [("a millisecond", 30 * SECOND + 1_000_000), ("an hour", 3630 * SECOND)] {
        let before = vec![Event::arrived(first_tcp(&path, id, OPEN))];
        let name = format!("fragments: {what} after the 30 seconds, {family}");
        let twin = Twin { at_ns: 29 * SECOND, ..pair(&hosts) };
        suite.after(name, (before, late), later(&path, TCP, last(id, 3)), orphan, twin);
    }
    // Whole packets leave nothing behind that a fragment could follow.
    let hosts = suite.hosts(family);
    let (path, id) = (hosts.inward(), hosts.number);
    let whole = Piece { id, offset: 0, more: false };
    let before = vec![Event::arrived(frame(&path, TCP, whole, &tcp_header(OPEN, SYN)))];
    let name = format!("fragments: after a whole packet with the same identification, {family}");
    suite.after(name, (before, 0), later(&path, TCP, last(id, 3)), orphan, pair(&hosts));
}

/// RFC 1858, RFC 3128, RFC 5722: fragments that lie over the header that was judged.
fn rewriting(suite: &mut Suite, family: Family) {
    for offset in [1, 2] {
        let hosts = suite.hosts(family);
        let (path, id) = (hosts.inward(), hosts.number);
        for (what, before) in [
            ("after an honest first one", vec![Event::arrived(first_tcp(&path, id, OPEN))]),
            ("without a first one", Vec::new()),
        ] {
            let expected = if before.is_empty() {
                vec![Reason::FragmentMalformed, Reason::FragmentOrphan]
            } else {
                vec![Reason::FragmentMalformed]
            };
            let name = format!("fragments: TCP at offset {offset}, over the header, {what}, {family}");
            let payload = [0, 0, 0, 0, 0x50, SYN, 0, 0];
            suite.after(
                name,
                (before, 0),
                frame(&path, TCP, last(id, offset), &payload),
                &expected,
                pair(&hosts),
            );
        }
    }
    // The second first fragment is judged as the first was.
    for (what, port, expected) in
        [("closed", CLOSED, Reason::NoService), ("refused", NOBODY, Reason::ServiceRefused)]
    {
        let hosts = suite.hosts(family);
        let (path, id) = (hosts.inward(), hosts.number);
        let before = vec![Event::arrived(first_tcp(&path, id, OPEN))];
        let name = format!("fragments: a second first fragment to a {what} port, {family}");
        suite.after(name, (before, 0), first_tcp(&path, id, port), &[expected], pair(&hosts));
    }
}

fn refused(suite: &mut Suite, family: Family) {
    for (what, port) in [("closed", CLOSED), ("refused", NOBODY), ("LAN's", LAN_ONLY)] {
        let hosts = suite.hosts(family);
        let (path, id) = (hosts.inward(), hosts.number);
        let before = vec![Event::arrived(first_tcp(&path, id, port))];
        let name = format!("fragments: after a first fragment to a {what} port, {family}");
        suite.after(
            name,
            (before, 0),
            later(&path, TCP, last(id, 3)),
            &[Reason::FragmentOrphan],
            pair(&hosts),
        );

        let hosts = suite.hosts(family);
        let expected = if port == CLOSED { Reason::NoService } else { Reason::ServiceRefused };
        let name = format!("fragments: a first fragment to a {what} port, {family}");
        suite.add(name, first_tcp(&hosts.inward(), hosts.number, port), &[expected], pair(&hosts));
    }
    let hosts = suite.hosts(family);
    let path = hosts.inward();
    let name = format!("fragments: a first fragment of an unasked answer, {family}");
    let mut header = tcp_header(CLOSED, ACK);
    header.extend([0; 4]);
    suite.add(name, frame(&path, TCP, first(hosts.number), &header), &[Reason::NoService], pair(&hosts));

    for (what, source, expected) in [
        ("a denied source", Hosts::denied as fn(&Hosts) -> _, Reason::SourceDenied),
        ("a spoofed source", Hosts::container, Reason::SourceSpoofed),
    ] {
        let hosts = suite.hosts(family);
        let (path, id) = (hosts.from(source(&hosts)), hosts.number);
        let name = format!("fragments: a first fragment of {what}, {family}");
        suite.add(name, first_tcp(&path, id, OPEN), &[expected], pair(&hosts));
        let name = format!("fragments: a later fragment of {what}, {family}");
        let before = vec![Event::arrived(first_tcp(&path, id, OPEN))];
        suite.after(name, (before, 0), later(&path, TCP, last(id, 3)), &[expected], pair(&hosts));
    }
}

fn limits(suite: &mut Suite, family: Family) {
    let expected = &[Reason::FragmentMalformed];
    let hosts = suite.hosts(family);
    let (path, id) = (hosts.inward(), hosts.number);
    let before = || vec![Event::arrived(first_udp(&path, id, OPEN_UDP))];
    let twin = Twin::after(before(), 0, frame(&path, UDP, last(id, 3), &[0; 24]), Reason::FragmentKnown);
    for (what, piece, length) in [
        ("a fragment beyond 65,535 bytes", last(id, 8191), 16),
        ("a fragment of 1000 bytes beyond 65,535", last(id, 8100), 1000),
        ("a later fragment of no bytes", last(id, 3), 0),
        ("a fragment of no bytes with more to come", Piece { id, offset: 3, more: true }, 0),
        ("a fragment of 7 bytes with more to come", Piece { id, offset: 3, more: true }, 7),
        ("a fragment of 25 bytes with more to come", Piece { id, offset: 3, more: true }, 25),
    ] {
        let frame = frame(&path, UDP, piece, &vec![0; length]);
        suite.after(format!("fragments: {what}, {family}"), (before(), 0), frame, expected, twin.clone());
    }
    // The ping of death: each piece is well formed, the whole is not.
    let hosts = suite.hosts(family);
    let (path, id) = (hosts.inward(), hosts.number);
    let echo = [if family == Family::V4 { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let protocol = family.icmp();
    let before = vec![Event::arrived(frame(&path, protocol, first(id), &echo))];
    let twin = frame(&path, protocol, last(id, 2), &[0; 24]);
    let twin = Twin::after(before.clone(), 0, twin, Reason::FragmentKnown);
    let death = frame(&path, protocol, last(id, 8189), &[0; 100]);
    suite.after(format!("fragments: the ping of death, {family}"), (before, 0), death, expected, twin);
}

/// Fragments of one family alone.
fn special(suite: &mut Suite) {
    // RFC 6980: neighbour discovery is never fragmented.
    let hosts = suite.hosts(Family::V6);
    let path = hosts.inward();
    let solicitation = |id: Option<u16>| {
        let packet = super::icmp::solicitation(&path);
        let whole = super::build::hops(packet, 255);
        match id {
            None => LINK.ip(&whole),
            Some(id) => {
                let piece = Piece { id, offset: 0, more: true };
                LINK.ip(&super::build::hops(fragment(&path, super::build::ICMPV6, piece, &whole[40..]), 255))
            }
        }
    };
    suite.add(
        "fragments: neighbour discovery in fragments",
        solicitation(Some(hosts.number)),
        &[Reason::NoService, Reason::FragmentMalformed, Reason::NeighbourDiscoveryForged],
        Twin::new(solicitation(None), Reason::NeighbourDiscovery),
    );
    // RFC 7112: the first fragment holds all headers.
    let hosts = suite.hosts(Family::V6);
    let (path, id) = (hosts.inward(), hosts.number);
    let options = super::ipv6::extension(60, TCP, OPEN);
    let whole = [&options[..], &tcp_header(OPEN, SYN), &[0; 4]].concat();
    let sweep = (1..whole.len() / 8).map(|n| frame(&path, 60, first(id), &whole[..n * 8]));
    let sweep = sweep.filter(|frame| frame.len() < 14 + 40 + 8 + 16 + 20).collect();
    let twin = Twin::new(frame(&path, 60, first(id), &whole), Reason::ServiceAllowed);
    let expected = [Reason::FragmentMalformed, Reason::MalformedIpv6];
    suite.sweep("fragments: a first fragment without all its headers", sweep, &expected, twin);

    // IPv4's ICMP: an error in fragments quotes what nobody can check.
    let hosts = suite.hosts(Family::V4);
    let (path, id) = (hosts.inward(), hosts.number);
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
    suite.add(
        "fragments: an ICMP error in fragments, IPv4",
        frame(&path, ICMP, first(id), &error),
        &[Reason::IcmpErrorUnknown, Reason::FragmentMalformed, Reason::NoService, Reason::MalformedIcmp],
        pair(&hosts),
    );
}
