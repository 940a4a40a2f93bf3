//! Connections of this host's own sockets, as `NETLINK_SOCK_DIAG` lists them: those that it began and those that it has
//! accepted.

use std::io;

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1,
    TCP_FIN_WAIT2, TCP_LAST_ACK, TCP_SYN_SENT,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use proxy_common::packet::protocol;

use super::flow::{End, Flow, Stage};
use crate::dataplane::netlink::dump;

/// TCP sockets with a session. Half-open ones that strangers began (SYN_RECV) are none yet, and those in TIME_WAIT none
/// any more.
fn with_a_session() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::SYN_SENT
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

/// A list that the kernel gives, or does not.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// What is listed, as people read it.
    pub name: &'static str,
    family: u8,
    protocol: u8,
}

/// All lists.
pub const LISTS: [List; 4] = [
    List { name: "TCP over IPv4", family: AF_INET, protocol: IPPROTO_TCP },
    List { name: "TCP over IPv6", family: AF_INET6, protocol: IPPROTO_TCP },
    List { name: "UDP over IPv4", family: AF_INET, protocol: IPPROTO_UDP },
    List { name: "UDP over IPv6", family: AF_INET6, protocol: IPPROTO_UDP },
];

impl List {
    /// Hands on each connection; gives how many records could not be decoded.
    pub fn read(&self, mut each: impl FnMut(Flow)) -> io::Result<usize> {
        let tcp = self.protocol == IPPROTO_TCP;
        let request = InetRequest {
            family: self.family,
            protocol: self.protocol,
            extensions: ExtensionFlags::empty(),
            // Connected UDP sockets are called established.
            states: if tcp { with_a_session() } else { StateFlags::ESTABLISHED },
            socket_id: if self.family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
        };
        dump(NETLINK_SOCK_DIAG, SockDiagMessage::InetRequest(request), |message| {
            if let SockDiagMessage::InetResponse(response) = message
                && let Some(flow) = flow_of(self.protocol, &response.header)
            {
                each(flow);
            }
        })
    }
}

/// The connection of a socket; `None` if it has none.
pub fn flow_of(protocol: u8, socket: &InetResponseHeader) -> Option<Flow> {
    let stage = match (protocol, socket.state) {
        (protocol::TCP, TCP_ESTABLISHED) => Stage::Established,
        (protocol::TCP, TCP_SYN_SENT) => Stage::Opening,
        (protocol::TCP, TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING) => {
            Stage::Closing
        }
        (protocol::UDP, TCP_ESTABLISHED) => Stage::Datagram,
        _ => return None,
    };
    let id = &socket.socket_id;
    if id.source_port == 0 || id.destination_port == 0 {
        return None;
    }
    // The kernel calls the socket's own end the source.
    let local = End::new(id.source_address, id.source_port);
    let remote = End::new(id.destination_address, id.destination_port);
    Some(Flow { protocol, remote, local, stage })
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

    use netlink_packet_sock_diag::constants::{TCP_CLOSE, TCP_LISTEN, TCP_SYN_RECV, TCP_TIME_WAIT};

    use super::*;

    fn socket(state: u8) -> InetResponseHeader {
        InetResponseHeader {
            family: AF_INET,
            state,
            timer: None,
            socket_id: SocketId {
                source_port: 22,
                destination_port: 50000,
                source_address: "192.168.0.104".parse().expect("an address"),
                destination_address: "203.0.113.9".parse().expect("an address"),
                interface_id: 0,
                cookie: [0; 8],
            },
            recv_queue: 0,
            send_queue: 0,
            uid: 0,
            inode: 0,
        }
    }

    #[test]
    fn states_of_tcp_are_told_apart() {
        let stage = |state| flow_of(IPPROTO_TCP, &socket(state)).map(|flow| flow.stage);
        assert_eq!(stage(TCP_ESTABLISHED), Some(Stage::Established));
        assert_eq!(stage(TCP_SYN_SENT), Some(Stage::Opening));
        for closing in [TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING] {
            assert_eq!(stage(closing), Some(Stage::Closing));
        }
        for none in [TCP_LISTEN, TCP_SYN_RECV, TCP_TIME_WAIT, TCP_CLOSE, 0, 12, 255] {
            assert_eq!(stage(none), None);
        }
    }

    #[test]
    fn only_connected_datagram_sockets_count() {
        let stage = |state| flow_of(IPPROTO_UDP, &socket(state)).map(|flow| flow.stage);
        assert_eq!(stage(TCP_ESTABLISHED), Some(Stage::Datagram));
        assert_eq!(stage(TCP_CLOSE), None);
    }

    #[test]
    fn the_peer_is_remote_whoever_began() {
        let flow = flow_of(IPPROTO_TCP, &socket(TCP_ESTABLISHED)).expect("a flow");
        assert_eq!((flow.remote.port, flow.local.port), (50000, 22));
        assert_eq!(flow.remote.address.to_string(), "203.0.113.9");
    }

    #[test]
    fn a_socket_of_both_families_gives_an_ipv4_flow() {
        let mut mapped = socket(TCP_ESTABLISHED);
        mapped.family = AF_INET6;
        mapped.socket_id.source_address = "::ffff:192.168.0.104".parse().expect("an address");
        mapped.socket_id.destination_address = "::ffff:203.0.113.9".parse().expect("an address");
        let plain = flow_of(IPPROTO_TCP, &socket(TCP_ESTABLISHED));
        assert_eq!(flow_of(IPPROTO_TCP, &mapped), plain);
    }

    #[test]
    fn a_socket_without_a_peer_has_no_flow() {
        let mut unconnected = socket(TCP_ESTABLISHED);
        unconnected.socket_id.destination_port = 0;
        assert_eq!(flow_of(IPPROTO_UDP, &unconnected), None);
    }

    #[test]
    fn the_kernel_lists_the_sockets_of_this_process() {
        let listener = TcpListener::bind("[::]:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let accepted = listener.accept().expect("its other end").0;
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.connect(("127.0.0.1", port)).expect("a peer");
        let own = |socket: io::Result<SocketAddr>| socket.expect("an address").port();
        let mut found = Vec::new();
        for list in LISTS {
            assert_eq!(list.read(|flow| found.push(flow)).expect(list.name), 0);
        }
        let is_there = |protocol, local, remote, stage| {
            found.iter().any(|flow| {
                flow.protocol == protocol
                    && (flow.local.port, flow.remote.port) == (local, remote)
                    && flow.remote.address.is_ipv4()
                    && flow.stage == stage
            })
        };
        let (client, udp) = (own(client.local_addr()), own(udp.local_addr()));
        assert!(is_there(protocol::TCP, client, port, Stage::Established));
        // Accepted by a socket of both families.
        assert!(is_there(protocol::TCP, port, own(accepted.peer_addr()), Stage::Established));
        assert!(is_there(protocol::UDP, udp, port, Stage::Datagram));
    }
}
