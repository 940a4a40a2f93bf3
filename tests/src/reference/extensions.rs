//! The chain of IPv6 extension headers (RFC 8200 section 4).

use proxy_common::abi::reason::Reason;

use super::parse::Fragment;
use super::wire;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// As many as the page allows.
pub const MAX_HEADERS: usize = 8;
const FRAGMENT_HEADER: usize = 8;
/// RFC 4302: next header, length, reserved, index and sequence number. A shorter one contradicts itself.
const AUTHENTICATION_MIN: usize = 12;

/// Where the chain ends.
#[derive(Debug)]
pub struct Chain<'a> {
    /// The next header that is no extension header; in a later fragment, that of the fragment header.
    pub protocol: u8,
    /// What follows the chain.
    pub data: &'a [u8],
    pub fragment: Option<Fragment>,
}

/// Walks the extension headers that `payload` begins with; `first` says what the first one is.
///
/// All numbers that are not listed above end the chain. No header may begin after `last_start`. Options inside the headers
/// are not looked at.
pub fn walk(first: u8, payload: &[u8], last_start: usize) -> Result<Chain<'_>, Reason> {
    let mut next = first;
    let mut at = 0;
    let mut headers = 0;
    let mut fragment: Option<Fragment> = None;
    loop {
        let rest = payload.get(at..).unwrap_or_default();
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            return Ok(Chain { protocol: next, data: rest, fragment });
        }
        if headers == MAX_HEADERS {
            return Err(Reason::Ipv6HeaderChain);
        }
        // RFC 8200 section 4.1: hop-by-hop options stand immediately after the IPv6 header only.
        if next == HOP_BY_HOP && headers > 0 {
            return Err(Reason::MalformedIpv6);
        }
        // RFC 7112: the first fragment holds the whole chain. If not, it is too small to judge.
        let cut = match fragment {
            Some(part) if part.is_first() => Reason::FragmentMalformed,
            _ => Reason::MalformedIpv6,
        };
        let following = wire::byte(rest, 0).ok_or(cut)?;
        let units = usize::from(wire::byte(rest, 1).ok_or(cut)?);
        let len = match next {
            FRAGMENT => FRAGMENT_HEADER,
            // RFC 4302 section 2.2: in units of 4 bytes, minus 2.
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        let header = rest.get(..len).ok_or(cut)?;
        match next {
            ROUTING if wire::byte(header, 3).ok_or(cut)? > 0 => return Err(Reason::Ipv6RoutingHeader),
            AUTHENTICATION if len < AUTHENTICATION_MIN => return Err(Reason::MalformedIpv6),
            FRAGMENT => {
                if fragment.is_some() {
                    return Err(Reason::FragmentMalformed);
                }
                let part = read_fragment(header).ok_or(cut)?;
                let data = rest.get(len..).unwrap_or_default();
                if part.is_unfit(at, data.len(), following) {
                    return Err(Reason::FragmentMalformed);
                }
                if at + len > last_start {
                    return Err(Reason::Ipv6HeaderChain);
                }
                if part.is_later() {
                    return Ok(Chain { protocol: following, data, fragment: Some(part) });
                }
                fragment = Some(part);
            }
            _ => {}
        }
        headers += 1;
        at += len;
        if at > last_start {
            return Err(Reason::Ipv6HeaderChain);
        }
        next = following;
    }
}

/// RFC 8200 section 4.5: 13 bits of offset in units of 8 bytes, 2 reserved bits, the M flag, the identification.
fn read_fragment(header: &[u8]) -> Option<Fragment> {
    let offset_and_more = wire::be16(header, 2)?;
    Some(Fragment {
        id: wire::be32(header, 4)?,
        offset: usize::from(offset_and_more & 0xfff8),
        more: offset_and_more & 1 == 1,
    })
}
