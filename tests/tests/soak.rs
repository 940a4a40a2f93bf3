//! For a while what `cargo xtask soak` does for ten minutes: mixed traffic while policies, certificates and upstreams change.

use std::time::Duration;

use anyhow::{Result, ensure};
use tollgate_tests::soak;

const LENGTH: Duration = Duration::from_secs(25);

#[test]
fn nothing_fails_that_could_be_helped_while_everything_changes() -> Result<()> {
    let report = soak::run(LENGTH)?;
    println!("{report}");
    ensure!(report.failed("tollgate") == 0, "{report}\n{}", report.log);
    ensure!(report.silent().is_empty(), "nothing was answered: {:?}\n{report}", report.silent());
    ensure!(report.workers.len() == 1, "{} workers\n{}", report.workers.len(), report.log);
    // As many as the machine has time for; a few would show nothing.
    ensure!(report.applied >= 20 && report.replaced >= 10 && report.deaths >= 5, "{report}");
    Ok(())
}
