//! Limits hold under floods: a source far above its limit gets its limit, and who keeps his loses nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use tollgate_tests::frames::{Link, Path};
use tollgate_tests::lab::{LAN_MAC, ROUTER_MAC, SERVER_MAC, SERVER_PORT};
use tollgate_tests::sender::{Sender, Sent};
use tollgate_tests::services::UdpService;
use tollgate_tests::traffic::{Echoes, SteadyClient};
use tollgate_tests::{Deployment, Hook, Host};

/// One service whose limit one source can exceed, and one for tens of thousands of sources.
const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
everyone = "any"

[limits.hundred]
per-source = { packets = "100/s", burst = 20 }

[limits.few]
per-source = { packets = "12/m", burst = 2 }

[services.steady]
ports = ["udp/7001"]
allow = ["everyone"]
limit = "hundred"

[services.slow]
ports = ["udp/7002"]
allow = ["everyone"]
limit = "few"
"#;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
/// Period and depth of `hundred`.
const HUNDRED: (Duration, u32) = (Duration::from_millis(10), 20);
/// Period and depth of `few`.
const FEW: (Duration, u32) = (Duration::from_secs(5), 2);
/// A flood is so many times as fast as its limit.
const EXCESS: u32 = 20;
/// Sources of the spoofed flood: all of 198.18.0.0/16.
const SOURCES: u32 = 65_536;

/// A flood takes the whole machine: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Packets that an ideal bucket lets pass of those that arrive at these times.
fn ideal(arrivals: impl IntoIterator<Item = Duration>, (period, depth): (Duration, u32)) -> u64 {
    let (mut full_again, mut passed) = (Duration::ZERO, 0);
    for now in arrivals {
        let owed = full_again.saturating_sub(now);
        if owed + period <= period * depth {
            full_again = now + owed + period;
            passed += 1;
        }
    }
    passed
}

fn within_5_percent(what: &str, counted: u64, expected: f64) -> Result<()> {
    let off = counted as f64 / expected - 1.0;
    eprintln!("{what}: {counted}, {expected:.1} expected ({:+.2} %)", off * 100.0);
    ensure!(off.abs() <= 0.05, "{what}: {counted}, {expected:.1} expected");
    Ok(())
}

/// A flood must be one: what a machine of any speed lets through is computed from when its frames were sent.
fn reached(sent: &Sent, rate: u64) -> Result<()> {
    let actual = sent.frames as f64 / sent.took.as_secs_f64();
    eprintln!(
        "{actual:.0} frames a second, {rate} asked for: {:.1} times the limit",
        actual * f64::from(EXCESS) / rate as f64
    );
    ensure!(
        actual > 0.5 * rate as f64,
        "this machine sends {actual:.0} frames a second: half of {rate} is not reached"
    );
    Ok(())
}

fn one_source_gets_its_limit(hook: Hook) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let d = Deployment::with_policy(POLICY, hook)?;
    let service = UdpService::start(&d.lab.ns(Host::Server), 7001)?;
    let lan = d.lab.ns(Host::Lan);
    let (period, depth) = HUNDRED;
    let rate = u64::from(EXCESS) * 100;
    let flooding = Ipv4Addr::new(192, 168, 0, 50);
    let link = Link { source: LAN_MAC, destination: SERVER_MAC };
    let frame = link.ip(&Path::new(flooding, SERVER).udp(4000, 7001, b"flood"));

    let before = d.tollgate.settled_stats()?;
    let steady =
        SteadyClient::start(&d.lab.ns(Host::Lan2), SocketAddr::from((SERVER, 7001)), 2 * period, 500)?;
    let sent = Sender::open(&lan, "eth0")?.flood(&[frame], rate, rate * 10)?;
    let echoes = steady.finish()?;
    reached(&sent, rate)?;
    let delta = d.tollgate.settled_stats()?.since(&before);

    ensure!(echoes == Echoes { sent: 500, received: 500 }, "the other host lost some: {echoes:?}");
    let expected = sent.took.as_secs_f64() / period.as_secs_f64() + f64::from(depth);
    let allowed = delta.outcome("steady", "service-allowed").packets - echoes.sent;
    within_5_percent("one source, by the counters", allowed, expected)?;
    within_5_percent("one source, as received", service.from(flooding.into()), expected)?;
    let refused = delta.outcome("steady", "over-limit-packets").packets;
    ensure!(allowed + refused == sent.frames, "{allowed} + {refused} of {}", sent.frames);
    Ok(())
}

