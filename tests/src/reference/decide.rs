//! Steps 2 to 9 of the page, in its order, and what the packets that this host sends leave behind.

use std::net::IpAddr;

use proxy_common::abi::reason::Reason;
use tollgate::policy::model::{DefaultAction, LimitId, Service, Transport as Protocol, Unit, ZoneId};

use super::Reference;
use super::flow::{FlowKey, FlowKind};
use super::limit::{Cost, Place};
use super::parse::Packet;
use super::place;
use super::quote;
use super::transport::{Icmp, TcpFlags, Transport};

const IGMP: u8 = 2;
/// Bytes in front of what an error quotes.
const ICMP_HEADER: usize = 8;
const MDNS_PORT: u16 = 5353;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
/// The rule that counts what no service names.
const DEFAULT_RULE: &str = "default";

/// A reason and the rule that it is counted under.
type Decision = (Reason, Option<String>);

/// Who lets in what comes to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepts {
    /// The port's service.
    Service,
    /// The interface's default.
    Default,
}

/// What step 7 says about a packet.
enum ServiceAnswer {
    /// Allowed, within the limit or over it: nothing follows.
    Final(Decision),
    /// Not allowed: it may still be a reply, but the interface's default is not for it. If the service audits, the
    /// decision is to pass, and is still for what is no reply alone.
    NotAllowed(Decision),
    /// No service has the port.
    None,
}

impl Reference {
    /// Decides on a packet that arrives.
    pub(super) fn decide(&mut self, packet: &Packet<'_>, now_ns: u64) -> Decision {
        if let Some(reason) = self.ipv6_link(packet) {
            return (reason, None);
        }
        if is_invalid_destination(packet.destination) {
            return (Reason::DestinationInvalid, None);
        }
        if is_invalid_source(packet.source) || packet.source == packet.destination {
            return (Reason::SourceInvalid, None);
        }
        if self.is_spoofed(packet.source) {
            return (Reason::SourceSpoofed, None);
        }
        if self.is_in_one_of(&self.entry.deny, packet.source) {
            return (Reason::SourceDenied, None);
        }
        if let Some(part) = packet.fragment.filter(|part| part.is_later()) {
            let known = self.passed.contains(packet, part, now_ns);
            return (if known { Reason::FragmentKnown } else { Reason::FragmentOrphan }, None);
        }
        // Isolation leaves of the following steps the replies, and errors.
        if self.is_in_one_of(&self.entry.isolate, packet.destination) {
            let reason = match packet.transport {
                Transport::Icmp(Icmp::Error { .. }) => self.plumbing(packet, now_ns),
                _ => self.is_reply(packet, now_ns).then_some(Reason::Reply),
            };
            return (reason.unwrap_or(Reason::DestinationIsolated), None);
        }
        if let Some(reason) = self.plumbing(packet, now_ns) {
            return (reason, None);
        }
        let refusal = match self.service(packet, now_ns) {
            ServiceAnswer::Final(decision) => return decision,
            ServiceAnswer::NotAllowed(decision) => Some(decision),
            ServiceAnswer::None => None,
        };
        if self.is_reply(packet, now_ns) {
            return (Reason::Reply, None);
        }
        refusal.unwrap_or_else(|| {
            let reason = match self.entry.default {
                DefaultAction::Drop | DefaultAction::Reject => Reason::NoService,
                DefaultAction::Accept => Reason::DefaultAccept,
            };
            (reason, Some(DEFAULT_RULE.to_owned()))
        })
    }

    /// Step 2. RFC 6980: neighbour discovery has no fragment header, not even in one piece.
    fn ipv6_link(&self, packet: &Packet<'_>) -> Option<Reason> {
        let whole = packet.fragment.is_none();
        let from_link = whole && packet.hop_limit == 255;
        let plumbing = &self.policy.plumbing;
        match packet.transport {
            Transport::Icmp(Icmp::Neighbour) if from_link => Some(Reason::NeighbourDiscovery),
            Transport::Icmp(Icmp::Neighbour) => Some(Reason::NeighbourDiscoveryForged),
            Transport::Icmp(Icmp::RouterAdvertisement) if plumbing.router_advertisements => {
                if from_link && is_link_local_v6(packet.source) {
                    Some(Reason::RouterAdvertisement)
                } else {
                    Some(Reason::NeighbourDiscoveryForged)
                }
            }
            Transport::Icmp(Icmp::Membership) if plumbing.multicast_membership => {
                let source = is_link_local_v6(packet.source) || packet.source.is_unspecified();
                (whole && packet.hop_limit == 1 && source).then_some(Reason::MulticastMembership)
            }
            _ => None,
        }
    }

