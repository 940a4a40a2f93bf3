//! One connection of a client, from its handshake to its end: HTTP/1.1 or HTTP/2, their limits, and who is too slow or too long
//! without a request. Called by [`super::accept`]; each request goes to [`super::exchange`].

use std::convert::Infallible;
use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::accept::Phase;
use super::exchange::exchange;
use super::seats::Seat;
use super::watch::{Progress, Streams, Verdict};
use super::{Shared, State, unix_ns};
use crate::proxy::decide::log::Record;
use crate::proxy::decide::{Client, Reason};
use crate::proxy::plan::{ClientTimeouts, Sizes};

/// Streams of an HTTP/2 connection at a time.
const STREAMS: u32 = 128;
/// Streams that a client reset before they were looked at, or that failed here: beyond it the connection ends (CVE-2023-44487 and
/// CVE-2025-8671).
const RESETS: usize = 32;
const OWN_RESETS: usize = 128;
/// What an HTTP/2 client may send ahead, of one body and of all.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What is kept of an answer that an HTTP/2 client does not take.
const SEND_BUFFER: usize = 128 << 10;
/// For an answer to an HTTP/2 ping.
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// For a connection that was told to end.
const FAREWELL: Duration = Duration::from_secs(1);
/// For a client of HTTP/1 that has no request on its way, as far as is known here, when its listener goes.
const PARTING: Duration = Duration::from_secs(5);
/// hyper keeps so many headers of HTTP/1 without an allocation, and takes no more unless it is told to.
const HEADERS: usize = 100;
/// The method, the version and line ends.
const AROUND: usize = 1 << 10;
/// hyper wants 8 KiB at least; bodies are read in parts of this size.
const LEAST_BUFFER: usize = 16 << 10;

/// What is known of a connection.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    client: ArcSwap<Client>,
    /// The listener's address, which is its name under any plan.
    bound: SocketAddr,
    pub(super) progress: Arc<Progress>,
    pub(super) http2: bool,
    pub(super) phases: watch::Receiver<Phase>,
    /// Its listener has gone: an answer is the last. Beside `phases`, which all connections would lock for each request.
    parts: AtomicBool,
    /// Why it was cut, if it was.
    pub(super) cut: OnceLock<Reason>,
    timeouts: ClientTimeouts,
    sizes: Sizes,
    pub(super) seat: Seat,
}

impl Connection {
    #[expect(clippy::too_many_arguments, reason = "what a connection is made of, each of its own type")]
    pub(super) fn new(
        shared: Arc<Shared>,
        state: &State,
        client: Client,
        bound: SocketAddr,
        progress: Arc<Progress>,
        seat: Seat,
        http2: bool,
        phases: watch::Receiver<Phase>,
    ) -> Arc<Self> {
        let common = &state.plan.common;
        let (timeouts, sizes) = (common.timeouts, common.sizes);
        let (cut, parts) = (OnceLock::new(), AtomicBool::new(false));
        let client = ArcSwap::from_pointee(client);
        Arc::new(Self { shared, client, bound, progress, http2, phases, parts, cut, timeouts, sizes, seat })
    }

    /// Who is connected, with the listener's name in this plan.
    pub(super) fn client(&self, state: &State) -> Arc<Client> {
        let client = self.client.load_full();
        match state.addresses.get(&self.bound) {
            Some(name) if **name != *client.listener => {
                let renamed = Arc::new(Client { listener: Arc::clone(name), ..Client::clone(&client) });
                self.client.store(Arc::clone(&renamed));
                renamed
            }
            _ => client,
        }
    }

    /// For logs.
    pub(super) fn peer(&self) -> SocketAddr {
        self.client.load().peer
    }
}

/// Serves a connection until it ends. What is spoken was settled in the handshake: hyper-util's server that finds out by itself
/// would speak HTTP/2 to whoever begins with it, also where the plan does not want it.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    phases: watch::Receiver<Phase>,
) {
    let served = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&served);
        // In a box: hyper moves it several times before it begins, and it is large.
        Box::pin(async move {
            let mut answer = exchange(Arc::clone(&connection), request).await;
            // So that the client sends its next request elsewhere, and not into a connection that closes. A tunnel's head names its
            // protocol there.
            let is_last = !connection.http2 && connection.parts.load(Ordering::Relaxed);
            if is_last && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        })
    });
    let stream = TokioIo::new(stream);
    if connection.http2 {
        let serving = Box::pin(http2(&connection).serve_connection(stream, service));
        drive(serving, |serving| serving.graceful_shutdown(), connection, phases).await;
    } else {
        let serving = Box::pin(http1(&connection).serve_connection(stream, service).with_upgrades());
        drive(serving, |serving| serving.graceful_shutdown(), connection, phases).await;
    }
}

