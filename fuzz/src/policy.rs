//! The policy reader, the compiler, and what the tables then say: any text in place of a policy.

use std::net::IpAddr;
use std::path::Path;

use proxy_common::abi::reason::Reason;
use tollgate::policy::compile::{CompileError, Compiled, RuleIds, compile, entry_for};
use tollgate::policy::model::{Policy, PolicyTest, PortRange, TestTarget, Transport, ZoneId};
use tollgate::policy::{self, units::InterfacePattern};
use tollgate::proxy::plan::Action;
use tollgate::simulate::{self, Simulation, TestError};

use crate::diagnostics;
use crate::reference::Reference;

/// Where relative lists would be: nowhere.
const PATH: &str = "/nonexistent/policy.toml";
/// Addresses that are asked for, beside those at the edges of the zones.
const STRANGERS: [&str; 4] = ["203.0.113.9", "2001:db8:113::9", "fe80::9", "127.0.0.1"];
/// Frames of a run; a policy with thousands of prefixes must not take seconds.
const MOST_FRAMES: usize = 400;

/// Reads any text as a policy.
///
/// # Panics
/// If an accepted policy can't be used, or means two things; if an error names no place.
pub fn run(data: &[u8]) {
    // Absolute paths would be read: what is found must not depend on the machine.
    let Ok(text) = str::from_utf8(data) else { return };
    if names_a_file_anywhere(text) {
        return;
    }
    let path = Path::new(PATH);
    let read = policy::parse(text, path);
    assert_eq!(policy::parse(text, path), read, "a text is two policies");
    match read {
        Ok(policy) => {
            in_range(&policy);
            tests(&policy);
            tables(&policy);
        }
        Err(error) => diagnostics::check(&error, data, path),
    }
}

/// True if a key `file` may have a value that begins with a slash. Paths of other keys are never opened.
fn names_a_file_anywhere(text: &str) -> bool {
    let value_of = |rest: &str| {
        let rest = rest.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=')?.trim_start();
        rest.trim_start_matches(['"', '\'', '\r', '\n', '\\', ' ', '\t']).chars().next()
    };
    text.contains("\\u")
        || text.contains("\\U")
        || text.contains("\\x")
        || text.match_indices("file").any(|(at, key)| value_of(&text[at + key.len()..]) == Some('/'))
}

/// Whoever holds a policy need not check it again.
fn in_range(policy: &Policy) {
    assert!(!policy.interfaces.is_empty(), "a policy that is enforced nowhere");
    let zones = |ids: &[ZoneId]| ids.iter().all(|id| id.0 < policy.zones.len());
    for interface in &policy.interfaces {
        assert!(interface.name.parse::<InterfacePattern>().is_ok(), "{interface:?}");
        assert!(zones(&interface.deny), "{interface:?}");
    }
    for zone in &policy.zones {
        assert_eq!(zone.any, zone.prefixes.is_empty(), "{zone:?}");
        assert!(zone.prefixes.iter().all(|prefix| prefix.trunc() == *prefix), "{zone:?}");
    }
    for limit in &policy.limits {
        assert!(!limit.buckets.is_empty(), "{limit:?}");
        for bucket in &limit.buckets {
            assert!(bucket.tokens > 0 && bucket.per_ns > 0 && bucket.burst > 0, "{limit:?}");
            let refill_ns = u128::from(bucket.burst) * u128::from(bucket.per_ns) / u128::from(bucket.tokens);
            assert!(refill_ns <= 4 * 3_600_000_000_000, "the limiter does not remember so long: {limit:?}");
        }
    }
    let mut ports: Vec<PortRange> = Vec::new();
    for service in &policy.services {
        assert!(zones(&service.allow) && zones(&service.deny), "{service:?}");
        assert!(service.limit.is_none_or(|id| id.0 < policy.limits.len()), "{service:?}");
        assert!(!service.ports.is_empty(), "{service:?}");
        for range in &service.ports {
            assert!(0 < range.first && range.first <= range.last, "{service:?}");
            let overlaps = |other: &PortRange| {
                other.transport == range.transport && other.first <= range.last && range.first <= other.last
            };
            assert!(!ports.iter().any(overlaps), "a port of two services: {service:?}");
            ports.push(*range);
        }
    }
    proxy(policy);
    assert!(policy.plumbing.ping_limit.is_none_or(|id| id.0 < policy.limits.len()), "{:?}", policy.plumbing);
}

