//! Which route is taken, what outlives a plan, and who is banned.

use std::net::IpAddr;

use super::super::Reason;
use super::super::host::Host;
use super::super::router::{Router, source};
use super::{client, plan, planned};
use crate::proxy::plan::{Escalation, Plan, RequestLimit};

#[test]
fn the_most_specific_route_is_taken() {
    let mut plan = plan();
    plan.routes = [
        ("exact", "web", "a.example", "/"),
        ("exact-api", "web", "a.example", "/api"),
        ("exact-api-v2", "web", "a.example", "/api/v2/"),
        ("below", "web", "*.example", "/"),
        ("below-b", "web", "*.b.example", "/"),
        ("only-path", "web", "c.example", "/only"),
        ("six", "web", "[2001:db8::1]", "/"),
        ("any", "web", "", "/"),
        ("any-api", "web", "", "/api"),
        ("other", "other", "", "/x"),
        ("escaped", "other", "", "/a%20b"),
    ]
    .map(|(name, listener, host, path)| planned(name, listener, host, path))
    .into();
    let router = Router::new(&plan);
    for (listener, host, path, expected) in [
        ("web", "a.example", "/", "exact"),
        ("web", "A.EXAMPLE.:443", "/x", "exact"),
        ("web", "a.example", "/api", "exact-api"),
        ("web", "a.example", "/api/", "exact-api"),
        ("web", "a.example", "/api/x", "exact-api"),
        ("web", "a.example", "/apix", "exact"),
        ("web", "a.example", "/API", "exact"),
        ("web", "a.example", "/api/v2", "exact-api-v2"),
        ("web", "a.example", "/api/v2/", "exact-api-v2"),
        ("web", "a.example", "/api/v22", "exact-api"),
        ("web", "b.example", "/", "below"),
        ("web", "x.y.example", "/", "below"),
        ("web", "x.b.example", "/", "below-b"),
        ("web", "y.x.b.example", "/", "below-b"),
        ("web", "example", "/api", "any-api"),
        ("web", "notexample", "/", "any"),
        ("web", "c.example", "/only/x", "only-path"),
        ("web", "c.example", "/else", "below"),
        ("web", "[2001:db8:0:0::1]", "/", "six"),
        ("web", "", "/", "any"),
        ("web", "10.0.0.1", "/api/x", "any-api"),
        ("other", "a.example", "/x", "other"),
        ("other", "a.example", "/", "none"),
        // Paths of requests come decoded.
        ("other", "a.example", "/a b/c", "escaped"),
        ("other", "a.example", "/a%20b", "none"),
        ("unknown", "a.example", "/", "none"),
    ] {
        let host = Host::parse(host.as_bytes());
        let found = router.route(listener, host.as_ref(), path.as_bytes());
        assert_eq!(found.map_or("none", |route| &route.plan.name), expected, "{listener} {host:?} {path}");
    }
}

#[test]
fn headers_of_a_route_come_before_those_of_all() {
    let mut plan = plan();
    plan.common.headers = [("X-A", "all"), ("X-B", "all")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let mut route = planned("r", "web", "", "/");
    route.headers = [("x-a", "own"), ("bad name", "x"), ("x-c", "a\nb")]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into();
    plan.routes = vec![route];
    let router = Router::new(&plan);
    let found: Vec<_> = router.routes()[0].headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(found, [("x-a", &b"own"[..]), ("x-b", b"all")]);
}

fn limited(ban_after: u32) -> Plan {
    let mut plan = plan();
    let mut route = planned("r", "web", "", "/");
    let exceed = Some(Escalation { ban_ms: 5000, after: ban_after });
    route.limit = Some(RequestLimit { interval_ns: 1000, burst: 0, status: 429, v6_prefix: 64, exceed });
    plan.routes = vec![route];
    plan.common.abuse = Some(Escalation { ban_ms: 7000, after: 2 });
    plan.common.trusted = vec!["10.0.0.0/8".parse().expect("a network")];
    plan
}

#[test]
fn a_plan_that_follows_keeps_what_sources_owe() {
    let router = Router::new(&limited(2));
    let charge = |router: &Router| {
        router.routes()[0].limiter.as_ref().map(|l| l.charge([192, 0, 2, 1].into(), 1).is_ok())
    };
    assert_eq!(charge(&router), Some(true));
    assert_eq!(charge(&router.succeed(&limited(2))), Some(false));
    let mut other = limited(2);
    other.routes[0].limit.as_mut().expect("a limit").interval_ns = 2000;
    assert_eq!(charge(&router.succeed(&other)), Some(true));
    assert_eq!(router.offence(&client("192.0.2.1"), Reason::RateLimited, Some(&router.routes()[0]), 1), None);
    let next = router.succeed(&limited(2));
    assert!(next.offence(&client("192.0.2.1"), Reason::RateLimited, Some(&next.routes()[0]), 1).is_some());
}

#[test]
fn pitfall_15_the_peer_is_banned_and_no_proxy_nor_loopback() {
    for (peer, banned) in [
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", true),
        ("2001:db8::1", true),
        ("127.0.0.1", false),
        ("127.8.0.1", false),
        ("::1", false),
        ("::ffff:127.0.0.1", false),
        ("10.2.3.4", false),
        ("::ffff:10.2.3.4", false),
    ] {
        let router = Router::new(&limited(2));
        let route = router.routes()[0].clone();
        for (reason, ms) in [(Reason::RateLimited, 5000), (Reason::BadHost, 7000)] {
            let offence = |now| router.offence(&client(peer), reason, Some(&route), now);
            assert_eq!(offence(1), None);
            let found = offence(2);
            let address: IpAddr = peer.parse().expect("an address");
            assert_eq!(
                found.as_ref().map(|ban| (ban.address, ban.ms)),
                banned.then_some((address.to_canonical(), ms))
            );
            assert!(found.is_none_or(|ban| ban.why.contains("within a minute")));
            assert_eq!(offence(3), None);
        }
    }
}

#[test]
fn what_well_behaved_clients_meet_is_no_offence() {
    let mut plan = limited(1);
    plan.common.abuse = Some(Escalation { ban_ms: 7000, after: 1 });
    for reason in Reason::ALL {
        // A policy that says nothing of bans has none.
        for (plan, bans) in [(&plan, true), (&super::plan(), false)] {
            let router = Router::new(plan);
            let route = router.routes().first();
            let found = router.offence(&client("192.0.2.1"), *reason, route.map(AsRef::as_ref), 1);
            let expected = bans && (reason.is_abuse() || *reason == Reason::RateLimited);
            assert_eq!(found.is_some(), expected, "{reason}");
        }
    }
    for reason in [
        Reason::NoRoute,
        Reason::UpstreamDown,
        Reason::UpstreamTimeout,
        Reason::BodyTooLarge,
        Reason::ClientTimeout,
        Reason::ClientGone,
    ] {
        assert!(!reason.is_abuse(), "{reason}");
    }
}

#[test]
fn sources_are_prefixes() {
    for (address, prefix, same) in [
        ("2001:db8::1", 64, "2001:db8::"),
        ("2001:db8:1:2:3::", 48, "2001:db8:1::"),
        ("2001:db8::1", 128, "2001:db8::1"),
        ("2001:db8::1", 0, "::"),
        ("2001:db8::1", 200, "2001:db8::1"),
        ("192.0.2.1", 0, "::ffff:192.0.2.1"),
    ] {
        let same: IpAddr = same.parse().expect("an address");
        assert_eq!(
            source(address.parse().expect("an address"), prefix),
            source(same, 128),
            "{address}/{prefix}"
        );
    }
}
