//! The policies that ship, resolved: a readable dump of each is compared with the committed one.
//!
//! After a wanted change, `TOLLGATE_BLESS=1 cargo test -p proxy-userspace --test policy_golden` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tollgate::policy;
use tollgate::policy::model::{
    Bucket, LimitId, Policy, PortRange, Scope, TestTarget, Transport, Unit, ZoneId,
};
use tollgate::policy::units::{ByteRate, CountRate, Ports, ServerAddress, Size, TimeSpan};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden(name: &str) {
    let path = workspace().join("policies").join(format!("{name}.toml"));
    let policy = policy::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let found = dump(&policy);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if env::var_os("TOLLGATE_BLESS").is_some() {
        fs::write(&kept, found).expect("a golden file");
        return;
    }
    let expected = fs::read_to_string(&kept).unwrap_or_default();
    let differing = || {
        let lines = expected.lines().chain(std::iter::repeat("(end)")).zip(found.lines()).enumerate();
        lines
            .filter(|(_, (a, b))| a != b)
            .map(|(i, (a, b))| format!("{}: - {a}\n{}: + {b}\n", i + 1, i + 1))
            .collect::<String>()
    };
    assert!(
        expected == found,
        "{} differs; if it should, run this test with TOLLGATE_BLESS=1\n{}",
        kept.display(),
        differing()
    );
}

#[test]
fn platform() {
    golden("platform");
}

#[test]
fn platform_strict() {
    golden("platform-strict");
}

#[test]
fn minimal() {
    golden("minimal");
}

#[test]
fn strict_differs_from_platform_only_by_the_database() {
    let load = |name: &str| {
        policy::load(&workspace().join("policies").join(name)).unwrap_or_else(|error| panic!("{error}"))
    };
    let (platform, mut strict) = (load("platform.toml"), load("platform-strict.toml"));
    let database = strict.services.iter_mut().find(|s| s.name == "postgres").expect("a database");
    assert!(database.allow.is_empty() && database.limit.is_none());
    let before = platform.services.iter().find(|s| s.name == "postgres").expect("a database");
    database.clone_from(before);
    assert_eq!(strict.services, platform.services);
    assert_eq!(strict.interfaces, platform.interfaces);
    assert_eq!(strict.zones, platform.zones);
    assert_eq!(strict.limits, platform.limits);
    assert_eq!(strict.plumbing, platform.plumbing);
    // Lines of the file differ by the database's.
    let unplaced = |policy: &Policy| {
        let mut plan = policy.proxy.clone().expect("a plan");
        plan.routes.iter_mut().for_each(|route| route.place.clear());
        plan
    };
    assert_eq!(unplaced(&strict), unplaced(&platform));
}

