//! How long the steps of an apply took: told by `tollgate apply --json`, so that a slow one can be placed. Called by `apply`.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Microseconds of each step, in their order. An older daemon tells none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Took {
    /// Reading and checking the file and its lists.
    pub read: u64,
    /// The file to tables, with a look at the interfaces.
    pub compile: u64,
    /// Making and filling the tables in the kernel.
    pub tables: u64,
    /// The policy's own tests, with the verification of the programs that they run on.
    pub tests: u64,
    /// Loading and verifying the programs that go live.
    pub verify: u64,
    /// From the first hook that is changed to the last.
    pub replace: u64,
    /// All of it and what lies between: locks, history.
    pub total: u64,
}

/// Measures one step after the other.
#[derive(Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the start, or since the last lap.
    pub fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let lap = now.duration_since(self.0);
        self.0 = now;
        u64::try_from(lap.as_micros()).unwrap_or(u64::MAX)
    }
}
