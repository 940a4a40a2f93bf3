//! Two policies take turns a thousand times while packets come as fast as the machine carries them: no packet has a verdict
//! that neither gives, and no connection is lost. And how long a change of policy takes, printed.

use std::fmt;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tollgate_tests::alternate::{Judge, SESSION, TARGETS, Turn, each_had_a_verdict_of_one, fates, policy};
use tollgate_tests::expect::at;
use tollgate_tests::holdings::Holdings;
use tollgate_tests::lab::{OUTSIDE_V4, SERVER_V4};
use tollgate_tests::services::TcpEcho;
use tollgate_tests::traffic::Stream;
use tollgate_tests::{Deployment, Hook, Host, Tollgate};

/// As often as the two take turns by native XDP; by TC it is for the difference of the hooks.
const SWAPS: usize = 1000;
const SWAPS_BY_TC: usize = 200;
/// Applies of which the median is taken.
const AT_REST: usize = 40;
/// Of the long list.
const PREFIXES: u32 = 1_000_000;
/// A machine that does not get through with them by then is given up.
const AT_MOST: Duration = Duration::from_secs(1200);
/// So often nothing but the policy in force may be seen for a moment.
const LOOK_EVERY: usize = 100;
/// Sessions of people, beside the stream.
const DIALOGUES: u64 = 8;

/// Times of many applies, in microseconds, by the daemon's own account.
#[derive(Default)]
struct Times(Vec<Value>);

impl Times {
    fn of(&self, step: &str) -> Vec<u64> {
        let mut all: Vec<_> = self.0.iter().filter_map(|took| took.get(step)?.as_u64()).collect();
        all.sort_unstable();
        all
    }

    fn median_and_max(&self, step: &str) -> (Duration, Duration) {
        let all = self.of(step);
        let at = |index: usize| Duration::from_micros(all.get(index).copied().unwrap_or_default());
        (at(all.len() / 2), at(all.len().saturating_sub(1)))
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} applies, median and longest:", self.0.len())?;
        for step in ["read", "compile", "tables", "tests", "verify", "replace", "total"] {
            let (median, max) = self.median_and_max(step);
            write!(f, " {step} {:.1} {:.1};", median.as_secs_f64() * 1e3, max.as_secs_f64() * 1e3)?;
        }
        f.write_str(" ms")
    }
}

/// Applies a policy; gives how long its steps took.
fn applied(tollgate: &Tollgate, policy: &Path) -> Result<Value> {
    let output = tollgate.checked(&["apply", "--force", "--json", &policy.display().to_string()])?;
    let report: Value = serde_json::from_slice(&output.stdout).context("`apply --json`")?;
    let took = report.get("took_us").cloned().with_context(|| format!("no times: {report}"))?;
    ensure!(took["total"].as_u64() > took["replace"].as_u64(), "{took}");
    Ok(took)
}

fn deployment(hook: Hook) -> Result<(Deployment, [PathBuf; 2])> {
    let more = match hook {
        Hook::AsWritten => "hook = \"native\"",
        Hook::Tc => "hook = \"tc\"",
    };
    let texts = [Turn::A, Turn::B].map(|turn| policy(turn, more));
    let d = Deployment::with_policy(&texts[0], Hook::AsWritten)?;
    let files = [d.write_policy("a.toml", &texts[0])?, d.write_policy("b.toml", &texts[1])?];
    Ok((d, files))
}

/// Swaps under load, `count` times from A; gives the times.
fn swap(d: &Deployment, judge: &Judge, files: &[PathBuf; 2], count: usize) -> Result<Times> {
    let (start, mut times) = (Instant::now(), Times::default());
    for nth in 1..=count {
        ensure!(start.elapsed() < AT_MOST, "{nth} of {count} swaps in {AT_MOST:?}: {times}");
        let turn = if nth % 2 == 1 { Turn::B } else { Turn::A };
        times.0.push(applied(&d.tollgate, &files[usize::from(turn == Turn::B)])?);
        if nth % LOOK_EVERY == 1 {
            // What a processor had in hand is through by now.
            thread::sleep(Duration::from_millis(50));
            let before = judge.arrived()?;
            thread::sleep(Duration::from_millis(50));
            let after = judge.arrived()?;
            for target in TARGETS {
                let grown = after[target.name] - before[target.name];
                ensure!(
                    (grown > 0) == target.is_open(turn),
                    "{turn:?} is in force, {grown} to {}",
                    target.name
                );
            }
        }
    }
    Ok(times)
}

