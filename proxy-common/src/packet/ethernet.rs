//! Ethernet II and up to two VLAN tags (IEEE 802.1Q, 802.1ad).
//!
//! Called by [`super::parse`]; decides what is IP, what is a link protocol that a host needs, and what is
//! neither.

use super::view::{PacketView, be16};
use crate::abi::reason::Reason;

/// Length of the header without tags.
pub const HEADER: usize = 14;
/// Length of a VLAN tag.
pub const TAG: usize = 4;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const QINQ_OLD: u16 = 0x9100;
const LACP: u16 = 0x8809;
const EAPOL: u16 = 0x888e;
const PREAUTH: u16 = 0x88c7;
const LLDP: u16 = 0x88cc;
const TDLS: u16 = 0x890d;
/// Up to this the field is a length (IEEE 802.3), and LLC follows.
const MAX_LENGTH: u16 = 1500;
/// LLC of spanning tree (IEEE 802.1D section 9.2): both access points 0x42, unnumbered information. Nothing else that comes
/// in LLC is any host's business, and some kernels take IP or worse out of it.
const SPANNING_TREE: [u8; 3] = [0x42, 0x42, 0x03];

/// An IP packet's place in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Where the IP header begins.
    pub network_at: usize,
}

const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, VLAN | QINQ | QINQ_OLD)
}

/// Parses the link header.
///
/// # Errors
/// The reason for frames that are not IP.
#[inline(always)]
pub fn parse<V: PacketView>(view: &V) -> Result<Link, Reason> {
    let header: &[u8; HEADER] = view.bytes(0).ok_or(Reason::MalformedEthernet)?;
    let mut ethertype = be16(header, 12);
    let mut network_at = HEADER;
    if is_tag(ethertype) {
        ethertype = tagged(view, &mut network_at)?;
    }
    match ethertype {
        IPV4 => Ok(Link { v6: false, network_at }),
        IPV6 => Ok(Link { v6: true, network_at }),
        ARP => Err(Reason::Arp),
        EAPOL | PREAUTH | LLDP | LACP | TDLS => Err(Reason::LinkControl),
        length if length <= MAX_LENGTH && view.bytes(network_at) == Some(&SPANNING_TREE) => {
            Err(Reason::LinkControl)
        }
        _ => Err(Reason::UnknownEthertype),
    }
}

#[inline(always)]
fn tagged<V: PacketView>(view: &V, network_at: &mut usize) -> Result<u16, Reason> {
    let first: &[u8; TAG] = view.bytes(HEADER).ok_or(Reason::MalformedEthernet)?;
    *network_at = HEADER + TAG;
    if !is_tag(be16(first, 2)) {
        return Ok(be16(first, 2));
    }
    let second: &[u8; TAG] = view.bytes(HEADER + TAG).ok_or(Reason::MalformedEthernet)?;
    *network_at = HEADER + 2 * TAG;
    if is_tag(be16(second, 2)) { Err(Reason::VlanDepth) } else { Ok(be16(second, 2)) }
}