    /// Step 3: a bound zone has the source, and this interface is none of the zone's.
    fn is_spoofed(&self, source: IpAddr) -> bool {
        self.policy.zones.iter().enumerate().any(|(index, zone)| {
            !zone.interfaces.is_empty()
                && self.is_in(ZoneId(index), source)
                && !zone.interfaces.iter().any(|pattern| place::means(pattern, &self.name))
        })
    }

    /// Step 6. ICMP errors end here whatever they quote; all else that is of no kind, or off, goes on.
    fn plumbing(&mut self, packet: &Packet<'_>, now_ns: u64) -> Option<Reason> {
        let plumbing = &self.policy.plumbing;
        match packet.transport {
            Transport::Ports { protocol: Protocol::Udp, source, destination, .. } => {
                let v4 = packet.source.is_ipv4();
                if plumbing.dhcp && v4 && source == DHCP_SERVER && destination == DHCP_CLIENT {
                    return Some(Reason::Dhcp);
                }
                if plumbing.dhcpv6 && destination == DHCPV6_CLIENT && is_link_local_v6(packet.source) {
                    return Some(Reason::Dhcpv6);
                }
                let mdns =
                    source == MDNS_PORT && destination == MDNS_PORT && is_mdns_group(packet.destination);
                (plumbing.mdns && mdns).then_some(Reason::Mdns)
            }
            Transport::Icmp(Icmp::Error { quote }) => {
                let ours = self.quotes_ours(packet, quote, now_ns);
                Some(if ours { Reason::IcmpError } else { Reason::IcmpErrorUnknown })
            }
            Transport::Icmp(Icmp::EchoRequest { .. }) if plumbing.ping => {
                let within = match plumbing.ping_limit {
                    Some(limit) => self.charge(limit, Place::Ping, packet, now_ns).is_none(),
                    None => true,
                };
                Some(if within { Reason::Ping } else { Reason::PingOverLimit })
            }
            Transport::Other if plumbing.multicast_membership && packet.source.is_ipv4() => {
                (packet.protocol == IGMP && packet.hop_limit == 1).then_some(Reason::MulticastMembership)
            }
            _ => None,
        }
    }

    /// True if the quoted packet was sent by the address that the error is sent to, and is of a flow that this host
    /// began or an answer of a service that allows its receiver.
    fn quotes_ours(&self, packet: &Packet<'_>, quote: &[u8], now_ns: u64) -> bool {
        quote::flow(packet.source, quote, packet.transport_at + ICMP_HEADER).is_some_and(|flow| {
            flow.local == packet.destination
                && (self.flows.knows(&flow, now_ns)
                    || self.is_answer(&flow, &[Accepts::Service, Accepts::Default]))
        })
    }

    /// Step 7.
    fn service(&mut self, packet: &Packet<'_>, now_ns: u64) -> ServiceAnswer {
        let Transport::Ports { protocol, destination, .. } = packet.transport else {
            return ServiceAnswer::None;
        };
        let Some((index, service)) = self.service_of(protocol, destination) else {
            return ServiceAnswer::None;
        };
        let rule = Some(service.name.clone());
        let audit = service.audit;
        if self.is_in_one_of(&service.deny, packet.source) {
            let reason = if audit { Reason::AuditDenied } else { Reason::ServiceDenied };
            return ServiceAnswer::NotAllowed((reason, rule));
        }
        if !self.is_in_one_of(&service.allow, packet.source) {
            let reason = if audit { Reason::AuditRefused } else { Reason::ServiceRefused };
            return ServiceAnswer::NotAllowed((reason, rule));
        }
        let short = service.limit.and_then(|limit| self.charge(limit, Place::Service(index), packet, now_ns));
        let reason = match (short, audit) {
            (None, _) => Reason::ServiceAllowed,
            (Some(Unit::Connections), false) => Reason::OverLimitConnections,
            (Some(Unit::Packets), false) => Reason::OverLimitPackets,
            (Some(Unit::Bytes), false) => Reason::OverLimitBytes,
            (Some(Unit::Connections), true) => Reason::AuditOverConnections,
            (Some(Unit::Packets), true) => Reason::AuditOverPackets,
            (Some(Unit::Bytes), true) => Reason::AuditOverBytes,
        };
        ServiceAnswer::Final((reason, rule))
    }

