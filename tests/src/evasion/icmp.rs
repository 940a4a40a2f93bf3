//! ICMP: errors about packets that nobody sent, messages that no host needs, neighbour discovery from afar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::abi::reason::Reason;

use super::build::{
    CLOSED, FAMILIES, FROM, Family, Hosts, ICMP, ICMPV6, LINK, OPEN, OPEN_UDP, edit_ipv4, hops, icmp,
};
use super::{Event, SECOND, Suite, Twin};
use crate::frames::{ACK, Path, SYN};

pub(super) fn add(suite: &mut Suite) {
    for family in FAMILIES {
        errors(suite, family);
        quotes(suite, family);
        messages(suite, family);
        lengths(suite, family);
    }
    other_family(suite);
    discovery(suite);
    membership(suite);
}

/// Errors that a host needs: type, code and name.
fn kinds(family: Family) -> &'static [(u8, u8, &'static str)] {
    match family {
        Family::V4 => &[
            (3, 3, "port unreachable"),
            (3, 4, "fragmentation needed"),
            (11, 0, "time exceeded"),
            (12, 0, "parameter problem"),
        ],
        Family::V6 => &[
            (1, 4, "port unreachable"),
            (2, 0, "packet too big"),
            (3, 0, "time exceeded"),
            (4, 0, "parameter problem"),
        ],
    }
}

/// An error that quotes a packet.
fn error(path: &Path, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    LINK.ip(&icmp(path, kind, code, &[&[0, 0, 5, 0], quoted].concat()))
}

/// The server opens a connection to the stranger, whose router or who himself says that it failed.
fn flow(hosts: &Hosts) -> (Vec<Event>, Vec<u8>) {
    let packet = hosts.outward().tcp(FROM, 443, SYN, 1, &[]);
    (vec![Event::sent(LINK.ip(&packet))], packet)
}

/// The honest error about that connection.
fn honest(hosts: &Hosts, kind: u8, code: u8) -> Twin {
    let (before, packet) = flow(hosts);
    Twin::after(before, SECOND, error(&hosts.inward(), kind, code, &packet), Reason::IcmpError)
}

fn errors(suite: &mut Suite, family: Family) {
    let unknown = &[Reason::IcmpErrorUnknown];
    for (kind, code, what) in kinds(family) {
        let hosts = suite.hosts(family);
        let (before, packet) = flow(&hosts);
        let forged = error(&hosts.inward(), *kind, *code, &packet);
        let name = format!("icmp: {what} about a packet that was not sent, {family}");
        suite.add(name, forged.clone(), unknown, honest(&hosts, *kind, *code));

        let name = format!("icmp: {what} about a flow that has expired, {family}");
        suite.after(name, (before, 121 * SECOND), forged, unknown, honest(&hosts, *kind, *code));

        let hosts = suite.hosts(family);
        let (before, _) = flow(&hosts);
        let (source, destination) = (hosts.server(), hosts.stranger());
        let other = hosts.other();
        for (lie, path, from, to) in [
            ("another host's packet", Path::new(other, destination), FROM, 443),
            ("a packet to another host", Path::new(source, other), FROM, 443),
            ("a packet to another port", Path::new(source, destination), FROM, 444),
            ("a packet from another port", Path::new(source, destination), FROM + 1, 443),
            ("what the stranger sent", Path::new(destination, source), 443, FROM),
        ] {
            let quoted = path.tcp(from, to, SYN, 1, &[]);
            let name = format!("icmp: {what} about {lie}, {family}");
            let forged = error(&hosts.inward(), *kind, *code, &quoted);
            suite.after(name, (before.clone(), SECOND), forged, unknown, honest(&hosts, *kind, *code));
        }
    }
}

