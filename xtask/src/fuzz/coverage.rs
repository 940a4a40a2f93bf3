//! What of the engine and of the policy reader the corpora of the source tree reach. Called by people who ask whether a target
//! still sees what it is there for.
//!
//! Counted by the compiler (`-Cinstrument-coverage`) in a program without libFuzzer, and put together by LLVM's own tools.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{build, folder, home, inputs};
use crate::setup::{self, Needs};
use crate::workspace::Workspace;
use crate::{object, process};

/// The program that gives inputs to a target.
const PROGRAM: &str = "replay";
/// What is counted: what reads frames, policies and lists.
const SOURCES: [&str; 2] = ["proxy-common/src", "proxy-userspace/src/policy"];

/// Replays the corpora and the regressions of the targets, and prints a line a file.
pub fn run(workspace: &Workspace, names: &[String]) -> Result<ExitCode> {
    let llvm = setup::coverage()?;
    let program = instrumented(workspace)?;
    let profiles = folder(home(workspace).join("coverage/profiles"))?;
    // Those of other programs and corpora would be counted too.
    fs::remove_dir_all(&profiles)?;
    for name in names {
        let mut replay = Command::new(&program);
        replay.arg(name).args(inputs(workspace, name));
        replay.env("LLVM_PROFILE_FILE", profiles.join(format!("{name}.profraw")));
        process::run(&mut replay)?;
    }
    let together = profiles.join("all.profdata");
    let mut merge = Command::new(&llvm.profdata);
    merge.args(["merge", "-sparse", "-o"]).arg(&together);
    merge.args(names.iter().map(|name| profiles.join(format!("{name}.profraw"))));
    process::run(&mut merge)?;
    let mut export = Command::new(&llvm.cov);
    export.args(["export", "-summary-only", "-instr-profile"]).arg(together).arg(program);
    let files = files(&workspace.root, &process::output(&mut export)?)?;
    print!("{}", table(&files));
    Ok(ExitCode::SUCCESS)
}

/// The program whose compiler counts.
fn instrumented(workspace: &Workspace) -> Result<PathBuf> {
    let kit = setup::ensure(workspace, Needs::Build)?;
    let object = object::build(workspace, &kit)?;
    let host = build::host(workspace)?;
    let target = home(workspace).join("coverage");
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(workspace.fuzz())
        .args(["build", "--quiet", "--release", "--no-default-features", "--example", PROGRAM])
        // By name, so that build scripts and macros leave no profiles.
        .args(["--target", &host])
        .env("CARGO_TARGET_DIR", &target)
        .env("TOLLGATE_BPF_OBJECT", object)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cinstrument-coverage");
    eprintln!("building the fuzz targets to count what they reach");
    process::run(&mut cargo).context("the program that counts could not be built")?;
    Ok(target.join(host).join("release/examples").join(PROGRAM))
}

/// Reached, and there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    reached: u64,
    all: u64,
}

impl Share {
    fn read(summary: &Value, what: &str) -> Result<Self> {
        let number = |name: &str| summary[what][name].as_u64();
        let share = number("covered").zip(number("count")).map(|(reached, all)| Self { reached, all });
        share.with_context(|| format!("llvm-cov says nothing of {what}"))
    }

    fn add(&mut self, other: Self) {
        self.reached += other.reached;
        self.all += other.all;
    }

    fn percent(self) -> f64 {
        if self.all == 0 { 100.0 } else { 100.0 * self.reached as f64 / self.all as f64 }
    }
}

/// What is said of a file: lines, and regions (what lies between branches).
type Shares = [Share; 2];

/// The files that count, by their path in the source tree, from what `llvm-cov export` prints.
fn files(root: &Path, export: &str) -> Result<BTreeMap<String, Shares>> {
    let export: Value =
        serde_json::from_str(export).context("llvm-cov printed something that is not JSON")?;
    let all = export["data"][0]["files"].as_array().context("llvm-cov names no files")?;
    let mut files = BTreeMap::new();
    for file in all {
        let path = Path::new(file["filename"].as_str().context("llvm-cov names a file without a name")?);
        let Ok(path) = path.strip_prefix(root) else { continue };
        if SOURCES.iter().any(|source| path.starts_with(source)) {
            let summary = &file["summary"];
            let shares = [Share::read(summary, "lines")?, Share::read(summary, "regions")?];
            files.insert(path.display().to_string(), shares);
        }
    }
    ensure!(!files.is_empty(), "llvm-cov names none of the files in {}", SOURCES.join(", "));
    Ok(files)
}

/// A line a file and one for each folder of sources.
fn table(files: &BTreeMap<String, Shares>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, [lines, regions]: Shares| {
        let Share { reached, all } = lines;
        text += &format!(
            "{name:<55} lines {reached:>5} of {all:>5} {:>6.1} %   regions {:>5} of {:>5} {:>6.1} %\n",
            lines.percent(),
            regions.reached,
            regions.all,
            regions.percent()
        );
    };
    for source in SOURCES {
        let mut sum = Shares::default();
        for (name, shares) in files.iter().filter(|(name, _)| Path::new(name).starts_with(source)) {
            line(name, *shares);
            sum.iter_mut().zip(shares).for_each(|(sum, share)| sum.add(*share));
        }
        line(&format!("{source}, together"), sum);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: &str = r#"{"data":[{"files":[
        {"filename":"/r/proxy-common/src/packet/ipv4.rs","summary":{"lines":{"count":80,"covered":60},"regions":{"count":10,"covered":9}}},
        {"filename":"/r/proxy-common/src/engine/flow.rs","summary":{"lines":{"count":20,"covered":20},"regions":{"count":0,"covered":0}}},
        {"filename":"/r/proxy-userspace/src/policy-other.rs","summary":{"lines":{"count":1,"covered":1}}},
        {"filename":"/elsewhere/src/lib.rs","summary":{}}]}]}"#;

    #[test]
    fn counts_our_files_alone() -> Result<()> {
        let files = files(Path::new("/r"), EXPORT)?;
        let share = |reached, all| Share { reached, all };
        assert_eq!(files["proxy-common/src/packet/ipv4.rs"], [share(60, 80), share(9, 10)]);
        assert_eq!(files.len(), 2);
        let table = table(&files);
        assert!(table.contains("together"), "{table}");
        assert!(table.contains("lines    80 of   100   80.0 %   regions     9 of    10   90.0 %"), "{table}");
        Ok(())
    }

    #[test]
    fn an_export_without_our_files_is_an_error() {
        assert!(files(Path::new("/elsewhere"), EXPORT).is_err());
        assert!(files(Path::new("/r"), "{}").is_err());
    }
}
