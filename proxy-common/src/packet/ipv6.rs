//! IPv6 (RFC 8200): header and a bounded walk of extension headers.
//!
//! Called by [`super::parse`]. Lengths are exact: most extensions count 8-byte units past the first, the
//! authentication header counts 4-byte units past the first two (RFC 4302 section 2.2).

use super::ipv4::check_fragment;
use super::view::{MAX_OFFSET, PacketView, be16};
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

/// Those that Linux walks too. It ends the chain at mobility, HIP and Shim6: to look behind them would be to judge a header
/// that no one reads.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
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
    let mut end = at + HEADER + be16(h, 4) as usize;
    if end == at + HEADER && view.packets() > 1 {
        // Merged by the kernel to more than the field can say (BIG TCP, Linux 5.19; some kernels add a jumbo option).
        end = view.len();
    }
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
        walk(view, &mut p, at + HEADER)?;
        if p.fragment == Fragment::Later {
            return Ok(p);
        }
    }
    transport::parse(view, p)
}

/// Walks from the end of the IPv6 header at `begin` to the transport header, or to a fragment that has none.
#[inline(always)]
fn walk<V: PacketView>(view: &V, p: &mut PacketInfo, begin: usize) -> Result<(), Reason> {
    for nth in 0..MAX_EXTENSIONS {
        // Only the first extension may be hop-by-hop (RFC 8200 section 4.1).
        if p.protocol == HOP_BY_HOP && nth != 0 {
            return Err(Reason::MalformedIpv6);
        }
        let e: &[u8; 8] = view.bytes(p.transport_at).ok_or(cut(p))?;
        let next = e[0];
        let len = match p.protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (e[1] as usize + 2) << 2,
            _ => (e[1] as usize + 1) << 3,
        };
        let payload_at = p.transport_at + len;
        if payload_at > p.end {
            return Err(cut(p));
        }
        let mut stop = false;
        match p.protocol {
            // Nothing that a host needs routes through it; type 0 is forbidden (RFC 5095).
            ROUTING if e[3] != 0 => return Err(Reason::Ipv6RoutingHeader),
            // RFC 4302 section 2: twelve bytes before the check value.
            AUTHENTICATION if e[1] == 0 => return Err(Reason::MalformedIpv6),
            FRAGMENT => {
                // A second fragment header would be a fragment of a fragment.
                if p.fragment != Fragment::Whole {
                    return Err(Reason::FragmentMalformed);
                }
                let field = be16(e, 2);
                p.fragment_id = u32::from_be_bytes([e[4], e[5], e[6], e[7]]);
                p.fragment = if field & 0xfff9 == 0 {
                    Fragment::Atomic
                } else {
                    let (offset, more) = ((field & 0xfff8) as usize, field & 1 != 0);
                    // RFC 8200 section 4.5: the fragment header itself is not in the datagram.
                    check_fragment(offset, more, p.transport_at - begin, p.end - payload_at, next)?
                };
                stop = p.fragment == Fragment::Later;
            }
            _ => {}
        }
        // What would come next can't be read: see `PacketView::bytes`.
        if payload_at > MAX_OFFSET {
            return Err(Reason::Ipv6HeaderChain);
        }
        p.protocol = view.forget(next as u64) as u8;
        p.transport_at = view.forget(payload_at as u64) as usize;
        if stop || !is_extension(next) {
            return Ok(());
        }
    }
    Err(Reason::Ipv6HeaderChain)
}

/// Why a header that is not all there ends the packet: a first fragment must have the whole chain (RFC 7112).
#[inline(always)]
const fn cut(p: &PacketInfo) -> Reason {
    match p.fragment {
        Fragment::First => Reason::FragmentMalformed,
        Fragment::Whole | Fragment::Atomic | Fragment::Later => Reason::MalformedIpv6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Slice;

    /// What becomes of a chain of headers that `first` begins and UDP ends, and of what is not all there.
    fn parsed(first: u8, chain: &[u8]) -> Result<(Fragment, u8), Reason> {
        let mut frame = vec![0; 14];
        let length = (chain.len() + 8) as u16;
        frame.extend([0x60, 0, 0, 0, (length >> 8) as u8, length as u8, first, 64]);
        frame.extend([0x20; 32]);
        frame.extend(chain);
        frame.extend([0, 1, 0, 2, 0, 8, 0, 0]);
        parse(&Slice(&frame), 14).map(|p| (p.fragment, p.protocol))
    }

    #[test]
    fn one_fragment_header_even_if_it_fragments_nothing() {
        let atomic = |next| [next, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(parsed(44, &atomic(17)), Ok((Fragment::Atomic, 17)));
        assert_eq!(parsed(44, &[atomic(44), atomic(17)].concat()), Err(Reason::FragmentMalformed));
        // The second part of a TCP header.
        assert_eq!(parsed(44, &[6, 0, 0, 16, 0, 0, 0, 1]), Err(Reason::FragmentMalformed));
    }

    #[test]
    fn the_chain_ends_where_the_kernel_ends_it() {
        for last in [135, 139, 140, 50, 59] {
            assert_eq!(parsed(60, &[last, 0, 0, 0, 0, 0, 0, 0]), Ok((Fragment::Whole, last)));
        }
        assert_eq!(parsed(51, &[17, 0, 0, 0, 0, 0, 0, 0]), Err(Reason::MalformedIpv6));
        // Cut off: in a first fragment it is that which is wrong.
        assert_eq!(parsed(60, &[17, 2, 0, 0, 0, 0, 0, 0]), Err(Reason::MalformedIpv6));
        assert_eq!(
            parsed(44, &[60, 0, 0, 1, 0, 0, 0, 1, 17, 2, 0, 0, 0, 0, 0, 0]),
            Err(Reason::FragmentMalformed)
        );
        // The next header would begin at byte 1,030.
        let mut long = vec![0; 976];
        (long[0], long[1]) = (17, 121);
        assert_eq!(parsed(60, &long), Err(Reason::Ipv6HeaderChain));
    }
}
