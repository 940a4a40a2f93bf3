//! Plumbing: what a host needs besides its services, by name, each of which a policy can narrow.
//!
//! ARP and other link protocols never get this far ([`crate::packet::ethernet`]).

use super::limiter::Charge;
use super::{Tables, icmp as errors};
use crate::abi::reason::Reason;
use crate::abi::settings::{
    PLUMBING_DHCP, PLUMBING_DHCPV6, PLUMBING_MDNS, PLUMBING_MEMBERSHIP, PLUMBING_PING, PLUMBING_RA,
};
use crate::packet::{Addr, Fragment, PacketInfo, PacketView, icmp, protocol};

/// Hop limit of packets that no router has forwarded (RFC 4861 section 7.1).
const ON_LINK: u8 = 255;
const MDNS_PORT: u16 = 5353;
const MDNS_V4: Addr = Addr::v4([224, 0, 0, 251]);
const MDNS_V6: Addr = Addr { hi: 0xff02 << 48, lo: 0xfb };

#[inline(always)]
fn has<T: Tables>(tables: &T, bit: u32) -> bool {
    tables.setting(|s| &s.plumbing) & bit != 0
}

/// ICMPv6 that a link needs, decided before the source is classed: duplicate address detection and listener
/// reports come from the unspecified address. `None`: not of this kind.
#[inline(always)]
pub(super) fn discovery<T: Tables>(tables: &T, p: &PacketInfo) -> Option<Reason> {
    if !p.v6 || p.fragment == Fragment::Later {
        return None;
    }
    // RFC 6980: neighbour discovery has no fragment header.
    let whole = p.fragment == Fragment::Whole;
    match p.icmp_type {
        icmp::NEIGHBOUR_SOLICITATION
        | icmp::NEIGHBOUR_ADVERTISEMENT
        | icmp::ROUTER_SOLICITATION
        | icmp::REDIRECT_V6 => Some(if whole && p.hop_limit == ON_LINK {
            Reason::NeighbourDiscovery
        } else {
            Reason::NeighbourDiscoveryForged
        }),
        // RFC 4861 section 6.1.2: from a link-local address.
        icmp::ROUTER_ADVERTISEMENT if has(tables, PLUMBING_RA) => {
            Some(if whole && p.hop_limit == ON_LINK && p.source.is_v6_link_local() {
                Reason::RouterAdvertisement
            } else {
                Reason::NeighbourDiscoveryForged
            })
        }
        // RFC 3810 section 5: from a link-local or the unspecified address, hop limit 1.
        icmp::MLD_QUERY..=icmp::MLD_DONE | icmp::MLD_REPORT_V2
            if has(tables, PLUMBING_MEMBERSHIP)
                && whole
                && p.hop_limit == 1
                && (p.source.is_v6_link_local() || p.source.is_zero()) =>
        {
            Some(Reason::MulticastMembership)
        }
        _ => None,
    }
}

/// Plumbing over UDP, ICMP and IGMP. `None`: not of this kind.
#[inline(always)]
pub(super) fn plumbing<V: PacketView, T: Tables>(view: &V, tables: &T, p: &PacketInfo) -> Option<Reason> {
    match p.protocol {
        protocol::UDP => udp(tables, p),
        protocol::IGMP if !p.v6 && has(tables, PLUMBING_MEMBERSHIP) && p.hop_limit == 1 => {
            Some(Reason::MulticastMembership)
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if icmp::is_echo_request(p) && has(tables, PLUMBING_PING) {
                let first = tables.setting(|s| &s.ping_first_bucket);
                let buckets = tables.setting(|s| &s.ping_buckets);
                let charge = Charge::of(p, view, first as u16, buckets as u8);
                let over = buckets != 0 && tables.charge(charge).is_some();
                Some(if over { Reason::PingOverLimit } else { Reason::Ping })
            } else if icmp::is_error(p) {
                Some(errors::judge_error(view, tables, p))
            } else {
                None
            }
        }
        _ => None,
    }
}

#[inline(always)]
fn udp<T: Tables>(tables: &T, p: &PacketInfo) -> Option<Reason> {
    match (p.v6, p.source_port, p.destination_port) {
        // RFC 2131 section 4.1.
        (false, 67, 68) if has(tables, PLUMBING_DHCP) => Some(Reason::Dhcp),
        // RFC 8415 section 7.2; servers and relays answer from a link-local address.
        (true, _, 546) if has(tables, PLUMBING_DHCPV6) && p.source.is_v6_link_local() => Some(Reason::Dhcpv6),
        // RFC 6762 section 11: hop limit 255 says little about the link, the group says it all.
        (v6, MDNS_PORT, MDNS_PORT) if has(tables, PLUMBING_MDNS) => {
            (p.destination == if v6 { MDNS_V6 } else { MDNS_V4 }).then_some(Reason::Mdns)
        }
        _ => None,
    }
}
