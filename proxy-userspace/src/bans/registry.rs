//! Changes of bans, and the list of them: first the kernel, then the file. A ban that could not be kept on the disk is
//! enforced all the same, and the command says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use proxy_common::abi::ban::{Ban, FOR_EVER};

use super::clock::Clock;
use super::file::{self, State, StateError};
use super::frame::Record;
use super::{Entry, LONGEST_WHY};
use crate::dataplane::{Bans, DataplaneError, Pins, is_single};
use crate::policy::units::{Target, TimeSpan};

/// So many removed bans have left bits in the filter that are worth a rebuild.
const WORTH_A_SWEEP: usize = 1000;
/// Of so many targets it is said by what they are banned still.
const MOST_EXPLAINED: usize = 16;

/// Why a change was not made, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum BanError {
    /// There is no filter that could ban anybody.
    #[error(
        "no policy is enforced here (looked in {}), and a ban is enforced by its programs: start one with `tollgate run`",
        .0.display()
    )]
    NotEnforced(PathBuf),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] DataplaneError),
    /// The file.
    #[error("the change is in force, and will not outlive a reboot: {0}")]
    NotKept(StateError),
    /// The file, before anything was changed.
    #[error(transparent)]
    Unreadable(#[from] StateError),
}

/// The bans of one firewall.
#[derive(Clone, Debug)]
pub struct Registry {
    pins: Pins,
    state_dir: PathBuf,
}

/// What an end of bans came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unbanned {
    /// What was banned, and is not any more by itself.
    pub ended: Vec<IpNet>,
    /// A wider prefix that is still banned and has one of the targets.
    pub within: Vec<(IpNet, IpNet)>,
}

/// What the start of a daemon has brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// How many bans the kernel did not have.
    pub bans: usize,
    /// Where a damaged state file was put.
    pub damaged: Option<PathBuf>,
}

/// All bans that are not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// False if no policy is enforced: they wait for one.
    pub enforced: bool,
    /// In order of families and addresses.
    pub bans: Vec<Listed>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Who.
    pub net: IpNet,
    /// Since when, nanoseconds since 1970.
    pub since_unix_ns: u64,
    /// Until when, likewise; `None` without end.
    pub until_unix_ns: Option<u64>,
    /// How long still, nanoseconds.
    pub left_ns: Option<u64>,
    /// Why.
    pub why: Arc<str>,
}

impl Registry {
    /// Names the places; touches nothing.
    pub fn new(pins: &Pins, state_dir: &Path) -> Self {
        Self { pins: pins.clone(), state_dir: state_dir.to_owned() }
    }

    /// Bans prefixes for a time or for ever. One that is banned is so for the new time and reason.
    ///
    /// # Errors
    /// If nothing is enforced, the tables are full, or the bans could not be kept.
    pub fn ban(&self, nets: &[IpNet], time: Option<TimeSpan>, why: &str) -> Result<(), BanError> {
        let mut maps = self.open()?.ok_or_else(|| BanError::NotEnforced(self.pins.root().to_owned()))?;
        let now = Clock::now()?;
        let until_ns = time.map_or(FOR_EVER, |time| now.mono_ns.saturating_add(time.ns).min(FOR_EVER - 1));
        let ban = Ban { until_ns, since_ns: now.mono_ns };
        let (singles, prefixes): (Vec<IpNet>, Vec<IpNet>) = nets.iter().partition(|net| is_single(net));
        let own = if prefixes.is_empty() {
            None
        } else {
            let mut own = self.own_prefixes(&maps, &now)?;
            own.extend(prefixes.into_iter().map(|net| (net, ban)));
            // Before anything is changed.
            Bans::has_room_for(&own)?;
            Some(own)
        };
        let singles: Vec<_> = singles.into_iter().map(|net| (net, ban)).collect();
        if let Err(error) = maps.add_singles(&singles) {
            // What is over takes room until it is swept.
            let swept =
                matches!(error, DataplaneError::NoRoom { .. }) && maps.sweep_singles(now.mono_ns)? > 0;
            if !swept {
                return Err(error.into());
            }
            maps.add_singles(&singles)?;
        }
        if let Some(own) = own {
            maps.set_prefixes(&own)?;
        }
        let why: Arc<str> = cut(why).into();
        let entry = Entry { since_unix_ns: now.unix_ns, until_ns, why };
        let records: Vec<_> = nets.iter().map(|net| Record::Ban(*net, entry.clone())).collect();
        self.note(&records, &now)
    }

