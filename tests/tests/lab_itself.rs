//! The lab without a filter: everything answers. What the other tests see refused is the filter's doing, not the lab's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::frames::{Link, Path, SYN};
use tollgate_tests::lab::{
    LAN_MAC, OUTSIDE_V4, OUTSIDE_V6, PUBLISHED, ROUTER_MAC, SERVER_LINK_LOCAL, SERVER_MAC, SERVER_PORT,
    SERVER_V4, SERVER_V6, UPLINK,
};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::{Postgres, Services, UdpService};
use tollgate_tests::shared::Shared;
use tollgate_tests::traffic::{Download, http_get, ping, psql_select_1, tcp_connect, udp_round_trip};
use tollgate_tests::{Host, Lab, Outcome};

const PATIENCE: Duration = Duration::from_secs(1);

struct Open {
    _services: Services,
    lab: Lab,
}

static OPEN: Shared<Open> = Shared::new();

fn open(work: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let make = || {
        let lab = Lab::new()?;
        Ok(Open { _services: Services::start(&lab)?, lab })
    };
    OPEN.with(make, |open| work(&open.lab))
}

fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse().context("an address")?, port))
}

#[test]
fn everyone_reaches_every_port_of_the_server() -> Result<()> {
    open(|lab| {
        for host in [Host::Lan, Host::Lan2, Host::Outside, Host::Container] {
            for port in [80, 443, 8000, 8082, 8083] {
                let answer = http_get(&lab.ns(host), at(SERVER_V4, port)?, "/", PATIENCE)?;
                ensure!(answer.is_answered_by_port(port), "{host} to {port}: {answer}");
            }
        }
        for host in [Host::Lan, Host::Outside] {
            for port in [80, 443, 8000] {
                let answer = http_get(&lab.ns(host), at(SERVER_V6, port)?, "/", PATIENCE)?;
                ensure!(answer.is_answered_by_port(port), "{host} by IPv6 to {port}: {answer}");
            }
        }
        Ok(())
    })
}

#[test]
fn the_lan_reaches_the_server_by_its_link_local_address() -> Result<()> {
    open(|lab| {
        let lan = lab.ns(Host::Lan);
        let answer = http_get(&lan, lan.link_local(SERVER_LINK_LOCAL, "eth0", 8000)?, "/", PATIENCE)?;
        ensure!(answer.is_answered_by_port(8000), "{answer}");
        Ok(())
    })
}

#[test]
fn what_is_bound_to_the_host_answers_there_alone() -> Result<()> {
    open(|lab| {
        for port in [8081, 8006] {
            let inside = http_get(&lab.ns(Host::Server), at("127.0.0.1", port)?, "/", PATIENCE)?;
            ensure!(inside.is_answered_by_port(port), "{inside}");
            let outside = tcp_connect(&lab.ns(Host::Lan), at(SERVER_V4, port)?, PATIENCE)?;
            ensure!(outside == Outcome::Refused, "{outside}");
        }
        Ok(())
    })
}

#[test]
fn containers_reach_the_host_and_the_outside() -> Result<()> {
    open(|lab| {
        let container = lab.ns(Host::Container);
        let host = http_get(&container, at("172.17.0.1", 8000)?, "/", PATIENCE)?;
        ensure!(host.is_answered_by_port(8000), "{host}");
        let outside = http_get(&container, at(OUTSIDE_V4, 80)?, "/", PATIENCE)?;
        ensure!(outside.is_answered_by_port(80), "{outside}");
        let published = http_get(&lab.ns(Host::Outside), at(SERVER_V4, PUBLISHED)?, "/", PATIENCE)?;
        ensure!(published.is_answered_by_port(80), "{published}");
        let back = http_get(&lab.ns(Host::Server), at("172.17.0.2", 80)?, "/", PATIENCE)?;
        ensure!(back.is_answered_by_port(80), "{back}");
        Ok(())
    })
}

#[test]
fn the_server_reaches_the_outside() -> Result<()> {
    open(|lab| {
        let server = lab.ns(Host::Server);
        for address in [OUTSIDE_V4, OUTSIDE_V6] {
            let page = http_get(&server, at(address, 80)?, "/", PATIENCE)?;
            ensure!(page.is_answered_by_port(80), "{page}");
            let name = udp_round_trip(&server, at(address, 53)?, PATIENCE)?;
            ensure!(name.is_answered(), "{name}");
            let pong = ping(&server, address.parse()?)?;
            ensure!(pong.is_answered(), "{pong}");
        }
        Ok(())
    })
}

