//! Runs targets, as many at a time as there are processors, and says in a line each what came of it.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::log::{Crash, Stats};
use super::{build, finds, folder, home, inputs};
use crate::workspace::Workspace;

/// An input that takes longer than so many seconds is a find, for nobody may stall a reader; so is one that takes more memory.
pub const LIMITS: [&str; 2] = ["-timeout=20", "-rss_limit_mb=2048"];
/// Inputs have at most so many bytes: longer ones find nothing new, and slow everything down.
const LONGEST: &str = "-max_len=16384";

/// Runs the targets.
pub fn run(workspace: &Workspace, seconds: u32, names: &[String]) -> Result<ExitCode> {
    let binaries = build::build(workspace)?;
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(names.len());
    eprintln!("fuzzing {}, {seconds} s each, {workers} at a time", names.join(", "));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut crashes = 0;
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = target(workspace, &binaries.join(name), name, seconds)?;
            println!("{}", outcome.sentence(name));
            crashes += usize::from(outcome.crash.is_some());
        }
        Ok(crashes)
    };
    let crashes: Result<usize> = thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(1))).sum()
    });
    Ok(if crashes? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one, whose words go to a file beside its finds.
fn target(workspace: &Workspace, program: &Path, name: &str, seconds: u32) -> Result<Outcome> {
    let crashes = folder(home(workspace).join("crashes").join(name))?;
    let log = home(workspace).join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
    let mut target = Command::new(program);
    target
        .args(LIMITS)
        .arg(LONGEST)
        .arg(format!("-max_total_time={seconds}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", crashes.display()));
    let words = workspace.fuzz().join("dictionaries").join(format!("{name}.dict"));
    if words.is_file() {
        target.arg(format!("-dict={}", words.display()));
    }
    // New finds go to the first folder.
    target.arg(finds(workspace, name)?).args(inputs(workspace, name));
    let sound = target
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("could not start {}", program.display()))?
        .success();
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok(Outcome { stats: Stats::read(&text), crash: (!sound).then(|| Crash::read(&text, program, &log)) })
}

/// What came of a target.
struct Outcome {
    stats: Stats,
    crash: Option<Crash>,
}

impl Outcome {
    fn sentence(&self, name: &str) -> String {
        let Stats { runs, per_second, cov, ft, corpus } = &self.stats;
        let mut line = format!(
            "{name:<8} {runs:>10} runs {per_second:>7}/s  cov {cov:>5}  ft {ft:>6}  corpus {corpus:>5}  {} crashes",
            usize::from(self.crash.is_some())
        );
        if let Some(Crash { why, command, base64 }) = &self.crash {
            line += &format!("\n  {why}\n  again: {command}");
            line.extend(base64.iter().map(|input| format!("\n  its input: base64 -d <<< {input}")));
        }
        line
    }
}
