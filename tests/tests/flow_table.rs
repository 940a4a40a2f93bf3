//! The table of connections that the host has begun, under attack: strangers make no entry in it, and a connection in use
//! outlives a million others that the host begins meanwhile.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::deployment::with_hook;
use tollgate_tests::frames::{ACK, FIN, Link, Path, RST, SYN};
use tollgate_tests::lab::{OUTSIDE_V4, ROUTER_MAC, SERVER_MAC, SERVER_PORT};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::{ECHO, TcpEcho, UdpService};
use tollgate_tests::traffic::{Dialogue, Download};
use tollgate_tests::{Deployment, Hook, Host, Ns};

/// Two services that answer everyone; the rest is silent.
const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[services.web]
ports = ["tcp/80"]
allow = "any"

[services.echo]
ports = ["udp/7000"]
allow = "any"
"#;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
/// The first of 65,536 addresses that the router swallows.
const SPOOFED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const ADDRESSES: u32 = 65_536;
/// What the table holds.
const MOST: u64 = 65_536;
/// Frames that strangers send.
const SPOOFED_FRAMES: u64 = 10_000_000;
/// Flows that the host begins: each address from so many ports.
const PORTS: u32 = 16;
/// Datagrams that one system call takes.
const BATCH: usize = 256;

/// Both take the whole machine: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn deployment(hook: Hook) -> Result<Deployment> {
    let d = Deployment::with_policy(POLICY, hook)?;
    // Connection tracking of the host's NAT has a table that strangers can fill; this test is about another one.
    d.lab.ns(Host::Server).run(&[
        "nft",
        "add table ip raw; \
         add chain ip raw early { type filter hook prerouting priority raw; }; add rule ip raw early notrack; \
         add chain ip raw local { type filter hook output priority raw; }; add rule ip raw local notrack",
    ])?;
    Ok(d)
}

/// Everything by which a stranger may try to be taken for somebody whom the host has asked: what opens, answers, resets and
/// closes, to the ports that answer and to those that do not.
fn from_strangers() -> Vec<Vec<u8>> {
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let frame = |n: u32| {
        let path = Path::new(Ipv4Addr::from(u32::from(SPOOFED) + n % ADDRESSES), SERVER);
        let port = 1024 + (n % 60_000) as u16;
        let packet = match n / ADDRESSES {
            0 => path.udp(53, port, b"an answer that nobody asked for"),
            1 => path.tcp(443, port, SYN | ACK, n, &[]),
            2 => path.tcp(443, port, ACK, n, b"data"),
            _ => match n % 8 {
                0 => path.tcp(port, 80, SYN, n, &[]),
                1 => path.tcp(port, 80, ACK, n, b"data"),
                2 => path.tcp(80, 80, SYN | ACK, n, &[]),
                3 => path.tcp(port, 22, SYN, n, &[]),
                4 => path.tcp(port, 22, if n % 16 == 4 { RST } else { FIN | ACK }, n, &[]),
                5 => path.udp(port, 7000, ECHO),
                6 => path.echo_request(port, n as u16),
                _ => path.packet(1, &[0, 0, 0, 0, 0, 1, 0, 1]),
            },
        };
        link.ip(&packet)
    };
    (0..4 * ADDRESSES).map(frame).collect()
}

fn strangers_make_no_flow(hook: Hook) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let d = deployment(hook)?;
    let echo = UdpService::start(&d.lab.ns(Host::Server), 7000)?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let frames = from_strangers();
    let before = d.tollgate.settled_stats()?;
    let known = before.flows.context("no count of flows")?;

    let (mut sent, mut took) = (0, Duration::ZERO);
    while sent < SPOOFED_FRAMES {
        // A part at a time: a table that fills is found early, and a slow machine is not in a hurry.
        let flood = sender.flood(&frames, 1_000_000, SPOOFED_FRAMES / 10)?;
        sent += flood.frames;
        took += flood.took;
        let now = d.tollgate.stats()?.flows;
        ensure!(now == Some(known), "{sent} spoofed frames: {now:?} flows, {known} before");
    }
    let delta = d.tollgate.settled_stats()?.since(&before);
    eprintln!("{sent} frames in {took:?}, {} answered: {known} flows before and after", echo.received());
    ensure!(delta.flows == Some(known), "{:?} flows, {known} before", delta.flows);
    ensure!(delta.seen.packets >= sent, "{sent} sent: {delta:#?}");
    ensure!(delta.reason("reply").packets == 0, "strangers were taken for others: {delta:#?}");
    // They were answered: what the host sends to strangers makes no flow either.
    ensure!(echo.sources() > 1000 && delta.reason("ping").packets > 1000, "nobody answered: {delta:#?}");
    Ok(())
}

