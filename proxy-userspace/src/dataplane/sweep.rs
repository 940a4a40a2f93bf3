//! Sweeps the limiter's cells: sets those that owe nothing to zero.
//!
//! A cell holds 48 bits of nanoseconds, which wrap after 78 hours: one that was left alone for that long would look like a
//! debt for a while. The daemon sweeps every hour. Without a daemon a source that comes back after just that time may be
//! limited for up to one burst's time; it is never let through more.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use proxy_common::abi::limit::{LINES, WAYS};
use proxy_common::engine::limiter::is_settled;

use super::error::{Context, DataplaneError, at};
use super::memory::with_mapping;
use super::pins::Pins;
use super::shared::now_ns;

/// Sweeps all cells, those of a shadow too; gives how many were set to zero.
///
/// # Errors
/// If they can't be mapped. None is fine: nothing is enforced then.
pub fn sweep(pins: &Pins) -> Result<usize, DataplaneError> {
    Ok(sweep_map(&pins.shared_map("CELLS"))? + sweep_map(&pins.shadow().join("CELLS"))?)
}

fn sweep_map(path: &Path) -> Result<usize, DataplaneError> {
    if !path.exists() {
        return Ok(0);
    }
    let map = MapData::from_pin(path).context(at(path))?;
    let now_ns = now_ns()?;
    let cells = (LINES * WAYS) as usize;
    let Some(length) = NonZeroUsize::new(cells * size_of::<u64>()) else { return Ok(0) };
    let mut swept = 0;
    with_mapping(&map, "CELLS", length, |memory| {
        // SAFETY: the mapping is that long, page-aligned, and shared with the kernel's programs, which use nothing but
        // atomic operations on it.
        let cells = unsafe { std::slice::from_raw_parts(memory.cast::<AtomicU64>(), cells) };
        swept = settle(cells, now_ns);
    })?;
    Ok(swept)
}

fn settle(cells: &[AtomicU64], now_ns: u64) -> usize {
    let settle = |cell: &&AtomicU64| {
        let value = cell.load(Ordering::Relaxed);
        // A program that charges the cell meanwhile wins.
        value != 0
            && is_settled(value, now_ns)
            && cell.compare_exchange(value, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    };
    cells.iter().filter(settle).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debts_stay_and_the_rest_goes() {
        let now_ns = 5_000_000_000_000;
        let tag = 7 << 48;
        let cells = [0, tag | 1, tag | (now_ns - 1), tag | (now_ns + 1_000_000), tag].map(AtomicU64::new);
        assert_eq!(settle(&cells, now_ns), 3);
        assert_eq!(cells.map(AtomicU64::into_inner), [0, 0, 0, tag | (now_ns + 1_000_000), 0]);
    }
}
