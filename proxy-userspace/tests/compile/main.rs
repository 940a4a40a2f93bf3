//! A policy compiled and run by the engine on the host, against what the policy means.

mod decisions;
mod fixture;
mod limits;
mod scale;
mod shipped;
