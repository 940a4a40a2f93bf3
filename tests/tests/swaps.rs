//! Two policies take turns a thousand times while packets come as fast as the machine carries them: no packet has a verdict
//! that neither gives, and no connection is lost. And how long a change of policy takes, printed.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tollgate_tests::alternate::{
    Judge, SESSION, TARGETS, Turn, each_had_a_verdict_of_one, each_had_the_verdict_of, fates, policy,
};
use tollgate_tests::expect::at;
use tollgate_tests::lab::{OUTSIDE_V4, SERVER_V4};
use tollgate_tests::services::TcpEcho;
use tollgate_tests::traffic::{Dialogue, Stream};
use tollgate_tests::{Deployment, Hook, Host, Tollgate};

/// As often as the two take turns by native XDP; by TC it is for the difference of the hooks.
const SWAPS: usize = 1000;
const SWAPS_BY_TC: usize = 200;
/// A machine that does not get through with them by then is given up.
const AT_MOST: Duration = Duration::from_secs(600);
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

fn deployment(hook: Hook) -> Result<(Deployment, [std::path::PathBuf; 2])> {
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
fn swap(d: &Deployment, judge: &Judge, files: &[std::path::PathBuf; 2], count: usize) -> Result<Times> {
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
    let (stats_before, arrived_before) = d
        .tollgate
        .settled_with(|| judge.arrived())
        .or_else(|_| Ok::<_, anyhow::Error>((d.tollgate.stats()?, judge.arrived()?)))?;

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
    let (stats, arrived) = d.tollgate.settled_with(|| judge.arrived())?;
    let fates = fates((&stats_before, &stats), (&arrived_before, &arrived));
    eprintln!("{hook:?}: {count} swaps in {took:.1?}, {} packets", sent * TARGETS.len() as u64);
    eprintln!("{hook:?}: {times}");
    eprintln!("{hook:?}: {fates:?}");
    each_had_a_verdict_of_one(&fates)?;
    for (name, fate) in &fates {
        ensure!(fate.passed + fate.dropped == sent, "{sent} were sent to {name}: {fate:?}");
    }
    stats.adds_up()
}

#[test]
fn a_thousand_swaps_under_load_mix_no_verdicts_and_lose_no_connection() -> Result<()> {
    swaps_under_load(Hook::AsWritten, SWAPS)
}
