//! The policy in the kernel: loading, attaching, replacing, counting, and taking away.
//!
//! ```text
//! apply ── candidate ── object (maps, verification)
//!   │          └─────── memory (fills tables)
//!   ├── selftest (the policy's own tests, on the candidate)
//!   ├── adopt (connections that exist before the first policy)
//!   ├── attach ── hook (atomic replacement, undo)
//!   ├── unconfirmed (what was before, until it is confirmed)
//!   └── shared (state that outlives policies), pins (where it all is)
//! stacked (interfaces on interfaces), netlink: one dump
//! sweep: the limiter's housekeeping
//! explain: the live policy on frames of our own; again: how it is loaded once more
//! shadow: a candidate beside the policy in force, that counts where they differ
//! bans: who is banned until when; gateways: who must not be
//! trial: the same programs on frames of our own, never attached; scatter: on packets in a row, for the benchmark
//! events: dropped packets, to whoever listens; offences: those over a limit that bans, to the daemon
//! live, counters, flows: what is enforced and what it has counted, read from the kernel alone
//! ```
//!
//! Nothing here parses a policy, and no process has to stay alive for enforcement to go on.

mod adopt;
mod again;
mod apply;
mod attach;
mod bans;
mod candidate;
mod counters;
mod detach;
mod error;
mod events;
mod explain;
mod flows;
mod gateways;
mod hook;
mod instance;
mod interfaces;
mod live;
mod memory;
mod netlink;
mod object;
mod offences;
mod pins;
mod scatter;
mod selftest;
mod shadow;
mod shared;
mod stacked;
mod sweep;
mod switches;
mod took;
mod trial;
mod unconfirmed;

pub use adopt::completed;
pub use apply::{
    Applied, AppliedInterface, How, TC_TO_REJECT, apply, fits_host, follow_interfaces, unenforced,
};
pub use bans::{Bans, first_bans, is_single};
pub use counters::{Count, read as read_counters, read_answers};
pub use detach::detach;
pub use error::DataplaneError;
pub use events::{Listener, engine_to_unix_ns};
pub use explain::Explainer;
pub use flows::{count as count_flows, forget_silent};
pub use gateways::all as gateways;
pub use hook::Attachment;
pub use interfaces::{HostInterface, addresses as host_addresses, all as host_interfaces, own_addresses};
pub use live::{Enforced, attached, enforced};
pub use object::kernel_programs;
pub use offences::Offences;
pub use pins::Pins;
pub use scatter::time_of_scattering;
pub use shadow::{
    Begun, Difference, Differences, ShadowRun, Shadowing, Side, read as read_shadow,
    running as shadow_running, start as start_shadow, stop as stop_shadow,
};
pub use shared::{Shared, now_ns, read_rules};
pub use sweep::sweep;
pub use took::{Stopwatch, Took};
pub use trial::{Trial, TrialHook, time_of_empty_program};
pub use unconfirmed::{Unconfirmed, confirm, revert, tidy, unconfirmed};
