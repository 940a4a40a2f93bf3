//! Bans in the kernel: who is there, until when, and the order in which the maps are written.
//!
//! ```text
//! BAN_FILTER (filter) ── BANS (batch) ── BAN_PREFIXES (prefixes) ── SWITCHES: who looks, and at what
//! ```
//!
//! Called by `crate::bans`, which knows why and since when; for changes with the lock held. The kernel's programs compare
//! the time themselves: what is not swept away is over all the same.

mod batch;
mod filter;
mod first;
mod place;
mod prefixes;

use std::collections::BTreeMap;
use std::fmt;

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, Map, MapData, MapError};
use ipnet::IpNet;
use proxy_common::abi::ban::{BAN_PREFIXES_LEN, BANS_LEN, BANS_PREFIX, BANS_SINGLE, Ban, BanKey, BanPrefix};

use super::error::{Context, DataplaneError, at};
use super::pins::Pins;
use super::shared::check_identity;
use super::switches;
use place::{Place, net_of_single};

pub use first::first_bans;
pub use place::is_single;

/// The maps of one firewall's bans.
pub struct Bans {
    singles: HashMap<MapData, BanKey, Ban>,
    /// The same map once more, for calls that aya does not have.
    singles_fd: MapData,
    prefixes: LpmTrie<MapData, BanPrefix, Ban>,
    filter: MapData,
    switches: MapData,
}

impl fmt::Debug for Bans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bans").finish_non_exhaustive()
    }
}

impl Bans {
    /// Opens the maps; `None` if no policy was ever enforced, or `detach` has ended it.
    ///
    /// # Errors
    /// If they are not ours, or can't be opened.
    pub fn open(pins: &Pins) -> Result<Option<Self>, DataplaneError> {
        check_identity(pins)?;
        if !pins.shared_map("BANS").exists() {
            return Ok(None);
        }
        Self::with(|name| {
            let path = pins.shared_map(name);
            MapData::from_pin(&path).context(at(&path))
        })
        .map(Some)
    }

    /// The maps that `open` gives, by name; one of them is asked for twice.
    pub(super) fn with(
        mut open: impl FnMut(&'static str) -> Result<MapData, DataplaneError>,
    ) -> Result<Self, DataplaneError> {
        let singles = HashMap::try_from(Map::HashMap(open("BANS")?)).context(|| "BANS")?;
        let prefixes = Map::LpmTrie(open("BAN_PREFIXES")?);
        Ok(Self {
            singles,
            singles_fd: open("BANS")?,
            prefixes: LpmTrie::try_from(prefixes).context(|| "BAN_PREFIXES")?,
            filter: open("BAN_FILTER")?,
            switches: open("SWITCHES")?,
        })
    }

    /// Bans single addresses and IPv6 prefixes of 64 bits, or changes the end of their bans; others are left out.
    ///
    /// # Errors
    /// If there is no room for them; those before are banned then.
    pub fn add_singles(&mut self, bans: &[(IpNet, Ban)]) -> Result<(), DataplaneError> {
        let (keys, values): (Vec<BanKey>, Vec<Ban>) = bans
            .iter()
            .filter_map(|(net, ban)| match Place::of(*net) {
                Place::Single(key) => Some((key, *ban)),
                Place::Prefix(_) => None,
            })
            .unzip();
        if keys.is_empty() {
            return Ok(());
        }
        filter::add(&self.filter, keys.iter())?;
        let written = batch::update(&mut self.singles, &self.singles_fd, &keys, &values);
        // One look into an almost empty table of two million takes milliseconds.
        self.switch(written.is_ok())?;
        written.map_err(|error| full(error, "single addresses", BANS_LEN))
    }

    /// Ends the ban of a single address or an IPv6 prefix of 64 bits; true if there was one.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn remove_single(&mut self, net: IpNet) -> Result<bool, DataplaneError> {
        let Place::Single(key) = Place::of(net) else { return Ok(false) };
        removed(self.singles.remove(&key)).context(|| format!("unbanning {net}"))
    }

    /// All bans of single addresses and of IPv6 prefixes of 64 bits, those that are over too.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn singles(&self) -> Result<Vec<(IpNet, Ban)>, DataplaneError> {
        let found = batch::read(&self.singles, &self.singles_fd, "BANS")?;
        Ok(found.iter().filter_map(|(key, ban)| Some((net_of_single(key)?, *ban))).collect())
    }

    /// All bans of other prefixes, with the ends by which the kernel goes: those of the last ban around them.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn prefixes(&self) -> Result<Vec<(IpNet, Ban)>, DataplaneError> {
        prefixes::read(&self.prefixes)
    }

    /// Makes these all the bans of other prefixes that there are, each with its own end.
    ///
    /// # Errors
    /// If there is no room for them; some may be banned then.
    pub fn set_prefixes(&mut self, own: &BTreeMap<IpNet, Ban>) -> Result<(), DataplaneError> {
        Self::has_room_for(own)?;
        let written = prefixes::replace(&mut self.prefixes, own);
        self.switch(false)?;
        written
    }

    /// Fails if so many prefixes can't be banned.
    ///
    /// # Errors
    /// [`DataplaneError::NoRoom`].
    pub fn has_room_for(own: &BTreeMap<IpNet, Ban>) -> Result<(), DataplaneError> {
        if own.len() > BAN_PREFIXES_LEN as usize {
            return Err(DataplaneError::NoRoom { of: "prefixes", most: BAN_PREFIXES_LEN });
        }
        Ok(())
    }

    /// Takes out what is over, and makes the filter sharp again: removed bans leave their bits in it. Gives how many.
    ///
    /// # Errors
    /// If a map can't be read or written.
    pub fn sweep_singles(&mut self, now_ns: u64) -> Result<usize, DataplaneError> {
        let all = batch::read(&self.singles, &self.singles_fd, "BANS")?;
        let (live, over): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, ban)| now_ns < ban.until_ns);
        for (key, _) in &over {
            removed(self.singles.remove(key)).context(|| "sweeping BANS")?;
        }
        filter::rebuild(&self.filter, live.iter().map(|(key, _)| key))?;
        self.switch(!live.is_empty())?;
        Ok(over.len())
    }

    /// Says to the programs where to look: not at all while there is no ban. After the maps are written; `has_singles` if that
    /// is known.
    fn switch(&self, has_singles: bool) -> Result<(), DataplaneError> {
        let single =
            if has_singles { BANS_SINGLE } else { first(self.singles.keys().next(), BANS_SINGLE, "BANS")? };
        let prefix = first(self.prefixes.keys().next(), BANS_PREFIX, "BAN_PREFIXES")?;
        switches::set_bans_in(&self.switches, single | prefix)
    }
}

fn first<K: Pod>(key: Option<Result<K, MapError>>, bit: u32, name: &str) -> Result<u32, DataplaneError> {
    match key.transpose().context(|| format!("reading {name}"))? {
        Some(_) => Ok(bit),
        None => Ok(0),
    }
}

/// True if something was removed, false if it was not there.
fn removed(result: Result<(), MapError>) -> Result<bool, MapError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::IoError(error) => error.raw_os_error(),
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

/// Says that a map is full in words that help.
fn full(error: MapError, of: &'static str, most: u32) -> DataplaneError {
    match errno(&error) {
        Some(libc::E2BIG | libc::ENOSPC) => DataplaneError::NoRoom { of, most },
        _ => DataplaneError::Kernel { what: format!("banning {of}"), source: Box::new(error) },
    }
}
