//! Who is to blame for a request that failed: decided from what the upstreams saw of it and when they died. Pure; asked by
//! [`super::client`] for every failure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What an upstream had in hand when it died may have been given to the kernel so long before.
const IN_THE_KERNEL: Duration = Duration::from_secs(2);

/// A life of an upstream: each start is another.
pub type Life = u32;

/// What an upstream did with a request.
#[derive(Clone, Copy, Debug)]
struct Seen {
    life: Life,
    /// The head of the answer was given to the connection.
    began: bool,
    /// All of it was.
    done: Option<Instant>,
}

/// A request that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// Its number.
    pub id: u64,
    /// It may be sent twice (RFC 9110, 9.2.2).
    pub repeatable: bool,
    /// When the client began.
    pub sent: Instant,
    /// When it knew.
    pub failed: Instant,
}

/// Why no proxy could have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excuse {
    /// The upstream died after it had begun to answer.
    AnswerCut,
    /// The upstream died while it may have had the request, which must not be sent twice.
    NotRepeatable,
}

/// What all upstreams saw. A request is forgotten when it succeeds.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: Mutex<HashMap<u64, Vec<Seen>>>,
    deaths: Mutex<Vec<(Life, Instant)>>,
}

impl Ledger {
    fn update(&self, id: u64, life: Life, change: impl FnOnce(&mut Seen)) {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = all.entry(id).or_default();
        let at = entries.iter().position(|seen| seen.life == life).unwrap_or(entries.len());
        if at == entries.len() {
            entries.push(Seen { life, began: false, done: None });
        }
        change(&mut entries[at]);
    }

    /// A request has arrived.
    pub fn arrived(&self, id: u64, life: Life) {
        self.update(id, life, |seen| *seen = Seen { life, began: false, done: None });
    }

    /// Its answer begins.
    pub fn began(&self, id: u64, life: Life) {
        self.update(id, life, |seen| seen.began = true);
    }

    /// Its answer was given to the connection whole.
    pub fn done(&self, id: u64, life: Life) {
        self.update(id, life, |seen| seen.done = Some(Instant::now()));
    }

    /// An upstream dies, now.
    pub fn died(&self, life: Life) {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).push((life, Instant::now()));
    }

    /// How many died.
    pub fn deaths(&self) -> usize {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The client has its answer.
    pub fn forget(&self, id: u64) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Why this request could not be answered by anybody; `None` if it could.
    pub fn excuse(&self, failed: Failed) -> Option<Excuse> {
        let seen =
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&failed.id).unwrap_or_default();
        let deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        let meanwhile = |at: Instant| failed.sent <= at + IN_THE_KERNEL && at <= failed.failed;
        let died =
            |life: Life| deaths.iter().find(|(who, at)| *who == life && meanwhile(*at)).map(|(_, at)| *at);
        let cut = seen.iter().any(|seen| {
            let unsent = |at: Instant| seen.done.is_none_or(|done| done + IN_THE_KERNEL > at);
            seen.began && died(seen.life).is_some_and(unsent)
        });
        if cut {
            return Some(Excuse::AnswerCut);
        }
        // It may have been on its way to the upstream, which then knows nothing of it.
        let on_its_way = || deaths.iter().any(|(_, at)| meanwhile(*at));
        (!failed.repeatable && on_its_way()).then_some(Excuse::NotRepeatable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(id: u64, repeatable: bool, sent: Instant) -> Failed {
        Failed { id, repeatable, sent, failed: Instant::now() }
    }

    #[test]
    fn only_a_death_excuses() {
        let (ledger, sent) = (Ledger::default(), Instant::now());
        ledger.arrived(1, 1);
        ledger.began(1, 1);
        assert_eq!(ledger.excuse(failed(1, true, sent)), None, "nobody died");
        assert_eq!(ledger.excuse(failed(2, false, sent)), None, "nobody died");
        ledger.arrived(3, 1);
        ledger.arrived(4, 1);
        ledger.began(4, 1);
        ledger.died(1);
        assert_eq!(ledger.excuse(failed(3, true, sent)), None, "the next could have been asked");
        assert_eq!(ledger.excuse(failed(3, false, sent)), Some(Excuse::NotRepeatable));
        assert_eq!(ledger.excuse(failed(4, true, sent)), Some(Excuse::AnswerCut));
    }

    #[test]
    fn a_death_of_another_life_or_time_excuses_nothing() {
        let (ledger, sent) = (Ledger::default(), Instant::now());
        ledger.died(1);
        ledger.arrived(5, 2);
        ledger.began(5, 2);
        assert_eq!(ledger.excuse(failed(5, true, sent)), None, "its upstream lives");
        let later = Instant::now() + IN_THE_KERNEL * 2;
        let late = Failed { id: 6, repeatable: false, sent: later, failed: later };
        assert_eq!(ledger.excuse(late), None, "that was before");
    }
}