/// Sends `each` datagrams to each address from each of the ports: so many flows begin. Gives how many, and the time.
fn begin_flows(server: &Ns, each: usize) -> Result<(u64, Duration)> {
    server.in_ns(|| {
        let start = Instant::now();
        let mut begun = 0;
        for _ in 0..PORTS {
            let socket = UdpSocket::bind((SERVER, 0))?;
            for first in (0..ADDRESSES).step_by(BATCH) {
                for _ in 0..each {
                    send_to_all(&socket, first)?;
                }
                begun += BATCH as u64;
            }
        }
        Ok((begun, start.elapsed()))
    })
}

/// One datagram to each of [`BATCH`] addresses.
fn send_to_all(socket: &UdpSocket, first: u32) -> Result<()> {
    let payload = libc::iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let mut pieces = [payload; BATCH];
    let mut addresses: Vec<libc::sockaddr_in> = (0..BATCH as u32)
        .map(|n| libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 9000u16.to_be(),
            sin_addr: libc::in_addr { s_addr: (u32::from(SPOOFED) + first + n).to_be() },
            sin_zero: [0; 8],
        })
        .collect();
    let mut messages: Vec<_> = addresses
        .iter_mut()
        .zip(&mut pieces)
        .map(|(address, piece)| {
            // SAFETY: all zeros is a message header with nothing in it.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut *address).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut rest = messages.as_mut_slice();
    while !rest.is_empty() {
        // SAFETY: headers, addresses and pieces outlive the call, and the kernel only reads them.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        ensure!(sent > 0, "sendmmsg: {}", io::Error::last_os_error());
        rest = &mut rest[sent as usize..];
    }
    Ok(())
}

/// A download goes on while the host begins a million flows; each of them has `each` packets. A flow of one packet is
/// never looked up again, one of two is as much "in use" to the kernel's table as any.
fn a_flow_in_use_lives_on(hook: Hook, each: usize) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let d = deployment(hook)?;
    let (server, outside) = (d.lab.ns(Host::Server), d.lab.ns(Host::Outside));
    let _echo = TcpEcho::start(&outside, 7001)?;
    let at = |port| SocketAddr::new(Ipv4Addr::from(u32::from_be_bytes([203, 0, 113, 9])).into(), port);
    ensure!(at(80).ip().to_string() == OUTSIDE_V4, "the outside host has moved");
    let before = d.tollgate.settled_stats()?;

    // In use: a piece every 40 ms. Hardly in use: a line every two seconds.
    // Forty seconds: longer than a million flows take on a slow machine.
    let (bytes, rate) = (16_000_000, 400_000);
    let download = Download::start(&server, at(80), bytes, rate)?;
    let seldom = Dialogue::with_echo(&server, at(7001), Duration::from_secs(2), 6)?;
    std::thread::sleep(Duration::from_millis(500));
    let (begun, took) = begin_flows(&server, each)?;
    let during = download.bytes();
    ensure!(during < bytes, "the download ended before {begun} flows had begun, which took {took:?}");
    let known = d.tollgate.stats()?.flows.context("no count of flows")?;
    let progress = download.finish()?;
    let seldom = seldom.finish();
    let delta = d.tollgate.settled_stats()?.since(&before);
    eprintln!(
        "{begun} flows of {each} packets in {took:?}, {known} known then; {progress:?}; a line every 2 s: {}",
        if seldom.is_ok() { "lives on" } else { "cut" }
    );

    ensure!(begun >= 1_000_000, "{begun} flows");
    // All of them were noted: the table was full, and others have made room.
    // The two connections have a table of their own.
    ensure!(known > MOST / 2 && known <= MOST + 2, "{known} of {MOST} flows are known");
    seldom.context("a line every 2 s")?;
    ensure!(progress.bytes == bytes, "{progress:?}");
    ensure!(progress.longest_pause < Duration::from_secs(1), "the download paused: {progress:?}; {delta:#?}");
    Ok(())
}

