//! The instance in force, loaded once more: its tables and constants as the kernel has them, and copies of the state that
//! programs change.
//!
//! Called by `explain`, which asks it, and by `shadow`, which puts it in the place of what is in force.

use std::num::NonZeroUsize;
use std::path::Path;

use aya::maps::{Array, HashMap as KernelHashMap, Map, MapData};
use aya::programs::ProgramInfo;
use aya::{Ebpf, Pod};
use proxy_common::abi::limit::{LINES, WAYS};
use proxy_common::abi::settings::{DEADLINE_NONE, Settings};

use super::error::{Context, DataplaneError, at, missing};
use super::flows;
use super::live;
use super::memory::{fill, with_mapping};
use super::object::Plan;
use super::pins::{Pins, TABLES};

/// What a load needs to judge as a program does: its tables, pinned in `folder` until it has them, and its constants. It has no
/// deadline and no shadow.
///
/// # Errors
/// If the program's maps can't be looked at.
pub(super) fn plan_of(program: &ProgramInfo, folder: &Path) -> Result<(Plan, Settings), DataplaneError> {
    let mut plan = Plan::new();
    for name in TABLES {
        let map = map_of(program, name)?;
        let (path, elements) = (folder.join(name), map.info().context(|| name)?.max_entries());
        map.pin(&path).context(at(&path))?;
        plan = plan.pinned(name, path).sized(name, elements as usize);
    }
    let constants = Map::Array(map_of(program, "CONSTANTS")?);
    let constants: Array<_, Settings> = Array::try_from(constants).context(|| "CONSTANTS")?;
    let settings = constants.get(&0, 0).context(|| "CONSTANTS")?;
    Ok((plan, Settings { on_deadline: DEADLINE_NONE, shadowed: 0, ..settings }))
}

fn map_of(program: &ProgramInfo, name: &str) -> Result<MapData, DataplaneError> {
    live::map_of(program, name)?.ok_or_else(|| missing(format!("{name} of the program in force")))
}

/// Copies what sources owe.
///
/// # Errors
/// If the kernel refuses the access.
pub(super) fn copy_cells(pins: &Pins, ebpf: &Ebpf) -> Result<(), DataplaneError> {
    write_words(ebpf, "CELLS", &read_words(pins, "CELLS", (LINES * WAYS) as usize)?)
}

/// Copies a table of flows or fragments as it is now into a load that has one of its own.
///
/// # Errors
/// If the kernel refuses the access.
pub(super) fn copy_hash<K: Pod, V: Pod>(
    pins: &Pins,
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<(), DataplaneError> {
    let live = flows::open::<K, V>(&pins.shared_map(name))?;
    let most = live.keys().count();
    let copy = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
    let mut copy: KernelHashMap<_, K, V> = KernelHashMap::try_from(copy).context(|| name.to_owned())?;
    // Entries go while they are read; one more or less of them is as if the question had been asked a little later.
    for (key, value) in live.iter().take(most).filter_map(Result::ok) {
        copy.insert(key, value, 0).context(|| name.to_owned())?;
    }
    Ok(())
}

/// The words of a shared array as they are now.
///
/// # Errors
/// If it can't be mapped.
pub(super) fn read_words(pins: &Pins, name: &str, words: usize) -> Result<Vec<u64>, DataplaneError> {
    let path = pins.shared_map(name);
    let map = MapData::from_pin(&path).context(at(&path))?;
    let mut copy = vec![0; words];
    let Some(length) = NonZeroUsize::new(words * 8) else { return Ok(copy) };
    with_mapping(&map, name, length, |memory| {
        for (at, word) in copy.iter_mut().enumerate() {
            // SAFETY: within the mapping, which is aligned to a page; volatile, because programs write it meanwhile.
            *word = unsafe { memory.cast::<u64>().wrapping_add(at).read_volatile() };
        }
    })?;
    Ok(copy)
}

/// Fills an array of a load.
///
/// # Errors
/// If it can't be mapped.
pub(super) fn write_words(ebpf: &Ebpf, name: &str, words: &[u64]) -> Result<(), DataplaneError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => fill(map, name, words),
        _ => Err(missing(name)),
    }
}
