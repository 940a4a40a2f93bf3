//! Where everything is pinned: the layout of the folder that `--bpffs` names.
//!
//! ```text
//! <bpffs>/shared/<MAP>                 state that outlives a policy: SHARED_MAPS
//! <bpffs>/interface-<index>/COUNTERS   an interface's counters
//! <bpffs>/interface-<index>/ANSWERS    what it has answered to rejected packets
//! <bpffs>/interface-<index>/<hook>     what is attached there, named after hook and mode (see `hook`)
//! <bpffs>/unconfirmed/                 what was before a policy that waits to be confirmed (see `unconfirmed`)
//! <bpffs>/shadow/                      a candidate beside the policy in force (see `shadow`)
//! <bpffs>/staging-<pid>/<MAP>          tables of a candidate until its programs hold them
//! ```
//!
//! Interfaces go by index: a renamed one stays enforced, and names may have dots, which this file system refuses.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::{Context, DataplaneError, at};

/// Where the kernel's BPF file system usually is.
const USUAL_MOUNT: &str = "/sys/fs/bpf";
const SHARED: &str = "shared";
const INTERFACE: &str = "interface-";
const STAGING: &str = "staging-";
const UNCONFIRMED: &str = "unconfirmed";
const SHADOW: &str = "shadow";

/// Maps in `shared`.
pub const SHARED_MAPS: [&str; 14] = [
    "IDENTITY",
    "RULES",
    "FLOWS",
    "ESTABLISHED",
    "STACKED",
    "FRAGMENTS",
    "CELLS",
    "BANS",
    "BAN_PREFIXES",
    "BAN_FILTER",
    "SWITCHES",
    "EVENTS",
    "OFFENCES",
    "AYA_LOGS",
];
/// An interface's counters.
pub const COUNTERS: &str = "COUNTERS";
/// An interface's answers to rejected packets.
pub const ANSWERS: &str = "ANSWERS";
/// Maps that one instance owns, and that its interfaces have in common.
pub const TABLES: [&str; 7] = ["ROOT", "NODES", "ENTRIES", "PORTS", "DECISIONS", "BUCKETS", "LABEL"];

/// The folder of one firewall's pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Names the folder; touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Sees to it that the folder is on a BPF file system, and mounts that at its usual place if nobody has.
    ///
    /// # Errors
    /// If it is not, and can't be.
    pub fn prepare(&self) -> Result<(), DataplaneError> {
        if !is_on_bpffs(&self.root) && self.root.starts_with(USUAL_MOUNT) && !is_bpffs(Path::new(USUAL_MOUNT))
        {
            if !sees_mounts_of_init() {
                return Err(DataplaneError::PrivateMounts(self.root.clone()));
            }
            log::info!("mounting the BPF file system at {USUAL_MOUNT}");
            mount(Some("bpf"), USUAL_MOUNT, Some("bpf"), MsFlags::empty(), None::<&str>)
                .context(|| format!("mounting the BPF file system at {USUAL_MOUNT}"))?;
        }
        if !is_on_bpffs(&self.root) {
            return Err(DataplaneError::NoBpfFs(self.root.clone()));
        }
        Ok(())
    }

    /// Makes the folder of the maps that outlive a policy.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn make_shared(&self) -> Result<(), DataplaneError> {
        make(&self.shared())
    }

    /// The folder of the maps that outlive a policy.
    pub fn shared(&self) -> PathBuf {
        self.root.join(SHARED)
    }

    /// One of them.
    pub fn shared_map(&self, name: &str) -> PathBuf {
        self.shared().join(name)
    }

    /// The folder of an interface.
    pub fn interface(&self, index: u32) -> PathBuf {
        self.root.join(format!("{INTERFACE}{index}"))
    }

    /// Makes and names the folder of an interface.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn make_interface(&self, index: u32) -> Result<PathBuf, DataplaneError> {
        let folder = self.interface(index);
        make(&folder)?;
        Ok(folder)
    }

    /// Indices of the interfaces that have a folder, in order.
    pub fn interfaces(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut indices: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(INTERFACE)?.parse().ok())
            .collect();
        indices.sort_unstable();
        indices
    }

    /// What is kept while a policy waits to be confirmed: see `unconfirmed`.
    pub fn unconfirmed(&self) -> PathBuf {
        self.root.join(UNCONFIRMED)
    }

    /// The same for one interface.
    pub fn unconfirmed_interface(&self, index: u32) -> PathBuf {
        self.unconfirmed().join(format!("{INTERFACE}{index}"))
    }

    /// What is kept while a shadow runs: see `shadow`.
    pub fn shadow(&self) -> PathBuf {
        self.root.join(SHADOW)
    }

    /// The same for one interface.
    pub fn shadow_interface(&self, index: u32) -> PathBuf {
        self.shadow().join(format!("{INTERFACE}{index}"))
    }

    /// Makes a folder for the tables of a candidate. What earlier candidates have left is removed: only one apply runs
    /// at a time (see `control::lock`).
    ///
    /// # Errors
    /// If it can't be made.
    pub fn stage(&self) -> Result<Staging, DataplaneError> {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGING) {
                remove(&entry.path())?;
            }
        }
        let folder = self.root.join(format!("{STAGING}{}", std::process::id()));
        make(&folder)?;
        Ok(Staging { folder })
    }

    /// Removes the whole folder, and with it whatever only the pins kept alive.
    ///
    /// # Errors
    /// If something can't be removed.
    pub fn remove_all(&self) -> Result<(), DataplaneError> {
        remove(&self.root)
    }
}

