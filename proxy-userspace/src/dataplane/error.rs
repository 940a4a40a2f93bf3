//! What can go wrong between a checked policy and the kernel. Made by the other files of this module, shown by the
//! commands and the daemon.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::policy::compile::CompileError;

/// An apply, a look or a detach that did not work out. Nothing was changed, unless the message says so.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The policy names interfaces that this host does not have.
    #[error(
        "{policy}: no interface {}: this host has {}; write one of them, or wait until it appears",
        quoted(.missing), quoted(.present), policy = .policy.display()
    )]
    NoSuchInterface {
        /// The policy file.
        policy: PathBuf,
        /// Names in the policy without an interface.
        missing: Vec<String>,
        /// Interfaces there are.
        present: Vec<String>,
    },
    /// The policy names an interface whose frames the programs can't read.
    #[error(
        "{policy}: the interface {interface} has no Ethernet header (a tunnel: tun, WireGuard, …), and such interfaces can't \
         be enforced yet; name the interface below it",
        policy = .policy.display()
    )]
    NoEthernet {
        /// The policy file.
        policy: PathBuf,
        /// The interface.
        interface: String,
    },
    /// The policy can't be turned into tables.
    #[error("{policy}: {source}", policy = .policy.display())]
    Compile {
        /// The policy file.
        policy: PathBuf,
        /// Why.
        source: CompileError,
    },
    /// Tests of the policy failed on the candidate.
    #[error("{count} of the policy's own tests failed, so it was not applied:\n{report}", count = .failed.len(), report = .failed.join("\n"))]
    TestsFailed {
        /// A sentence each.
        failed: Vec<String>,
    },
    /// The folder for the pins is not on a BPF file system.
    #[error("{path} is not on a BPF file system, which keeps the filter alive; mount one: mount -t bpf bpf /sys/fs/bpf", path = .0.display())]
    NoBpfFs(PathBuf),
    /// This process has a view of the file systems of its own, and no BPF file system in it.
    #[error(
        "{path} has no BPF file system in this process's own mount namespace, and one mounted here would vanish with it, \
         and the filter too; mount it outside first, and use `nsenter --net=…` instead of `ip netns exec`",
        path = .0.display()
    )]
    PrivateMounts(PathBuf),
    /// Pinned objects of somebody else, or of another version.
    #[error("{path} holds {what}; nothing was touched. Name another folder with --bpffs, or remove what is there: {remedy}", path = .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        what: String,
        /// How to get rid of it.
        remedy: String,
    },
    /// The hook that the policy asks for can't be had.
    #[error("interface {interface}: {why}")]
    Hook {
        /// Which.
        interface: String,
        /// Why, and what to write instead.
        why: String,
    },
    /// A policy waits to be confirmed, and another one can't come before that.
    #[error("a policy waits to be confirmed, for {left} s yet: `tollgate confirm` or `tollgate rollback` first", left = .0.as_secs())]
    Waits(Duration),
    /// Somebody else changes the firewall.
    #[error("somebody else is changing the firewall: {0}")]
    Busy(String),
    /// A candidate can't run in the shadow of what is enforced.
    #[error("no shadow run: {0}")]
    NoShadow(String),
    /// There is nothing to be confirmed or taken back.
    #[error("{0}")]
    NothingWaits(&'static str),
    /// A table of bans is full.
    #[error(
        "there is room for {most} bans of {of} alone: remove some (`tollgate unban`), or ban wider prefixes in their place"
    )]
    NoRoom {
        /// Of what.
        of: &'static str,
        /// How many.
        most: u32,
    },
    /// A system call failed.
    #[error("{what}: {source}{}", causes(.source.as_ref()))]
    Kernel {
        /// What was attempted.
        what: String,
        /// What the kernel or the library said.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl DataplaneError {
    /// True if the policy or an argument is wrong, not the machine: exit code 2.
    pub const fn is_input(&self) -> bool {
        matches!(self, Self::NoSuchInterface { .. } | Self::NoEthernet { .. } | Self::Compile { .. })
    }
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The causes of an error that its own text does not repeat, each cut to something that fits a terminal: the verifier's
/// log has thousands of lines, of which the last ones say why.
fn causes(error: &(dyn StdError + 'static)) -> String {
    const LINES: usize = 12;

    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        let lines: Vec<_> = said.lines().collect();
        let skipped = lines.len().saturating_sub(LINES);
        text.push_str(": ");
        if skipped > 0 {
            text.push_str(&format!("({skipped} lines before) "));
        }
        text.push_str(&lines[skipped..].join("\n"));
        next = cause.source();
    }
    text
}

/// Says what was attempted when something failed.
pub(super) trait Context<T> {
    /// `what` completes "…: permission denied".
    fn context<S: fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T, DataplaneError>;
}

impl<T, E: StdError + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn context<S: fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T, DataplaneError> {
        self.map_err(|error| DataplaneError::Kernel { what: what().to_string(), source: Box::new(error) })
    }
}

/// An error for something that should be there and is not.
pub(super) fn missing(what: impl fmt::Display) -> DataplaneError {
    DataplaneError::Kernel {
        what: what.to_string(),
        source: Box::new(io::Error::from(io::ErrorKind::NotFound)),
    }
}

/// An error of a file.
pub(super) fn at(path: &Path) -> impl FnOnce() -> String + '_ {
    move || path.display().to_string()
}
