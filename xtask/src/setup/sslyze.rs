//! sslyze for the lab, a scanner of TLS: no distribution has it, so it comes from Python's registry into an environment of its own.
//! Called by `setup`.
//!
//! It is kept in the cache outside of the checkouts; `.tools/sslyze` of a checkout leads there, and the tests look there.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Options;
use super::apt::Apt;
use super::docker::link;
use crate::process;
use crate::workspace::{Workspace, cache};

const VERSION: &str = "6.3.1";
const STEP: &str = "sslyze";
/// The system's, whichever comes first on `PATH`: an environment is bound to the Python that made it.
const PYTHON: &str = "/usr/bin/python3";

/// Installs it if the cache has none.
pub fn ensure(workspace: &Workspace, options: &Options, apt: &mut Apt) -> Result<()> {
    let cache = cache()?;
    let folder = cache.join(format!("tools/sslyze-{VERSION}"));
    if !is_complete(&folder) {
        fs::create_dir_all(&cache).with_context(|| format!("could not make {}", cache.display()))?;
        // Two checkouts may be set up at the same time; the second then finds the first one's work.
        let lock = File::create(cache.join("lock")).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.with_context(|| format!("could not lock {}", cache.display()))?;
        if !is_complete(&folder) {
            install(&folder, options, apt)?;
        }
    }
    options.found(STEP, &format!("sslyze {VERSION}: {}", folder.display()));
    link(&workspace.tools().join("sslyze"), &folder)
}

/// What it is made of is asked for too: an installation that was cut off, or whose Python is gone, does not answer.
fn is_complete(folder: &Path) -> bool {
    let asks = "import cryptography, nassl, pydantic, tls_parser; from importlib.metadata import version; print(version('sslyze'))";
    let says = process::output(Command::new(folder.join("bin/python")).args(["-c", asks]));
    says.is_ok_and(|text| text.trim() == VERSION) && folder.join("bin/sslyze").is_file()
}

fn install(folder: &Path, options: &Options, apt: &mut Apt) -> Result<()> {
    if process::output(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])).is_err() {
        apt.install(&["python3-venv".to_owned()], "for sslyze, which scans TLS in the tests", options)?;
    }
    options.doing(
        STEP,
        &format!("installing sslyze {VERSION} into {}: it scans TLS in the tests", folder.display()),
    );
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not remove {}", folder.display()));
        }
        _ => {}
    }
    process::run(Command::new(PYTHON).args(["-m", "venv"]).arg(folder))?;
    let package = format!("sslyze=={VERSION}");
    process::run(Command::new(folder.join("bin/python")).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &package,
    ]))?;
    ensure!(
        is_complete(folder),
        "sslyze {VERSION} was installed into {}, but does not run",
        folder.display()
    );
    Ok(())
}
