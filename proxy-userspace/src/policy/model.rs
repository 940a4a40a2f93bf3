//! A checked policy: what the file says once every name is resolved and every number is in range.
//!
//! Made by the validator alone; read by the compiler, by `check` and by `status`. Holding a [`Policy`]
//! means that it can be compiled: no reader checks again.

use std::path::PathBuf;

use ipnet::IpNet;

use super::diagnostic::Diagnostic;
use crate::proxy::plan::Plan;

/// Index of a zone in [`Policy::zones`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ZoneId(pub usize);

/// Index of a limit in [`Policy::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitId(pub usize);

/// A whole policy file.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The file that it came from.
    pub path: PathBuf,
    /// Lower-case hexadecimal SHA-256 of the file's bytes and of those of every file that it names.
    pub hash: String,
    /// Interfaces in file order, by name or pattern.
    pub interfaces: Vec<Interface>,
    /// Zones in file order.
    pub zones: Vec<Zone>,
    /// Limits in file order.
    pub limits: Vec<Limit>,
    /// Services in file order.
    pub services: Vec<Service>,
    /// What passes without being a service.
    pub plumbing: Plumbing,
    /// How long a flow without traffic is remembered.
    pub timeouts: Timeouts,
    /// What the L7 proxy is to do; `None` if nothing listens.
    pub proxy: Option<Plan>,
    /// Files with the bodies of answers, as the policy names them, in the order of the routes.
    pub bodies: Vec<String>,
    /// The policy's own tests.
    pub tests: Vec<PolicyTest>,
    /// What its author should know of it, in file order.
    pub warnings: Vec<Diagnostic>,
}

impl Policy {
    /// True if packets that arrive by an interface may be answered because of this policy: by its default, or by a service
    /// that refuses somebody.
    pub fn rejects(&self, interface: &Interface) -> bool {
        interface.default == DefaultAction::Reject
            || self.services.iter().any(|service| self.refuses(service))
    }

    /// When who exceeds a service's limit is banned, if ever. Where what is over it passes, nobody is.
    pub fn escalation(&self, service: &Service) -> Option<Escalation> {
        self.limit_of(service)?.ban.filter(|_| !service.audit)
    }

    /// The files that it reads besides itself, as it names them: lists in the order of the zones, bodies in that of the routes.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        self.zones.iter().filter_map(|zone| zone.list.as_ref()).chain(&self.bodies)
    }

    /// A service's limit.
    pub fn limit_of(&self, service: &Service) -> Option<&Limit> {
        service.limit.and_then(|id| self.limits.get(id.0))
    }

    fn refuses(&self, service: &Service) -> bool {
        let any = |zone: &ZoneId| self.zones.get(zone.0).is_some_and(|zone| zone.any);
        let open = service.deny.is_empty() && service.allow.iter().any(any);
        service.refuse == Refusal::Reject && !open && !service.audit
    }
}

/// Where a policy is enforced.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Name, or a pattern such as `br-*` (`*` stands for any run of characters).
    pub name: String,
    /// Which hook to take.
    pub hook: HookChoice,
    /// What happens to packets that are neither a service, nor a reply, nor plumbing.
    pub default: DefaultAction,
    /// Zones from which nothing passes but ARP and neighbour discovery.
    pub deny: Vec<ZoneId>,
    /// Zones that nothing which arrives may address but what answers them.
    pub isolate: Vec<ZoneId>,
}

/// The hook that an interface asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookChoice {
    /// Native XDP where the driver has it, else TC.
    Auto,
    /// Native XDP or nothing.
    Native,
    /// Generic XDP.
    Generic,
    /// TC ingress: by tcx, or by clsact where the kernel has no tcx.
    Tc,
    /// TC ingress by a filter of the clsact queueing discipline.
    Clsact,
}

/// What an interface does with packets that nothing names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAction {
    /// Drop.
    Drop,
    /// Pass: only what a service or a `deny` refuses is dropped.
    Accept,
    /// Drop, and say so to the sender.
    Reject,
}

/// What a service does with sources that it does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// Drop.
    Drop,
    /// Drop, and say so to the sender.
    Reject,
}

