//! Enforcement outlives the daemon, a new daemon takes it over, and only `detach` ends it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tollgate_tests::lab::{SERVER_V4, UPLINK};
use tollgate_tests::traffic::{Download, http_get, tcp_connect};
use tollgate_tests::{Deployment, Hook, Host, Outcome};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
lan = ["192.168.0.0/24", "fe80::/10"]

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]
"#;

const PATIENCE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(600);

fn at(port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(SERVER_V4.parse().context("an address")?, port))
}

/// The policy holds: the LAN gets through, the outside does not, and both are counted.
fn enforced(d: &Deployment, when: &str) -> Result<()> {
    let before = d.tollgate.stats().with_context(|| format!("stats {when}"))?;
    let answer = http_get(&d.lab.ns(Host::Lan), at(8000)?, "/", PATIENCE)?;
    ensure!(answer.is_answered_by_port(8000), "the LAN {when}: {answer}");
    let outcome = tcp_connect(&d.lab.ns(Host::Outside), at(8000)?, SILENCE)?;
    ensure!(outcome == Outcome::TimedOut, "the outside {when}: {outcome}");
    // Counted before anybody can have noticed; and with a download on its way nothing ever comes to rest.
    let delta = d.tollgate.stats()?.since(&before);
    ensure!(delta.outcome("django", "service-allowed").packets >= 2, "{when}: {delta:#?}");
    ensure!(delta.outcome("django", "service-refused").packets == 1, "{when}: {delta:#?}");
    Ok(())
}

/// Nothing is enforced and nothing is left.
fn gone(d: &Deployment) -> Result<()> {
    let answer = http_get(&d.lab.ns(Host::Outside), at(8000)?, "/", PATIENCE)?;
    ensure!(answer.is_answered_by_port(8000), "the outside after detach: {answer}");
    ensure!(is_empty(d.tollgate.pins()), "pins are left in {}", d.tollgate.pins().display());
    let server = d.lab.ns(Host::Server);
    let link = server.run(&["ip", "-d", "link", "show", "dev", UPLINK])?;
    ensure!(!String::from_utf8_lossy(&link.stdout).contains("xdp"), "{link:?}");
    Ok(())
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

fn a_killed_daemon_leaves_enforcement_and_a_new_one_adopts_it(hook: Hook) -> Result<()> {
    let mut d = Deployment::with_policy(POLICY, hook)?;
    enforced(&d, "at first")?;
    let download = Download::start(&d.lab.ns(Host::Lan), at(8000)?, 8_000_000, 2_000_000)?;
    d.tollgate.kill()?;
    enforced(&d, "after SIGKILL")?;
    let before = d.tollgate.stats()?;
    d.tollgate.restart()?;
    let after = d.tollgate.stats()?;
    let (old, new) = (before.rule("django"), after.rule("django"));
    ensure!(new.packets >= old.packets && new.bytes >= old.bytes, "{old:?}, then {new:?}");
    enforced(&d, "after the restart")?;
    let (hook_taken, _) = d.tollgate.hook_and_mode()?;
    ensure!(hook_taken == hook.expected(), "{hook_taken}");
    let progress = download.finish()?;
    ensure!(progress.bytes == 8_000_000, "{progress:?}");
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_enforcement_and_a_new_one_adopts_it_by_native_xdp() -> Result<()> {
    a_killed_daemon_leaves_enforcement_and_a_new_one_adopts_it(Hook::AsWritten)
}

#[test]
fn a_killed_daemon_leaves_enforcement_and_a_new_one_adopts_it_by_tc() -> Result<()> {
    a_killed_daemon_leaves_enforcement_and_a_new_one_adopts_it(Hook::Tc)
}

#[test]
fn a_daemon_that_is_asked_to_end_leaves_enforcement() -> Result<()> {
    let mut d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let code = d.tollgate.terminate()?;
    ensure!(code == Some(0), "exit code {code:?} after SIGTERM");
    enforced(&d, "after SIGTERM")?;
    d.tollgate.restart()?;
    enforced(&d, "after the restart")
}

fn detach_removes_everything(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    enforced(&d, "at first")?;
    d.tollgate.detach()?;
    gone(&d)
}

#[test]
fn detach_removes_everything_by_native_xdp() -> Result<()> {
    detach_removes_everything(Hook::AsWritten)
}

#[test]
fn detach_removes_everything_by_tc() -> Result<()> {
    detach_removes_everything(Hook::Tc)
}

#[test]
fn detach_needs_no_daemon() -> Result<()> {
    let mut d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    d.tollgate.kill()?;
    d.tollgate.detach()?;
    gone(&d)
}

#[test]
fn two_firewalls_live_on_one_machine() -> Result<()> {
    let one = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let two = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    enforced(&one, "beside another")?;
    two.tollgate.detach()?;
    gone(&two)?;
    enforced(&one, "after the other has gone")
}
