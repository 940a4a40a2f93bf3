//! Builds frames byte by byte, with right checksums; what a test wants wrong it makes wrong afterwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad (outer) tag.
pub const QINQ: u16 = 0x88a8;

/// TCP's FIN flag.
pub const FIN: u8 = 1;
/// TCP's SYN flag.
pub const SYN: u8 = 2;
/// TCP's RST flag.
pub const RST: u8 = 4;
/// TCP's ACK flag.
pub const ACK: u8 = 16;

/// Length of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;

/// The addresses of a link's two ends.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Who sends.
    pub source: [u8; 6],
    /// Who receives.
    pub destination: [u8; 6],
}

impl Link {
    /// A frame around a payload.
    pub fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        self.tagged(&[], ethertype, payload)
    }

    /// A frame with VLAN tags, the outermost first: (EtherType of the tag, VLAN number).
    pub fn tagged(&self, tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET_LEN + 4 * tags.len() + payload.len());
        frame.extend(self.destination);
        frame.extend(self.source);
        for (kind, number) in tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(number.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// A frame around an IP packet of either family.
    pub fn ip(&self, packet: &[u8]) -> Vec<u8> {
        let ethertype = if packet.first().is_some_and(|b| b >> 4 == 6) { IPV6 } else { IPV4 };
        self.frame(ethertype, packet)
    }
}

/// The two ends of a packet; both of one family.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
}

impl Path {
    /// From one address to another.
    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        Self { source: source.into(), destination: destination.into() }
    }

    /// An IP packet with any protocol.
    ///
    /// # Panics
    /// If the two ends are of different families: a mistake in the test.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, protocol, payload),
            (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, protocol, payload),
            _ => panic!("{} and {} are of different families", self.source, self.destination),
        }
    }

    /// A UDP datagram.
    pub fn udp(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut segment = Vec::with_capacity(8 + payload.len());
        segment.extend(from.to_be_bytes());
        segment.extend(to.to_be_bytes());
        segment.extend((8 + payload.len() as u16).to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(payload);
        self.finish(17, 6, segment)
    }

    /// A TCP segment without options.
    pub fn tcp(&self, from: u16, to: u16, flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut segment = Vec::with_capacity(20 + payload.len());
        segment.extend(from.to_be_bytes());
        segment.extend(to.to_be_bytes());
        segment.extend(sequence.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend([5 << 4, flags]);
        segment.extend(64_240u16.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(payload);
        self.finish(6, 16, segment)
    }

    /// An echo request of the family's ICMP.
    pub fn echo_request(&self, id: u16, sequence: u16) -> Vec<u8> {
        let (kind, protocol) = if self.source.is_ipv6() { (128, 58) } else { (8, 1) };
        let mut message = vec![kind, 0, 0, 0];
        message.extend(id.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        self.finish(protocol, 2, message)
    }

    /// Puts the checksum at `at` and the IP header in front.
    fn finish(&self, protocol: u8, at: usize, mut segment: Vec<u8>) -> Vec<u8> {
        let mut covered = Vec::with_capacity(40 + segment.len());
        // ICMP of IPv4 has no pseudo header.
        if protocol != 1 {
            match (self.source, self.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    covered.extend(source.octets());
                    covered.extend(destination.octets());
                }
                (source, destination) => {
                    for address in [source, destination] {
                        if let IpAddr::V6(address) = address {
                            covered.extend(address.octets());
                        }
                    }
                }
            }
            covered.extend((segment.len() as u32).to_be_bytes());
            covered.extend([0, 0, 0, protocol]);
        }
        covered.extend(&segment);
        let mut sum = checksum(&covered);
        // RFC 768: zero would mean that there is none.
        if protocol == 17 && sum == 0 {
            sum = 0xffff;
        }
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        self.packet(protocol, &segment)
    }
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    // Identification 0, do not fragment, 64 hops.
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// An ARP request: who has `target`?
pub fn arp_request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1];
    request.extend(mac);
    request.extend(sender.octets());
    request.extend([0; 6]);
    request.extend(target.octets());
    request
}

/// The Internet checksum (RFC 1071) over bytes whose own checksum field is zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_a_known_header() {
        // The example that most texts use.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
            0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&header), 0xb861);
    }

    #[test]
    fn a_finished_header_sums_to_zero() {
        let path = Path::new(Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(checksum(&path.udp(1, 2, b"odd")[..20]), 0);
    }
}
