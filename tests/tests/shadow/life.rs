//! When a shadow begins and ends, that it needs no process in between, and that rejected packets are answered as ever.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::Xdp;
use serde_json::Value;
use tollgate::dataplane::kernel_programs;
use tollgate_tests::counters::Answers;
use tollgate_tests::expect::at;
use tollgate_tests::lab::{SERVER_PORT, SERVER_V4, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::traffic::tcp_connect;
use tollgate_tests::{Deployment, Hook, Host, Outcome};

use super::{
    PATIENCE, POLICY, STRANGERS, are_gone, candidate, counted, number, of_the_shadow, program, rows, shadow,
    traffic,
};

/// An answer within the lab takes a millisecond; this much more on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Rejects what it has no service for; `HOOK` is replaced.
const REJECTS: &str = r#"
version = 1

[interfaces.wlp2s0]
hook    = "HOOK"
default = "reject"

[services.ssh]
ports  = ["tcp/22"]
allow  = "none"
refuse = "reject"

[services.open]
ports = ["tcp/80"]
allow = "any"
"#;

/// A rejected packet is compared as it came, and answered as ever.
fn rejected_packets_are_answered(hook: &str) -> Result<()> {
    let text = REJECTS.replace("HOOK", hook);
    let d = Deployment::with_policy(&text, Hook::AsWritten)?;
    let opens = text.replace("allow  = \"none\"\nrefuse = \"reject\"", "allow  = \"any\"");
    let closes = opens.replace("allow = \"any\"", "allow = \"none\"\nrefuse = \"reject\"");
    shadow(&d, &closes)?;
    let lan = d.lab.ns(Host::Lan);
    let attempt = |port| {
        let start = Instant::now();
        let outcome = tcp_connect(&lan, at(SERVER_V4, port)?, AT_ONCE)?;
        ensure!(start.elapsed() < AT_ONCE, "{outcome} after {:?}", start.elapsed());
        Ok(outcome)
    };
    let delta = counted(&d, || {
        ensure!(attempt(22)? == Outcome::Refused, "ssh is not refused");
        ensure!(attempt(4444)? == Outcome::Refused, "no service is not refused");
        Ok(())
    })?;
    ensure!(delta.answers == Answers { sent: 2, ..Answers::default() }, "{:?}", delta.answers);
    ensure!(delta.outcome("ssh", "service-refused").packets == 1, "{delta:#?}");
    let outcome = attempt(80)?;
    ensure!(outcome.is_answered(), "an open service: {outcome}");
    let settled = d.tollgate.settled_stats()?;
    let report = d.tollgate.json("shadow")?;
    let opened = [("/service", "ssh"), ("/in_force/reason", "service-refused"), ("/to", "tcp/22")];
    let opened = rows(&report, "/newly_passed/by_source", &opened)?;
    ensure!(opened.len() == 1 && number(opened[0], "/packets")? == 1, "{report}");
    let closed = rows(&report, "/newly_dropped/by_rule", &[("/service", "open"), ("/to", "tcp/80")])?;
    ensure!(closed.len() == 1 && number(closed[0], "/packets")? >= 2, "{report}");
    // What the policy in force rejects is not what the candidate would: it answers nothing.
    ensure!(d.tollgate.settled_stats()?.answers == settled.answers, "{settled:#?}");
    d.tollgate.checked(&["shadow", "--stop"])?;
    ensure!(attempt(22)? == Outcome::Refused, "ssh is not refused afterwards");
    Ok(())
}

#[test]
fn rejected_packets_are_answered_by_tcx() -> Result<()> {
    rejected_packets_are_answered("tc")
}

#[test]
fn rejected_packets_are_answered_by_clsact() -> Result<()> {
    rejected_packets_are_answered("clsact")
}

/// The programs that this kernel's hooks do not ask for are verified too: those for frames in one piece.
#[test]
fn the_shadow_for_older_kernels_is_verified() -> Result<()> {
    let object = kernel_programs();
    for name in ["xdp_shadow", "xdp_shadow_linear"] {
        let mut ebpf = Ebpf::load(object)?;
        let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
        program.load().with_context(|| name.to_owned())?;
        let looked_at = program.info()?.verified_instruction_count().context("the kernel does not tell")?;
        ensure!(looked_at > 10_000, "{name}: {looked_at} instructions: what was verified is not the engine");
    }
    Ok(())
}

/// Fails if there is a shadow, or if anything of one is left.
fn has_no_shadow(d: &Deployment, when: &str) -> Result<()> {
    ensure!(d.tollgate.status()?.get("shadow") == Some(&Value::Null), "a shadow {when}");
    ensure!(!d.tollgate.pins().join("shadow").exists(), "pins are left {when}");
    Ok(())
}

#[test]
fn a_shadow_needs_no_daemon_and_ends_with_what_it_was_beside() -> Result<()> {
    let mut d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    d.lab.isolate_server()?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let (frames, many) = traffic();
    let text = candidate(Hook::AsWritten)?;
    shadow(&d, &text)?;
    // Another one begins anew.
    sender.send(&frames)?;
    d.tollgate.settled_stats()?;
    let said = shadow(&d, &text)?;
    ensure!(said.contains("note: the shadow run of ") && said.contains("has ended"), "{said}");
    ensure!(number(&d.tollgate.json("shadow")?, "/compared/packets")? == 0, "{}", d.tollgate.json("shadow")?);

    // Who asks what would become of a packet asks the policy in force, and the shadow hears nothing of it.
    let said = d.tollgate.checked(&["explain", "udp from 203.0.113.9:4000 to 192.168.0.104:7001"])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.contains("service-allowed"), "{said}");
    ensure!(number(&d.tollgate.json("shadow")?, "/compared/packets")? == 0, "an explanation was compared");

    d.tollgate.kill()?;
    counted(&d, || sender.send(&frames))?;
    ensure!(number(&d.tollgate.json("shadow")?, "/compared/packets")? == many, "without a daemon");
    d.tollgate.checked(&["shadow", "--stop"])?;
    has_no_shadow(&d, "after --stop without a daemon")?;
    shadow(&d, &text)?;

    // A daemon that starts applies its file; that is an apply as any other.
    d.tollgate.restart()?;
    has_no_shadow(&d, "after the start of a daemon")?;
    ensure!(d.tollgate.log().contains("the shadow run of "), "{}", d.tollgate.log());

    shadow(&d, &text)?;
    let path = d.write_policy("other.toml", &POLICY.replace("burst = 10", "burst = 11"))?;
    let output = d.tollgate.apply(&path)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains("note: the shadow run of "), "{output:?}");
    has_no_shadow(&d, "after an apply")?;

    shadow(&d, &text)?;
    d.tollgate.checked(&["rollback", "--force"])?;
    has_no_shadow(&d, "after a rollback")?;

    // None begins while a policy waits, and none that is not sound.
    let waits =
        d.tollgate.output(&["apply", "--force", "--confirm", "60s", path.to_str().context("a path")?])?;
    ensure!(waits.status.success(), "{waits:?}");
    let refused = d.tollgate.output(&["apply", "--shadow", path.to_str().context("a path")?])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("waits to be confirmed"), "{said}");
    d.tollgate.checked(&["confirm"])?;
    let failing =
        format!("{POLICY}\n[[test]]\nfrom = \"203.0.113.9\"\nto = \"udp/7002\"\nexpect = \"pass\"\n");
    let path = d.write_policy("failing.toml", &failing)?;
    let refused = d.tollgate.output(&["apply", "--shadow", path.to_str().context("a path")?])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("udp/7002"), "{refused:?}");
    has_no_shadow(&d, "of a candidate that fails its own test")?;

    shadow(&d, &text)?;
    let before = program(&d)?;
    let (programs, maps) = of_the_shadow(&d, &before)?;
    d.tollgate.detach()?;
    ensure!(
        std::fs::read_dir(d.tollgate.pins()).map_or(true, |mut left| left.next().is_none()),
        "pins are left"
    );
    are_gone(&programs, &maps)?;
    let path = d.write_policy("candidate.toml", &text)?;
    let refused = d.tollgate.output(&["apply", "--shadow", path.to_str().context("a path")?])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1) && said.contains("nothing is enforced"), "{said}");
    Ok(())
}

