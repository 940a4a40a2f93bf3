//! Every decision through the trie and the table is what the policy means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proxy_common::abi::reason::Reason;
use proxy_common::abi::trie::{BASE_INLINE, INLINE, NODE};
use tollgate::policy::compile::Compiled;
use tollgate::policy::model::{DefaultAction, Interface, Policy, Service, TestTarget, Zone, ZoneId};
use tollgate::simulate::Simulation;

use crate::fixture::{compiled, edges, empty, frame, interface, meaning, service, tcp, udp, zone};

/// Interfaces that packets arrive on; each is meant by some entry.
const NAMES: [&str; 4] = ["eth0", "eth1", "br-a", "br-b"];
/// Names and patterns that zones are bound to.
const BINDINGS: [&str; 5] = ["eth0", "eth*", "br-a", "br-*", "wg0"];

/// Prefixes that crowd in few places, so that they nest, touch and are equal; and some anywhere.
fn prefix() -> impl Strategy<Value = IpNet> {
    let near4 = prop_oneof![
        3 => any::<u8>().prop_map(|b| u32::from_be_bytes([10, 1, 2, b])),
        2 => any::<u16>().prop_map(|b| u32::from_be_bytes([10, 1, 0, 0]) | u32::from(b)),
        1 => any::<u32>(),
        1 => prop::sample::select(vec![0, u32::MAX, 0x7f00_0000, 0x7fff_ffff, 0xe000_0000]),
    ];
    let near6 = prop_oneof![
        3 => any::<u16>().prop_map(|b| 0x2001_0db8_u128 << 96 | u128::from(b)),
        2 => any::<u64>().prop_map(|b| 0x2001_0db8_u128 << 96 | u128::from(b) << 40),
        1 => any::<u128>(),
        1 => prop::sample::select(vec![0, 1, 0xffff << 32, u128::MAX, 0xfe80 << 112, 0xff00 << 112]),
    ];
    let v4 = (near4, 0..=32u8).prop_map(|(bits, length)| {
        IpNet::from(Ipv4Net::new(Ipv4Addr::from(bits), length).expect("a length").trunc())
    });
    let v6 = (near6, 0..=128u8).prop_map(|(bits, length)| {
        IpNet::from(Ipv6Net::new(Ipv6Addr::from(bits), length).expect("a length").trunc())
    });
    prop_oneof![v4, v6]
}

