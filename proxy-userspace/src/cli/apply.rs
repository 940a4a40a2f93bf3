//! `tollgate apply`: a new policy for the running daemon.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::{Failure, Global, Outcome};
use crate::control::client;
use crate::control::protocol::{Command, Response};
use crate::policy;

/// Change the policy in force: no restart, no gap, no cut of a connection that the new policy allows too
///
/// The daemon compiles the file, loads it into the kernel beside the policy in force, runs the file's own tests on it
/// there, and then replaces the programs on each interface by one atomic step: every packet is judged by the one policy
/// or by the other. Counters of services that keep their name go on; limits and flows are kept.
///
/// The file is what SIGHUP applies again from now on; a daemon that is started anew applies the file that it is given.
///
/// If anything is wrong, nothing changes: exit code 2 for a file with errors, 1 if its tests fail or the kernel refuses.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate check new.toml && tollgate apply new.toml")]
pub struct Args {
    /// The policy file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    // By its own name, so that errors show the path that was typed; and with or without a daemon.
    policy::load(&args.file).map_err(|error| Failure::Input(error.to_string()))?;
    let file = std::path::absolute(&args.file).context("the policy's path")?;
    let response =
        client::ask(&global.run_dir, Command::Apply { file }).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
                "no daemon listens in {}: start one with `tollgate run --policy {}`, or name its --run-dir",
                global.run_dir.display(),
                args.file.display()
            ),
            ErrorKind::PermissionDenied => anyhow!("only root may command this firewall: run it as root"),
            _ => anyhow!("asking the daemon in {}: {error}", global.run_dir.display()),
        })?;
    match response {
        Response::Applied(report) if args.json => {
            println!("{}", serde_json::to_string(&report).context("JSON")?);
            Ok(())
        }
        Response::Applied(report) => {
            report.warnings.iter().for_each(|warning| eprint!("{warning}"));
            println!("{}", report.sentence());
            report.notes.iter().for_each(|note| println!("note: {note}"));
            Ok(())
        }
        Response::BadInput(why) => Err(Failure::Input(why)),
        Response::Refused(why) => Err(Failure::Refused(why)),
    }
}
