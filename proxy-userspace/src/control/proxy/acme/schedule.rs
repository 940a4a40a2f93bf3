//! When a certificate is ordered: decided on what is known of it, without files and clocks. Called by [`super::Acme`].
//!
//! Times are seconds since 1970.

use serde::{Deserialize, Serialize};

use crate::proxy::plan::Authority;

/// The wait after the first failure, and the longest; each is twice the one before. Let's Encrypt refuses who fails five times within
/// an hour.
const FIRST_WAIT_S: u64 = 60;
const LONGEST_WAIT_S: u64 = 6 * 3600;
/// `Retry-After` is believed up to this.
const LONGEST_RETRY_AFTER_S: u64 = 7 * 86_400;

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// The directory of who issued it.
    pub(super) directory: String,
    pub(super) names: Vec<String>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// Attempts that came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retry {
    /// In a row.
    pub(super) failures: u32,
    /// None before then.
    pub(super) not_before: u64,
    /// The authority has said so.
    pub(super) by_authority: bool,
    /// What came of the last.
    pub(super) why: String,
}

impl Retry {
    /// One more has failed.
    pub(super) fn failed(&self, now: u64, why: &str, retry_after: Option<u64>) -> Self {
        let failures = self.failures.saturating_add(1);
        let ours = now.saturating_add(wait(failures));
        let theirs = retry_after.map(|at| at.min(now.saturating_add(LONGEST_RETRY_AFTER_S)));
        let by_authority = theirs.is_some_and(|theirs| theirs > ours);
        let not_before = theirs.map_or(ours, |theirs| theirs.max(ours));
        Self { failures, not_before, by_authority, why: why.to_owned() }
    }

    /// Somebody has looked after it: it is tried at once, unless the authority does not want that.
    pub(super) fn looked_after(&mut self) {
        if !self.by_authority {
            self.not_before = 0;
        }
    }
}

fn wait(failures: u32) -> u64 {
    let doubled = FIRST_WAIT_S.checked_shl(failures.saturating_sub(1)).filter(|_| failures < 32);
    doubled.unwrap_or(LONGEST_WAIT_S).min(LONGEST_WAIT_S)
}

/// When the next order is due.
pub(super) fn due(life: Option<&Life>, names: &[String], authority: &Authority, retry: &Retry) -> u64 {
    let by_itself = match life {
        Some(life) if is_for(life, names, authority) => renewal(life, authority.renew_before_ms),
        _ => 0,
    };
    by_itself.max(retry.not_before)
}

fn is_for(life: &Life, names: &[String], authority: &Authority) -> bool {
    life.directory == authority.directory && names.iter().all(|name| life.names.contains(name))
}

/// When it is renewed: a third of its life before its end, or as the policy says, but never before a third of its life has passed:
/// who asks for more than there is would order without end.
fn renewal(life: &Life, renew_before_ms: Option<u64>) -> u64 {
    let whole = u64::try_from(life.not_after.saturating_sub(life.not_before)).unwrap_or(0);
    let before = renew_before_ms.map_or(whole / 3, |ms| ms / 1000).min(whole / 3 * 2);
    u64::try_from(life.not_after).unwrap_or(0).saturating_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::plan::Challenge;

    const DAY: u64 = 86_400;
    const START: u64 = 1_700_000_000;

    fn authority(renew_before_ms: Option<u64>) -> Authority {
        Authority {
            directory: "https://ca.example/dir".to_owned(),
            contact: Vec::new(),
            challenge: Challenge::Http01,
            roots: None,
            renew_before_ms,
        }
    }

    fn life(days: u64) -> Life {
        let not_before = i64::try_from(START).expect("a time");
        Life {
            directory: "https://ca.example/dir".to_owned(),
            names: vec!["a.example".to_owned(), "b.example".to_owned()],
            not_before,
            not_after: not_before + i64::try_from(days * DAY).expect("a time"),
        }
    }

    fn due_of(life: &Life, names: &[&str], renew_before_ms: Option<u64>) -> u64 {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        due(Some(life), &names, &authority(renew_before_ms), &Retry::default())
    }

    #[test]
    fn a_third_of_its_life_before_its_end_or_as_the_policy_says() {
        assert_eq!(due_of(&life(90), &["a.example"], None), START + 60 * DAY);
        assert_eq!(due_of(&life(6), &["a.example"], None), START + 4 * DAY);
        assert_eq!(due_of(&life(90), &["a.example"], Some(10 * DAY * 1000)), START + 80 * DAY);
        // Longer than it lives: not without end.
        assert_eq!(due_of(&life(90), &["a.example"], Some(365 * DAY * 1000)), START + 30 * DAY);
    }

    #[test]
    fn at_once_without_one_or_with_one_for_others() {
        let names = ["a.example".to_owned()];
        assert_eq!(due(None, &names, &authority(None), &Retry::default()), 0);
        assert_eq!(due_of(&life(90), &["a.example", "c.example"], None), 0);
        let staging = Life { directory: "https://staging.example/dir".to_owned(), ..life(90) };
        assert_eq!(due_of(&staging, &["a.example"], None), 0);
        // Names that are no longer wanted do no harm.
        assert_eq!(due_of(&life(90), &["b.example"], None), START + 60 * DAY);
        let backwards = Life { not_after: 0, ..life(90) };
        assert_eq!(due_of(&backwards, &["a.example"], None), 0);
    }

    #[test]
    fn failures_wait_ever_longer_and_no_longer_than_that() {
        let mut retry = Retry::default();
        let mut waits = Vec::new();
        for _ in 0..40 {
            retry = retry.failed(START, "down", None);
            waits.push(retry.not_before - START);
        }
        assert_eq!(waits[..4], [60, 120, 240, 480]);
        assert_eq!(waits[39], LONGEST_WAIT_S);
        assert!(waits.is_sorted() && retry.failures == 40);
        let wanted = due(None, &[], &authority(None), &retry);
        assert_eq!(wanted, START + LONGEST_WAIT_S);
        retry.looked_after();
        assert_eq!(due(None, &[], &authority(None), &retry), 0);
    }

    #[test]
    fn what_the_authority_says_holds_also_when_somebody_has_looked_after_it() {
        let mut retry = Retry::default().failed(START, "too many", Some(START + 3600));
        assert_eq!(retry.not_before, START + 3600);
        retry.looked_after();
        assert_eq!(retry.not_before, START + 3600);
        // Not sooner than we would have come ourselves, and not in a hundred years.
        assert_eq!(Retry::default().failed(START, "busy", Some(START + 1)).not_before, START + 60);
        let late = Retry::default().failed(START, "busy", Some(u64::MAX)).not_before;
        assert_eq!(late, START + LONGEST_RETRY_AFTER_S);
    }
}
