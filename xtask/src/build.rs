//! Builds the `tollgate` binary, with the kernel programs inside. Called by `build`, `test`, `demo` and `bench`, after
//! `object`.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// Builds the binary for release; gives its path.
pub fn binary(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--package", "proxy-userspace", "--bin", "tollgate"]);
    // Cargo is asked where the binary is: a configured default target puts it elsewhere.
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("could not start `{}`", process::line(&cargo)))?;
    ensure!(output.status.success(), "the tollgate binary could not be built");
    executable(&String::from_utf8_lossy(&output.stdout)).context("cargo built no tollgate binary")
}

/// The last executable among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_executable_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","target":{"name":"tollgate"},"executable":"/t/release/tollgate"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/t/release/tollgate".into()));
        assert_eq!(executable("not JSON"), None);
    }
}
