//! The real fail2ban bans by the action file that ships: who fails too often is cut off, and nobody else.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::bans::{POLICY, listed, said};
use tollgate_tests::lab::SERVER_V4;
use tollgate_tests::services::fail2ban::{FAILURES, Fail2ban, JAIL};
use tollgate_tests::traffic::tcp_connect;
use tollgate_tests::{Deployment, Hook, Host, Outcome};

const LAN: &str = "192.168.0.50";
const OUTSIDE_V6: &str = "2001:db8:113::9";
/// Longer than fail2ban and the kernel take on any machine.
const PATIENCE: Duration = Duration::from_secs(120);
const SILENCE: Duration = Duration::from_millis(400);

fn connects(d: &Deployment, from: Host) -> Result<bool> {
    let to = SocketAddr::new(SERVER_V4.parse().context("an address")?, 8000);
    match tcp_connect(&d.lab.ns(from), to, SILENCE)? {
        Outcome::Answered(_) => Ok(true),
        Outcome::TimedOut => Ok(false),
        other => anyhow::bail!("the {from}: {other}"),
    }
}

/// Waits until the client is served (`true`) or cut off; gives how long it took, the last attempt included.
fn until(d: &Deployment, fail2ban: &Fail2ban, served: bool) -> Result<Duration> {
    let begun = Instant::now();
    while connects(d, Host::Lan)? != served {
        ensure!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {}", fail2ban.log());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(begun.elapsed())
}

fn brute_force_is_banned_and_unbanned(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    let mut fail2ban = Fail2ban::start(&d.lab.ns(Host::Server), &d.tollgate, 600)?;
    let client = LAN.parse()?;
    ensure!(connects(&d, Host::Lan)?, "the client is not served at first");
    fail2ban.fail(client, FAILURES - 1)?;
    thread::sleep(Duration::from_secs(2));
    ensure!(connects(&d, Host::Lan)?, "banned before its time: {}", fail2ban.log());

    fail2ban.fail(client, 1)?;
    // The last attempt waits in vain: that is no part of the reaction.
    let took = until(&d, &fail2ban, false)?.saturating_sub(SILENCE);
    eprintln!("from the last failure to the ban: {took:?}");
    ensure!(listed(&d.tollgate)? == [(format!("{LAN}/32"), format!("fail2ban {JAIL}"))]);
    ensure!(connects(&d, Host::Lan2)?, "another client is cut off too");
    ensure!(d.tollgate.stats()?.reason("banned").packets > 0);
    let list = d.tollgate.json("bans")?;
    let left = list.pointer("/bans/0/seconds_left").and_then(serde_json::Value::as_u64).context("no end")?;
    ensure!((1..=600).contains(&left), "{list}");

    fail2ban.client(&["set", JAIL, "unbanip", LAN])?;
    until(&d, &fail2ban, true)?;
    ensure!(listed(&d.tollgate)?.is_empty());

    // A short one ends by itself, in fail2ban and in the kernel.
    fail2ban.client(&["set", JAIL, "bantime", "5"])?;
    fail2ban.fail(client, FAILURES)?;
    until(&d, &fail2ban, false)?;
    until(&d, &fail2ban, true)?;

    // For ever; IPv6 with its /64; and the bans of others are not fail2ban's to end.
    fail2ban.client(&["set", JAIL, "bantime", "-1"])?;
    said(&d.tollgate, &["ban", "198.51.100.0/24", "--why", "by hand"], 0)?;
    fail2ban.fail(OUTSIDE_V6.parse()?, FAILURES)?;
    let network = ("2001:db8:113::/64".to_owned(), format!("fail2ban {JAIL}"));
    let begun = Instant::now();
    while !listed(&d.tollgate)?.contains(&network) {
        ensure!(begun.elapsed() < PATIENCE, "{:?}: {}", listed(&d.tollgate)?, fail2ban.log());
        thread::sleep(Duration::from_millis(50));
    }
    let text = said(&d.tollgate, &["bans"], 0)?;
    ensure!(text.lines().any(|line| line.contains("2001:db8:113::/64") && line.contains("never")), "{text}");
    fail2ban.terminate()?;
    ensure!(listed(&d.tollgate)? == [("198.51.100.0/24".to_owned(), "by hand".to_owned())]);
    // Asked before its jail is there it calls the question an error; those of actions are ours.
    let log = fail2ban.log();
    let failed = |line: &str| line.contains("ERROR") && !line.contains("UnknownJailException");
    ensure!(!log.lines().any(failed), "{log}");
    Ok(())
}

#[test]
fn brute_force_is_banned_and_unbanned_by_native_xdp() -> Result<()> {
    brute_force_is_banned_and_unbanned(Hook::AsWritten)
}

#[test]
fn brute_force_is_banned_and_unbanned_by_tc() -> Result<()> {
    brute_force_is_banned_and_unbanned(Hook::Tc)
}
