//! Decides whether a change is fit to commit, apart from the tests. Called by people before a commit, and by CI.
//!
//! Every check runs, whatever the others said, so that one run shows all there is to mend.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::setup::{self, Kit, Needs};
use crate::workspace::Workspace;
use crate::{object, process};

/// Runs all checks.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let kit = setup::ensure(workspace, Needs::Build)?;
    // The userspace crate embeds the object, so that even looking at it needs one.
    object::build(workspace, &kit)?;

    let mut failed = Vec::new();
    for (name, mut command) in [
        ("formatting", formatting(workspace)),
        ("lints", lints(workspace)),
        ("formatting of the fuzz targets", fuzz_formatting(workspace)),
        ("lints of the fuzz targets", fuzz_lints(workspace)),
        ("lints of the kernel programs", kernel_lints(workspace, &kit)),
        ("documentation", documentation(workspace)),
    ] {
        eprintln!("checking {name}: {}", process::line(&command));
        if !process::succeeds(&mut command)? {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        eprintln!("all checks passed");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("checks failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn formatting(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["fmt", "--all", "--check"]);
    cargo
}

fn lints(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    // --locked: a Cargo.lock that is not the committed one fails here.
    cargo.args(["clippy", "--quiet", "--locked", "--all-targets", "--", "-Dwarnings"]);
    cargo
}

/// The fuzz targets are a workspace of their own, which `--all` does not reach.
fn fuzz_formatting(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["fmt", "--check", "--manifest-path"]).arg(workspace.fuzz().join("Cargo.toml"));
    cargo
}

/// Without libFuzzer's runtime, which takes a C++ compiler and a while.
fn fuzz_lints(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args([
        "clippy",
        "--quiet",
        "--locked",
        "--all-targets",
        "--no-default-features",
        "--manifest-path",
    ]);
    cargo.arg(workspace.fuzz().join("Cargo.toml")).args(["--", "-Dwarnings"]);
    cargo
}

/// By clippy if the compiler of the kernel programs has it (rustup's do), else by that compiler's own warnings, which
/// is what a distribution without clippy leaves us. `proxy-common`, the engine, is linted with the host's crates.
fn kernel_lints(workspace: &Workspace, kit: &Kit) -> Command {
    let mut cargo = object::cargo(workspace, kit);
    let has_clippy =
        ["cargo-clippy", "clippy-driver"].iter().all(|name| kit.compiler.program(name).is_file());
    if has_clippy {
        cargo.args(["clippy", "--quiet", "--locked"]);
    } else {
        // Arguments of `cargo rustc` reach this package alone; in RUSTFLAGS they would build `core` again.
        cargo.args(["rustc", "--quiet", "--locked", "--profile=check"]);
    }
    cargo.args(object::selection()).args(["--", "-Dwarnings"]);
    cargo
}

/// Links between items break silently when something is renamed. These pages are for contributors, so they hold private
/// items, and links to those are fine.
fn documentation(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["doc", "--quiet", "--locked", "--no-deps", "--document-private-items"]);
    cargo.env("RUSTDOCFLAGS", "-Dwarnings -Arustdoc::private-intra-doc-links");
    cargo
}
