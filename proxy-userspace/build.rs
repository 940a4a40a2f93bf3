//! Finds the kernel programs that are embedded in the binary. Called by cargo before it compiles this package.
//!
//! This script builds nothing: a plain `cargo build`, `cargo test` or `cargo clippy` needs no eBPF toolchain, only
//! the object that `cargo xtask build` left in the target folder, and is rebuilt when that object changes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Names another object, absolute or relative to the workspace; also what the library's `include_bytes` reads.
const OBJECT: &str = "TOLLGATE_BPF_OBJECT";
/// Where `cargo xtask build` leaves it, below the target folder.
const BELOW_TARGET: &str = "bpf/tollgate.o";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let object = locate();
    println!("cargo::rerun-if-changed={}", object.display());
    // The code names the object by an absolute path: `include_bytes!` resolves others against the source file.
    match object.canonicalize() {
        Ok(object) if object.is_file() => {
            println!("cargo::rustc-env={OBJECT}={}", object.display());
            ExitCode::SUCCESS
        }
        _ => {
            println!(
                "cargo::error=the kernel programs are not built yet ({} is missing): run `cargo xtask build` once",
                object.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// The object's path, whether or not it exists.
fn locate() -> PathBuf {
    let workspace = env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .and_then(|package| package.parent().map(Path::to_owned))
        .unwrap_or_default();
    if let Some(named) = env::var_os(OBJECT) {
        return workspace.join(named);
    }
    // Cargo does not tell a build script its target folder, and CARGO_TARGET_DIR or a configuration file may have
    // moved it: it is the ancestor of OUT_DIR that has the object. With a split build directory there is none.
    let out = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    let default = workspace.join("target").join(BELOW_TARGET);
    out.ancestors()
        .skip(1)
        .map(|folder| folder.join(BELOW_TARGET))
        .find(|object| object.is_file())
        .or_else(|| default.is_file().then(|| default.clone()))
        // OUT_DIR is <target>/<profile>/build/<package>/out.
        .or_else(|| out.ancestors().nth(4).map(|target| target.join(BELOW_TARGET)))
        .unwrap_or(default)
}
