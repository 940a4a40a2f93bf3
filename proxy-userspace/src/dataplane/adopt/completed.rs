//! Which connections of a source have completed TCP's handshake: proof that the source is who it says, since whoever forges
//! addresses sees no answer. Called by the daemon before it bans who exceeds a limit.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use proxy_common::packet::protocol;

use super::conntrack;
use super::flow::{Flow, Stage};
use super::sockets;

/// The other ends of connections from `source` to ports of this host, or of containers behind it, that are or were open both
/// ways and that the kernel still knows. `is_port` says which ports count, as they are on the wire.
///
/// # Errors
/// If the kernel does not list this host's connections.
pub fn completed(source: &IpNet, is_port: impl Fn(u16) -> bool) -> io::Result<HashSet<(IpAddr, u16)>> {
    let mut found = HashSet::new();
    let mut note = |flow: &Flow| {
        if is_complete(flow) && source.contains(&flow.remote.address) && is_port(flow.local.port) {
            found.insert((flow.remote.address, flow.remote.port));
        }
    };
    for list in sockets::LISTS {
        list.read(|flow| note(&flow))?;
    }
    // Where nothing is tracked there is no container either.
    if let Err(error) = conntrack::read(|connection| connection.from_originator.iter().for_each(&mut note)) {
        log::debug!("tracked connections are not listed: {error}");
    }
    Ok(found)
}

fn is_complete(flow: &Flow) -> bool {
    flow.protocol == protocol::TCP && matches!(flow.stage, Stage::Established | Stage::Closing)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn only_connections_of_tcp_to_these_ports_and_from_this_source_count() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let accepted = listener.accept().expect("its other end").1;
        let udp = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
        udp.connect(accepted).expect("a peer");
        let of = |source: &str, port| {
            completed(&source.parse().expect("a prefix"), |one| one == port).expect("the kernel's list")
        };
        assert_eq!(of("127.0.0.1/32", port), HashSet::from([(accepted.ip(), accepted.port())]));
        assert!(of("127.0.0.2/32", port).is_empty());
        assert!(of("127.0.0.0/8", udp.local_addr().expect("its address").port()).is_empty());
        drop(client);
    }
}
