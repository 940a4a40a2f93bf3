//! The three-way differential test: the meaning of a policy, the engine on the host and the program in the kernel must say
//! the same of every packet: reason (hence verdict) and rule, by the counter that moves, and each packet is counted once.
//!
//! Random policies as text ([`policies`]), random frames in both directions with times ([`traffic`]), all from one seed. The
//! seed of the *n*-th policy of a run is that of the run plus *n*: what is printed of a disagreement repeats it alone.
//!
//! Sources are few and rates divide a second, so that two things that docs/policy.md allows can't happen: a line of the
//! limiter with more debtors than cells, and a token that costs a fraction of a nanosecond.

pub mod court;
pub mod family;
pub mod mutate;
pub mod packets;
pub mod policies;
pub mod pools;
pub mod report;
pub mod run;
pub mod traffic;
pub mod wire;
pub mod witness;

pub use report::{Disagreement, Summary};
pub use run::{Options, run, test_one};
