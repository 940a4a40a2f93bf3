//! The L7 proxy: HTTP and HTTPS routes of the same policy file, served by a worker process without privileges.

pub mod decide;
pub mod plan;
pub mod serve;