    /// Step 8. A reply is also a packet of its flow, and keeps it in memory.
    fn is_reply(&mut self, packet: &Packet<'_>, now_ns: u64) -> bool {
        let (local, remote) = (packet.destination, packet.source);
        let (kind, flags) = match packet.transport {
            Transport::Ports { flags, .. } if flags.opens() => return false,
            Transport::Ports { protocol, source, destination, flags } => {
                (FlowKind::Ports { protocol, local: destination, remote: source }, flags)
            }
            Transport::Icmp(Icmp::EchoReply { identifier }) => {
                (FlowKind::Echo { identifier }, TcpFlags::default())
            }
            Transport::Icmp(_) | Transport::Other | Transport::Unread => return false,
        };
        self.flows.received(&FlowKey { local, remote, kind }, flags, now_ns)
    }

    /// Takes note of a packet that this host sends.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, now_ns: u64) {
        let (local, remote) = (packet.source, packet.destination);
        match packet.transport {
            Transport::Ports { protocol, source, destination, flags } => {
                let kind = FlowKind::Ports { protocol, local: source, remote: destination };
                let key = FlowKey { local, remote, kind };
                let begins = match protocol {
                    Protocol::Tcp => flags.opens(),
                    Protocol::Udp => !self.is_answer(&key, &[Accepts::Service]),
                };
                if begins {
                    self.flows.begin(key, now_ns);
                } else {
                    self.flows.sent(&key, flags, now_ns);
                }
            }
            Transport::Icmp(Icmp::EchoRequest { identifier }) => {
                self.flows.begin(FlowKey { local, remote, kind: FlowKind::Echo { identifier } }, now_ns);
            }
            Transport::Icmp(_) | Transport::Other | Transport::Unread => {}
        }
    }

    /// True for what this host sends from a port to a receiver whose packets to that port pass steps 3 and 4, and are then
    /// accepted by one of `by`.
    fn is_answer(&self, flow: &FlowKey, by: &[Accepts]) -> bool {
        let FlowKind::Ports { protocol, local, .. } = flow.kind else { return false };
        let remote = flow.remote;
        if is_invalid_source(remote) || self.is_spoofed(remote) || self.is_in_one_of(&self.entry.deny, remote)
        {
            return false;
        }
        match self.service_of(protocol, local) {
            Some((_, service)) => {
                let allows =
                    self.is_in_one_of(&service.allow, remote) && !self.is_in_one_of(&service.deny, remote);
                // What this host sends begins as much as if the service did not audit: an error may quote more.
                let quoted = by.contains(&Accepts::Default);
                by.contains(&Accepts::Service) && (allows || (quoted && service.audit))
            }
            None => by.contains(&Accepts::Default) && self.entry.default == DefaultAction::Accept,
        }
    }

    fn service_of(&self, protocol: Protocol, port: u16) -> Option<(usize, &Service)> {
        self.policy.services.iter().enumerate().find(|(_, service)| {
            service
                .ports
                .iter()
                .any(|range| range.transport == protocol && (range.first..=range.last).contains(&port))
        })
    }

    fn charge(&mut self, limit: LimitId, place: Place, packet: &Packet<'_>, now_ns: u64) -> Option<Unit> {
        let opens = matches!(packet.transport, Transport::Ports { flags, .. } if flags.opens());
        let cost = Cost { bytes: packet.frame_len, opens };
        self.buckets.charge(limit, &self.policy.limits[limit.0], place, packet.source, cost, now_ns)
    }

    fn is_in_one_of(&self, zones: &[ZoneId], address: IpAddr) -> bool {
        zones.iter().any(|zone| self.is_in(*zone, address))
    }

    fn is_in(&self, zone: ZoneId, address: IpAddr) -> bool {
        let zone = &self.policy.zones[zone.0];
        zone.any || zone.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// Step 3: what no packet from a network can have as its destination.
fn is_invalid_destination(destination: IpAddr) -> bool {
    destination.is_loopback() || destination.is_unspecified()
}

/// Step 3: what none can have as its source. Exactly the page's list.
fn is_invalid_source(source: IpAddr) -> bool {
    let broadcast = matches!(source, IpAddr::V4(address) if address.is_broadcast());
    let mapped = matches!(source, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    source.is_loopback() || source.is_multicast() || source.is_unspecified() || broadcast || mapped
}

/// `fe80::/10`.
fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

/// 224.0.0.251 or ff02::fb (RFC 6762).
fn is_mdns_group(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(address) => address.octets() == [224, 0, 0, 251],
        IpAddr::V6(address) => address.segments() == [0xff02, 0, 0, 0, 0, 0, 0, 0xfb],
    }
}
