//! `tollgate acme-client`: the process that orders a certificate, started by the daemon alone.

use super::Outcome;
use crate::proxy::acme::client;

/// Order a certificate, without privileges; started by `tollgate run`, not by hand
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// The user to run as
    #[arg(long, value_name = "NAME")]
    user: String,
}

pub fn run(args: &Args) -> Outcome {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    Ok(client::run(&args.user)?)
}
