//! `tollgate apply`: a new policy for the running daemon.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::{Failure, Global, Outcome, shadow};
use crate::control::client;
use crate::control::protocol::{Caution, Command, Report, Response};
use crate::policy;
use crate::policy::units::TimeSpan;
use crate::session;

/// Change the policy in force: no restart, no gap, no cut of a connection that the new policy allows too
///
/// The daemon compiles the file, loads it into the kernel beside the policy in force, runs the file's own tests on it
/// there, and then replaces the programs on each interface by one atomic step: every packet is judged by the one policy
/// or by the other. Counters of services that keep their name go on; limits and flows are kept. What changes is said, a
/// line each.
///
/// With --confirm the kernel goes back to the policy in force by itself, unless `tollgate confirm` comes in time: whatever
/// becomes of the daemon, of this command and of your connection to the host.
///
/// A policy that would drop the connection that you work by (SSH) is refused, unless --force is given.
///
/// With --shadow nothing that is enforced changes: the policy runs beside the one in force, and `tollgate shadow` shows which
/// packets it would have treated otherwise.
///
/// The file is what SIGHUP applies again from now on; a daemon that is started anew applies the file that it is given.
///
/// If anything is wrong, nothing changes: exit code 2 for a file with errors, 1 if its tests fail, it would shut you out, or
/// the kernel refuses.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate apply --confirm 60s new.toml && ssh server tollgate confirm")]
pub struct Args {
    /// The policy file
    #[arg(value_name = "FILE", required_unless_present = "revision")]
    file: Option<PathBuf>,
    /// Apply an earlier policy, by its number in `tollgate history`
    #[arg(long, value_name = "N", conflicts_with = "file")]
    revision: Option<u64>,
    /// Go back by the kernel's clock after this time, unless `tollgate confirm` comes before: 60s, 5m
    #[arg(long, value_name = "TIME", value_parser = confirmation)]
    confirm: Option<u64>,
    /// Do not enforce it: run it beside the policy in force and count where the two differ (`tollgate shadow`)
    #[arg(long, requires = "file", conflicts_with_all = ["revision", "confirm", "force"])]
    shadow: bool,
    /// Also if it would cut the session that this command runs in
    #[arg(long)]
    force: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// A time in which a policy is to be confirmed, seconds.
pub(super) fn confirmation(text: &str) -> Result<u64, String> {
    let span: TimeSpan = text.parse().map_err(|error| format!("{error}"))?;
    match span.ns / 1_000_000_000 {
        seconds @ 1..=86_400 => Ok(seconds),
        _ => Err("write a time from 1s to 1d".to_owned()),
    }
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    let peers = if args.force { Vec::new() } else { session::peers() };
    let how = Caution { confirm_s: args.confirm, peers };
    let command = match (&args.file, args.revision) {
        (Some(file), _) => {
            // By its own name, so that errors show the path that was typed; and with or without a daemon.
            let policy = policy::load(file).map_err(|error| Failure::Input(error.to_string()))?;
            if args.shadow {
                return shadow::begin(global, &policy, args.json);
            }
            Command::Apply { file: std::path::absolute(file).context("the policy's path")?, how }
        }
        (None, Some(revision)) => Command::ApplyRevision { revision, how },
        // clap has seen to it that there is one of the two.
        (None, None) => return Err(Failure::Input("name a policy file, or a --revision".to_owned())),
    };
    print(&ask(global, command)?, args.json)
}

/// Has the daemon apply something.
pub(super) fn ask(global: &Global, command: Command) -> Result<Report, Failure> {
    let response = client::ask(&global.run_dir, command).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
            "no daemon listens in {}: start one with `tollgate run --policy FILE`, or name its --run-dir",
            global.run_dir.display()
        ),
        ErrorKind::PermissionDenied => anyhow!("only root may command this firewall: run it as root"),
        _ => anyhow!("asking the daemon in {}: {error}", global.run_dir.display()),
    })?;
    match response {
        Response::Applied(report) => Ok(report),
        Response::BadInput(why) => Err(Failure::Input(why)),
        Response::Refused(why) => Err(Failure::Refused(why)),
        other => {
            Err(Failure::Refused(format!("the daemon answered something else than was asked: {other:?}")))
        }
    }
}

/// Says what was done.
pub(super) fn print(report: &Report, json: bool) -> Outcome {
    if json {
        println!("{}", serde_json::to_string(report).context("JSON")?);
        return Ok(());
    }
    report.warnings.iter().for_each(|warning| eprint!("{warning}"));
    println!("{}", report.sentence());
    report.changes.iter().for_each(|change| println!("  {change}"));
    report.notes.iter().for_each(|note| println!("note: {note}"));
    Ok(())
}
