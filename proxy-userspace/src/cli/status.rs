//! `tollgate status`: what is enforced where.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use super::table::{print, rendered, table};
use super::{Global, Outcome, reading};
use crate::observe::status::Status;

/// Show what is enforced where: interface, hook and mode, policy file and hash, since when, and what passes as plumbing
///
/// Read from the kernel: true also while the daemon is down. Who is not root asks the daemon (`run --read-group`).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    let status = reading::status(global)?;
    if args.json {
        let json = serde_json::to_string(&status).context("JSON")?;
        print(&format!("{json}\n"));
    } else {
        print(&for_people(&status, &global.bpffs));
    }
    Ok(())
}

fn for_people(status: &Status, bpffs: &Path) -> String {
    let daemon = if status.daemon.running {
        format!("running, {}", status.daemon.socket.display())
    } else {
        "not running (what is enforced stays enforced; `tollgate run` starts one)".to_owned()
    };
    let Some(policy) = &status.policy else {
        return format!("nothing is enforced (looked in {})\ndaemon     {daemon}\n", bpffs.display());
    };
    let mut text = String::new();
    if status.locked_down {
        text.push_str(
            "LOCKED DOWN: the policy could not be enforced when the daemon started, and nothing new passes.\n\
             `tollgate apply FILE` ends that.\n\n",
        );
    }
    let rows = [
        ("policy", policy.file.display().to_string()),
        ("hash", policy.hash.clone()),
        ("since", policy.since.clone()),
        ("plumbing", status.plumbing.join(", ")),
        ("daemon", daemon),
    ];
    for (name, value) in rows {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name:10} {value}");
    }
    if let Some(seconds) = status.confirm_within_s {
        let _ = writeln!(
            text,
            "{:10} for {seconds} s: `tollgate confirm` keeps the policy, else the one before is in force again",
            "waiting"
        );
    }
    if let Some(shadow) = &status.shadow {
        let _ = writeln!(
            text,
            "{:10} {} since {}, on {} (`tollgate shadow`)",
            "shadow",
            shadow.file.display(),
            shadow.since,
            shadow.interfaces.join(", ")
        );
    }
    let mut interfaces = table(&["interface", "#index", "hook", "mode", "policy"]);
    for one in &status.interfaces {
        let same = one.policy == *policy;
        let mut what = if same { "the above".to_owned() } else { format!("{}", one.policy.file.display()) };
        if one.plumbing != status.plumbing {
            let _ = write!(what, " (plumbing: {})", one.plumbing.join(", "));
        }
        interfaces.add_row([one.name.as_str(), &one.index.to_string(), one.hook, one.mode, &what]);
    }
    text + "\n" + &rendered(&interfaces)
}
