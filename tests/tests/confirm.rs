//! A policy that nobody confirms is taken back by the kernel, whoever has died meanwhile; one that is confirmed stays.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::deployment::with_hook;
use tollgate_tests::expect::{PATIENCE, SILENCE, at};
use tollgate_tests::lab::SERVER_V4;
use tollgate_tests::traffic::{http_get, tcp_connect};
use tollgate_tests::{Deployment, Hook, Host, Lab, Outcome, Tollgate};

/// The LAN reaches 8000.
const OPEN: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"

[zones]
lan = ["192.168.0.0/24"]

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]
"#;

/// Nobody does.
const SHUT: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"

[services.django]
ports = ["tcp/8000"]
allow = "none"
"#;

/// On a slow machine all takes longer, but not so long.
const AT_MOST: Duration = Duration::from_secs(60);

fn django() -> Result<SocketAddr> {
    at(SERVER_V4, 8000)
}

fn lan_gets_in(lab: &Lab) -> Result<bool> {
    Ok(http_get(&lab.ns(Host::Lan), django()?, "/", PATIENCE)?.is_answered_by_port(8000))
}

fn lan_is_shut_out(lab: &Lab) -> Result<bool> {
    Ok(tcp_connect(&lab.ns(Host::Lan), django()?, SILENCE)? == Outcome::TimedOut)
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while start.elapsed() < AT_MOST {
        if done()? {
            return Ok(start.elapsed());
        }
        thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("{what}: not within {AT_MOST:?}")
}

/// What became of the policies, oldest first.
fn fates(tollgate: &Tollgate) -> Result<Vec<String>> {
    let output = tollgate.checked(&["history", "--json"])?;
    let all: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    Ok(all.iter().map(|one| one["fate"].as_str().unwrap_or_default().to_owned()).collect())
}

fn applied_for(d: &Deployment, hook: Hook, seconds: u64) -> Result<()> {
    let shut = d.write_policy("shut.toml", &hook.of(SHUT)?)?;
    let said =
        d.tollgate.checked(&["apply", "--confirm", &format!("{seconds}s"), &shut.display().to_string()])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.contains("tollgate confirm"), "{said}");
    ensure!(said.contains("~ service django: allow none (was lan)"), "the difference is not told: {said}");
    Ok(())
}

fn the_kernel_goes_back_with_the_daemon_dead(hook: Hook) -> Result<()> {
    let mut d = Deployment::with_policy(OPEN, hook)?;
    ensure!(lan_gets_in(&d.lab)?, "before");
    let hash = d.tollgate.status()?["policy"]["hash"].clone();
    applied_for(&d, hook, 5)?;
    d.tollgate.kill()?;
    let killed = Instant::now();
    let shut_out = lan_is_shut_out(&d.lab)?;
    // On a machine that stands still for five seconds nothing can be said of what was in between.
    ensure!(shut_out || killed.elapsed() > Duration::from_secs(4), "the new policy was never in force");
    let took = until("the policy before", || lan_gets_in(&d.lab))?;
    eprintln!("{hook:?}: back {took:?} after the look");
    // Whoever looks is told what is in force, not what is on the hook.
    ensure!(d.tollgate.status()?["policy"]["hash"] == hash, "{}", d.tollgate.status()?);
    d.tollgate.stats()?.adds_up()?;

    // A daemon that starts again tidies up, and does not enforce what was not confirmed.
    d.tollgate.restart()?;
    ensure!(lan_gets_in(&d.lab)?, "after the restart");
    ensure!(!d.tollgate.pins().join("unconfirmed").exists(), "something is left");
    let fates = fates(&d.tollgate)?;
    ensure!(fates.contains(&"not-confirmed".to_owned()), "{fates:?}");
    Ok(())
}

#[test]
fn the_kernel_goes_back_with_the_daemon_dead_by_native_xdp() -> Result<()> {
    the_kernel_goes_back_with_the_daemon_dead(Hook::AsWritten)
}

#[test]
fn the_kernel_goes_back_with_the_daemon_dead_by_tc() -> Result<()> {
    the_kernel_goes_back_with_the_daemon_dead(Hook::Tc)
}

