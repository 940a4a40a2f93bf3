//! By which connections the person at this command works here: what `apply` must not cut and `ban` must not hit.
//!
//! sshd says it in `SSH_CONNECTION` and `SSH_CLIENT`. sudo and su take that away, but the processes that this one came from still have it; and
//! where there is none, their sockets tell.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process};
use serde::{Deserialize, Serialize};

/// Ancestors that are looked at: more than any session has.
const MOST: usize = 64;

/// A connection by which somebody works on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Where they are.
    pub remote: SocketAddr,
    /// What they are connected to.
    pub local: SocketAddr,
}

/// The connections of this session; none on a console.
pub fn peers() -> Vec<Peer> {
    let (mut found, mut inodes) = (Vec::new(), HashSet::new());
    let mut next = Process::myself().ok();
    // What can't be read is left out: only root can read all.
    for _ in 0..MOST {
        let Some(process) = next else { break };
        let environment = process.environ().unwrap_or_default();
        let said = |name: &str| parse(environment.get(OsStr::new(name))?.to_str()?);
        found.extend(said("SSH_CONNECTION").or_else(|| said("SSH_CLIENT")));
        inodes.extend(process.fd().into_iter().flatten().flatten().filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        }));
        let parent = process.stat().map_or(0, |stat| stat.ppid);
        next = if parent > 0 { Process::new(parent).ok() } else { None };
    }
    found.extend(established(&inodes));
    found.sort_unstable();
    found.dedup();
    found
}

/// `SSH_CONNECTION`: address and port of the client, then of the server. `SSH_CLIENT`, which is older: the same without the
/// server's address. (ssh(1).)
fn parse(text: &str) -> Option<Peer> {
    let end = |address: &str, port: &str| {
        // A link-local address has its interface behind a percent sign.
        let address: IpAddr = address.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(address, port.parse().ok()?))
    };
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [remote, remote_port, local, local_port] => {
            Some(Peer { remote: end(remote, remote_port)?, local: end(local, local_port)? })
        }
        [remote, remote_port, local_port] => {
            let remote = end(remote, remote_port)?;
            let any = if remote.is_ipv4() { "0.0.0.0" } else { "::" };
            Some(Peer { remote, local: end(any, local_port)? })
        }
        _ => None,
    }
}

/// The established connections among sockets.
fn established(inodes: &HashSet<u64>) -> Vec<Peer> {
    let entries = tcp().unwrap_or_default().into_iter().chain(tcp6().unwrap_or_default());
    let ours = |entry: &TcpNetEntry| entry.state == TcpState::Established && inodes.contains(&entry.inode);
    let peer = |entry: TcpNetEntry| Peer { remote: entry.remote_address, local: entry.local_address };
    entries.filter(ours).map(peer).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_variable_of_ssh_is_read() {
        let peer = parse("203.0.113.9 50000 192.168.0.104 22").expect("a peer");
        assert_eq!((peer.remote.to_string(), peer.local.port()), ("203.0.113.9:50000".to_owned(), 22));
        assert_eq!(
            parse("fe80::1%eth0 50000 fe80::2%eth0 22").expect("a peer").remote.ip().to_string(),
            "fe80::1"
        );
        let older = parse("203.0.113.9 50000 22").expect("a peer");
        assert_eq!((older.remote, older.local.to_string()), (peer.remote, "0.0.0.0:22".to_owned()));
        for text in [
            "",
            "203.0.113.9 50000",
            "203.0.113.9 50000 192.168.0.104",
            "a b c d",
            "203.0.113.9 70000 192.168.0.104 22",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let expected = Peer {
            remote: client.peer_addr().expect("an address"),
            local: client.local_addr().expect("an address"),
        };
        assert!(peers().contains(&expected));
    }
}
