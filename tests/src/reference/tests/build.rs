//! Policies and frames for these tests, byte by byte.

use std::net::IpAddr;
use std::path::PathBuf;

use tollgate::policy::model::{
    Bucket, DefaultAction, HookChoice, Interface, Limit, LimitId, Plumbing, Policy, PortRange, Refusal,
    Scope, Service, Timeouts, Transport, Unit, Zone, ZoneId,
};

pub const SECOND: u64 = 1_000_000_000;
pub const HOST: &str = "192.0.2.1";
pub const HOST6: &str = "2001:db8::1";
pub const OFFICE: &str = "198.51.100.7";
pub const STRANGER: &str = "203.0.113.9";
pub const STRANGER6: &str = "2001:db8:113::9";
pub const LINK: &str = "fe80::2";

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub fn zone(name: &str, prefixes: &[&str], interfaces: &[&str]) -> Zone {
    Zone {
        name: name.into(),
        any: prefixes.is_empty(),
        prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
        list: None,
        interfaces: interfaces.iter().map(|name| (*name).into()).collect(),
    }
}

pub fn interface(name: &str, default: DefaultAction, deny: &[usize]) -> Interface {
    let deny = deny.iter().copied().map(ZoneId).collect();
    Interface { name: name.into(), hook: HookChoice::Auto, default, deny, isolate: Vec::new() }
}

pub fn service(name: &str, ports: &[(Transport, u16, u16)], allow: &[usize], deny: &[usize]) -> Service {
    Service {
        name: name.into(),
        ports: ports.iter().map(|&(transport, first, last)| PortRange { transport, first, last }).collect(),
        allow: allow.iter().copied().map(ZoneId).collect(),
        deny: deny.iter().copied().map(ZoneId).collect(),
        limit: None,
        refuse: Refusal::Drop,
        audit: false,
    }
}

pub fn bucket(scope: Scope, unit: Unit, tokens: u64, burst: u64) -> Bucket {
    Bucket { scope, unit, tokens, per_ns: SECOND, burst }
}

/// Zones: 0 any, 1 office, 2 bad. Services: `web` for all but bad, `database` for the office, `closed` for nobody.
pub fn policy() -> Policy {
    use Transport::{Tcp, Udp};
    let source = Scope::Source { v6_len: 64 };
    Policy {
        path: PathBuf::from("policy.toml"),
        hash: String::new(),
        interfaces: vec![interface("eth0", DefaultAction::Drop, &[])],
        zones: vec![
            zone("any", &[], &[]),
            zone("office", &["198.51.100.0/24", "2001:db8:1::/48"], &[]),
            zone("bad", &["203.0.113.128/25"], &[]),
        ],
        limits: vec![Limit {
            name: "ping".into(),
            buckets: vec![bucket(source, Unit::Packets, 10, 20)],
            ban: None,
        }],
        services: vec![
            service("web", &[(Tcp, 80, 80), (Udp, 8010, 8019)], &[0], &[2]),
            service("database", &[(Tcp, 5432, 5432), (Udp, 53, 53)], &[1], &[]),
            service("closed", &[(Tcp, 23, 23)], &[], &[]),
        ],
        plumbing: Plumbing {
            router_advertisements: true,
            dhcp: true,
            dhcpv6: true,
            multicast_membership: true,
            mdns: false,
            ping: true,
            ping_limit: Some(LimitId(0)),
        },
        timeouts: Timeouts {
            tcp_opening_ns: 120 * SECOND,
            tcp_established_ns: 432_000 * SECOND,
            tcp_closing_ns: 120 * SECOND,
            udp_ns: 180 * SECOND,
            icmp_ns: 30 * SECOND,
        },
        proxy: None,
        bodies: Vec::new(),
        tests: Vec::new(),
        warnings: Vec::new(),
    }
}

pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet with no options; `flags` is the word of flags and fragment offset.
pub fn ipv4(
    source: &str,
    destination: &str,
    protocol: u8,
    ttl: u8,
    id: u16,
    flags: u16,
    data: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(20 + data.len()).expect("a length");
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(flags.to_be_bytes());
    packet.extend([ttl, protocol, 0, 0]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(data);
    packet
}

pub fn ipv6(source: &str, destination: &str, next: u8, hops: u8, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).expect("a length");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(data);
    packet
}

/// The frame of a whole packet of either family.
pub fn frame(source: &str, destination: &str, protocol: u8, hops: u8, data: &[u8]) -> Vec<u8> {
    if source.contains(':') {
        ethernet(0x86dd, &ipv6(source, destination, protocol, hops, data))
    } else {
        ethernet(0x0800, &ipv4(source, destination, protocol, hops, 1, 0, data))
    }
}

pub fn tcp_header(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

pub fn udp_datagram(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).expect("a length");
    let mut datagram = [source.to_be_bytes(), destination.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    datagram.extend(data);
    datagram
}

pub fn icmp_message(kind: u8, identifier: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend([0, 1]);
    message.extend(data);
    message
}

pub fn tcp(source: &str, destination: &str, ports: (u16, u16), flags: u8) -> Vec<u8> {
    frame(source, destination, 6, 64, &tcp_header(ports.0, ports.1, flags))
}

pub fn udp(source: &str, destination: &str, ports: (u16, u16)) -> Vec<u8> {
    frame(source, destination, 17, 64, &udp_datagram(ports.0, ports.1, b"data"))
}

pub fn icmp(source: &str, destination: &str, kind: u8, identifier: u16, data: &[u8]) -> Vec<u8> {
    let protocol = if source.contains(':') { 58 } else { 1 };
    frame(source, destination, protocol, 64, &icmp_message(kind, identifier, data))
}

/// An IPv6 extension header of 8 bytes; read as a routing header, it has segments left.
pub fn extension(next: u8) -> Vec<u8> {
    vec![next, 0, 1, 4, 0, 0, 0, 0]
}

pub fn fragment_header(next: u8, offset: u16, more: bool, id: u32) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header
}

fn octets(address: &str) -> Vec<u8> {
    match address.parse().expect("an address") {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
