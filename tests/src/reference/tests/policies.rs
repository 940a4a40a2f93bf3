//! The steps of the page in their order, and which entry applies.

use proxy_common::abi::reason::Reason;
use tollgate::policy::model::{DefaultAction, ZoneId};

use super::super::{Reference, place};
use super::build::*;

fn reference() -> Reference {
    Reference::new(&policy(), "eth0").expect("enforced")
}

fn neighbour(kind: u8, source: &str, hops: u8) -> Vec<u8> {
    frame(source, HOST6, 58, hops, &icmp_message(kind, 0, &[0; 16]))
}

#[test]
fn services_allow_refuse_and_deny() {
    let mut it = reference();
    let mut syn = |source, port| it.ingress(&tcp(source, HOST, (1024, port), SYN), 0);
    assert_eq!(syn(STRANGER, 80), (Reason::ServiceAllowed, Some("web".into())));
    assert_eq!(syn("203.0.113.200", 80), (Reason::ServiceDenied, Some("web".into())));
    assert_eq!(syn(OFFICE, 5432), (Reason::ServiceAllowed, Some("database".into())));
    assert_eq!(syn(STRANGER, 5432), (Reason::ServiceRefused, Some("database".into())));
    assert_eq!(syn(OFFICE, 23), (Reason::ServiceRefused, Some("closed".into())));
    assert_eq!(syn(OFFICE, 22), (Reason::NoService, Some("default".into())));
    assert_eq!(syn(OFFICE, 0), (Reason::NoService, Some("default".into())));
    for (port, expected) in
        [(8009, Reason::NoService), (8010, Reason::ServiceAllowed), (8020, Reason::NoService)]
    {
        assert_eq!(it.ingress(&udp(STRANGER, HOST, (1, port)), 0).0, expected);
    }
}

#[test]
fn an_isolated_destination_gets_answers_and_errors_alone() {
    const CONTAINER: &str = "203.0.113.130";
    let mut policy = policy();
    policy.interfaces[0].isolate = vec![ZoneId(2)];
    let mut it = Reference::new(&policy, "eth0").expect("enforced");
    for packet in [
        tcp(STRANGER, CONTAINER, (1024, 80), SYN),
        udp(STRANGER, CONTAINER, (67, 68)),
        icmp(STRANGER, CONTAINER, 8, 7, b""),
    ] {
        assert_eq!(it.ingress(&packet, 0), (Reason::DestinationIsolated, None));
    }
    assert_eq!(it.ingress(&tcp(STRANGER, HOST, (1024, 80), SYN), 0).0, Reason::ServiceAllowed);
    let (asked, answer) = (udp(CONTAINER, STRANGER, (4000, 4001)), udp(STRANGER, CONTAINER, (4001, 4000)));
    assert_eq!(it.ingress(&answer, 0).0, Reason::DestinationIsolated);
    it.egress(&asked, 0);
    assert_eq!(it.ingress(&answer, 1).0, Reason::Reply);
}

#[test]
fn accepting_is_for_what_no_service_names() {
    let mut policy = policy();
    policy.interfaces[0].default = DefaultAction::Accept;
    let mut it = Reference::new(&policy, "eth0").expect("enforced");
    let mut syn = |port| it.ingress(&tcp(STRANGER, HOST, (1024, port), SYN), 0);
    assert_eq!(syn(22), (Reason::DefaultAccept, Some("default".into())));
    assert_eq!(syn(23).0, Reason::ServiceRefused);
    assert_eq!(it.ingress(&frame(STRANGER, HOST, 47, 64, &[]), 0).0, Reason::DefaultAccept);
}

#[test]
fn neighbour_discovery_never_comes_over_a_router() {
    let mut it = reference();
    for kind in [133, 135, 136, 137] {
        for source in [LINK, "::", STRANGER6] {
            assert_eq!(it.ingress(&neighbour(kind, source, 255), 0).0, Reason::NeighbourDiscovery);
            assert_eq!(it.ingress(&neighbour(kind, source, 254), 0).0, Reason::NeighbourDiscoveryForged);
        }
    }
}

