//! Servers behind the proxy: connections that are kept, which server is asked, and which is not. Used by [`super::exchange`].

pub(super) mod body;
mod connect;
mod health;
mod held;
pub(super) mod pool;
mod send;

pub(super) use body::{FromClient, RequestBody, Upload};
pub(super) use held::Memory;
pub(super) use pool::{Lease, ServerState, Upstream};
pub(super) use send::{Outcome, Outgoing, send};
