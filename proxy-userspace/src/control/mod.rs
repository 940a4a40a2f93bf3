//! The daemon: its loop, its locks, and the socket by which commands reach it.

mod change;
pub mod client;
pub mod daemon;
pub mod history;
mod links;
pub mod lock;
pub mod lockout;
pub mod protocol;
pub mod scrape;
pub mod server;
mod socket;
mod watch;
