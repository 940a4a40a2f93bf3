//! Step 1: what a frame is, from Ethernet to the transport header, or the reason that ends it there.
//!
//! The order of the checks is that of the wire: the first header that is wrong gives the reason.

use std::net::IpAddr;

use proxy_common::abi::reason::Reason;

use super::extensions;
use super::transport::{self, Transport};
use super::wire;

/// IEEE 802: two addresses and a type.
const ETHERNET_HEADER: usize = 14;
const TYPE_AT: usize = 12;
const TAG_LEN: usize = 4;
/// 802.1Q, 802.1ad, and the number that QinQ had before the standard.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const MAX_TAGS: usize = 2;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;
/// EAPOL (802.1X) and its pre-authentication, TDLS (802.11z), LLDP (802.1AB), slow protocols (802.3 annex 57A: LACP).
const LINK_CONTROL: [u16; 5] = [0x888e, 0x88c7, 0x890d, 0x88cc, 0x8809];
/// Up to here the type field is a length, and an LLC header follows (802.3).
const MAX_LENGTH_FIELD: u16 = 1500;
/// LLC of the spanning tree protocol (802.1D): both service access points 0x42, unnumbered information.
const SPANNING_TREE: [u8; 3] = [0x42, 0x42, 0x03];

/// The last byte of a frame at which a header may begin.
pub const LAST_START: usize = 1023;
/// RFC 791 and RFC 8200: the longest datagram, the IPv6 header itself not counted.
const MAX_DATAGRAM: usize = 65_535;
const IPV4_MIN_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// An IP packet without contradictions.
#[derive(Debug)]
pub struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Hop limit, or time to live.
    pub hop_limit: u8,
    /// What follows the IP headers: the IPv4 protocol, or the next header at the end of the IPv6 chain.
    pub protocol: u8,
    /// Set if it is a fragment, or an IPv6 packet with a fragment header though it is in one piece (RFC 6946).
    pub fragment: Option<Fragment>,
    pub transport: Transport<'a>,
    /// Where the transport header begins in the frame.
    pub transport_at: usize,
    /// Bytes of the frame, link header and padding included.
    pub frame_len: usize,
}

/// Which part of a datagram this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub id: u32,
    /// Bytes before this part.
    pub offset: usize,
    /// More parts follow.
    pub more: bool,
}

impl Fragment {
    /// It begins a datagram that has more parts.
    pub fn is_first(&self) -> bool {
        self.offset == 0 && self.more
    }

    /// It does not begin its datagram.
    pub fn is_later(&self) -> bool {
        self.offset > 0
    }

    /// True if it does not fit a datagram of this protocol: `header` bytes are in front of the part of `data` bytes in the
    /// whole one.
    pub fn is_unfit(&self, header: usize, data: usize, protocol: u8) -> bool {
        let is_part = self.is_first() || self.is_later();
        let too_long = header + self.offset + data > MAX_DATAGRAM;
        let uneven = self.more && !data.is_multiple_of(8);
        let overlaps = self.is_later() && self.offset < 24 && protocol == 6;
        is_part && (data == 0 || too_long || uneven || overlaps)
    }
}

/// Reads a frame. The error is the reason that ends it in step 1, which passes for link protocols.
pub fn parse(frame: &[u8]) -> Result<Packet<'_>, Reason> {
    let mut ethertype = wire::be16(frame, TYPE_AT).ok_or(Reason::MalformedEthernet)?;
    let mut start = ETHERNET_HEADER;
    let mut tags = 0;
    while TAGS.contains(&ethertype) {
        if tags == MAX_TAGS {
            return Err(Reason::VlanDepth);
        }
        ethertype = wire::be16(frame, start + 2).ok_or(Reason::MalformedEthernet)?;
        start += TAG_LEN;
        tags += 1;
    }
    let payload = frame.get(start..).unwrap_or_default();
    match ethertype {
        TYPE_IPV4 => parse_ipv4(payload, frame.len()),
        TYPE_IPV6 => parse_ipv6(payload, frame.len()),
        TYPE_ARP => Err(Reason::Arp),
        other if LINK_CONTROL.contains(&other) => Err(Reason::LinkControl),
        length if length <= MAX_LENGTH_FIELD && payload.starts_with(&SPANNING_TREE) => {
            Err(Reason::LinkControl)
        }
        _ => Err(Reason::UnknownEthertype),
    }
}

