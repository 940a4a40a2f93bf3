//! A request's body on its way to an upstream: counted, limited in size and time, read ahead where it has no length. Made by
//! [`super::super::exchange`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::super::paced::{Paced, Part};
use super::held::{Held, Memory};
use crate::proxy::decide::{Reason, Trailers};

/// How the body of a request gets on: what the body writes, and who waits for the answer reads.
#[derive(Debug)]
pub(in crate::proxy::serve) struct Upload {
    begun: Instant,
    received: AtomicU64,
    /// When a part last went to the upstream, milliseconds since `begun`.
    moved_ms: AtomicU64,
    /// It is the client that keeps us waiting.
    waits_for_client: AtomicBool,
    done: AtomicBool,
    failure: OnceLock<Reason>,
}

impl Upload {
    /// Bytes so far.
    pub(in crate::proxy::serve) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Why it came to nothing, if it did.
    pub(in crate::proxy::serve) fn failure(&self) -> Option<Reason> {
        self.failure.get().copied()
    }

    /// Whether all of it was given to the connection.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Since when it is the upstream that keeps us waiting; `None`: it is the client.
    pub(super) fn waits_for_upstream(&self) -> Option<Instant> {
        let moved = self.begun + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        (!self.waits_for_client.load(Ordering::Relaxed)).then_some(moved)
    }

    fn moved(&self) {
        self.waits_for_client.store(false, Ordering::Relaxed);
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now, Ordering::Relaxed);
    }
}

/// A request's body.
#[derive(Debug)]
pub(in crate::proxy::serve) enum RequestBody {
    /// There is none.
    Empty,
    /// It comes from the client.
    Client(Box<FromClient>),
}

/// A body that comes from a client.
#[derive(Debug)]
pub(in crate::proxy::serve) struct FromClient {
    /// What was read ahead, last part first.
    ahead: Vec<Bytes>,
    /// The rest; nothing follows what was read ahead: `None`.
    rest: Option<Paced>,
    left: u64,
    trailers: Trailers,
    upload: Arc<Upload>,
}

/// The body failed; [`Upload::failure`] has the same.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.sentence())]
pub(in crate::proxy::serve) struct BodyFailed(Reason);

impl FromClient {
    /// A client's body of `most` bytes at most, with `patience` between two parts.
    pub(in crate::proxy::serve) fn new(
        incoming: Incoming,
        most: u64,
        patience: Duration,
        trailers: Trailers,
    ) -> Self {
        let upload = Arc::new(Upload {
            begun: Instant::now(),
            received: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            waits_for_client: AtomicBool::new(false),
            done: AtomicBool::new(false),
            failure: OnceLock::new(),
        });
        let rest = Some(Paced::new(incoming, patience));
        Self { ahead: Vec::new(), rest, left: most, trailers, upload }
    }

    /// How it gets on.
    pub(in crate::proxy::serve) fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }

    /// Reads up to `most` bytes ahead, as far as there is `memory`. Gives the length of the body if that was all of it.
    ///
    /// # Errors
    /// If the client takes too long, goes away, or sends what is no body or too much of it.
    pub(in crate::proxy::serve) async fn read_ahead(
        &mut self,
        most: u64,
        memory: &Arc<Memory>,
    ) -> Result<Option<u64>, Reason> {
        let mut held = Held::new(Arc::clone(memory));
        let beyond = loop {
            match poll_fn(|cx| self.poll(cx)).await {
                None => break None,
                Some(Err(BodyFailed(reason))) => return Err(reason),
                Some(Ok(frame)) => {
                    // HTTP/1.1 gets no trailers.
                    let Ok(data) = frame.into_data() else { continue };
                    if !held.add(&data, most) {
                        break Some(data);
                    }
                }
            }
        };
        let length = beyond.is_none().then_some(held.len());
        if length.is_some() {
            self.rest = None;
        }
        self.ahead.extend(beyond);
        self.ahead.extend(held.into_bytes());
        // The connection has had nothing of it yet.
        self.upload.done.store(self.ahead.is_empty() && self.rest.is_none(), Ordering::Release);
        Ok(length)
    }

    fn fail<T>(&self, reason: Reason) -> Poll<Option<Result<T, BodyFailed>>> {
        let _ = self.upload.failure.set(reason);
        Poll::Ready(Some(Err(BodyFailed(reason))))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        if let Some(part) = self.ahead.pop() {
            self.upload.moved();
            self.done_if_ended();
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        loop {
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            let Poll::Ready(part) = rest.poll(cx) else {
                self.upload.waits_for_client.store(true, Ordering::Relaxed);
                return Poll::Pending;
            };
            self.upload.moved();
            match part {
                Part::TooLate => return self.fail(Reason::ClientTimeout),
                Part::Broken(error) => return self.fail(why(&error)),
                Part::Trailers(trailers) => {
                    if let Some(trailers) = self.trailers.pass(trailers) {
                        self.upload.done.store(true, Ordering::Release);
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                Part::End => {
                    self.upload.done.store(true, Ordering::Release);
                    return Poll::Ready(None);
                }
                Part::Data(data) => {
                    let length = data.len() as u64;
                    self.upload.received.fetch_add(length, Ordering::Relaxed);
                    let Some(left) = self.left.checked_sub(length) else {
                        return self.fail(Reason::BodyTooLarge);
                    };
                    self.left = left;
                    self.done_if_ended();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(Paced::is_end)
    }

    fn done_if_ended(&self) {
        if self.is_end() {
            self.upload.done.store(true, Ordering::Release);
        }
    }
}

/// Broken framing is the client's fault; anything else means that it left.
fn why(error: &hyper::Error) -> Reason {
    use std::error::Error as _;
    use std::io::{Error, ErrorKind};
    let source = error.source().and_then(|source| source.downcast_ref::<Error>());
    match source.map(Error::kind) {
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => Reason::BodyInvalid,
        _ => Reason::ClientGone,
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let Self::Client(body) = self else { return SizeHint::with_exact(0) };
        let ahead: usize = body.ahead.iter().map(Bytes::len).sum();
        let mut hint = SizeHint::with_exact(ahead as u64);
        if let Some(rest) = body.rest.as_ref().map(Paced::size_hint) {
            match rest.upper() {
                Some(upper) => hint.set_upper(upper.saturating_add(ahead as u64)),
                None => hint = SizeHint::new(),
            }
            hint.set_lower(rest.lower().saturating_add(ahead as u64));
        }
        hint
    }
}
