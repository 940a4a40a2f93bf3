//! Why a packet passed or was dropped: the numbered, append-only list behind every counter.
//!
//! The engine ends each packet with exactly one [`Reason`]; the daemon turns numbers into names and sentences.

/// Reasons below this number belong to a rule and are counted per rule ([`super::counter::index`]).
const PLAIN_FROM: u32 = 8;
/// So do those from this number on: of what a service audits.
const AUDIT_FROM: u32 = 48;
/// Places of a rule in the counters, one a reason.
pub const RULE_REASONS: u32 = 16;
/// Room for reasons; numbers are below it.
pub const MAX_REASONS: u32 = 64;

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the host.
    Pass,
    /// Gone.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $verdict:ident, $name:literal, $sentence:literal;)*) => {
        /// Why a packet passed or was dropped. Numbers are ABI: append, never renumber.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $(#[doc = $sentence] $variant = $number,)* }

        impl Reason {
            /// Every reason, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// One bit a reason that passes.
            const PASSES: u64 = 0 $(| (matches!(Verdict::$verdict, Verdict::Pass) as u64) << $number)*;

            /// Name for counters, metrics and `--json`: kebab-case, stable.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }

            /// The reason of a number that came out of a table; an unknown one is a damaged table.
            #[inline(always)]
            pub const fn from_number(number: u8) -> Self {
                match number { $($number => Self::$variant,)* _ => Self::TableFault }
            }
        }
    };
}

reasons! {
    // Counted per rule.
    ServiceAllowed = 0, Pass, "service-allowed", "The service allows this source.";
    ServiceRefused = 1, Drop, "service-refused", "The service does not allow this source.";
    ServiceDenied = 2, Drop, "service-denied", "The service denies a zone that this source is in.";
    OverLimitConnections = 3, Drop, "over-limit-connections", "The source opened connections faster than its limit.";
    OverLimitPackets = 4, Drop, "over-limit-packets", "The source sent packets faster than its limit.";
    OverLimitBytes = 5, Drop, "over-limit-bytes", "The source sent bytes faster than its limit.";
    NoService = 6, Drop, "no-service", "No service has this port, and it answers nothing that this host sent.";
    DefaultAccept = 7, Pass, "default-accept", "No service has this port; the interface's default is to accept.";
    // Pass.
    Arp = 8, Pass, "arp", "Address resolution.";
    LinkControl = 9, Pass, "link-control", "Link layer control: EAPOL, LLDP, LACP, spanning tree.";
    NeighbourDiscovery = 10, Pass, "neighbour-discovery", "IPv6 neighbour discovery from this link.";
    RouterAdvertisement = 11, Pass, "router-advertisement", "IPv6 router advertisement from this link.";
    Dhcp = 12, Pass, "dhcp", "A DHCP answer to this host's client.";
    Dhcpv6 = 13, Pass, "dhcpv6", "A DHCPv6 answer to this host's client.";
    MulticastMembership = 14, Pass, "multicast-membership", "IGMP or MLD.";
    Mdns = 15, Pass, "mdns", "Multicast DNS.";
    Ping = 16, Pass, "ping", "An echo request.";
    IcmpError = 17, Pass, "icmp-error", "An ICMP error about a packet that this host sent.";
    Reply = 18, Pass, "reply", "It answers what this host began.";
    FragmentKnown = 19, Pass, "fragment-known", "The rest of a datagram whose first fragment passed.";
    Unconfirmed = 20, Pass, "unconfirmed", "The policy in force was not confirmed in time, and none was in force before it.";
    // Drop.
    MalformedEthernet = 24, Drop, "malformed-ethernet", "Too short for an Ethernet header.";
    UnknownEthertype = 25, Drop, "unknown-ethertype", "Neither IP nor a link protocol that a host needs.";
    VlanDepth = 26, Drop, "vlan-depth", "More than two VLAN tags.";
    MalformedIpv4 = 27, Drop, "malformed-ipv4", "The IPv4 header contradicts itself or the frame, or names a source route.";
    MalformedIpv6 = 28, Drop, "malformed-ipv6", "The IPv6 header or one of its extensions contradicts itself or the frame.";
    Ipv6HeaderChain = 29, Drop, "ipv6-header-chain", "More IPv6 extension headers than any host needs.";
    Ipv6RoutingHeader = 30, Drop, "ipv6-routing-header", "An IPv6 routing header with segments left.";
    MalformedTcp = 31, Drop, "malformed-tcp", "The TCP header contradicts itself or the packet.";
    TcpFlags = 32, Drop, "tcp-flags", "A set of TCP flags that no TCP sends.";
    MalformedUdp = 33, Drop, "malformed-udp", "The UDP header contradicts the packet.";
    MalformedIcmp = 34, Drop, "malformed-icmp", "Too short for an ICMP header.";
    FragmentMalformed = 35, Drop, "fragment-malformed", "A fragment that is too small to judge or would overflow its datagram.";
    FragmentOrphan = 36, Drop, "fragment-orphan", "A later fragment of a datagram whose first fragment has not passed.";
    SourceInvalid = 37, Drop, "source-invalid", "A source address that no packet from a network can have.";
    SourceSpoofed = 38, Drop, "source-spoofed", "The source's zone is bound to another interface.";
    SourceDenied = 39, Drop, "source-denied", "The interface denies a zone that this source is in.";
    PingOverLimit = 40, Drop, "ping-over-limit", "Echo requests faster than the ping limit.";
    IcmpErrorUnknown = 42, Drop, "icmp-error-unknown", "An ICMP error about a packet that this host did not send.";
    NeighbourDiscoveryForged = 43, Drop, "neighbour-discovery-forged", "Neighbour discovery from beyond this link, by its hop limit or source, or in a fragment.";
    DestinationInvalid = 44, Drop, "destination-invalid", "A destination address that no packet from a network can have.";
    TableFault = 45, Drop, "table-fault", "A table did not hold what the program needs; please report it.";
    Banned = 46, Drop, "banned", "The source is banned.";
    DestinationIsolated = 47, Drop, "destination-isolated", "The destination is isolated from this interface, and the packet answers nothing that it sent.";
    // Pass, counted per rule: what a service that audits would drop.
    AuditRefused = 48, Pass, "audit-refused", "The service audits; it would not allow this source.";
    AuditDenied = 49, Pass, "audit-denied", "The service audits; it would deny a zone that this source is in.";
    AuditOverConnections = 50, Pass, "audit-over-connections", "The service audits; the source opened connections faster than its limit.";
    AuditOverPackets = 51, Pass, "audit-over-packets", "The service audits; the source sent packets faster than its limit.";
    AuditOverBytes = 52, Pass, "audit-over-bytes", "The service audits; the source sent bytes faster than its limit.";
}

