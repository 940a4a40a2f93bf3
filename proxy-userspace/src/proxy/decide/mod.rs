//! What happens to one request, and to its answer: decided on parsed heads alone. Called by the worker's connections.
//!
//! No I/O, no sockets, no clock: `now_ns` is an argument, any clock that only goes forward. What a connection does:
//!
//! 1. [`Client`] once, after the handshake.
//! 2. For each request [`request()`]: it gives what is to be logged ([`Asked`]) and a [`Decision`]. Whoever wants hyper's
//!    `OnUpgrade` takes it out of the request before: extensions are not passed on.
//! 3. [`Decision::Forward`]: send [`Forward::head`] to the route's upstream, stop bodies at [`Forward::body_limit`], and give
//!    the upstream's head to [`response()`]. Of trailers [`Trailers::pass`] says what goes on.
//! 4. [`Decision::Answer`], or [`Router::refusal`] for what fails later (upstream down, body too long, …): send it.
//! 5. [`Router::offence`] with the reason of each refusal; it says when the peer is to be banned.
//! 6. [`log::line`] when the answer has been sent.

pub mod answer;
mod forwarded;
mod framing;
mod hop;
mod host;
pub mod limit;
pub mod log;
pub mod offences;
pub mod reason;
pub mod request;
pub mod response;
pub mod router;
mod target;
#[cfg(test)]
mod tests;
pub mod trailers;
mod zones;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderValue, Method, Uri, Version};

pub use answer::Answer;
pub use offences::Ban;
pub use reason::Reason;
pub use request::request;
pub use response::response;
pub use router::{RouteState, Router, host_of};
pub use target::for_matching;
pub use trailers::Trailers;

/// A connection of a client.
#[derive(Clone, Debug)]
pub struct Client {
    /// The listener's name in the plan.
    pub listener: Arc<str>,
    /// The other end of the socket: who is banned. IPv4-mapped addresses count as IPv4.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// With TLS.
    pub tls: Option<TlsInfo>,
}

/// What the handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The name that the client sent, lower case.
    pub sni: Option<String>,
    /// `TLSv1.3`.
    pub version: &'static str,
    /// As rustls names it.
    pub cipher: &'static str,
}

/// A request as the client put it: what is needed for its answer and its line in the log, whatever is decided.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its target, as parsed.
    pub uri: Uri,
    /// Its version.
    pub version: Version,
    /// Host or authority as sent, unless there was none or it was refused.
    pub host: Option<HeaderValue>,
    /// `Referer`, first line of it.
    pub referer: Option<HeaderValue>,
    /// `User-Agent`, first line of it.
    pub user_agent: Option<HeaderValue>,
    /// Who asks: the peer, or what trusted proxies say of who is behind them. Never banned by this.
    pub client: IpAddr,
    /// The id given to it, sent to the upstream as `X-Request-ID`.
    pub id: HeaderValue,
    /// The client takes trailers (RFC 9110 6.5.1).
    pub trailers: bool,
    /// A WebSocket upgrade was passed on: a 101 is an answer to it.
    pub upgrade: bool,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Decision {
    /// An upstream answers it.
    Forward(Box<Forward>),
    /// The proxy answers it.
    Answer(Answer),
}

/// A request that is passed on.
#[derive(Debug)]
pub struct Forward {
    /// The route, of which [`RouteState::upstream`] is set.
    pub route: Arc<RouteState>,
    /// Ready for the upstream: an HTTP/1.1 head with origin-form target and `Host`, or an HTTP/2 one with `:authority`, as the
    /// upstream's protocol says. Body framing (`Content-Length` or none: chunked) is set; hop-by-hop headers are gone, but for
    /// those of an upgrade.
    pub head: http::request::Parts,
    /// Bytes of the body at most; beyond it [`Reason::BodyTooLarge`].
    pub body_limit: u64,
    /// The length of the body: `Some(0)` there is none, `None` it ends when it ends.
    pub body: Option<u64>,
    /// What of its trailers goes on.
    pub trailers: Trailers,
    /// It may be sent once more on another connection if the first closed before it answered: idempotent (RFC 9110 9.2.2), no body,
    /// no upgrade.
    pub retry_safe: bool,
}
