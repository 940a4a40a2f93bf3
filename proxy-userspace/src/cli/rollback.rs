//! `tollgate rollback`: back to the policy before.

use anyhow::Context;

use super::apply::{ask, print};
use super::{Global, Outcome, require_root};
use crate::control::history::{Fate, History};
use crate::control::lock;
use crate::control::protocol::{Caution, Command};
use crate::dataplane;
use crate::session;

/// Go back to the policy before the one in force
///
/// A policy that waits to be confirmed is taken back at once, with or without a daemon. Else the daemon applies the newest
/// policy of the history before the one in force that was good (`tollgate history`), from its own copy: the file that it
/// came from may have changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also if the policy before would cut the session that this command runs in
    #[arg(long)]
    force: bool,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    require_root("tollgate rollback")?;
    let pins = global.pins();
    if dataplane::unconfirmed(&pins)?.is_some() {
        let _change = lock::change(&global.run_dir).context("waiting for another change to end")?;
        dataplane::revert(&pins)?;
        println!("taken back: what was in force before is in force again");
        if let Err(error) = History::new(&global.state_dir).settle(Fate::RolledBack) {
            eprintln!("note: the history in {} can't be written: {error}", global.state_dir.display());
        }
        return Ok(());
    }
    let peers = if args.force { Vec::new() } else { session::peers() };
    let report = ask(global, Command::Rollback { how: Caution { confirm_s: None, peers } })?;
    print(&report, false)
}