/// Quotes that can't be read, of a flow that exists.
fn quotes(suite: &mut Suite, family: Family) {
    let (kind, code, _) = kinds(family)[0];
    let expected = &[Reason::IcmpErrorUnknown, Reason::MalformedIcmp];
    let hosts = suite.hosts(family);
    let (before, packet) = flow(&hosts);
    // Ports are the first four bytes after the quoted header.
    for (what, length) in [
        ("no bytes", 0),
        ("one byte", 1),
        ("half a header", family.header_len() / 2),
        ("a header without its last byte", family.header_len() - 1),
        ("a header alone", family.header_len()),
        ("a header and three bytes", family.header_len() + 3),
    ] {
        let name = format!("icmp: an error that quotes {what}, {family}");
        let forged = error(&hosts.inward(), kind, code, &packet[..length]);
        suite.after(name, (before.clone(), SECOND), forged, expected, honest(&hosts, kind, code));
    }
    let mut wrong_version = packet.clone();
    wrong_version[0] ^= 0x20;
    let mut wrong_protocol = packet.clone();
    wrong_protocol[if family == Family::V4 { 9 } else { 6 }] = 17;
    let mut lies = vec![("of the other version", wrong_version), ("of another protocol", wrong_protocol)];
    if family == Family::V4 {
        lies.push(("with a header length of 4", edit_ipv4(packet.clone(), |header| header[0] = 0x44)));
        lies.push(("with a header length of 15", edit_ipv4(packet.clone(), |header| header[0] = 0x4f)));
        lies.push(("that is a later fragment", edit_ipv4(packet.clone(), |header| header[7] = 9)));
    }
    for (what, quoted) in lies {
        let name = format!("icmp: an error that quotes a packet {what}, {family}");
        let forged = error(&hosts.inward(), kind, code, &quoted);
        suite.after(name, (before.clone(), SECOND), forged, expected, honest(&hosts, kind, code));
    }
    // Closed ports answer nobody: what they could have sent can't have failed.
    let hosts = suite.hosts(family);
    let answer = |port| hosts.outward().tcp(port, FROM, SYN | ACK, 1, &[]);
    let twin = Twin::new(error(&hosts.inward(), kind, code, &answer(OPEN)), Reason::IcmpError);
    let frame = error(&hosts.inward(), kind, code, &answer(CLOSED));
    let name = format!("icmp: an error about a closed port's answer, {family}");
    suite.add(name, frame, &[Reason::IcmpErrorUnknown], twin);
    let frame = error(&hosts.inward(), kind, code, &hosts.outward().udp(OPEN, FROM, &[0; 8]));
    let twin = hosts.outward().udp(OPEN_UDP, FROM, &[0; 8]);
    let twin = Twin::new(error(&hosts.inward(), kind, code, &twin), Reason::IcmpError);
    let name = format!("icmp: an error about an answer over another protocol, {family}");
    suite.add(name, frame, &[Reason::IcmpErrorUnknown], twin);
}

/// Messages that are no error, no ping and no discovery.
fn messages(suite: &mut Suite, family: Family) {
    let named: &[(&str, u8)] = match family {
        Family::V4 => &[
            ("source quench", 4),
            ("redirect", 5),
            ("router advertisement", 9),
            ("router solicitation", 10),
            ("timestamp request", 13),
            ("timestamp reply", 14),
            ("address mask request", 17),
            ("extended echo request", 42),
        ],
        Family::V6 => &[
            ("router renumbering", 138),
            ("node information query", 139),
            ("node information reply", 140),
            ("inverse neighbour solicitation", 141),
            ("certification path advertisement", 149),
            ("extended echo request", 160),
        ],
    };
    let passes: &[u8] = match family {
        Family::V4 => &[3, 8, 11, 12],
        Family::V6 => &[1, 2, 3, 4, 128, 130, 131, 132, 133, 134, 135, 136, 137, 143],
    };
    let expected = &[Reason::NoService];
    for (what, kind) in named {
        let hosts = suite.hosts(family);
        // A packet of an existing flow is quoted, should anybody look for one.
        let (before, packet) = flow(&hosts);
        let frame = error(&hosts.inward(), *kind, 0, &packet);
        let ping = Twin::new(LINK.ip(&hosts.inward().echo_request(1, 1)), Reason::Ping);
        suite.after(format!("icmp: {what}, {family}"), (before, SECOND), frame, expected, ping);
    }
    let hosts = suite.hosts(family);
    let ping = Twin::new(LINK.ip(&hosts.inward().echo_request(1, 1)), Reason::Ping);
    let sweep = (0..=255).filter(|kind| !passes.contains(kind));
    let sweep = sweep.map(|kind| error(&hosts.inward(), kind, 0, &[0; 40])).collect();
    suite.sweep(format!("icmp: every type that nobody needs, {family}"), sweep, expected, ping);
}

fn lengths(suite: &mut Suite, family: Family) {
    let hosts = suite.hosts(family);
    let whole = hosts.inward().echo_request(1, 1);
    let header = family.header_len();
    let sweep = (header..header + 8)
        .map(|length| LINK.ip(&hosts.inward().packet(family.icmp(), &whole[header..length])));
    let name = format!("icmp: an echo request cut at each byte, {family}");
    suite.sweep(name, sweep.collect(), &[Reason::MalformedIcmp], Twin::new(LINK.ip(&whole), Reason::Ping));
}

