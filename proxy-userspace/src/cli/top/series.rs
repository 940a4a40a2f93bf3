//! Rates out of counters that only grow, and their last minutes as a small plot. Called by `app`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Points of a plot at most.
const HISTORY: usize = 60;
/// From nothing to all.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One counter over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its value now.
    pub total: u64,
    /// How fast it grew between the last two readings, a second.
    pub rate: f64,
    history: VecDeque<f64>,
}

impl Series {
    fn note(&mut self, total: u64, since: Option<Duration>) {
        // The first reading says nothing of rates, and one that is less was reset in between.
        let grown = total.saturating_sub(self.total);
        self.total = total;
        let Some(seconds) = since.map(|since| since.as_secs_f64()).filter(|seconds| *seconds > 0.0) else {
            return;
        };
        self.rate = grown as f64 / seconds;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(self.rate);
    }

    /// The last rates as so many bars, the newest to the right, each relative to the highest shown.
    pub fn plot(&self, width: usize) -> String {
        let shown = || self.history.iter().rev().take(width).rev();
        let highest = shown().copied().fold(0.0, f64::max);
        let bar = |rate: &f64| match rate {
            0.0 => ' ',
            rate => {
                let level = (rate / highest * BARS.len() as f64).ceil() as usize;
                BARS[level.clamp(1, BARS.len()) - 1]
            }
        };
        let bars: String = shown().map(bar).collect();
        format!("{bars:>width$}")
    }
}

/// Counters by name.
#[derive(Clone, Debug, Default)]
pub struct Board<K: Ord>(BTreeMap<K, Series>);

impl<K: Ord + Clone> Board<K> {
    /// Notes a reading, `since` the one before. What it does not name is forgotten; a counter that it names first has begun
    /// at zero, unless this is the first reading of all.
    pub fn note(&mut self, reading: impl IntoIterator<Item = (K, u64)>, since: Option<Duration>) {
        let mut next = BTreeMap::new();
        for (key, total) in reading {
            let mut series = self.0.remove(&key).unwrap_or_default();
            series.note(total, since);
            next.insert(key, series);
        }
        self.0 = next;
    }

    /// The counter of a name.
    pub fn of(&self, key: &K) -> Option<&Series> {
        self.0.get(key)
    }

    /// The fastest first, then those that have counted most.
    pub fn fastest(&self) -> Vec<(&K, &Series)> {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by(|(_, a), (_, b)| b.rate.total_cmp(&a.rate).then(b.total.cmp(&a.total)));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn rates_are_what_came_between_two_readings() {
        let mut board = Board::default();
        board.note([("old", 1000)], None);
        assert_eq!(board.of(&"old").map(|old| (old.total, old.rate)), Some((1000, 0.0)));
        board.note([("old", 1500), ("new", 40)], Some(Duration::from_millis(500)));
        assert_eq!(board.fastest()[0].1.rate, 1000.0);
        assert_eq!(board.of(&"new").map(|new| new.rate), Some(80.0));
        board.note([("new", 3)], SECOND);
        assert_eq!(board.of(&"old"), None);
        assert_eq!(board.of(&"new").map(|new| (new.total, new.rate)), Some((3, 0.0)));
    }

    #[test]
    fn a_plot_is_as_wide_as_asked_and_shows_the_newest_to_the_right() {
        let mut series = Series::default();
        series.note(0, None);
        assert_eq!(series.plot(4), "    ");
        let mut total = 0;
        for rate in [800, 0, 1, 100, 400] {
            total += rate;
            series.note(total, SECOND);
        }
        assert_eq!(series.plot(4), " ▁▂█");
        assert_eq!(series.plot(7), "  █ ▁▁▄");
        for _ in 0..2 * HISTORY {
            total += 1;
            series.note(total, SECOND);
        }
        assert_eq!(series.history.len(), HISTORY);
    }
}
