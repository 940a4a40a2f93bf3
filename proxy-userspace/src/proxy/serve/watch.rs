//! When a connection was last read and written, and whether its client holds up what is sent to it: a socket that notes it, and the
//! verdict on it. Used by [`super::connection`] and [`super::tunnel`].
//!
//! hyper's own timers don't do: that for a request's head is also the one for idle HTTP/1 connections, nothing ends an idle HTTP/2
//! connection, and nothing ends one whose client stopped reading.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::seats::Share;
use crate::proxy::decide::Reason;
use crate::proxy::plan::ClientTimeouts;

/// How long a client may take to read an answer whose request it has not finished.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are kept of what comes first: the longest method and a space.
const FIRST: usize = 8;
/// "Not now" for the instants below.
const NEVER: u64 = u64::MAX;

/// What is known of a connection's progress. Instants are milliseconds since it began.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    /// Bytes went either way.
    moved_ms: AtomicU64,
    /// Since when a write waits for the client to read.
    write_waits_ms: AtomicU64,
    /// Requests whose answer is not complete.
    in_flight: AtomicU32,
    /// The last of them was complete.
    idle_ms: AtomicU64,
    /// The first byte came of what should become a request's head.
    head_ms: AtomicU64,
    /// Since when each answer's next part waits for the client to take the one before: HTTP/2 has windows of its own, and a stream
    /// that is held up shows nowhere else.
    streams: Mutex<Vec<Slot>>,
    /// See [`Progress::linger`].
    lingers: AtomicBool,
}

/// What is to happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before then, at the earliest.
    Fine(Instant),
    /// It had no request for too long.
    Idle,
    /// It is cut.
    Cut(Reason),
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            moved_ms: AtomicU64::new(0),
            write_waits_ms: AtomicU64::new(NEVER),
            in_flight: AtomicU32::new(0),
            idle_ms: AtomicU64::new(0),
            head_ms: AtomicU64::new(NEVER),
            streams: Mutex::new(Vec::new()),
            lingers: AtomicBool::new(false),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// When bytes last went either way.
    pub(super) fn moved(&self) -> Instant {
        self.begun + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }

    /// What came until now was the TLS handshake.
    pub(super) fn handshaken(&self) {
        self.head_ms.store(NEVER, Ordering::Relaxed);
        self.idle_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The client is in the middle of a body that nobody will read: it is given a moment to read the answer, since a socket that
    /// is closed with bytes unread is reset, and a reset takes the answer away.
    pub(super) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// A request's head is complete; its answer is when what this gives is dropped. To be called by the stream's task, if it has one.
    pub(super) fn request(self: &Arc<Self>, share: Share) -> Arc<InFlight> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_ms.store(NEVER, Ordering::Relaxed);
        let stream = Stream::current();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = streams.iter().position(|slot| slot.since == FREE).unwrap_or_else(|| {
            streams.push(Slot { since: FREE, stream: None });
            streams.len() - 1
        });
        streams[slot] = Slot { since: NEVER, stream: stream.clone() };
        Arc::new(InFlight { progress: Arc::clone(self), slot, stream, share })
    }

    /// What is to happen now.
    pub(super) fn verdict(&self, timeouts: &ClientTimeouts, http2: bool) -> Verdict {
        let now = self.now_ms();
        let over = |since: u64, limit: u64| since != NEVER && now.saturating_sub(since) >= limit;
        if over(self.write_waits_ms.load(Ordering::Relaxed), timeouts.send_ms) {
            return Verdict::Cut(Reason::ClientTimeout);
        }
        let mut next = timeouts.send_ms.min(timeouts.idle_ms);
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            let head = self.head_ms.load(Ordering::Relaxed);
            if !http2 && over(head, timeouts.header_ms) {
                return Verdict::Cut(Reason::ClientTimeout);
            }
            next = next.min(timeouts.header_ms);
            let idle = self.idle_ms.load(Ordering::Relaxed);
            if (http2 || head == NEVER) && over(idle, timeouts.idle_ms) {
                return Verdict::Idle;
            }
        } else if http2 {
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            let stuck =
                streams.iter().filter(|slot| slot.since != FREE && over(slot.since, timeouts.send_ms));
            let stuck: Vec<_> = stuck.map(|slot| slot.stream.clone()).collect();
            drop(streams);
            // A browser that has paused one film goes on with everything else. What is left of an answer that we are done with can't
            // be taken back by itself.
            if !stuck.iter().all(|stream| stream.as_ref().is_some_and(|stream| stream.cut())) {
                return Verdict::Cut(Reason::ClientTimeout);
            }
        }
        // Late by half the shortest limit at most; what begins in between is not missed.
        Verdict::Fine(Instant::now() + Duration::from_millis((next / 2).clamp(20, 30_000)))
    }

    fn read(&self) {
        let now = self.now_ms();
        self.moved_ms.store(now, Ordering::Relaxed);
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.head_ms.load(Ordering::Relaxed) == NEVER {
            self.head_ms.store(now, Ordering::Relaxed);
        }
    }

    fn wrote(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
        self.write_waits_ms.store(NEVER, Ordering::Relaxed);
    }

    fn write_waits(&self) {
        if self.write_waits_ms.load(Ordering::Relaxed) == NEVER {
            self.write_waits_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }
}

