//! From bytes to [`PacketInfo`]: what the packet is, with every length checked.
//!
//! Called once a packet by [`crate::engine`]. Three outcomes: a packet of ours (`Ok`), not ours (`Err` with a
//! reason that passes: ARP, EAPOL, …) and malformed (`Err` with a reason that drops).

pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod transport;
pub mod view;

pub use view::{Forget, PacketView, Slice};

use crate::abi::reason::Reason;

/// IP protocol numbers (IANA) that the engine knows by name.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// An address as two numbers, most significant bits first: IPv4 fills the upper 32 bits of `hi`.
///
/// Left-aligned, so that one trie walk and one set of masks serve both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addr {
    /// Bits 0–63 from the left.
    pub hi: u64,
    /// Bits 64–127.
    pub lo: u64,
}

impl Addr {
    /// From the bytes of an IPv4 header.
    #[inline(always)]
    pub const fn v4(b: [u8; 4]) -> Self {
        Self { hi: (u32::from_be_bytes(b) as u64) << 32, lo: 0 }
    }

    /// From the bytes of an IPv6 header.
    #[inline(always)]
    pub const fn v6(hi: [u8; 8], lo: [u8; 8]) -> Self {
        Self { hi: u64::from_be_bytes(hi), lo: u64::from_be_bytes(lo) }
    }

    /// From a standard address.
    pub const fn from_ip(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(a) => Self::v4(a.octets()),
            core::net::IpAddr::V6(a) => {
                let n = u128::from_be_bytes(a.octets());
                Self { hi: (n >> 64) as u64, lo: n as u64 }
            }
        }
    }

    /// fe80::/10 (RFC 4291 section 2.5.6).
    #[inline(always)]
    pub const fn is_v6_link_local(self) -> bool {
        self.hi >> 54 == 0xfe80 >> 6
    }

    /// The unspecified and the loopback addresses (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5): a host that takes
    /// packets to them from outside lets strangers talk to what is bound to loopback.
    #[inline(always)]
    pub const fn is_never_on_a_network(self, v6: bool) -> bool {
        if v6 { self.hi == 0 && self.lo <= 1 } else { self.hi >> 56 == 127 || self.hi == 0 }
    }

    /// The IPv6 unspecified address.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.hi | self.lo == 0
    }
}

/// Where a packet stands in its datagram.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is the datagram.
    Whole = 0,
    /// Offset 0, more to follow; its transport header is complete.
    First = 1,
    /// Offset above 0: it has no transport header to read.
    Later = 2,
    /// IPv6: it is the datagram, and has a fragment header all the same (RFC 6946).
    Atomic = 3,
}

impl Fragment {
    #[inline(always)]
    const fn from_number(number: u64) -> Self {
        // Two bits, so that comparing the result is comparing the bits.
        match number & 3 {
            0 => Self::Whole,
            1 => Self::First,
            2 => Self::Later,
            _ => Self::Atomic,
        }
    }
}

/// A packet whose lengths are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Where it stands in its datagram.
    pub fragment: Fragment,
    /// The protocol after all IPv6 extension headers.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TCP flags byte; 0 for others.
    pub tcp_flags: u8,
    /// ICMP type; 0 for others.
    pub icmp_type: u8,
    /// ICMP code; 0 for others.
    pub icmp_code: u8,
    /// Source port; identifier of an ICMP echo.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Where the transport header begins in the frame.
    pub transport_at: usize,
    /// Where the IP packet ends in the frame.
    pub end: usize,
    /// Identification of the fragmented datagram.
    pub fragment_id: u32,
    /// Source.
    pub source: Addr,
    /// Destination.
    pub destination: Addr,
}

/// Parses a frame.
///
/// # Errors
/// The reason why it is not an IP packet to decide on: one that passes for link protocols that a host needs,
/// one that drops for what can't be parsed.
#[inline(always)]
pub fn parse<V: PacketView>(view: &V) -> Result<PacketInfo, Reason> {
    let link = ethernet::parse(view)?;
    let network_at = view.forget(link.network_at as u64) as usize;
    let p = if link.v6 { ipv6::parse(view, network_at)? } else { ipv4::parse(view, network_at)? };
    Ok(forget(view, p))
}

/// The place where all parse paths meet: see [`Forget::forget`].
///
/// Small fields travel in three words. Each word is forgotten once, and fits in a register where ten fields would not.
#[inline(always)]
fn forget<V: PacketView>(view: &V, p: PacketInfo) -> PacketInfo {
    let kind = p.v6 as u64
        | (p.fragment as u64) << 8
        | (p.protocol as u64) << 16
        | (p.hop_limit as u64) << 24
        | (p.tcp_flags as u64) << 32
        | (p.icmp_type as u64) << 40
        | (p.icmp_code as u64) << 48;
    let ports = p.source_port as u64 | (p.destination_port as u64) << 16 | (p.fragment_id as u64) << 32;
    let places = p.transport_at as u64 | (p.end as u64) << 32;
    let (kind, ports, places) = (view.forget(kind), view.forget(ports), view.forget(places));
    PacketInfo {
        v6: kind & 1 != 0,
        fragment: Fragment::from_number(kind >> 8 & 0xff),
        protocol: (kind >> 16) as u8,
        hop_limit: (kind >> 24) as u8,
        tcp_flags: (kind >> 32) as u8,
        icmp_type: (kind >> 40) as u8,
        icmp_code: (kind >> 48) as u8,
        source_port: ports as u16,
        destination_port: (ports >> 16) as u16,
        transport_at: places as u32 as usize,
        end: (places >> 32) as usize,
        fragment_id: (ports >> 32) as u32,
        source: Addr { hi: view.forget(p.source.hi), lo: view.forget(p.source.lo) },
        destination: Addr { hi: view.forget(p.destination.hi), lo: view.forget(p.destination.lo) },
    }
}
