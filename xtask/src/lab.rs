//! Runs the programs that show, measure or compare the filter. Called for `demo`, `bench`, `captures`, `differential`, `soak` and
//! `suite`.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{self, Needs};
use crate::workspace::Workspace;
use crate::{build, object, process};

/// Builds everything, then becomes a binary of the tests' package, and ends with its exit code.
pub fn run(workspace: &Workspace, name: &str, args: &[String]) -> Result<Infallible> {
    process::require_root(name)?;
    let mut cargo = with_tollgate(workspace)?;
    cargo
        .args(["run", "--quiet", "--release", "--package", "tollgate-tests", "--bin", name, "--"])
        .args(args);
    // In our place: an interrupt from the terminal then ends nobody but the program that has to clean up.
    let error = cargo.exec();
    Err(error).with_context(|| format!("could not start `{}`", process::line(&cargo)))
}

/// A cargo whose programs find the tollgate that was just built, wherever the target folder is.
pub fn with_tollgate(workspace: &Workspace) -> Result<Command> {
    let kit = setup::ensure(workspace, Needs::Lab)?;
    object::build(workspace, &kit)?;
    let tollgate = build::binary(workspace)?;
    let mut cargo = workspace.cargo();
    cargo.env("TOLLGATE_BIN", tollgate).env("TOLLGATE_ROOT", &workspace.root);
    Ok(cargo)
}
