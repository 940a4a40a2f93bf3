//! Hostile clients: requests that are meant to be read in two ways, requests that are too large or too slow, and scanners that
//! nobody here wrote, all let loose on the real program before a real nginx's eyes.
//!
//! `TOLLGATE_TABLE=1 cargo test -p tollgate-tests --test hostile -- --nocapture` prints the table of cases.

mod case;
mod client;
mod frames;
mod framing;
mod heads;
mod scanner;
mod slow;
mod stand;
mod streams;
mod table;
