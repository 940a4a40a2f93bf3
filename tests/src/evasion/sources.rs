//! Addresses: sources and destinations that no network delivers, spoofed and denied sources in every wrapping.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::abi::reason::Reason;

use super::build::{
    FAMILIES, FROM, Family, Hosts, LAN_ONLY, LINK, OPEN, OPEN_UDP, Piece, TCP, fragment, hops, icmp,
    tcp_header, with_options,
};
use super::{Event, SECOND, Suite, Twin};
use crate::frames::{ACK, IPV4, IPV6, Path, QINQ, SYN, VLAN};

pub(super) fn add(suite: &mut Suite) {
    for family in FAMILIES {
        impossible(suite, family);
        spoofed(suite, family);
        denied(suite, family);
        borders(suite, family);
    }
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

/// The kinds of honest packets, by one source.
fn honest_kinds(path: &Path) -> Vec<Vec<u8>> {
    vec![
        LINK.ip(&path.tcp(FROM, OPEN, SYN, 1, &[])),
        LINK.ip(&path.tcp(FROM, OPEN, ACK, 1, b"data")),
        LINK.ip(&path.tcp(FROM, LAN_ONLY, SYN, 1, &[])),
        LINK.ip(&path.udp(53, OPEN_UDP, b"data")),
        LINK.ip(&path.udp(FROM, 1, b"data")),
        LINK.ip(&path.echo_request(1, 1)),
        LINK.ip(&path.packet(47, &[0; 24])),
        LINK.tagged(
            &[(QINQ, 5), (VLAN, 6)],
            if path.source.is_ipv6() { IPV6 } else { IPV4 },
            &path.tcp(FROM, OPEN, SYN, 1, &[]),
        ),
    ]
}

fn impossible(suite: &mut Suite, family: Family) {
    let (sources, destinations): (&[_], &[_]) = match family {
        Family::V4 => (
            &[
                ("loopback", &["127.0.0.1", "127.0.0.0", "127.255.255.255", "127.1.2.3"][..]),
                ("multicast", &["224.0.0.0", "224.0.0.1", "239.255.255.255"]),
                ("the limited broadcast", &["255.255.255.255"]),
                ("unspecified", &["0.0.0.0"]),
            ],
            &[
                ("loopback", &["127.0.0.1", "127.0.0.0", "127.255.255.255"][..]),
                ("unspecified", &["0.0.0.0"]),
            ],
        ),
        Family::V6 => (
            &[
                ("loopback", &["::1"][..]),
                ("multicast", &["ff00::", "ff02::1", "ff0e::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
                ("unspecified", &["::"]),
            ],
            &[("loopback", &["::1"][..]), ("unspecified", &["::"])],
        ),
    };
    for (what, sources) in sources {
        let hosts = suite.hosts(family);
        let sweep =
            parsed(sources).into_iter().flat_map(|source| honest_kinds(&hosts.from(source))).collect();
        let name = format!("sources: {what}, {family}");
        suite.sweep(name, sweep, &[Reason::SourceInvalid], hosts.honest());
    }
    for (what, destinations) in destinations {
        let hosts = suite.hosts(family);
        let sources = [hosts.stranger(), hosts.lan(), hosts.denied(), hosts.container()];
        let paths = parsed(destinations)
            .into_iter()
            .flat_map(|destination| sources.map(|source| Path::new(source, destination)));
        let sweep = paths.flat_map(|path| honest_kinds(&path)).collect();
        let name = format!("sources: to a destination that is {what}, {family}");
        suite.sweep(name, sweep, &[Reason::DestinationInvalid], hosts.honest());
    }
    let hosts = suite.hosts(family);
    let name = format!("sources: the packet's own destination (LAND), {family}");
    let mut sweep = honest_kinds(&hosts.from(hosts.server()));
    sweep.push(LINK.ip(&hosts.from(hosts.server()).tcp(OPEN, OPEN, SYN, 1, &[])));
    suite.sweep(name, sweep, &[Reason::SourceInvalid], hosts.honest());
}

fn spoofed(suite: &mut Suite, family: Family) {
    let hosts = suite.hosts(family);
    let honest = hosts.from(hosts.container()).tcp(FROM, OPEN, SYN, 1, &[]);
    let twin = Twin::new(LINK.ip(&honest), Reason::ServiceAllowed).inside();
    let sweep = honest_kinds(&hosts.from(hosts.container()));
    let name = format!("sources: a container's address from outside, {family}");
    suite.sweep(name, sweep, &[Reason::SourceSpoofed], twin);

    // A container's own answer counts on its own interface alone.
    let hosts = suite.hosts(family);
    let asked = |to| {
        let request = LINK.ip(&Path::new(hosts.server(), to).udp(FROM, 9, b"data"));
        (vec![Event::sent(request)], SECOND)
    };
    let reply = |source| LINK.ip(&hosts.from(source).udp(9, FROM, b"data"));
    let twin =
        Twin::after(asked(hosts.container()).0, SECOND, reply(hosts.container()), Reason::Reply).inside();
    let name = format!("sources: a container's answer from outside, {family}");
    let frame = reply(hosts.container());
    suite.after(name, asked(hosts.container()), frame, &[Reason::SourceSpoofed], twin);
}

/// A packet of the open service in a wrapping, and what passes of the same wrapping from another source.
type Wrapping = (&'static str, fn(&Path, u16) -> Vec<u8>, Option<Reason>);

const OPEN_SERVICE: Option<Reason> = Some(Reason::ServiceAllowed);

fn wrapped(path: &Path, tags: &[(u16, u16)]) -> Vec<u8> {
    let kind = if path.source.is_ipv6() { IPV6 } else { IPV4 };
    LINK.tagged(tags, kind, &path.tcp(FROM, OPEN, SYN, 1, &[]))
}

/// A protocol's number before what looks like a segment to the open port.
fn carrier<const PROTOCOL: u8>(path: &Path, _: u16) -> Vec<u8> {
    LINK.ip(&path.packet(PROTOCOL, &tcp_header(OPEN, SYN)))
}

/// A packet of an honest LAN host, inside.
fn tunnel<const PROTOCOL: u8>(path: &Path, number: u16) -> Vec<u8> {
    let hosts = Hosts { family: if PROTOCOL == 4 { Family::V4 } else { Family::V6 }, number };
    LINK.ip(&path.packet(PROTOCOL, &hosts.from(hosts.lan()).tcp(FROM, LAN_ONLY, SYN, 1, &[])))
}

fn extension<const KIND: u8>(path: &Path, _: u16) -> Vec<u8> {
    let payload = [super::ipv6::extension(KIND, TCP, OPEN), tcp_header(OPEN, SYN)].concat();
    LINK.ip(&path.packet(KIND, &payload))
}

fn piece(path: &Path, id: u16, offset: u16) -> Vec<u8> {
    let payload = [&tcp_header(OPEN, SYN)[..], &[0; 4]].concat();
    LINK.ip(&fragment(path, TCP, Piece { id, offset, more: offset == 0 }, &payload))
}

/// What both families have.
const WRAPPINGS: [Wrapping; 23] = [
    ("nothing", |path, _| wrapped(path, &[]), OPEN_SERVICE),
    ("a VLAN tag", |path, _| wrapped(path, &[(VLAN, 5)]), OPEN_SERVICE),
    ("an 802.1ad tag", |path, _| wrapped(path, &[(QINQ, 5)]), OPEN_SERVICE),
    ("QinQ", |path, _| wrapped(path, &[(QINQ, 5), (VLAN, 6)]), OPEN_SERVICE),
    ("an ACK", |path, _| LINK.ip(&path.tcp(FROM, OPEN, ACK, 1, b"data")), OPEN_SERVICE),
    ("a first fragment", |path, id| piece(path, id, 0), OPEN_SERVICE),
    ("a later fragment", |path, id| piece(path, id, 3), None),
    ("UDP from port 53", |path, _| LINK.ip(&path.udp(53, OPEN_UDP, b"data")), OPEN_SERVICE),
    ("UDP from port 53 to a closed port", |path, _| LINK.ip(&path.udp(53, FROM, b"data")), None),
    ("DHCP", |path, _| LINK.ip(&path.udp(67, 68, &[0; 240])), None),
    ("DHCPv6", |path, _| LINK.ip(&path.udp(547, 546, &[0; 40])), None),
    ("ping", |path, _| LINK.ip(&path.echo_request(1, 1)), Some(Reason::Ping)),
    ("GRE", carrier::<47>, None),
    ("ESP", carrier::<50>, None),
    ("SCTP", carrier::<132>, None),
    ("UDP-Lite", carrier::<136>, None),
    ("protocol 254", carrier::<254>, None),
    ("IPIP", tunnel::<4>, None),
    ("6in4", tunnel::<41>, None),
    ("IGMP", |path, _| LINK.ip(&hops(path.packet(2, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]), 1)), None),
    (
        "an echo reply",
        |path, _| {
            let kind = if path.source.is_ipv6() { Family::V6 } else { Family::V4 };
            LINK.ip(&icmp(path, kind.echo_reply(), 0, &[0, 1, 0, 1]))
        },
        None,
    ),
    (
        "an ICMP error",
        |path, _| {
            let kind = if path.source.is_ipv6() { 1 } else { 3 };
            let quoted = Path::new(path.destination, path.source).tcp(OPEN, FROM, SYN | ACK, 1, &[]);
            LINK.ip(&icmp(path, kind, 3, &[&[0; 4], &quoted[..]].concat()))
        },
        Some(Reason::IcmpError),
    ),
    ("a refused port", |path, _| LINK.ip(&path.tcp(FROM, 5432, SYN, 1, &[])), None),
];

const WRAPPINGS_OF_V4: [Wrapping; 2] = [
    (
        "IP options",
        |path, _| LINK.ip(&with_options(path, TCP, &[1; 40], &tcp_header(OPEN, SYN))),
        OPEN_SERVICE,
    ),
    ("AH", carrier::<51>, None),
];

const WRAPPINGS_OF_V6: [Wrapping; 9] = [
    ("hop-by-hop options", extension::<0>, OPEN_SERVICE),
    ("a routing header", extension::<43>, OPEN_SERVICE),
    ("an atomic fragment", extension::<44>, OPEN_SERVICE),
    ("AH", extension::<51>, OPEN_SERVICE),
    ("destination options", extension::<60>, OPEN_SERVICE),
    ("a mobility header", extension::<135>, None),
    ("no next header", carrier::<59>, None),
    ("a router's answer of ICMPv6", |path, _| LINK.ip(&hops(icmp(path, 139, 0, &[0; 12]), 255)), None),
    ("MLD", |path, _| LINK.ip(&hops(icmp(path, 131, 0, &[0; 20]), 1)), None),
];

fn denied(suite: &mut Suite, family: Family) {
    let expected = &[Reason::SourceDenied];
    let of_family: &[Wrapping] = match family {
        Family::V4 => &WRAPPINGS_OF_V4,
        Family::V6 => &WRAPPINGS_OF_V6,
    };
    for (what, build, passes_as) in WRAPPINGS.iter().chain(of_family) {
        let hosts = suite.hosts(family);
        let frame = build(&hosts.from(hosts.denied()), hosts.number);
        let twin = match passes_as {
            Some(reason) => Twin::new(build(&hosts.inward(), hosts.number), *reason),
            None => hosts.honest(),
        };
        suite.add(format!("sources: denied, in {what}, {family}"), frame, expected, twin);
    }
    // Not even what the host asked for.
    let hosts = suite.hosts(family);
    let ask = |to: IpAddr| {
        let path = Path::new(hosts.server(), to);
        vec![
            Event::sent(LINK.ip(&path.tcp(FROM, 443, SYN, 1, &[]))),
            Event::sent(LINK.ip(&path.udp(FROM, 53, b"data"))),
            Event::sent(LINK.ip(&path.echo_request(7, 1))),
        ]
    };
    let answers = |from: IpAddr| {
        let path = hosts.from(from);
        [
            ("over TCP", LINK.ip(&path.tcp(443, FROM, SYN | ACK, 1, &[]))),
            ("over UDP", LINK.ip(&path.udp(53, FROM, b"data"))),
            ("of ping", LINK.ip(&icmp(&path, family.echo_reply(), 0, &[0, 7, 0, 1]))),
        ]
    };
    for ((what, frame), (_, honest)) in answers(hosts.denied()).into_iter().zip(answers(hosts.stranger())) {
        let twin = Twin::after(ask(hosts.stranger()), SECOND, honest, Reason::Reply);
        let name = format!("sources: denied, in the answer {what} to what the host asked, {family}");
        suite.after(name, (ask(hosts.denied()), SECOND), frame, expected, twin);
    }
}

/// A prefix is denied from its first address to its last, and not beyond.
fn borders(suite: &mut Suite, family: Family) {
    let denied_to: [(&str, &str, &str); 2] = match family {
        Family::V4 => [("first", "100.66.0.0", "100.65.255.255"), ("last", "100.66.255.255", "100.67.0.0")],
        Family::V6 => [
            ("first", "2001:db8:bad::", "2001:db8:bac:ffff:ffff:ffff:ffff:ffff"),
            ("last", "2001:db8:bad:ffff:ffff:ffff:ffff:ffff", "2001:db8:bae::"),
        ],
    };
    for (what, inside, outside) in denied_to {
        let hosts = suite.hosts(family);
        let sweep =
            parsed(&[inside]).into_iter().flat_map(|source| honest_kinds(&hosts.from(source))).collect();
        let outside = outside.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let twin = LINK.ip(&hosts.from(outside).tcp(FROM, OPEN, SYN, 1, &[]));
        let name = format!("sources: the {what} address of the denied prefix, {family}");
        suite.sweep(name, sweep, &[Reason::SourceDenied], Twin::new(twin, Reason::ServiceAllowed));
    }
    if family == Family::V6 {
        // Only neighbour discovery comes before the source; what looks like it does not.
        let hosts = suite.hosts(family);
        let rest = [0; 20];
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let with = |source: IpAddr, kind| LINK.ip(&hops(icmp(&hosts.from(source), kind, 0, &rest), 255));
        let twin = Twin::new(with(link_local.into(), 136), Reason::NeighbourDiscovery);
        let sweep = [0, 5, 127, 132, 138, 141, 142, 148, 255].map(|kind| with(hosts.denied(), kind)).to_vec();
        suite.sweep(
            "sources: denied, in types beside neighbour discovery",
            sweep,
            &[Reason::SourceDenied],
            twin,
        );
    }
}
