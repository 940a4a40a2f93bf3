//! Whether the policy turns off plumbing that hosts live by: no error, since there are hosts without a lease or without IPv6,
//! but one that does need it would be cut off later, when nobody thinks of the policy any more.
//!
//! Called by [`super::policy`], with the switches before the section is read, and once everything is.

use toml::Spanned;

use crate::policy::model::{DefaultAction, Policy, Transport};
use crate::policy::report::{Report, Span};
use crate::policy::schema;

/// Where the plumbing is turned off.
pub(super) struct Switches {
    dhcp: Option<Span>,
    dhcpv6: Option<Span>,
    router_advertisements: Option<Span>,
    multicast_membership: Option<Span>,
}

impl Switches {
    pub(super) fn of(plumbing: &schema::Plumbing) -> Self {
        let off = |switch: &Option<Spanned<bool>>| {
            switch.as_ref().filter(|switch| !*switch.get_ref()).map(Spanned::span)
        };
        Self {
            dhcp: off(&plumbing.dhcp),
            dhcpv6: off(&plumbing.dhcpv6),
            router_advertisements: off(&plumbing.router_advertisements),
            multicast_membership: off(&plumbing.multicast_membership),
        }
    }

    /// Warns of each switch that leaves packets without a way in: not of those that all interfaces accept by default, or that
    /// a service lets in.
    pub(super) fn warn(self, report: &mut Report<'_>, policy: &Policy) {
        if policy.interfaces.iter().all(|interface| interface.default == DefaultAction::Accept) {
            return;
        }
        let cut = [
            (
                self.dhcp.filter(|_| !serves(policy, DHCP_CLIENT)),
                "with `dhcp` off, this host gets no IPv4 address by DHCP: the answers to its broadcasts are dropped, so that a \
                 lease can't be had after a start, nor kept when its server has changed",
                "write `dhcp = true`, unless all its IPv4 addresses are set by hand",
            ),
            (
                self.dhcpv6.filter(|_| !serves(policy, DHCPV6_CLIENT)),
                "with `dhcpv6` off, this host gets no IPv6 address or prefix by DHCPv6, and those that it has expire: servers \
                 answer from their own address what was asked of all of them",
                "write `dhcpv6 = true`, unless this host uses no DHCPv6",
            ),
            (
                self.router_advertisements,
                "with `router-advertisements` off, what this host has learnt from routers expires, within half an hour as a \
                 rule: the IPv6 default route, and addresses made from advertised prefixes",
                "write `router-advertisements = true`, unless its IPv6 routes and addresses are set by hand",
            ),
            (
                self.multicast_membership,
                "with `multicast-membership` off, this host hears no queries about its multicast groups, and a switch that \
                 follows them stops sending it those: for IPv6 neighbour solicitations too, so that nobody finds it any more",
                "write `multicast-membership = true`, unless no switch or router here snoops on IGMP or MLD",
            ),
        ];
        for (span, message, help) in cut {
            if let Some(span) = span {
                report.warning(&span, message, help);
            }
        }
    }
}

/// The ports at which clients are answered.
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;

/// True if a service with this port of UDP is there for somebody.
fn serves(policy: &Policy, port: u16) -> bool {
    policy.services.iter().any(|service| {
        !service.allow.is_empty()
            && service
                .ports
                .iter()
                .any(|range| range.transport == Transport::Udp && (range.first..=range.last).contains(&port))
    })
}
