//! `bench proxy`: the L7 proxy's speed beside nginx and `HAProxy`, by the goals that it has; writes `docs/performance.md`.
//!
//! All run on the same processors in the same run, and take turns within each round. The processor time of all of a proxy's
//! processes is divided by the answers: clients and the upstream don't count, and what else the machine does burdens all alike.

mod client;
mod configuration;
mod family;
mod goals;
mod load;
mod profile;
mod reloads;
mod report;
mod slow;
mod stage;
mod websocket;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tollgate_tests::lab::{Host, Lab};
use tollgate_tests::slow::{CONNECTIONS, Mode};

use super::median;
use goals::{Bound, Line, Sample, Samples, Work};
use slow::{Noticed, P99};
use stage::{Contender, Stage};

/// The fixed rate, requests a second.
const RATE: u32 = 2000;
const MIB: f64 = (1u64 << 20) as f64;

/// What was asked for on the command line.
struct Wanted {
    rounds: usize,
    /// Of each turn.
    time: Duration,
    /// Idle connections.
    idle: usize,
    /// Between two reloads.
    gap: Duration,
    /// Whether the file is written.
    written: bool,
    /// Whether goals that are missed are looked into, and which others by number.
    profile: bool,
    /// Works that are measured; with some left out, nothing but them.
    works: Vec<Work>,
    /// Whether slow clients are.
    slow: bool,
}

impl Wanted {
    fn read(args: &[String]) -> Result<Self> {
        let mut wanted = Self {
            rounds: 5,
            time: Duration::from_secs(3),
            idle: 1000,
            gap: Duration::from_millis(400),
            written: true,
            profile: false,
            works: Work::ALL.to_vec(),
            slow: true,
        };
        let (mut only, mut slow) = (Vec::new(), false);
        for arg in args {
            match arg.as_str() {
                "--quick" => {
                    wanted.rounds = 1;
                    wanted.time = Duration::from_secs(1);
                    wanted.idle = 200;
                    wanted.gap = Duration::from_millis(100);
                    wanted.written = false;
                }
                "--profile" => wanted.profile = true,
                "slow" => slow = true,
                number => {
                    let work =
                        number.parse::<usize>().ok().and_then(|number| Work::ALL.get(number.checked_sub(1)?));
                    only.push(*work.with_context(|| {
                        format!(
                            "`{number}` is not --quick, --profile, slow, or a number from 1 to {}",
                            Work::ALL.len()
                        )
                    })?);
                }
            }
        }
        if slow || !only.is_empty() {
            wanted.works = only;
            wanted.slow = slow;
            wanted.written = false;
        }
        Ok(wanted)
    }

    fn is_whole(&self) -> bool {
        self.works.len() == Work::ALL.len()
    }
}

/// Measures, prints, and writes the file.
pub fn bench(args: &[String]) -> Result<()> {
    let wanted = Wanted::read(args)?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let lab = Lab::new()?;
    lab.ns(Host::Server).in_ns(|| measure(&lab, &wanted, &load))
}

