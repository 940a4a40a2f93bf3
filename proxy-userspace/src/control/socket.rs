//! How a UNIX socket is made: for root, or for root and a group, and at no moment for others. Called by `server` and `scrape`.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::Path;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, chown};
use tokio::net::UnixListener;

/// Connections that wait to be accepted.
const WAITING: i32 = 128;

/// Makes a socket in place of whatever is at the path; the caller knows that it belongs to nobody.
///
/// # Errors
/// If it can't be made.
pub fn listen_at(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The file gets the mode that the socket has when it is bound: it is never open to more than it should be.
    fchmod(&socket, Mode::from_bits_truncate(0o600))?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    if let Some(group) = group {
        chown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    }
    listen(&socket, Backlog::new(WAITING)?)?;
    UnixListener::from_std(net::UnixListener::from(socket))
}

/// The same at a path that somebody has chosen: what is there may be another's.
///
/// # Errors
/// If something is there that is no socket, or a socket that somebody listens on.
pub fn listen_beside(path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
        }
        Ok(_) if net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there"));
        }
        _ => {}
    }
    listen_at(path, group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_a_group() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        let alone = listen_at(&path, None).expect("a socket");
        assert_eq!(mode(&path), 0o600);
        assert!(listen_beside(&path, None).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse));
        drop(alone);
        // One that nobody listens on is in nobody's way.
        let shared = listen_beside(&path, Some(Gid::current())).expect("a socket");
        assert_eq!(mode(&path), 0o660);
        drop(shared);
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "mine").expect("a file");
        assert!(listen_beside(&path, None).is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "mine");
    }
}