fn spoofed_sources_get_their_limits(hook: Hook) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let d = Deployment::with_policy(POLICY, hook)?;
    let server = d.lab.ns(Host::Server);
    let _slow = UdpService::start(&server, 7002)?;
    let _steady = UdpService::start(&server, 7001)?;
    // Connection tracking of the host's NAT has a table that strangers can fill; this test is about another one.
    server.run(&["nft", "add table ip raw; add chain ip raw early { type filter hook prerouting priority raw; }; add rule ip raw early udp dport 7002 notrack"])?;
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    let frames: Vec<_> = (0..SOURCES)
        .map(|n| link.ip(&Path::new(Ipv4Addr::from(first + n), SERVER).udp(4000, 7002, b"flood")))
        .collect();
    // Each source sends 20 times its limit: a round of all of them every quarter of a second.
    let (period, _) = FEW;
    let rate = (f64::from(SOURCES * EXCESS) / period.as_secs_f64()) as u64;
    let rounds = 50;

    let before = d.tollgate.settled_stats()?;
    let lan2 = d.lab.ns(Host::Lan2);
    // Half its limit, by both limits: one after 0 and 10 s, and fifty a second.
    let slow = SteadyClient::start(&lan2, SocketAddr::from((SERVER, 7002)), 2 * period, 2)?;
    let steady = SteadyClient::start(&lan2, SocketAddr::from((SERVER, 7001)), 2 * HUNDRED.0, 600)?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    thread::sleep(Duration::from_millis(300));
    let sent = sender.flood(&frames, rate, u64::from(SOURCES) * rounds)?;
    let (slow, steady) = (slow.finish()?, steady.finish()?);
    reached(&sent, rate)?;
    let delta = d.tollgate.settled_stats()?.since(&before);

    ensure!(steady == Echoes { sent: 600, received: 600 }, "the LAN host lost some: {steady:?}");
    ensure!(slow == Echoes { sent: 2, received: 2 }, "the LAN host lost some: {slow:?}");
    let expected = ideal(sent.rounds.iter().copied(), FEW) * u64::from(SOURCES);
    let allowed = delta.outcome("slow", "service-allowed").packets - slow.sent;
    within_5_percent("65,536 spoofed sources", allowed, expected as f64)?;
    let refused = delta.outcome("slow", "over-limit-packets").packets;
    ensure!(allowed + refused == sent.frames, "{allowed} + {refused} of {}", sent.frames);
    Ok(())
}

#[test]
fn one_source_gets_its_limit_by_native_xdp() -> Result<()> {
    one_source_gets_its_limit(Hook::AsWritten)
}

#[test]
fn one_source_gets_its_limit_by_tc() -> Result<()> {
    one_source_gets_its_limit(Hook::Tc)
}

#[test]
fn spoofed_sources_get_their_limits_by_native_xdp() -> Result<()> {
    spoofed_sources_get_their_limits(Hook::AsWritten)
}

#[test]
fn spoofed_sources_get_their_limits_by_tc() -> Result<()> {
    spoofed_sources_get_their_limits(Hook::Tc)
}

#[test]
fn the_ideal_bucket_is_ideal() {
    let every = |ms: u64, count: u64| (0..count).map(move |n| Duration::from_millis(ms * n));
    assert_eq!(ideal(every(20, 100), HUNDRED), 100);
    assert_eq!(ideal(every(0, 100), HUNDRED), 20);
    assert_eq!(ideal(every(250, 50), FEW), 4);
}
