//! Lines of the access log: JSON, or nginx's `combined`. Called by the worker when an answer has been sent.

use super::{Asked, Client, Reason};
use crate::proxy::plan::LogFormat;

/// What a line says.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When the request came, nanoseconds since 1970.
    pub unix_ns: u64,
    /// Who is connected.
    pub client: &'a Client,
    /// The zone of the policy that the peer is in.
    pub zone: Option<&'a str>,
    /// What was asked; `None` if it could not be parsed.
    pub asked: Option<&'a Asked>,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// Body bytes received from the client.
    pub received: u64,
    /// Body bytes sent to the client.
    pub sent: u64,
    /// From the request's head to the end of its answer, nanoseconds.
    pub duration_ns: u64,
    /// From the upstream's being asked to its answer's head, nanoseconds.
    pub upstream_ns: Option<u64>,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The server that answered.
    pub upstream: Option<&'a str>,
    /// Why the proxy answered itself, or why the answer is not complete.
    pub reason: Option<Reason>,
}

/// Appends a line, with its line feed.
pub fn line(format: LogFormat, record: &Record<'_>, out: &mut Vec<u8>) {
    let _ = (format, record, out);
    unimplemented!()
}