    /// Ends bans. An IPv6 address without a length ends that of its /64 and its own.
    ///
    /// # Errors
    /// If a map can't be written, or the end could not be kept.
    pub fn unban(&self, targets: &[Target]) -> Result<Unbanned, BanError> {
        let now = Clock::now()?;
        let nets: Vec<IpNet> = targets.iter().flat_map(Target::meant).collect();
        let mut done = Unbanned::default();
        if let Some(mut maps) = self.open()? {
            let (singles, prefixes): (Vec<IpNet>, Vec<IpNet>) = nets.iter().partition(|net| is_single(net));
            for net in singles {
                if maps.remove_single(net)? {
                    done.ended.push(net);
                }
            }
            if done.ended.len() >= WORTH_A_SWEEP {
                maps.sweep_singles(now.mono_ns)?;
            }
            let mut own = self.own_prefixes(&maps, &now)?;
            done.ended.extend(prefixes.into_iter().filter(|net| own.remove(net).is_some()));
            maps.set_prefixes(&own)?;
            // For people; a list is not read by any.
            if targets.len() <= MOST_EXPLAINED {
                for net in &nets {
                    let wider = own.keys().find(|wider| wider.contains(net));
                    done.within.extend(wider.map(|wider| (*net, *wider)));
                }
            }
        } else {
            let known = file::read(&self.state_dir, &now)?.entries;
            done.ended.extend(nets.iter().filter(|net| known.contains_key(*net)));
        }
        let records: Vec<_> = nets.into_iter().map(Record::Unban).collect();
        self.note(&records, &now)?;
        Ok(done)
    }

    /// Ends all bans; gives how many there were.
    ///
    /// # Errors
    /// If a map can't be written, or the end could not be kept.
    pub fn clear(&self) -> Result<usize, BanError> {
        let now = Clock::now()?;
        let ended = match self.open()? {
            Some(mut maps) => {
                let prefixes = maps.prefixes()?.len();
                maps.set_prefixes(&BTreeMap::new())?;
                // At the end of all time everything is over.
                prefixes + maps.sweep_singles(FOR_EVER)?
            }
            None => file::read(&self.state_dir, &now)?.entries.len(),
        };
        self.note(&[Record::Clear], &now)?;
        Ok(ended)
    }

    /// All bans that are not over: the kernel's, with the file's reasons.
    ///
    /// # Errors
    /// If a map or the file can't be read.
    pub fn list(&self) -> Result<List, BanError> {
        let now = Clock::now()?;
        let maps = self.open()?;
        let found =
            maps.as_ref().map(|maps| Ok::<_, BanError>((maps.singles()?, maps.prefixes()?))).transpose()?;
        // After the maps: what was found there is noted by now, or is in the middle of it.
        let known = file::read(&self.state_dir, &now)?.entries;
        let mut bans: Vec<Listed> = match found {
            Some((singles, stands)) => {
                let all = singles.into_iter().chain(own_of(stands, &known, &now));
                let live = all.filter(|(_, ban)| now.mono_ns < ban.until_ns);
                live.map(|(net, ban)| listed(net, &entry_of(&ban, known.get(&net), &now), &now)).collect()
            }
            None => {
                let live = known.iter().filter(|(_, entry)| now.mono_ns < entry.until_ns);
                live.map(|(net, entry)| listed(*net, entry, &now)).collect()
            }
        };
        bans.sort_unstable_by_key(|one| one.net);
        Ok(List { enforced: maps.is_some(), bans })
    }

    /// How many networks the kernel lets nothing pass from now: cheaper than a list of them with reasons.
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn in_force(&self) -> Result<usize, BanError> {
        let now = Clock::now()?;
        let Some(maps) = self.open()? else { return Ok(0) };
        let live =
            |bans: Vec<(IpNet, Ban)>| bans.iter().filter(|(_, ban)| now.mono_ns < ban.until_ns).count();
        Ok(live(maps.singles()?) + live(maps.prefixes()?))
    }

    /// Brings the bans of the file into the kernel, and those that the kernel alone knows into the file: after a reboot or a
    /// `detach` the maps are new, and a file may be lost. A damaged file is set aside.
    ///
    /// # Errors
    /// If a map can't be written; the file's errors are the file's.
    pub fn restore(&self) -> Result<Restored, BanError> {
        let Some(mut maps) = self.open()? else { return Ok(Restored::default()) };
        let now = Clock::now()?;
        let (State { mut entries, .. }, damaged) = file::read_and_mend(&self.state_dir, &now)?;
        let read = entries.len();
        entries.retain(|_, entry| now.mono_ns < entry.until_ns);
        let mut stale = entries.len() != read;
        let singles = maps.singles()?;
        let present: HashSet<IpNet> = singles.iter().map(|(net, _)| *net).collect();
        let lost = |net: &IpNet| is_single(net) && !present.contains(net);
        let missing: Vec<_> = entries
            .iter()
            .filter(|(net, _)| lost(net))
            .map(|(net, entry)| (*net, ban_of(entry, &now)))
            .collect();
        maps.add_singles(&missing)?;
        let mut own = own_of(maps.prefixes()?, &entries, &now);
        let before = own.len();
        let prefixes = entries.iter().filter(|(net, _)| !is_single(net));
        for (net, entry) in prefixes {
            own.entry(*net).or_insert_with(|| ban_of(entry, &now));
        }
        let bans = missing.len() + own.len() - before;
        maps.set_prefixes(&own)?;
        // What a file that is lost or damaged has not kept.
        for (net, ban) in singles.into_iter().chain(own).filter(|(_, ban)| now.mono_ns < ban.until_ns) {
            entries.entry(net).or_insert_with(|| {
                stale = true;
                entry_of(&ban, None, &now)
            });
        }
        if stale {
            file::rewrite(&self.state_dir, &entries, &now).map_err(BanError::NotKept)?;
        }
        Ok(Restored { bans, damaged })
    }

