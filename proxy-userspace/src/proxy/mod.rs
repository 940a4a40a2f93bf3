//! The L7 proxy: HTTP and HTTPS routes of the same policy file, served by a worker process without privileges.
//!
//! ```text
//! policy ── plan ── daemon: bind, secrets ── link ── worker: privilege, serve ── decide
//! ```

pub mod acme;
pub mod bind;
pub mod decide;
pub mod link;
pub mod plan;
pub mod privilege;
pub mod secrets;
pub mod serve;
pub mod worker;
