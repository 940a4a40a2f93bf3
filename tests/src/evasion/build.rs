//! Who takes part in a case, and packets that [`crate::frames`] does not build: options, extension headers, fragments.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::abi::reason::Reason;

use super::Twin;
use crate::frames::{IPV4, IPV6, Link, Path, SYN, VLAN, checksum};

/// The two ends of the wire.
pub const LINK: Link = Link { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };
/// A port that strangers use.
pub const FROM: u16 = 40_000;
/// The open service.
pub const OPEN: u16 = 80;
/// A port that no service names.
pub const CLOSED: u16 = 22;
/// The service for the LAN alone.
pub const LAN_ONLY: u16 = 8000;
/// The service that nobody may reach.
pub const NOBODY: u16 = 5432;
/// The open service over UDP.
pub const OPEN_UDP: u16 = 5300;

/// Numbers of protocols.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP of IPv6.
pub const ICMPV6: u8 = 58;

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Family {
    /// Length of the IP header that [`Path::packet`] writes.
    pub fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// Its ICMP.
    pub fn icmp(self) -> u8 {
        match self {
            Self::V4 => ICMP,
            Self::V6 => ICMPV6,
        }
    }

    /// Type of an echo reply.
    pub fn echo_reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

/// The hosts of one case.
#[derive(Clone, Copy, Debug)]
pub struct Hosts {
    /// Of all of them.
    pub family: Family,
    /// Tells one case's hosts from another's.
    pub number: u16,
}

impl Hosts {
    /// A stranger, in no zone but `any`.
    pub fn stranger(&self) -> IpAddr {
        self.host([198, 18], [0x2001, 0xdb8, 0x113])
    }

    /// Another stranger.
    pub fn other(&self) -> IpAddr {
        self.host([198, 19], [0x2001, 0xdb8, 0x114])
    }

    /// A host of the zone `lan`.
    pub fn lan(&self) -> IpAddr {
        self.host([192, 168], [0x2001, 0xdb8, 1])
    }

    /// A host of the zone `denied`.
    pub fn denied(&self) -> IpAddr {
        self.host([100, 66], [0x2001, 0xdb8, 0xbad])
    }

    /// A host of the zone `containers`, which is bound to the inside interface.
    pub fn container(&self) -> IpAddr {
        self.host([172, 17], [0x2001, 0xdb8, 0xd0])
    }

    /// The host that the filter protects.
    pub fn server(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, 104).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x104).into(),
        }
    }

    /// From an address to the server.
    pub fn from(&self, source: impl Into<IpAddr>) -> Path {
        Path::new(source, self.server())
    }

    /// From the stranger to the server.
    pub fn inward(&self) -> Path {
        self.from(self.stranger())
    }

    /// From the server to the stranger.
    pub fn outward(&self) -> Path {
        Path::new(self.server(), self.stranger())
    }

    /// The plainest honest packet: the stranger asks the open service.
    pub fn honest(&self) -> Twin {
        Twin::new(self.syn(OPEN), Reason::ServiceAllowed)
    }

    /// The stranger opens a connection to a port.
    pub fn syn(&self, port: u16) -> Vec<u8> {
        LINK.ip(&self.inward().tcp(FROM, port, SYN, 1, &[]))
    }

    fn host(&self, v4: [u8; 2], v6: [u16; 3]) -> IpAddr {
        let [high, low] = self.number.to_be_bytes();
        match self.family {
            Family::V4 => Ipv4Addr::new(v4[0], v4[1], high, low).into(),
            Family::V6 => Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, self.number).into(),
        }
    }
}

/// A TCP header without options; its checksum is left out.
pub fn tcp_header(to: u16, flags: u8) -> Vec<u8> {
    let mut header = Vec::from(FROM.to_be_bytes());
    header.extend(to.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    header
}

/// A UDP header for a datagram with so many bytes after it; without a checksum.
pub fn udp_header(to: u16, payload: u16) -> Vec<u8> {
    [FROM, to, 8 + payload, 0].iter().flat_map(|field| field.to_be_bytes()).collect()
}

/// Rewrites an IPv4 packet's header, and its checksum after it.
pub fn edit_ipv4(mut packet: Vec<u8>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    edit(&mut packet);
    let length = usize::from(packet[0] & 15).max(5) * 4;
    let length = length.min(packet.len());
    packet[10..12].fill(0);
    let sum = checksum(&packet[..length]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An IPv4 packet with options, a multiple of four bytes.
pub fn with_options(path: &Path, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let packet = path.packet(protocol, &[options, payload].concat());
    edit_ipv4(packet, |header| header[0] = 0x40 | (5 + options.len() as u8 / 4))
}

/// Where a fragment stands in its datagram.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The datagram.
    pub id: u16,
    /// In units of eight bytes.
    pub offset: u16,
    /// More follow.
    pub more: bool,
}

/// A fragment of either family.
pub fn fragment(path: &Path, protocol: u8, piece: Piece, payload: &[u8]) -> Vec<u8> {
    if path.source.is_ipv6() {
        let mut header = vec![protocol, 0];
        header.extend((piece.offset << 3 | u16::from(piece.more)).to_be_bytes());
        header.extend(u32::from(piece.id).to_be_bytes());
        header.extend(payload);
        return path.packet(44, &header);
    }
    edit_ipv4(path.packet(protocol, payload), |header| {
        header[4..6].copy_from_slice(&piece.id.to_be_bytes());
        header[6..8].copy_from_slice(&(u16::from(piece.more) << 13 | piece.offset).to_be_bytes());
    })
}

/// An ICMP message of the path's family, with a right checksum.
pub fn icmp(path: &Path, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    let mut covered = Vec::new();
    let mut protocol = ICMP;
    if let (IpAddr::V6(source), IpAddr::V6(destination)) = (path.source, path.destination) {
        protocol = ICMPV6;
        covered.extend(source.octets());
        covered.extend(destination.octets());
        covered.extend((message.len() as u32).to_be_bytes());
        covered.extend([0, 0, 0, ICMPV6]);
    }
    covered.extend(&message);
    let sum = checksum(&covered);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    path.packet(protocol, &message)
}

/// The same packet with another hop limit, or TTL.
pub fn hops(packet: Vec<u8>, limit: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        return edit_ipv4(packet, |header| header[8] = limit);
    }
    let mut packet = packet;
    packet[7] = limit;
    packet
}

/// A packet cut at each byte, from a start to its last but one, bare and behind a tag.
pub fn cuts(packet: &[u8], start: usize) -> Vec<Vec<u8>> {
    let kind = if packet[0] >> 4 == 6 { IPV6 } else { IPV4 };
    let cut = |length: usize| {
        let part = &packet[..length];
        [LINK.frame(kind, part), LINK.tagged(&[(VLAN, 5)], kind, part)]
    };
    (start..packet.len()).flat_map(cut).collect()
}
