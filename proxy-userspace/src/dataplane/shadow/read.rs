//! What a shadow run has counted, read from the kernel. Called by `tollgate shadow`; needs no daemon.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use proxy_common::abi::RuleName;
use proxy_common::abi::counter::Counter;
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::abi::shadow::{Compared, PAIRS_LEN, Pair, Place, SOURCES_LEN, Seen};

use super::{Shadowing, running};
use crate::dataplane::counters::sum;
use crate::dataplane::error::{Context, DataplaneError, at};
use crate::dataplane::pins::Pins;
use crate::dataplane::shared::{names, read_rules};

/// What one of the two policies says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side {
    /// Why.
    pub reason: Reason,
    /// The rule's name, if the reason belongs to one.
    pub rule: Option<String>,
}

/// Packets that were treated differently in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose; `None`: all sources together, or no IP packets.
    pub source: Option<IpAddr>,
    /// What the policy in force says.
    pub in_force: Side,
    /// What the candidate says.
    pub candidate: Side,
    /// How many.
    pub counter: Counter,
    /// When the last one came, the engine's clock in nanoseconds.
    pub last_ns: u64,
    /// IP protocol number and destination port of one of the last; port 0 where there is none.
    pub to: (u8, u16),
}

/// All packets that one of the two alone would drop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// How many.
    pub all: Counter,
    /// Those whose source had no room in `sources`.
    pub unlisted: Counter,
    /// By what both say, all sources together.
    pub ways: Vec<Difference>,
    /// By source.
    pub sources: Vec<Difference>,
}

/// All that a shadow has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowRun {
    /// Which.
    pub shadow: Shadowing,
    /// Packets that both treat alike.
    pub alike: Counter,
    /// Packets that the candidate alone drops.
    pub newly_dropped: Differences,
    /// Packets that the candidate alone lets pass.
    pub newly_passed: Differences,
}

/// Reads what the shadow that runs has counted; `None`: none runs.
///
/// # Errors
/// If it can't be read.
pub fn read(pins: &Pins) -> Result<Option<ShadowRun>, DataplaneError> {
    let Some(shadow) = running(pins)? else { return Ok(None) };
    let folder = pins.shadow();
    let in_force = read_rules(pins)?;
    let candidate = folder.join("RULES");
    let map = Map::Array(MapData::from_pin(&candidate).context(at(&candidate))?);
    let map: Array<_, RuleName> = Array::try_from(map).context(at(&candidate))?;
    let candidate = names(&map)?;
    let difference = |source: Option<IpAddr>, pair: Pair, seen: Seen| Difference {
        source,
        in_force: side(pair.reason, pair.rule, &in_force),
        candidate: side(pair.shadow_reason, pair.shadow_rule, &candidate),
        counter: Counter { packets: seen.packets, bytes: seen.bytes },
        last_ns: seen.last_ns,
        to: (seen.protocol, seen.port),
    };
    let sources = |name| -> Result<Vec<Difference>, DataplaneError> {
        let places: Vec<(Place, Seen)> = entries(&folder.join(name), SOURCES_LEN)?;
        Ok(places.iter().map(|(place, seen)| difference(address(place), place.pair, *seen)).collect())
    };
    let mut dropped = Differences { sources: sources("NEWLY_DROPPED")?, ..Differences::default() };
    let mut passed = Differences { sources: sources("NEWLY_PASSED")?, ..Differences::default() };
    let pairs: Vec<(Pair, Seen)> = entries(&folder.join("PAIRS"), PAIRS_LEN)?;
    for (pair, seen) in pairs {
        let one = difference(None, pair, seen);
        match one.in_force.reason.verdict() {
            Verdict::Pass => dropped.ways.push(one),
            Verdict::Drop => passed.ways.push(one),
        }
    }
    let Compared { alike, newly_dropped, newly_passed, dropped_unlisted, passed_unlisted } =
        compared(&folder.join("COMPARED"))?;
    (dropped.all, dropped.unlisted) = (newly_dropped, dropped_unlisted);
    (passed.all, passed.unlisted) = (newly_passed, passed_unlisted);
    Ok(Some(ShadowRun { shadow, alike, newly_dropped: dropped, newly_passed: passed }))
}

fn side(reason: u8, rule: u16, names: &[Option<String>]) -> Side {
    let reason = Reason::from_number(reason);
    let rule = if reason.has_rule() { names.get(usize::from(rule)).cloned().flatten() } else { None };
    Side { reason, rule }
}

fn address(place: &Place) -> Option<IpAddr> {
    let [hi, lo] = place.source;
    match place.pair.family {
        4 => Some(Ipv4Addr::from((hi >> 32) as u32).into()),
        6 => Some(Ipv6Addr::from(u128::from(hi) << 64 | u128::from(lo)).into()),
        _ => None,
    }
}

fn entries<K: Pod>(path: &Path, most: u32) -> Result<Vec<(K, Seen)>, DataplaneError> {
    let map = Map::HashMap(MapData::from_pin(path).context(at(path))?);
    let map: HashMap<_, K, Seen> = HashMap::try_from(map).context(at(path))?;
    // Nothing is ever removed, so each is seen once; some are added meanwhile.
    map.iter().take(most as usize).map(|entry| entry.context(at(path))).collect()
}

fn compared(path: &Path) -> Result<Compared, DataplaneError> {
    let map = Map::PerCpuArray(MapData::from_pin(path).context(at(path))?);
    let map: PerCpuArray<_, Compared> = PerCpuArray::try_from(map).context(at(path))?;
    let all = map.get(&0, 0).context(at(path))?;
    let of = |which: fn(&Compared) -> &Counter| sum(all.iter().map(which));
    Ok(Compared {
        alike: of(|one| &one.alike),
        newly_dropped: of(|one| &one.newly_dropped),
        newly_passed: of(|one| &one.newly_passed),
        dropped_unlisted: of(|one| &one.dropped_unlisted),
        passed_unlisted: of(|one| &one.passed_unlisted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_from_their_numbers() {
        let place = |family, source| Place { source, pair: Pair { family, ..Pair::default() } };
        let v4 = address(&place(4, [0xc0a8_0032 << 32, 0]));
        assert_eq!(v4, Some(IpAddr::from([192, 168, 0, 50])));
        let v6 = address(&place(6, [0x2001_0db8 << 32, 9]));
        assert_eq!(v6, "2001:db8::9".parse().ok());
        assert_eq!(address(&place(0, [1, 2])), None);
    }

    #[test]
    fn a_rule_is_named_only_where_the_reason_has_one() {
        let names = [Some("default".to_owned()), Some("ssh".to_owned()), None];
        assert_eq!(side(Reason::ServiceAllowed as u8, 1, &names).rule.as_deref(), Some("ssh"));
        assert_eq!(side(Reason::Reply as u8, 1, &names).rule, None);
        assert_eq!(side(Reason::ServiceAllowed as u8, 2, &names).rule, None);
        assert_eq!(side(Reason::ServiceAllowed as u8, 900, &names).rule, None);
    }
}
