//! The header after IP: TCP, UDP, ICMP and ICMPv6, as far as the policy asks about them.

use proxy_common::abi::reason::Reason;
use tollgate::policy::model::Transport as Protocol;

use super::parse::Fragment;
use super::wire;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const TCP_MIN_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// RFC 792, and every message of RFC 4443. ICMPv6 messages are asked for 8 bytes too, though type, code and
/// checksum are 4.
const ICMP_HEADER: usize = 8;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// TCP or UDP.
    Ports {
        protocol: Protocol,
        source: u16,
        destination: u16,
        /// No flag is set for UDP.
        flags: TcpFlags,
    },
    Icmp(Icmp<'a>),
    /// Another protocol; nothing of it is read.
    Other,
    /// A later fragment: what it carries is payload, not a header.
    Unread,
}

/// What an ICMP message is to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp<'a> {
    EchoRequest {
        identifier: u16,
    },
    EchoReply {
        identifier: u16,
    },
    /// Unreachable, packet too big, time exceeded, parameter problem.
    Error {
        quote: &'a [u8],
    },
    /// Router and neighbour solicitation, neighbour advertisement, redirect, of IPv6.
    Neighbour,
    RouterAdvertisement,
    /// MLD query, report, done, and the report of version 2.
    Membership,
    Other,
}

/// The flags of a TCP header that the policy asks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    pub fin: bool,
    pub syn: bool,
    pub rst: bool,
    pub ack: bool,
    /// Urgent data.
    pub urg: bool,
}

impl TcpFlags {
    fn from_byte(bits: u8) -> Self {
        Self {
            fin: bits & 0x01 != 0,
            syn: bits & 0x02 != 0,
            rst: bits & 0x04 != 0,
            ack: bits & 0x10 != 0,
            urg: bits & 0x20 != 0,
        }
    }

    /// SYN without ACK: it opens a connection.
    pub fn opens(self) -> bool {
        self.syn && !self.ack
    }

    /// SYN with FIN or RST, FIN with RST, and none of SYN,
    /// RST and ACK (RFC 9293 section 3.1 has ACK on everything after the SYN but resets); URG with RST or with SYN and ACK.
    /// PSH, ECE and CWR are not looked at.
    fn sent_by_no_tcp(self) -> bool {
        (self.syn && (self.fin || self.rst))
            || (self.fin && self.rst)
            || !(self.syn || self.rst || self.ack)
            || (self.urg && (self.rst || (self.syn && self.ack)))
    }
}

/// Reads what follows the IP headers.
pub fn read(
    v6: bool,
    protocol: u8,
    data: &[u8],
    fragment: Option<Fragment>,
) -> Result<Transport<'_>, Reason> {
    if fragment.is_some_and(|part| part.is_later()) {
        return Ok(Transport::Unread);
    }
    let first = fragment.is_some_and(|part| part.is_first());
    match protocol {
        TCP => read_tcp(data, first),
        UDP => read_udp(data, first),
        ICMP if !v6 => read_icmp(data, first, classify_icmp).map(Transport::Icmp),
        ICMPV6 if v6 => read_icmp(data, first, classify_icmpv6).map(Transport::Icmp),
        _ => Ok(Transport::Other),
    }
}

/// A header that does not fit: in the first of several fragments it may go on in the second.
fn short(first: bool, whole: Reason) -> Reason {
    if first { Reason::FragmentMalformed } else { whole }
}

/// RFC 9293. A first fragment must hold the options too.
fn read_tcp(data: &[u8], first: bool) -> Result<Transport<'_>, Reason> {
    let cut = short(first, Reason::MalformedTcp);
    let fixed = data.get(..TCP_MIN_HEADER).ok_or(cut)?;
    let header_len = usize::from(fixed[12] >> 4) * 4;
    if header_len < TCP_MIN_HEADER {
        return Err(Reason::MalformedTcp);
    }
    if header_len > data.len() {
        return Err(cut);
    }
    let flags = TcpFlags::from_byte(fixed[13]);
    if flags.sent_by_no_tcp() {
        return Err(Reason::TcpFlags);
    }
    Ok(Transport::Ports {
        protocol: Protocol::Tcp,
        source: wire::be16(fixed, 0).ok_or(cut)?,
        destination: wire::be16(fixed, 2).ok_or(cut)?,
        flags,
    })
}

/// RFC 768. A length below that of the packet is no contradiction: what follows is surplus (RFC 9868). A length of
/// zero is too short, for IPv6 too (RFC 2675 has it in jumbograms alone). The length of a first fragment is that
/// of the whole datagram and can't be held against the part.
fn read_udp(data: &[u8], first: bool) -> Result<Transport<'_>, Reason> {
    let cut = short(first, Reason::MalformedUdp);
    let fixed = data.get(..UDP_HEADER).ok_or(cut)?;
    let len = usize::from(wire::be16(fixed, 4).ok_or(cut)?);
    if len < UDP_HEADER || (!first && len > data.len()) {
        return Err(Reason::MalformedUdp);
    }
    Ok(Transport::Ports {
        protocol: Protocol::Udp,
        source: wire::be16(fixed, 0).ok_or(cut)?,
        destination: wire::be16(fixed, 2).ok_or(cut)?,
        flags: TcpFlags::default(),
    })
}

/// RFC 792 and RFC 4443: type, code, checksum and four bytes that depend on the type. Codes are not looked at.
fn read_icmp<'a>(
    data: &'a [u8],
    first: bool,
    classify: fn(u8, u16, &'a [u8]) -> Icmp<'a>,
) -> Result<Icmp<'a>, Reason> {
    let cut = short(first, Reason::MalformedIcmp);
    let (header, quote) = data.split_at_checked(ICMP_HEADER).ok_or(cut)?;
    Ok(classify(header[0], wire::be16(header, 4).ok_or(cut)?, quote))
}

/// RFC 792. Source quench (4) and redirect (5) are not on the page's list of errors.
fn classify_icmp(kind: u8, identifier: u16, quote: &[u8]) -> Icmp<'_> {
    match kind {
        0 => Icmp::EchoReply { identifier },
        8 => Icmp::EchoRequest { identifier },
        3 | 11 | 12 => Icmp::Error { quote },
        _ => Icmp::Other,
    }
}

/// RFC 4443, RFC 4861, RFC 2710, RFC 3810. A "report" is one of either version of MLD.
fn classify_icmpv6(kind: u8, identifier: u16, quote: &[u8]) -> Icmp<'_> {
    match kind {
        1..=4 => Icmp::Error { quote },
        128 => Icmp::EchoRequest { identifier },
        129 => Icmp::EchoReply { identifier },
        130..=132 | 143 => Icmp::Membership,
        133 | 135..=137 => Icmp::Neighbour,
        134 => Icmp::RouterAdvertisement,
        _ => Icmp::Other,
    }
}
