//! Writes what programs look at before they look at tables that are mostly empty. Called by whoever fills those tables
//! (`bans`) or reads them (`events`); each field has one writer.

use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::maps::MapData;
use proxy_common::abi::switches::Switches;

use super::error::{Context, DataplaneError, at};
use super::memory::with_mapping;
use super::pins::Pins;

/// Says which bans there are: `BANS_*` of `proxy_common::abi::ban`. `map` is `SWITCHES`, pinned or of a trial.
///
/// # Errors
/// If the switches can't be mapped.
pub(super) fn set_bans_in(map: &MapData, bans: u32) -> Result<(), DataplaneError> {
    with_map(map, |switches| {
        // SAFETY: within the mapping, aligned, and used by atomic accesses alone.
        let field = unsafe { AtomicU32::from_ptr(switches.wrapping_add(offset_of!(Switches, bans)).cast()) };
        field.store(bans, Ordering::Release);
    })
}

/// Says until when somebody listens to events, the engine's clock; 0: nobody. Of several listeners the longest counts, so
/// none cuts another short: 0 is for the last one alone.
///
/// # Errors
/// If the switches can't be mapped.
pub fn listen_until(pins: &Pins, until_ns: u64) -> Result<(), DataplaneError> {
    with(pins, |switches| {
        // SAFETY: as above.
        let field = unsafe {
            AtomicU64::from_ptr(switches.wrapping_add(offset_of!(Switches, listening_until_ns)).cast())
        };
        if until_ns == 0 {
            field.store(0, Ordering::Release);
        } else {
            field.fetch_max(until_ns, Ordering::AcqRel);
        }
    })
}

fn with(pins: &Pins, write: impl FnOnce(*mut u8)) -> Result<(), DataplaneError> {
    let path = pins.shared_map("SWITCHES");
    with_map(&MapData::from_pin(&path).context(at(&path))?, write)
}

fn with_map(map: &MapData, write: impl FnOnce(*mut u8)) -> Result<(), DataplaneError> {
    let Some(length) = NonZeroUsize::new(size_of::<Switches>()) else { return Ok(()) };
    with_mapping(map, "SWITCHES", length, |memory| write(memory.cast()))
}
