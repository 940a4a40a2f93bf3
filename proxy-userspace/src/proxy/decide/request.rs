//! The decision on a request. Called by the worker's connections for each request.

use http::HeaderValue;
use http::request::Parts;

use super::{Asked, Client, Decision, Router};

/// What happens to a request with this head.
///
/// `body` is the exact length of the body if it is known (hyper's `size_hint().exact()`): `Some(0)` if there is none. `id` is an id
/// of the network side's making. `now_ns` comes from a clock that only goes forward, the same at each call.
pub fn request(
    router: &Router,
    client: &Client,
    head: Parts,
    body: Option<u64>,
    id: HeaderValue,
    now_ns: u64,
) -> (Asked, Decision) {
    let _ = (router, client, head, body, id, now_ns);
    unimplemented!()
}
