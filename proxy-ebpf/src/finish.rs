//! The one exit: every packet is counted here once, by what the engine said of it.

use proxy_common::abi::counter;
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::engine::Outcome;
use proxy_common::packet::PacketView;

use crate::maps::COUNTERS;
use crate::view::Frame;

/// Counts the packet and gives its verdict.
#[inline(always)]
pub fn finish(frame: &Frame, outcome: Outcome) -> Verdict {
    count(counter::index(outcome.reason, outcome.rule), frame.packets as u64, frame.len() as u64);
    outcome.verdict()
}

/// True if the outcome says that a table is damaged.
#[inline(always)]
pub fn is_fault(outcome: Outcome) -> bool {
    matches!(outcome.reason, Reason::TableFault)
}

#[inline(always)]
fn count(index: u32, packets: u64, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own copy; a program is not interrupted by another on the same CPU that counts.
        let counter = unsafe { &mut *counter };
        counter.packets += packets;
        counter.bytes += bytes;
    }
}
