//! A real browser without a screen: what it makes of a page, scripts included.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::TEMP_PREFIX;
use crate::lab::Ns;

/// It starts in a second or two; a loaded machine takes some more.
const PATIENCE: Duration = Duration::from_secs(120);
/// It asks nobody but whom the page names; the machine's network is none of its business.
const ALONE: [&str; 9] = [
    "--headless",
    // It runs as root, in a namespace of the lab.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// The page as it stands when all that it names is loaded. `host` is looked up as `address`.
pub fn page(ns: &Ns, url: &str, host: &str, address: &str) -> Result<String> {
    let prefix = format!("{TEMP_PREFIX}{}-browser-", std::process::id());
    let profile = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    let output = ns
        .command("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .arg("chromium")
        .args(ALONE)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--host-resolver-rules=MAP {host} {address}"))
        .args(["--dump-dom", url])
        .env("HOME", profile.path())
        .output()
        .context("`chromium` could not be started (Debian: apt-get install chromium)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "chromium: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
