//! The tollgate daemon's library.
pub mod policy;