/// Whoever serves the plan need not check it again.
fn proxy(policy: &Policy) {
    let Some(plan) = &policy.proxy else { return };
    assert!(!plan.listeners.is_empty(), "a plan that serves nobody");
    for listener in plan.listeners.values() {
        assert!(
            !listener.bind.is_empty() && listener.bind.iter().all(|address| address.port() != 0),
            "{listener:?}"
        );
        assert!(listener.tls.as_ref().is_none_or(|tls| !tls.certificates.is_empty()), "{listener:?}");
        assert!(listener.tls.is_some() || !listener.http2, "{listener:?}");
    }
    assert!(plan.upstreams.values().all(|upstream| !upstream.servers.is_empty()), "{:?}", plan.upstreams);
    for route in &plan.routes {
        assert!(!route.listeners.is_empty(), "{route:?}");
        assert!(route.listeners.iter().all(|name| plan.listeners.contains_key(name)), "{route:?}");
        assert!(route.path.starts_with('/'), "{route:?}");
        assert!(route.limit.as_ref().is_none_or(|limit| limit.interval_ns > 0), "{route:?}");
        if let Action::Forward { upstream, .. } = &route.action {
            assert!(plan.upstreams.contains_key(upstream), "{route:?}");
        }
    }
}

/// The policy's own tests can be run; whether they pass is the author's affair.
fn tests(policy: &Policy) {
    match simulate::check(policy) {
        Ok(report) => {
            assert_eq!(report.results.len(), policy.tests.len(), "a test is missing from the report");
            assert_eq!(report.passed(), report.to_string().is_empty(), "{report}");
        }
        Err(TestError::Compile(error)) => explained(&error),
        Err(error) => panic!("the tests of an accepted policy can't be run: {error}"),
    }
}

fn explained(error: &CompileError) {
    match error {
        CompileError::NoEntry { .. } | CompileError::NoRuleId { .. } => {
            panic!("a fault of the program: {error}")
        }
        CompileError::TooManyDecisions { .. }
        | CompileError::TooManyPrefixes
        | CompileError::TooManyZones { .. }
        | CompileError::TooManyBuckets { .. }
        | CompileError::TooManyRules { .. } => {}
    }
}

/// The tables say what the policy says, of a SYN or datagram from and to each edge.
fn tables(policy: &Policy) {
    let names: Vec<String> = policy
        .interfaces
        .iter()
        .map(|interface| interface.name.replace('*', "0"))
        .filter(|name| name.parse::<InterfacePattern>().is_ok_and(|name| !name.is_pattern()))
        .filter(|name| entry_for(policy, name).is_some())
        .take(4)
        .collect();
    let compiled = RuleIds::assign(&[], &|_| false, policy).and_then(|rules| compile(policy, &names, &rules));
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(error) => return explained(&error),
    };
    for at in 0..names.len() {
        on_interface(policy, &compiled, at);
    }
}

fn on_interface(policy: &Policy, compiled: &Compiled, at: usize) {
    let name = &compiled.interfaces[at].name;
    let mut frames = 0;
    for from in addresses(policy) {
        // The same history for both: limits count what came before.
        let mut simulation = Simulation::new(compiled, at);
        let mut reference = Reference::new(policy, name).expect("an entry");
        for to in targets(policy) {
            frames += 1;
            if frames > MOST_FRAMES {
                return;
            }
            let test = PolicyTest { line: 1, from, to, interface: None, expect_pass: true };
            let frame = simulate::frame(&test).expect("a frame");
            let outcome = simulation.ingress(&frame, 0);
            assert_ne!(outcome.reason, Reason::TableFault, "{to:?} from {from} on {name}");
            let rule = if outcome.reason.has_rule() { compiled.rule_name(outcome.rule) } else { None };
            let (reason, expected) = reference.ingress(&frame, 0);
            assert_eq!(
                (outcome.reason, rule),
                (reason, expected.as_deref()),
                "engine, then reference: {to:?} from {from} on {name}"
            );
        }
    }
}

/// First and last addresses of zones, and strangers.
fn addresses(policy: &Policy) -> Vec<IpAddr> {
    let strangers = STRANGERS.iter().filter_map(|text| text.parse().ok());
    let prefixes = policy.zones.iter().flat_map(|zone| zone.prefixes.iter().take(4));
    let edges = prefixes.flat_map(|prefix| [prefix.network(), prefix.broadcast()]).take(24);
    strangers.chain(edges).collect()
}

/// First and last ports of services, one of none, and ping.
fn targets(policy: &Policy) -> Vec<TestTarget> {
    let none = [TestTarget::Ping, TestTarget::Port(Transport::Tcp, 9), TestTarget::Port(Transport::Udp, 9)];
    let ranges = policy.services.iter().flat_map(|service| service.ports.iter().take(4));
    let edges = ranges
        .flat_map(|range| [range.first, range.last].map(|port| TestTarget::Port(range.transport, port)));
    none.into_iter().chain(edges.take(16)).collect()
}
