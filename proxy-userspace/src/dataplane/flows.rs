//! How many flows are remembered. Called by `stats`; needs no daemon.

use std::collections::HashSet;

use aya::maps::{HashMap, Map, MapData};
use proxy_common::abi::flow::{FLOWS_LEN, FlowKey, FlowValue};

use super::error::{Context, DataplaneError, at};
use super::pins::Pins;

/// Counts the flows of the table: those whose time is over too, until their room is needed.
///
/// # Errors
/// If the table can't be read. None is fine: nothing is enforced then.
pub fn count(pins: &Pins) -> Result<u64, DataplaneError> {
    let path = pins.shared_map("FLOWS");
    if !path.exists() {
        return Ok(0);
    }
    let map = MapData::from_pin(&path).context(at(&path))?;
    let flows: HashMap<_, FlowKey, FlowValue> = HashMap::try_from(Map::LruHashMap(map)).context(at(&path))?;
    let mut known = HashSet::new();
    // The kernel begins anew when the key that it is to go on from has just made room for another one: so none is counted
    // twice, and a table that is overrun does not hold us for ever.
    for key in flows.keys().take(2 * FLOWS_LEN as usize) {
        known.insert(key.context(at(&path))?);
    }
    Ok(known.len() as u64)
}
