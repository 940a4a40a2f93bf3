//! The limit on requests of one source: GCRA in exact nanoseconds over a table of fixed size. Called by [`super::request()`].
//!
//! A source has one cell, the time at which it will have paid for what it sent. The table has sets of eight cells; a source's set
//! follows from a keyed hash, so that nobody can aim. In a full set the cell that owes least gives way. What it owed is forgotten only
//! if its source was within its rate: where all eight are over theirs, the newcomer takes the debt over, and is refused until that is
//! paid. So no number of sources makes the limit forget one that exceeds it, and the price is that newcomers may be refused while a set
//! is full of those that exceed theirs.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::router::source;
use crate::proxy::plan::RequestLimit;

/// Cells of a set.
const WAYS: usize = 8;
/// Tables that are locked by themselves.
const SHARDS: usize = 16;
/// Cells of a limit: 24 bytes each, 768 KiB at most; memory is taken as it is used.
const CELLS: usize = 1 << 15;

/// Source, high and low half, and when it will have paid. All zero: empty.
type Cell = [u64; 3];

/// The limit of a route, with its state.
#[derive(Debug)]
pub struct Limiter {
    interval_ns: u64,
    tolerance_ns: u64,
    v6_prefix: u8,
    hasher: RandomState,
    shards: Vec<Mutex<Vec<Cell>>>,
}

impl Limiter {
    /// Nobody owes anything.
    pub fn new(limit: &RequestLimit) -> Self {
        Self::with_cells(limit, CELLS)
    }

    fn with_cells(limit: &RequestLimit, cells: usize) -> Self {
        let shards = SHARDS.min(cells / WAYS).max(1);
        let each = (cells / shards).max(WAYS) / WAYS * WAYS;
        Self {
            interval_ns: limit.interval_ns,
            tolerance_ns: limit.interval_ns.saturating_mul(limit.burst.into()),
            v6_prefix: limit.v6_prefix,
            hasher: RandomState::new(),
            shards: (0..shards).map(|_| Mutex::new(vec![[0; 3]; each])).collect(),
        }
    }

    /// Whether the state of this limit is good for another.
    pub(super) fn is_for(&self, limit: &RequestLimit) -> bool {
        self.interval_ns == limit.interval_ns
            && self.tolerance_ns == limit.interval_ns.saturating_mul(limit.burst.into())
            && self.v6_prefix == limit.v6_prefix
    }

    /// Charges one request.
    ///
    /// # Errors
    /// The nanoseconds after which it would pass; then nothing was charged.
    pub fn charge(&self, address: IpAddr, now_ns: u64) -> Result<(), u64> {
        let [high, low] = source(address, self.v6_prefix);
        let hash = self.hasher.hash_one((high, low));
        let shard = (hash >> 32) as usize % self.shards.len();
        let Some(shard) = self.shards.get(shard) else { return Ok(()) };
        // Cells are plain numbers: a thread that ended amid a change left no broken ones.
        let mut cells = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let sets = cells.len() / WAYS;
        let first = (hash & 0xffff_ffff) as usize % sets * WAYS;
        let Some(set) = cells.get_mut(first..first + WAYS) else { return Ok(()) };
        let Some(cell) = self.cell_of(set, high, low, now_ns) else { return Ok(()) };
        let paid_ns = cell[2].max(now_ns);
        let owed_ns = paid_ns - now_ns;
        if owed_ns > self.tolerance_ns {
            return Err(owed_ns - self.tolerance_ns);
        }
        *cell = [high, low, paid_ns.saturating_add(self.interval_ns)];
        Ok(())
    }

