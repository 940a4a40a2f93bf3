//! Below IP: VLAN tags, EtherTypes, lengths of 802.3.

use proxy_common::abi::reason::Reason;

use super::build::{CLOSED, FAMILIES, FROM, Family, LINK, OPEN};
use super::{Suite, Twin};
use crate::frames::{IPV4, IPV6, QINQ, SYN, VLAN};

/// Tags, outermost first, with numbers that are all different.
const TAGS: [(&str, &[(u16, u16)]); 7] = [
    ("an 802.1Q tag", &[(VLAN, 5)]),
    ("an 802.1ad tag", &[(QINQ, 5)]),
    ("a priority tag", &[(VLAN, 0xe000)]),
    ("a tag with all bits set", &[(VLAN, 0xffff)]),
    ("QinQ", &[(QINQ, 5), (VLAN, 6)]),
    ("two 802.1Q tags", &[(VLAN, 5), (VLAN, 6)]),
    ("two 802.1ad tags", &[(QINQ, 5), (QINQ, 6)]),
];

/// EtherTypes that carry no IP, or carry it in a wrapping that no host needs.
const FOREIGN: [(&str, u16); 14] = [
    ("0", 0x0000),
    ("one above IPv4's", 0x0801),
    ("IPv4's, bytes swapped", 0x0008),
    ("one above IPv6's", 0x86de),
    ("IPv6's, bytes swapped", 0xdd86),
    ("RARP", 0x8035),
    ("IPX", 0x8137),
    ("MPLS", 0x8847),
    ("PPPoE", 0x8864),
    ("MACsec", 0x88e5),
    ("transparent bridging", 0x6558),
    ("NSH", 0x894f),
    ("loopback test", 0x9000),
    ("reserved", 0xffff),
];

pub(super) fn add(suite: &mut Suite) {
    for family in FAMILIES {
        tags(suite, family);
        versions(suite, family);
    }
    ethertypes(suite);
    lengths(suite);
}

/// Honest packets of both families, by hosts of the next case.
fn packets(suite: &mut Suite) -> [(u16, Vec<u8>); 2] {
    FAMILIES.map(|family| (ethertype(family), suite.hosts(family).inward().tcp(FROM, OPEN, SYN, 1, &[])))
}

fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    }
}

fn tags(suite: &mut Suite, family: Family) {
    let kind = ethertype(family);
    for (what, tags) in TAGS {
        let hosts = suite.hosts(family);
        let frame = |port| LINK.tagged(tags, kind, &hosts.inward().tcp(FROM, port, SYN, 1, &[]));
        let name = format!("link: {what} around a closed port, {family}");
        suite.add(name, frame(CLOSED), &[Reason::NoService], Twin::new(frame(OPEN), Reason::ServiceAllowed));

        // Only what stands before the packet: no byte of the packet itself is there.
        let whole = frame(OPEN);
        let cuts = (15..14 + 4 * tags.len()).map(|length| whole[..length].to_vec()).collect();
        let name = format!("link: {what} cut at each byte, {family}");
        let expected = [Reason::MalformedEthernet, Reason::UnknownEthertype, Reason::VlanDepth];
        suite.sweep(name, cuts, &expected, Twin::new(whole, Reason::ServiceAllowed));
    }
    for (what, tags) in [
        ("three tags", &[(QINQ, 5), (VLAN, 6), (VLAN, 7)][..]),
        ("three 802.1ad tags", &[(QINQ, 5), (QINQ, 6), (QINQ, 7)]),
        ("four tags", &[(VLAN, 5), (VLAN, 6), (VLAN, 7), (VLAN, 8)]),
    ] {
        let hosts = suite.hosts(family);
        let packet = hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]);
        let twin = Twin::new(LINK.tagged(&tags[..2], kind, &packet), Reason::ServiceAllowed);
        let frame = LINK.tagged(tags, kind, &packet);
        suite.add(format!("link: {what} around an open port, {family}"), frame, &[Reason::VlanDepth], twin);
    }
    // Tags of before 802.1ad: either nothing that the filter knows, or a tag like others.
    for kind_of_tag in [0x9100, 0x9200] {
        let hosts = suite.hosts(family);
        let frame = |port, tag| LINK.tagged(&[(tag, 5)], kind, &hosts.inward().tcp(FROM, port, SYN, 1, &[]));
        let name = format!("link: a tag {kind_of_tag:#06x} around a closed port, {family}");
        let twin = Twin::new(frame(OPEN, VLAN), Reason::ServiceAllowed);
        suite.add(name, frame(CLOSED, kind_of_tag), &[Reason::UnknownEthertype, Reason::NoService], twin);
    }
}

fn ethertypes(suite: &mut Suite) {
    for (what, foreign) in FOREIGN {
        let packets = packets(suite);
        let sweep = packets.iter().flat_map(|(_, packet)| {
            [LINK.frame(foreign, packet), LINK.tagged(&[(VLAN, 5)], foreign, packet)]
        });
        let (kind, honest) = &packets[usize::from(foreign) % 2];
        let twin = Twin::new(LINK.frame(*kind, honest), Reason::ServiceAllowed);
        let name = format!("link: EtherType {what} around an open port");
        suite.sweep(name, sweep.collect(), &[Reason::UnknownEthertype], twin);
    }
}

fn versions(suite: &mut Suite, family: Family) {
    let hosts = suite.hosts(family);
    let packet = hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]);
    let (wrong, expected) = match family {
        Family::V4 => (IPV6, Reason::MalformedIpv6),
        Family::V6 => (IPV4, Reason::MalformedIpv4),
    };
    let name = format!("link: {family} under the EtherType of the other family");
    suite.add(name, LINK.frame(wrong, &packet), &[expected], hosts.honest());

    let expected = match family {
        Family::V4 => (4, Reason::MalformedIpv4),
        Family::V6 => (6, Reason::MalformedIpv6),
    };
    let hosts = suite.hosts(family);
    let frames = (0..16).filter(|version| *version != expected.0).map(|version| {
        let mut packet = hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]);
        packet[0] = version << 4 | packet[0] & 15;
        LINK.frame(ethertype(family), &packet)
    });
    let name = format!("link: every other version under the EtherType of {family}");
    suite.sweep(name, frames.collect(), &[expected.1], hosts.honest());
}

/// Lengths in place of EtherTypes: LLC, and SNAP with an EtherType of its own.
fn lengths(suite: &mut Suite) {
    let bridge = LINK_OF_BRIDGES.frame(38, &[&[0x42, 0x42, 3][..], &[0; 35]].concat());
    for (what, llc) in [("bare", &[][..]), ("in SNAP", &[0xaa, 0xaa, 3, 0, 0, 0]), ("in LLC", &[6, 6, 3])] {
        let sweep = packets(suite).into_iter().flat_map(|(kind, packet)| {
            let kind = if llc.len() == 6 { kind.to_be_bytes().to_vec() } else { Vec::new() };
            let payload = [llc, &kind, &packet].concat();
            let length = payload.len() as u16;
            let tagged = LINK.tagged(&[(VLAN, 5)], length, &payload);
            [LINK.frame(length, &payload), LINK.frame(1500, &payload), tagged]
        });
        let twin = Twin::new(bridge.clone(), Reason::LinkControl);
        let name = format!("link: IP {what} under a length of 802.3");
        suite.sweep(name, sweep.collect(), &[Reason::UnknownEthertype], twin);
    }
}

/// From a bridge to all bridges.
const LINK_OF_BRIDGES: crate::frames::Link =
    crate::frames::Link { source: LINK.source, destination: [1, 0x80, 0xc2, 0, 0, 0] };
