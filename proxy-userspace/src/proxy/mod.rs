//! The L7 proxy: HTTP and HTTPS routes of the same policy file, served by a worker process without privileges.

pub mod bind;
pub mod link;
pub mod plan;
pub mod privilege;
pub mod secrets;
