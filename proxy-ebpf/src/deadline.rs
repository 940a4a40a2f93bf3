//! What happens when nobody confirms a policy: the program hands each packet to the one before it, or lets it pass if there was
//! none. First of all in each entry point; no process has to be alive for it.

use proxy_common::abi::settings::{DEADLINE_NONE, DEADLINE_OPEN};
use proxy_common::engine::Tables as _;

use crate::maps::DEADLINE;
use crate::tables::IN_FORCE;

/// What an unconfirmed program does once its time is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// It is not over.
    No,
    /// The program before judges.
    Previous,
    /// Everything passes.
    Open,
}

/// Whether this program's time is over. Where it has no deadline, the verifier knows and removes all of this.
#[inline(always)]
pub fn overdue() -> Overdue {
    let on_deadline = IN_FORCE.setting(|s| &s.on_deadline);
    if on_deadline == DEADLINE_NONE {
        return Overdue::No;
    }
    let Some(deadline) = DEADLINE.get_ptr(0) else { return Overdue::No };
    // SAFETY: live map memory; volatile, because the loader writes it while the program runs.
    let deadline_ns = unsafe { deadline.read_volatile() };
    if deadline_ns == 0 || IN_FORCE.now_ns() < deadline_ns {
        Overdue::No
    } else if on_deadline == DEADLINE_OPEN {
        Overdue::Open
    } else {
        Overdue::Previous
    }
}
