//! `BAN_FILTER`: which sources are certainly not in `BANS`.
//!
//! A bit is set before the entry that needs it is there, and is zero only when no entry needs it: at no time does a banned
//! source pass by it. Words change by single atomic stores, in place. One writer at a time: the callers hold the lock.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use proxy_common::abi::ban::{BAN_FILTER_LEN, BanKey};

use crate::dataplane::error::DataplaneError;
use crate::dataplane::memory::with_mapping;

const WORDS: usize = BAN_FILTER_LEN as usize;

/// Sets the bits of these keys.
///
/// # Errors
/// If the filter can't be mapped.
pub fn add<'a>(filter: &MapData, keys: impl Iterator<Item = &'a BanKey>) -> Result<(), DataplaneError> {
    with_words(filter, |words| {
        for key in keys {
            let (word, bits) = key.filter();
            words[word as usize].fetch_or(bits, Ordering::Release);
        }
    })
}

/// Makes the filter that of these keys alone.
///
/// # Errors
/// If the filter can't be mapped.
pub fn rebuild<'a>(filter: &MapData, keys: impl Iterator<Item = &'a BanKey>) -> Result<(), DataplaneError> {
    let wanted = of(keys);
    with_words(filter, |words| replace(words, &wanted))
}

fn of<'a>(keys: impl Iterator<Item = &'a BanKey>) -> Vec<u64> {
    let mut words = vec![0; WORDS];
    for key in keys {
        let (word, bits) = key.filter();
        words[word as usize] |= bits;
    }
    words
}

/// No word passes through a value without a bit that it has before and after.
fn replace(words: &[AtomicU64], wanted: &[u64]) {
    for (word, wanted) in words.iter().zip(wanted) {
        if word.load(Ordering::Relaxed) != *wanted {
            word.store(*wanted, Ordering::Release);
        }
    }
}

fn with_words(filter: &MapData, work: impl FnOnce(&[AtomicU64])) -> Result<(), DataplaneError> {
    let Some(length) = NonZeroUsize::new(WORDS * size_of::<u64>()) else { return Ok(()) };
    with_mapping(filter, "BAN_FILTER", length, |memory| {
        // SAFETY: the mapping is that long and page-aligned; it is shared with the kernel's programs, which only read whole
        // words of it, and with other processes of ours, which use atomic operations too.
        work(unsafe { std::slice::from_raw_parts(memory.cast::<AtomicU64>(), WORDS) });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> BanKey {
        BanKey { hi: n << 32, family: 4 }
    }

    fn has(words: &[u64], key: &BanKey) -> bool {
        let (word, bits) = key.filter();
        words[word as usize] & bits == bits
    }

    #[test]
    fn every_key_is_in_its_filter_and_few_others_are() {
        let keys: Vec<_> = (0..1_000_000).map(|n| key(n * 41)).collect();
        let words = of(keys.iter());
        assert!(keys.iter().all(|key| has(&words, key)));
        let others = (0..100_000).filter(|n| has(&words, &key(n * 41 + 7))).count();
        assert!(others < 4_000, "{others} of 100,000 others");
    }

    #[test]
    fn a_rebuild_drops_what_is_gone_and_keeps_the_rest() {
        let (old, new): (Vec<_>, Vec<_>) = ((0..1000).map(key).collect(), (500..1500).map(key).collect());
        let words: Vec<AtomicU64> = of(old.iter()).into_iter().map(AtomicU64::new).collect();
        replace(&words, &of(new.iter()));
        let words: Vec<u64> = words.into_iter().map(AtomicU64::into_inner).collect();
        assert!(new.iter().all(|key| has(&words, key)));
        assert!((0..500).filter(|n| has(&words, &key(*n))).count() < 50);
    }
}