/// The folder of a candidate's tables; dropping it unpins them, and they live on in the programs that use them.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
}

impl Staging {
    /// Where a table is pinned meanwhile.
    pub fn table(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a folder in it for the tables of another policy.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, DataplaneError> {
        let folder = self.folder.join(name);
        make(&folder)?;
        Ok(folder)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            log::warn!("{error}");
        }
    }
}

/// Removes a folder and what it holds; none is fine too.
pub(super) fn remove(folder: &Path) -> Result<(), DataplaneError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(at(folder)),
        _ => Ok(()),
    }
}

/// Removes a pin; none is fine too.
pub(super) fn unpin(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(at(path)),
        _ => Ok(()),
    }
}

pub(super) fn make(folder: &Path) -> Result<(), DataplaneError> {
    fs::create_dir_all(folder).context(at(folder))
}

/// True if what this process mounts is there for everybody: unlike under `ip netns exec`, or in a unit with private mounts.
///
/// By the ids of mounts, which a copy of a mount namespace gets anew: the namespace itself (`/proc/1/ns/mnt`) is shown only
/// to who may trace the first process, which is not every root.
fn sees_mounts_of_init() -> bool {
    let of = |process: &str| fs::read_to_string(format!("/proc/{process}/mountinfo"));
    // Not to be told is as good as no.
    matches!((of("self"), of("1")), (Ok(own), Ok(first)) if share_a_mount(&own, &first))
}

/// True if two listings of mounts (proc_pid_mountinfo(5)) have one in common. Not all: a root directory of its own hides
/// what is above it.
fn share_a_mount(one: &str, other: &str) -> bool {
    let ids = |listing: &str| -> HashSet<u64> {
        listing.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    };
    !ids(one).is_disjoint(&ids(other))
}

/// True if the path, or its nearest ancestor that exists, is on a BPF file system.
fn is_on_bpffs(path: &Path) -> bool {
    path.ancestors().find(|ancestor| ancestor.exists()).is_some_and(is_bpffs)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let pins = Pins::new(folder.path().join("pins"));
        assert!(matches!(pins.prepare(), Err(DataplaneError::NoBpfFs(_))));
        assert!(!pins.root().exists());
    }

    #[test]
    fn one_mount_in_common_is_the_same_namespace() {
        let first = "23 27 0:22 / /sys rw - sysfs sysfs rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        let under_another_root = "23 27 0:22 / /sys rw - sysfs sysfs rw\n";
        // The same mounts in a copy of the namespace, as `unshare --mount` makes one.
        let copy = "152 153 0:22 / /sys rw - sysfs sysfs rw\n153 150 254:0 / / rw - ext4 /dev/vda rw\n";
        assert!(share_a_mount(first, first) && share_a_mount(under_another_root, first));
        assert!(!share_a_mount(copy, first) && !share_a_mount("", first) && !share_a_mount("x y\n", first));
    }

    #[test]
    fn interfaces_are_found_by_their_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let pins = Pins::new(folder.path());
        for name in ["interface-12", "interface-3", "interface-x", "shared"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        assert_eq!(pins.interfaces(), [3, 12]);
        assert_eq!(pins.interface(3), folder.path().join("interface-3"));
    }

    #[test]
    fn a_staging_folder_replaces_older_ones_and_goes_away() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("staging-1")).expect("a folder");
        let staging = Pins::new(folder.path()).stage().expect("a staging folder");
        assert!(staging.table("ROOT").parent().is_some_and(Path::exists));
        assert!(!folder.path().join("staging-1").exists());
        drop(staging);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
