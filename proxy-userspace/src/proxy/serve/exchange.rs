//! One request and its answer: has it decided, forwards it, and streams the answer back. Called by hyper for each request of
//! [`super::connection`].
//!
//! The body is read when the upstream's connection asks for it, so that `100 Continue` goes out only then, and whoever is slow
//! slows the other; but one that is short or has no length is read ahead, as far as the plan says. When the client leaves, hyper drops what is
//! here, and with it the upstream's connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;

use super::challenge::instead;
use super::connection::Connection;
use super::paced::{Paced, Part};
use super::upstream::{FromClient, Lease, Outcome, Outgoing, RequestBody, ServerState, Upload, send};
use super::watch::InFlight;
use super::{State, metrics, tunnel, unix_ns};
use crate::proxy::decide::log::Record;
use crate::proxy::decide::{self, Answer, Asked, Client, Decision, Forward, Reason, RouteState, Trailers};
use crate::proxy::plan::UpstreamProtocol;

/// A request from its head to the end of its answer. Dropped, it is noted.
pub(super) struct Entry {
    pub(super) connection: Arc<Connection>,
    pub(super) client: Arc<Client>,
    state: Arc<State>,
    asked: Asked,
    route: Option<Arc<RouteState>>,
    begun: Instant,
    unix_ns: u64,
    status: u16,
    upload: Option<Arc<Upload>>,
    pub(super) received: u64,
    pub(super) sent: u64,
    upstream_ns: Option<u64>,
    server: Option<Arc<ServerState>>,
    reason: Option<Reason>,
    /// All of the answer was given to the connection.
    pub(super) complete: bool,
    in_flight: Arc<InFlight>,
}

impl Entry {
    fn upload(&self) -> Option<Reason> {
        self.upload.as_ref().and_then(|upload| upload.failure())
    }

    /// A part of the answer for the connection. HTTP/1 has its socket to show who is slow.
    fn given(&self, part: Bytes) -> Bytes {
        if !self.connection.http2 {
            return part;
        }
        self.in_flight.client_has_a_part(true);
        self.in_flight.hold(part)
    }

