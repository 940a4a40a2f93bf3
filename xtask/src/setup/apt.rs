//! Installs missing packages with apt-get, where there is one and we are root; else says what to install.
//!
//! Called by `compiler`, `lab`, `cxx` and `docker` with what they miss, never with what is there.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Options;
use crate::process;

const STEP: &str = "packages";
/// The packages of a compiler with its source. Debian 12 keeps a current one under the second names, for browsers.
const COMPILERS: [[&str; 3]; 2] =
    [["rustc", "cargo", "rust-src"], ["rustc-web", "cargo-web", "rust-web-src"]];
/// Packages whose services are not wanted, on this machine or after its next start.
const SERVICES: [&str; 4] = ["fail2ban", "haproxy", "nginx", "prometheus"];
/// The first release with LLVM 22.
const OLDEST: (u32, u32) = (1, 95);

/// apt-get in this run.
#[derive(Debug, Default)]
pub struct Apt {
    /// The lists are fetched once, and only if something is to be installed.
    updated: bool,
}

impl Apt {
    /// Installs the distribution's compiler with its source, if it has one that is new enough.
    pub fn install_compiler(&mut self, options: &Options) -> Result<()> {
        self.require("a compiler")?;
        self.update(options)?;
        let mut policy = Command::new("apt-cache");
        policy.arg("policy").args(COMPILERS.as_flattened()).env("LC_ALL", "C");
        let Some(packages) = pick(&process::output(&mut policy)?) else {
            bail!("this distribution has no rustc {}.{} or newer", OLDEST.0, OLDEST.1);
        };
        self.install(&packages.map(str::to_owned), "to build the kernel programs", options)
    }

    /// Installs packages, with a reason for the user to read.
    pub fn install(&mut self, packages: &[String], why: &str, options: &Options) -> Result<()> {
        let list = packages.join(" ");
        self.require(&list)?;
        self.update(options)?;
        options.doing(STEP, &format!("apt-get install {list}: {why}"));
        let _cluster =
            packages.iter().any(|package| package == "postgresql").then(NoCluster::declare).transpose()?;
        let no_service = NoService::declare()?;
        let mut install = apt_get();
        // --no-remove: a package that conflicts with one of the user's is an error, not a replacement.
        install.args(["install", "-y", "--no-install-recommends", "--no-remove"]).args(packages);
        let installed = process::succeeds(&mut install)?;
        ensure!(installed, "apt-get could not install {list}; its reasons are above");
        drop(no_service);
        packages
            .iter()
            .filter(|package| SERVICES.contains(&package.as_str()))
            .for_each(|service| off(service));
        Ok(())
    }

    /// Fetches archives of packages into a folder and installs nothing: of `packages` all, of `if_any` what there is.
    pub fn download(
        &mut self,
        packages: &[&str],
        if_any: &[&str],
        folder: &Path,
        why: &str,
        options: &Options,
    ) -> Result<()> {
        self.require(&packages.join(" "))?;
        self.update(options)?;
        let mut policy = Command::new("apt-cache");
        let policy = process::output(policy.arg("policy").args(if_any).env("LC_ALL", "C"))?;
        let has = |package: &str| candidate(&policy, package).is_some_and(|version| version != "(none)");
        let there = if_any.iter().filter(|package| has(package));
        let list: Vec<_> = packages.iter().chain(there).copied().collect();
        options.doing(STEP, &format!("apt-get download {}: {why}", list.join(" ")));
        let downloaded = process::succeeds(apt_get().arg("download").args(&list).current_dir(folder))?;
        ensure!(downloaded, "apt-get could not download {}; its reasons are above", list.join(" "));
        Ok(())
    }

    fn require(&self, what: &str) -> Result<()> {
        let found = process::which("apt-get").is_some();
        ensure!(
            found,
            "missing: {what}; this system has no apt-get: install that with its own package manager"
        );
        ensure!(
            process::is_root(),
            "missing: {what}; run `cargo xtask setup` as root, or install that yourself"
        );
        Ok(())
    }

    fn update(&mut self, options: &Options) -> Result<()> {
        if !self.updated {
            options.doing(STEP, "apt-get update: old package lists name files that are gone");
            // One unreachable third-party source must not stop the rest; a missing package shows in the install.
            if !process::succeeds(apt_get().arg("update"))? {
                options.doing(STEP, "apt-get update had errors; going on with the lists that there are");
            }
            self.updated = true;
        }
        Ok(())
    }
}

/// An apt-get that asks nothing and keeps our standard output clean.
fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .env_remove("LD_LIBRARY_PATH")
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr());
    apt
}

