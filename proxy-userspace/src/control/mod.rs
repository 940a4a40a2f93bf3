//! The daemon: its loop, its locks, and the socket by which commands reach it.

mod answer;
mod change;
pub mod client;
pub mod daemon;
mod escalation;
pub mod history;
mod links;
pub mod lock;
pub mod lockdown;
pub mod lockout;
pub mod peer;
mod private;
pub mod protocol;
mod proxy;
pub mod scrape;
mod seats;
pub mod server;
mod socket;
mod start;
mod supervisor;
mod watch;
