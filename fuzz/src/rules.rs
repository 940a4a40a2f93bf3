//! What a pass means, said of the policy and the packet alone: no tables, no classes. Called by `engine`.
//!
//! Weaker than the reference interpreter, which `engine` asks too, and much shorter: each line is a sentence of
//! docs/policy.md that may never be broken.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::packet::transport::{ACK, SYN};
use proxy_common::packet::{Addr, Fragment, PacketInfo, icmp, protocol};
use tollgate::policy::model::{DefaultAction, Interface, Policy, Service, Transport, ZoneId};

/// What has happened before a packet.
#[derive(Debug, Default)]
pub struct Past {
    /// This host has sent something.
    pub sent: bool,
    /// When this host sent the last SYN without ACK of a connection, whose ends are as the other side names them.
    pub opened_ns: HashMap<Ends, u64>,
    /// A first fragment has passed.
    pub first_fragment: bool,
}

/// Source, destination and ports of a packet that arrives.
pub type Ends = (Addr, Addr, u16, u16);

impl Past {
    /// This host sends a packet.
    pub fn sends(&mut self, p: &PacketInfo, now_ns: u64) {
        self.sent = true;
        if p.protocol == protocol::TCP && p.tcp_flags & (SYN | ACK) == SYN {
            self.opened_ns.insert((p.destination, p.source, p.destination_port, p.source_port), now_ns);
        }
    }
}

/// Checks what was decided on a packet that arrived at an interface with this entry.
pub fn check(policy: &Policy, entry: &Interface, past: &Past, p: &PacketInfo, reason: Reason) {
    let whole = p.fragment == Fragment::Whole;
    let on_link = p.v6 && whole && p.protocol == protocol::ICMPV6;
    if is_in_one_of(policy, &entry.deny, source(p)) && matches!(reason.verdict(), Verdict::Pass) {
        let early = [Reason::NeighbourDiscovery, Reason::RouterAdvertisement, Reason::MulticastMembership];
        assert!(on_link && early.contains(&reason), "a denied source passes: {reason:?} {p:?}");
    }
    match reason {
        Reason::TableFault => panic!("the tables of an accepted policy are damaged: {p:?}"),
        Reason::Reply => {
            assert!(past.sent, "a reply to a host that has sent nothing: {p:?}");
            let opens = p.protocol == protocol::TCP && p.tcp_flags & (SYN | ACK) == SYN;
            assert!(!opens, "a SYN is no reply: {p:?}");
        }
        Reason::ServiceAllowed => {
            let service = service_of(policy, p).expect("a service that allows");
            assert!(is_in_one_of(policy, &service.allow, source(p)), "{} does not allow {p:?}", service.name);
            assert!(!is_in_one_of(policy, &service.deny, source(p)), "{} denies {p:?}", service.name);
        }
        Reason::ServiceRefused | Reason::ServiceDenied => {
            let service = service_of(policy, p).expect("a service that refuses");
            assert!(!service.audit, "{} audits and refuses {p:?}", service.name);
        }
        audit if audit.is_audit() => {
            let service = service_of(policy, p).expect("a service that audits");
            assert!(service.audit, "{} does not audit {p:?}", service.name);
        }
        Reason::DefaultAccept => {
            assert_eq!(entry.default, DefaultAction::Accept, "the default is to drop: {p:?}");
            assert!(service_of(policy, p).is_none(), "the default is not for ports of services: {p:?}");
        }
        Reason::NoService => assert!(service_of(policy, p).is_none(), "there is a service for {p:?}"),
        Reason::FragmentKnown => {
            assert!(past.first_fragment && p.fragment == Fragment::Later, "no first fragment: {p:?}");
        }
        Reason::NeighbourDiscovery => assert!(on_link && p.hop_limit == 255, "{p:?}"),
        Reason::RouterAdvertisement => {
            assert!(on_link && p.hop_limit == 255 && p.source.is_v6_link_local(), "{p:?}");
        }
        Reason::Ping => assert!(policy.plumbing.ping && icmp::is_echo_request(p), "{p:?}"),
        Reason::IcmpError => {
            let answers = policy.services.iter().any(|service| !service.allow.is_empty());
            assert!(icmp::is_error(p) && (past.sent || answers), "{p:?}");
        }
        Reason::Dhcp => assert!(policy.plumbing.dhcp && !p.v6 && p.destination_port == 68, "{p:?}"),
        Reason::Dhcpv6 => assert!(policy.plumbing.dhcpv6 && p.v6 && p.destination_port == 546, "{p:?}"),
        Reason::Mdns => assert!(policy.plumbing.mdns && p.destination_port == 5353, "{p:?}"),
        _ => {}
    }
}

/// The source as a standard address.
fn source(p: &PacketInfo) -> IpAddr {
    let Addr { hi, lo } = p.source;
    if p.v6 {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(hi) << 64 | u128::from(lo)))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits((hi >> 32) as u32))
    }
}

/// The service that has the packet's port.
pub fn service_of<'a>(policy: &'a Policy, p: &PacketInfo) -> Option<&'a Service> {
    let transport = match p.protocol {
        protocol::TCP => Transport::Tcp,
        protocol::UDP => Transport::Udp,
        _ => return None,
    };
    policy.services.iter().find(|service| {
        let ports = &mut service.ports.iter();
        ports.any(|r| r.transport == transport && (r.first..=r.last).contains(&p.destination_port))
    })
}

fn is_in_one_of(policy: &Policy, zones: &[ZoneId], address: IpAddr) -> bool {
    zones.iter().any(|id| {
        let zone = &policy.zones[id.0];
        zone.any || zone.prefixes.iter().any(|prefix| prefix.contains(&address))
    })
}
