//! TCP, UDP, ICMP and ICMPv6 headers.
//!
//! Called by [`super::ipv4`] and [`super::ipv6`] for packets that have a transport header to read.

use super::view::{PacketView, be16};
use super::{Fragment, PacketInfo, protocol};
use crate::abi::reason::Reason;

/// TCP flag: no more data.
pub const FIN: u8 = 1;
/// TCP flag: begin.
pub const SYN: u8 = 2;
/// TCP flag: reset.
pub const RST: u8 = 4;
/// TCP flag: acknowledgement.
pub const ACK: u8 = 16;
/// TCP flag: urgent data.
pub const URG: u8 = 32;

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;

/// Fills in what the transport header says.
///
/// # Errors
/// The check that failed. In a first fragment an incomplete header is
/// [`Reason::FragmentMalformed`] (RFC 1858, RFC 7112): nothing later could complete it before the verdict.
#[inline(always)]
pub fn parse<V: PacketView>(view: &V, mut p: PacketInfo) -> Result<PacketInfo, Reason> {
    let len = p.end - p.transport_at;
    match p.protocol {
        protocol::TCP => {
            let short = short_of(&p, Reason::MalformedTcp);
            if len < TCP_HEADER {
                return Err(short);
            }
            let h: &[u8; TCP_HEADER] = view.bytes(p.transport_at).ok_or(short)?;
            let header_len = ((h[12] >> 4) as usize) << 2;
            if header_len < TCP_HEADER {
                return Err(Reason::MalformedTcp);
            }
            if header_len > len {
                return Err(short);
            }
            p.tcp_flags = h[13];
            if !tcp_flags_are_sane(p.tcp_flags) {
                return Err(Reason::TcpFlags);
            }
            p.source_port = be16(h, 0);
            p.destination_port = be16(h, 2);
        }
        protocol::UDP => {
            let short = short_of(&p, Reason::MalformedUdp);
            if len < UDP_HEADER {
                return Err(short);
            }
            let h: &[u8; UDP_HEADER] = view.bytes(p.transport_at).ok_or(short)?;
            let claimed = be16(h, 4) as usize;
            if claimed < UDP_HEADER || (p.fragment != Fragment::First && claimed > len) {
                return Err(Reason::MalformedUdp);
            }
            p.source_port = be16(h, 0);
            p.destination_port = be16(h, 2);
        }
        // The other family's is a protocol like any other.
        icmp if icmp == if p.v6 { protocol::ICMPV6 } else { protocol::ICMP } => {
            let short = short_of(&p, Reason::MalformedIcmp);
            if len < ICMP_HEADER {
                return Err(short);
            }
            let h: &[u8; ICMP_HEADER] = view.bytes(p.transport_at).ok_or(short)?;
            p.icmp_type = h[0];
            p.icmp_code = h[1];
            p.source_port = be16(h, 4);
        }
        _ => {}
    }
    Ok(p)
}

#[inline(always)]
const fn short_of(p: &PacketInfo, whole: Reason) -> Reason {
    match p.fragment {
        Fragment::First => Reason::FragmentMalformed,
        Fragment::Whole | Fragment::Atomic | Fragment::Later => whole,
    }
}

/// RFC 9293 section 3.10: SYN, FIN and RST exclude each other, everything after the first SYN but a RST carries ACK, and URG
/// belongs to a segment with data: neither to a RST nor to a SYN-ACK (what Linux's conntrack calls invalid, too).
#[inline(always)]
const fn tcp_flags_are_sane(flags: u8) -> bool {
    // One bit for each set of the lower six flags: a shift where comparisons would be four branches.
    SANE_FLAGS >> (flags & 63) & 1 == 1
}

const SANE_FLAGS: u64 = {
    let (mut sane, mut flags) = (0, 0);
    while flags < 64 {
        let set = flags as u8;
        let one_purpose = (set & (SYN | FIN | RST)).count_ones() <= 1 && set & (SYN | RST | ACK) != 0;
        let odd_urgency = set & URG != 0 && (set & RST != 0 || set & (SYN | ACK) == SYN | ACK);
        if one_purpose && !odd_urgency {
            sane |= 1 << flags;
        }
        flags += 1;
    }
    sane
};
