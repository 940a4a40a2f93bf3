//! The three-way differential test as a program: as many policies and packets as there is time for.
//!
//! `cargo run --release -p tollgate-tests --bin differential -- --policies 1000 --packets 1000 --seed 1`. Asks the kernel about
//! every policy unless `--kernel-every` says otherwise, and so needs root. The exit code is 1 if two disagree, or if a reason
//! did not occur.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tollgate_tests::differential::{Options, run};
use tollgate_tests::lab::require_root;

/// Disagreements that are printed whole.
const PRINTED: usize = 5;

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
    let summary = run(options)?;
    for found in summary.disagreements.iter().take(PRINTED) {
        println!("{found}");
    }
    println!("{summary}");
    let uncovered: Vec<_> = summary.uncovered().into_iter().map(|reason| reason.name()).collect();
    if !uncovered.is_empty() {
        println!("no packet ended with: {}", uncovered.join(", "));
    }
    let good = summary.disagreements.is_empty() && uncovered.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut options = Options { policies: 1000, packets: 1000, seed: 1, kernel_every: 1, threads };
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
