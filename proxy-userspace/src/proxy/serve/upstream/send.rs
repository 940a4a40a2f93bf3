//! One request to an upstream: which server, which connection, how long, and whether once more. Called by
//! [`super::super::exchange`].
//!
//! A request is sent again only if the upstream can't have seen it, or if it may see it twice: nothing of it was sent; or it is
//! idempotent without a body. If its connection was used before, another is made, for a server may close an idle connection at any
//! moment. If a server broke off that was asked on a new connection, another server is asked, but no third: the request may be
//! what breaks them. A server that can't be reached is passed over for the next.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, request};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::body::{RequestBody, Upload};
use super::connect::{Sender, Unreachable};
use super::pool::{Lease, Upstream};
use crate::proxy::decide::Reason;

/// A request on its way out.
pub(in crate::proxy::serve) struct Outgoing {
    /// As the upstream is to see it.
    pub(in crate::proxy::serve) head: request::Parts,
    pub(in crate::proxy::serve) body: RequestBody,
    /// How the body gets on, if there is one.
    pub(in crate::proxy::serve) upload: Option<Arc<Upload>>,
    /// It may be seen twice.
    pub(in crate::proxy::serve) retry_safe: bool,
    /// The connection will be a tunnel: it is a new one.
    pub(in crate::proxy::serve) upgrade: bool,
}

/// An answer, or why there is none; and who was asked last.
pub(in crate::proxy::serve) struct Outcome {
    pub(in crate::proxy::serve) answer: Result<Response<Incoming>, Reason>,
    pub(in crate::proxy::serve) lease: Option<Lease>,
}

/// Sends it and waits for the answer's head.
pub(in crate::proxy::serve) async fn send(upstream: &Arc<Upstream>, outgoing: Outgoing) -> Outcome {
    let Outgoing { head, body, upload, retry_safe, upgrade } = outgoing;
    let patience = Duration::from_millis(upstream.plan.response_ms);
    let mut request = Request::from_parts(head, body);
    let (mut tried, mut fresh, mut why) = (Vec::new(), upgrade, Reason::UpstreamDown);
    let mut broke = false;
    loop {
        let Some(mut lease) = upstream.choose(&tried) else {
            return Outcome { answer: Err(why), lease: None };
        };
        let (mut sender, reused) = match lease.connection(fresh).await {
            Ok(connection) => connection,
            Err(unreachable) => {
                why = match unreachable {
                    Unreachable::Timeout => {
                        lease.failed("connecting took too long");
                        Reason::UpstreamTimeout
                    }
                    Unreachable::Refused(error) => {
                        lease.failed(&error);
                        Reason::UpstreamDown
                    }
                };
                tried.push(lease.index);
                continue;
            }
        };
        let elsewhere = !broke && tried.len() + 1 < upstream.servers.len();
        let again = (retry_safe && (reused && !fresh || elsewhere)).then(|| copy(&request));
        let answer = tokio::select! {
            answer = sender.send(request) => answer,
            () = too_long(upload.as_deref(), patience) => {
                lease.failed("the answer took too long");
                return Outcome { answer: Err(Reason::UpstreamTimeout), lease: Some(lease) };
            }
        };
        let mut error = match answer {
            Ok(response) => {
                lease.succeeded();
                let whole = upload.as_ref().is_none_or(|upload| upload.is_done());
                if let Sender::Http1(sender) = sender
                    && whole
                    && !upgrade
                {
                    lease.sender = Some(sender);
                }
                return Outcome { answer: Ok(response), lease: Some(lease) };
            }
            Err(error) => error,
        };
        if let Some(reason) = upload.as_ref().and_then(|upload| upload.failure()) {
            return Outcome { answer: Err(reason), lease: Some(lease) };
        }
        let again = error.take_message().or(again);
        let error = error.into_error();
        let reason = if error.is_parse() { Reason::UpstreamInvalid } else { Reason::UpstreamBroke };
        let stale = reused && !fresh && reason == Reason::UpstreamBroke;
        if !stale {
            lease.failed(&error.to_string());
        }
        match again {
            Some(again) if stale || (elsewhere && reason == Reason::UpstreamBroke) => request = again,
            _ => return Outcome { answer: Err(reason), lease: Some(lease) },
        }
        if !stale {
            (broke, why) = (true, reason);
            tried.push(lease.index);
        }
        fresh = true;
    }
}

/// The same request, without a body and without extensions.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Ends when the upstream has kept us waiting for `patience`. Time in which the client has to send is not the upstream's.
async fn too_long(upload: Option<&Upload>, patience: Duration) {
    let mut until = Instant::now() + patience;
    loop {
        sleep_until(until).await;
        until = match upload.map(Upload::waits_for_upstream) {
            None => return,
            Some(None) => Instant::now() + patience,
            Some(Some(since)) if since + patience > Instant::now() => since + patience,
            Some(Some(_)) => return,
        };
    }
}
