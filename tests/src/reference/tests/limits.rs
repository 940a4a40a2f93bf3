//! Buckets: what is charged, in which order, to whom.

use proxy_common::abi::reason::Reason;
use tollgate::policy::model::{Bucket, Limit, LimitId, Policy, Scope, Unit};

use super::super::Reference;
use super::build::*;

const SOURCE: Scope = Scope::Source { v6_len: 64 };

/// The policy with a limit of these buckets on `web`.
fn limited(buckets: Vec<Bucket>) -> Policy {
    let mut policy = policy();
    policy.limits.push(Limit { name: "web".into(), buckets, ban: None });
    policy.services[0].limit = Some(LimitId(1));
    policy
}

fn reference(buckets: Vec<Bucket>) -> Reference {
    Reference::new(&limited(buckets), "eth0").expect("enforced")
}

#[test]
fn a_bucket_starts_full_and_refills_to_the_burst() {
    let mut it = reference(vec![bucket(SOURCE, Unit::Packets, 3, 2)]);
    let syn = tcp(STRANGER, HOST, (1, 80), SYN);
    let mut at = |now_ns: u64| it.ingress(&syn, now_ns);
    assert_eq!(at(0), (Reason::ServiceAllowed, Some("web".into())));
    assert_eq!(at(0).0, Reason::ServiceAllowed);
    assert_eq!(at(0), (Reason::OverLimitPackets, Some("web".into())));
    // A third of a second is 333,333,333.3… ns.
    assert_eq!(at(333_333_333).0, Reason::OverLimitPackets);
    assert_eq!(at(333_333_334).0, Reason::ServiceAllowed);
    assert_eq!(at(u64::MAX).0, Reason::ServiceAllowed);
    assert_eq!(at(u64::MAX).0, Reason::ServiceAllowed);
    assert_eq!(at(u64::MAX).0, Reason::OverLimitPackets);
    // A clock that goes back refills nothing.
    assert_eq!(at(0).0, Reason::OverLimitPackets);
    assert_eq!(at(u64::MAX).0, Reason::OverLimitPackets);
}

#[test]
fn connections_cost_what_opens_them() {
    let mut it = reference(vec![bucket(SOURCE, Unit::Connections, 1, 1)]);
    let mut send = |flags| it.ingress(&tcp(STRANGER, HOST, (1, 80), flags), 0).0;
    assert_eq!(send(SYN), Reason::ServiceAllowed);
    assert_eq!(send(SYN), Reason::OverLimitConnections);
    assert_eq!(send(ACK), Reason::ServiceAllowed);
    assert_eq!(send(SYN | ACK), Reason::ServiceAllowed);
    assert_eq!(it.ingress(&udp(STRANGER, HOST, (1, 8010)), 0).0, Reason::ServiceAllowed);
}

#[test]
fn bytes_are_those_of_the_frame() {
    let frame = tcp(STRANGER, HOST, (1, 80), ACK);
    assert_eq!(frame.len(), 54);
    let mut it = reference(vec![bucket(SOURCE, Unit::Bytes, 1, 54 + 60)]);
    assert_eq!(it.ingress(&[frame.clone(), vec![0; 6]].concat(), 0).0, Reason::ServiceAllowed);
    assert_eq!(it.ingress(&frame, 0).0, Reason::ServiceAllowed);
    assert_eq!(it.ingress(&frame, 53 * SECOND).0, Reason::OverLimitBytes);
    assert_eq!(it.ingress(&frame, 54 * SECOND).0, Reason::ServiceAllowed);
}

