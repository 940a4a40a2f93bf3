//! A request's body on its way to an upstream: counted, limited in size and time, data alone. Made by [`super::super::exchange`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::proxy::decide::Reason;

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
    incoming: Incoming,
    left: u64,
    patience: Duration,
    /// Runs while the client keeps us waiting.
    timer: Option<Pin<Box<Sleep>>>,
    upload: Arc<Upload>,
}

/// The body failed; [`Upload::failure`] has the same.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.sentence())]
pub(in crate::proxy::serve) struct BodyFailed(Reason);

impl RequestBody {
    /// A client's body of `most` bytes at most, with `patience` between two parts.
    pub(in crate::proxy::serve) fn new(
        incoming: Incoming,
        most: u64,
        patience: Duration,
    ) -> (Self, Arc<Upload>) {
        let upload = Arc::new(Upload {
            begun: Instant::now(),
            received: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            waits_for_client: AtomicBool::new(false),
            done: AtomicBool::new(false),
            failure: OnceLock::new(),
        });
        let body = FromClient { incoming, left: most, patience, timer: None, upload: Arc::clone(&upload) };
        (Self::Client(Box::new(body)), upload)
    }
}

impl FromClient {
    fn fail<T>(&self, reason: Reason) -> Poll<Option<Result<T, BodyFailed>>> {
        let _ = self.upload.failure.set(reason);
        Poll::Ready(Some(Err(BodyFailed(reason))))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        loop {
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.upload.waits_for_client.store(true, Ordering::Relaxed);
                    let patience = self.patience;
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
                    return match timer.as_mut().poll(cx) {
                        Poll::Ready(()) => self.fail(Reason::ClientTimeout),
                        Poll::Pending => Poll::Pending,
                    };
                }
            };
            self.timer = None;
            self.upload.moved();
            match frame {
                None => {
                    self.upload.done.store(true, Ordering::Release);
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return self.fail(why(&error)),
                Some(Ok(frame)) => {
                    // Trailers end here: whoever merges them with the header would believe them.
                    let Ok(data) = frame.into_data() else { continue };
                    let length = data.len() as u64;
                    self.upload.received.fetch_add(length, Ordering::Relaxed);
                    let Some(left) = self.left.checked_sub(length) else {
                        return self.fail(Reason::BodyTooLarge);
                    };
                    self.left = left;
                    if self.incoming.is_end_stream() {
                        self.upload.done.store(true, Ordering::Release);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
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
            Self::Client(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.incoming.size_hint(),
        }
    }
}
