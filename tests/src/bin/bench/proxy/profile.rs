//! Where a proxy's time goes: `perf` on Tollgate's processes while a load runs. Called by `mod.rs` for goals that are missed.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::goals::Work;
use super::stage::{Contender, Stage};

/// Samples of each processor in a second.
const FREQUENCY: &str = "997";
/// Symbols that are shown.
const SHOWN: usize = 16;

/// A symbol and the share of all samples that were in it, per cent.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub symbol: String,
    pub percent: f64,
}

/// What a work is spent on.
pub struct Profile {
    pub work: Work,
    /// The largest first.
    pub top: Vec<Share>,
    /// By object: the kernel, the program, its libraries.
    pub objects: Vec<Share>,
}

/// Records while `load` runs. By `cpu-clock`, which also machines without hardware counters have.
pub fn record(stage: &Stage, work: Work, load: impl FnOnce(Duration) -> Result<()>) -> Result<Profile> {
    let time = Duration::from_secs(6);
    let file = stage.folder().join("perf.data");
    let pid = stage.family(Contender::Tollgate)?.first_child()?.to_string();
    let mut perf = Command::new("perf")
        .args(["record", "--quiet", "-e", "cpu-clock", "-F", FREQUENCY, "-p", &pid, "-o"])
        .arg(&file)
        .args(["--", "sleep", "4"])
        .stdout(Stdio::null())
        .spawn()
        .context("starting perf (Debian: apt-get install linux-perf)")?;
    let loaded = load(time);
    let status = perf.wait()?;
    loaded?;
    ensure!(status.success(), "perf record: {status}");
    let report = |fields: &str| -> Result<String> {
        let output = Command::new("perf")
            .args(["report", "--stdio", "--no-children", "--fields", fields, "--sort", fields])
            .arg("-i")
            .arg(&file)
            .output()?;
        ensure!(output.status.success(), "perf report: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut top = shares(&report("overhead,symbol")?);
    top.truncate(SHOWN);
    ensure!(!top.is_empty(), "perf has no samples");
    Ok(Profile { work, top, objects: shares(&report("overhead,dso")?) })
}

/// Lines such as `    12.34%  [.] symbol`.
fn shares(report: &str) -> Vec<Share> {
    let lines = report.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (percent, symbol) = line.split_once('%')?;
        // Other columns, which are empty here, may follow.
        let symbol = symbol.trim().split("  ").next()?.trim_start_matches("[.] ");
        // Of Rust's symbols the hash at the end says nothing.
        let symbol =
            symbol.rsplit_once("::h").filter(|(_, hash)| hash.len() == 16).map_or(symbol, |(name, _)| name);
        Some(Share { symbol: symbol.replace("[k] ", "kernel: "), percent: percent.trim().parse().ok()? })
    };
    lines.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_perf_says() {
        let report = "# Samples: 3K\n#\n    12.34%  [.] a::b<c>::h0123456789abcdef        -      -\n     4.00%  [k] copy_user\n\n";
        let share = |symbol: &str, percent| Share { symbol: symbol.to_owned(), percent };
        assert_eq!(shares(report), [share("a::b<c>", 12.34), share("kernel: copy_user", 4.0)]);
        assert_eq!(shares("    80.00%  tollgate\n"), [share("tollgate", 80.0)]);
    }
}
