//! The frame that a `[[test]]` of a policy stands for, or a question of `explain`.
//!
//! Called by [`super::test_packets`], whoever then runs it, and by `explain`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;

use crate::policy::model::{PolicyTest, TestTarget, Transport};

/// Locally administered, so nobody's: the sender.
const SOURCE_MAC: [u8; 6] = [0x02, 0, 0x5e, 0, 0x53, 0x01];
/// The host.
const DESTINATION_MAC: [u8; 6] = [0x02, 0, 0x5e, 0, 0x53, 0x02];
/// The host's address: one for documentation (RFC 5737), and another if the test is sent from it.
const DESTINATION_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// The same of IPv6 (RFC 3849).
const DESTINATION_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)];
/// What most systems send with.
const HOP_LIMIT: u8 = 64;
/// An ephemeral port (RFC 6335): no plumbing is sent from it.
const SOURCE_PORT: u16 = 49_152;
const SEQUENCE: u32 = 1;
const WINDOW: u16 = 64_240;
const ECHO_ID: u16 = 1;
const ECHO_SEQUENCE: u16 = 1;
/// What datagrams and echo requests carry.
const PAYLOAD: [u8; 8] = *b"tollgate";

/// Why there is no frame for a test.
#[derive(Debug, thiserror::Error)]
#[error("the packet of the test can't be built")]
pub struct FrameError(#[from] etherparse::err::packet::BuildWriteError);

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// The first packet of a TCP connection.
    TcpSyn,
    /// A packet amid one.
    TcpAck,
    /// A UDP datagram.
    Udp,
    /// An echo request.
    Ping,
}

/// A packet that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it is.
    pub kind: ProbeKind,
    /// Who sends it; the port is of no account for an echo request.
    pub from: SocketAddr,
    /// To whom; `None`: an address for documentation. Of the same family.
    pub to: Option<IpAddr>,
    /// The port; of no account for an echo request.
    pub to_port: u16,
}

/// The Ethernet frame of a test: a TCP SYN, a UDP datagram or an echo request.
///
/// # Errors
/// None that a test of a policy can cause.
pub fn frame(test: &PolicyTest) -> Result<Vec<u8>, FrameError> {
    let (kind, to_port) = match test.to {
        TestTarget::Port(Transport::Tcp, port) => (ProbeKind::TcpSyn, port),
        TestTarget::Port(Transport::Udp, port) => (ProbeKind::Udp, port),
        TestTarget::Ping => (ProbeKind::Ping, 0),
    };
    probe(&Probe { kind, from: SocketAddr::new(test.from, SOURCE_PORT), to: None, to_port })
}

/// The Ethernet frame of a packet.
///
/// # Errors
/// None that two addresses of one family can cause.
pub fn probe(wanted: &Probe) -> Result<Vec<u8>, FrameError> {
    let link = PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC);
    let network = match (wanted.from.ip(), wanted.to) {
        (IpAddr::V4(from), Some(IpAddr::V4(to))) => link.ipv4(from.octets(), to.octets(), HOP_LIMIT),
        (IpAddr::V6(from), Some(IpAddr::V6(to))) => link.ipv6(from.octets(), to.octets(), HOP_LIMIT),
        (IpAddr::V4(from), _) => {
            link.ipv4(from.octets(), other_than(from, DESTINATION_V4).octets(), HOP_LIMIT)
        }
        (IpAddr::V6(from), _) => {
            link.ipv6(from.octets(), other_than(from, DESTINATION_V6).octets(), HOP_LIMIT)
        }
    };
    let mut frame = Vec::new();
    let (from_port, to_port) = (wanted.from.port(), wanted.to_port);
    match wanted.kind {
        ProbeKind::TcpSyn => network.tcp(from_port, to_port, SEQUENCE, WINDOW).syn().write(&mut frame, &[]),
        ProbeKind::TcpAck => network.tcp(from_port, to_port, SEQUENCE, WINDOW).ack(1).write(&mut frame, &[]),
        ProbeKind::Udp => network.udp(from_port, to_port).write(&mut frame, &PAYLOAD),
        ProbeKind::Ping if wanted.from.is_ipv4() => {
            network.icmpv4_echo_request(ECHO_ID, ECHO_SEQUENCE).write(&mut frame, &PAYLOAD)
        }
        ProbeKind::Ping => network.icmpv6_echo_request(ECHO_ID, ECHO_SEQUENCE).write(&mut frame, &PAYLOAD),
    }?;
    Ok(frame)
}

fn other_than<T: PartialEq>(source: T, [first, second]: [T; 2]) -> T {
    if source == first { second } else { first }
}

#[cfg(test)]
mod tests {
    use proxy_common::packet::transport::SYN;
    use proxy_common::packet::{Addr, Slice, icmp, parse, protocol};

    use super::*;

    #[test]
    fn frames_are_what_the_test_says() {
        for from in ["203.0.113.9", "192.0.2.1", "2001:db8::1", "fe80::23"] {
            let from: IpAddr = from.parse().expect(from);
            for to in [
                TestTarget::Port(Transport::Tcp, 5432),
                TestTarget::Port(Transport::Udp, 53),
                TestTarget::Ping,
            ] {
                let test = PolicyTest { line: 1, from, to, interface: None, expect_pass: true };
                let frame = frame(&test).expect("a frame");
                let p = parse(&Slice(&frame)).expect("a packet");
                assert_eq!((p.source, p.v6), (Addr::from_ip(from), from.is_ipv6()));
                assert_ne!(p.source, p.destination);
                assert_eq!(p.end, frame.len());
                match to {
                    TestTarget::Port(Transport::Tcp, port) => {
                        assert_eq!((p.protocol, p.destination_port, p.tcp_flags), (protocol::TCP, port, SYN));
                    }
                    TestTarget::Port(Transport::Udp, port) => {
                        assert_eq!((p.protocol, p.destination_port), (protocol::UDP, port));
                    }
                    TestTarget::Ping => assert!(icmp::is_echo_request(&p)),
                }
                // Every checksum is right: the parser above does not look at them.
                let strict = etherparse::PacketHeaders::from_ethernet_slice(&frame).expect("headers");
                let (Some(net), Some(transport)) = (strict.net, strict.transport) else {
                    panic!("no headers in {frame:?}");
                };
                let mut again = transport.clone();
                match &net {
                    etherparse::NetHeaders::Ipv4(ip, _) => {
                        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                        again.update_checksum_ipv4(ip, strict.payload.slice()).expect("a checksum");
                    }
                    etherparse::NetHeaders::Ipv6(ip, _) => {
                        again.update_checksum_ipv6(ip, strict.payload.slice()).expect("a checksum");
                    }
                    etherparse::NetHeaders::Arp(_) => panic!("ARP in {frame:?}"),
                }
                assert_eq!(transport, again);
            }
        }
    }
}
