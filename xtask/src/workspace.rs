//! Decides where things are: the source tree, the target folder, the cache; and how the user's own cargo is called.
//!
//! Called by every task. Absolute paths only, since the tasks run programs in several folders.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The source tree and the folders that belong to it.
#[derive(Debug)]
pub struct Workspace {
    /// The top of the checkout.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
}

impl Workspace {
    /// Finds the checkout that this program was started from.
    pub fn locate() -> Result<Self> {
        // At run time by preference: the checkout may have been moved since this was compiled.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("xtask has no parent folder")?.to_owned();
        // Only cargo knows the target folder: a variable or any of several configuration files can move it.
        let mut metadata = host_cargo();
        metadata.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]);
        metadata.arg(root.join("Cargo.toml"));
        let metadata: Value = serde_json::from_str(&process::output(&mut metadata)?)
            .context("`cargo metadata` printed something that is not JSON")?;
        let target =
            metadata["target_directory"].as_str().context("`cargo metadata` names no target folder")?;
        Ok(Self { root, target: target.into() })
    }

    /// The user's own cargo, for everything but the kernel programs.
    pub fn cargo(&self) -> Command {
        let mut cargo = host_cargo();
        // A relative CARGO_TARGET_DIR means another folder once we have changed to the root.
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Where the kernel programs are left for the binary to embed.
    pub fn object(&self) -> PathBuf {
        self.target.join("bpf/tollgate.o")
    }

    /// The fuzz targets: a workspace of their own.
    pub fn fuzz(&self) -> PathBuf {
        self.root.join("fuzz")
    }

    /// The project's own tool folder: cheap things that belong to this checkout.
    pub fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }
}

/// The folder for what takes long to make and is the same for all checkouts. A fresh clone, or CI's, then finds the
/// linker that an earlier one compiled.
pub fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("TOLLGATE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("tollgate")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/tollgate")))
        .context("no folder to keep tools in: set HOME or TOLLGATE_CACHE")?;
    std::path::absolute(&folder).with_context(|| format!("{} can't be made absolute", folder.display()))
}

/// The cargo that started us, without what `cargo run` said about *this* package: build scripts that watch those
/// variables would be run again on every change between a call from here and one from the shell.
pub fn host_cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if is_about_a_package(&name.to_string_lossy()) {
            cargo.env_remove(&name);
        }
    }
    cargo
}

fn is_about_a_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_FEATURE_"]
        .iter()
        .any(|part| name.starts_with(part))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_users_settings_and_drops_the_packages() {
        assert!(is_about_a_package("CARGO_MANIFEST_DIR"));
        assert!(is_about_a_package("CARGO_PKG_VERSION"));
        assert!(!is_about_a_package("CARGO_HOME"));
        assert!(!is_about_a_package("CARGO_NET_OFFLINE"));
        assert!(!is_about_a_package("CARGO_TARGET_DIR"));
    }
}