/// A slot of [`Progress::streams`] that no stream has.
const FREE: u64 = u64::MAX - 1;

/// An answer of a connection.
#[derive(Debug)]
struct Slot {
    /// [`FREE`], [`NEVER`], or since when its next part waits.
    since: u64,
    stream: Option<Arc<Stream>>,
}

tokio::task_local! {
    static STREAM: Arc<Stream>;
}

/// The task of a stream of HTTP/2, which can be ended by itself: the stream is reset then.
#[derive(Debug, Default)]
pub(super) struct Stream {
    task: OnceLock<AbortHandle>,
    is_cut: AtomicBool,
}

impl Stream {
    /// That of the running task.
    fn current() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// Ends it; false if that was done before or its task is over.
    fn cut(&self) -> bool {
        let Some(task) = self.task.get().filter(|task| !task.is_finished()) else { return false };
        let is_first = !self.is_cut.swap(true, Ordering::Relaxed);
        task.abort();
        is_first
    }
}

/// Runs the streams of an HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let stream = Arc::<Stream>::default();
        let task = tokio::spawn(STREAM.scope(Arc::clone(&stream), future));
        // It is set once, here.
        let _ = stream.task.set(task.abort_handle());
    }
}

/// A request whose answer is not complete.
#[derive(Debug)]
pub(super) struct InFlight {
    progress: Arc<Progress>,
    slot: usize,
    stream: Option<Arc<Stream>>,
    share: Share,
}

impl InFlight {
    /// The client has a part of the answer to take, or (`false`) takes it as it comes.
    pub(super) fn client_has_a_part(&self, has: bool) {
        let since = if has { self.progress.now_ms() } else { NEVER };
        let mut streams = self.progress.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = streams.get_mut(self.slot) {
            slot.since = since;
        }
    }

    /// Its stream was ended for the client's not reading.
    pub(super) fn is_cut(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_cut.load(Ordering::Relaxed))
    }

    /// Its source has more of them than it may.
    pub(super) fn is_too_many(&self) -> bool {
        self.share.is_too_much()
    }

    /// A part of the answer, which is in flight until the connection has let go of it: HTTP/2 keeps parts for which the client has given
    /// no window, also when nothing comes after them.
    pub(super) fn hold(self: &Arc<Self>, part: Bytes) -> Bytes {
        Bytes::from_owner(HeldPart { part, _in_flight: Arc::clone(self) })
    }
}

struct HeldPart {
    part: Bytes,
    _in_flight: Arc<InFlight>,
}

impl AsRef<[u8]> for HeldPart {
    fn as_ref(&self) -> &[u8] {
        &self.part
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut streams = self.progress.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = streams.get_mut(self.slot) {
            *slot = Slot { since: FREE, stream: None };
        }
        drop(streams);
        self.progress.idle_ms.store(self.progress.now_ms(), Ordering::Relaxed);
        self.progress.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket whose progress is noted.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    progress: Arc<Progress>,
    /// The first bytes that came, and how many they are.
    first: ([u8; FIRST], usize),
    /// While it lingers.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, progress: Arc<Progress>) -> Self {
        Self { socket, progress, first: ([0; FIRST], 0), until: None }
    }

    /// What the client's first part begins with.
    pub(super) fn begins_with(&self) -> &[u8] {
        self.first.0.get(..self.first.1).unwrap_or_default()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if let Some(read) = buf.filled().get(before..).filter(|read| !read.is_empty()) {
            self.progress.read();
            if self.first.1 == 0 {
                let length = read.len().min(FIRST);
                self.first.0[..length].copy_from_slice(&read[..length]);
                self.first.1 = length;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Watched<S> {
    fn note<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(Ok(_)) => self.progress.wrote(),
            Poll::Pending => self.progress.write_waits(),
            Poll::Ready(Err(_)) => {}
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket's flush does nothing: it is no progress.
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.until.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            if !self.progress.lingers.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.until = Some(Box::pin(sleep(LINGER)));
        }
        let Self { socket, until, .. } = &mut *self;
        let mut scratch = [0; 4 << 10];
        loop {
            if until.as_mut().is_none_or(|until| until.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