impl Reason {
    /// What happens to a packet that ends with this reason.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        if (Self::PASSES >> (self as u8)) & 1 == 1 { Verdict::Pass } else { Verdict::Drop }
    }

    /// True if it is counted under a rule.
    #[inline(always)]
    pub const fn has_rule(self) -> bool {
        (self as u32) < PLAIN_FROM || self.is_audit()
    }

    /// True if a packet was over the limit of a service.
    #[inline(always)]
    pub const fn is_over_limit(self) -> bool {
        matches!(self, Self::OverLimitConnections | Self::OverLimitPackets | Self::OverLimitBytes)
    }

    /// True if a service would have dropped the packet, did it not audit.
    #[inline(always)]
    pub const fn is_audit(self) -> bool {
        self as u32 >= AUDIT_FROM
    }

    /// True if whoever listens is told of each such packet: it was dropped, or would have been.
    #[inline(always)]
    pub const fn is_told(self) -> bool {
        self.is_audit() || matches!(self.verdict(), Verdict::Drop)
    }

    /// What a service that audits says in place of a reason to drop.
    #[inline(always)]
    pub const fn audited(self) -> Self {
        match self {
            Self::ServiceRefused => Self::AuditRefused,
            Self::ServiceDenied => Self::AuditDenied,
            Self::OverLimitConnections => Self::AuditOverConnections,
            Self::OverLimitPackets => Self::AuditOverPackets,
            Self::OverLimitBytes => Self::AuditOverBytes,
            other => other,
        }
    }

    /// Place among the counters of a rule, below [`RULE_REASONS`]; of a reason with a rule.
    #[inline(always)]
    pub const fn place(self) -> u32 {
        if self.is_audit() { self as u32 - AUDIT_FROM + PLAIN_FROM } else { self as u32 }
    }

    /// The reason of a place among the counters of a rule: the inverse of [`Reason::place`].
    pub fn at_place(place: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.has_rule() && reason.place() == place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_in_range() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!((*a as u32) < MAX_REASONS);
            assert_eq!(Reason::from_number(*a as u8), *a);
            assert!(a.sentence().ends_with('.'));
            for b in &Reason::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
                assert!((*a as u8) < (*b as u8));
            }
        }
    }

    #[test]
    fn an_audit_passes_what_would_be_dropped_and_only_that() {
        for reason in Reason::ALL {
            let audited = reason.audited();
            assert_eq!(audited.is_audit(), audited != *reason || reason.is_audit(), "{reason:?}");
            assert_eq!(audited.verdict(), if audited == *reason { reason.verdict() } else { Verdict::Pass });
            assert!(!reason.has_rule() || Reason::at_place(reason.place()) == Some(*reason));
        }
        assert_eq!(Reason::at_place(RULE_REASONS - 1), None);
    }

    #[test]
    fn a_number_of_no_reason_drops() {
        assert_eq!(Reason::from_number(63).verdict(), Verdict::Drop);
        assert_eq!(Reason::from_number(255).verdict(), Verdict::Drop);
    }

    #[test]
    fn verdicts_follow_the_list() {
        assert_eq!(Reason::Arp.verdict(), Verdict::Pass);
        assert_eq!(Reason::ServiceAllowed.verdict(), Verdict::Pass);
        assert_eq!(Reason::NoService.verdict(), Verdict::Drop);
        assert_eq!(Reason::DefaultAccept.verdict(), Verdict::Pass);
        assert_eq!(Reason::TableFault.verdict(), Verdict::Drop);
    }
}
