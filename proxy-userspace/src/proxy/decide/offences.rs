//! Who offends again and again is banned: counts by source, and says once when it is enough. Called by
//! [`super::Router::offence`].
//!
//! A minute is twelve steps of five seconds: what is older than a minute never counts, what is younger than 55 seconds always does. The
//! number of sources is bounded; where there is no room, who has offended least is forgotten, and nobody takes another's offences over.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::router::host_of;
use crate::proxy::plan::Escalation;

/// Sources that are remembered.
const SOURCES: usize = 4096;
/// Steps of a minute.
const STEPS: usize = 12;
/// A step, nanoseconds.
const STEP_NS: u64 = 5_000_000_000;

/// Who is to be banned in the packet filter. The worker's word: the daemon judges it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// The socket's peer.
    pub address: IpAddr,
    /// For how long, milliseconds.
    pub ms: u64,
    /// Why, for the list of bans.
    pub why: String,
}

/// Offences of one kind.
#[derive(Debug, Default)]
pub(super) struct Offences {
    sources: Mutex<HashMap<[u64; 2], Source>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    /// The last step that was counted in.
    step: u64,
    /// Offences by step, a ring.
    counts: [u32; STEPS],
    /// Until when (a step) a ban that was asked for is not asked for again: offences under way when it came.
    quiet_until: u64,
}

impl Source {
    /// Forgets what is older than a minute.
    fn advance(&mut self, step: u64) {
        let step = step.max(self.step);
        let passed = step - self.step;
        if passed >= STEPS as u64 {
            self.counts = [0; STEPS];
        } else {
            for old in self.step + 1..=step {
                if let Some(count) = self.counts.get_mut(old as usize % STEPS) {
                    *count = 0;
                }
            }
        }
        self.step = step;
    }

    fn total(&self) -> u64 {
        self.counts.iter().copied().map(u64::from).sum()
    }
}

impl Offences {
    /// Counts one; true if it is the one that is too many. Then nothing is said of this source for a minute, or until the ban's end if
    /// that comes first.
    pub fn count(&self, address: IpAddr, escalation: Escalation, now_ns: u64) -> bool {
        let step = now_ns / STEP_NS;
        let key = host_of(address);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= SOURCES && !sources.contains_key(&key) {
            make_room(&mut sources, step);
        }
        let source = sources.entry(key).or_insert(Source { step, ..Source::default() });
        source.advance(step);
        if let Some(count) = source.counts.get_mut(source.step as usize % STEPS) {
            *count = count.saturating_add(1);
        }
        if source.total() < u64::from(escalation.after) || step < source.quiet_until {
            return false;
        }
        let ban_steps = escalation.ban_ms.saturating_mul(1_000_000) / STEP_NS;
        source.counts = [0; STEPS];
        source.quiet_until = step.saturating_add(ban_steps.min(STEPS as u64));
        true
    }
}

/// Removes whoever has not offended for a minute, else an eighth, beginning with who has offended least: amortised, a newcomer costs
/// little.
fn make_room(sources: &mut HashMap<[u64; 2], Source>, step: u64) {
    sources.retain(|_, source| step < source.step + STEPS as u64);
    if sources.len() < SOURCES {
        return;
    }
    let mut totals: Vec<u64> = sources.values().map(Source::total).collect();
    let (_, most, _) = totals.select_nth_unstable(SOURCES / 8);
    let (most, mut left) = (*most, SOURCES / 8);
    sources.retain(|_, source| {
        let goes = left > 0 && source.total() <= most;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn after(after: u32) -> Escalation {
        Escalation { ban_ms: 600_000, after }
    }

    #[test]
    fn so_many_within_a_minute_are_too_many_once() {
        let offences = Offences::default();
        let found: Vec<bool> = (0..20).map(|n| offences.count(v4(1), after(5), n * S)).collect();
        let expected: Vec<bool> = (0..20).map(|n| n == 4).collect();
        assert_eq!(found, expected);
        assert!(!offences.count(v4(2), after(5), 20 * S));
        // A minute later it is said again, if it goes on: those that were under way count too.
        assert!(offences.count(v4(1), after(5), 70 * S));
    }

    #[test]
    fn the_first_may_be_too_many() {
        assert!(Offences::default().count(v4(1), after(1), 0));
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        for (pause, expected) in [(1, true), (12, true), (15, false), (60, false), (1_000_000, false)] {
            let offences = Offences::default();
            let found = (0..40).any(|n| offences.count(v4(1), after(5), n * pause * S));
            assert_eq!(found, expected, "every {pause} s");
        }
    }

    #[test]
    fn clocks_that_go_back_break_nothing() {
        let offences = Offences::default();
        assert!(!offences.count(v4(1), after(3), u64::MAX));
        assert!(!offences.count(v4(1), after(3), 0));
        assert!(offences.count(v4(1), after(3), u64::MAX));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let offences = Offences::default();
        let found: Vec<bool> = ["2001:db8::1", "2001:db8:1::1", "2001:db8::2"]
            .map(|address| offences.count(address.parse().expect("an address"), after(2), S))
            .into();
        assert_eq!(found, [false, false, true]);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_remembered() {
        let offences = Offences::default();
        for _ in 0..99 {
            assert!(!offences.count(v4(0), after(100), S));
        }
        for number in 1..50_000 {
            assert!(!offences.count(v4(number), after(100), 2 * S));
        }
        assert!(offences.sources.lock().expect("no panic").len() <= SOURCES);
        assert!(offences.count(v4(0), after(100), 3 * S));
        // A minute later all of them have gone.
        offences.count(v4(99), after(100), 100 * S);
        assert!(offences.sources.lock().expect("no panic").len() <= SOURCES);
    }
}