    /// The time after which a tunnel without traffic ends.
    pub(super) fn tunnel_patience(&self) -> Duration {
        Duration::from_millis(self.state.plan.common.timeouts.tunnel_ms)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let shared = &self.connection.shared;
        // Its end may have been given to the connection, and not taken by the client.
        let is_slow = self.in_flight.is_cut();
        if (!self.complete || is_slow) && self.reason.is_none() {
            let cut = self.connection.cut.get().copied();
            let slow = is_slow.then_some(Reason::ClientTimeout);
            let reason = cut.or(slow).or_else(|| self.upload()).unwrap_or(Reason::ClientGone);
            if cut.is_none() {
                shared.counts.reason(reason);
            }
            self.reason = Some(reason);
        }
        let took = self.begun.elapsed();
        let received = self.received + self.upload.as_ref().map_or(0, |upload| upload.received());
        let route = self.route.as_ref().map(|route| route.plan.name.as_str());
        let took_us = (self.status != StatusCode::SWITCHING_PROTOCOLS.as_u16())
            .then(|| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        shared.counts.request(&metrics::Request {
            route,
            status: self.status,
            received,
            sent: self.sent,
            took_us,
        });
        shared.sink.access(&Record {
            unix_ns: self.unix_ns,
            client: &self.client,
            zone: self.state.router.zone(self.client.peer.ip()),
            asked: Some(&self.asked),
            status: self.status,
            received,
            sent: self.sent,
            duration_ns: nanoseconds(took),
            upstream_ns: self.upstream_ns,
            route,
            upstream: self.server.as_ref().map(|server| server.known.label.as_str()),
            reason: self.reason,
        });
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Answers a request.
pub(super) async fn exchange(
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> Response<AnswerBody> {
    let in_flight = connection.progress.request(connection.seat.request());
    let state = connection.shared.state();
    let (begun, unix_ns) = (Instant::now(), unix_ns());
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (head, incoming) = request.into_parts();
    let length = if incoming.is_end_stream() { Some(0) } else { incoming.size_hint().exact() };
    let (id, now_ns) = (connection.shared.request_id(), connection.shared.now_ns());
    let client = connection.client(&state);
    let challenge = connection.shared.challenges.http(&client, &head, length);
    let (asked, decision) = decide::request(&state.router, &client, head, length, id, now_ns);
    let decision = if in_flight.is_too_many() {
        Decision::Answer(state.router.refusal(Reason::TooManyRequests, None, Some(&asked.method)))
    } else {
        instead(challenge, decision)
    };
    let entry = Box::new(Entry {
        connection,
        client,
        state,
        asked,
        route: None,
        begun,
        unix_ns,
        status: 0,
        upload: None,
        received: 0,
        sent: 0,
        upstream_ns: None,
        server: None,
        reason: None,
        complete: false,
        in_flight,
    });
    match decision {
        Decision::Answer(answer) => answered(entry, answer, length != Some(0)),
        Decision::Forward(forward) => forwarded(entry, *forward, incoming, upgrade).await,
    }
}

async fn forwarded(
    mut entry: Box<Entry>,
    forward: Forward,
    incoming: Incoming,
    client: Option<OnUpgrade>,
) -> Response<AnswerBody> {
    let Forward { route, mut head, body_limit, body, trailers, retry_safe } = forward;
    let upgrade = entry.asked.upgrade;
    entry.route = Some(Arc::clone(&route));
    let has_body = body != Some(0);
    let upstream = route.upstream.as_deref().and_then(|name| entry.state.upstreams.get(name)).cloned();
    let Some(upstream) = upstream else { return refused(entry, Reason::UpstreamDown, has_body) };
    let body = if has_body {
        let patience = Duration::from_millis(entry.state.plan.common.timeouts.body_ms);
        let mut from = Box::new(FromClient::new(incoming, body_limit, patience, trailers));
        entry.upload = Some(Arc::clone(from.upload()));
        let fits = body.is_none_or(|length| length <= upstream.plan.buffer);
        if fits && upstream.plan.protocol == UpstreamProtocol::Http1 {
            // A server with a few workers would have one of them wait for each client that sends slowly.
            let memory = &entry.connection.shared.memory;
            match from.read_ahead(upstream.plan.buffer, memory).await {
                Ok(Some(length)) => {
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
                }
                Ok(None) if body.is_some() => {}
                Ok(None) if upstream.plan.chunked => {
                    // hyper sends no body with a GET that does not say how it is framed.
                    head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                Ok(None) => return refused(entry, Reason::LengthRequired, has_body),
                Err(reason) => return refused(entry, reason, has_body),
            }
        }
        RequestBody::Client(from)
    } else {
        RequestBody::Empty
    };
    let asked = Instant::now();
    let upload = entry.upload.clone();
    let Outcome { answer, lease } =
        send(&upstream, Outgoing { head, body, upload, retry_safe, upgrade }).await;
    entry.upstream_ns = Some(nanoseconds(asked.elapsed()));
    entry.server = lease.as_ref().map(|lease| Arc::clone(lease.server()));
    let mut response = match answer {
        Ok(response) => response,
        Err(reason) => return refused(entry, reason, has_body),
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let upstream_side = switched.then(|| hyper::upgrade::on(&mut response));
    let (mut parts, incoming) = response.into_parts();
    let trailers = match decide::response(&route, &entry.asked, &mut parts) {
        Ok(trailers) => trailers,
        Err(reason) => return refused(entry, reason, has_body),
    };
    parts.version = Version::HTTP_11;
    // HTTP/1.1 clients are told of the upstream's own words for its status, which may have no registered ones.
    let phrase = parts.extensions.remove::<ReasonPhrase>();
    parts.extensions.clear();
    if let Some(phrase) = phrase {
        parts.extensions.insert(phrase);
    }
    entry.status = parts.status.as_u16();
    match (upstream_side, client, upgrade) {
        (None, _, _) => {
            let rest = Paced::new(incoming, Duration::from_millis(upstream.plan.response_ms));
            Response::from_parts(parts, AnswerBody::upstream(entry, rest, lease, trailers))
        }
        (Some(upstream_side), Some(client), true) => {
            tokio::spawn(tunnel::run(entry, client, upstream_side, lease));
            Response::from_parts(parts, AnswerBody(Kind::Switched))
        }
        // A protocol that nobody asked for.
        (Some(_), _, _) => {
            entry.status = 0;
            refused(entry, Reason::UpstreamInvalid, has_body)
        }
    }
}

/// The proxy's own answer to what failed.
fn refused(mut entry: Box<Entry>, reason: Reason, has_body: bool) -> Response<AnswerBody> {
    let route = entry.route.take();
    let answer = entry.state.router.refusal(reason, route.as_ref(), Some(&entry.asked.method));
    entry.route = route;
    answered(entry, answer, has_body)
}

fn answered(mut entry: Box<Entry>, answer: Answer, has_body: bool) -> Response<AnswerBody> {
    let Answer { status, headers, body, reason, route } = answer;
    let connection = &entry.connection;
    connection.shared.offence(&entry.state, &entry.client, reason, route.as_deref());
    if has_body && !connection.http2 {
        connection.progress.linger();
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if reason.closes() && !connection.http2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    entry.status = status.as_u16();
    entry.reason = Some(reason);
    if route.is_some() {
        entry.route = route;
    }
    response.map(|()| AnswerBody(Kind::Own { body, entry }))
}

/// The body of an answer. Holds its request until the connection has taken all of it.
pub(super) struct AnswerBody(Kind);

enum Kind {
    /// The proxy's own.
    Own { body: Bytes, entry: Box<Entry> },
    /// An upstream's.
    Upstream(Box<FromUpstream>),
    /// There is none; the connection is a tunnel from here on.
    Switched,
}

struct FromUpstream {
    entry: Box<Entry>,
    rest: Paced,
    lease: Option<Lease>,
    trailers: Trailers,
}

/// The upstream did not finish its answer.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.sentence())]
pub(super) struct Unfinished(Reason);

impl AnswerBody {
    fn upstream(entry: Box<Entry>, rest: Paced, lease: Option<Lease>, trailers: Trailers) -> Self {
        let mut body = Box::new(FromUpstream { entry, rest, lease, trailers });
        if body.rest.is_end() {
            body.complete();
        }
        Self(Kind::Upstream(body))
    }
}

impl FromUpstream {
    fn complete(&mut self) {
        self.entry.complete = true;
        if let Some(mut lease) = self.lease.take() {
            lease.complete();
        }
    }

    fn fail<T>(&mut self, reason: Reason, why: &str) -> Poll<Option<Result<T, Unfinished>>> {
        if let Some(lease) = self.lease.take() {
            lease.failed(why);
        }
        self.entry.connection.shared.counts.reason(reason);
        self.entry.reason = Some(reason);
        Poll::Ready(Some(Err(Unfinished(reason))))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        loop {
            let Poll::Ready(part) = self.rest.poll(cx) else {
                self.client_has_a_part(false);
                return Poll::Pending;
            };
            match part {
                Part::TooLate => {
                    return self.fail(Reason::UpstreamTimeout, "the rest of an answer took too long");
                }
                Part::Broken(error) => {
                    // The upstream may break off because its request did.
                    let reason = self.entry.upload().unwrap_or(Reason::UpstreamBroke);
                    return self.fail(reason, &error.to_string());
                }
                Part::Trailers(trailers) => {
                    if let Some(trailers) = self.trailers.pass(trailers) {
                        // They are the last: nobody asks for more.
                        self.client_has_a_part(true);
                        self.complete();
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                Part::End => {
                    // Whatever the connection still has of it is the client's to take.
                    self.client_has_a_part(true);
                    self.complete();
                    return Poll::Ready(None);
                }
                Part::Data(data) => {
                    self.entry.sent += data.len() as u64;
                    if self.rest.is_end() {
                        self.complete();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(self.entry.given(data)))));
                }
            }
        }
    }

    /// HTTP/1 has its socket to show who is slow.
    fn client_has_a_part(&self, has: bool) {
        if self.entry.connection.http2 {
            self.entry.in_flight.client_has_a_part(has);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        match &mut self.0 {
            Kind::Upstream(body) => body.poll(cx),
            Kind::Switched => Poll::Ready(None),
            Kind::Own { body, entry } => {
                entry.complete = true;
                let body = std::mem::take(body);
                entry.sent += body.len() as u64;
                Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(entry.given(body)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Upstream(body) => body.rest.is_end(),
            Kind::Switched => true,
            Kind::Own { body, .. } => body.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Upstream(body) => body.rest.size_hint(),
            Kind::Switched => SizeHint::with_exact(0),
            Kind::Own { body, .. } => SizeHint::with_exact(body.len() as u64),
        }
    }
}
