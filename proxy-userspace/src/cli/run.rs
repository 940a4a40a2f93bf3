//! `tollgate run`: the daemon.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use nix::unistd::Gid;

use super::{Failure, Global, Outcome, require_root};
use crate::control::daemon::{self, DaemonError, OnFailure, Places, Start};
use crate::control::peer;
use crate::control::protocol::Report;
use crate::control::scrape;
use crate::dataplane::enforced;

/// Enforce a policy and stay, to take new ones from `tollgate apply`
///
/// Prints one line when the policy is enforced, tells systemd (Type=notify), and then waits. SIGHUP applies the file
/// anew. SIGTERM ends the daemon and leaves the policy enforced: programs and maps stay in the kernel until `tollgate
/// detach`. A daemon that is started again adopts what it finds, counters and limits included.
///
/// If the policy can't be applied, nothing changes, whatever was enforced before is still enforced, and the exit code
/// is not 0. If nothing was, as after a reboot, the host is open then; --on-failure closed enforces the last good policy
/// instead, or lets nothing new pass if there is none. What it says later goes to standard error; RUST_LOG=debug makes it say more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate run --policy /etc/tollgate/policy.toml")]
pub struct Args {
    /// The policy file
    #[arg(long, short, value_name = "FILE")]
    policy: PathBuf,
    /// Go back by the kernel's clock after this time, unless `tollgate confirm` comes before: 60s, 5m
    #[arg(long, value_name = "TIME", value_parser = super::apply::confirmation)]
    confirm: Option<u64>,
    /// Apply the file, or a list of it, again whenever it changes
    #[arg(long)]
    watch: bool,
    /// Start also if an interface that the policy names is not there yet: it is enforced the moment it appears
    #[arg(long)]
    late_interfaces: bool,
    /// What becomes of packets if the policy can't be enforced and none is in force, as after a reboot
    ///
    /// With `closed`, the daemon goes on, and takes a better policy from `tollgate apply`. What is in force is never taken
    /// away, whichever is chosen.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    on_failure: OnFailure,
    // Not a doc comment: rustdoc takes an address in brackets for a link.
    #[arg(
        long,
        value_name = "ADDRESS",
        help = "Serve Prometheus metrics at http://ADDRESS/metrics, for this host alone: 127.0.0.1:PORT, [::1]:PORT or unix:PATH"
    )]
    metrics: Option<scrape::Address>,
    /// Let members of this group ask (status, stats, bans, history), and change nothing
    #[arg(long, value_name = "NAME|GID", value_parser = peer::group)]
    read_group: Option<Gid>,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info,aya=warn")).init();
    require_root("tollgate run")?;
    let policy = std::path::absolute(&args.policy).context("the policy's path")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the daemon")?;
    let (run_dir, state_dir) = (global.run_dir.clone(), global.state_dir.clone());
    let start = Start {
        policy,
        confirm_s: args.confirm,
        late_interfaces: args.late_interfaces,
        watch: args.watch,
        on_failure: args.on_failure,
        metrics: args.metrics.clone(),
        readers: args.read_group,
    };
    let daemon = daemon::run(Places { pins: global.pins(), run_dir, state_dir }, start, announce);
    runtime.block_on(daemon).map_err(|error| {
        if enforced(&global.pins()).is_ok_and(|enforced| enforced.is_empty()) {
            log::error!("no policy is enforced: everything passes");
        }
        match error {
            DaemonError::BadInput(why) => Failure::Input(why),
            other => Failure::Refused(other.to_string()),
        }
    })
}

/// One line, at once, whoever reads it.
fn announce(report: &Report) {
    let mut out = std::io::stdout().lock();
    // Nobody may be listening: that is no reason to stop.
    let _ = writeln!(out, "{}", report.sentence()).and_then(|()| out.flush());
}