/// A named set of source addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Name.
    pub name: String,
    /// True for the zone of every address (`"any"`); `prefixes` is empty then.
    pub any: bool,
    /// Prefixes, host bits zero.
    pub prefixes: Vec<IpNet>,
    /// The file with more of them, as the policy names it.
    pub list: Option<String>,
    /// Interface names or patterns that this zone's addresses may arrive on; empty: on any.
    /// An address of a bound zone that arrives elsewhere is spoofed.
    pub interfaces: Vec<String>,
}

/// A named set of rate limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Name.
    pub name: String,
    /// The buckets, in the order they are charged.
    pub buckets: Vec<Bucket>,
    /// Who exceeds it is banned; `None`: only dropped.
    pub ban: Option<Escalation>,
}

/// When who exceeds a limit is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// For how long, nanoseconds.
    pub for_ns: u64,
    /// For so many packets over the limit within a minute; not zero.
    pub after: u64,
}

/// One token bucket of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whose packets share the bucket.
    pub scope: Scope,
    /// What is counted.
    pub unit: Unit,
    /// Tokens per `per_ns`; not zero.
    pub tokens: u64,
    /// Length of the period, nanoseconds; not zero.
    pub per_ns: u64,
    /// Depth of the bucket in tokens; at least 1.
    pub burst: u64,
}

/// Whose packets share a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One source: an IPv4 address, or an IPv6 prefix of this length (64 unless said otherwise).
    Source {
        /// 1..=64.
        v6_len: u8,
    },
    /// A network of sources.
    Prefix {
        /// 1..=32 (24 unless said otherwise).
        v4_len: u8,
        /// 1..=64 (48 unless said otherwise).
        v6_len: u8,
    },
    /// Everyone together.
    Service,
}

/// What a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bytes of whole frames.
    Bytes,
    /// New connections: TCP SYN without ACK.
    Connections,
}

/// Ports that are treated alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Name; also the name of its rule in the counters.
    pub name: String,
    /// Its ports; no port is in two services.
    pub ports: Vec<PortRange>,
    /// Zones that may reach it; empty for `allow = "none"`.
    pub allow: Vec<ZoneId>,
    /// Zones that may not, whatever `allow` says.
    pub deny: Vec<ZoneId>,
    /// Its limit.
    pub limit: Option<LimitId>,
    /// What happens to sources that it denies or does not allow.
    pub refuse: Refusal,
    /// What it would drop, by source or by limit, is counted and passes.
    pub audit: bool,
}

/// A run of ports of one protocol, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Protocol.
    pub transport: Transport,
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What passes without being a service. ARP and neighbour discovery (hop limit 255) can't be turned off.
#[derive(Clone, Debug, PartialEq)]
pub struct Plumbing {
    /// IPv6 router advertisements (hop limit 255).
    pub router_advertisements: bool,
    /// DHCP answers to this host's client (UDP 67 to 68).
    pub dhcp: bool,
    /// DHCPv6 answers to this host's client (UDP from any port to 546, link-local source: RFC 8415 section 7.2).
    pub dhcpv6: bool,
    /// IGMP and MLD.
    pub multicast_membership: bool,
    /// mDNS (UDP 5353 to 224.0.0.251 and ff02::fb); off unless asked for.
    pub mdns: bool,
    /// Echo requests pass.
    pub ping: bool,
    /// The limit that echo requests must keep, all buckets of one limit; `None`: not limited.
    pub ping_limit: Option<LimitId>,
}

/// How long a flow that this host began is remembered without traffic, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, SYN sent, no answer yet (default 120 s).
    pub tcp_opening_ns: u64,
    /// TCP, established (default 5 days).
    pub tcp_established_ns: u64,
    /// TCP, after a FIN or RST (default 120 s).
    pub tcp_closing_ns: u64,
    /// UDP (default 180 s).
    pub udp_ns: u64,
    /// ICMP echo (default 30 s).
    pub icmp_ns: u64,
}

/// One `[[test]]` of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyTest {
    /// Line in the file, for the report.
    pub line: usize,
    /// Source address.
    pub from: std::net::IpAddr,
    /// Destination.
    pub to: TestTarget,
    /// Interface, if the file names one; else the first of the policy.
    pub interface: Option<String>,
    /// True if the packet must pass.
    pub expect_pass: bool,
}

/// What a `[[test]]` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestTarget {
    /// A TCP SYN or a UDP datagram to a port.
    Port(Transport, u16),
    /// An ICMP or ICMPv6 echo request.
    Ping,
}
