//! The counters add up: every frame that the interface received is in exactly one reason, and in its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use tollgate_tests::counters::Count;
use tollgate_tests::frames::{self, ACK, ETHERNET_LEN, FIN, IPV4, IPV6, Link, Path, QINQ, SYN, VLAN};
use tollgate_tests::lab::{LAN_MAC, SERVER_MAC, SERVER_PORT, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::UdpService;
use tollgate_tests::{Deployment, Hook, Host};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"
isolate = ["containers"]

[zones]
lan = ["192.168.0.0/24", "fe80::/10"]
containers = ["172.17.0.0/16"]

[services.sink]
ports = ["udp/7000"]
allow = ["lan"]
"#;

const LINK: Link = Link { source: LAN_MAC, destination: SERVER_MAC };
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x104);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 9);

/// Frames of a kind: how many, what each is, and the reason that must count them.
struct Kind {
    count: usize,
    frame: Vec<u8>,
    reason: &'static str,
    /// The outermost VLAN tag, which the kernel takes off before TC sees the frame.
    tag: usize,
}

fn kind(count: usize, reason: &'static str, frame: Vec<u8>) -> Kind {
    Kind { count, frame, reason, tag: 0 }
}

/// A frame with one byte changed.
fn spoiled(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// A configuration message of spanning tree behind its LLC header (IEEE 802.1D).
fn bpdu() -> [u8; 38] {
    let mut payload = [0; 38];
    payload[..3].copy_from_slice(&[0x42, 0x42, 0x03]);
    payload
}

fn mix() -> Vec<Kind> {
    let udp = |source: Ipv4Addr, port| Path::new(source, SERVER).udp(4000, port, b"a payload");
    let valid = LINK.ip(&udp(LAN, 7000));
    let syn = LINK.ip(&Path::new(LAN, SERVER).tcp(4000, 22, SYN, 1, &[]));
    let v6 = LINK.ip(&Path::new(OUTSIDE_V6, SERVER_V6).udp(4000, 7000, b"six"));
    let elsewhere = Link { source: LAN_MAC, destination: [2, 0, 0, 0, 0, 9] };
    vec![
        kind(100, "service-allowed", valid.clone()),
        kind(10, "service-allowed", elsewhere.ip(&udp(LAN, 7000))),
        Kind { tag: 4, ..kind(20, "service-allowed", LINK.tagged(&[(VLAN, 7)], IPV4, &udp(LAN, 7000))) },
        Kind {
            tag: 4,
            ..kind(10, "service-allowed", LINK.tagged(&[(QINQ, 7), (VLAN, 8)], IPV4, &udp(LAN, 7000)))
        },
        kind(40, "service-refused", LINK.ip(&udp(OUTSIDE, 7000))),
        kind(25, "service-refused", v6.clone()),
        kind(50, "no-service", LINK.ip(&udp(LAN, 7001))),
        kind(35, "no-service", syn.clone()),
        kind(10, "no-service", LINK.ip(&Path::new(OUTSIDE, SERVER).tcp(4000, 22, ACK, 1, b"blind"))),
        kind(10, "no-service", LINK.ip(&Path::new(OUTSIDE, SERVER).packet(47, &[0; 24]))),
        kind(
            30,
            "arp",
            LINK.frame(frames::ARP, &frames::arp_request(LAN_MAC, LAN, [192, 168, 0, 200].into())),
        ),
        kind(5, "ping", LINK.ip(&Path::new(LAN, SERVER).echo_request(1, 1))),
        kind(15, "unknown-ethertype", LINK.frame(0x1234, b"garbage garbage")),
        kind(5, "link-control", LINK.frame(0x0026, &bpdu())),
        kind(10, "malformed-ipv4", spoiled(valid.clone(), ETHERNET_LEN, 0x44)),
        kind(10, "malformed-ipv4", spoiled(valid.clone(), ETHERNET_LEN + 2, 0x7f)),
        kind(5, "malformed-ipv4", LINK.frame(IPV4, &[])),
        kind(10, "malformed-ipv6", spoiled(v6, ETHERNET_LEN + 4, 0x7f)),
        kind(5, "malformed-ipv6", LINK.frame(IPV6, &[0x60; 20])),
        kind(10, "malformed-udp", spoiled(valid, ETHERNET_LEN + 24, 0x7f)),
        kind(10, "malformed-tcp", spoiled(syn, ETHERNET_LEN + 32, 0x40)),
        kind(10, "tcp-flags", LINK.ip(&Path::new(LAN, SERVER).tcp(4000, 22, SYN | FIN, 1, &[]))),
        kind(10, "source-invalid", LINK.ip(&udp(Ipv4Addr::LOCALHOST, 7000))),
        kind(10, "destination-isolated", LINK.ip(&Path::new(LAN, CONTAINER).udp(4000, 7000, b"direct"))),
        kind(10, "fragment-orphan", spoiled(LINK.ip(&udp(LAN, 7000)), ETHERNET_LEN + 7, 9)),
    ]
}

fn every_frame_is_in_one_reason(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    let server = d.lab.ns(Host::Server);
    // Without a listener the host would answer with ICMP errors.
    let _sink = UdpService::start(&server, 7000)?;
    d.lab.isolate_server()?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let mix = mix();

    let (stats_before, received_before) = (d.tollgate.settled_stats()?, server.received(UPLINK)?);
    for kind in &mix {
        sender.send(&vec![kind.frame.clone(); kind.count])?;
    }
    let delta = d.tollgate.settled_stats()?.since(&stats_before);
    let received = server.received(UPLINK)?;

    let packets: usize = mix.iter().map(|kind| kind.count).sum();
    ensure!(received.packets - received_before.packets == packets as u64, "{received:?}: {packets} sent");
    ensure!(delta.seen.packets == packets as u64, "{packets} frames sent: {delta:#?}");
    let visible = |kind: &Kind| kind.frame.len() - if hook == Hook::Tc { kind.tag } else { 0 };
    let bytes: usize = mix.iter().map(|kind| kind.count * visible(kind)).sum();
    ensure!(delta.seen.bytes == bytes as u64, "{bytes} bytes sent: {delta:#?}");
    // In its XDP path this driver counts bytes without the link header.
    let header = if hook == Hook::Tc { 0 } else { ETHERNET_LEN };
    let driver_bytes: usize = mix.iter().map(|kind| kind.count * (kind.frame.len() - header)).sum();
    ensure!(
        received.bytes - received_before.bytes == driver_bytes as u64,
        "{driver_bytes} bytes sent: {received:?}"
    );
    delta.adds_up()?;

    let mut reasons: Vec<_> = mix.iter().map(|kind| kind.reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let of_it = || mix.iter().filter(|kind| kind.reason == reason);
        let expected = Count {
            packets: of_it().map(|kind| kind.count as u64).sum(),
            bytes: of_it().map(|kind| (kind.count * visible(kind)) as u64).sum(),
        };
        let counted = delta.reason(reason);
        ensure!(counted == expected, "{reason}: {expected:?} sent, {counted:?} counted: {delta:#?}");
    }
    Ok(())
}

#[test]
fn every_frame_is_in_one_reason_by_native_xdp() -> Result<()> {
    every_frame_is_in_one_reason(Hook::AsWritten)
}

#[test]
fn every_frame_is_in_one_reason_by_tc() -> Result<()> {
    every_frame_is_in_one_reason(Hook::Tc)
}

/// Real traffic comes in any order and number; the sums hold all the same.
#[test]
fn sums_hold_after_real_traffic() -> Result<()> {
    let d = Deployment::platform(Hook::AsWritten)?;
    let server = d.lab.ns(Host::Server);
    let (seen_before, received_before) = (d.tollgate.settled_stats()?.seen, server.received(UPLINK)?);
    for port in [80, 8000, 22] {
        for host in [Host::Lan, Host::Outside] {
            let to = (IpAddr::V4(SERVER), port).into();
            tollgate_tests::traffic::http_get(&d.lab.ns(host), to, "/", Duration::from_millis(600))?;
        }
    }
    let stats = d.tollgate.settled_stats()?;
    stats.adds_up()?;
    let received = server.received(UPLINK)?.packets - received_before.packets;
    let seen = (stats.seen - seen_before).packets;
    ensure!(seen == received, "{received} received, {seen} seen");
    Ok(())
}
