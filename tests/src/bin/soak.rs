//! `cargo xtask soak`: the L7 proxy under a long mixed load while policies, certificates and upstreams change, beside nginx.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tollgate_tests::soak;

/// Ten minutes.
const SECONDS: u64 = 600;

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let seconds = match (args.next().as_deref(), args.next()) {
        (None, _) => SECONDS,
        (Some("--seconds"), Some(number)) => number.parse().context("--seconds: not a number")?,
        (Some(other), _) => bail!("{other}: only `--seconds N` is known [default: {SECONDS}]"),
    };
    eprintln!("{seconds} s of load");
    let report = soak::run(Duration::from_secs(seconds))?;
    print!("{report}");
    let good = report.failed("tollgate") == 0 && report.silent().is_empty() && report.workers.len() == 1;
    if !good {
        eprintln!("failed: see above; the daemon said:\n{}", report.log);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