#[test]
fn router_advertisements_come_from_the_link() {
    let mut policy = policy();
    let advertise = |policy: &_, source, hops| {
        Reference::new(policy, "eth0").expect("enforced").ingress(&neighbour(134, source, hops), 0).0
    };
    assert_eq!(advertise(&policy, LINK, 255), Reason::RouterAdvertisement);
    assert_eq!(advertise(&policy, "febf::1", 255), Reason::RouterAdvertisement);
    assert_eq!(advertise(&policy, LINK, 254), Reason::NeighbourDiscoveryForged);
    assert_eq!(advertise(&policy, "fec0::1", 255), Reason::NeighbourDiscoveryForged);
    policy.plumbing.router_advertisements = false;
    assert_eq!(advertise(&policy, LINK, 255), Reason::NoService);
}

#[test]
fn membership_stays_on_the_link() {
    let mut policy = policy();
    let ask =
        |policy: &_, frame: &[u8]| Reference::new(policy, "eth0").expect("enforced").ingress(frame, 0).0;
    for kind in [130, 131, 132, 143] {
        assert_eq!(ask(&policy, &neighbour(kind, LINK, 1)), Reason::MulticastMembership);
        assert_eq!(ask(&policy, &neighbour(kind, "::", 1)), Reason::MulticastMembership);
        assert_eq!(ask(&policy, &neighbour(kind, LINK, 2)), Reason::NoService);
        assert_eq!(ask(&policy, &neighbour(kind, STRANGER6, 1)), Reason::NoService);
    }
    assert_eq!(ask(&policy, &frame(STRANGER, HOST, 2, 1, &[0; 8])), Reason::MulticastMembership);
    assert_eq!(ask(&policy, &frame(STRANGER, HOST, 2, 2, &[0; 8])), Reason::NoService);
    assert_eq!(ask(&policy, &frame(STRANGER6, HOST6, 2, 1, &[0; 8])), Reason::NoService);
    policy.plumbing.multicast_membership = false;
    assert_eq!(ask(&policy, &neighbour(130, "::", 1)), Reason::SourceInvalid);
    assert_eq!(ask(&policy, &frame(STRANGER, HOST, 2, 1, &[0; 8])), Reason::NoService);
}

#[test]
fn plumbing_comes_before_services() {
    let mut policy = policy();
    let ask =
        |policy: &_, frame: &[u8]| Reference::new(policy, "eth0").expect("enforced").ingress(frame, 0).0;
    assert_eq!(ask(&policy, &udp(STRANGER, HOST, (67, 68))), Reason::Dhcp);
    assert_eq!(ask(&policy, &udp(STRANGER, HOST, (68, 67))), Reason::NoService);
    assert_eq!(ask(&policy, &udp(LINK, HOST6, (67, 68))), Reason::NoService);
    assert_eq!(ask(&policy, &udp(LINK, HOST6, (547, 546))), Reason::Dhcpv6);
    assert_eq!(ask(&policy, &udp(STRANGER6, HOST6, (547, 546))), Reason::NoService);
    let mdns = udp(STRANGER, "224.0.0.251", (5353, 5353));
    assert_eq!(ask(&policy, &mdns), Reason::NoService);
    policy.plumbing.mdns = true;
    assert_eq!(ask(&policy, &mdns), Reason::Mdns);
    assert_eq!(ask(&policy, &udp(LINK, "ff02::fb", (5353, 5353))), Reason::Mdns);
    assert_eq!(ask(&policy, &udp(STRANGER, HOST, (5353, 5353))), Reason::NoService);
    policy.plumbing.ping = false;
    assert_eq!(ask(&policy, &icmp(STRANGER, HOST, 8, 1, &[])), Reason::NoService);
}

#[test]
fn impossible_sources_drop_after_what_is_broken() {
    let mut it = reference();
    for source in ["127.0.0.1", "127.255.255.255", "224.0.0.1", "239.1.1.1", "255.255.255.255", "0.0.0.0"] {
        assert_eq!(it.ingress(&tcp(source, HOST, (1, 80), SYN), 0).0, Reason::SourceInvalid);
        assert_eq!(it.ingress(&tcp(source, HOST, (1, 80), 0), 0).0, Reason::TcpFlags);
    }
    for source in ["::1", "ff02::1", "::", "::ffff:192.0.2.1"] {
        assert_eq!(it.ingress(&tcp(source, HOST6, (1, 80), SYN), 0).0, Reason::SourceInvalid);
    }
    for source in ["240.0.0.1", "0.0.0.1", "::fffe:192.0.2.1", "::2"] {
        let host = if source.contains(':') { HOST6 } else { HOST };
        assert_eq!(it.ingress(&tcp(source, host, (1, 80), SYN), 0).0, Reason::ServiceAllowed);
    }
}

