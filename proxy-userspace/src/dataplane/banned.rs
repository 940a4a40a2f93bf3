//! The first bans in the kernel, as `top` shows them: read from the maps alone, and never all of two million. Called by `top`;
//! needs no daemon.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proxy_common::abi::ban::{Ban, BanKey, BanPrefix, FOR_EVER};

use super::error::{Context, DataplaneError, at};
use super::pins::Pins;
use super::shared::now_ns;

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
        bans.extend(left(&ban, now_ns).and_then(|left| Some((single(key)?, left))));
    }
    let map = Map::LpmTrie(MapData::from_pin(&prefixes).context(at(&prefixes))?);
    let map: LpmTrie<_, BanPrefix, Ban> = LpmTrie::try_from(map).context(at(&prefixes))?;
    for key in map.keys().take(most).filter_map(Result::ok) {
        let ban = match map.get(&key, 0) {
            Err(MapError::KeyNotFound) => continue,
            found => found.context(at(&prefixes))?,
        };
        let net = prefix(key.data(), key.prefix_len());
        bans.extend(left(&ban, now_ns).and_then(|left| Some((net?, left))));
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

fn single(key: BanKey) -> Option<IpNet> {
    match key.family {
        4 => Some(Ipv4Net::from(Ipv4Addr::from((key.hi >> 32) as u32)).into()),
        6 => Some(Ipv6Net::new(Ipv6Addr::from(u128::from(key.hi) << 64), 64).ok()?.into()),
        _ => None,
    }
}

fn prefix(found: BanPrefix, bits: u32) -> Option<IpNet> {
    let length = u8::try_from(bits.checked_sub(BanPrefix::FAMILY_BITS)?).ok()?;
    let [a, b, c, d, ..] = found.address;
    match found.family {
        4 => Some(Ipv4Net::new(Ipv4Addr::new(a, b, c, d), length).ok()?.into()),
        6 => Some(Ipv6Net::new(Ipv6Addr::from(found.address), length).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::packet::Addr;

    use super::*;

    fn net(text: &str) -> Option<IpNet> {
        text.parse().ok()
    }

    #[test]
    fn keys_read_back_as_the_prefixes_that_they_are() {
        let of = |text: &str| Addr::from_ip(text.parse().expect("an address"));
        assert_eq!(single(BanKey::of(of("203.0.113.9"), false)), net("203.0.113.9/32"));
        assert_eq!(single(BanKey::of(of("2001:db8:1:2::"), true)), net("2001:db8:1:2::/64"));
        assert_eq!(prefix(BanPrefix::of(of("203.0.112.0"), false), 32 + 20), net("203.0.112.0/20"));
        assert_eq!(prefix(BanPrefix::of(of("2001:db8::"), true), 32 + 48), net("2001:db8::/48"));
        assert_eq!(prefix(BanPrefix::of(of("203.0.112.0"), false), 32 + 33), None);
        assert_eq!(prefix(BanPrefix::default(), 5), None);
    }

    #[test]
    fn a_ban_that_is_over_is_none() {
        let ban = |until_ns| Ban { until_ns, since_ns: 0 };
        assert_eq!(left(&ban(1_000), 1_000), None);
        assert_eq!(left(&ban(3_000), 1_000), Some(Some(Duration::from_micros(2))));
        assert_eq!(left(&ban(FOR_EVER), 1_000), Some(None));
    }
}