#[test]
fn the_first_short_bucket_ends_it_and_those_before_stay_charged() {
    let mut it = reference(vec![
        bucket(Scope::Service, Unit::Packets, 1, 2),
        bucket(SOURCE, Unit::Bytes, 1, 65_536),
        bucket(SOURCE, Unit::Packets, 1, 3),
        bucket(SOURCE, Unit::Connections, 1, 1),
    ]);
    let syn = tcp(STRANGER, HOST, (1, 80), SYN);
    assert_eq!(it.ingress(&syn, 0).0, Reason::ServiceAllowed);
    // Connections are short, so packets are not touched: two of three are left.
    assert_eq!(it.ingress(&syn, 0).0, Reason::OverLimitConnections);
    let ack = tcp(STRANGER, HOST, (1, 80), ACK);
    assert_eq!(it.ingress(&ack, 0).0, Reason::ServiceAllowed);
    // Per source comes before the total, and is charged though the total is short.
    assert_eq!(it.ingress(&ack, 0).0, Reason::OverLimitPackets);
    assert_eq!(it.ingress(&ack, SECOND / 2).0, Reason::OverLimitPackets);
    // Another source still meets the empty total.
    assert_eq!(it.ingress(&tcp(OFFICE, HOST, (1, 80), ACK), SECOND / 2).0, Reason::OverLimitPackets);
    // The total has one token again, and so has the source.
    assert_eq!(it.ingress(&ack, SECOND).0, Reason::ServiceAllowed);
}

#[test]
fn sources_are_addresses_and_prefixes_of_ipv6() {
    let mut it = reference(vec![bucket(SOURCE, Unit::Packets, 1, 1)]);
    let mut send = |source: &str, host| it.ingress(&tcp(source, host, (1, 80), SYN), 0).0;
    assert_eq!(send("203.0.113.1", HOST), Reason::ServiceAllowed);
    assert_eq!(send("203.0.113.2", HOST), Reason::ServiceAllowed);
    assert_eq!(send("203.0.113.1", HOST), Reason::OverLimitPackets);
    assert_eq!(send("2001:db8:5:1::1", HOST6), Reason::ServiceAllowed);
    assert_eq!(send("2001:db8:5:1:ffff::1", HOST6), Reason::OverLimitPackets);
    assert_eq!(send("2001:db8:5:2::1", HOST6), Reason::ServiceAllowed);
}

#[test]
fn networks_share_a_bucket() {
    let scope = Scope::Prefix { v4_len: 25, v6_len: 48 };
    let mut it = reference(vec![bucket(scope, Unit::Packets, 1, 1)]);
    let mut send = |source: &str, host| it.ingress(&tcp(source, host, (1, 80), SYN), 0).0;
    assert_eq!(send("198.18.0.0", HOST), Reason::ServiceAllowed);
    assert_eq!(send("198.18.0.127", HOST), Reason::OverLimitPackets);
    assert_eq!(send("198.18.0.128", HOST), Reason::ServiceAllowed);
    assert_eq!(send("2001:db8:5:1::1", HOST6), Reason::ServiceAllowed);
    assert_eq!(send("2001:db8:5:ffff::1", HOST6), Reason::OverLimitPackets);
    assert_eq!(send("2001:db8:6::1", HOST6), Reason::ServiceAllowed);
}

#[test]
fn source_buckets_belong_to_the_limit_and_totals_to_the_service() {
    for (scope, second) in [(SOURCE, Reason::OverLimitPackets), (Scope::Service, Reason::ServiceAllowed)] {
        let mut policy = limited(vec![bucket(scope, Unit::Packets, 1, 1)]);
        policy.services[1].limit = Some(LimitId(1));
        let mut it = Reference::new(&policy, "eth0").expect("enforced");
        assert_eq!(it.ingress(&tcp(OFFICE, HOST, (1, 80), SYN), 0).0, Reason::ServiceAllowed);
        assert_eq!(it.ingress(&tcp(OFFICE, HOST, (1, 5432), SYN), 0).0, second);
    }
}

#[test]
fn echo_requests_keep_the_ping_limit() {
    let mut it = Reference::new(&policy(), "eth0").expect("enforced");
    let ping = icmp(STRANGER, HOST, 8, 1, &[]);
    for _ in 0..20 {
        assert_eq!(it.ingress(&ping, 0), (Reason::Ping, None));
    }
    assert_eq!(it.ingress(&ping, 0), (Reason::PingOverLimit, None));
    assert_eq!(it.ingress(&ping, SECOND / 10).0, Reason::Ping);
}
