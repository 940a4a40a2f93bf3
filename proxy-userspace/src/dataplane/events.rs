//! Listens to dropped packets: opens the ring that the programs write events to, and keeps saying that somebody reads it.
//! Called by `observe::feed`; needs no daemon.
//!
//! The ring has one reader at a time: who else wants to read is kept away by `control::lock`.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::read_unaligned;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, MapInfo, PerCpuArray, PerCpuValues, RingBuf};
use aya::util::nr_cpus;
use nix::time::{ClockId, clock_gettime};
use proxy_common::abi::event::{Event, Throttle};
use proxy_common::abi::reason::MAX_REASONS;

use super::error::{Context, DataplaneError, at};
use super::hook::{Attachment, Direction};
use super::live::{map_of, program};
use super::pins::Pins;
use super::shared::{check_identity, now_ns};
use super::switches::listen_until;

/// How long the programs write events after the last word of a listener: one that is killed is forgotten then.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it says so.
const RENEWAL: Duration = Duration::from_secs(1);

/// A reader of the ring. Dropping it ends the events.
pub struct Listener {
    pins: Pins,
    ring: RingBuf<MapData>,
    map: u32,
    renewed: Instant,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("pins", &self.pins).field("map", &self.map).finish_non_exhaustive()
    }
}

impl Listener {
    /// Begins to listen: what was written for earlier listeners is thrown away. `None` if nothing is enforced.
    ///
    /// # Errors
    /// If the pins are not ours, or the ring can't be opened.
    pub fn open(pins: &Pins) -> Result<Option<Self>, DataplaneError> {
        check_identity(pins)?;
        let path = pins.shared_map("EVENTS");
        if !path.exists() {
            return Ok(None);
        }
        let map = MapData::from_pin(&path).context(at(&path))?;
        let id = map.info().context(at(&path))?.id();
        let ring = RingBuf::try_from(Map::RingBuf(map)).context(at(&path))?;
        let mut listener = Self { pins: pins.clone(), ring, map: id, renewed: Instant::now() };
        while listener.next().is_some() {}
        forget_skipped(pins)?;
        listener.say()?;
        Ok(Some(listener))
    }

    /// Says that somebody listens, if it is time to; gives false if the ring is not the one in force any more.
    ///
    /// # Errors
    /// If it can't be said.
    pub fn renew(&mut self) -> Result<bool, DataplaneError> {
        if self.renewed.elapsed() < RENEWAL {
            return Ok(true);
        }
        // Enforcement that ended and began again has a ring of its own.
        let path = self.pins.shared_map("EVENTS");
        if !path.exists() || MapInfo::from_pin(&path).context(at(&path))?.id() != self.map {
            return Ok(false);
        }
        self.say()?;
        Ok(true)
    }

    fn say(&mut self) -> Result<(), DataplaneError> {
        listen_until(&self.pins, now_ns()? + PATIENCE.as_nanos() as u64)?;
        self.renewed = Instant::now();
        Ok(())
    }

    /// The next event, if there is one.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at the first pause")]
    pub fn next(&mut self) -> Option<Event> {
        next_event(&mut self.ring)
    }
}

/// The next event of a ring, if there is one.
pub(super) fn next_event(ring: &mut RingBuf<MapData>) -> Option<Event> {
    loop {
        let record = ring.next()?;
        if record.len() >= size_of::<Event>() {
            // SAFETY: so many bytes are readable there, and every bit pattern is an event.
            return Some(unsafe { read_unaligned(record.as_ptr().cast()) });
        }
    }
}

impl AsFd for Listener {
    /// Readable when there is an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only the one lock's holder has a listener, so nobody else listens. If it fails, time does it.
        let _ = listen_until(&self.pins, 0);
    }
}

/// What is to be added to the engine's clock for nanoseconds since 1970, now: both clocks are read anew each time, since the
/// one of the day can be set.
///
/// # Errors
/// If a clock can't be read.
pub fn engine_to_unix_ns() -> Result<i128, DataplaneError> {
    let unix = clock_gettime(ClockId::CLOCK_REALTIME).context(|| "the clock")?;
    let unix_ns = i128::from(unix.tv_sec()) * 1_000_000_000 + i128::from(unix.tv_nsec());
    Ok(unix_ns - i128::from(now_ns()?))
}

/// Forgets which packets had no event while an earlier listener was there: they are not this one's.
fn forget_skipped(pins: &Pins) -> Result<(), DataplaneError> {
    let cpus = nr_cpus().map_err(|(path, error)| DataplaneError::Kernel {
        what: format!("counting processors in {path}"),
        source: Box::new(error),
    })?;
    for index in pins.interfaces() {
        let folder = pins.interface(index);
        for attachment in Attachment::present(&folder, Direction::Ingress) {
            let Some(map) = map_of(&program(&folder, attachment, Direction::Ingress)?, "THROTTLES")? else {
                continue;
            };
            let map = Map::PerCpuArray(map);
            let mut map: PerCpuArray<_, Throttle> = PerCpuArray::try_from(map).context(|| "THROTTLES")?;
            for reason in 0..MAX_REASONS {
                let none = PerCpuValues::try_from(vec![Throttle::default(); cpus]).context(|| "zeros")?;
                map.set(reason, none, 0).context(|| "clearing THROTTLES")?;
            }
        }
    }
    Ok(())
}
