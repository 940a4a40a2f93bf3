//! `BAN_PREFIXES`: the kernel finds the longest prefix of a source alone, so a longer one whose ban has ended would hide a
//! wider one whose ban goes on. Each prefix therefore stands there until the end of its own ban or of the last one around it.

use std::collections::BTreeMap;

use aya::maps::MapData;
use aya::maps::lpm_trie::LpmTrie;
use ipnet::IpNet;
use proxy_common::abi::ban::{Ban, BanPrefix};

use super::place::{Place, net_of_prefix};
use super::removed;
use crate::dataplane::error::{Context, DataplaneError};

const NAME: &str = "BAN_PREFIXES";

/// The prefixes as they stand there: the ends are those by which the kernel goes.
///
/// # Errors
/// If the map can't be read.
pub fn read(map: &LpmTrie<MapData, BanPrefix, Ban>) -> Result<Vec<(IpNet, Ban)>, DataplaneError> {
    let mut found = Vec::new();
    for key in map.keys() {
        let key = key.context(|| format!("reading {NAME}"))?;
        let ban = map.get(&key, 0).context(|| format!("reading {NAME}"))?;
        found.extend(net_of_prefix(&key).map(|net| (net, ban)));
    }
    Ok(found)
}

/// Makes the map say what these bans say, each with its own end. Whoever is banned before and after is so at any time: what
/// is new or ends later is written first.
///
/// # Errors
/// If there is no room for them, or the map can't be written; what was written stays.
pub fn replace(
    map: &mut LpmTrie<MapData, BanPrefix, Ban>,
    own: &BTreeMap<IpNet, Ban>,
) -> Result<(), DataplaneError> {
    let present: BTreeMap<IpNet, Ban> = read(map)?.into_iter().collect();
    let wanted = effective(own);
    let write = |map: &mut LpmTrie<MapData, BanPrefix, Ban>, net: &IpNet, ban: &Ban| match Place::of(*net) {
        Place::Prefix(key) => map.insert(&key, *ban, 0).context(|| format!("banning {net}")),
        Place::Single(_) => Ok(()),
    };
    let later = |net: &IpNet, ban: &Ban| present.get(net).is_none_or(|old| old.until_ns < ban.until_ns);
    for (net, ban) in wanted.iter().filter(|(net, ban)| later(net, ban)) {
        write(map, net, ban)?;
    }
    for (net, ban) in wanted.iter().filter(|(net, ban)| !later(net, ban) && present.get(*net) != Some(*ban)) {
        write(map, net, ban)?;
    }
    for net in present.keys().filter(|net| !wanted.contains_key(*net)) {
        if let Place::Prefix(key) = Place::of(*net) {
            removed(map.remove(&key)).context(|| format!("unbanning {net}"))?;
        }
    }
    Ok(())
}

/// Each ban with the end of the last one that holds for all of its addresses.
fn effective(own: &BTreeMap<IpNet, Ban>) -> BTreeMap<IpNet, Ban> {
    let around = |net: &IpNet| {
        let mut until_ns = 0;
        let mut wider = net.supernet();
        while let Some(net) = wider {
            until_ns = until_ns.max(own.get(&net).map_or(0, |ban| ban.until_ns));
            wider = net.supernet();
        }
        until_ns
    };
    own.iter()
        .map(|(net, ban)| (*net, Ban { until_ns: ban.until_ns.max(around(net)), since_ns: ban.since_ns }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_as_long_as_the_last_one_around_it() {
        let ban = |until_ns| Ban { until_ns, since_ns: 1 };
        let own: BTreeMap<IpNet, Ban> = [
            ("10.0.0.0/8", 100),
            ("10.1.0.0/16", 50),
            ("10.1.2.0/24", 200),
            ("10.1.2.128/25", 10),
            ("11.0.0.0/16", 5),
            ("2001:db8::/32", 70),
            ("2001:db8::1/128", 20),
            ("2001:db9::1/128", 20),
        ]
        .into_iter()
        .map(|(net, until_ns)| (net.parse().expect(net), ban(until_ns)))
        .collect();
        let stand: Vec<_> =
            effective(&own).into_iter().map(|(net, ban)| (net.to_string(), ban.until_ns)).collect();
        let stand: Vec<_> = stand.iter().map(|(net, until_ns)| (net.as_str(), *until_ns)).collect();
        assert_eq!(
            stand,
            [
                ("10.0.0.0/8", 100),
                ("10.1.0.0/16", 100),
                ("10.1.2.0/24", 200),
                ("10.1.2.128/25", 200),
                ("11.0.0.0/16", 5),
                ("2001:db8::/32", 70),
                ("2001:db8::1/128", 70),
                ("2001:db9::1/128", 20),
            ]
        );
    }
}