fn zones() -> impl Strategy<Value = Vec<Zone>> {
    let bound = prop_oneof![3 => Just(Vec::new()), 1 => subsequence(BINDINGS.to_vec(), 1..=2)];
    let one = (prop::collection::vec(prefix(), 1..12), bound, prop::bool::weighted(0.1));
    prop::collection::vec(one, 1..7).prop_map(|zones| {
        let numbered = zones.into_iter().enumerate();
        numbered
            .map(|(number, (prefixes, bound, any))| Zone {
                any,
                prefixes: if any { Vec::new() } else { prefixes },
                interfaces: bound.into_iter().map(str::to_owned).collect(),
                ..zone(&format!("z{number}"), Vec::new())
            })
            .collect()
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    zones().prop_flat_map(|zones| {
        let ids: Vec<usize> = (0..zones.len()).collect();
        let some = || subsequence(ids.clone(), 0..=ids.len());
        let services = prop::collection::vec((some(), some()), 0..5).prop_map(|pairs| {
            let numbered = pairs.into_iter().enumerate();
            numbered
                .map(|(n, (allow, deny))| service(&format!("s{n}"), 100 + n as u16, &allow, &deny))
                .collect::<Vec<Service>>()
        });
        let entry = |name: &'static str| {
            (any::<bool>(), subsequence(ids.clone(), 0..=ids.len().min(2))).prop_map(move |(accept, deny)| {
                Interface {
                    default: if accept { DefaultAction::Accept } else { DefaultAction::Drop },
                    deny: deny.into_iter().map(ZoneId).collect(),
                    ..interface(name)
                }
            })
        };
        let interfaces = (entry("br-*"), entry("eth0"), entry("*"), entry("br-a"));
        (Just(zones), services, interfaces).prop_map(|(zones, services, (a, b, c, d))| Policy {
            zones,
            services,
            interfaces: vec![a, b, c, d],
            ..empty()
        })
    })
}

/// What the tables say: reason and rule.
fn found(compiled: &Compiled, at: usize, from: IpAddr, to: TestTarget) -> (Reason, Option<String>) {
    let outcome = Simulation::new(compiled, at).ingress(&frame(from, to), 1);
    let rule = if outcome.reason.has_rule() { compiled.rule_name(outcome.rule) } else { None };
    (outcome.reason, rule.map(str::to_owned))
}

/// What makes a walk end and a node small: see the layout in `proxy_common::abi::trie`.
fn assert_well_formed(compiled: &Compiled) {
    let tables = &compiled.tables;
    let known = |entry: &u32| {
        if entry & NODE == 0 {
            *entry < compiled.source_classes
        } else {
            ((entry & !NODE) as usize) < tables.nodes.len()
        }
    };
    assert!(tables.root.iter().all(known));
    for node in &tables.nodes {
        let runs: usize = node.starts.iter().map(|word| word.count_ones() as usize).sum();
        assert!(node.starts[0] & 1 == 1 && runs >= 1);
        let entries = if node.base == BASE_INLINE {
            assert!(runs <= INLINE);
            &node.inline[..runs]
        } else {
            assert!(runs > INLINE);
            &tables.entries[node.base as usize..node.base as usize + runs]
        };
        assert!(entries.iter().all(known));
        assert!(entries.windows(2).all(|pair| pair[0] != pair[1]), "neighbours of one entry are one run");
        assert!(runs > 1 || entries[0] & NODE != 0, "a node of one class is no node");
    }
    let blocks = tables.decisions.len() / (compiled.source_classes * compiled.port_classes) as usize;
    assert!(blocks <= compiled.interfaces.len());
    for interface in &compiled.interfaces {
        assert!(((interface.first_row / compiled.source_classes) as usize) < blocks);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn decisions_are_what_the_policy_means(
        policy in policy(),
        v4 in prop::collection::vec(any::<u32>(), 8),
        v6 in prop::collection::vec(any::<u128>(), 8),
    ) {
        let compiled = compiled(&policy, &NAMES);
        assert_well_formed(&compiled);
        let mut sources: Vec<IpAddr> = policy.zones.iter().flat_map(|z| &z.prefixes).flat_map(edges).collect();
        sources.extend(v4.into_iter().map(|bits| IpAddr::from(Ipv4Addr::from(bits))));
        sources.extend(v6.into_iter().map(|bits| IpAddr::from(Ipv6Addr::from(bits))));
        for from in sources {
            for (at, name) in NAMES.into_iter().enumerate() {
                for to in [tcp(100), udp(101), tcp(102), tcp(104), udp(99)] {
                    prop_assert_eq!(
                        found(&compiled, at, from, to),
                        meaning(&policy, name, from, to),
                        "{} on {} to {:?}", from, name, to
                    );
                }
            }
        }
    }
}

#[test]
fn invalid_sources_are_single_addresses_where_they_should_be() {
    let mut policy = empty();
    policy.zones = vec![Zone { any: true, ..zone("any", Vec::new()) }];
    policy.services = vec![service("web", 80, &[0], &[])];
    let compiled = compiled(&policy, &["eth0"]);
    for (from, reason) in [
        ("0.0.0.0", Reason::SourceInvalid),
        ("0.0.0.1", Reason::ServiceAllowed),
        ("126.255.255.255", Reason::ServiceAllowed),
        ("127.0.0.0", Reason::SourceInvalid),
        ("127.255.255.255", Reason::SourceInvalid),
        ("128.0.0.0", Reason::ServiceAllowed),
        ("223.255.255.255", Reason::ServiceAllowed),
        ("224.0.0.0", Reason::SourceInvalid),
        ("239.255.255.255", Reason::SourceInvalid),
        ("240.0.0.0", Reason::ServiceAllowed),
        ("255.255.255.254", Reason::ServiceAllowed),
        ("255.255.255.255", Reason::SourceInvalid),
        ("::", Reason::SourceInvalid),
        ("::1", Reason::SourceInvalid),
        ("::2", Reason::ServiceAllowed),
        ("::fffe:ffff:ffff", Reason::ServiceAllowed),
        ("::ffff:0.0.0.0", Reason::SourceInvalid),
        ("::ffff:255.255.255.255", Reason::SourceInvalid),
        ("::1:0:0:0", Reason::ServiceAllowed),
        ("fe80::1", Reason::ServiceAllowed),
        ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reason::ServiceAllowed),
        ("ff00::", Reason::SourceInvalid),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reason::SourceInvalid),
    ] {
        let from: IpAddr = from.parse().expect(from);
        assert_eq!(found(&compiled, 0, from, tcp(80)).0, reason, "{from}");
    }
}

