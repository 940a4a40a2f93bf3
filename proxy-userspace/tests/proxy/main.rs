//! The network side of the L7 proxy, over real sockets on loopback: what clients get, and what upstreams see of it, byte for byte.

mod abuse;
mod backend;
mod buffer;
mod change;
mod client;
mod descriptors;
mod exchange;
mod pool;
mod slow;
mod smuggling;
mod stage;
mod tls;
mod trailers;
mod tunnel;
