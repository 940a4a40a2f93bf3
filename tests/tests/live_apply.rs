//! A policy changes under traffic: what is allowed by both goes on, what the new one says holds.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tollgate_tests::lab::SERVER_V4;
use tollgate_tests::traffic::{Download, http_get, tcp_connect};
use tollgate_tests::{Deployment, Hook, Host, Outcome};

const BEFORE: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
lan = ["192.168.0.0/24", "fe80::/10"]
everyone = "any"

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]

[services.crm]
ports = ["tcp/8083"]
allow = ["lan"]

[services.web]
ports = ["tcp/80", "tcp/443"]
allow = ["everyone"]
"#;

const BYTES: u64 = 12_000_000;
const RATE: u64 = 4_000_000;
const PATIENCE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(600);

fn at(port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(SERVER_V4.parse().context("an address")?, port))
}

/// The same services in another order, one closed, one opened, one new.
fn after() -> Result<String> {
    let (head, services) = BEFORE.split_once("[services.django]").context("the policy changed")?;
    let (_, web) = services.split_once("[services.web]").context("the policy changed")?;
    Ok(format!(
        "{head}[services.web]{web}\n\
         [services.crm-dev]\nports = [\"tcp/8082\"]\nallow = [\"lan\"]\n\n\
         [services.crm]\nports = [\"tcp/8083\"]\nallow = [\"everyone\"]\ndeny = [\"lan\"]\n\n\
         [services.django]\nports = [\"tcp/8000\"]\nallow = [\"lan\"]\n"
    ))
}

fn a_download_goes_on_through_an_apply(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(BEFORE, hook)?;
    let changed = d.write_policy("changed.toml", &hook.of(&after()?)?)?;
    let (lan, outside) = (d.lab.ns(Host::Lan), d.lab.ns(Host::Outside));
    ensure!(http_get(&lan, at(8083)?, "/", PATIENCE)?.is_answered());
    ensure!(http_get(&outside, at(80)?, "/", PATIENCE)?.is_answered());
    ensure!(tcp_connect(&lan, at(8082)?, SILENCE)? == Outcome::TimedOut);
    ensure!(tcp_connect(&outside, at(8083)?, SILENCE)? == Outcome::TimedOut);

    let download = Download::start(&lan, at(8000)?, BYTES, RATE)?;
    thread::sleep(Duration::from_millis(800));
    let (stats_before, bytes_before) = (d.tollgate.stats()?, download.bytes());
    let applied = d.tollgate.apply(&changed)?;
    let stats_after = d.tollgate.stats()?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    ensure!(bytes_before > 0 && bytes_before < BYTES, "{bytes_before} bytes at the time of the apply");

    // The new rules hold.
    let answer = http_get(&lan, at(8082)?, "/", PATIENCE)?;
    ensure!(answer.is_answered_by_port(8082), "a service that the new policy adds: {answer}");
    let answer = http_get(&outside, at(8083)?, "/", PATIENCE)?;
    ensure!(answer.is_answered_by_port(8083), "a service that the new policy opens: {answer}");
    let denied = tcp_connect(&lan, at(8083)?, SILENCE)?;
    ensure!(denied == Outcome::TimedOut, "a service that the new policy denies: {denied}");

    // The download has not noticed.
    let progress = download.finish()?;
    ensure!(progress.bytes == BYTES, "{progress:?}");
    ensure!(progress.longest_pause < Duration::from_millis(500), "{progress:?}");

    // Counters of rules that stay go on from where they were.
    for rule in ["django", "web", "crm", "default"] {
        let (old, new) = (stats_before.rule(rule), stats_after.rule(rule));
        ensure!(old.packets > 0, "{rule} has counted nothing: {stats_before:#?}");
        ensure!(new.packets >= old.packets && new.bytes >= old.bytes, "{rule}: {old:?}, then {new:?}");
    }
    let end = d.tollgate.settled_stats()?;
    let django = end.outcome("django", "service-allowed").packets;
    ensure!(django > stats_before.outcome("django", "service-allowed").packets, "{django}");
    ensure!(end.outcome("django", "service-refused").packets == 0, "{end:#?}");
    ensure!(end.outcome("crm", "service-denied").packets >= 1, "{end:#?}");
    ensure!(end.seen.packets > stats_before.seen.packets);
    Ok(())
}

#[test]
fn a_download_goes_on_through_an_apply_by_native_xdp() -> Result<()> {
    a_download_goes_on_through_an_apply(Hook::AsWritten)
}

#[test]
fn a_download_goes_on_through_an_apply_by_tc() -> Result<()> {
    a_download_goes_on_through_an_apply(Hook::Tc)
}

#[test]
fn an_apply_that_is_refused_changes_nothing() -> Result<()> {
    let d = Deployment::with_policy(BEFORE, Hook::AsWritten)?;
    let wrong = d.write_policy("wrong.toml", &BEFORE.replace("tcp/8083", "tcp/80833"))?;
    let (status, stats) = (d.tollgate.status()?, d.tollgate.settled_stats()?);
    let applied = d.tollgate.apply(&wrong)?;
    ensure!(applied.status.code() == Some(2), "{applied:?}");
    ensure!(d.tollgate.status()? == status);
    let rules = |stats: &tollgate_tests::Stats| stats.rules.keys().cloned().collect::<Vec<_>>();
    ensure!(rules(&d.tollgate.settled_stats()?) == rules(&stats));
    let answer = http_get(&d.lab.ns(Host::Lan), at(8083)?, "/", PATIENCE)?;
    ensure!(answer.is_answered_by_port(8083), "{answer}");
    Ok(())
}

#[test]
fn applies_in_a_row_lose_no_packet() -> Result<()> {
    let d = Deployment::with_policy(BEFORE, Hook::AsWritten)?;
    let other = d.write_policy("other.toml", &after()?)?;
    let first = d.write_policy("first.toml", BEFORE)?;
    let before = d.tollgate.settled_stats()?;
    let download = Download::start(&d.lab.ns(Host::Lan), at(8000)?, BYTES, RATE)?;
    let mut applies = 0;
    while download.bytes() < BYTES && applies < 100 {
        let policy = if applies % 2 == 0 { &other } else { &first };
        let applied = d.tollgate.apply(policy)?;
        ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        applies += 1;
    }
    let progress = download.finish()?;
    ensure!(progress.bytes == BYTES, "{progress:?}");
    let delta = d.tollgate.settled_stats()?.since(&before);
    ensure!(delta.outcome("django", "service-refused").packets == 0, "{delta:#?}");
    eprintln!("{applies} applies during one download, longest pause {:?}", progress.longest_pause);
    Ok(())
}
