//! What the kernel has counted and enforces, made ready for people and programs. Called by the commands.

pub mod bans;
pub mod packet;
pub mod stats;
pub mod status;
