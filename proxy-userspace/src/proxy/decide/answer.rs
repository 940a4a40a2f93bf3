//! Answers that the proxy makes itself: redirects, fixed ones, refusals. Called by [`super::request`] and, through
//! [`super::Router::refusal`], by the network side.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use hyper::body::Bytes;

use super::{Reason, RouteState};

/// An answer of the proxy's own.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// All of them, `Content-Length` too; not `Date`, nor `Connection`.
    pub headers: HeaderMap,
    /// Empty for HEAD.
    pub body: Bytes,
    /// The connection ends after it (HTTP/1: `Connection: close`; HTTP/2: only this stream ends).
    pub close: bool,
    /// Why the proxy answers.
    pub reason: Reason,
    /// The route that was found, if any.
    pub route: Option<Arc<RouteState>>,
}
