//! `tollgate proxy-worker`: the process that serves the routes of a policy, started by the daemon alone.

use super::Outcome;
use crate::proxy::worker;

/// Serve the routes of a policy, without privileges; started by `tollgate run`, not by hand
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// The user to serve as
    #[arg(long, value_name = "NAME")]
    user: String,
}

pub fn run(args: &Args) -> Outcome {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    Ok(worker::run(&args.user)?)
}
