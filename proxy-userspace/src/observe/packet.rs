//! A frame in words, as far as it can be read. Called by `explain`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::abi::reason::Verdict;
use proxy_common::packet::transport::{ACK, FIN, RST, SYN};
use proxy_common::packet::{Addr, Fragment, PacketInfo, Slice, parse, protocol};

/// An address as the engine has it.
pub fn address(address: Addr, v6: bool) -> IpAddr {
    if v6 {
        let bits = u128::from(address.hi) << 64 | u128::from(address.lo);
        Ipv6Addr::from_bits(bits).into()
    } else {
        Ipv4Addr::from_bits((address.hi >> 32) as u32).into()
    }
}

/// One line that says what a frame is.
pub fn describe(frame: &[u8]) -> String {
    let bytes = frame.len();
    let tags = tags(frame);
    match parse(&Slice(frame)) {
        Ok(packet) => format!("{}{tags}, {bytes} bytes,", packet_in_words(&packet)),
        Err(reason) if reason.verdict() == Verdict::Pass => {
            format!("a frame of {bytes} bytes{tags}, {},", reason.name())
        }
        Err(_) => format!("a frame of {bytes} bytes{tags} that is no packet"),
    }
}

fn packet_in_words(p: &PacketInfo) -> String {
    let (source, destination) = (address(p.source, p.v6), address(p.destination, p.v6));
    let kind = match p.protocol {
        protocol::TCP => format!("TCP{}", flags(p.tcp_flags)),
        protocol::UDP => "UDP".to_owned(),
        protocol::ICMP => format!("ICMP type {} code {}", p.icmp_type, p.icmp_code),
        protocol::ICMPV6 => format!("ICMPv6 type {} code {}", p.icmp_type, p.icmp_code),
        other => format!("IP protocol {other}"),
    };
    match p.fragment {
        Fragment::Later => format!("a later fragment (protocol {}) {source} → {destination}", p.protocol),
        fragment => {
            let first = if fragment == Fragment::First { ", first fragment" } else { "" };
            if matches!(p.protocol, protocol::TCP | protocol::UDP) {
                let from = std::net::SocketAddr::new(source, p.source_port);
                let to = std::net::SocketAddr::new(destination, p.destination_port);
                format!("{kind} {from} → {to}{first}")
            } else {
                format!("{kind} {source} → {destination}{first}")
            }
        }
    }
}

fn flags(flags: u8) -> String {
    let names = [(SYN, "SYN"), (ACK, "ACK"), (FIN, "FIN"), (RST, "RST")];
    names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| format!(" {name}")).collect()
}

/// VLAN tags, from the outermost on.
fn tags(frame: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut at = 12;
    while let Some([0x81, 0x00] | [0x88, 0xa8]) = frame.get(at..at + 2) {
        let Some([high, low]) = frame.get(at + 2..at + 4) else { break };
        numbers.push((u16::from_be_bytes([*high, *low]) & 0xfff).to_string());
        at += 4;
    }
    if numbers.is_empty() { String::new() } else { format!(", VLAN {}", numbers.join(" in ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_into_words() {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([203, 0, 113, 9], [192, 0, 2, 1], 64)
            .tcp(40_000, 5432, 1, 1)
            .syn()
            .write(&mut frame, &[])
            .expect("a frame");
        assert_eq!(describe(&frame), "TCP SYN 203.0.113.9:40000 → 192.0.2.1:5432, 54 bytes,");
        let mut tagged = frame[..12].to_vec();
        tagged.extend([0x88, 0xa8, 0, 5, 0x81, 0, 0x20, 7]);
        tagged.extend(&frame[12..]);
        assert_eq!(describe(&tagged), "TCP SYN 203.0.113.9:40000 → 192.0.2.1:5432, VLAN 5 in 7, 62 bytes,");
        assert_eq!(describe(&frame[..20]), "a frame of 20 bytes that is no packet");
        let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 28]].concat();
        assert_eq!(describe(&arp), "a frame of 42 bytes, arp,");
    }
}
