//! IPv6 (RFC 8200): header and a bounded walk of extension headers.
//!
//! Called by [`super::parse`]. Lengths are exact: most extensions count 8-byte units past the first, the
//! authentication header counts 4-byte units past the first two (RFC 4302 section 2.2).

use super::ipv4::check_fragment;
use super::view::{PacketView, be16};
use super::{Addr, Fragment, PacketInfo, transport};
use crate::abi::reason::Reason;

const HEADER: usize = 40;
/// Extension headers walked; more are dropped. RFC 8200 section 4.1 recommends an order with at most seven.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6)
}

/// Parses an IPv6 packet that begins at `at`.
///
/// # Errors
/// The check that failed.
#[inline(always)]
pub fn parse<V: PacketView>(view: &V, at: usize) -> Result<PacketInfo, Reason> {
    let h: &[u8; HEADER] = view.bytes(at).ok_or(Reason::MalformedIpv6)?;
    if h[0] >> 4 != 6 {
        return Err(Reason::MalformedIpv6);
    }
    let end = at + HEADER + be16(h, 4) as usize;
    if !view.holds(end) {
        return Err(Reason::MalformedIpv6);
    }
    let mut p = PacketInfo {
        v6: true,
        fragment: Fragment::Whole,
        protocol: h[6],
        hop_limit: h[7],
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        source_port: 0,
        destination_port: 0,
        transport_at: at + HEADER,
        end,
        fragment_id: 0,
        source: Addr::v6(
            [h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15]],
            [h[16], h[17], h[18], h[19], h[20], h[21], h[22], h[23]],
        ),
        destination: Addr::v6(
            [h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31]],
            [h[32], h[33], h[34], h[35], h[36], h[37], h[38], h[39]],
        ),
    };
    if is_extension(p.protocol) {
        walk(view, &mut p)?;
        if p.fragment == Fragment::Later {
            return Ok(p);
        }
    }
    transport::parse(view, p)
}

/// Walks to the transport header, or to a fragment that has none.
#[inline(always)]
fn walk<V: PacketView>(view: &V, p: &mut PacketInfo) -> Result<(), Reason> {
    for nth in 0..MAX_EXTENSIONS {
        let e: &[u8; 8] = view.bytes(p.transport_at).ok_or(Reason::MalformedIpv6)?;
        let len = match p.protocol {
            // Only the first extension may be hop-by-hop (RFC 8200 section 4.1).
            HOP_BY_HOP if nth != 0 => return Err(Reason::MalformedIpv6),
            // Nothing that a host needs routes through it; type 0 is forbidden (RFC 5095).
            ROUTING if e[3] != 0 => return Err(Reason::Ipv6RoutingHeader),
            FRAGMENT => 8,
            AUTHENTICATION => (e[1] as usize + 2) << 2,
            _ => (e[1] as usize + 1) << 3,
        };
        let next = e[0];
        let payload_at = p.transport_at + len;
        if payload_at > p.end {
            return Err(Reason::MalformedIpv6);
        }
        let mut stop = false;
        if p.protocol == FRAGMENT {
            // A second fragment header would be a fragment of a fragment.
            if p.fragment != Fragment::Whole {
                return Err(Reason::FragmentMalformed);
            }
            let field = be16(e, 2);
            p.fragment_id = u32::from_be_bytes([e[4], e[5], e[6], e[7]]);
            p.fragment = check_fragment((field & 0xfff8) as usize, field & 1 != 0, p.end - payload_at)?;
            stop = p.fragment == Fragment::Later;
        }
        p.protocol = view.forget(next as u64) as u8;
        p.transport_at = view.forget(payload_at as u64) as usize;
        if stop || !is_extension(next) {
            return Ok(());
        }
    }
    Err(Reason::Ipv6HeaderChain)
}
