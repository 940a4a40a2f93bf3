//! How many flows are remembered, and which of the established ones are over. Called by `stats` and by the daemon's
//! housekeeping; counting needs no daemon.

use std::collections::HashSet;
use std::path::Path;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use proxy_common::abi::flow::{ESTABLISHED_LEN, FLOWS_LEN, FlowKey, FlowValue};

use super::error::{Context, DataplaneError, at};
use super::pins::Pins;
use super::shared::now_ns;

/// Counts the flows of the table: those whose time is over too, until their room is needed.
///
/// # Errors
/// If the table can't be read. None is fine: nothing is enforced then.
pub fn count(pins: &Pins) -> Result<u64, DataplaneError> {
    let mut known = HashSet::new();
    for (name, most) in [("FLOWS", FLOWS_LEN), ("ESTABLISHED", ESTABLISHED_LEN)] {
        let path = pins.shared_map(name);
        if !path.exists() {
            continue;
        }
        let flows = open::<FlowKey, FlowValue>(&path)?;
        // The kernel begins anew when the key that it is to go on from has just made room for another one: so none is
        // counted twice, and a table that is overrun does not hold us for ever.
        for key in flows.keys().take(2 * most as usize) {
            known.insert(key.context(at(&path))?);
        }
    }
    Ok(known.len() as u64)
}

/// Forgets established connections of which nothing was heard for longer than `timeout_ns`: a peer that vanished without a
/// word. The kernel's programs pay them no heed any more, but nothing else takes their room. Gives how many.
///
/// # Errors
/// If the table can't be read. None is fine: nothing is enforced then.
pub fn forget_silent(pins: &Pins, timeout_ns: u64) -> Result<usize, DataplaneError> {
    let path = pins.shared_map("ESTABLISHED");
    if !path.exists() {
        return Ok(0);
    }
    let mut flows = open::<FlowKey, FlowValue>(&path)?;
    let now_ns = now_ns()?;
    let over = |flow: &FlowValue| now_ns.saturating_sub(flow.last_ns) > timeout_ns;
    let silent: Vec<FlowKey> = flows
        .iter()
        .take(2 * ESTABLISHED_LEN as usize)
        .filter_map(Result::ok)
        .filter(|(_, flow)| over(flow))
        .map(|(key, _)| key)
        .collect();
    // One that was heard of in between is looked at again; what fails was removed by a program.
    let gone = silent
        .iter()
        .filter(|key| flows.get(key, 0).is_ok_and(|flow| over(&flow)) && flows.remove(key).is_ok());
    Ok(gone.count())
}

/// Opens a table of flows or of fragments. `ESTABLISHED` alone evicts nothing.
pub(super) fn open<K: Pod, V: Pod>(path: &Path) -> Result<HashMap<MapData, K, V>, DataplaneError> {
    let map = MapData::from_pin(path).context(at(path))?;
    let map = if path.ends_with("ESTABLISHED") { Map::HashMap(map) } else { Map::LruHashMap(map) };
    HashMap::try_from(map).context(at(path))
}
