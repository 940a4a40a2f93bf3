//! What reaches destinations that an interface isolates: the answers to what they began, errors about it, and nothing else.

use std::path::Path;

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use proxy_common::abi::reason::Reason;
use tollgate::policy::compile::{Compiled, RuleIds, compile};
use tollgate::simulate::Simulation;

const POLICY: &str = r#"version = 1
[interfaces.eth0]
isolate = ["containers"]
default = "accept"
[interfaces.eth1]
[zones]
containers = ["172.17.0.0/16", "fd00:17::/64"]
bad = ["198.51.100.0/24"]
[plumbing]
mdns = true
[limits.one]
per-source = { packets = "1/h", burst = 1 }
[services.web]
ports = ["tcp/80", "udp/53"]
allow = "any"
[services.limited]
ports = ["tcp/81"]
allow = "any"
limit = "one"
[services.refusing]
ports = ["tcp/82"]
allow = "none"
"#;

const SENDER: [u8; 4] = [203, 0, 113, 9];
const CONTAINER: [u8; 4] = [172, 17, 0, 2];
const HOST: [u8; 4] = [192, 0, 2, 1];
const SENDER_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const CONTAINER_V6: [u8; 16] = [0xfd, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn compiled() -> Compiled {
    let policy =
        tollgate::policy::parse(POLICY, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
    let names = ["eth0", "eth1"].map(str::to_owned);
    let rules = RuleIds::assign(&[], &|_| false, &policy).expect("ids");
    compile(&policy, &names, &rules).expect("tables")
}

/// What a packet is, whichever family.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Syn(u16),
    Ack(u16),
    Udp(u16, u16),
    Ping,
    Pong,
}

/// A frame between two addresses of a family.
fn frame(v6: bool, from: &[u8], to: &[u8], kind: Kind) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let step = if v6 {
        link.ipv6(from.try_into().expect("16 bytes"), to.try_into().expect("16 bytes"), 60)
    } else {
        link.ipv4(from.try_into().expect("4 bytes"), to.try_into().expect("4 bytes"), 60)
    };
    let mut bytes = Vec::new();
    let written = match kind {
        Kind::Syn(port) => step.tcp(4000, port, 1, 1000).syn().write(&mut bytes, &[]),
        Kind::Ack(port) => step.tcp(port, 4000, 1, 1000).ack(2).write(&mut bytes, b"data"),
        Kind::Udp(source, destination) => step.udp(source, destination).write(&mut bytes, b"data"),
        Kind::Ping if v6 => step.icmpv6_echo_request(7, 1).write(&mut bytes, &[]),
        Kind::Ping => step.icmpv4_echo_request(7, 1).write(&mut bytes, &[]),
        Kind::Pong if v6 => step.icmpv6_echo_reply(7, 1).write(&mut bytes, &[]),
        Kind::Pong => step.icmpv4_echo_reply(7, 1).write(&mut bytes, &[]),
    };
    written.expect("a frame");
    bytes
}

/// To the container, of a family.
fn inwards(v6: bool, kind: Kind) -> Vec<u8> {
    if v6 { frame(true, &SENDER_V6, &CONTAINER_V6, kind) } else { frame(false, &SENDER, &CONTAINER, kind) }
}

/// From the container.
fn outwards(v6: bool, kind: Kind) -> Vec<u8> {
    if v6 { frame(true, &CONTAINER_V6, &SENDER_V6, kind) } else { frame(false, &CONTAINER, &SENDER, kind) }
}

/// An error, sent to the container, about one of its packets.
fn error_about(v6: bool, packet: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let quote = &packet[14..];
    let mut bytes = Vec::new();
    if v6 {
        let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::NoRoute);
        link.ipv6(SENDER_V6, CONTAINER_V6, 60).icmpv6(kind).write(&mut bytes, quote)
    } else {
        let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host);
        link.ipv4(SENDER, CONTAINER, 60).icmpv4(kind).write(&mut bytes, quote)
    }
    .expect("a frame");
    bytes
}

