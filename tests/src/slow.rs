//! Slow clients by somebody else's hand: slowhttptest's four modes. For tests, and for the benchmark that measures what others notice
//! of them.
//!
//! slowhttptest keeps a processor busy while it waits. Clients have processors of their own; these take what the server leaves over
//! (`SCHED_IDLE`, sched(7)) of one, so that what is measured beside them is what they do to the server.

use std::process::Command;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Connections of each mode.
pub const CONNECTIONS: u32 = 100;
/// How many of them it opens in a second, which is what it does by itself.
const RATE: u32 = 50;

/// What slow clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A head that comes line by line and never ends.
    Headers,
    /// A body that comes byte by byte.
    Bodies,
    /// Many overlapping ranges of the same thing.
    Ranges,
    /// An answer that is hardly read.
    Reading,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Headers, Self::Bodies, Self::Ranges, Self::Reading];

    /// For messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Headers => "slow headers",
            Self::Bodies => "slow bodies",
            Self::Ranges => "ranges",
            Self::Reading => "slow reading",
        }
    }

    /// The command that does it to an address for so many seconds at most, with so many seconds between two parts.
    #[must_use]
    pub fn command(self, url: &str, interval: u32, length: u32) -> Vec<String> {
        let of_mode: &[&str] = match self {
            Self::Headers => &["-H"],
            Self::Bodies => &["-B", "-s", "8192"],
            Self::Ranges => &["-R"],
            Self::Reading => &["-X", "-z", "32", "-w", "10", "-y", "20"],
        };
        let one = processor();
        let common = format!(
            "taskset --cpu-list {one} chrt --idle 0 slowhttptest -c {CONNECTIONS} -r {RATE} -i {interval} -n {interval} -l {length} -p 20 -u {url}"
        );
        common.split(' ').chain(of_mode.iter().copied()).map(str::to_owned).collect()
    }

    /// The same, ready to be started here.
    ///
    /// # Panics
    /// Never: a command has a first word.
    #[must_use]
    pub fn here(self, url: &str, interval: u32, length: u32) -> Command {
        let words = self.command(url, interval, length);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }
}

/// One that this process may use.
fn processor() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::count()).find(|number| allowed.is_set(*number).unwrap_or(false)).unwrap_or(0)
}
