//! A body that is read with patience: the next part of it, or why there is none. Used for what clients send, by
//! [`super::upstream::body`], and for what upstreams answer, by [`super::exchange`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// A body, and how long its sender may take between two parts of it.
#[derive(Debug)]
pub(super) struct Paced {
    incoming: Incoming,
    patience: Duration,
    /// Made when the sender first keeps us waiting, and used again.
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer runs.
    waits: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes.
    Data(Bytes),
    /// Fields after the last byte (RFC 9110 6.5).
    Trailers(HeaderMap),
    /// That was all.
    End,
    /// It broke off, or is none.
    Broken(hyper::Error),
    /// Nothing came for too long.
    TooLate,
}

impl Paced {
    pub(super) fn new(incoming: Incoming, patience: Duration) -> Self {
        Self { incoming, patience, timer: None, waits: false }
    }

    /// The next part. Pending: the sender keeps us waiting.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                return self.wait(cx);
            };
            self.waits = false;
            let frame = match frame {
                None => return Poll::Ready(Part::End),
                Some(Err(error)) => return Poll::Ready(Part::Broken(error)),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data().map_err(hyper::body::Frame::into_trailers) {
                Ok(data) => return Poll::Ready(Part::Data(data)),
                Err(Ok(trailers)) => return Poll::Ready(Part::Trailers(trailers)),
                // A kind of frame that there is not yet.
                Err(Err(_)) => {}
            }
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waits {
            self.waits = true;
            timer.as_mut().reset(Instant::now() + patience);
        }
        timer.as_mut().poll(cx).map(|()| Part::TooLate)
    }

    /// Whether nothing follows.
    pub(super) fn is_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// What is known of its length.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
