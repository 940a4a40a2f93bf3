//! Runs the tests and says what came of them in one closing line. Called by people and by CI.
//!
//! Plain `cargo test` does the work, since every user has it. Nothing is skipped for lack of root or of a tool: what is
//! missing is installed or is an error, so that a green run means that everything ran.

use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{lab, object, process};

/// The package whose tests use the kernel.
const LAB: &str = "tollgate-tests";
/// Tests of the lab wait for traffic most of their time, but more at once would disturb each other's measurements.
const LAB_THREADS: &str = "2";

/// Runs all tests, or those that the filters select.
pub fn run(workspace: &Workspace, filters: &[String]) -> Result<ExitCode> {
    process::require_root("test")?;
    let started = Instant::now();

    let mut host = lab::with_tollgate(workspace)?;
    host.args(["test", "--no-fail-fast", "--workspace", "--exclude", object::PACKAGE, "--exclude", LAB]);
    let mut kernel = workspace.cargo();
    kernel.args(["test", "--no-fail-fast", "--package", LAB]);
    // By variable, so that a `--test-threads` among the filters goes before it.
    kernel.env(
        "RUST_TEST_THREADS",
        std::env::var_os("RUST_TEST_THREADS").unwrap_or_else(|| LAB_THREADS.into()),
    );
    for (name, value) in host.get_envs().filter(|(name, _)| name.to_string_lossy().starts_with("TOLLGATE_")) {
        kernel.env(name, value.unwrap_or_default());
    }

    // A table that nobody has asked for would bury the rest.
    if filters
        .iter()
        .any(|filter| ["evasion", "parity", "smuggled"].iter().any(|table| filter.contains(table)))
    {
        kernel.env("TOLLGATE_TABLE", "1");
    }

    let mut tally = Tally::default();
    let mut broken = Vec::new();
    for (name, mut cargo) in [("without a kernel", host), ("in the lab", kernel)] {
        eprintln!("tests {name}");
        let failed_before = tally.failed;
        let success = follow(cargo.arg("--").args(filters), &mut tally)?;
        // A program that did not compile, or was killed, has reported no failed test.
        if !success && tally.failed == failed_before {
            broken.push(name);
        }
    }
    Ok(conclude(&tally, &broken, started))
}

/// Runs cargo, shows what it prints as it comes, and counts. Says whether cargo was content.
fn follow(cargo: &mut Command, tally: &mut Tally) -> Result<bool> {
    let mut child = cargo
        // A quiet cargo makes the tests quiet too, and they would print dots instead of names.
        .env("CARGO_TERM_QUIET", "false")
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start `{}`", process::line(cargo)))?;
    let mut lines = BufReader::new(child.stdout.take().context("cargo has no output")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        stdout().write_all(&line)?;
        tally.note(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(child.wait()?.success())
}

fn conclude(tally: &Tally, broken: &[&str], started: Instant) -> ExitCode {
    println!();
    for name in &tally.failures {
        println!("failed: {name}");
    }
    for name in broken {
        println!(
            "failed: a program of the tests {name} did not compile, or ended before its result: see above"
        );
    }
    for name in &tally.ignored {
        println!("not run, marked #[ignore]: {name}");
    }
    if tally.ran() == 0 {
        println!("no test ran");
    }
    println!("took {:.1} s", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", tally.passed, tally.failed + broken.len());
    if tally.failed == 0 && broken.is_empty() && tally.ran() > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
