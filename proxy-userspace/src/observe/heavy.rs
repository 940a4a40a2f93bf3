//! The heaviest of a stream of keys in memory that does not grow: Space-Saving (Metwally, Agrawal and El Abbadi, 2005). Called by
//! `top` for sources, which an attacker can invent without end.
//!
//! Of a key that is kept, the true weight is at most `count` and at least `count - error`; of one that is not, at most the
//! smallest count. No count errs by more than the weight of the whole stream divided by the room.

use std::collections::HashMap;
use std::hash::Hash;

/// A key that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<K, V> {
    /// Which.
    pub key: K,
    /// Its weight at most.
    pub count: u64,
    /// By how much that can be too high: the count of whoever it came in place of.
    pub error: u64,
    /// What was noted with it last.
    pub note: V,
}

/// A summary of a stream.
#[derive(Clone, Debug)]
pub struct Heavy<K, V> {
    room: usize,
    entries: Vec<Entry<K, V>>,
    places: HashMap<K, usize>,
}

impl<K: Copy + Eq + Hash + Ord, V: Copy> Heavy<K, V> {
    /// An empty one that keeps at most `room` keys, at least one.
    pub fn new(room: usize) -> Self {
        let room = room.max(1);
        Self { room, entries: Vec::with_capacity(room), places: HashMap::with_capacity(room) }
    }

    /// Adds a weight to a key.
    pub fn add(&mut self, key: K, weight: u64, note: V) {
        if let Some(entry) = self.places.get(&key).and_then(|place| self.entries.get_mut(*place)) {
            entry.count = entry.count.saturating_add(weight);
            entry.note = note;
            return;
        }
        if self.entries.len() < self.room {
            self.places.insert(key, self.entries.len());
            self.entries.push(Entry { key, count: weight, error: 0, note });
            return;
        }
        // The lightest gives way, and what is known of it becomes what is not known of the new one. A walk over all: they are
        // few, and events are throttled.
        let Some((place, lightest)) =
            self.entries.iter_mut().enumerate().min_by_key(|(_, entry)| entry.count)
        else {
            return;
        };
        self.places.remove(&lightest.key);
        let error = lightest.count;
        *lightest = Entry { key, count: error.saturating_add(weight), error, note };
        self.places.insert(key, place);
    }

    /// The heaviest first; of equals the one whose key is less, so that a view does not flicker.
    pub fn heaviest(&self) -> Vec<Entry<K, V>> {
        let mut sorted = self.entries.clone();
        sorted.sort_unstable_by(|a, b| b.count.cmp(&a.count).then(a.key.cmp(&b.key)));
        sorted
    }

    /// A key, if it is kept.
    pub fn get(&self, key: &K) -> Option<&Entry<K, V>> {
        self.places.get(key).and_then(|place| self.entries.get(*place))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 16;

    /// A stream of heavy keys (below 8) in a flood of keys that nearly never come twice.
    fn stream() -> impl Strategy<Value = Vec<(u32, u64)>> {
        let key = prop_oneof![1 => 0..8u32, 4 => 8..1_000_000u32];
        prop::collection::vec((key, prop_oneof![4 => Just(1u64), 1 => 1..500u64]), 0..2_000)
    }

    proptest! {
        #[test]
        fn no_count_is_too_low_nor_too_high_by_more_than_it_says(stream in stream()) {
            let mut heavy = Heavy::new(ROOM);
            let mut truth: HashMap<u32, u64> = HashMap::new();
            for (key, weight) in &stream {
                heavy.add(*key, *weight, ());
                *truth.entry(*key).or_default() += weight;
            }
            let total: u64 = truth.values().sum();
            let kept = heavy.heaviest();
            prop_assert!(kept.len() <= ROOM);
            // The counts are the stream: nothing is lost or made.
            prop_assert_eq!(kept.iter().map(|entry| entry.count).sum::<u64>(), total);
            for entry in &kept {
                let true_weight = truth[&entry.key];
                prop_assert!(entry.count - entry.error <= true_weight && true_weight <= entry.count);
                prop_assert!(entry.error <= total / ROOM as u64);
            }
            let least = kept.last().filter(|_| kept.len() == ROOM).map_or(0, |entry| entry.count);
            for (key, weight) in &truth {
                let is_kept = kept.iter().any(|entry| entry.key == *key);
                prop_assert!(is_kept || *weight <= least, "{} of weight {} is missing", key, weight);
                // So whoever has more than his share of the room is there, however many others are invented.
                prop_assert!(is_kept || *weight <= total / ROOM as u64);
            }
        }
    }

    #[test]
    fn a_flood_of_invented_sources_takes_no_memory_and_hides_nobody() {
        let mut heavy = Heavy::new(256);
        for n in 0..100_000u32 {
            heavy.add(n, 1, ());
            if n % 100 == 0 {
                heavy.add(u32::MAX, 1, ());
            }
        }
        let kept = heavy.heaviest();
        assert_eq!((kept.len(), heavy.places.len(), heavy.entries.capacity()), (256, 256, 256));
        assert_eq!(kept.first().map(|entry| entry.key), Some(u32::MAX));
        heavy.clear();
        assert!(heavy.heaviest().is_empty());
    }
}
