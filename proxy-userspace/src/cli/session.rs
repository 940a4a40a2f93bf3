//! By which connections the person at this command works here: what `apply` must not cut and `ban` must not hit.
//!
//! `SSH_CONNECTION` says it, unless sudo or su took it away; then the sockets of this process's ancestors do.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process};

use crate::control::lockout::Peer;

/// Ancestors that are looked at: more than any session has.
const MOST: usize = 64;

/// The connections of this session; none on a console.
pub fn peers() -> Vec<Peer> {
    let by_variable = std::env::var("SSH_CONNECTION").ok().and_then(|text| parse(&text));
    let mut found: Vec<Peer> = by_variable.into_iter().chain(by_sockets()).collect();
    found.sort_by_key(|peer| (peer.remote, peer.local));
    found.dedup();
    found
}

/// `SSH_CONNECTION`: address and port of the client, then of the server (sshd's own words, ssh(1)).
fn parse(text: &str) -> Option<Peer> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [remote, remote_port, local, local_port] = words.as_slice() else { return None };
    let end = |address: &str, port: &str| {
        // A link-local address has its interface behind a percent sign.
        let address: IpAddr = address.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(address, port.parse().ok()?))
    };
    Some(Peer { remote: end(remote, remote_port)?, local: end(local, local_port)? })
}

/// The established connections that an ancestor of this process holds. What can't be read is left out: only root can.
fn by_sockets() -> Vec<Peer> {
    let mut inodes = HashSet::new();
    let mut next = Process::myself().ok();
    for _ in 0..MOST {
        let Some(process) = next else { break };
        for fd in process.fd().into_iter().flatten().flatten() {
            if let FDTarget::Socket(inode) = fd.target {
                inodes.insert(inode);
            }
        }
        let parent = process.stat().map_or(0, |stat| stat.ppid);
        next = if parent > 0 { Process::new(parent).ok() } else { None };
    }
    let entries = tcp().unwrap_or_default().into_iter().chain(tcp6().unwrap_or_default());
    let ours = |entry: &TcpNetEntry| entry.state == TcpState::Established && inodes.contains(&entry.inode);
    entries
        .filter(ours)
        .map(|entry| Peer { remote: entry.remote_address, local: entry.local_address })
        .collect()
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
        for text in ["", "203.0.113.9 50000 192.168.0.104", "a b c d", "203.0.113.9 70000 192.168.0.104 22"] {
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
        assert!(by_sockets().contains(&expected));
    }
}
