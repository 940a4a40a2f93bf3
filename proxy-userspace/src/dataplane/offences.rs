//! Packets over a limit that bans who exceeds it, as the programs tell of them. Opened by the daemon; nobody else reads this
//! ring.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{Map, MapData, MapInfo, RingBuf};
use proxy_common::abi::event::Event;

use super::error::{Context, DataplaneError, at};
use super::events::next_event;
use super::pins::Pins;

/// The ring of offences.
pub struct Offences {
    ring: RingBuf<MapData>,
    map: u32,
}

impl std::fmt::Debug for Offences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offences").field("map", &self.map).finish_non_exhaustive()
    }
}

impl Offences {
    /// Opens the ring; `None` if there is none.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(pins: &Pins) -> Result<Option<Self>, DataplaneError> {
        let path = pins.shared_map("OFFENCES");
        if !path.exists() {
            return Ok(None);
        }
        let map = MapData::from_pin(&path).context(at(&path))?;
        let id = map.info().context(at(&path))?.id();
        let ring = RingBuf::try_from(Map::RingBuf(map)).context(at(&path))?;
        Ok(Some(Self { ring, map: id }))
    }

    /// True if the programs in force write to this ring: enforcement that ended and began again has another.
    pub fn is_in_force(&self, pins: &Pins) -> bool {
        MapInfo::from_pin(pins.shared_map("OFFENCES")).is_ok_and(|info| info.id() == self.map)
    }

    /// The next offence, if there is one.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at the first pause")]
    pub fn next(&mut self) -> Option<Event> {
        next_event(&mut self.ring)
    }
}

impl AsRawFd for Offences {
    /// Readable when there is one.
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