#[test]
fn nothing_new_reaches_an_isolated_destination() {
    let compiled = compiled();
    for v6 in [false, true] {
        for kind in [
            Kind::Syn(80),
            Kind::Syn(81),
            Kind::Syn(82),
            Kind::Syn(22),
            Kind::Ack(443),
            Kind::Udp(4000, 53),
            Kind::Udp(53, 4000),
            Kind::Udp(67, 68),
            Kind::Udp(5353, 5353),
            Kind::Ping,
            Kind::Pong,
        ] {
            let mut host = Simulation::new(&compiled, 0);
            let frame = inwards(v6, kind);
            assert_eq!(host.ingress(&frame, 1).reason, Reason::DestinationIsolated, "{kind:?}, IPv6: {v6}");
            // The interface that does not isolate judges by the port.
            let mut other = Simulation::new(&compiled, 1);
            assert_ne!(other.ingress(&frame, 1).reason, Reason::DestinationIsolated, "{kind:?}, IPv6: {v6}");
        }
    }
}

#[test]
fn the_host_itself_is_reached_as_before() {
    let compiled = compiled();
    let mut host = Simulation::new(&compiled, 0);
    for (kind, reason) in [
        (Kind::Syn(80), Reason::ServiceAllowed),
        (Kind::Syn(82), Reason::ServiceRefused),
        (Kind::Syn(22), Reason::DefaultAccept),
        (Kind::Ping, Reason::Ping),
    ] {
        assert_eq!(host.ingress(&frame(false, &SENDER, &HOST, kind), 1).reason, reason, "{kind:?}");
    }
    // Nor is a container kept from being a source: that is what binding its zone does.
    assert_eq!(
        host.ingress(&frame(false, &CONTAINER, &HOST, Kind::Syn(80)), 1).reason,
        Reason::ServiceAllowed
    );
}

#[test]
fn a_packet_to_an_isolated_destination_is_charged_to_no_limit() {
    let compiled = compiled();
    let mut host = Simulation::new(&compiled, 0);
    for _ in 0..5 {
        assert_eq!(host.ingress(&inwards(false, Kind::Syn(81)), 1).reason, Reason::DestinationIsolated);
    }
    let to_host = frame(false, &SENDER, &HOST, Kind::Syn(81));
    assert_eq!(host.ingress(&to_host, 1).reason, Reason::ServiceAllowed);
    assert_ne!(host.ingress(&to_host, 1).reason, Reason::ServiceAllowed);
}

#[test]
fn what_answers_an_isolated_destination_passes() {
    let compiled = compiled();
    for v6 in [false, true] {
        for (request, answer) in [
            (Kind::Syn(443), Kind::Ack(443)),
            (Kind::Udp(4000, 5000), Kind::Udp(5000, 4000)),
            // A reply also where the port that it comes to is a service's.
            (Kind::Udp(5000, 53), Kind::Udp(53, 5000)),
            (Kind::Ping, Kind::Pong),
        ] {
            let mut host = Simulation::new(&compiled, 0);
            host.egress(&outwards(v6, request), 1);
            assert_eq!(
                host.ingress(&inwards(v6, answer), 2).reason,
                Reason::Reply,
                "{request:?}, IPv6: {v6}"
            );
            let error = error_about(v6, &outwards(v6, request));
            assert_eq!(host.ingress(&error, 3).reason, Reason::IcmpError, "{request:?}, IPv6: {v6}");
            host.reset();
            assert_eq!(host.ingress(&inwards(v6, answer), 4).reason, Reason::DestinationIsolated);
        }
    }
}

#[test]
fn an_error_about_what_nobody_sent_does_not_pass() {
    let compiled = compiled();
    let mut host = Simulation::new(&compiled, 0);
    for v6 in [false, true] {
        let error = error_about(v6, &outwards(v6, Kind::Ping));
        assert_eq!(host.ingress(&error, 1).reason, Reason::IcmpErrorUnknown, "IPv6: {v6}");
    }
}

#[test]
fn the_rest_of_a_datagram_follows_its_first_fragment() {
    let compiled = compiled();
    let mut host = Simulation::new(&compiled, 0);
    let mut first = inwards(false, Kind::Udp(4000, 53));
    // More fragments follow; the checksum of the header is not looked at.
    first[14 + 6] = 0x20;
    first.truncate(14 + 20 + 8);
    first[14 + 2..14 + 4].copy_from_slice(&28u16.to_be_bytes());
    let mut later = first.clone();
    later[14 + 6..14 + 8].copy_from_slice(&1u16.to_be_bytes());
    assert_eq!(host.ingress(&first, 1).reason, Reason::DestinationIsolated);
    assert_eq!(host.ingress(&later, 2).reason, Reason::FragmentOrphan);
}
