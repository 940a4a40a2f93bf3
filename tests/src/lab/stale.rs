//! Takes labs away: at the end of one, and at the start of the next what a killed run has left behind.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every name of a lab begins with it; the owner's pid follows.
pub(super) const PREFIX: &str = "tg";
/// Where pins of test runs lie.
const BPFFS: &str = "/sys/fs/bpf";

/// The pid in a name like `tg123x4-srv`; `None` if the name is not of this form.
pub fn owner(name: &str, prefix: &str) -> Option<i32> {
    let rest = name.strip_prefix(prefix)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    if !rest[digits..].starts_with(['x', '-']) {
        return None;
    }
    rest[..digits].parse().ok()
}

/// True if a process of this pid runs; one that ended and waits for its parent does not.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which stands in brackets and may contain any character.
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// Removes what runs that are no more have left. Best effort: a leftover costs memory, not correctness.
pub(super) fn sweep() {
    let dead = |name: &str, prefix: &str| owner(name, prefix).is_some_and(|pid| !is_alive(pid));
    let namespaces: Vec<_> = names("/run/netns").filter(|name| dead(name, PREFIX)).collect();
    if !namespaces.is_empty() {
        remove(&namespaces);
    }
    for name in names(BPFFS).filter(|name| dead(name, crate::tollgate::PINS_PREFIX)) {
        let _ = fs::remove_dir_all(Path::new(BPFFS).join(name));
    }
    let temporary = std::env::temp_dir();
    for name in names(&temporary).filter(|name| dead(name, crate::services::TEMP_PREFIX)) {
        let _ = fs::remove_dir_all(temporary.join(name));
    }
}

/// Ends the processes in these namespaces and deletes the namespaces.
pub(super) fn remove(namespaces: &[String]) {
    let inodes: HashSet<u64> = namespaces
        .iter()
        .filter_map(|name| Some(fs::metadata(Path::new("/run/netns").join(name)).ok()?.ino()))
        .collect();
    for _ in 0..20 {
        let inside = processes_in(&inodes);
        if inside.is_empty() {
            break;
        }
        for pid in inside {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for name in namespaces {
        // One call each: a batch would stop at the first that is already gone.
        let _ = super::ip_batch(None, &format!("netns del {name}\n"));
    }
}

/// Processes whose network namespace is one of these; never this process.
fn processes_in(inodes: &HashSet<u64>) -> Vec<i32> {
    let myself = std::process::id().to_string();
    names("/proc")
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && *name != myself)
        .filter(|name| {
            fs::metadata(format!("/proc/{name}/ns/net")).is_ok_and(|meta| inodes.contains(&meta.ino()))
        })
        // A process that ended and waits for its parent is no longer in any namespace.
        .filter_map(|name| name.parse().ok())
        .collect()
}

fn names(directory: impl AsRef<Path>) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_not_alive() -> std::io::Result<()> {
        let mut child = std::process::Command::new("true").spawn()?;
        let pid = child.id() as i32;
        std::thread::sleep(Duration::from_millis(200));
        assert!(!is_alive(pid), "a zombie");
        child.wait()?;
        assert!(!is_alive(pid));
        assert!(is_alive(std::process::id() as i32));
        Ok(())
    }

    #[test]
    fn names_tell_their_owner() {
        assert_eq!(owner("tg123x4-srv", "tg"), Some(123));
        assert_eq!(owner("tg-test-77-0", "tg-test-"), Some(77));
        assert_eq!(owner("tg-test-77-0", "tg"), None);
        assert_eq!(owner("tgif", "tg"), None);
        assert_eq!(owner("tg12", "tg"), None);
        assert_eq!(owner("docker", "tg"), None);
    }
}