#[test]
fn the_kernel_goes_back_by_clsact() -> Result<()> {
    let mut d = Deployment::with_policy(&with_hook(OPEN, "clsact")?, Hook::AsWritten)?;
    let shut = d.write_policy("shut.toml", &with_hook(SHUT, "clsact")?)?;
    d.tollgate.checked(&["apply", "--confirm", "3s", &shut.display().to_string()])?;
    d.tollgate.kill()?;
    until("the policy before", || lan_gets_in(&d.lab))?;
    d.tollgate.restart()?;
    ensure!(lan_gets_in(&d.lab)? && !d.tollgate.pins().join("unconfirmed").exists());
    Ok(())
}

#[test]
fn what_is_confirmed_stays() -> Result<()> {
    let d = Deployment::with_policy(OPEN, Hook::AsWritten)?;
    applied_for(&d, Hook::AsWritten, 20)?;
    ensure!(d.tollgate.status()?["confirm_within_s"].is_u64(), "{}", d.tollgate.status()?);
    let shut = d.write_policy("other.toml", OPEN)?;
    let second = d.tollgate.apply(&shut)?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(1) && said.contains("waits to be confirmed"), "{said}");
    d.tollgate.checked(&["confirm"])?;
    let again = d.tollgate.output(&["confirm"])?;
    ensure!(again.status.code() == Some(1), "{again:?}");
    thread::sleep(Duration::from_secs(21));
    ensure!(lan_is_shut_out(&d.lab)?, "a confirmed policy was taken back");
    ensure!(fates(&d.tollgate)? == ["applied", "confirmed"], "{:?}", fates(&d.tollgate)?);

    // And back by hand, to the one before; from there is nothing to go back to.
    d.tollgate.checked(&["rollback"])?;
    ensure!(lan_gets_in(&d.lab)?, "after the rollback");
    ensure!(fates(&d.tollgate)? == ["applied", "rolled-back", "applied"], "{:?}", fates(&d.tollgate)?);
    d.tollgate.checked(&["apply", "--revision", "2"])?;
    ensure!(lan_is_shut_out(&d.lab)?, "revision 2 is the one that shuts");
    let none = d.tollgate.output(&["apply", "--revision", "77"])?;
    ensure!(none.status.code() == Some(2), "{none:?}");
    Ok(())
}

#[test]
fn what_waits_is_taken_back_by_hand_without_a_daemon() -> Result<()> {
    let mut d = Deployment::with_policy(OPEN, Hook::AsWritten)?;
    applied_for(&d, Hook::AsWritten, 600)?;
    d.tollgate.kill()?;
    ensure!(lan_is_shut_out(&d.lab)?, "the new policy is in force");
    d.tollgate.checked(&["rollback"])?;
    ensure!(lan_gets_in(&d.lab)?, "after the rollback");
    let nothing = d.tollgate.output(&["confirm"])?;
    ensure!(nothing.status.code() == Some(1), "{nothing:?}");
    Ok(())
}

#[test]
fn a_daemon_that_starts_while_a_policy_waits_leaves_it_waiting() -> Result<()> {
    let mut d = Deployment::with_policy(OPEN, Hook::AsWritten)?;
    applied_for(&d, Hook::AsWritten, 15)?;
    d.tollgate.kill()?;
    d.tollgate.restart()?;
    ensure!(lan_is_shut_out(&d.lab)? || d.tollgate.status()?["confirm_within_s"].is_null());
    until("the policy before", || lan_gets_in(&d.lab))?;
    until("the daemon tidies up", || Ok(!d.tollgate.pins().join("unconfirmed").exists()))?;
    ensure!(lan_gets_in(&d.lab)?, "after the daemon has tidied up");
    Ok(())
}

#[test]
fn a_first_policy_that_nobody_confirms_leaves_the_host_open() -> Result<()> {
    let lab = Lab::new()?;
    let _services = tollgate_tests::services::Services::start(&lab)?;
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("shut.toml");
    std::fs::write(&policy, SHUT)?;
    let mut tollgate = Tollgate::start(&lab, &policy, &["--confirm", "5s"])?;
    ensure!(tollgate.announcement().contains("tollgate confirm"), "{}", tollgate.announcement());
    tollgate.kill()?;
    until("the host is open again", || lan_gets_in(&lab))?;
    let stats = tollgate.stats()?;
    stats.adds_up()?;
    ensure!(stats.reason("unconfirmed").packets > 0, "what passed was not counted: {stats:#?}");
    ensure!(tollgate.status()?["enforcing"] == Value::Bool(false), "{}", tollgate.status()?);
    Ok(())
}

