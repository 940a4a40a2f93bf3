//! Who keeps exceeding a limit is banned if he is who he says; and nobody can have another banned by sending in his name.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::bans::{listed, said};
use tollgate_tests::frames::{Link, Path, SYN};
use tollgate_tests::lab::{ROUTER_MAC, SERVER_MAC, SERVER_PORT};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::TcpEcho;
use tollgate_tests::{Deployment, Hook, Host};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[limits.few]
per-source = { connections = "10/m", burst = 10 }
exceed = { ban = "1h", after = 20 }

[services.echo]
ports = ["tcp/7100"]
allow = "any"
limit = "few"
"#;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const FLOODER: &str = "192.168.0.50";
const INNOCENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 51));
const AT: SocketAddr = SocketAddr::new(IpAddr::V4(SERVER), 7100);
/// Forged packets that open connections.
const FORGED: u64 = 500;
/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is sent comes back.
fn echoes(mut connection: &TcpStream) -> Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"still there\n")?;
    let mut back = [0; 12];
    connection.read_exact(&mut back).context("no echo")?;
    ensure!(&back == b"still there\n", "{back:?}");
    Ok(())
}

fn only_the_proven_are_banned(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    let _echo = TcpEcho::start(&d.lab.ns(Host::Server), 7100)?;
    let innocent = d.lab.ns(Host::Lan2).in_ns(|| Ok(TcpStream::connect_timeout(&AT, PATIENCE)?))?;
    echoes(&innocent)?;

    // In the name of somebody who has a connection, and of somebody who has none.
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let stranger = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
    let frames: Vec<_> = (0..FORGED as u16)
        .flat_map(|n| [INNOCENT, stranger].map(|source| (source, 20_000 + n)))
        .map(|(source, port)| link.ip(&Path::new(source, SERVER).tcp(port, 7100, SYN, 1, &[])))
        .collect();
    let before = d.tollgate.settled_stats()?;
    // No faster than the kernel tells of each.
    Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?.flood(&frames, 400, 2 * FORGED)?;
    let over = d.tollgate.settled_stats()?.since(&before).outcome("echo", "over-limit-connections").packets;
    ensure!(over >= 2 * FORGED - 40, "the forged flood was within the limit: {over}");

    // Whoever opens connections himself, and goes on where the limit ends.
    let mut open = Vec::new();
    let banned = || -> Result<Vec<(String, String)>> { listed(&d.tollgate) };
    let end = Instant::now() + PATIENCE;
    while banned()?.is_empty() {
        ensure!(
            Instant::now() < end,
            "{FLOODER} is not banned; it has {} connections: {}",
            open.len(),
            d.tollgate.log()
        );
        let short = Duration::from_millis(20);
        let tried = d.lab.ns(Host::Lan).in_ns(|| Ok(TcpStream::connect_timeout(&AT, short).ok()))?;
        open.extend(tried);
    }
    // What the kernel told of before was counted before: the innocent would be there by now.
    let now = banned()?;
    ensure!(now.len() == 1 && now[0].0 == format!("{FLOODER}/32"), "{now:?}");
    let text = said(&d.tollgate, &["bans"], 0)?;
    ensure!(text.contains("20 packets over the limit few of echo within a minute"), "{text}");
    echoes(&innocent)?;
    let before = d.tollgate.settled_stats()?;
    let tried = d
        .lab
        .ns(Host::Lan)
        .in_ns(|| Ok(TcpStream::connect_timeout(&AT, Duration::from_millis(500)).is_err()))?;
    ensure!(tried, "the banned connect");
    ensure!(
        d.tollgate.settled_stats()?.since(&before).reason("banned").packets > 0,
        "nobody was told of as banned"
    );

    // Undone like any other ban.
    said(&d.tollgate, &["unban", FLOODER], 0)?;
    ensure!(banned()?.is_empty(), "still banned");
    Ok(())
}

#[test]
fn only_the_proven_are_banned_by_native_xdp() -> Result<()> {
    only_the_proven_are_banned(Hook::AsWritten)
}

#[test]
fn only_the_proven_are_banned_by_tc() -> Result<()> {
    only_the_proven_are_banned(Hook::Tc)
}
