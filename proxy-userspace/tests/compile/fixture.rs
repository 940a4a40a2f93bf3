//! Policies and frames for the tests of this package, and the meaning of a policy word by word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use proxy_common::abi::reason::Reason;
use tollgate::policy::compile::{Compiled, RuleIds, compile};
use tollgate::policy::model::{
    DefaultAction, HookChoice, Interface, Plumbing, Policy, PolicyTest, PortRange, Refusal, Service,
    TestTarget, Timeouts, Transport, Zone, ZoneId,
};
use tollgate::policy::units::InterfacePattern;
use tollgate::simulate;

/// A policy that drops everything on eth0, without plumbing.
pub fn empty() -> Policy {
    Policy {
        path: PathBuf::from("policy.toml"),
        hash: String::new(),
        interfaces: vec![interface("eth0")],
        zones: Vec::new(),
        limits: Vec::new(),
        services: Vec::new(),
        plumbing: Plumbing {
            router_advertisements: false,
            dhcp: false,
            dhcpv6: false,
            multicast_membership: false,
            mdns: false,
            ping: false,
            ping_limit: None,
        },
        timeouts: Timeouts {
            tcp_opening_ns: 120_000_000_000,
            tcp_established_ns: 432_000_000_000_000,
            tcp_closing_ns: 120_000_000_000,
            udp_ns: 180_000_000_000,
            icmp_ns: 30_000_000_000,
        },
        proxy: None,
        bodies: Vec::new(),
        tests: Vec::new(),
        warnings: Vec::new(),
    }
}

pub fn interface(name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        hook: HookChoice::Auto,
        default: DefaultAction::Drop,
        deny: Vec::new(),
        isolate: Vec::new(),
    }
}

pub fn zone(name: &str, prefixes: Vec<IpNet>) -> Zone {
    Zone { name: name.to_owned(), any: false, prefixes, list: None, interfaces: Vec::new() }
}

/// A service at one TCP and one UDP port.
pub fn service(name: &str, port: u16, allow: &[usize], deny: &[usize]) -> Service {
    let range = |transport| PortRange { transport, first: port, last: port };
    let ids = |zones: &[usize]| zones.iter().map(|zone| ZoneId(*zone)).collect();
    Service {
        name: name.to_owned(),
        ports: vec![range(Transport::Tcp), range(Transport::Udp)],
        allow: ids(allow),
        deny: ids(deny),
        limit: None,
        refuse: Refusal::Drop,
        audit: false,
    }
}

pub fn compiled(policy: &Policy, interfaces: &[&str]) -> Compiled {
    let names: Vec<String> = interfaces.iter().map(|name| (*name).to_owned()).collect();
    let rules = RuleIds::assign(&[], &|_| false, policy).expect("ids");
    compile(policy, &names, &rules).expect("tables")
}

/// A frame from an address.
pub fn frame(from: IpAddr, to: TestTarget) -> Vec<u8> {
    simulate::frame(&PolicyTest { line: 1, from, to, interface: None, expect_pass: true }).expect("a frame")
}

pub fn tcp(port: u16) -> TestTarget {
    TestTarget::Port(Transport::Tcp, port)
}

pub fn udp(port: u16) -> TestTarget {
    TestTarget::Port(Transport::Udp, port)
}

/// First and last address of a prefix, and those outside next to them.
pub fn edges(net: &IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            let all = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
            all.into_iter().flatten().map(|bits| Ipv4Addr::from(bits).into()).collect()
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            let all = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
            all.into_iter().flatten().map(|bits| Ipv6Addr::from(bits).into()).collect()
        }
    }
}

/// What docs/policy.md says of a first packet without plumbing: reason and service.
pub fn meaning(policy: &Policy, interface: &str, from: IpAddr, to: TestTarget) -> (Reason, Option<String>) {
    let invalid = match from {
        IpAddr::V4(a) => a.is_loopback() || a.is_multicast() || a.is_broadcast() || a.is_unspecified(),
        IpAddr::V6(a) => {
            a.is_loopback() || a.is_multicast() || a.is_unspecified() || a.to_ipv4_mapped().is_some()
        }
    };
    if invalid {
        return (Reason::SourceInvalid, None);
    }
    let means = |pattern: &String| pattern.parse::<InterfacePattern>().expect("a pattern").matches(interface);
    let inside = |zone: &Zone| zone.any || zone.prefixes.iter().any(|net| net.contains(&from));
    let spoofed =
        |zone: &&Zone| inside(zone) && !zone.interfaces.is_empty() && !zone.interfaces.iter().any(means);
    if policy.zones.iter().any(|zone| spoofed(&zone)) {
        return (Reason::SourceSpoofed, None);
    }
    let entry = policy
        .interfaces
        .iter()
        .find(|entry| entry.name == interface)
        .or_else(|| policy.interfaces.iter().find(|entry| means(&entry.name)))
        .expect("an entry");
    let among = |ids: &[ZoneId]| ids.iter().any(|id| inside(&policy.zones[id.0]));
    if among(&entry.deny) {
        return (Reason::SourceDenied, None);
    }
    let TestTarget::Port(transport, port) = to else { panic!("no ping") };
    let has = |range: &PortRange| range.transport == transport && (range.first..=range.last).contains(&port);
    let Some(service) = policy.services.iter().find(|service| service.ports.iter().any(has)) else {
        let reason = match entry.default {
            DefaultAction::Drop | DefaultAction::Reject => Reason::NoService,
            DefaultAction::Accept => Reason::DefaultAccept,
        };
        return (reason, Some("default".to_owned()));
    };
    let reason = if among(&service.deny) {
        Reason::ServiceDenied
    } else if among(&service.allow) {
        Reason::ServiceAllowed
    } else {
        Reason::ServiceRefused
    };
    (reason, Some(service.name.clone()))
}
