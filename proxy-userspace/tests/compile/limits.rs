//! Limits keep their rate and their burst, and are shared as the policy says.

use std::net::IpAddr;

use proptest::prelude::*;
use proxy_common::abi::reason::Reason;
use tollgate::policy::model::{Bucket, Limit, LimitId, Policy, Scope, Service, TestTarget, Unit, Zone};
use tollgate::simulate::Simulation;

use crate::fixture::{compiled, empty, frame, service, tcp, udp, zone};

const SECOND: u64 = 1_000_000_000;
const SOURCE: Scope = Scope::Source { v6_len: 64 };
/// When tests begin: any time will do, and 0 is not special.
const START: u64 = 1_000 * SECOND;

fn per_second(scope: Scope, unit: Unit, tokens: u64, burst: u64) -> Bucket {
    Bucket { scope, unit, tokens, per_ns: SECOND, burst }
}

/// Services a and b (ports 80 and 81) with one limit, and c (port 82) with another that has the same buckets.
fn limited(buckets: Vec<Bucket>) -> Policy {
    let limited =
        |name: &str, port, limit| Service { limit: Some(LimitId(limit)), ..service(name, port, &[0], &[]) };
    Policy {
        zones: vec![Zone { any: true, ..zone("any", Vec::new()) }],
        limits: vec![
            Limit { name: "shared".to_owned(), buckets: buckets.clone(), ban: None },
            Limit { name: "other".to_owned(), buckets, ban: None },
        ],
        services: vec![limited("a", 80, 0), limited("b", 81, 0), limited("c", 82, 1)],
        ..empty()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// How many of `count` equal packets pass, the nth `nth × apart_ns` after the start.
fn passing(host: &mut Simulation<'_>, frame: &[u8], count: u64, apart_ns: u64) -> u64 {
    let passes = |nth: &u64| host.ingress(frame, START + nth * apart_ns).reason == Reason::ServiceAllowed;
    (0..count).filter(passes).count() as u64
}

/// How many packets of a burst pass at once.
fn at_once(host: &mut Simulation<'_>, from: &str, to: TestTarget) -> u64 {
    passing(host, &frame(address(from), to), 100, 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn exactly_the_burst_passes_at_once(
        tokens in 1..1_000_000u64,
        per_ns in prop::sample::select(vec![SECOND, 60 * SECOND, 3600 * SECOND]),
        burst in 1..2_000u64,
        connections: bool,
    ) {
        let burst = burst.min(tokens.saturating_mul(4)).max(1);
        let unit = if connections { Unit::Connections } else { Unit::Packets };
        let policy = limited(vec![Bucket { scope: SOURCE, unit, tokens, per_ns, burst }]);
        let compiled = compiled(&policy, &["eth0"]);
        let frame = frame(address("203.0.113.9"), tcp(80));
        let passed = passing(&mut Simulation::new(&compiled, 0), &frame, burst + burst / 10 + 10, 0);
        // A packet costs whole nanoseconds, rounded down: that much of the burst is given away.
        let cost_ns = per_ns / tokens;
        prop_assert!((burst..=burst + burst / cost_ns).contains(&passed), "{passed} of {burst}");
    }

    #[test]
    fn the_rate_is_kept_in_the_long_run(
        tokens in 1..1_000_000u64,
        per_ns in prop::sample::select(vec![SECOND, 60 * SECOND]),
        // A bucket of one token is full only for whoever waits: packets that come a little early lose their turn.
        burst in 2..50u64,
        excess in 2..6u64,
    ) {
        let policy = limited(vec![Bucket { scope: SOURCE, unit: Unit::Packets, tokens, per_ns, burst }]);
        let compiled = compiled(&policy, &["eth0"]);
        let frame = frame(address("2001:db8::9"), udp(80));
        let apart_ns = per_ns / tokens / excess;
        let count = 4_000;
        let passed = passing(&mut Simulation::new(&compiled, 0), &frame, count, apart_ns);
        let refilled = (count - 1) * apart_ns * tokens / per_ns;
        let given_away = (burst + refilled) * tokens / per_ns + 1;
        let least = (burst + refilled).min(count);
        prop_assert!((least..=least + given_away).contains(&passed), "{passed}, at least {least}");
    }

    #[test]
    fn bytes_are_those_of_whole_frames(rate in 65_536..10_000_000u64, burst in 65_536..200_000u64) {
        let policy = limited(vec![per_second(SOURCE, Unit::Bytes, rate, burst)]);
        let compiled = compiled(&policy, &["eth0"]);
        let frame = frame(address("203.0.113.9"), udp(80));
        let passed = passing(&mut Simulation::new(&compiled, 0), &frame, 5_000, 0);
        let (whole, cost_ns) = (burst / frame.len() as u64, frame.len() as u64 * SECOND / rate);
        prop_assert!((whole..=whole + whole / cost_ns + 1).contains(&passed), "{passed} of {whole}");
    }
}

#[test]
fn connections_are_counted_and_datagrams_are_not() {
    let policy = limited(vec![per_second(SOURCE, Unit::Connections, 10, 7)]);
    let compiled = compiled(&policy, &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", udp(80)), 100);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 7);
    let over = host.ingress(&frame(address("203.0.113.9"), tcp(80)), START);
    assert_eq!(over.reason, Reason::OverLimitConnections);
    assert_eq!(compiled.rule_name(over.rule), Some("a"));
}

#[test]
fn a_source_has_one_bucket_for_all_services_of_a_limit() {
    let compiled = compiled(&limited(vec![per_second(SOURCE, Unit::Packets, 10, 20)]), &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 20);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(81)), 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(82)), 20);
    assert_eq!(at_once(&mut host, "203.0.113.8", tcp(81)), 20);
    assert_eq!(at_once(&mut host, "2001:db8::1", tcp(80)), 20);
    assert_eq!(at_once(&mut host, "2001:db8::ffff:1", tcp(80)), 0, "the same /64");
    assert_eq!(at_once(&mut host, "2001:db8:0:1::1", tcp(80)), 20);
}

#[test]
fn a_prefix_has_one_bucket() {
    let scope = Scope::Prefix { v4_len: 24, v6_len: 48 };
    let compiled = compiled(&limited(vec![per_second(scope, Unit::Packets, 10, 20)]), &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 20);
    assert_eq!(at_once(&mut host, "203.0.113.255", tcp(80)), 0);
    assert_eq!(at_once(&mut host, "203.0.112.9", tcp(80)), 20);
    assert_eq!(at_once(&mut host, "2001:db8:0:1::1", tcp(80)), 20);
    assert_eq!(at_once(&mut host, "2001:db8:0:2::1", tcp(80)), 0);
    assert_eq!(at_once(&mut host, "2001:db8:1:2::1", tcp(80)), 20);
}

#[test]
fn a_total_belongs_to_the_service() {
    let compiled = compiled(&limited(vec![per_second(Scope::Service, Unit::Packets, 10, 20)]), &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 20);
    assert_eq!(at_once(&mut host, "198.51.100.1", tcp(80)), 0, "all sources together");
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(81)), 20, "another service");
}

