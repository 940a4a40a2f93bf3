//! Counters: one a reason, and for reasons that belong to a rule one a rule and reason.
//!
//! One increment a packet serves both totals: the daemon sums a rule's block for `rules` and a column of the
//! blocks for `reasons`.

use super::reason::{MAX_REASONS, RULE_REASONS, Reason};

/// Most rules that a set of pinned counters can hold, the built-in ones included.
pub const MAX_RULES: u32 = 1024;
/// Rule id of what no service names.
pub const RULE_DEFAULT: u16 = 0;
/// Elements of a `COUNTERS` map: the plain reasons, then a block of [`RULE_REASONS`] for each rule.
pub const COUNTERS_LEN: u32 = MAX_REASONS + MAX_RULES * RULE_REASONS;

/// Packets and bytes (whole frames, link header included) of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What became of answers to rejected packets, on one CPU. The packets themselves are in [`Counter`]s, as dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Handed to the interface.
    pub sent: u64,
    /// Withheld, because too many were sent lately.
    pub throttled: u64,
    /// Withheld, because the kernel could not make one out of the packet.
    pub failed: u64,
}

const _: () = assert!(size_of::<Counter>() == 16);
const _: () = assert!(size_of::<Answers>() == 24);

/// Where a packet that ends with `reason` under `rule` is counted.
#[inline(always)]
pub const fn index(reason: Reason, rule: u16) -> u32 {
    if reason.has_rule() { MAX_REASONS + rule as u32 * RULE_REASONS + reason.place() } else { reason as u32 }
}

/// The reason that a counter is of: the inverse of [`index`] but for the rule. `None`: of none.
pub fn reason_of(index: u32) -> Option<Reason> {
    if index >= MAX_REASONS {
        return Reason::at_place((index - MAX_REASONS) % RULE_REASONS);
    }
    Reason::ALL.iter().copied().find(|reason| *reason as u32 == index && !reason.has_rule())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_outcomes_share_a_counter() {
        let mut seen = std::collections::HashSet::new();
        for rule in [0, 1, 2, 1023] {
            for reason in Reason::ALL.iter().filter(|r| r.has_rule()) {
                let i = index(*reason, rule);
                assert!(i < COUNTERS_LEN);
                assert!(seen.insert(i));
                assert_eq!(reason_of(i), Some(*reason));
            }
        }
        for reason in Reason::ALL.iter().filter(|r| !r.has_rule()) {
            assert!(seen.insert(index(*reason, 7)));
        }
    }
}
