//! Whether a source is banned. Called for every packet of ours whose addresses make sense, before its class is looked up:
//! whatever follows the address does not matter.

use super::Tables;
use crate::abi::ban::{BANS_PREFIX, BANS_SINGLE, BanKey, BanPrefix};
use crate::packet::Addr;

/// True if nothing from this source is to pass now.
#[inline(always)]
pub(super) fn is_banned<T: Tables>(tables: &T, source: Addr, v6: bool) -> bool {
    let bans = tables.bans();
    if bans == 0 {
        return false;
    }
    if bans & BANS_SINGLE != 0 {
        let key = BanKey::of(source, v6);
        let (word, bits) = key.filter();
        // A filter that is not there says nothing.
        let may_be = tables.ban_filter(word).is_none_or(|filter| filter & bits == bits);
        if may_be && tables.ban(&key).is_some_and(|until_ns| tables.now_ns() < until_ns) {
            return true;
        }
    }
    bans & BANS_PREFIX != 0
        && tables.prefix_ban(&BanPrefix::of(source, v6)).is_some_and(|until_ns| tables.now_ns() < until_ns)
}
