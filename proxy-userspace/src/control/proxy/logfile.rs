//! The access log's file: opened by the daemon, written by the worker, moved away by whoever rotates logs.
//!
//! Called by [`super::Proxy`], each second too: a file that was renamed or removed is made anew, so nobody has to send a signal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Its mode, where it is made: addresses of clients are nobody else's business.
const MODE: u32 = 0o640;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    id: (u64, u64),
}

impl LogFile {
    /// Opens it for appending, and makes it if there is none; its folder must be there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Not through a link that somebody put there, and without waiting for the reader of a pipe.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self { path: path.to_owned(), file, id: (meta.dev(), meta.ino()) })
    }

    /// True if it is still what stands at that path.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        self.path == path && fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id)
    }
}

impl AsRawFd for LogFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_moved_away_is_no_longer_current() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log = LogFile::open(&path).expect("opened");
        assert!(log.is_current(&path) && !log.is_current(&folder.path().join("other")));
        assert_eq!(fs::metadata(&path).expect("made").mode() & 0o777 & !0o640, 0);
        fs::rename(&path, folder.path().join("access.log.1")).expect("moved");
        assert!(!log.is_current(&path));
        assert!(LogFile::open(&path).expect("made anew").is_current(&path));
        std::os::unix::fs::symlink(&path, folder.path().join("link")).expect("a link");
        assert!(LogFile::open(&folder.path().join("link")).is_err());
    }
}
