//! IPv4 (RFC 791): header with options, total length, fragments.
//!
//! Called by [`super::parse`]. The header checksum is left to the host's stack, which drops what fails it.

use super::view::{PacketView, be16};
use super::{Addr, Fragment, PacketInfo, transport};
use crate::abi::reason::Reason;

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Longest datagram, which fragments may not overflow.
const MAX_DATAGRAM: usize = 65535;

/// Parses an IPv4 packet that begins at `at`.
///
/// # Errors
/// The check that failed.
#[inline(always)]
pub fn parse<V: PacketView>(view: &V, at: usize) -> Result<PacketInfo, Reason> {
    let h: &[u8; HEADER] = view.bytes(at).ok_or(Reason::MalformedIpv4)?;
    if h[0] >> 4 != 4 {
        return Err(Reason::MalformedIpv4);
    }
    let header_len = ((h[0] & 15) as usize) << 2;
    let total = be16(h, 2) as usize;
    if header_len < HEADER || total < header_len || !view.holds(at + total) {
        return Err(Reason::MalformedIpv4);
    }
    let mut p = PacketInfo {
        v6: false,
        fragment: Fragment::Whole,
        protocol: h[9],
        hop_limit: h[8],
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        source_port: 0,
        destination_port: 0,
        transport_at: at + header_len,
        end: at + total,
        fragment_id: 0,
        source: Addr::v4([h[12], h[13], h[14], h[15]]),
        destination: Addr::v4([h[16], h[17], h[18], h[19]]),
    };
    let fragment = be16(h, 6);
    if fragment & (MORE_FRAGMENTS | OFFSET) != 0 {
        p.fragment_id = be16(h, 4) as u32;
        let offset = ((fragment & OFFSET) as usize) << 3;
        p.fragment = check_fragment(offset, fragment & MORE_FRAGMENTS != 0, total - header_len)?;
        if p.fragment == Fragment::Later {
            return Ok(p);
        }
    }
    transport::parse(view, p)
}

/// What a fragment of `len` bytes at `offset` is; shared with IPv6.
///
/// # Errors
/// A fragment that carries nothing, overflows its datagram, or is not the last and no multiple of eight bytes.
#[inline(always)]
pub(super) fn check_fragment(offset: usize, more: bool, len: usize) -> Result<Fragment, Reason> {
    if len == 0 || offset + len > MAX_DATAGRAM || (more && len & 7 != 0) {
        return Err(Reason::FragmentMalformed);
    }
    Ok(match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    })
}
