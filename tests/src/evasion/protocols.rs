//! Protocols that no service has: dropped by default, whatever their payload looks like.

use proxy_common::abi::reason::Reason;

use super::Suite;
use super::build::{FAMILIES, Family, Hosts, LAN_ONLY, LINK, OPEN, OPEN_UDP, hops, tcp_header, udp_header};
use crate::frames::SYN;

const PROTOCOLS: [(&str, u8); 16] = [
    ("IPIP", 4),
    ("6in4", 41),
    ("GRE", 47),
    ("ESP", 50),
    ("AH", 51),
    ("DCCP", 33),
    ("RSVP", 46),
    ("OSPF", 89),
    ("PIM", 103),
    ("IPComp", 108),
    ("VRRP", 112),
    ("L2TP", 115),
    ("SCTP", 132),
    ("UDP-Lite", 136),
    ("an experiment", 253),
    ("the reserved number", 255),
];

/// Extension headers of IPv6 are parsed, and told elsewhere.
const EXTENSIONS: [u8; 10] = [0, 43, 44, 51, 60, 135, 139, 140, 253, 254];

pub(super) fn add(suite: &mut Suite) {
    for family in FAMILIES {
        for (what, protocol) in PROTOCOLS {
            if family == Family::V6 && EXTENSIONS.contains(&protocol) {
                continue;
            }
            let hosts = suite.hosts(family);
            let sweep = payloads(&hosts).into_iter().flat_map(|payload| {
                // Routing protocols talk with one hop, or with 255.
                [1, 64, 255].map(|limit| LINK.ip(&hops(hosts.inward().packet(protocol, &payload), limit)))
            });
            let name = format!("protocols: {what} ({protocol}), {family}");
            suite.sweep(name, sweep.collect(), &[Reason::NoService], hosts.honest());
        }
        let hosts = suite.hosts(family);
        let parsed: &[u8] = match family {
            Family::V4 => &[1, 2, 6, 17],
            Family::V6 => &[6, 17, 58],
        };
        let others = (0..=255u8).filter(|protocol| {
            !parsed.contains(protocol) && (family == Family::V4 || !EXTENSIONS.contains(protocol))
        });
        let sweep = others.map(|protocol| LINK.ip(&hosts.inward().packet(protocol, &tcp_header(OPEN, SYN))));
        let name = format!("protocols: every number that is not parsed, {family}");
        suite.sweep(name, sweep.collect(), &[Reason::NoService], hosts.honest());

        let hosts = suite.hosts(family);
        let sweep = [4, 41, 47, 50, 89, 132].map(|protocol| LINK.ip(&hosts.inward().packet(protocol, &[])));
        let name = format!("protocols: without a payload, {family}");
        suite.sweep(name, sweep.to_vec(), &[Reason::NoService], hosts.honest());
    }
}

/// What an eager parser would let through: ports of services, and honest packets inside.
fn payloads(hosts: &Hosts) -> Vec<Vec<u8>> {
    let inner = |family| Hosts { family, ..*hosts };
    let lan = |family| inner(family).from(inner(family).lan()).tcp(40_000, LAN_ONLY, SYN, 1, &[]);
    vec![
        tcp_header(OPEN, SYN),
        udp_header(OPEN_UDP, 0),
        lan(Family::V4),
        lan(Family::V6),
        // GRE's own header before them.
        [&[0, 0, 8, 0][..], &lan(Family::V4)].concat(),
        [&[0, 0, 0x86, 0xdd][..], &lan(Family::V6)].concat(),
    ]
}