fn measure(lab: &Lab, wanted: &Wanted, load: &str) -> Result<()> {
    let begun = Instant::now();
    let stage = Stage::build(lab)?;
    let mut text = report::machine(wanted.rounds, wanted.time.as_secs_f64(), load)?;
    // Before there was any load: what it leaves to the allocator would hide what a connection takes.
    let memory = if wanted.is_whole() { idle(&stage, wanted.idle)? } else { Vec::new() };
    let (mut samples, mut noticed) = (Samples::default(), [const { Vec::new() }; 3]);
    for round in 0..wanted.rounds {
        let mut order = Contender::ALL;
        order.rotate_left(round % Contender::ALL.len());
        for work in &wanted.works {
            for contender in order {
                let sample = turn(&stage, *work, contender, wanted.time)
                    .with_context(|| format!("{} of {}", work.name(), contender.name()))?;
                samples.add(*work, contender, sample);
            }
        }
        for contender in order.into_iter().filter(|_| wanted.slow) {
            noticed[contender as usize].push(slow::noticed(&stage, contender)?);
        }
        eprintln!("round {} of {}: {:.0} s", round + 1, wanted.rounds, begun.elapsed().as_secs_f64());
    }
    let mut lines = goals::compared(&samples);
    lines.retain(|line| line.work.is_none_or(|work| wanted.works.contains(&work)));
    lines.extend(memory);
    if wanted.slow {
        lines.push(beside_slow(&noticed, "requests", |p99| p99.kept));
        lines.push(beside_slow(&noticed, "new connections", |p99| p99.new));
    }
    let mut losses = Vec::new();
    if wanted.is_whole() {
        lines.push(peaks(&stage)?);
        for contender in Contender::ALL {
            ensure!(stage.logged(contender)? > 1000, "{} has written no access log", contender.name());
            losses.push((contender, reloads::under_load(&stage, contender, wanted.gap)?));
        }
        lines.push(reloaded(&losses));
    }
    text.push_str(&format!("\n{}", report::table(&lines)));
    if !losses.is_empty() {
        text.push_str(&format!("\n{}", report::reloads(&losses)));
    }
    println!("{text}");
    if wanted.written {
        report::write("measured", &text)?;
    }
    if wanted.profile {
        let missed = |work: &Work| {
            !wanted.is_whole() || lines.iter().any(|line| line.work == Some(*work) && line.met == Some(false))
        };
        let profiles = wanted.works.iter().filter(|work| missed(work)).map(|work| {
            profile::record(&stage, *work, |time| turn(&stage, *work, Contender::Tollgate, time).map(drop))
        });
        let profiles = report::profiles(&profiles.collect::<Result<Vec<_>>>()?);
        println!("{profiles}");
        if wanted.written {
            report::write("profiled", &profiles)?;
        }
    }
    eprintln!("took {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// One contender's turn.
fn turn(stage: &Stage, work: Work, contender: Contender, time: Duration) -> Result<Sample> {
    let (ecdsa, family) = (contender.ecdsa(), stage.family(contender)?);
    let (before, begun) = (family.cpu()?, Instant::now());
    let mut sample = Sample::default();
    let count = match work {
        Work::Requests(requests) => {
            let done = requests.run(ecdsa, time)?;
            sample.rate = done.rate;
            done.count
        }
        Work::Handshakes { rsa } => {
            let to = if rsa { contender.rsa() } else { ecdsa };
            let count = client::handshakes(&stage.runtime, to, &stage.http1, time)?;
            sample.rate = count as f64 / begun.elapsed().as_secs_f64();
            count
        }
        Work::Paced => {
            let took = client::paced(ecdsa, &stage.http1, RATE, time)?;
            sample.p50_us = client::quantile(&took, 0.5)?.as_secs_f64() * 1e6;
            sample.p99_us = client::quantile(&took, 0.99)?.as_secs_f64() * 1e6;
            sample.rate = f64::from(RATE);
            took.len() as u64
        }
    };
    let cpu = family.cpu()?.saturating_sub(before);
    if count == 0 || cpu.is_zero() {
        bail!("{count} answers in {cpu:?} of processor time");
    }
    sample.cpu_us = cpu.as_secs_f64() * 1e6 / count as f64;
    Ok(sample)
}

/// Memory without load: of the proxies, and of each idle connection.
fn idle(stage: &Stage, count: usize) -> Result<Vec<Line>> {
    let (mut added, mut each) = ([0.0; 3], [0.0; 3]);
    for contender in Contender::ALL {
        let family = stage.family(contender)?;
        let base = if contender == Contender::Tollgate { stage.before } else { 0 };
        added[contender as usize] = (family.memory()? as f64 - base as f64) / MIB;
        // What the first connections make ready is not each one's.
        drop(client::idle(&stage.runtime, contender.ecdsa(), &stage.http1, 20)?);
        let before = family.memory()?;
        let connections = client::idle(&stage.runtime, contender.ecdsa(), &stage.http1, count)?;
        each[contender as usize] = (family.memory()? as f64 - before as f64) / 1024.0 / count as f64;
        ensure!(!connections.iter().any(client::Connection::is_closed), "an idle connection was closed");
    }
    Ok(vec![
        goals::amount("memory added by the proxy, idle", Bound::AtMost(10.0), " MiB", added),
        goals::amount("memory of an idle TLS connection", Bound::AtMost(26.0), " KiB", each),
    ])
}

/// How much slower a client's requests get: a ratio to its own when it was alone.
fn beside_slow(noticed: &[Vec<Noticed>; 3], what: &str, p99: fn(P99) -> f64) -> Line {
    let of = |contender: Contender, value: &dyn Fn(&Noticed) -> f64| {
        median(noticed[contender as usize].iter().map(value).collect())
    };
    let rise = |contender| of(contender, &|one| p99(one.beside) / p99(one.alone));
    let bound = Bound::AtMost(2.0);
    Line {
        what: format!("p99 beside {} slow clients, to alone: {what}", Mode::ALL.len() * CONNECTIONS as usize),
        goal: bound.shown("×"),
        values: Contender::ALL.map(|contender| {
            let (alone, beside) =
                (of(contender, &|one| p99(one.alone)), of(contender, &|one| p99(one.beside)));
            format!("{:.2}× · {beside:.0} µs, alone {alone:.0}", rise(contender))
        }),
        met: Some(bound.is_met(rise(Contender::Tollgate))),
        work: None,
    }
}

/// The most memory until now.
fn peaks(stage: &Stage) -> Result<Line> {
    let mut peaks = [0.0; 3];
    for contender in Contender::ALL {
        peaks[contender as usize] = stage.family(contender)?.peak()? as f64 / MIB;
    }
    Ok(goals::amount("peak memory of all of the above", Bound::AtMost(64.0), " MiB", peaks))
}

/// Nothing fails, nothing closes.
fn reloaded(losses: &[(Contender, reloads::Losses)]) -> Line {
    let lost = |contender: Contender| {
        let of = losses.iter().find(|(other, _)| *other == contender);
        of.map_or(0, |(_, losses)| losses.failed + losses.closed + losses.sockets)
    };
    Line {
        what: format!("lost in {} reloads", reloads::RELOADS),
        goal: "0".to_owned(),
        values: Contender::ALL.map(|contender| lost(contender).to_string()),
        met: Some(lost(Contender::Tollgate) == 0),
        work: None,
    }
}