#[test]
fn the_database_answers_the_lan_and_the_outside() -> Result<()> {
    open(|lab| {
        let _postgres = Postgres::start(lab)?;
        for host in [Host::Server, Host::Lan, Host::Outside] {
            let address = if host == Host::Server { "127.0.0.1" } else { SERVER_V4 };
            let answer = psql_select_1(&lab.ns(host), address)?;
            ensure!(answer == Outcome::Answered("1\n".to_owned()), "{host}: {answer}");
        }
        Ok(())
    })
}

#[test]
fn a_download_has_the_size_and_the_speed_asked_for() -> Result<()> {
    open(|lab| {
        let download = Download::start(&lab.ns(Host::Lan), at(SERVER_V4, 8000)?, 1_000_000, 2_000_000)?;
        let progress = download.finish()?;
        ensure!(progress.bytes == 1_000_000, "{progress:?}");
        ensure!(progress.took >= Duration::from_millis(450), "{progress:?}");
        Ok(())
    })
}

#[test]
fn raw_frames_arrive_and_are_valid() -> Result<()> {
    let lab = Lab::new()?;
    let sink = UdpService::start(&lab.ns(Host::Server), 7000)?;
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let mut frames = Vec::new();
    for n in 0..=255u8 {
        let path = Path::new([198, 18, 7, n], "192.168.0.104".parse::<std::net::Ipv4Addr>()?);
        frames.push(link.ip(&path.udp(4000, 7000, b"hello")));
    }
    let v6 =
        Path::new("2001:db8:7::1".parse::<std::net::Ipv6Addr>()?, SERVER_V6.parse::<std::net::Ipv6Addr>()?);
    frames.push(link.ip(&v6.udp(4000, 7000, b"hello")));
    let server = lab.ns(Host::Server);
    lab.isolate_server()?;
    let before = server.received(UPLINK)?;
    let sender = Sender::open(&lab.ns(Host::Router), SERVER_PORT)?;
    let sent = sender.flood(&frames, 10_000, 2_570)?;
    ensure!(sent.frames == 2_570 && sent.rounds.len() == 10, "{sent:?}");
    ensure!(sent.took >= Duration::from_millis(250), "not paced: {sent:?}");
    std::thread::sleep(Duration::from_millis(200));
    // A wrong checksum would not get as far as the socket.
    ensure!(sink.received() == 2_570, "{} arrived", sink.received());
    ensure!(sink.sources() == 257, "{} sources", sink.sources());
    let received = server.received(UPLINK)?.packets - before.packets;
    ensure!(received == 2_570, "the interface counts {received}");
    Ok(())
}

#[test]
fn a_raw_syn_is_answered() -> Result<()> {
    open(|lab| {
        // The LAN host's kernel knows nothing of the SYN and resets: what the flood of the demo looks like.
        let lan = lab.ns(Host::Lan);
        let link = Link { source: LAN_MAC, destination: SERVER_MAC };
        let path = Path::new([192, 168, 0, 50], [192, 168, 0, 104]);
        let before = lan.received("eth0")?.packets;
        Sender::open(&lan, "eth0")?.send(&[link.ip(&path.tcp(40_000, 80, SYN, 1, &[]))])?;
        std::thread::sleep(Duration::from_millis(100));
        ensure!(lan.received("eth0")?.packets > before, "no SYN-ACK came back");
        Ok(())
    })
}

#[test]
fn a_lab_leaves_nothing_behind() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::new()?;
    let built = start.elapsed();
    let paths: Vec<_> = Host::ALL.iter().map(|host| lab.ns(*host).path()).collect();
    ensure!(paths.iter().all(|path| path.exists()), "a namespace is missing");
    let mut sleeper = lab.ns(Host::Lan).spawn(&["sleep", "60"])?;
    std::thread::sleep(Duration::from_millis(50));
    drop(lab);
    ensure!(paths.iter().all(|path| !path.exists()), "a namespace is left");
    ensure!(!sleeper.wait()?.success(), "the process was not ended");
    eprintln!("built in {built:?}, built and removed in {:?}", start.elapsed());
    Ok(())
}

#[test]
fn two_labs_live_side_by_side() -> Result<()> {
    let (one, two) = (Lab::new()?, Lab::new()?);
    ensure!(one.id() != two.id());
    let _services = Services::start(&one)?;
    let target = at(SERVER_V4, 8000)?;
    ensure!(tcp_connect(&one.ns(Host::Lan), target, PATIENCE)?.is_answered());
    ensure!(tcp_connect(&two.ns(Host::Lan), target, PATIENCE)? == Outcome::Refused);
    Ok(())
}