    /// The source's own cell, or the one that owes least, with its debt if that is beyond the limit.
    fn cell_of<'a>(&self, set: &'a mut [Cell], high: u64, low: u64, now_ns: u64) -> Option<&'a mut Cell> {
        if let Some(own) = set.iter().position(|cell| cell[0] == high && cell[1] == low) {
            return set.get_mut(own);
        }
        let cell = set.iter_mut().min_by_key(|cell| cell[2])?;
        if cell[2].saturating_sub(now_ns) <= self.tolerance_ns {
            *cell = [high, low, 0];
        }
        Some(cell)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn limit(interval_ns: u64, burst: u32) -> RequestLimit {
        RequestLimit { interval_ns, burst, status: 429, v6_prefix: 64, exceed: None }
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        for (burst, at_once) in [(0, 1), (1, 2), (20, 21)] {
            let limiter = Limiter::new(&limit(100 * MS, burst));
            let passed = (0..100).filter(|_| limiter.charge(v4(1), 5).is_ok()).count();
            assert_eq!(passed, at_once);
            assert_eq!(limiter.charge(v4(1), 5), Err(100 * MS));
            assert_eq!(limiter.charge(v4(1), 4 + 100 * MS), Err(1));
            assert_eq!(limiter.charge(v4(1), 5 + 100 * MS), Ok(()));
            assert_eq!(limiter.charge(v4(1), 5 + 100 * MS), Err(100 * MS));
            // After a long pause the burst is whole again, and no more than whole.
            let year = 365 * 24 * 3600 * 1000 * MS;
            assert_eq!((0..100).filter(|_| limiter.charge(v4(1), year).is_ok()).count(), at_once);
        }
    }

    #[test]
    fn extremes_saturate() {
        let never = Limiter::new(&limit(u64::MAX, 3));
        assert_eq!(never.charge(v4(1), u64::MAX - 1), Ok(()));
        assert_eq!(never.charge(v4(1), u64::MAX), Ok(()));
        let always = Limiter::new(&limit(0, 0));
        assert!((0..100).all(|_| always.charge(v4(1), 0).is_ok()));
        let backwards = Limiter::new(&limit(10, 0));
        assert_eq!(backwards.charge(v4(1), 1000), Ok(()));
        assert_eq!(backwards.charge(v4(1), 0), Err(1010));
    }

    #[test]
    fn sources_are_told_apart_by_prefix() {
        let limiter = Limiter::new(&limit(MS, 0));
        for (address, passes) in [
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::ffff:1", false),
            ("2001:db8:0:1::1", true),
            ("::", true),
            ("::", false),
        ] {
            assert_eq!(limiter.charge(address.parse().expect("an address"), 7).is_ok(), passes, "{address}");
        }
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let limiter = Limiter::new(&limit(1000 * MS, 2));
        for number in 0..200_000 {
            let _ = limiter.charge(v4(number), 1);
        }
        let cells: usize =
            limiter.shards.iter().map(|shard| shard.lock().map_or(0, |cells| cells.capacity())).sum();
        assert_eq!(cells, CELLS);
        assert!(cells * size_of::<Cell>() <= 1 << 20);
    }

    #[test]
    fn strangers_do_not_make_it_forget_who_exceeds() {
        // One set: every source meets the exceeding one.
        let limiter = Limiter::with_cells(&limit(1000 * MS, 2), WAYS);
        while limiter.charge(v4(0), 1).is_ok() {}
        for number in 1..10_000 {
            let _ = limiter.charge(v4(number), 1);
            assert!(limiter.charge(v4(0), 1).is_err(), "after {number}");
        }
        // Nor when all of them exceed.
        for number in 1..100 {
            while limiter.charge(v4(number), 1).is_ok() {}
            assert!(limiter.charge(v4(0), 1).is_err(), "after {number}");
        }
        assert!(limiter.charge(v4(0), 1 + 1000 * MS).is_ok());
    }

    proptest! {
        /// Against the definition: of each source, a request passes if those that passed before it leave room.
        #[test]
        fn agrees_with_the_naive_model(
            interval in 1u64..1000,
            burst in 0u32..6,
            requests in prop::collection::vec((0u32..4, 0u64..700), 1..300),
        ) {
            let limiter = Limiter::with_cells(&limit(interval, burst), 1024);
            let mut model: HashMap<u32, (u64, f64)> = HashMap::new();
            let (mut now, room) = (1u64, f64::from(burst) + 1.0);
            for (who, pause) in requests {
                now += pause;
                let (last, tokens) = model.entry(who).or_insert((now, room));
                *tokens = (*tokens + (now - *last) as f64 / interval as f64).min(room);
                *last = now;
                let passes = *tokens >= 1.0 - 1e-9;
                if passes {
                    *tokens -= 1.0;
                }
                let found = limiter.charge(v4(who), now);
                prop_assert_eq!(found.is_ok(), passes, "at {} tokens {}", now, tokens);
                if let Err(wait) = found {
                    prop_assert!(((1.0 - *tokens) * interval as f64 - wait as f64).abs() < 1.0);
                }
            }
        }

        /// In a table that is far too small nobody gets more than with one of its own.
        #[test]
        fn eviction_favours_nobody_who_exceeds(requests in prop::collection::vec((0u32..40, 0u64..50), 1..400)) {
            let limiter = Limiter::with_cells(&limit(1000, 0), WAYS);
            let mut now = 1;
            let mut passed: Vec<u64> = Vec::new();
            for (who, pause) in requests {
                now += pause;
                if limiter.charge(v4(who), now).is_ok() {
                    passed.push(now);
                }
            }
            // Without burst a cell that is in use is over its limit: eight requests an interval pass, whoever sends them.
            for (index, start) in passed.iter().enumerate() {
                let within = passed.iter().skip(index).take_while(|at| **at < start + 1000).count();
                prop_assert!(within <= WAYS, "{within} from {start}");
            }
        }
    }
}