/// RFC 791. The checksum is not looked at.
fn parse_ipv4(bytes: &[u8], frame_len: usize) -> Result<Packet<'_>, Reason> {
    let malformed = Reason::MalformedIpv4;
    let fixed = bytes.get(..IPV4_MIN_HEADER).ok_or(malformed)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let total_len = usize::from(wire::be16(fixed, 2).ok_or(malformed)?);
    if fixed[0] >> 4 != 4 || header_len < IPV4_MIN_HEADER || total_len < header_len {
        return Err(malformed);
    }
    // What follows the total length is padding of the link (RFC 894).
    let data = bytes.get(..total_len).ok_or(malformed)?.get(header_len..).ok_or(malformed)?;
    if !has_good_options(bytes.get(IPV4_MIN_HEADER..header_len).ok_or(malformed)?) {
        return Err(malformed);
    }

    let flags = wire::be16(fixed, 6).ok_or(malformed)?;
    let part = Fragment {
        id: u32::from(wire::be16(fixed, 4).ok_or(malformed)?),
        offset: usize::from(flags & 0x1fff) * 8,
        more: flags & 0x2000 != 0,
    };
    let fragment = (part.offset > 0 || part.more).then_some(part);
    let protocol = fixed[9];
    if fragment.is_some_and(|part| part.is_unfit(header_len, data.len(), protocol)) {
        return Err(Reason::FragmentMalformed);
    }
    Ok(Packet {
        source: wire::ipv4(fixed, 12).ok_or(malformed)?.into(),
        destination: wire::ipv4(fixed, 16).ok_or(malformed)?.into(),
        hop_limit: fixed[8],
        protocol,
        fragment,
        transport: transport::read(false, protocol, data, fragment)?,
        transport_at: frame_len - bytes.len() + header_len,
        frame_len,
    })
}

/// RFC 791 section 3.1: one byte, or a kind, a length and the rest. A source route (131, 137) is not good.
fn has_good_options(mut options: &[u8]) -> bool {
    loop {
        let length = match options {
            [] | [0, ..] => return true,
            [1, ..] => 1,
            [131 | 137, ..] | [_] => return false,
            [_, length, ..] => usize::from(*length).max(1),
        };
        match options.get(length..) {
            Some(rest) if length > 1 || options[0] == 1 => options = rest,
            _ => return false,
        }
    }
}

/// RFC 8200. Open: a payload length of zero is an empty payload; jumbograms (RFC 2675) are not known.
fn parse_ipv6(bytes: &[u8], frame_len: usize) -> Result<Packet<'_>, Reason> {
    let malformed = Reason::MalformedIpv6;
    let fixed = bytes.get(..IPV6_HEADER).ok_or(malformed)?;
    if fixed[0] >> 4 != 6 {
        return Err(malformed);
    }
    let payload_len = usize::from(wire::be16(fixed, 4).ok_or(malformed)?);
    let payload = bytes.get(IPV6_HEADER..).unwrap_or_default().get(..payload_len).ok_or(malformed)?;
    let begin = frame_len - bytes.len() + IPV6_HEADER;
    let chain = extensions::walk(fixed[6], payload, LAST_START.saturating_sub(begin))?;
    Ok(Packet {
        source: wire::ipv6(fixed, 8).ok_or(malformed)?.into(),
        destination: wire::ipv6(fixed, 24).ok_or(malformed)?.into(),
        hop_limit: fixed[7],
        protocol: chain.protocol,
        fragment: chain.fragment,
        transport: transport::read(true, chain.protocol, chain.data, chain.fragment)?,
        transport_at: begin + payload.len() - chain.data.len(),
        frame_len,
    })
}
