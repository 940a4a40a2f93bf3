//! Brings what runs have found into the corpora of the source tree. Called by people, after a long run and before a commit.
//!
//! Seeds have names and stay. Finds go by their hash, and are chosen anew each time: the few that together reach all that is
//! known and that no seed reaches, so that the corpora stay small and CI's minute begins where long runs have ended.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use super::run::LIMITS;
use super::{build, finds, folder};
use crate::workspace::Workspace;

/// Most bytes of a corpus, seeds included: it is there for good in the history of the source tree.
const MOST_BYTES: u64 = 100 << 10;
/// Longest finds, tried one after the other until the corpus is small enough. What a long one reaches is mostly reached by a
/// short one too, but it reaches it in one file.
const LONGEST: [u32; 6] = [16_384, 4096, 2048, 1024, 512, 256];

/// Merges the finds of the targets.
pub fn run(workspace: &Workspace, names: &[String]) -> Result<ExitCode> {
    let binaries = build::build(workspace)?;
    for name in names {
        let corpus = folder(workspace.fuzz().join("corpus").join(name))?;
        let (files, bytes) = target(&binaries.join(name), &corpus, &finds(workspace, name)?)?;
        println!("{name:<8} {files:>5} inputs {bytes:>7} bytes");
    }
    Ok(ExitCode::SUCCESS)
}

/// Merges the finds of one; gives how many inputs there are then, and of how many bytes.
fn target(program: &Path, corpus: &Path, finds: &Path) -> Result<(usize, u64)> {
    for longest in LONGEST {
        return_finds(corpus, finds)?;
        let mut target = Command::new(program);
        target
            .args(LIMITS)
            .arg(format!("-max_len={longest}"))
            // Only the edges that are reached, and not how often: that would be ten times as many files.
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .args([corpus, finds]);
        let output = target.output().with_context(|| format!("could not start {}", program.display()))?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} could not merge its finds: {words}", program.display());
        let (files, bytes) = size(corpus)?;
        if bytes <= MOST_BYTES {
            return Ok((files, bytes));
        }
    }
    bail!("even with short finds alone {} has more than {MOST_BYTES} bytes", corpus.display())
}

/// Moves finds of earlier merges back to where runs leave theirs.
fn return_finds(corpus: &Path, finds: &Path) -> Result<()> {
    for file in fs::read_dir(corpus)?.flatten() {
        if is_find(&file.file_name().to_string_lossy()) {
            let to = finds.join(file.file_name());
            fs::copy(file.path(), &to).with_context(|| format!("could not write {}", to.display()))?;
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// libFuzzer names what it finds by SHA-1; people name seeds.
fn is_find(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn size(corpus: &Path) -> Result<(usize, u64)> {
    let lengths: Vec<u64> =
        fs::read_dir(corpus)?.map(|file| Ok(file?.metadata()?.len())).collect::<Result<_>>()?;
    Ok((lengths.len(), lengths.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_stay_where_they_are() -> Result<()> {
        let home = tempfile::tempdir()?;
        let (corpus, finds) = (home.path().join("corpus"), home.path().join("finds"));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&finds)?;
        let find = "b250d5a191fa300c340a5e65424f1f92279031d3";
        for name in ["v4-syn", find] {
            fs::write(corpus.join(name), name)?;
        }
        assert_eq!(size(&corpus)?, (2, 46));
        return_finds(&corpus, &finds)?;
        assert_eq!(size(&corpus)?, (1, 6));
        assert_eq!(fs::read(finds.join(find))?, find.as_bytes());
        Ok(())
    }
}
