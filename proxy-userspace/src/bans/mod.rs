//! Bans: sources from which nothing passes until a time. What the kernel enforces and what outlives a reboot are kept in step
//! here.
//!
//! ```text
//! Registry ── dataplane::Bans: who is banned until when, in the kernel
//!     └────── file ── frame: the same and why, on the disk; clock: between two boots
//! protect: what a ban must not hit
//! ```
//!
//! Called by the commands `ban`, `unban` and `bans`, which need no daemon, and by the daemon at its start and every hour.
//! Whoever changes anything holds `control::lock::change`.

mod clock;
mod file;
mod frame;
mod protect;
mod registry;

use std::sync::Arc;

pub use file::StateError;
pub use protect::{Protected, Resolved};
pub use registry::{BanError, List, Listed, Registry, Restored, Unbanned};

/// Most bytes of a reason.
pub const LONGEST_WHY: usize = 200;

/// A ban as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it began, by the wall clock: nanoseconds since 1970.
    pub since_unix_ns: u64,
    /// When it ends, by the kernel's clock of this boot.
    pub until_ns: u64,
    /// Why; at most [`LONGEST_WHY`] bytes.
    pub why: Arc<str>,
}