#[test]
fn a_host_that_is_open_again_stays_open_whatever_appears() -> Result<()> {
    for by_hand in [false, true] {
        let lab = Lab::new()?;
        let _services = tollgate_tests::services::Services::start(&lab)?;
        let folder = tempfile::tempdir()?;
        let policy = folder.path().join("shut.toml");
        std::fs::write(&policy, SHUT)?;
        let tollgate = Tollgate::start(&lab, &policy, &["--confirm", if by_hand { "600s" } else { "5s" }])?;
        if by_hand {
            tollgate.checked(&["rollback"])?;
        }
        until("the daemon has tidied up", || Ok(!tollgate.pins().join("unconfirmed").exists()))?;
        // What makes a daemon look for interfaces, and time for it to look.
        lab.ns(Host::Server).run(&["ip", "link", "add", "late0", "type", "bridge"])?;
        thread::sleep(Duration::from_secs(4));
        ensure!(lan_gets_in(&lab)?, "by hand {by_hand}: shut again: {}", tollgate.log());
        ensure!(tollgate.status()?["enforcing"] == Value::Bool(false), "{}", tollgate.status()?);
    }
    Ok(())
}

#[test]
fn a_policy_that_cuts_the_session_that_applies_it_is_refused() -> Result<()> {
    let d = Deployment::with_policy(OPEN, Hook::AsWritten)?;
    let shut = d.write_policy("shut.toml", SHUT)?;
    let from = |peer: &str, args: &[&str]| {
        let mut command = d.tollgate.command()?;
        command.arg("apply").args(args).arg(&shut);
        command.env("SSH_CONNECTION", format!("{peer} 50000 {SERVER_V4} 8000"));
        command.output().context("starting tollgate apply")
    };
    let refused = from("192.168.0.50", &[])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && said.contains("192.168.0.50") && said.contains("--force"),
        "{said}"
    );
    ensure!(lan_gets_in(&d.lab)?, "nothing has changed");
    let forced = from("192.168.0.50", &["--force"])?;
    ensure!(forced.status.success(), "{forced:?}");
    ensure!(lan_is_shut_out(&d.lab)?, "it was forced");
    Ok(())
}

#[test]
fn the_policy_in_force_once_more_is_no_policy_that_waits() -> Result<()> {
    let mut d = Deployment::with_policy(OPEN, Hook::AsWritten)?;
    let same = d.write_policy("same.toml", OPEN)?;
    d.tollgate.checked(&["apply", "--confirm", "2s", &same.display().to_string()])?;
    until("the kernel has gone back", || Ok(!d.tollgate.pins().join("unconfirmed").exists()))?;
    ensure!(fates(&d.tollgate)? == ["applied"], "{:?}", fates(&d.tollgate)?);
    d.tollgate.kill()?;
    d.tollgate.restart()?;
    ensure!(lan_gets_in(&d.lab)?, "after the restart");
    Ok(())
}

#[test]
fn an_interface_that_appears_meanwhile_is_enforced_once_the_policy_is_confirmed() -> Result<()> {
    let with_late = |text: &str| text.replace("[zones]", "[interfaces.\"late*\"]\n\n[zones]");
    let d = Deployment::with_policy(&with_late(OPEN), Hook::AsWritten)?;
    let next = d.write_policy("next.toml", &format!("{}# next\n", with_late(OPEN)))?;
    d.tollgate.checked(&["apply", "--confirm", "600s", &next.display().to_string()])?;
    d.lab.ns(Host::Server).run(&["ip", "link", "add", "late0", "type", "bridge"])?;
    d.tollgate.checked(&["confirm"])?;
    until("the interface is enforced", || {
        Ok(d.tollgate.status()?["interfaces"].to_string().contains("late0"))
    })?;
    Ok(())
}
