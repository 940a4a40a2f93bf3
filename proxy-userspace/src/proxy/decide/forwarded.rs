//! Who asks, and what upstreams are told of it. Called by [`super::request()`].
//!
//! From a trusted proxy `X-Forwarded-For` is believed, right to left, up to the first address that is not a trusted proxy itself;
//! from anybody else nothing is, and their own `X-Forwarded-*`, `Forwarded` and `X-Real-IP` go no further.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Client, Router, hop};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether a header (lower case) speaks of who is in front: `Connection` must not take it away once it is believed.
pub(super) fn speaks_of_clients(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "x-real-ip" || name == "x-request-id" || name == "forwarded"
}

/// Who asks.
pub(super) struct Who {
    /// The client, as far as can be believed.
    pub(super) client: IpAddr,
    /// The other end of the socket.
    peer: IpAddr,
    /// It is a trusted proxy.
    trusted: bool,
}

/// The right-most address that is no trusted proxy; where all are, or what follows can't be read, the left-most that was read.
pub(super) fn who(router: &Router, client: &Client, headers: &HeaderMap) -> Who {
    let peer = client.peer.ip().to_canonical();
    let trusted = router.trusts(peer);
    Who { client: if trusted { behind(router, peer, headers) } else { peer }, peer, trusted }
}

fn behind(router: &Router, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut found = peer;
    let lines: Vec<&HeaderValue> = headers.get_all(FOR).iter().collect();
    for line in lines.into_iter().rev() {
        let Ok(line) = line.to_str() else { return found };
        for entry in line.rsplit(',') {
            let Some(address) = address(entry.trim()) else { return found };
            found = address;
            if !router.trusts(address) {
                return found;
            }
        }
    }
    found
}

/// Puts the truth in the place of what came.
pub(super) fn set(headers: &mut HeaderMap, who: &Who, tls: bool, id: &HeaderValue) {
    let Who { client, peer, trusted } = *who;
    let said: Vec<HeaderValue> =
        if trusted { headers.get_all(FOR).iter().cloned().collect() } else { Vec::new() };
    let proto =
        headers.get(PROTO).filter(|_| trusted).filter(|proto| *proto == "http" || *proto == "https").cloned();
    // `Forwarded` is not written by this proxy, and would contradict what is.
    hop::remove_where(headers, |name| {
        name == "forwarded"
            || name == "x-real-ip"
            || name == "x-request-id"
            || (!trusted && name.starts_with("x-forwarded-"))
    });
    let proto = proto.unwrap_or(HeaderValue::from_static(if tls { "https" } else { "http" }));
    let mut chain: Vec<u8> = Vec::new();
    for line in &said {
        if !line.is_empty() {
            chain.extend_from_slice(line.as_bytes());
            chain.extend_from_slice(b", ");
        }
    }
    chain.extend_from_slice(peer.to_string().as_bytes());
    // Values that were headers, joined by a comma, are a header.
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FOR, chain);
    }
    headers.insert(PROTO, proto);
    if let Ok(address) = HeaderValue::from_str(&client.to_string()) {
        headers.insert(REAL_IP, address);
    }
    headers.insert(REQUEST_ID, id.clone());
}

/// An address, with or without port; IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|both| both.ip()));
    address.ok().map(|address| address.to_canonical())
}
