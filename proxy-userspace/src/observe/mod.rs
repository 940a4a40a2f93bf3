//! What the kernel has counted, dropped and enforces, made ready for people and programs. Called by the commands.

pub mod bans;
pub mod capture;
pub mod drops;
pub mod feed;
pub mod heavy;
pub mod metrics;
mod proxy_metrics;
pub mod rates;
pub mod recorded;
pub mod shadow;
pub mod stats;
pub mod status;
mod words;
