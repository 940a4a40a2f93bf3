//! Who may do what at a time: one daemon for a run directory, one change of the kernel's state for it.
//!
//! Locks are `flock`s, which the kernel lets go of when their holder dies. Whoever may open a file may hold its lock: they are
//! for their owner alone, whatever the umask says and wherever the run directory is. Called by the daemon and by every command
//! that changes something or asks for events.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::private;

/// Held by the daemon as long as it lives.
const DAEMON: &str = "daemon.lock";
/// Held during an apply or a detach.
const CHANGE: &str = "change.lock";
/// Held by who reads the events of dropped packets; it holds the pid and command of its holder.
const EVENTS: &str = "events.lock";
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Becomes the daemon of a run directory, which is made if it does not exist.
///
/// # Errors
/// `WouldBlock` if there is one.
pub fn daemon(run_dir: &Path) -> io::Result<Lock> {
    lock(run_dir, DAEMON)
}

/// True if a daemon runs for this run directory.
pub fn daemon_runs(run_dir: &Path) -> bool {
    // Looking must not make what it looks for.
    let Ok(file) = File::open(run_dir.join(DAEMON)) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::Error::EWOULDBLOCK)))
}

/// Becomes the one reader of the events of dropped packets.
///
/// # Errors
/// `WouldBlock` if there is one, with who it is.
pub fn events(run_dir: &Path, command: &str) -> io::Result<Lock> {
    let path = run_dir.join(EVENTS);
    let lock = lock(run_dir, EVENTS).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            io::Error::new(error.kind(), holder.trim().to_owned())
        }
        _ => error,
    })?;
    fs::write(&path, format!("{command}, pid {}\n", std::process::id()))?;
    Ok(lock)
}

/// Waits for the right to change what is in the kernel.
///
/// # Errors
/// `WouldBlock` if somebody else's change takes longer than 30 seconds.
pub fn change(run_dir: &Path) -> io::Result<Lock> {
    let end = Instant::now() + PATIENCE;
    loop {
        match lock(run_dir, CHANGE) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

fn lock(run_dir: &Path, name: &str) -> io::Result<Lock> {
    // The socket in it commands the firewall: for its owner alone.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    let path = run_dir.join(name);
    let file = private::open(&path)?;
    // One that an earlier version has made may still be open to others: who can read it can hold it, and nothing would change
    // any more.
    if file.metadata()?.permissions().mode() & 0o777 != private::MODE {
        file.set_permissions(fs::Permissions::from_mode(private::MODE))?;
    }
    let file =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_reader_of_events_is_told_of_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = events(folder.path(), "tollgate top, long ago").expect("the first reader");
        drop(first);
        let first = events(folder.path(), "tollgate monitor").expect("a reader after that");
        let refused = events(folder.path(), "tollgate top").expect_err("a second reader");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(refused.to_string(), format!("tollgate monitor, pid {}", std::process::id()));
        drop(first);
    }

    #[test]
    fn nobody_else_can_open_a_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        // As a version before this one left it.
        let old = folder.path().join(CHANGE);
        fs::write(&old, "").expect("a file");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o666)).expect("open to all");
        let locks = [daemon(folder.path()), change(folder.path()), events(folder.path(), "tollgate top")];
        assert!(locks.iter().all(Result::is_ok), "{locks:?}");
        for name in [DAEMON, CHANGE, EVENTS] {
            let mode = fs::metadata(folder.path().join(name)).expect(name).permissions().mode();
            assert_eq!(mode & 0o777, private::MODE, "{name}: {mode:o}");
        }
    }

    #[test]
    fn there_is_one_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let run_dir = folder.path().join("run");
        assert!(!daemon_runs(&run_dir));
        let first = daemon(&run_dir).expect("the first daemon");
        assert!(daemon_runs(&run_dir));
        assert_eq!(daemon(&run_dir).map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        drop(first);
        assert!(!daemon_runs(&run_dir));
        daemon(&run_dir).expect("a daemon after the first");
    }
}