/// Each family's messages under the other's number.
fn other_family(suite: &mut Suite) {
    for family in FAMILIES {
        let hosts = suite.hosts(family);
        let wrong = if family == Family::V4 { ICMPV6 } else { ICMP };
        let ping = Twin::new(LINK.ip(&hosts.inward().echo_request(1, 1)), Reason::Ping);
        let sweep = [0, 3, 8, 11, 128, 129, 130, 133, 134, 135, 136, 137].map(|kind| {
            let message = [&[kind, 0, 0, 0, 0, 1, 0, 1][..], &[0; 32]].concat();
            LINK.ip(&hops(hosts.inward().packet(wrong, &message), 255))
        });
        let name = format!("icmp: messages under the number of the other family's ICMP, {family}");
        suite.sweep(name, sweep.to_vec(), &[Reason::NoService], ping);
    }
}

/// The target's address after four bytes of flags.
fn about(target: IpAddr) -> Vec<u8> {
    match target {
        IpAddr::V6(target) => [&[0; 4][..], &target.octets()].concat(),
        IpAddr::V4(target) => [&[0; 4][..], &target.octets()].concat(),
    }
}

/// A neighbour solicitation for the path's destination; its hop limit is 64.
pub(super) fn solicitation(path: &Path) -> Vec<u8> {
    icmp(path, 135, 0, &about(path.destination))
}

fn link_local(hosts: &Hosts) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, hosts.number)
}

fn discovery(suite: &mut Suite) {
    let forged = &[Reason::NeighbourDiscoveryForged];
    for (what, kind, passes_as) in [
        ("router solicitation", 133, Reason::NeighbourDiscovery),
        ("router advertisement", 134, Reason::RouterAdvertisement),
        ("neighbour solicitation", 135, Reason::NeighbourDiscovery),
        ("neighbour advertisement", 136, Reason::NeighbourDiscovery),
        ("redirect", 137, Reason::NeighbourDiscovery),
    ] {
        let hosts = suite.hosts(Family::V6);
        let path = hosts.from(link_local(&hosts));
        let rest = [about(hosts.server()), vec![0; 16]].concat();
        let with = |limit| LINK.ip(&hops(icmp(&path, kind, 0, &rest), limit));
        let name = format!("icmp: {what} with every hop limit below 255");
        suite.sweep(name, (0..255).map(with).collect(), forged, Twin::new(with(255), passes_as));
    }
    let hosts = suite.hosts(Family::V6);
    let rest = [0; 12];
    let advertise = |source: IpAddr| LINK.ip(&hops(icmp(&hosts.from(source), 134, 0, &rest), 255));
    let twin = Twin::new(advertise(link_local(&hosts).into()), Reason::RouterAdvertisement);
    for (what, source) in [
        ("a global address", hosts.stranger()),
        ("the LAN's global address", hosts.lan()),
        ("a site-local address", Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 1).into()),
        ("the unspecified address", Ipv6Addr::UNSPECIFIED.into()),
    ] {
        let name = format!("icmp: router advertisement from {what}");
        suite.add(name, advertise(source), forged, twin.clone());
    }
}

fn membership(suite: &mut Suite) {
    let no_service = &[Reason::NoService];
    for (what, kind) in [("query", 130), ("report", 131), ("done", 132), ("report of version 2", 143)] {
        let hosts = suite.hosts(Family::V6);
        let with =
            |source: IpAddr, limit| LINK.ip(&hops(icmp(&hosts.from(source), kind, 0, &[0; 20]), limit));
        let near = IpAddr::from(link_local(&hosts));
        let twin = Twin::new(with(near, 1), Reason::MulticastMembership);
        let name = format!("icmp: MLD {what} with hop limit 2");
        let sweep = [2, 0, 64, 255].map(|limit| with(near, limit)).to_vec();
        suite.sweep(name, sweep, no_service, twin.clone());
        let name = format!("icmp: MLD {what} from a global address");
        suite.add(name, with(hosts.stranger(), 1), no_service, twin);
    }
    let hosts = suite.hosts(Family::V4);
    let with = |limit| LINK.ip(&hops(hosts.inward().packet(2, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]), limit));
    let sweep = (0..=255).filter(|limit| *limit != 1).map(with).collect();
    let twin = Twin::new(with(1), Reason::MulticastMembership);
    suite.sweep("icmp: IGMP with every TTL but 1", sweep, no_service, twin);

    let hosts = suite.hosts(Family::V6);
    let group = Path::new(hosts.stranger(), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let frame = LINK.ip(&hops(group.packet(2, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]), 1));
    let hosts = suite.hosts(Family::V4);
    let twin = Path::new(hosts.stranger(), Ipv4Addr::new(224, 0, 0, 1));
    let twin = LINK.ip(&hops(twin.packet(2, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]), 1));
    suite.add("icmp: IGMP over IPv6", frame, no_service, Twin::new(twin, Reason::MulticastMembership));
}
