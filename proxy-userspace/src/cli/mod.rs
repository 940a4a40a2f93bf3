//! The command line: what can be asked, and the exit code of the answer. One file a command.

mod acme_client;
mod apply;
mod ban;
mod bans;
mod check;
mod completions;
mod confirm;
mod detach;
mod explain;
mod explain_pcap;
mod history;
mod monitor;
mod proxy_worker;
mod reading;
mod rollback;
mod run;
mod shadow;
mod signals;
mod stats;
mod status;
mod table;
mod top;
mod unban;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::control::lock::{self, Lock};
use crate::dataplane::{DataplaneError, Pins};
use crate::observe::feed::FeedError;

/// A packet filter and per-source rate limiter whose rules run in the Linux kernel.
///
/// A policy file says who may reach which service of this host, and how fast. `tollgate run` puts it into the kernel,
/// where it is enforced on each packet before the rest of the system sees it, by XDP or TC programs.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Where programs and maps are pinned: a folder on a BPF file system. One for each firewall of a host
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/tollgate")]
    bpffs: PathBuf,
    /// Where the daemon's socket and locks are. One for each firewall of a host
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/tollgate")]
    run_dir: PathBuf,
    /// Where what outlives a reboot is kept: bans and earlier policies. One for each firewall of a host
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/tollgate")]
    state_dir: PathBuf,
}

impl Global {
    fn pins(&self) -> Pins {
        Pins::new(&self.bpffs)
    }

    /// The right to change what is in the kernel, until it is dropped.
    fn change(&self) -> Result<Lock, Failure> {
        let lock = lock::change(&self.run_dir);
        Ok(lock.with_context(|| format!("waiting for the lock in {}", self.run_dir.display()))?)
    }
}

const AFTER_HELP: &str = "\
The three things to know:
  tollgate run --policy FILE     enforce a policy, at boot or by hand; it stays enforced when this ends
  tollgate stats                 what was let through, what was dropped, and why
  tollgate apply FILE            change the policy: no restart, no gap

A first policy, in FILE:
  version = 1
  [interfaces.eth0]              # the interface that faces the network
  [services.ssh]
  ports = [\"tcp/22\"]
  allow = \"any\"                  # or zones of your own: see docs/policy.md

Exit codes: 0 done, 1 refused or failed, 2 wrong input. Whatever fails leaves the last good policy enforced.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Apply(apply::Args),
    Status(status::Args),
    Confirm(confirm::Args),
    Rollback(rollback::Args),
    History(history::Args),
    Explain(explain::Args),
    Stats(stats::Args),
    Shadow(shadow::Args),
    Ban(ban::Args),
    Unban(unban::Args),
    Bans(bans::Args),
    Monitor(monitor::Args),
    Top(top::Args),
    Detach(detach::Args),
    Completions(completions::Args),
    ProxyWorker(proxy_worker::Args),
    AcmeClient(acme_client::Args),
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// The input is wrong: exit code 2.
    Input(String),
    /// It was refused, or failed: exit code 1.
    Refused(String),
}

type Outcome = Result<(), Failure>;

impl From<DataplaneError> for Failure {
    fn from(error: DataplaneError) -> Self {
        if error.is_input() { Self::Input(error.to_string()) } else { Self::Refused(error.to_string()) }
    }
}

impl From<FeedError> for Failure {
    fn from(error: FeedError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Refused(format!("{error:#}"))
    }
}

/// Does what the arguments of this process say.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let outcome = match command {
        Command::Run(args) => run::run(&global, &args),
        Command::Check(args) => check::run(&args),
        Command::Apply(args) => apply::run(&global, &args),
        Command::Status(args) => status::run(&global, &args),
        Command::Confirm(args) => confirm::run(&global, &args),
        Command::Rollback(args) => rollback::run(&global, &args),
        Command::History(args) => history::run(&global, &args),
        Command::Explain(args) => explain::run(&global, &args),
        Command::Stats(args) => stats::run(&global, &args),
        Command::Shadow(args) => shadow::run(&global, &args),
        Command::Ban(args) => ban::run(&global, &args),
        Command::Unban(args) => unban::run(&global, &args),
        Command::Bans(args) => bans::run(&global, &args),
        Command::Monitor(args) => monitor::run(&global, &args),
        Command::Top(args) => top::run(&global, &args),
        Command::Detach(args) => detach::run(&global, &args),
        Command::ProxyWorker(args) => proxy_worker::run(&args),
        Command::AcmeClient(args) => acme_client::run(&args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
    };
    let (code, message) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(message)) => (1, message),
        Err(Failure::Input(message)) => (2, message),
    };
    // The errors of a policy come with their own first word.
    if message.starts_with("error:") {
        eprint!("{message}");
    } else {
        eprintln!("error: {message}");
    }
    ExitCode::from(code)
}

/// Fails unless this process is root: the kernel's own refusals are harder to read.
fn require_root(what: &str) -> Outcome {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::Refused(format!("{what} talks to the kernel's BPF maps: run it as root (sudo tollgate …)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn directories_stand_before_or_after_the_command() {
        for args in [["tollgate", "--bpffs", "/b", "stats"], ["tollgate", "stats", "--bpffs", "/b"]] {
            let cli = Cli::try_parse_from(args).expect("understood");
            assert_eq!(cli.global.bpffs, PathBuf::from("/b"));
            assert_eq!(cli.global.run_dir, PathBuf::from("/run/tollgate"));
            assert_eq!(cli.global.state_dir, PathBuf::from("/var/lib/tollgate"));
        }
    }
}