    /// Takes what is over out of the maps and of the file; gives how many bans.
    ///
    /// # Errors
    /// If a map or the file can't be written.
    pub fn sweep(&self) -> Result<usize, BanError> {
        let Some(mut maps) = self.open()? else { return Ok(0) };
        let now = Clock::now()?;
        let own = self.own_prefixes(&maps, &now)?;
        let swept = maps.sweep_singles(now.mono_ns)? + maps.prefixes()?.len() - own.len();
        maps.set_prefixes(&own)?;
        let (State { mut entries, .. }, damaged) = file::read_and_mend(&self.state_dir, &now)?;
        if let Some(aside) = damaged {
            log::warn!("{}", damage(&aside));
        }
        let read = entries.len();
        entries.retain(|_, entry| now.mono_ns < entry.until_ns);
        if entries.len() != read {
            file::rewrite(&self.state_dir, &entries, &now).map_err(BanError::NotKept)?;
        }
        Ok(swept)
    }

    fn open(&self) -> Result<Option<Bans>, BanError> {
        Ok(Bans::open(&self.pins)?)
    }

    /// Adds to the file what has happened in the kernel.
    fn note(&self, records: &[Record], now: &Clock) -> Result<(), BanError> {
        let note = || {
            if file::append(&self.state_dir, records, now)? {
                let (State { mut entries, .. }, _) = file::read_and_mend(&self.state_dir, now)?;
                entries.retain(|_, entry| now.mono_ns < entry.until_ns);
                file::rewrite(&self.state_dir, &entries, now)?;
            }
            Ok(())
        };
        note().map_err(BanError::NotKept)
    }

    /// The bans of prefixes that are not over, each with its own end.
    fn own_prefixes(&self, maps: &Bans, now: &Clock) -> Result<BTreeMap<IpNet, Ban>, BanError> {
        let stands = maps.prefixes()?;
        if stands.is_empty() {
            return Ok(BTreeMap::new());
        }
        // A file that can't be read knows of no end; what the kernel goes by is never earlier than a prefix's own.
        let known = file::read(&self.state_dir, now).map(|state| state.entries).unwrap_or_default();
        Ok(own_of(stands, &known, now))
    }
}

/// Bans of prefixes as they stand in the kernel, with their own ends where the file knows them; those that are over left out.
fn own_of(stands: Vec<(IpNet, Ban)>, known: &HashMap<IpNet, Entry>, now: &Clock) -> BTreeMap<IpNet, Ban> {
    let own = stands.into_iter().map(|(net, ban)| {
        let until_ns = known.get(&net).map_or(ban.until_ns, |entry| entry.until_ns);
        (net, Ban { until_ns, ..ban })
    });
    own.filter(|(_, ban)| now.mono_ns < ban.until_ns).collect()
}

/// What is said of a state file that is damaged.
pub(super) fn damage(aside: &Path) -> String {
    format!(
        "the file of bans was damaged: it is now {}, and what could be read of it was kept",
        aside.display()
    )
}

impl Restored {
    /// What the daemon says of it; nothing if there is nothing to say.
    pub fn sentences(&self) -> Vec<String> {
        let bans = (self.bans > 0).then(|| format!("{} bans are enforced again", self.bans));
        self.damaged.as_deref().map(damage).into_iter().chain(bans).collect()
    }
}

/// A reason that fits.
fn cut(why: &str) -> &str {
    &why[..why.floor_char_boundary(LONGEST_WHY)]
}

fn ban_of(entry: &Entry, now: &Clock) -> Ban {
    Ban { until_ns: entry.until_ns, since_ns: now.mono_of(entry.since_unix_ns) }
}

fn entry_of(ban: &Ban, known: Option<&Entry>, now: &Clock) -> Entry {
    Entry {
        since_unix_ns: known.map_or_else(|| now.unix_of(ban.since_ns), |entry| entry.since_unix_ns),
        until_ns: ban.until_ns,
        why: known.map(|entry| Arc::clone(&entry.why)).unwrap_or_default(),
    }
}

fn listed(net: IpNet, entry: &Entry, now: &Clock) -> Listed {
    let ends = (entry.until_ns != FOR_EVER).then_some(entry.until_ns);
    Listed {
        net,
        since_unix_ns: entry.since_unix_ns,
        until_unix_ns: ends.map(|until_ns| now.unix_of(until_ns)),
        left_ns: ends.map(|until_ns| until_ns.saturating_sub(now.mono_ns)),
        why: Arc::clone(&entry.why),
    }
}
