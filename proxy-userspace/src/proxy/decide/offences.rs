//! Who offends again and again is banned: counts by source, and says once when it is enough. Called by
//! [`super::Router::offence`].

use std::net::IpAddr;

/// Who is to be banned in the packet filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The socket's peer.
    pub address: IpAddr,
    /// For how long, milliseconds.
    pub ms: u64,
    /// Why, for the list of bans.
    pub why: String,
}
