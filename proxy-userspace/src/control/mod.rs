//! The daemon: its loop, its locks, and the socket by which commands reach it.

pub mod client;
pub mod daemon;
pub mod lock;
pub mod protocol;
pub mod server;