#[test]
fn a_total_is_of_both_families_together() {
    let compiled = compiled(&limited(vec![per_second(Scope::Service, Unit::Packets, 10, 20)]), &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 20);
    assert_eq!(at_once(&mut host, "2001:db8::9", tcp(80)), 0);
}

#[test]
fn a_source_owes_nothing_before_the_clock_of_the_cells_wraps() {
    let slow = Bucket { per_ns: 3600 * SECOND, ..per_second(SOURCE, Unit::Packets, 1, 4) };
    let mut policy = limited(vec![per_second(SOURCE, Unit::Packets, 1000, 2000)]);
    policy.limits[1].buckets = vec![slow];
    let compiled = compiled(&policy, &["eth0"]);
    for before_wrap_ns in [1, SECOND, 3600 * SECOND, 4 * 3600 * SECOND] {
        let mut host = Simulation::new(&compiled, 0);
        let outcome = host.ingress(&frame(address("203.0.113.9"), tcp(80)), (1 << 48) - before_wrap_ns);
        assert_eq!(outcome.reason, Reason::ServiceAllowed, "{before_wrap_ns} ns before");
    }
}

#[test]
fn what_sources_owe_outlives_another_policy() {
    let before = limited(vec![per_second(SOURCE, Unit::Packets, 10, 20)]);
    let mut after = before.clone();
    // Other buckets before it, another order, another rate: it is still the bucket of that limit.
    after.limits.swap(0, 1);
    after.limits[1].buckets[0].burst = 25;
    for service in &mut after.services {
        service.limit = service.limit.map(|limit| LimitId(1 - limit.0));
    }
    after.services.rotate_right(1);
    let (before, after) = (compiled(&before, &["eth0"]), compiled(&after, &["eth0"]));
    let mut host = Simulation::new(&before, 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 20);
    host.go_on_with(&after, 0);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 5);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(82)), 20);
}

#[test]
fn echo_requests_keep_their_limit() {
    let mut policy = limited(vec![per_second(SOURCE, Unit::Packets, 10, 20)]);
    policy.plumbing.ping = true;
    policy.plumbing.ping_limit = Some(LimitId(0));
    let compiled = compiled(&policy, &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    let ping = frame(address("203.0.113.9"), TestTarget::Ping);
    let reasons: Vec<Reason> = (0..21).map(|_| host.ingress(&ping, START).reason).collect();
    assert!(reasons[..20].iter().all(|reason| *reason == Reason::Ping));
    assert_eq!(reasons[20], Reason::PingOverLimit);
    assert_eq!(at_once(&mut host, "203.0.113.9", tcp(80)), 0, "the limit is the same, and so is the source");
}
