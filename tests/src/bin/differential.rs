//! The three-way differential test as a program: as many policies and packets as there is time for.
//!
//! Run by `cargo xtask differential`, whose help says what the options and the exit code mean. Needs root unless
//! `--kernel-every 0` leaves the kernel out.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tollgate_tests::differential::{Options, Summary, run};
use tollgate_tests::lab::require_root;

/// Disagreements that are printed whole.
const PRINTED: usize = 5;
/// Runs of so many packets have to show every reason.
const ENOUGH: u64 = 100_000;
/// How often it is said how far the run is.
const PROGRESS_EVERY: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match differential() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("differential: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn differential() -> Result<ExitCode> {
    let options = options(std::env::args().skip(1))?;
    if options.kernel_every > 0 {
        require_root()?;
    }
    let said = Mutex::new(Duration::ZERO);
    let summary = run(options, |summary| {
        if let Ok(mut said) = said.lock()
            && summary.elapsed >= *said + PROGRESS_EVERY
        {
            *said = summary.elapsed;
            eprintln!("{}", line(summary));
        }
    })?;
    for found in summary.disagreements.iter().take(PRINTED) {
        println!("{found}");
    }
    println!("{summary}");
    println!("{} packets/s", rate(&summary));
    let uncovered: Vec<_> = summary.uncovered().into_iter().map(|reason| reason.name()).collect();
    if !uncovered.is_empty() {
        println!("no packet ended with: {}", uncovered.join(", "));
    }
    let covered = uncovered.is_empty() || summary.packets + summary.sent < ENOUGH;
    let good = summary.disagreements.is_empty() && covered;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(summary: &Summary) -> String {
    let Summary { policies, packets, disagreements, elapsed, .. } = summary;
    let (seconds, rate) = (elapsed.as_secs(), rate(summary));
    format!(
        "{seconds} s: {policies} policies, {packets} packets, {rate}/s, {} disagreements",
        disagreements.len()
    )
}

fn rate(summary: &Summary) -> u64 {
    (summary.packets as f64 / summary.elapsed.as_secs_f64()) as u64
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { policies: 1000, packets: 1250, seed: 1, kernel_every: 1, threads: 0 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a number"))?;
        let value: u64 = value.parse().with_context(|| format!("{name} {value} is not a number"))?;
        match name.as_str() {
            "--policies" => options.policies = value,
            "--packets" => options.packets = value,
            "--seed" => options.seed = value,
            "--kernel-every" => options.kernel_every = value,
            "--threads" => options.threads = usize::try_from(value)?,
            _ => bail!("{name} is none of --policies, --packets, --seed, --kernel-every, --threads"),
        }
    }
    Ok(options)
}
