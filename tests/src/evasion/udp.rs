//! UDP: source ports that other filters trust, lengths that lie, ports.

use proxy_common::abi::reason::Reason;

use super::build::{CLOSED, FAMILIES, FROM, Family, LAN_ONLY, LINK, NOBODY, OPEN, OPEN_UDP, UDP, udp_header};
use super::{Suite, Twin};

pub(super) fn add(suite: &mut Suite) {
    for family in FAMILIES {
        source_ports(suite, family);
        lengths(suite, family);
        ports(suite, family);
    }
    plumbing(suite);
}

fn source_ports(suite: &mut Suite, family: Family) {
    for source in [0, 53, 67, 123, 443, 547, 5353] {
        let hosts = suite.hosts(family);
        let frame = |port| LINK.ip(&hosts.inward().udp(source, port, b"data"));
        let sweep = [CLOSED, 53, 1024, FROM, 65535].map(frame).to_vec();
        let twin =
            Twin::new(LINK.ip(&hosts.inward().udp(source.max(1), OPEN_UDP, b"data")), Reason::ServiceAllowed);
        let name = format!("udp: source port {source} to a closed port, {family}");
        suite.sweep(name, sweep, &[Reason::NoService], twin);
    }
}

fn lengths(suite: &mut Suite, family: Family) {
    let expected = &[Reason::MalformedUdp];
    for (what, lengths) in [
        ("shorter than its header", (0..8).collect::<Vec<u16>>()),
        ("beyond the packet", vec![17, 18, 24, 256, 0x1000, 0x8010, 65535]),
    ] {
        let hosts = suite.hosts(family);
        let with = |length: u16| {
            let mut datagram = udp_header(OPEN_UDP, 8);
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
            datagram.extend([0; 8]);
            LINK.ip(&hosts.inward().packet(UDP, &datagram))
        };
        let name = format!("udp: a length {what}, {family}");
        let twin = Twin::new(with(16), Reason::ServiceAllowed);
        suite.sweep(name, lengths.into_iter().map(with).collect(), expected, twin);
    }
    let hosts = suite.hosts(family);
    let header = udp_header(OPEN_UDP, 0);
    let frame = |length: usize| LINK.ip(&hosts.inward().packet(UDP, &header[..length]));
    let name = format!("udp: a header cut at each byte, {family}");
    suite.sweep(name, (0..8).map(frame).collect(), expected, Twin::new(frame(8), Reason::ServiceAllowed));
}

fn ports(suite: &mut Suite, family: Family) {
    let twin = |suite: &mut Suite| {
        let hosts = suite.hosts(family);
        (hosts, Twin::new(LINK.ip(&hosts.inward().udp(FROM, OPEN_UDP, b"data")), Reason::ServiceAllowed))
    };
    for (what, ports) in [
        ("port 0", &[0][..]),
        ("ports beside the service", &[OPEN_UDP - 1, OPEN_UDP + 1]),
        ("the service's port, bytes swapped", &[OPEN_UDP.swap_bytes()]),
        ("ports of services over TCP", &[OPEN, LAN_ONLY, NOBODY]),
        ("ports of discovery and of reflectors", &[69, 111, 123, 137, 138, 161, 389, 520, 1900, 5355, 11211]),
    ] {
        let (hosts, twin) = twin(suite);
        let sweep = ports.iter().map(|port| LINK.ip(&hosts.inward().udp(FROM, *port, b"data")));
        suite.sweep(format!("udp: {what}, {family}"), sweep.collect(), &[Reason::NoService], twin);
    }
    let (hosts, twin) = twin(suite);
    let sweep = (0..=u16::MAX).step_by(7).filter(|port| ![OPEN_UDP, 546].contains(port));
    let sweep = sweep.map(|port| LINK.ip(&hosts.inward().udp(FROM, port, b"data"))).collect();
    suite.sweep(format!("udp: every seventh port from 0, {family}"), sweep, &[Reason::NoService], twin);
}

/// DHCP and multicast DNS are told by more than one port.
fn plumbing(suite: &mut Suite) {
    let expected = &[Reason::NoService];
    let hosts = suite.hosts(Family::V4);
    let frame = |from, to| LINK.ip(&hosts.inward().udp(from, to, &[0; 240]));
    let dhcp = Twin::new(frame(67, 68), Reason::Dhcp);
    let sweep = [(68, 68), (66, 68), (0, 68), (53, 68), (67, 67), (67, 69), (68, 67), (17152, 17408)];
    let sweep = sweep.map(|(from, to)| frame(from, to)).to_vec();
    suite.sweep("udp: almost DHCP, IPv4", sweep, expected, dhcp.clone());
    let sweep = [(67, 546), (547, 546), (546, 547)].map(|(from, to)| frame(from, to)).to_vec();
    suite.sweep("udp: ports of DHCPv6, IPv4", sweep, expected, dhcp);

    let hosts = suite.hosts(Family::V6);
    let link_local = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, hosts.number);
    let dhcpv6 = Twin::new(LINK.ip(&hosts.from(link_local).udp(547, 546, &[0; 40])), Reason::Dhcpv6);
    let near = std::net::Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, hosts.number);
    let below = std::net::Ipv6Addr::new(0xfe7f, 0xffff, 0, 0, 0, 0, 0, hosts.number);
    let sweep = [hosts.stranger(), hosts.lan(), near.into(), below.into()]
        .map(|source| LINK.ip(&hosts.from(source).udp(547, 546, &[0; 40])));
    suite.sweep("udp: DHCPv6 that is not link-local, IPv6", sweep.to_vec(), expected, dhcpv6.clone());
    let sweep = [(547, 545), (547, 547), (546, 547), (67, 68)]
        .map(|(from, to)| LINK.ip(&hosts.from(link_local).udp(from, to, &[0; 40])));
    suite.sweep("udp: almost DHCPv6, IPv6", sweep.to_vec(), expected, dhcpv6);

    for family in FAMILIES {
        let hosts = suite.hosts(family);
        let group: std::net::IpAddr = match family {
            Family::V4 => std::net::Ipv4Addr::new(224, 0, 0, 251).into(),
            Family::V6 => std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into(),
        };
        let path = crate::frames::Path::new(hosts.stranger(), group);
        let twin = Twin::new(LINK.ip(&hosts.inward().udp(5353, OPEN_UDP, &[0; 12])), Reason::ServiceAllowed);
        let sweep = vec![LINK.ip(&path.udp(5353, 5353, &[0; 12])), LINK.ip(&path.udp(FROM, 5353, &[0; 12]))];
        suite.sweep(format!("udp: multicast DNS that is turned off, {family}"), sweep, expected, twin);
    }
}