fn dump(policy: &Policy) -> String {
    let mut out = String::new();
    let zones = |ids: &[ZoneId]| match ids {
        [] => "nobody".to_owned(),
        ids => ids.iter().map(|id| policy.zones[id.0].name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let limit = |id: Option<LimitId>| id.map_or("not limited", |id| policy.limits[id.0].name.as_str());
    for i in &policy.interfaces {
        writeln!(
            out,
            "interface {}: hook {:?}, default {:?}, deny {}, isolate {}",
            i.name,
            i.hook,
            i.default,
            zones(&i.deny),
            zones(&i.isolate)
        )
        .expect("room");
    }
    for z in &policy.zones {
        let what = if z.any { "every address".to_owned() } else { joined(&z.prefixes) };
        let bound = if z.interfaces.is_empty() {
            String::new()
        } else {
            format!("; only on {}", joined(&z.interfaces))
        };
        writeln!(out, "zone {}: {what}{bound}", z.name).expect("room");
    }
    for l in &policy.limits {
        writeln!(out, "limit {}", l.name).expect("room");
        for bucket in &l.buckets {
            writeln!(out, "    {}", dump_bucket(bucket)).expect("room");
        }
    }
    for s in &policy.services {
        let ports: Vec<String> = s.ports.iter().map(|p| Ports(*p).to_string()).collect();
        writeln!(out, "service {}: {}", s.name, ports.join(", ")).expect("room");
        let (allow, deny, limit) = (zones(&s.allow), zones(&s.deny), limit(s.limit));
        writeln!(out, "    allow {allow}; deny {deny}; {limit}; refuse {:?}", s.refuse).expect("room");
    }
    let p = &policy.plumbing;
    let named = [
        ("router-advertisements", p.router_advertisements),
        ("dhcp", p.dhcp),
        ("dhcpv6", p.dhcpv6),
        ("multicast-membership", p.multicast_membership),
        ("mdns", p.mdns),
        ("ping", p.ping),
    ];
    let list = |wanted: bool| {
        named.iter().filter(|(_, on)| *on == wanted).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    writeln!(out, "plumbing: {}; not {}; ping {}", list(true), list(false), limit(p.ping_limit))
        .expect("room");
    let t = &policy.timeouts;
    let times = [t.tcp_opening_ns, t.tcp_established_ns, t.tcp_closing_ns, t.udp_ns, t.icmp_ns]
        .map(|ns| TimeSpan { ns });
    let [opening, established, closing, udp, icmp] = times;
    writeln!(out, "timeouts: tcp {opening}, {established}, {closing}; udp {udp}; icmp {icmp}").expect("room");
    if let Some(plan) = &policy.proxy {
        for (name, listener) in &plan.listeners {
            let tls = if listener.tls.is_some() { "TLS" } else { "plain" };
            writeln!(out, "listener {name}: {}; {tls}; http2 {}", joined(&listener.bind), listener.http2)
                .expect("room");
        }
        for (name, upstream) in &plan.upstreams {
            let servers: Vec<_> = upstream.servers.iter().map(|one| ServerAddress(one.clone())).collect();
            writeln!(out, "upstream {name}: {}; {:?}", joined(&servers), upstream.protocol).expect("room");
        }
        for route in &plan.routes {
            let hosts = if route.hosts.is_empty() { "any host".to_owned() } else { joined(&route.hosts) };
            let (name, on) = (&route.name, joined(&route.listeners));
            writeln!(out, "route {name}: on {on}, {hosts}, {}: {:?}", route.path, route.action)
                .expect("room");
            if let Some(limit) = &route.limit {
                writeln!(out, "    {limit:?}").expect("room");
            }
        }
        writeln!(out, "proxy: {:?}", plan.common).expect("room");
    }
    for test in &policy.tests {
        let to = match test.to {
            TestTarget::Ping => "ping".to_owned(),
            TestTarget::Port(transport, port) => {
                Ports(PortRange { transport, first: port, last: port }).to_string()
            }
        };
        let on = test.interface.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
        let verdict = if test.expect_pass { "passes" } else { "is dropped" };
        writeln!(out, "test: {} to {to}{on} {verdict}", test.from).expect("room");
    }
    out
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn dump_bucket(bucket: &Bucket) -> String {
    let scope = match bucket.scope {
        Scope::Source { v6_len } => format!("each source (IPv6 /{v6_len})"),
        Scope::Prefix { v4_len, v6_len } => format!("each network (/{v4_len}, IPv6 /{v6_len})"),
        Scope::Service => "all together".to_owned(),
    };
    let (rate, burst) = match bucket.unit {
        Unit::Bytes => {
            let rate = ByteRate { size: Size { bytes: bucket.tokens }, per_ns: bucket.per_ns };
            (rate.to_string(), Size { bytes: bucket.burst }.to_string())
        }
        Unit::Packets | Unit::Connections => {
            (CountRate { count: bucket.tokens, per_ns: bucket.per_ns }.to_string(), bucket.burst.to_string())
        }
    };
    format!("{scope}: {} {rate}, burst {burst}", format!("{:?}", bucket.unit).to_lowercase())
}

#[test]
fn transports_print_as_they_are_written() {
    // The dump relies on it.
    assert_eq!(Ports(PortRange { transport: Transport::Udp, first: 5, last: 6 }).to_string(), "udp/5-6");
}
