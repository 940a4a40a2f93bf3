//! The network side of the L7 proxy.
pub mod tls;
