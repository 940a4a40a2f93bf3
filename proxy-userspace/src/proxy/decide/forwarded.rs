//! Who asks, and what upstreams are told of it. Called by [`super::request()`].
//!
//! From a trusted proxy `X-Forwarded-For` is believed, right to left, up to the first address that is not a trusted proxy itself;
//! from anybody else nothing is, and their own `X-Forwarded-*`, `Forwarded` and `X-Real-IP` go no further.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Client, Router};

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
    pub(super) trusted: bool,
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

/// Whether what a client says under this name goes, for [`set`] says it, or nobody does: `Forwarded` is not written by this proxy, and
/// would contradict what is.
pub(super) fn is_replaced(name: &str, trusted: bool) -> bool {
    matches!(name, "forwarded" | "x-real-ip" | "x-request-id")
        || (!trusted && name.starts_with("x-forwarded-"))
}

/// Puts the truth in the place of what came, when [`is_replaced`] has been taken out.
pub(super) fn set(headers: &mut HeaderMap, who: &Who, tls: bool, id: &HeaderValue) {
    let Who { client, peer, trusted } = *who;
    let said: Vec<HeaderValue> =
        if trusted { headers.get_all(FOR).iter().cloned().collect() } else { Vec::new() };
    let proto =
        headers.get(PROTO).filter(|_| trusted).filter(|proto| *proto == "http" || *proto == "https").cloned();
    let proto = proto.unwrap_or(HeaderValue::from_static(if tls { "https" } else { "http" }));
    // Values that were headers, joined by a comma, are a header.
    let value = |text: &[u8]| HeaderValue::from_bytes(text).ok();
    let peers = value(peer.to_string().as_bytes());
    let real = if client == peer { peers.clone() } else { value(client.to_string().as_bytes()) };
    let chain = if said.iter().all(HeaderValue::is_empty) {
        peers
    } else {
        let lines = said.iter().map(HeaderValue::as_bytes).filter(|line| !line.is_empty());
        let lines: Vec<&[u8]> = lines.chain(peers.iter().map(HeaderValue::as_bytes)).collect();
        value(&lines.join(&b", "[..]))
    };
    if let Some(chain) = chain {
        headers.insert(FOR, chain);
    }
    headers.insert(PROTO, proto);
    if let Some(address) = real {
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