/// Strangers on the link have the host pass on what they send, out of the interface that it came in by. `bridged`: that is a
/// port of a bridge, by which the packet came in and leaves as far as the kernel tells.
fn what_is_turned_back_makes_no_flow(hook: Hook, bridged: bool) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let d = deployment(hook)?;
    let (server, router) = (d.lab.ns(Host::Server), d.lab.ns(Host::Router));
    let to = Ipv4Addr::new(198, 18, 200, 1);
    if bridged {
        let mac = ROUTER_MAC.map(|byte| format!("{byte:02x}")).join(":");
        for words in [
            "link add uplink type bridge",
            "link set uplink up",
            "link set wlp2s0 master uplink",
            "addr add 198.18.0.1/16 dev uplink",
            &format!("neigh add {to} lladdr {mac} dev uplink"),
        ] {
            let argv: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
            server.run(&argv)?;
        }
        let again = d.write_policy("again.toml", &with_hook(POLICY, "tc")?)?;
        d.tollgate.checked(&["apply", &again.display().to_string()])?;
    }
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let frames: Vec<Vec<u8>> = (0..1000u32)
        .map(|n| {
            let path = Path::new(Ipv4Addr::from(u32::from(SPOOFED) + 0x4000 + n), to);
            link.ip(&path.tcp(50_000, 80, SYN, n, &[]))
        })
        .collect();
    let before = d.tollgate.settled_stats()?;
    let sent_before = sent_by(&server, "wlp2s0")?;
    Sender::open(&router, SERVER_PORT)?.send(&frames)?;
    let delta = d.tollgate.settled_stats()?.since(&before);
    // The benign half: the port is open, and the host did pass them on.
    ensure!(delta.reason("service-allowed").packets == 1000, "{delta:#?}");
    ensure!(sent_by(&server, "wlp2s0")? >= sent_before + 1000, "the host did not pass them on");
    ensure!(delta.flows == before.flows, "{:?} flows, {:?} before", delta.flows, before.flows);
    Ok(())
}

/// Packets that an interface has sent.
fn sent_by(ns: &Ns, interface: &str) -> Result<u64> {
    let links = ns.output(&["ip", "-s", "-j", "link", "show", "dev", interface])?;
    let links: serde_json::Value = serde_json::from_slice(&links.stdout)?;
    links[0]["stats64"]["tx"]["packets"].as_u64().context("no count of sent packets")
}

#[test]
fn ten_million_spoofed_packets_make_no_flow_by_tc() -> Result<()> {
    strangers_make_no_flow(Hook::Tc)
}

#[test]
fn what_is_turned_back_makes_no_flow_by_native_xdp() -> Result<()> {
    what_is_turned_back_makes_no_flow(Hook::AsWritten, false)
}

#[test]
fn what_is_turned_back_makes_no_flow_by_tc() -> Result<()> {
    what_is_turned_back_makes_no_flow(Hook::Tc, false)
}

#[test]
fn what_is_turned_back_by_a_bridge_makes_no_flow() -> Result<()> {
    what_is_turned_back_makes_no_flow(Hook::Tc, true)
}

#[test]
fn a_million_flows_of_two_packets_do_not_cut_one_in_use_by_tc() -> Result<()> {
    a_flow_in_use_lives_on(Hook::Tc, 2)
}

#[test]
fn a_million_flows_do_not_cut_one_in_use_by_native_xdp() -> Result<()> {
    a_flow_in_use_lives_on(Hook::AsWritten, 1)
}