fn swaps_under_load(hook: Hook, count: usize) -> Result<()> {
    let (d, files) = deployment(hook)?;
    let (server, lan, outside) = (d.lab.ns(Host::Server), d.lab.ns(Host::Lan), d.lab.ns(Host::Outside));
    let (_here, _there) = (TcpEcho::start(&server, SESSION)?, TcpEcho::start(&outside, SESSION)?);
    let judge = Judge::start(&d.lab)?;
    let session = at(SERVER_V4, SESSION)?;
    // Strangers' connections to a service, and this host's own, which live by the table of flows alone.
    let streams = [Stream::start(&lan, session)?, Stream::start(&server, at(OUTSIDE_V4, SESSION)?)?];
    let talks: Vec<_> = (0..DIALOGUES).map(|_| Stream::start(&outside, session)).collect::<Result<_>>()?;
    // From here on the daemon holds what it holds for good: the policy in force, and the one before.
    at_rest(&d, &files, 4)?;
    let held = Holdings::of(&d.tollgate)?;
    let before = judge.reading(&d.tollgate)?;

    let end = AtomicBool::new(false);
    let start = Instant::now();
    let (times, sent) = thread::scope(|scope| -> Result<_> {
        let flood = scope.spawn(|| judge.flood(&end));
        let times = swap(&d, &judge, &files, count);
        end.store(true, Ordering::Relaxed);
        let sent = flood.join().map_err(|_| anyhow!("the flood panicked"))??;
        Ok((times?, sent))
    })?;
    let took = start.elapsed();
    for stream in streams.into_iter().chain(talks) {
        let streamed = stream.finish().context("a connection that both policies allow")?;
        ensure!(streamed.lines > 0, "nothing was said");
        eprintln!("{hook:?}: {streamed:?}");
    }
    let after = judge.reading(&d.tollgate)?;
    let fates = fates(&before, &after);
    eprintln!("{hook:?}: {count} swaps in {took:.1?}, {} packets", sent * TARGETS.len() as u64);
    eprintln!("{hook:?}: {times}");
    eprintln!("{hook:?}: {fates:?}");
    each_had_a_verdict_of_one(&fates)?;
    for (name, fate) in &fates {
        ensure!(fate.passed + fate.dropped == sent, "{sent} were sent to {name}: {fate:?}");
    }
    let holds = Holdings::of(&d.tollgate)?;
    ensure!(holds == held, "something has leaked: {held:#?}, then {holds:#?}");
    d.tollgate.settled_stats()?.adds_up()
}

#[test]
fn a_thousand_swaps_under_load_mix_no_verdicts_and_lose_no_connection() -> Result<()> {
    swaps_under_load(Hook::AsWritten, SWAPS)
}

#[test]
fn swaps_by_tc_under_load_mix_no_verdicts_either() -> Result<()> {
    swaps_under_load(Hook::Tc, SWAPS_BY_TC)
}