#[test]
fn addresses_of_a_bound_zone_are_spoofed_elsewhere() {
    let mut policy = policy();
    policy.interfaces.push(interface("br-*", DefaultAction::Drop, &[]));
    policy.zones.push(zone("bound", &["10.0.0.0/8"], &["br-*", "eth0"]));
    policy.zones.push(zone("narrow", &["10.1.0.0/16"], &["br-*"]));
    let ask = |interface, source| {
        let mut it = Reference::new(&policy, interface).expect("enforced");
        it.ingress(&tcp(source, HOST, (1, 80), SYN), 0).0
    };
    assert_eq!(ask("eth0", "10.2.0.1"), Reason::ServiceAllowed);
    assert_eq!(ask("eth0", "10.1.0.1"), Reason::SourceSpoofed);
    assert_eq!(ask("br-1", "10.1.0.1"), Reason::ServiceAllowed);
    assert_eq!(ask("br-1", "11.0.0.1"), Reason::ServiceAllowed);
}

#[test]
fn an_interface_denies_plumbing_and_replies_too() {
    let mut policy = policy();
    policy.interfaces[0].deny = vec![ZoneId(2)];
    let bad = "203.0.113.200";
    let mut it = Reference::new(&policy, "eth0").expect("enforced");
    it.egress(&tcp(HOST, bad, (40000, 443), SYN), 0);
    assert_eq!(it.ingress(&tcp(bad, HOST, (443, 40000), SYN | ACK), 0).0, Reason::SourceDenied);
    assert_eq!(it.ingress(&icmp(bad, HOST, 8, 1, &[]), 0).0, Reason::SourceDenied);
    assert_eq!(it.ingress(&udp(bad, HOST, (67, 68)), 0).0, Reason::SourceDenied);

    policy.interfaces[0].deny = vec![ZoneId(0)];
    let mut it = Reference::new(&policy, "eth0").expect("enforced");
    assert_eq!(it.ingress(&neighbour(135, LINK, 255), 0).0, Reason::NeighbourDiscovery);
}

#[test]
fn a_service_that_denies_lets_replies_through() {
    let mut it = reference();
    let bad = "203.0.113.200";
    it.egress(&tcp(HOST, bad, (80, 443), SYN), 0);
    assert_eq!(it.ingress(&tcp(bad, HOST, (443, 80), SYN | ACK), 0).0, Reason::Reply);
    assert_eq!(it.ingress(&tcp(bad, HOST, (443, 80), SYN), 0).0, Reason::ServiceDenied);
}

#[test]
fn the_own_name_comes_before_the_first_pattern() {
    let mut policy = policy();
    policy.interfaces = ["e*", "eth*", "eth0", "*"]
        .into_iter()
        .enumerate()
        .map(|(index, name)| interface(name, DefaultAction::Drop, &[index]))
        .collect();
    let entry = |name| place::entry(&policy, name).map(|entry| entry.name.as_str());
    assert_eq!(entry("eth0"), Some("eth0"));
    assert_eq!(entry("eth1"), Some("e*"));
    assert_eq!(entry("wlan0"), Some("*"));
    assert_eq!(entry("lo"), None);
    assert!(Reference::new(&policy, "lo").is_none());
    policy.interfaces.push(interface("lo", DefaultAction::Drop, &[]));
    assert!(Reference::new(&policy, "lo").is_some());
}

#[test]
fn stars_stand_for_any_run() {
    for (pattern, name, expected) in [
        ("br-*", "br-", true),
        ("br-*", "br-a", true),
        ("br-*", "br", false),
        ("*0", "eth10", true),
        ("*0", "eth01", false),
        ("e*h*", "eth0", true),
        ("a*a", "a", false),
        ("**", "x", true),
        ("eth0", "eth01", false),
        ("l*", "lo", false),
    ] {
        assert_eq!(place::means(pattern, name), expected, "{pattern} {name}");
    }
}
