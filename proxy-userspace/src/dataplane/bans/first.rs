//! The first bans in the kernel, as `top` shows them: read from the maps alone, and never all of two million. Called by `top`;
//! needs no daemon.

use std::time::Duration;

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use ipnet::IpNet;
use proxy_common::abi::ban::{Ban, BanKey, BanPrefix, FOR_EVER};

use super::place::{net_of_prefix, net_of_single};
use crate::dataplane::error::{Context, DataplaneError, at};
use crate::dataplane::pins::Pins;
use crate::dataplane::shared::now_ns;

/// A source that is banned, and for how long yet: `None` for ever.
pub type Left = (IpNet, Option<Duration>);

/// Bans that are not over, of at most `most` single addresses and as many prefixes. Nothing enforced gives none.
///
/// # Errors
/// If the maps can't be read.
pub fn first_bans(pins: &Pins, most: usize) -> Result<Vec<Left>, DataplaneError> {
    let (singles, prefixes) = (pins.shared_map("BANS"), pins.shared_map("BAN_PREFIXES"));
    if !singles.exists() || !prefixes.exists() {
        return Ok(Vec::new());
    }
    let now_ns = now_ns()?;
    let mut bans = Vec::new();
    let map = Map::HashMap(MapData::from_pin(&singles).context(at(&singles))?);
    let map: HashMap<_, BanKey, Ban> = HashMap::try_from(map).context(at(&singles))?;
    // What is taken out meanwhile ends a walk or begins it anew; a view that is looked at again a second later need not mind.
    for (key, ban) in map.iter().take(most).filter_map(Result::ok) {
        bans.extend(left(&ban, now_ns).and_then(|left| Some((net_of_single(&key)?, left))));
    }
    let map = Map::LpmTrie(MapData::from_pin(&prefixes).context(at(&prefixes))?);
    let map: LpmTrie<_, BanPrefix, Ban> = LpmTrie::try_from(map).context(at(&prefixes))?;
    for key in map.keys().take(most).filter_map(Result::ok) {
        let ban = match map.get(&key, 0) {
            Err(MapError::KeyNotFound) => continue,
            found => found.context(at(&prefixes))?,
        };
        bans.extend(left(&ban, now_ns).and_then(|left| Some((net_of_prefix(&key)?, left))));
    }
    Ok(bans)
}

/// How long a ban lasts yet; `None` if it is over.
fn left(ban: &Ban, now_ns: u64) -> Option<Option<Duration>> {
    if ban.until_ns == FOR_EVER {
        return Some(None);
    }
    let left = ban.until_ns.checked_sub(now_ns).filter(|left| *left > 0)?;
    Some(Some(Duration::from_nanos(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_that_is_over_is_none() {
        let ban = |until_ns| Ban { until_ns, since_ns: 0 };
        assert_eq!(left(&ban(1_000), 1_000), None);
        assert_eq!(left(&ban(3_000), 1_000), Some(Some(Duration::from_micros(2))));
        assert_eq!(left(&ban(FOR_EVER), 1_000), Some(None));
    }
}