/// `finish` tells the connection to end after what it does now. That does for HTTP/2, which says what it will still answer. Without
/// that, a client may just be sending its next request, or its first: it gets an answer that says that it is the last.
///
/// In a box, each connection takes the memory that its protocol does, and once.
async fn drive<S: Future<Output = hyper::Result<()>>>(
    mut serving: Pin<Box<S>>,
    finish: impl Fn(Pin<&mut S>),
    connection: Arc<Connection>,
    mut phases: watch::Receiver<Phase>,
) {
    let mut look = pin!(sleep(Duration::ZERO));
    // The listener may have gone during the handshake.
    let mut phase = *phases.borrow_and_update();
    let mut parting = pin!(sleep(Duration::MAX));
    let mut told = false;
    loop {
        match phase {
            Phase::Draining if !connection.parts.swap(true, Ordering::Relaxed) => {
                let wait = if connection.http2 { Duration::ZERO } else { PARTING };
                parting.as_mut().reset(Instant::now() + wait);
            }
            Phase::Serving | Phase::Draining => {}
            Phase::Ended => return cut(&connection, Reason::Draining),
        }
        tokio::select! {
            () = parting.as_mut(), if !told && connection.parts.load(Ordering::Relaxed) => {
                finish(serving.as_mut());
                told = true;
            }
            outcome = serving.as_mut() => return ended(&connection, outcome),
            () = look.as_mut() => match connection.progress.verdict(&connection.timeouts, connection.http2) {
                Verdict::Fine(until) => look.as_mut().reset(until),
                Verdict::Idle => {
                    finish(serving.as_mut());
                    // A client that does not read the farewell has no more time.
                    let _ = timeout(FAREWELL, serving.as_mut()).await;
                    return;
                }
                Verdict::Cut(reason) => return cut(&connection, reason),
            },
            changed = phases.changed() => phase = match changed {
                Ok(()) => *phases.borrow_and_update(),
                Err(_) => Phase::Ended,
            },
        }
    }
}

fn most_bytes(sizes: &Sizes) -> usize {
    let bytes = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
    bytes(sizes.target).saturating_add(bytes(sizes.headers))
}

fn http1(connection: &Connection) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Ours tell a request that comes slowly from none at all.
        .header_read_timeout(None)
        // Not `pipeline_flush`: it buffers without bound, and says nothing of what can't be parsed.
        .max_buf_size(most_bytes(&connection.sizes).saturating_add(AROUND).max(LEAST_BUFFER));
    let headers = usize::from(connection.sizes.header_count);
    if headers > HEADERS {
        builder.max_headers(headers);
    }
    builder
}

fn http2(connection: &Connection) -> http2::Builder<Streams> {
    // A list counts 32 bytes a field beside what it says (RFC 9113 6.5.2); four fields stand for the first line.
    let fields = 32 * (usize::from(connection.sizes.header_count) + 4);
    let list = most_bytes(&connection.sizes).saturating_add(fields);
    let idle = Duration::from_millis(connection.timeouts.idle_ms);
    let mut builder = http2::Builder::new(Streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(OWN_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .keep_alive_interval((idle / 2).max(Duration::from_secs(1)))
        .keep_alive_timeout(PING_PATIENCE);
    builder
}

/// The connection ends in the middle of whatever it does.
fn cut(connection: &Connection, reason: Reason) {
    let _ = connection.cut.set(reason);
    connection.shared.counts.reason(reason);
}

/// Whether it ended because we said GOAWAY for what the client sent (RFC 9113 7).
fn broke_http2(error: &hyper::Error) -> bool {
    use h2::Reason as R;
    let faults = [
        R::PROTOCOL_ERROR,
        R::FLOW_CONTROL_ERROR,
        R::STREAM_CLOSED,
        R::FRAME_SIZE_ERROR,
        R::COMPRESSION_ERROR,
        R::ENHANCE_YOUR_CALM,
    ];
    let error = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_go_away() && error.is_library() && error.reason().is_some_and(|one| faults.contains(&one))
    })
}

/// Looks into why it ended. hyper has answered by itself what could not be parsed.
fn ended(connection: &Connection, outcome: Result<(), hyper::Error>) {
    let Err(error) = outcome else { return };
    log::debug!("{}: {error}", connection.peer());
    if broke_http2(&error) {
        let state = connection.shared.state();
        let client = connection.client(&state);
        return connection.shared.offence(&state, &client, Reason::Http2Invalid, None);
    }
    if !error.is_parse() {
        return;
    }
    let reason = if error.is_parse_too_large() { Reason::HeaderTooLarge } else { Reason::BadRequest };
    let state = connection.shared.state();
    let client = connection.client(&state);
    connection.shared.offence(&state, &client, reason, None);
    connection.shared.sink.access(&Record {
        unix_ns: unix_ns(),
        client: &client,
        zone: state.router.zone(client.peer.ip()),
        asked: None,
        status: reason.status().unwrap_or(StatusCode::BAD_REQUEST).as_u16(),
        received: 0,
        sent: 0,
        duration_ns: 0,
        upstream_ns: None,
        route: None,
        upstream: None,
        reason: Some(reason),
    });
}
