//! `tollgate check`: is this policy good? Asks neither the kernel nor the daemon.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::table::print;
use super::{Failure, Outcome};
use crate::dataplane;
use crate::policy::model::HookChoice;
use crate::policy::units::InterfacePattern;
use crate::policy::{self, Policy};
use crate::simulate::{self, TestReport};

/// Read a policy, run its own tests, and say what is wrong with it; changes nothing and needs no root
///
/// Every error comes with file, line, column, the offending text and what to write instead. The policy's [[test]]s are run
/// on the same code that decides in the kernel; `tollgate apply` runs them once more in the kernel itself.
///
/// What a good policy makes hard for the host itself, such as keeping its lease, is said as a warning.
///
/// Exit code 0: good, with or without warnings. 1: a test of the policy fails. 2: the file has errors.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The policy file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the result as JSON, errors included
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Result<'a> {
    ok: bool,
    file: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<&'a str>,
    errors: &'a [policy::Diagnostic],
    warnings: &'a [policy::Diagnostic],
    failed_tests: Vec<String>,
}

pub fn run(args: &Args) -> Outcome {
    let policy = match policy::load(&args.file) {
        Ok(policy) => policy,
        Err(error) => {
            if args.json {
                let errors = &error.0;
                json(&Result {
                    ok: false,
                    file: &args.file,
                    hash: None,
                    errors,
                    warnings: &[],
                    failed_tests: Vec::new(),
                })?;
            }
            return Err(Failure::Input(error.to_string()));
        }
    };
    let report = match simulate::check(&policy) {
        Ok(report) => report,
        Err(error) => {
            let message = format!("{}: {:#}", args.file.display(), anyhow!(error));
            if args.json {
                let failed_tests = vec![message.clone()];
                json(&Result {
                    ok: false,
                    file: &args.file,
                    hash: Some(&policy.hash),
                    errors: &[],
                    warnings: &policy.warnings,
                    failed_tests,
                })?;
            }
            return Err(Failure::Input(message));
        }
    };
    if args.json {
        json(&Result {
            ok: report.passed(),
            file: &args.file,
            hash: Some(&policy.hash),
            errors: &[],
            warnings: &policy.warnings,
            failed_tests: report.failures().map(ToString::to_string).collect(),
        })?;
    }
    if !report.passed() {
        return Err(Failure::Refused(format!("tests of the policy fail\n{}", report.to_string().trim_end())));
    }
    if !args.json {
        policy.warnings.iter().for_each(|warning| eprint!("{warning}"));
        print(&for_people(&policy, &report));
    }
    Ok(())
}

fn json(result: &Result<'_>) -> Outcome {
    print(&format!("{}\n", serde_json::to_string(result).context("JSON")?));
    Ok(())
}

fn for_people(policy: &Policy, report: &TestReport) -> String {
    let number = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut counts =
        vec![number(policy.interfaces.len(), "interface"), number(policy.services.len(), "service")];
    if let Some(proxy) = &policy.proxy {
        counts.extend([number(proxy.listeners.len(), "listener"), number(proxy.routes.len(), "route")]);
    }
    let tests = match report.results.len() {
        0 => "no tests of its own".to_owned(),
        some => format!("{} passed", number(some, "test")),
    };
    let mut text = format!("{}: good: {}; {tests}\n", policy.path.display(), counts.join(", "));
    for entry in &policy.interfaces {
        if entry.hook == HookChoice::Auto && policy.rejects(entry) {
            text.push_str(&format!("note: {}: {}\n", entry.name, dataplane::TC_TO_REJECT));
        }
    }
    for name in absent(policy) {
        text.push_str(&format!(
            "note: this host has no interface {name} now; `apply` would refuse the policy here\n"
        ));
    }
    text
}

/// Interfaces that the policy names and this host does not have: no error, the policy may be for another host.
fn absent(policy: &Policy) -> Vec<&str> {
    let present = dataplane::host_interfaces().unwrap_or_default();
    let named = policy.interfaces.iter().map(|entry| entry.name.as_str());
    let is_pattern = |name: &str| name.parse::<InterfacePattern>().is_ok_and(|pattern| pattern.is_pattern());
    named.filter(|name| !is_pattern(name) && !present.iter().any(|one| one.name == *name)).collect()
}
