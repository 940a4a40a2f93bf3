//! How many connections are served at a time: so many of one user, so many in all, and some that only root can take. Called by
//! `server`.
//!
//! Nobody waits: who finds no seat is told so. A queue could be filled by one user, and root would stand at its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::peer::Role;

/// Seats of all who may only ask.
const READERS: usize = 32;
/// Seats of one of them.
const OF_ONE_READER: usize = 4;
/// Seats of those who may do everything; they are trusted, and still bounded.
const COMMANDERS: usize = 64;

/// Who sits.
#[derive(Debug, Default)]
struct Taken {
    commanders: usize,
    readers: HashMap<u32, usize>,
}

/// The seats.
#[derive(Clone, Debug, Default)]
pub struct Seats {
    taken: Arc<Mutex<Taken>>,
}

/// A seat; dropping it frees it.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    uid: u32,
    role: Role,
}

impl Seats {
    /// Takes a seat; `None` if there is none for this user. Strangers get none.
    pub fn take(&self, uid: u32, role: Role) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match role {
            Role::Commander if taken.commanders < COMMANDERS => taken.commanders += 1,
            Role::Reader => {
                let all: usize = taken.readers.values().sum();
                let own = taken.readers.get(&uid).copied().unwrap_or_default();
                if own >= OF_ONE_READER || all >= READERS {
                    return None;
                }
                taken.readers.insert(uid, own + 1);
            }
            Role::Commander | Role::Stranger => return None,
        }
        Some(Seat { seats: self.clone(), uid, role })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if self.role == Role::Commander {
            taken.commanders -= 1;
            return;
        }
        match taken.readers.get_mut(&self.uid) {
            Some(own) if *own > 1 => *own -= 1,
            // Users come and go: what is zero is forgotten.
            _ => drop(taken.readers.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_seats_for_others_and_all_leave_some_for_root() {
        let seats = Seats::default();
        let mut held = Vec::new();
        for uid in 1000..1100 {
            let own: Vec<_> = std::iter::from_fn(|| seats.take(uid, Role::Reader)).take(100).collect();
            assert!(own.len() <= OF_ONE_READER, "{uid}");
            held.extend(own);
        }
        assert_eq!(held.len(), READERS);
        assert!(seats.take(0, Role::Commander).is_some());
        assert!(seats.take(7, Role::Stranger).is_none());
        held.pop();
        assert!(seats.take(5000, Role::Reader).is_some(), "what is given back can be taken");
        held.clear();
        assert!(seats.taken.lock().expect("a lock").readers.is_empty());
    }

    #[test]
    fn root_is_bounded_too() {
        let seats = Seats::default();
        let held: Vec<_> = std::iter::from_fn(|| seats.take(0, Role::Commander)).take(1000).collect();
        assert_eq!(held.len(), COMMANDERS);
        drop(held);
        assert!(seats.take(0, Role::Commander).is_some());
    }
}
