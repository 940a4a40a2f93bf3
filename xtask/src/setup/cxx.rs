//! Looks for the C++ compiler that libFuzzer's runtime is compiled with. Called for `setup` and `fuzz`.
//!
//! Nothing else of Tollgate needs one, so the other tasks do without.

use std::env;

use anyhow::{Result, ensure};

use super::Options;
use super::apt::Apt;
use crate::process;

const STEP: &str = "fuzzing";
/// What the build script of the runtime looks for, unless `CXX` names another.
const PROGRAM: &str = "c++";
const PACKAGE: &str = "g++";

/// Installs a C++ compiler if there is none.
pub fn ensure(options: &Options, apt: &mut Apt) -> Result<()> {
    let named = env::var("CXX").unwrap_or_default();
    let program = if named.is_empty() { PROGRAM } else { &named };
    // `CXX` may be a path or hold arguments: whoever has set it knows what it names.
    if named.is_empty() && process::which(program).is_none() {
        options.doing(STEP, &format!("{program} is missing: libFuzzer's runtime is C++"));
        apt.install(&[PACKAGE.to_owned()], "to build the fuzz targets", options)?;
        ensure!(process::which(program).is_some(), "installed {PACKAGE}, but there is still no {program}");
    }
    options.found(STEP, &format!("{program}: for `cargo xtask fuzz`"));
    Ok(())
}
