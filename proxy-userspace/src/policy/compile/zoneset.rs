//! Sets of zones, and the pool in which each different set has one number.
//!
//! Used by [`super::runs`], which meets the same few sets millions of times, and by [`super::classes`], which asks
//! whether a set meets the zones of a service.

use std::collections::HashMap;

use crate::policy::model::ZoneId;

const WORDS: usize = 5;

/// Zones of a policy that fit in a [`ZoneSet`]; a valid policy has at most 256.
pub(super) const MOST_ZONES: usize = 64 * WORDS - 1;
/// In place of a zone: the built-in set of invalid sources.
pub(super) const INVALID: u16 = MOST_ZONES as u16;

/// A set of zones, by their index in the policy, and perhaps [`INVALID`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ZoneSet([u64; WORDS]);

impl ZoneSet {
    /// The zones of a list; their indices are below [`MOST_ZONES`].
    pub(super) fn of(zones: &[ZoneId]) -> Self {
        zones.iter().map(|zone| zone.0 as u16).collect()
    }

    /// The set with one more zone; `zone` is at most [`INVALID`].
    pub(super) fn with(mut self, zone: u16) -> Self {
        self.0[usize::from(zone) / 64] |= 1 << (zone % 64);
        self
    }

    /// True if the zone is in the set.
    pub(super) fn has(&self, zone: u16) -> bool {
        self.0[usize::from(zone) / 64] >> (zone % 64) & 1 == 1
    }

    /// True if a zone is in both sets.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(a, b)| a & b != 0)
    }
}

impl FromIterator<u16> for ZoneSet {
    fn from_iter<I: IntoIterator<Item = u16>>(zones: I) -> Self {
        zones.into_iter().fold(Self::default(), Self::with)
    }
}

/// Number of a set in a [`Pool`].
pub(super) type SetId = u32;

/// Every different set met so far, by number.
#[derive(Debug, Default)]
pub(super) struct Pool {
    sets: Vec<ZoneSet>,
    ids: HashMap<ZoneSet, SetId>,
    /// What [`Pool::join`] has answered before.
    joined: HashMap<(SetId, u16), SetId>,
}

impl Pool {
    /// The number of a set.
    pub(super) fn id(&mut self, set: ZoneSet) -> SetId {
        let sets = &mut self.sets;
        *self.ids.entry(set).or_insert_with(|| {
            sets.push(set);
            (sets.len() - 1) as SetId
        })
    }

    /// The number of a set with one more zone.
    pub(super) fn join(&mut self, id: SetId, zone: u16) -> SetId {
        if let Some(known) = self.joined.get(&(id, zone)) {
            return *known;
        }
        let joined = self.id(self.sets[id as usize].with(zone));
        self.joined.insert((id, zone), joined);
        joined
    }

    /// All sets, by number.
    pub(super) fn sets(&self) -> &[ZoneSet] {
        &self.sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        for zone in [0, 63, 64, 255, 256, INVALID] {
            let set = ZoneSet::default().with(zone);
            assert!(set.has(zone) && !set.has(if zone == 0 { 1 } else { zone - 1 }));
            assert!(set.meets(&[7, zone].into_iter().collect()));
            assert!(!set.meets(&[7].into_iter().collect()));
        }
    }

    #[test]
    fn equal_sets_have_one_number() {
        let mut pool = Pool::default();
        let none = pool.id(ZoneSet::default());
        let a = pool.join(none, 1);
        let ab = pool.join(a, 2);
        let b = pool.join(none, 2);
        assert_eq!(pool.join(b, 1), ab);
        assert_eq!(pool.join(ab, 2), ab);
        assert_eq!(pool.sets().len(), 4);
    }
}
