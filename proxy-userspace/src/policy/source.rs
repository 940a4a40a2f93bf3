//! Reading files that may be anything: only regular ones, never more than they are allowed to have.
//!
//! Called by [`super::load`] for the policy by [`super::listfile`] for block lists, and by
//! [`super::validate`] for bodies of answers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Why a file can't be read: what is wrong and what to do.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) message: String,
    pub(super) help: String,
}

fn existing(what: &str) -> &'static str {
    if what == "policy" {
        "write the path of an existing file"
    } else {
        "write the path of an existing file; a relative one starts at the policy's folder"
    }
}

impl Unreadable {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// An error of the operating system.
    pub(super) fn from_io(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::new(format!("there is no such {what}"), existing(what)),
            io::ErrorKind::PermissionDenied => Self::new(
                format!("this {what} may not be read"),
                "make it readable for this user, or run as root",
            ),
            io::ErrorKind::NotADirectory => Self::new(
                format!("there is no such {what}: a part of its path is not a directory"),
                existing(what),
            ),
            _ if error.raw_os_error() == Some(libc::ELOOP) => {
                Self::new(format!("the path of this {what} is a loop of symbolic links"), existing(what))
            }
            _ => {
                Self::new(format!("this {what} can't be read: {error}"), "write the path of a readable file")
            }
        }
    }

    /// A file with more than `most` bytes.
    pub(super) fn too_long(what: &str, most: u64) -> Self {
        let help = if what == "policy" {
            "put long lists of addresses into files of their own: `zone = { file = \"list.txt\" }`"
        } else if what == "body" {
            "write a shorter one; files that are longer need an upstream that serves them"
        } else {
            "split it into several lists, each its own zone"
        };
        Self::new(format!("this {what} has more than {} MiB", most >> 20), help)
    }
}

/// Opens a regular file of at most `most` bytes.
///
/// It is looked at before it is opened, because opening a FIFO waits and opening a device can do anything; and
/// once more after that, because it may have been replaced.
pub(super) fn open(path: &Path, what: &str, most: u64) -> Result<File, Unreadable> {
    let check = |meta: &fs::Metadata| {
        let kind = meta.file_type();
        let is = if kind.is_file() {
            return if meta.len() > most { Err(Unreadable::too_long(what, most)) } else { Ok(()) };
        } else if kind.is_dir() {
            "a directory"
        } else if kind.is_fifo() {
            "a pipe"
        } else if kind.is_socket() {
            "a socket"
        } else if kind.is_char_device() || kind.is_block_device() {
            "a device"
        } else {
            "not a file"
        };
        Err(Unreadable::new(
            format!("this {what} is {is}"),
            if is == "a directory" {
                "write the path of a file in it"
            } else {
                "write the path of a regular file"
            },
        ))
    };
    let from_io = |error: io::Error| Unreadable::from_io(what, &error);
    check(&fs::metadata(path).map_err(from_io)?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(from_io)?;
    check(&file.metadata().map_err(from_io)?)?;
    Ok(file)
}
