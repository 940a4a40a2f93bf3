//! The fuzz targets: what is done with them, and with which. Called by people, and by CI for a minute each.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

mod build;
mod coverage;
mod log;
mod merge;
mod run;

/// What is done with the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// They run, each for so many seconds.
    Run {
        /// How long.
        seconds: u32,
    },
    /// What runs have found is brought into the corpora of the source tree, as far as it reaches what these do not.
    Merge,
    /// It is counted what the corpora of the source tree reach.
    Coverage,
}

/// Does it with the targets that are named, with all if none is.
pub fn run(workspace: &Workspace, work: Work, names: &[String]) -> Result<ExitCode> {
    let names = select(names, &targets(workspace)?)?;
    match work {
        Work::Run { seconds } => run::run(workspace, seconds, &names),
        Work::Merge => merge::run(workspace, &names),
        Work::Coverage => coverage::run(workspace, &names),
    }
}

/// Every target, by the files of the programs.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.fuzz().join("fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut names: Vec<_> =
        files.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

fn select(wanted: &[String], all: &[String]) -> Result<Vec<String>> {
    let unknown: Vec<_> = wanted.iter().filter(|name| !all.contains(name)).cloned().collect();
    ensure!(
        unknown.is_empty(),
        "there is no fuzz target {}; there are: {}",
        unknown.join(", "),
        all.join(", ")
    );
    Ok(if wanted.is_empty() { all.to_vec() } else { wanted.to_vec() })
}

/// A folder apart from the other builds, whose flags differ, and outside the source tree.
fn home(workspace: &Workspace) -> PathBuf {
    workspace.target.join("fuzz")
}

/// The folders of a target in the source tree that hold inputs: seeds and finds, and what has once crashed it.
fn inputs(workspace: &Workspace, name: &str) -> Vec<PathBuf> {
    let folders = ["corpus", "regressions"].map(|folder| workspace.fuzz().join(folder).join(name));
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// Where a target leaves what it finds: so the next run goes on from there, and the source tree stays clean.
fn finds(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    folder(home(workspace).join("corpus").join(name))
}

/// A folder that is there.
fn folder(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("could not make {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_told_the_known_ones() {
        let all = ["engine".to_owned(), "packet".to_owned()];
        assert_eq!(select(&[], &all).expect("all"), all);
        assert_eq!(select(&all[1..], &all).expect("one"), ["packet"]);
        let error = select(&["pocket".to_owned()], &all).expect_err("no such target");
        assert_eq!(error.to_string(), "there is no fuzz target pocket; there are: engine, packet");
    }
}