/// The daemon uses verified programs again where it can; whether it could must not show in what they decide.
#[test]
fn programs_that_serve_again_serve_the_policy_in_force() -> Result<()> {
    let (d, [a, b]) = deployment(Hook::AsWritten)?;
    let judge = Judge::start(&d.lab)?;
    let apply = |args: &[&str]| d.tollgate.checked(&[&["apply", "--force"][..], args].concat()).map(drop);
    let path = |file: &PathBuf| file.display().to_string();
    let (a, b) = (path(&a), path(&b));
    // Other constants than those that the programs were verified with.
    let longer = policy(Turn::B, "hook = \"native\"") + "\n[timeouts]\nudp = \"77s\"\n";
    let longer = path(&d.write_policy("longer.toml", &longer)?);
    for (turn, file) in
        [(Turn::B, &b), (Turn::A, &a), (Turn::B, &longer), (Turn::A, &a), (Turn::B, &longer), (Turn::B, &b)]
    {
        apply(&[file])?;
        judge.finds(&d.tollgate, turn).context(file.clone())?;
    }

    // A policy whose tests fail has been in the tables of the one before, and no packet has met it.
    let wrong = policy(Turn::A, "hook = \"native\"").replacen("expect = \"pass\"", "expect = \"drop\"", 1);
    let wrong = d.write_policy("wrong.toml", &wrong)?;
    for _ in 0..2 {
        let refused = d.tollgate.apply(&wrong)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(1) && said.contains("tests failed"), "{said}");
        judge.finds(&d.tollgate, Turn::B).context("after a policy that was refused")?;
        apply(&[&b])?;
    }

    // What may be gone back to is not written over.
    apply(&[&a])?;
    apply(&[&b])?;
    apply(&[&a, "--confirm", "10m"])?;
    judge.finds(&d.tollgate, Turn::A).context("while it waits")?;
    d.tollgate.checked(&["rollback"])?;
    judge.finds(&d.tollgate, Turn::B).context("after the rollback")?;
    for (turn, file) in [(Turn::A, &a), (Turn::B, &b), (Turn::A, &a)] {
        apply(&[file])?;
        judge.finds(&d.tollgate, turn).context("after what was taken back")?;
    }
    apply(&[&b, "--confirm", "10m"])?;
    d.tollgate.checked(&["confirm"])?;
    for (turn, file) in [(Turn::B, &b), (Turn::A, &a), (Turn::B, &b)] {
        apply(&[file])?;
        judge.finds(&d.tollgate, turn).context("after what was confirmed")?;
    }

    // Other counters and other maps.
    d.tollgate.detach()?;
    for (turn, file) in [(Turn::B, &b), (Turn::A, &a), (Turn::B, &b)] {
        apply(&[file])?;
        judge.finds(&d.tollgate, turn).context("after detach")?;
    }
    Ok(())
}

/// Applies the two in turn with nothing else going on in the lab.
fn at_rest(d: &Deployment, files: &[PathBuf; 2], count: usize) -> Result<Times> {
    let mut times = Times::default();
    for nth in 1..=count {
        times.0.push(applied(&d.tollgate, &files[nth % 2])?);
    }
    Ok(times)
}

#[test]
fn the_time_of_an_apply_at_rest() -> Result<()> {
    for hook in [Hook::AsWritten, Hook::Tc] {
        let (d, files) = deployment(hook)?;
        eprintln!("{hook:?}, at rest: {}", at_rest(&d, &files, AT_REST)?);
    }
    Ok(())
}

#[test]
fn the_time_of_an_apply_with_a_million_prefixes() -> Result<()> {
    let d = Deployment::with_policy(&policy(Turn::A, ""), Hook::AsWritten)?;
    // Of different lengths, none within another: a list as those of countries or of abuse.
    let mut list = String::new();
    for n in 0..PREFIXES {
        // Odd, so that it goes through all numbers before one comes again.
        let spread = n.wrapping_mul(2_654_435_761) & 0x00ff_ffff;
        let address = Ipv4Addr::from((11 << 24) + ((spread / 0x8_0000) << 24) + ((spread % 0x8_0000) << 5));
        let _ = writeln!(list, "{address}/{}", 28 + n % 5);
    }
    d.write_policy("million.txt", &list)?;
    let mut files = Vec::new();
    for turn in [Turn::A, Turn::B] {
        let text = policy(turn, "").replace("[zones]\n", "[zones]\nbad = { file = \"million.txt\" }\n");
        let text = text.replace(
            "[services.both-udp]\nports = [\"udp/7000\"]\nallow = [\"everyone\"]\n",
            "[services.both-udp]\nports = [\"udp/7000\"]\nallow = [\"everyone\"]\ndeny = [\"bad\"]\n",
        );
        files.push(d.write_policy(&format!("million-{turn:?}.toml"), &text)?);
    }
    let mut times = Times::default();
    for nth in 0..10 {
        times.0.push(applied(&d.tollgate, &files[nth % 2])?);
    }
    eprintln!("{PREFIXES} prefixes: {times}");
    let (median, _) = times.median_and_max("total");
    ensure!(median < Duration::from_secs(30), "an apply with {PREFIXES} prefixes took {median:?}");
    Ok(())
}
