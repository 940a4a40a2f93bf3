//! Tells at once when certificates may have changed, by inotify. Used by [`super::Proxy`], which looks at the files then.
//!
//! Folders are watched, not files: certificates are replaced by renaming, and by swapping symbolic links, of which there may be some on
//! the way. What inotify does not see, such as network file systems, is looked at every few seconds all the same.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whoever writes a certificate writes its key next: so long is waited.
const QUIET: Duration = Duration::from_millis(100);
/// Most links on the way to a file (`ELOOP`).
const MOST_LINKS: u32 = 40;
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// What inotify says of the folders of some files.
#[derive(Debug)]
pub(super) struct Notices {
    /// `None`: there is none to be had.
    inotify: Option<AsyncFd<Descriptor>>,
    watched: Mutex<Vec<WatchDescriptor>>,
    /// Something happened that nobody has looked at.
    moved: AtomicBool,
}

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Notices {
    /// Watches nothing yet. To be called inside a tokio runtime.
    pub(super) fn new() -> Self {
        let begun = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let begun = begun.map_err(std::io::Error::from).and_then(|one| {
            // SAFETY: inotify owns its descriptor and neither replaces nor closes it while it is watched.
            Ok(unsafe { AsyncFd::register_with_interest(Descriptor(one), Interest::READABLE) }?)
        });
        let inotify = begun
            .inspect_err(|error| {
                log::warn!("certificates are looked at every few seconds alone: inotify: {error}")
            })
            .ok();
        Self { inotify, watched: Mutex::default(), moved: AtomicBool::new(false) }
    }

    /// Watches the folders on the way to these files, and no others. A folder that another stands in the place of is watched anew.
    pub(super) fn follow<'a>(&self, files: impl Iterator<Item = &'a Path>) {
        let Some(inotify) = self.inotify.as_ref().map(|fd| &fd.get_ref().0) else { return };
        let folders: BTreeSet<PathBuf> = files.flat_map(folders).collect();
        let mut fresh: Vec<WatchDescriptor> = Vec::with_capacity(folders.len());
        for folder in folders {
            match inotify.add_watch(&folder, EVENTS) {
                Ok(one) => fresh.push(one),
                Err(error) => log::debug!("{}: inotify: {error}", folder.display()),
            }
        }
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in watched.iter().filter(|one| !fresh.contains(one)) {
            // A folder that was removed took its watch along.
            let _ = inotify.rm_watch(*gone);
        }
        *watched = fresh;
    }

    /// Ends when something has happened, a moment later. What happens is not forgotten if this is dropped before.
    pub(super) async fn noticed(&self) {
        let Some(fd) = &self.inotify else { return std::future::pending().await };
        while !self.moved.load(Ordering::Relaxed) {
            let Ok(mut ready) = fd.readable().await else { return std::future::pending().await };
            match fd.get_ref().0.read_events() {
                Ok(_) => self.moved.store(true, Ordering::Relaxed),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    log::warn!("inotify: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        tokio::time::sleep(QUIET).await;
    }

    /// Whether anything has happened since this was asked.
    pub(super) fn take(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }
}

/// The folders in which a change can make another file of what a whole path names: where it stands, and where each link on the way
/// there stands.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut folders, mut links) = (BTreeSet::new(), 0);
    let (mut at, mut left) = (PathBuf::new(), parts(path));
    while let Some(part) = left.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::RootDir) => at = PathBuf::from("/"),
            _ => {}
        }
        let next = at.join(&part);
        match fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                folders.insert(at.clone());
                left.extend(parts(&target));
            }
            _ if left.is_empty() => {
                folders.insert(at.clone());
            }
            _ => at = next,
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("its path");
        (folder, path)
    }

    #[test]
    fn the_folders_of_all_links_on_the_way_are_known() {
        let (_kept, root) = folder();
        for name in ["archive/a", "live/a", "deep/2026"] {
            fs::create_dir_all(root.join(name)).expect("a folder");
        }
        fs::write(root.join("archive/a/chain1.pem"), "").expect("a file");
        symlink("../../archive/a/chain1.pem", root.join("live/a/chain.pem")).expect("a link");
        symlink("2026", root.join("deep/..data")).expect("a link");
        symlink("../../live/a/chain.pem", root.join("deep/2026/chain.pem")).expect("a link");
        symlink(root.join("loop"), root.join("loop")).expect("a link");
        let found = |path: &str| {
            let found = folders(&root.join(path));
            let short = found.iter().map(|one| one.strip_prefix(&root).map(Path::to_owned));
            short.collect::<Result<Vec<_>, _>>().expect("all are below")
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(found("archive/a/chain1.pem"), paths(&["archive/a"]));
        assert_eq!(found("live/a/chain.pem"), paths(&["archive/a", "live/a"]));
        assert_eq!(found("deep/..data/chain.pem"), paths(&["archive/a", "deep", "deep/2026", "live/a"]));
        assert_eq!(found("none/chain.pem"), paths(&["none"]));
        assert_eq!(found("loop"), paths(&[""]));
    }

    /// Whether something is noticed within a time that is long; or nothing within one that is short.
    async fn noticed(notices: &Notices, expected: bool) {
        let patience = if expected { Duration::from_secs(20) } else { 3 * QUIET };
        let ended = tokio::time::timeout(patience, notices.noticed()).await.is_ok();
        assert_eq!((ended, notices.take()), (expected, expected));
    }

    #[tokio::test]
    async fn files_that_are_written_renamed_and_linked_anew_are_noticed() {
        let (_kept, root) = folder();
        let (one, two) = (root.join("one"), root.join("two"));
        for folder in [&one, &two] {
            fs::create_dir(folder).expect("a folder");
            fs::write(folder.join("chain.pem"), "").expect("a file");
        }
        symlink("one", root.join("current")).expect("a link");
        let path = root.join("current/chain.pem");
        let notices = Notices::new();
        notices.follow([path.as_path()].into_iter());
        noticed(&notices, false).await;
        fs::write(one.join("chain.pem"), "x").expect("written");
        noticed(&notices, true).await;
        fs::write(one.join("new"), "x").expect("written");
        fs::rename(one.join("new"), one.join("chain.pem")).expect("renamed");
        noticed(&notices, true).await;
        noticed(&notices, false).await;
        // The link is swapped: what happens in the other folder is noticed from now on, and nothing of the one before.
        symlink("two", root.join("next")).expect("a link");
        fs::rename(root.join("next"), root.join("current")).expect("renamed");
        noticed(&notices, true).await;
        notices.follow([path.as_path()].into_iter());
        fs::remove_file(one.join("chain.pem")).expect("removed");
        let _ = notices.inotify.as_ref().map(|fd| fd.get_ref().0.read_events());
        noticed(&notices, false).await;
        fs::write(two.join("chain.pem"), "y").expect("written");
        noticed(&notices, true).await;
    }
}
