//! What a program instance says of itself: which policy it enforces, and since when.
//!
//! Written by the loader before the instance goes live, read back from the live program by `status` and `stats`: what
//! they show is what the kernel enforces, whatever became of the daemon and its files.

use super::counter::MAX_RULES;

/// Longest path that fits (`PATH_MAX` of Linux).
pub const PATH_LEN: usize = 4096;
/// Words of [`Label::rules`].
pub const RULE_WORDS: usize = MAX_RULES as usize / 64;

/// The one element of the `LABEL` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// When the policy was applied, nanoseconds since 1970.
    pub applied_unix_ns: u64,
    /// How long an established TCP flow is remembered, nanoseconds.
    pub tcp_established_ns: u64,
    /// `PLUMBING_*` of [`super::settings`].
    pub plumbing: u32,
    /// Bytes of `path` in use.
    pub path_len: u32,
    /// SHA-256 of the policy file and its lists.
    pub hash: [u8; 32],
    /// Bit *i* of word *w*: the policy has the rule with id 64 *w* + *i*.
    pub rules: [u64; RULE_WORDS],
    /// The policy file, absolute.
    pub path: [u8; PATH_LEN],
}

impl Label {
    /// True if the policy has a rule with this id.
    pub fn has_rule(&self, id: u16) -> bool {
        self.rules.get(usize::from(id / 64)).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// Says that the policy has the rule with this id.
    pub fn add_rule(&mut self, id: u16) {
        if let Some(word) = self.rules.get_mut(usize::from(id / 64)) {
            *word |= 1 << (id % 64);
        }
    }
}

const _: () = assert!(size_of::<Label>() == 8 + 8 + 4 + 4 + 32 + 128 + PATH_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_rules() {
        let mut label = Label {
            applied_unix_ns: 0,
            tcp_established_ns: 0,
            plumbing: 0,
            path_len: 0,
            hash: [0; 32],
            rules: [0; RULE_WORDS],
            path: [0; PATH_LEN],
        };
        for id in [0, 63, 64, 1023] {
            assert!(!label.has_rule(id));
            label.add_rule(id);
            assert!(label.has_rule(id));
        }
        assert!(!label.has_rule(1));
        // Past the end: no rule, and nothing breaks.
        label.add_rule(u16::MAX);
        assert!(!label.has_rule(u16::MAX));
    }
}
