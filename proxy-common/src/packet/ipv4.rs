//! IPv4 (RFC 791): header with options, total length, fragments.
//!
//! Called by [`super::parse`]. The header checksum is left to the host's stack, which drops what fails it.

use super::view::{PacketView, be16};
use super::{Addr, Fragment, PacketInfo, protocol, transport};
use crate::abi::reason::Reason;

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Options that need no length (RFC 791 section 3.1).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
/// Loose and strict source route.
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;
/// Bytes of options that fit in a header.
const MAX_OPTIONS: usize = 40;
/// Longest datagram, which fragments may not overflow.
const MAX_DATAGRAM: usize = 65535;
/// A first fragment of TCP has its whole header, at least 20 bytes, and a multiple of eight: none of the rest begins before.
const FIRST_OF_TCP: usize = 24;

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
    let mut total = be16(h, 2) as usize;
    if total == 0 && view.packets() > 1 && h[9] == protocol::TCP {
        // Merged by the kernel to more than the field can say (BIG TCP, Linux 6.3).
        total = view.len() - at;
    }
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
    if header_len > HEADER {
        check_options(view, at + HEADER, p.transport_at)?;
    }
    let fragment = be16(h, 6);
    if fragment & (MORE_FRAGMENTS | OFFSET) != 0 {
        p.fragment_id = be16(h, 4) as u32;
        let offset = ((fragment & OFFSET) as usize) << 3;
        let more = fragment & MORE_FRAGMENTS != 0;
        p.fragment = check_fragment(offset, more, header_len, total - header_len, p.protocol)?;
        if p.fragment == Fragment::Later {
            return Ok(p);
        }
    }
    transport::parse(view, p)
}

/// Walks the options from `at` to `end`.
///
/// # Errors
/// A source route: the answer would go where the sender of a forged source wants it (RFC 7126 section 4.3 and 4.4). An
/// option that has no length, or is longer than the header.
#[inline(always)]
fn check_options<V: PacketView>(view: &V, mut at: usize, end: usize) -> Result<(), Reason> {
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            break;
        }
        // With the byte before it: the verifier does not see the bound of a single byte.
        let kind: &[u8; 2] = view.bytes(at - 1).ok_or(Reason::MalformedIpv4)?;
        match kind[1] {
            END_OF_OPTIONS => break,
            NO_OPERATION => at += 1,
            LOOSE_ROUTE | STRICT_ROUTE => return Err(Reason::MalformedIpv4),
            _ => {
                let option: &[u8; 2] = view.bytes(at).ok_or(Reason::MalformedIpv4)?;
                let length = option[1] as usize;
                if length < 2 || at + length > end {
                    return Err(Reason::MalformedIpv4);
                }
                at += length;
            }
        }
        at = view.forget(at as u64) as usize;
    }
    Ok(())
}

/// What a fragment of `len` bytes at `offset` is, with `before` bytes of headers in front of it that count as the datagram's;
/// shared with IPv6. `next` is the protocol of the whole.
///
/// # Errors
/// A fragment that carries nothing, overflows its datagram, is not the last and no multiple of eight bytes, or overlaps the
/// header of a TCP segment (RFC 1858, RFC 3128).
#[inline(always)]
pub(super) fn check_fragment(
    offset: usize,
    more: bool,
    before: usize,
    len: usize,
    next: u8,
) -> Result<Fragment, Reason> {
    let odd = more && len & 7 != 0;
    let overlaps = offset != 0 && offset < FIRST_OF_TCP && next == protocol::TCP;
    if len == 0 || before + offset + len > MAX_DATAGRAM || odd || overlaps {
        return Err(Reason::FragmentMalformed);
    }
    Ok(if offset == 0 { Fragment::First } else { Fragment::Later })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Forget, Slice};

    /// A frame with IPv4 options, in front of a protocol that nobody reads.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let words = 5 + options.len() as u8 / 4;
        let mut frame = vec![0; 14];
        frame.extend([0x40 + words, 0, 0, words * 4, 0, 0, 0, 0, 64, 47, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend(options);
        frame
    }

    fn parsed(options: &[u8]) -> Option<Reason> {
        parse(&Slice(&with_options(options)), 14).err()
    }

    #[test]
    fn source_routes_drop_and_other_options_pass() {
        for good in [
            [148, 4, 0, 0].as_slice(),
            &[1, 1, 1, 1],
            &[0, 131, 137, 9],
            &[1, 7, 3, 4],
            &[1, 68, 6, 5, 0, 0, 1, 0],
        ] {
            assert_eq!(parsed(good), None, "{good:?}");
        }
        for bad in
            [[131, 3, 4, 0].as_slice(), &[1, 137, 3, 4], &[148, 0, 0, 0], &[148, 5, 0, 0], &[1, 1, 1, 148]]
        {
            assert_eq!(parsed(bad), Some(Reason::MalformedIpv4), "{bad:?}");
        }
        assert_eq!(parsed(&[1; 40]), None);
    }

    #[test]
    fn fragments_fit_in_a_datagram_and_overlap_no_header() {
        let part = |offset, more, len, next| check_fragment(offset, more, 20, len, next);
        assert_eq!(part(65_512, false, 3, 17), Ok(Fragment::Later));
        for (offset, more, len, next) in
            [(65_512, false, 4, 17), (8, false, 0, 17), (16, true, 9, 17), (8, true, 8, 6), (16, false, 3, 6)]
        {
            assert_eq!(
                part(offset, more, len, next),
                Err(Reason::FragmentMalformed),
                "{offset} {more} {len} {next}"
            );
        }
        assert_eq!(part(24, true, 8, 6), Ok(Fragment::Later));
        assert_eq!(part(8, true, 8, 17), Ok(Fragment::Later));
        assert_eq!(part(0, true, 24, 6), Ok(Fragment::First));
    }

    /// A packet that the kernel has merged from several.
    struct Merged<'a>(Slice<'a>);

    impl Forget for Merged<'_> {}

    impl PacketView for Merged<'_> {
        fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
            self.0.bytes(at)
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn packets(&self) -> u32 {
            50
        }
    }

    #[test]
    fn a_merged_packet_too_long_for_its_length_field_is_as_long_as_its_frame() {
        let mut frame = with_options(&[]);
        frame[17] = 0;
        frame[23] = protocol::TCP;
        frame.extend([0, 80, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 16, 0, 0, 0, 0, 0, 0]);
        frame.resize(70_000, 0);
        assert_eq!(parse(&Slice(&frame), 14).err(), Some(Reason::MalformedIpv4));
        assert_eq!(parse(&Merged(Slice(&frame)), 14).map(|p| p.end), Ok(70_000));
        frame[23] = 47;
        assert_eq!(parse(&Merged(Slice(&frame)), 14).err(), Some(Reason::MalformedIpv4));

        let mut frame = vec![0; 14];
        frame.extend([0x60, 0, 0, 0, 0, 0, protocol::TCP, 64]);
        frame.extend([0x20; 32]);
        frame.extend([0, 80, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 16, 0, 0, 0, 0, 0, 0]);
        frame.resize(70_000, 0);
        assert_eq!(crate::packet::ipv6::parse(&Slice(&frame), 14).err(), Some(Reason::MalformedTcp));
        assert_eq!(crate::packet::ipv6::parse(&Merged(Slice(&frame)), 14).map(|p| p.end), Ok(70_000));
    }
}