/// Keeps a service that was installed for its programs alone from starting with the machine.
fn off(service: &str) {
    let disabled =
        process::succeeds(Command::new("update-rc.d").args([service, "disable"]).stdout(std::io::stderr()));
    if !disabled.unwrap_or(false) {
        eprintln!("{STEP:>12}  {service} could not be disabled: it may start with the machine");
    }
}

/// The first set of packages whose compiler is new enough, by the output of `apt-cache policy`.
fn pick(policy: &str) -> Option<[&'static str; 3]> {
    COMPILERS.into_iter().find(|set| {
        set.iter().all(|package| {
            candidate(policy, package).and_then(upstream).is_some_and(|version| version >= OLDEST)
        })
    })
}

/// The version of a package that would be installed.
fn candidate<'a>(policy: &'a str, package: &str) -> Option<&'a str> {
    policy
        .lines()
        .skip_while(|line| line.strip_suffix(':') != Some(package))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
}

/// Major and minor of a Debian version such as `1.96.0+dfsg1-1~deb12u2` or `1:1.96ubuntu1`.
fn upstream(version: &str) -> Option<(u32, u32)> {
    let version = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Keeps Debian's postgresql package from making and starting a database server of its own on this machine, for as
/// long as this lives: the lab only needs the programs.
struct NoCluster {
    file: PathBuf,
}

impl NoCluster {
    fn declare() -> Result<Self> {
        let folder = Path::new("/etc/postgresql-common/createcluster.d");
        let file = folder.join("zz-tollgate-setup.conf");
        fs::create_dir_all(folder)
            .and_then(|()| {
                fs::write(
                    &file,
                    "# Temporary, while `cargo xtask setup` runs.\ncreate_main_cluster = false\n",
                )
            })
            .with_context(|| format!("could not write {}", file.display()))?;
        Ok(Self { file })
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        // Left behind it would only keep the next PostgreSQL from starting by itself; nothing to fail for.
        let _ = fs::remove_file(&self.file);
    }
}

/// Keeps packages from starting their services on this machine, for as long as this lives: the lab runs its own. By the file
/// that Debian's packages ask (`invoke-rc.d`); one that is there is somebody's and stays.
struct NoService {
    file: Option<PathBuf>,
}

impl NoService {
    fn declare() -> Result<Self> {
        let file = PathBuf::from("/usr/sbin/policy-rc.d");
        let mut options = fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o755).open(&file) {
            Ok(mut policy) => {
                policy
                    .write_all(b"#!/bin/sh\n# Temporary, while `cargo xtask setup` runs: starts no service.\nexit 101\n")
                    .with_context(|| format!("could not write {}", file.display()))?;
                Ok(Self { file: Some(file) })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { file: None }),
            Err(error) => Err(error).with_context(|| format!("could not write {}", file.display())),
        }
    }
}

impl Drop for NoService {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = fs::remove_file(file)
        {
            eprintln!(
                "{STEP:>12}  remove {} by hand ({error}): no service starts while it is there",
                file.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN_12: &str = "rustc:\n  Installed: (none)\n  Candidate: 1.63.0+dfsg1-2\n  Version table:\n     1.63.0+dfsg1-2 500\n\
        cargo:\n  Installed: (none)\n  Candidate: 0.66.0+ds1-1\nrust-src:\n  Installed: (none)\n  Candidate: 1.63.0+dfsg1-2\n\
        rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n\
        cargo-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n\
        rust-web-src:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";

    #[test]
    fn takes_the_current_compiler_of_debian_12() {
        assert_eq!(pick(DEBIAN_12), Some(["rustc-web", "cargo-web", "rust-web-src"]));
    }

    #[test]
    fn takes_the_ordinary_compiler_where_it_is_new_enough() {
        let policy = "rustc:\n  Candidate: 1.97.0ubuntu1\ncargo:\n  Candidate: 1.97.0ubuntu1\nrust-src:\n  Candidate: 1.97.0ubuntu1\n";
        assert_eq!(pick(policy), Some(["rustc", "cargo", "rust-src"]));
    }

    #[test]
    fn takes_nothing_where_all_are_too_old_or_absent() {
        assert_eq!(pick(&DEBIAN_12.replace("1.96.0", "1.85.0")), None);
        assert_eq!(pick("rustc:\n  Candidate: (none)\n"), None);
        assert_eq!(pick(""), None);
    }

    #[test]
    fn reads_debian_versions() {
        assert_eq!(upstream("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(upstream("1:2.4ubuntu1"), Some((2, 4)));
        assert_eq!(upstream("(none)"), None);
    }
}
