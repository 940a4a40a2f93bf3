//! Runs other programs and makes their failure a sentence. Called by every task.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

/// Runs a program on our terminal; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start `{}`", line(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

/// Runs a program on our terminal and says whether it succeeded. Only a failure to start it is an error.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("could not start `{}`", line(command)))?;
    Ok(status.success())
}

/// What a program printed; its complaints are part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status}): {}", line(command), String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The program as someone would type it.
pub fn line(command: &Command) -> String {
    let program = command.get_program();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Where a program would be found. Also looks where administrators' tools live: an ordinary user's `PATH` often
/// lacks those folders, and a tool that is there must not be installed again.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(administrators).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether we have the administrator's rights.
pub fn is_root() -> bool {
    // The entry of a process in /proc belongs to its effective user.
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// Refuses to go on without root, in one sentence.
pub fn require_root(task: &str) -> Result<()> {
    ensure!(
        is_root(),
        "`cargo xtask {task}` makes network namespaces and loads programs into the kernel, which only root may do: \
         run it with `sudo -E env \"PATH=$PATH\" cargo xtask {task}`"
    );
    Ok(())
}
