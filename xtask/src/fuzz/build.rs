//! Compiles the fuzz targets. Called before a run and before a merge.
//!
//! What cargo-fuzz would do, without it and without a nightly compiler: coverage instrumentation is a pass of LLVM that
//! every rustc can be told to run. The address sanitizer is used where the compiler has its runtime.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use super::home;
use crate::setup::{self, Needs};
use crate::workspace::Workspace;
use crate::{object, process};

/// What libFuzzer needs of the code: a counter for each edge, where it is, and the operands of comparisons.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches must stay branches to be counted.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    // One table of counters for each crate: the linker drops those of units that it thinks unused.
    "-Ccodegen-units=1",
];

/// Builds all targets; gives the folder with their programs.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let kit = setup::ensure(workspace, Needs::Fuzz)?;
    let object = object::build(workspace, &kit)?;
    let home = home(workspace);
    // By name, so that build scripts and macros, which run on this machine, get no instrumentation.
    let host = host(workspace)?;
    let mut flags = FLAGS.map(OsString::from).to_vec();
    let mut cargo = workspace.cargo();
    if has_sanitizer()? {
        flags.push("-Zsanitizer=address".into());
        // The flag is one of nightly's.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    } else {
        eprintln!("this compiler has no address sanitizer; fuzzing without");
    }
    cargo
        .current_dir(workspace.fuzz())
        .args(["build", "--quiet", "--release", "--bins", "--target", &host])
        .env("CARGO_TARGET_DIR", &home)
        .env("TOLLGATE_BPF_OBJECT", object)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\u{1f}")));
    eprintln!("building the fuzz targets");
    process::run(&mut cargo).context("the fuzz targets could not be built")?;
    Ok(home.join(host).join("release"))
}

/// The target triple of this machine.
pub fn host(workspace: &Workspace) -> Result<String> {
    let version = process::output(workspace.cargo().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`cargo -vV` names no host")?.to_owned())
}

/// Whether the compiler that cargo will use has the runtime of the address sanitizer. Distributions leave it out.
fn has_sanitizer() -> Result<bool> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = process::output(rustc.args(["--print", "target-libdir"]))?;
    let files = fs::read_dir(folder.trim()).context("rustc has no library folder")?;
    Ok(files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("librustc") && name.ends_with("_rt.asan.a")
    }))
}