#[test]
fn an_interface_that_appears_is_enforced_and_the_shadow_goes_on_elsewhere() -> Result<()> {
    let late = |text: &str| text.replace("[zones]", "[interfaces.\"late*\"]\n\n[zones]");
    let d = Deployment::with_policy(&late(POLICY), Hook::AsWritten)?;
    d.lab.isolate_server()?;
    let server = d.lab.ns(Host::Server);
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let (frames, many) = traffic();
    let before = program(&d)?;
    shadow(&d, &late(&candidate(Hook::AsWritten)?))?;
    counted(&d, || sender.send(&frames))?;
    server.run(&["ip", "link", "add", "late0", "type", "veth", "peer", "name", "other0"])?;
    let start = Instant::now();
    let is_judged = || -> Result<bool> {
        let status = d.tollgate.status()?;
        let enforced = status["interfaces"].as_array().map_or(0, Vec::len);
        Ok(enforced == 2 && d.tollgate.log().contains("late0 is not judged by the shadow run"))
    };
    while !is_judged()? {
        ensure!(start.elapsed() < PATIENCE, "{} {}", d.tollgate.status()?, d.tollgate.log());
        thread::sleep(Duration::from_millis(50));
    }
    let status = d.tollgate.status()?;
    ensure!(status.pointer("/shadow/interfaces") == Some(&serde_json::json!([UPLINK])), "{status}");
    counted(&d, || sender.send(&frames))?;
    let report = d.tollgate.json("shadow")?;
    // The server tells the new link of itself, and may hear of that.
    ensure!(number(&report, "/compared/packets")? >= 2 * many, "{report}");
    ensure!(number(&report, "/newly_dropped/packets")? == 4 * u64::from(STRANGERS), "{report}");
    let (programs, _) = of_the_shadow(&d, &program(&d)?)?;
    ensure!(programs.len() == 2, "{programs:?}");
    d.tollgate.checked(&["shadow", "--stop"])?;
    are_gone(&programs, &HashSet::new())?;
    // The program that the new interface brought with it, without a shadow.
    let after = program(&d)?;
    ensure!(!programs.contains(&after.id()), "{after:?}");
    ensure!(after.size_translated() == before.size_translated(), "{before:?} {after:?}");
    ensure!(!d.tollgate.pins().join("shadow").exists(), "pins are left");
    counted(&d, || sender.send(&frames)).map(drop)
}
