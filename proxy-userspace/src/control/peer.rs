//! Who is at the other end of the control socket, and what they may do. Called by `server`.
//!
//! The kernel says who connected: user, group, and all groups of that moment. The socket's mode keeps strangers out before;
//! this holds also where a mode was changed by hand.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, chown, geteuid};

/// Groups of one process: far more than anybody is in. Who is in more is known by the first ones.
const MOST_GROUPS: usize = 1024;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything: root, and who the daemon runs as.
    Commander,
    /// Ask, and change nothing.
    Reader,
    /// Nothing.
    Stranger,
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Who is connected.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials = getsockopt(&socket, sockopt::PeerCredentials)?;
        let mut groups = supplementary(socket)?;
        groups.push(credentials.gid());
        Ok(Self { uid: credentials.uid(), groups })
    }

    /// What they may do, if members of `readers` may ask.
    pub fn role(&self, readers: Option<Gid>) -> Role {
        if self.uid == 0 || self.uid == geteuid().as_raw() {
            return Role::Commander;
        }
        match readers {
            Some(group) if self.groups.contains(&group.as_raw()) => Role::Reader,
            _ => Role::Stranger,
        }
    }
}

/// The groups besides the first.
fn supplementary(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; MOST_GROUPS];
    let mut bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: the pointers are to a buffer of that many bytes and to its length, both alive during the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            // In more groups than there is room for: known by the first of them alone.
            Some(libc::ERANGE) => Ok(Vec::new()),
            _ => Err(error),
        };
    }
    groups.truncate(bytes as usize / size_of::<u32>());
    Ok(groups)
}

/// The group of a name or a number.
///
/// # Errors
/// A sentence, if there is none.
pub fn group(text: &str) -> Result<Gid, String> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => {
            Err(format!("there is no group {text:?}: `getent group` lists them; a number is good too"))
        }
        Err(error) => Err(format!("looking the group {text:?} up: {error}")),
    }
}

/// Lets a group reach what is in a folder by its name, and nothing more: neither list nor change it.
///
/// # Errors
/// If it can't be changed.
pub fn let_through(folder: &Path, group: Gid) -> io::Result<()> {
    let mode = fs::metadata(folder)?.permissions().mode() & 0o7777;
    // Whoever opened it to all has had a reason.
    if mode & 0o001 == 0 {
        chown(folder, None, Some(group))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(mode & 0o7707 | 0o010))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_says_who_is_there() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let peer = Peer::of(one.as_fd()).expect("a peer");
        assert_eq!(peer.uid, geteuid().as_raw());
        assert!(peer.groups.contains(&nix::unistd::getegid().as_raw()), "{peer:?}");
        assert_eq!(peer.role(None), Role::Commander);
    }

    #[test]
    fn members_of_the_group_may_ask_and_nobody_else() {
        let peer = |uid, groups: &[u32]| Peer { uid, groups: groups.to_vec() };
        let readers = Some(Gid::from_raw(700));
        assert_eq!(peer(0, &[]).role(None), Role::Commander);
        assert_eq!(peer(4_000_001, &[1, 700]).role(readers), Role::Reader);
        assert_eq!(peer(4_000_001, &[1, 701]).role(readers), Role::Stranger);
        assert_eq!(peer(4_000_001, &[1, 700]).role(None), Role::Stranger);
    }

    #[test]
    fn groups_have_names_and_numbers() {
        assert_eq!(group("0"), Ok(Gid::from_raw(0)));
        assert_eq!(group("root"), Ok(Gid::from_raw(0)));
        for text in ["", "no such group", "-1", "4294967296", "a\0b"] {
            assert!(group(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_is_opened_to_a_group_and_no_wider() {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = || fs::metadata(folder.path()).expect("a folder").permissions().mode() & 0o777;
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("set");
        for (before, after) in [(0o700, 0o710), (0o770, 0o710), (0o710, 0o710), (0o755, 0o755)] {
            set(before);
            let_through(folder.path(), nix::unistd::getegid()).expect("opened");
            assert_eq!(mode(), after, "from {before:o}: {:o}", mode());
        }
    }
}
