//! Looks for the two programs of LLVM that read what the compiler has counted. Called for `setup` and `fuzz --coverage`.
//!
//! They must be of the compiler's LLVM: the format of what they read changes between versions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use super::Options;
use super::apt::Apt;
use super::rustc::Version;
use crate::process;

const STEP: &str = "coverage";

/// The programs.
#[derive(Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Puts profiles together.
    pub profdata: PathBuf,
    /// Says what they mean.
    pub cov: PathBuf,
}

/// Installs LLVM's programs if they are not there.
pub fn ensure(options: &Options, apt: &mut Apt) -> Result<Coverage> {
    let rustc = || Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let libraries = PathBuf::from(process::output(rustc().args(["--print", "target-libdir"]))?.trim());
    ensure!(
        has_runtime(&libraries),
        "this compiler has no runtime that counts (profiler_builtins): use one of rustup's"
    );
    let version = Version::parse(&process::output(rustc().arg("-vV"))?)?;
    let major = version.llvm_major().with_context(|| format!("{version} names no LLVM version"))?;
    let find = || {
        let beside = libraries.parent().map(|folder| folder.join("bin"));
        let program = |variable, name| {
            program(env::var_os(variable).map(PathBuf::from), beside.as_deref(), name, major)
        };
        Some(Coverage {
            profdata: program("LLVM_PROFDATA", "llvm-profdata")?,
            cov: program("LLVM_COV", "llvm-cov")?,
        })
    };
    let found = match find() {
        Some(found) => found,
        None => {
            let package = format!("llvm-{major}");
            options.doing(STEP, &format!("llvm-cov and llvm-profdata of LLVM {major} are missing"));
            apt.install(
                std::slice::from_ref(&package),
                "to count what the corpora of the fuzz targets reach",
                options,
            )?;
            find().with_context(|| format!("installed {package}, but there is still no llvm-cov-{major}"))?
        }
    };
    options.found(STEP, &format!("{}: for `cargo xtask fuzz --coverage`", found.cov.display()));
    Ok(found)
}

/// A program of LLVM: the one that is named, else the one of rustup's component `llvm-tools`, which lies beside the
/// libraries, else the distribution's, which has the version in its name.
fn program(named: Option<PathBuf>, beside: Option<&Path>, name: &str, major: u32) -> Option<PathBuf> {
    let component = || beside.map(|folder| folder.join(name)).filter(|file| file.is_file());
    named.or_else(component).or_else(|| process::which(&format!("{name}-{major}")))
}

/// Distributions leave it out.
fn has_runtime(libraries: &Path) -> bool {
    let files = fs::read_dir(libraries).into_iter().flatten().flatten();
    files.map(|file| file.file_name()).any(|name| name.to_string_lossy().starts_with("libprofiler_builtins-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_what_is_named_then_what_is_beside_the_compiler() -> Result<()> {
        let home = tempfile::tempdir()?;
        let beside = Some(home.path());
        assert_eq!(program(Some("/x/cov".into()), beside, "llvm-cov", 1), Some("/x/cov".into()));
        // No distribution has version 1 under this name.
        assert_eq!(program(None, beside, "llvm-cov", 1), None);
        fs::write(home.path().join("llvm-cov"), "")?;
        assert_eq!(program(None, beside, "llvm-cov", 1), Some(home.path().join("llvm-cov")));
        Ok(())
    }

    #[test]
    fn knows_a_compiler_without_the_runtime() -> Result<()> {
        let home = tempfile::tempdir()?;
        assert!(!has_runtime(home.path()) && !has_runtime(&home.path().join("missing")));
        fs::write(home.path().join("libprofiler_builtins-a3355e49a89815f3.rlib"), "")?;
        assert!(has_runtime(home.path()));
        Ok(())
    }
}
