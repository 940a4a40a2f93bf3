//! From the prefixes of all zones to disjoint runs of addresses: where each begins and which zones it is in.
//!
//! Called by [`super::compile`], once a family. Prefixes nest or are disjoint, so after sorting, one sweep with a
//! stack of the prefixes that are open finds every run: n log n, and at most two runs more a prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::zoneset::{INVALID, Pool, SetId, ZoneSet};
use crate::policy::model::Zone;

/// Sources that no packet from a network has (RFC 6890, RFC 4291 section 2.7): "this host", loopback, multicast, and
/// the limited broadcast.
const INVALID_V4: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::UNSPECIFIED, 32),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
];
/// The same of IPv6: unspecified, loopback, multicast; and IPv4 addresses in IPv6 form, which are for a host's own use (RFC
/// 4291 section 2.5.5.2): from a network they would go round what is said of the IPv4 address.
const INVALID_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::UNSPECIFIED, 128),
    (Ipv6Addr::LOCALHOST, 128),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
];

/// A run of addresses: it ends where the next one begins, or with the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First address, left-aligned: IPv4 fills the upper 32 bits.
    pub(super) start: u128,
    /// What is said of its addresses: a set of zones, later a source class.
    pub(super) value: u32,
}

/// The runs of both families.
pub(super) struct Runs {
    pub(super) v4: Vec<Run>,
    pub(super) v6: Vec<Run>,
}

/// A prefix of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    /// First address, left-aligned.
    start: u128,
    length: u8,
    zone: u16,
}

impl Prefix {
    fn v4(net: Ipv4Net, zone: u16) -> Self {
        Self { start: u128::from(net.network().to_bits()) << 96, length: net.prefix_len(), zone }
    }

    fn v6(net: Ipv6Net, zone: u16) -> Self {
        Self { start: net.network().to_bits(), length: net.prefix_len(), zone }
    }

    /// Last address.
    fn last(&self) -> u128 {
        self.start | u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0)
    }
}

/// The runs of the zones and of the invalid sources, `own` among them; the values are numbers of sets in the pool.
pub(super) fn runs(zones: &[Zone], own: &[IpAddr], pool: &mut Pool) -> Runs {
    let numbered = || (0u16..).zip(zones);
    let everywhere: ZoneSet = numbered().filter(|(_, zone)| zone.any).map(|(number, _)| number).collect();
    let base = pool.id(everywhere);
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (number, zone) in numbered() {
        for prefix in &zone.prefixes {
            match prefix {
                IpNet::V4(net) => v4.push(Prefix::v4(*net, number)),
                IpNet::V6(net) => v6.push(Prefix::v6(*net, number)),
            }
        }
    }
    v4.extend(INVALID_V4.map(|(first, length)| Prefix::v4(Ipv4Net::new_assert(first, length), INVALID)));
    v6.extend(INVALID_V6.map(|(first, length)| Prefix::v6(Ipv6Net::new_assert(first, length), INVALID)));
    for address in own {
        match IpNet::from(*address) {
            IpNet::V4(net) => v4.push(Prefix::v4(net, INVALID)),
            IpNet::V6(net) => v6.push(Prefix::v6(net, INVALID)),
        }
    }
    Runs { v4: sweep(v4, base, pool), v6: sweep(v6, base, pool) }
}

/// Sweeps over the prefixes of one family.
fn sweep(mut prefixes: Vec<Prefix>, base: SetId, pool: &mut Pool) -> Vec<Run> {
    // By first address; of two that begin together the longer-reaching one comes first and is the outer one.
    prefixes.sort_unstable();
    let mut sweep = Sweep { runs: vec![Run { start: 0, value: base }], open: Vec::new(), base };
    for prefix in &prefixes {
        sweep.close_before(prefix.start);
        let set = pool.join(sweep.innermost(), prefix.zone);
        put(&mut sweep.runs, prefix.start, set);
        sweep.open.push((prefix.last(), set));
    }
    sweep.close_before(u128::MAX);
    sweep.runs
}

struct Sweep {
    runs: Vec<Run>,
    /// Last address and set of each prefix that the sweep is in, innermost last.
    open: Vec<(u128, SetId)>,
    /// The set outside of all prefixes.
    base: SetId,
}

impl Sweep {
    fn innermost(&self) -> SetId {
        self.open.last().map_or(self.base, |(_, set)| *set)
    }

    /// Leaves the prefixes that end before an address. Those that end with the family are never left.
    fn close_before(&mut self, address: u128) {
        while let Some((last, _)) = self.open.last().copied().filter(|(last, _)| *last < address) {
            self.open.pop();
            let around = self.innermost();
            put(&mut self.runs, last + 1, around);
        }
    }
}

/// Adds a run; neighbours with equal values are one.
pub(super) fn put(runs: &mut Vec<Run>, start: u128, value: u32) {
    if runs.last().is_some_and(|run| run.start == start) {
        runs.pop();
    }
    if runs.last().is_none_or(|run| run.value != value) {
        runs.push(Run { start, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(prefixes: &[&str]) -> Zone {
        let any = prefixes == ["any"];
        let prefixes = if any { &[] } else { prefixes };
        let prefixes = prefixes.iter().map(|text| text.parse().expect(text)).collect();
        Zone { name: "z".to_owned(), any, prefixes, list: None, interfaces: Vec::new() }
    }

    /// Where runs of IPv4 begin and which zones they are in.
    fn v4(zones: &[Zone]) -> Vec<(Ipv4Addr, Vec<u16>)> {
        let mut pool = Pool::default();
        let runs = runs(zones, &[], &mut pool).v4;
        let zones_of = |set: u32| (0..=INVALID).filter(|z| pool.sets()[set as usize].has(*z)).collect();
        runs.iter().map(|run| (Ipv4Addr::from((run.start >> 96) as u32), zones_of(run.value))).collect()
    }

    #[test]
    fn invalid_sources_are_runs_of_their_own() {
        let expected = [
            ([0, 0, 0, 0], vec![INVALID]),
            ([0, 0, 0, 1], vec![]),
            ([127, 0, 0, 0], vec![INVALID]),
            ([128, 0, 0, 0], vec![]),
            ([224, 0, 0, 0], vec![INVALID]),
            ([240, 0, 0, 0], vec![]),
            ([255, 255, 255, 255], vec![INVALID]),
        ];
        assert_eq!(v4(&[]), expected.map(|(start, zones)| (Ipv4Addr::from(start), zones)));
    }

    #[test]
    fn prefixes_nest_and_touch() {
        let zones =
            [zone(&["10.0.0.0/8", "11.0.0.0/8"]), zone(&["10.0.0.0/8", "10.0.0.0/9", "10.255.255.255/32"])];
        let found: Vec<_> =
            v4(&zones).into_iter().filter(|(start, _)| [10, 11, 12].contains(&start.octets()[0])).collect();
        let expected = [([10, 0, 0, 0], vec![0, 1]), ([11, 0, 0, 0], vec![0]), ([12, 0, 0, 0], vec![])];
        assert_eq!(found, expected.map(|(start, zones)| (Ipv4Addr::from(start), zones)));
    }

    #[test]
    fn the_whole_family_and_every_address_are_the_same() {
        let expected = v4(&[zone(&["any"])]);
        assert_eq!(v4(&[zone(&["0.0.0.0/0", "255.255.255.255/32"])]), expected);
        assert!(expected.iter().all(|(_, zones)| zones.contains(&0)));
    }
}
