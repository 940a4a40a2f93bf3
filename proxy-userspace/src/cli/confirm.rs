//! `tollgate confirm`: the policy that waits stays.

use anyhow::Context;

use super::{Global, Outcome, require_root};
use crate::control::history::{Fate, History};
use crate::control::lock;
use crate::dataplane;

/// Keep the policy that waits to be confirmed (`apply --confirm`, `run --confirm`)
///
/// Works with or without a daemon. Once its time is over there is nothing to confirm: the kernel has gone back to the policy
/// before by its own clock, and the exit code is 1.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(global: &Global, _args: &Args) -> Outcome {
    require_root("tollgate confirm")?;
    let _change = lock::change(&global.run_dir).context("waiting for another change to end")?;
    dataplane::confirm(&global.pins())?;
    println!("confirmed: the policy in force stays");
    if let Err(error) = History::new(&global.state_dir).settle(Fate::Confirmed) {
        eprintln!("note: the history in {} can't be written: {error}", global.state_dir.display());
    }
    Ok(())
}