#[test]
fn interfaces_that_are_treated_alike_share_their_rows() {
    let mut policy = empty();
    policy.interfaces = vec![interface("*")];
    policy.zones = vec![Zone {
        interfaces: vec!["eth1".to_owned()],
        ..zone("lan", vec!["10.0.0.0/8".parse().expect("a prefix")])
    }];
    let compiled = compiled(&policy, &["eth0", "eth1", "eth2"]);
    let rows: Vec<u32> = compiled.interfaces.iter().map(|interface| interface.first_row).collect();
    assert_eq!(rows, [0, compiled.source_classes, 0]);
    let cells = 2 * compiled.source_classes * compiled.port_classes;
    assert_eq!(compiled.tables.decisions.len(), cells as usize);
}

#[test]
fn zones_that_make_no_difference_make_no_classes() {
    let mut policy = empty();
    let net = |text: &str| vec![text.parse::<IpNet>().expect(text)];
    policy.zones =
        vec![zone("a", net("10.0.0.0/8")), zone("b", net("10.1.0.0/16")), zone("idle", net("192.0.2.0/24"))];
    policy.services = vec![service("web", 80, &[0, 1], &[])];
    let compiled = compiled(&policy, &["eth0"]);
    // Allowed, refused, invalid.
    assert_eq!(compiled.source_classes, 3);
}

#[test]
fn denied_sources_get_no_answers_and_closed_services_do() {
    let mut policy = empty();
    policy.zones = vec![
        zone("bad", vec!["203.0.113.0/24".parse().expect("a prefix")]),
        Zone { any: true, ..zone("any", Vec::new()) },
    ];
    policy.services = vec![service("web", 80, &[1], &[0])];
    let compiled_open = compiled(&policy, &["eth0"]);
    policy.interfaces[0].deny = vec![ZoneId(0)];
    let compiled_denied = compiled(&policy, &["eth0"]);
    let remote: IpAddr = "203.0.113.9".parse().expect("an address");
    // What this host sends, and the answer to it: the same ports, turned round.
    let etherframe = |outgoing: bool| {
        let (host, remote) = ([192, 0, 2, 1], [203, 0, 113, 9]);
        let link = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut bytes = Vec::new();
        let built = if outgoing {
            link.ipv4(host, remote, 64).udp(80, 53).write(&mut bytes, &[])
        } else {
            link.ipv4(remote, host, 64).udp(53, 80).write(&mut bytes, &[])
        };
        built.expect("a frame");
        bytes
    };
    for (compiled, reason) in [(&compiled_open, Reason::Reply), (&compiled_denied, Reason::SourceDenied)] {
        let mut host = Simulation::new(compiled, 0);
        host.egress(&etherframe(true), 1);
        assert_eq!(host.ingress(&etherframe(false), 2).reason, reason);
        host.reset();
        assert_ne!(host.ingress(&etherframe(false), 3).reason, Reason::Reply);
    }
    assert_eq!(found(&compiled_open, 0, remote, tcp(80)).0, Reason::ServiceDenied);
}
