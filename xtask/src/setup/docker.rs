//! A Docker engine for the lab, unpacked and not installed: the package would start a daemon of its own, which changes the
//! machine's network. Called by `setup`.
//!
//! It is kept in the cache outside of the checkouts; `.tools/docker` of a checkout leads there, and the tests look there.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Options;
use super::apt::Apt;
use crate::process;
use crate::workspace::{Workspace, cache};

const STEP: &str = "docker";
/// What the tests run, and what that runs: below the folder.
const PROGRAMS: [&str; 6] = [
    "usr/sbin/dockerd",
    "usr/bin/docker",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/sbin/runc",
    "bin/busybox",
];
/// Where they are. Of the second list what the distribution has: newer ones keep the client by itself, and merge folders.
const PACKAGES: [&str; 4] = ["docker.io", "containerd", "runc", "busybox-static"];
const IF_ANY: [&str; 2] = ["docker-cli", "libdevmapper1.02.1"];

/// Unpacks an engine if the cache has none.
pub fn ensure(workspace: &Workspace, options: &Options, apt: &mut Apt) -> Result<()> {
    let cache = cache()?;
    let folder = cache.join("tools/docker");
    if !is_complete(&folder) {
        fs::create_dir_all(&cache).with_context(|| format!("could not make {}", cache.display()))?;
        // Two checkouts may be set up at the same time; the second then finds the first one's work.
        let lock = File::create(cache.join("lock")).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.with_context(|| format!("could not lock {}", cache.display()))?;
        if !is_complete(&folder) {
            unpack(&folder, options, apt)?;
        }
    }
    options.found(STEP, &format!("dockerd, containerd, runc, busybox: {}", folder.display()));
    link(&workspace.tools().join("docker"), &folder)
}

fn is_complete(folder: &Path) -> bool {
    PROGRAMS.iter().all(|program| folder.join(program).exists())
}

fn unpack(folder: &Path, options: &Options, apt: &mut Apt) -> Result<()> {
    let half = folder.with_extension("new");
    for old in [&half, folder] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("could not remove {}", old.display()));
            }
            _ => {}
        }
    }
    let archives = half.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("could not make {}", archives.display()))?;
    apt.download(
        &PACKAGES,
        &IF_ANY,
        &archives,
        "a Docker engine for the tests, which is not installed",
        options,
    )?;
    for entry in fs::read_dir(&archives)? {
        process::run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(&half))?;
    }
    fs::remove_dir_all(&archives)?;
    // A distribution with merged folders has these elsewhere.
    for (program, elsewhere) in [("bin/busybox", "usr/bin/busybox"), ("usr/sbin/runc", "usr/bin/runc")] {
        let (wanted, there) = (half.join(program), half.join(elsewhere));
        if !wanted.exists() && there.exists() {
            wanted.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::rename(&there, &wanted)?;
        }
    }
    for program in PROGRAMS {
        ensure!(half.join(program).exists(), "the packages {} have no {program}", PACKAGES.join(" "));
    }
    fs::rename(&half, folder).with_context(|| format!("could not make {}", folder.display()))
}

/// Makes the checkout's link lead to the folder.
pub fn link(link: &Path, folder: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|there| there == folder) {
        return Ok(());
    }
    let Some(parent) = link.parent() else { bail!("{} has no folder", link.display()) };
    fs::create_dir_all(parent).with_context(|| format!("could not make {}", parent.display()))?;
    // One of an earlier cache may lead elsewhere.
    let _ = fs::remove_file(link);
    symlink(folder, link).with_context(|| format!("could not make {}", link.display()))
}
