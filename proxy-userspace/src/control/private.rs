//! Files for their owner alone. Called for locks and for what is kept in the state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Their mode, whatever the umask says.
pub(super) const MODE: u32 = 0o600;

/// Opens a file to be written and makes it if there is none; what is in it stays.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(path)
}

/// Writes a file, to the disk.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()
}
