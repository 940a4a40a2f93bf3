//! The addresses, ports and moments that matter to a policy: those at its edges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tollgate::policy::Policy;
use tollgate::policy::model::{LimitId, PortRange, Transport, Unit};

/// Sources of each family that the packets of a sequence have: few, so that limits are used up.
const MOST_SOURCES: usize = 14;
/// Addresses with a meaning of their own.
const SPECIAL: [&str; 20] = [
    "0.0.0.0",
    "0.0.0.1",
    "126.255.255.255",
    "127.0.0.1",
    "128.0.0.0",
    "223.255.255.255",
    "224.0.0.251",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "fe7f:ffff::1",
    "fec0::",
    "feff::1",
    "ff02::fb",
    "::ffff:10.1.2.77",
    "::fffe:ffff:ffff",
    "::1:0:0:0",
];

/// Packets that are charged to a limit.
#[derive(Clone, Copy, Debug)]
pub struct Limited {
    /// Those that come to a port; else echo requests.
    pub port: Option<(Transport, u16)>,
    /// The limit counts their bytes.
    pub bytes: bool,
}

/// What to draw from.
#[derive(Debug)]
pub struct Pools {
    /// Sources of IPv4.
    pub v4: Vec<IpAddr>,
    /// Sources of IPv6.
    pub v6: Vec<IpAddr>,
    /// Ports of both protocols.
    pub ports: Vec<u16>,
    /// Nanoseconds that a token of some bucket takes, and that a whole bucket takes.
    pub refills: Vec<u64>,
    /// Timeouts in the order of the page, nanoseconds.
    pub timeouts: [u64; 5],
    /// What limits are charged for.
    pub limited: Vec<Limited>,
    /// The limiter is in use for nothing, not for answers either: the clock may leap by days.
    pub unlimited: bool,
}

impl Pools {
    /// Those of a policy.
    pub fn of(policy: &Policy, rng: &mut StdRng) -> Self {
        let mut edges: Vec<IpAddr> = policy
            .zones
            .iter()
            .flat_map(|zone| &zone.prefixes)
            .flat_map(|prefix| around(*prefix, rng))
            .collect();
        edges.shuffle(rng);
        let mut pool = |v6: bool, always: &[&str]| {
            let special = SPECIAL.iter().filter_map(|text| text.parse().ok());
            let mut special: Vec<IpAddr> =
                special.filter(|address: &IpAddr| address.is_ipv6() == v6).collect();
            special.shuffle(rng);
            let edges = edges.iter().copied().filter(|address| address.is_ipv6() == v6).take(MOST_SOURCES);
            let always = always.iter().filter_map(|text| text.parse().ok());
            always.chain(special.into_iter().take(2)).chain(edges).collect()
        };
        let v4 = pool(false, &["203.0.113.9", "10.1.2.77", "10.1.3.1", "192.0.2.70"]);
        let v6 = pool(true, &["2001:db8:113::9", "2001:db8:0:1::7", "fe80::1", "febf:ffff::2"]);
        let ranges = policy.services.iter().flat_map(|service| &service.ports);
        let mut ports: Vec<u16> = ranges
            .flat_map(|range| {
                [range.first, range.last, range.first.wrapping_sub(1), range.last.wrapping_add(1)]
            })
            .collect();
        // Once more, for more packets that reach services.
        ports.extend(
            policy.services.iter().flat_map(|service| &service.ports).flat_map(|r| [r.first, r.last]),
        );
        ports.extend([0, 22, 65_535]);
        let timeouts = &policy.timeouts;
        Self {
            v4,
            v6,
            ports,
            refills: policy
                .limits
                .iter()
                .flat_map(|limit| &limit.buckets)
                .flat_map(|bucket| {
                    let token = bucket.per_ns / bucket.tokens;
                    [token, token.saturating_mul(bucket.burst)]
                })
                .collect(),
            timeouts: [
                timeouts.tcp_opening_ns,
                timeouts.tcp_established_ns,
                timeouts.tcp_closing_ns,
                timeouts.udp_ns,
                timeouts.icmp_ns,
            ],
            limited: limited(policy),
            unlimited: policy.plumbing.ping_limit.is_none()
                && policy.services.iter().all(|service| service.limit.is_none())
                && !policy.interfaces.iter().any(|interface| policy.rejects(interface)),
        }
    }
}

fn limited(policy: &Policy) -> Vec<Limited> {
    let bytes = |limit: LimitId| {
        let limit = policy.limits.get(limit.0);
        limit.is_some_and(|limit| limit.buckets.iter().any(|bucket| bucket.unit == Unit::Bytes))
    };
    let services = policy.services.iter().filter_map(|service| Some((service, service.limit?)));
    let ports = services.flat_map(|(service, limit)| {
        let of = move |range: &PortRange| (Some((range.transport, range.first)), limit);
        service.ports.iter().map(of)
    });
    let ping = policy.plumbing.ping_limit.map(|limit| (None, limit));
    ports.chain(ping).map(|(port, limit)| Limited { port, bytes: bytes(limit) }).collect()
}

/// The first and the last address of a prefix, their neighbours outside, and one within.
fn around(prefix: IpNet, rng: &mut StdRng) -> [IpAddr; 5] {
    match prefix {
        IpNet::V4(prefix) => {
            let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
            let within = rng.random_range(first..=last);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1), within]
                .map(|address| IpAddr::V4(Ipv4Addr::from(address)))
        }
        IpNet::V6(prefix) => {
            let (first, last) = (u128::from(prefix.network()), u128::from(prefix.broadcast()));
            let within = rng.random_range(first..=last);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1), within]
                .map(|address| IpAddr::V6(Ipv6Addr::from(address)))
        }
    }
}
