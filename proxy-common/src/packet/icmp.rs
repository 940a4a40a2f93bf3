//! ICMP errors: which types they are, and the packet that they quote (RFC 792, RFC 4443 section 2.4).
//!
//! Called by [`crate::engine::icmp`] to find the flow that an error is about.

use super::view::{PacketView, be16};
use super::{Addr, PacketInfo, protocol};

/// IPv6 fragment header.
const FRAGMENT_HEADER: u8 = 44;
/// ICMP echo reply.
pub const ECHO_REPLY: u8 = 0;
/// ICMP echo request.
pub const ECHO_REQUEST: u8 = 8;
/// ICMPv6 echo request.
pub const ECHO_REQUEST_V6: u8 = 128;
/// ICMPv6 echo reply.
pub const ECHO_REPLY_V6: u8 = 129;
/// ICMPv6 multicast listener query, the first of MLD's types (130–132).
pub const MLD_QUERY: u8 = 130;
/// ICMPv6 multicast listener done.
pub const MLD_DONE: u8 = 132;
/// ICMPv6 router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// ICMPv6 redirect.
pub const REDIRECT_V6: u8 = 137;
/// ICMPv6 multicast listener report, version 2 (RFC 3810).
pub const MLD_REPORT_V2: u8 = 143;

/// True for an echo request of either family.
#[inline(always)]
pub const fn is_echo_request(p: &PacketInfo) -> bool {
    (p.protocol == protocol::ICMP && !p.v6 && p.icmp_type == ECHO_REQUEST)
        || (p.protocol == protocol::ICMPV6 && p.v6 && p.icmp_type == ECHO_REQUEST_V6)
}

/// True for an echo reply of either family.
#[inline(always)]
pub const fn is_echo_reply(p: &PacketInfo) -> bool {
    (p.protocol == protocol::ICMP && !p.v6 && p.icmp_type == ECHO_REPLY)
        || (p.protocol == protocol::ICMPV6 && p.v6 && p.icmp_type == ECHO_REPLY_V6)
}

/// True for errors that quote the packet they are about: unreachable, time exceeded, parameter problem,
/// packet too big. Source quench and redirects are obsolete or dangerous and are not among them.
#[inline(always)]
pub const fn is_error(p: &PacketInfo) -> bool {
    (p.protocol == protocol::ICMP && !p.v6 && matches!(p.icmp_type, 3 | 11 | 12))
        || (p.protocol == protocol::ICMPV6 && p.v6 && matches!(p.icmp_type, 1..=4))
}

/// The quoted packet, as far as it names a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its source: this host, if the error is honest.
    pub source: Addr,
    /// Its destination.
    pub destination: Addr,
    /// Its protocol.
    pub protocol: u8,
    /// Source port; identifier of an echo.
    pub source_port: u16,
    /// Destination port; 0 for an echo.
    pub destination_port: u16,
}

/// Reads the packet that `p`, an error, quotes; `None` where it names no flow (too short, a later fragment,
/// extension headers besides a fragment header, another protocol than TCP, UDP and echo).
#[inline(always)]
pub fn quote<V: PacketView>(view: &V, p: &PacketInfo) -> Option<Quote> {
    let at = p.transport_at + 8;
    let (source, destination, inner, transport_at) = if p.v6 {
        let h: &[u8; 40] = view.bytes(at)?;
        if h[0] >> 4 != 6 {
            return None;
        }
        let source = Addr::v6(
            [h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15]],
            [h[16], h[17], h[18], h[19], h[20], h[21], h[22], h[23]],
        );
        let destination = Addr::v6(
            [h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31]],
            [h[32], h[33], h[34], h[35], h[36], h[37], h[38], h[39]],
        );
        if h[6] == FRAGMENT_HEADER {
            // Of a datagram that this host sent in parts: path-MTU discovery for UDP needs it.
            let f: &[u8; 8] = view.bytes(at + 40)?;
            if be16(f, 2) & 0xfff8 != 0 {
                return None;
            }
            (source, destination, f[0], at + 48)
        } else {
            (source, destination, h[6], at + 40)
        }
    } else {
        let h: &[u8; 20] = view.bytes(at)?;
        let header_len = ((h[0] & 15) as usize) << 2;
        if h[0] >> 4 != 4 || header_len < 20 || be16(h, 6) & 0x1fff != 0 {
            return None;
        }
        let source = Addr::v4([h[12], h[13], h[14], h[15]]);
        (source, Addr::v4([h[16], h[17], h[18], h[19]]), h[9], at + header_len)
    };
    // RFC 792: at least the first eight bytes of the transport header are quoted.
    let t: &[u8; 8] = view.bytes(transport_at)?;
    if transport_at + 8 > p.end {
        return None;
    }
    let (source_port, destination_port) = match inner {
        protocol::TCP | protocol::UDP => (be16(t, 0), be16(t, 2)),
        protocol::ICMP if !p.v6 && t[0] == ECHO_REQUEST => (be16(t, 4), 0),
        protocol::ICMPV6 if p.v6 && t[0] == ECHO_REQUEST_V6 => (be16(t, 4), 0),
        _ => return None,
    };
    Some(Quote { source, destination, protocol: inner, source_port, destination_port })
}
