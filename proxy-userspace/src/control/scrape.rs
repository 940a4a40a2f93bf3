//! Where metrics are asked for: HTTP on loopback or a UNIX socket, `GET /metrics` and nothing else. Called by the daemon.
//!
//! Bounded in connections, in time and in size. A scrape reads the kernel's maps on a thread of its own and takes no lock of
//! the daemon, so no scraper can hold up a change; and readings never take more than a fifth of one processor, however many
//! ask. A connection has one request: a scraper that stays connected would keep a seat from others.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::Gid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::daemon::Daemon;
use super::socket;
use crate::observe::metrics::{self, Reading};
use crate::observe::{stats, status};

/// Scrapers served at a time; others wait in the socket's queue.
const SCRAPERS: usize = 16;
/// How long a scraper may take to say what it wants.
const HEAD_PATIENCE: Duration = Duration::from_secs(2);
/// How long one may take in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of a request.
const MOST_BYTES: usize = 16 << 10;
/// A reading is shown again for so long, and for [`REST`] times as long as it took.
const FRESH: Duration = Duration::from_millis(100);
const REST: u32 = 4;
/// Prometheus' text format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A port of this host, for this host.
    Loopback(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write 127.0.0.1:PORT, [::1]:PORT or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            // Relative to where the daemon was started once: nobody finds that again.
            return match PathBuf::from(path) {
                path if path.is_absolute() => Ok(Self::Unix(path)),
                _ => Err(format!("the path of the socket begins with /; {FORMS}")),
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| format!("no address to listen at; {FORMS}"))?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{} can be reached from elsewhere, and metrics are for this host alone: put a proxy that asks who is \
                 there before it; {FORMS}",
                address.ip()
            ));
        }
        match address.port() {
            0 => Err(format!("port 0 is no port that anybody could scrape; {FORMS}")),
            _ => Ok(Self::Loopback(address)),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loopback(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that scrapers reach.
#[derive(Debug)]
pub enum Listener {
    /// On loopback.
    Loopback(TcpListener),
    /// In the file system.
    Unix(UnixListener),
}

/// Begins to listen. A UNIX socket is for root, and for the members of `group`.
///
/// # Errors
/// If the address is taken or can't be had.
pub async fn listen(address: &Address, group: Option<Gid>) -> io::Result<Listener> {
    match address {
        Address::Loopback(address) => TcpListener::bind(address).await.map(Listener::Loopback),
        Address::Unix(path) => socket::listen_beside(path, group).map(Listener::Unix),
    }
}

/// Serves scrapers until the daemon ends.
pub async fn serve(listener: Listener, daemon: Arc<Daemon>) {
    let seats = Arc::new(Semaphore::new(SCRAPERS));
    let desk = Arc::new(Desk { daemon, last: Mutex::new(None) });
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let desk = Arc::clone(&desk);
        let accepted = match &listener {
            Listener::Loopback(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    attend(stream, desk).await;
                    drop(seat);
                });
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    attend(stream, desk).await;
                    drop(seat);
                });
            }),
        };
        if let Err(error) = accepted {
            // Out of descriptors, most likely: clients that leave give theirs back.
            log::warn!("metrics: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn attend(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, desk: Arc<Desk>) {
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MOST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("metrics: {error}"),
        Err(_) => log::debug!("metrics: a scraper took longer than {PATIENCE:?}"),
    }
}

/// A text, when it was finished, and how long it is good for.
struct Written {
    text: Bytes,
    at: Instant,
    good_for: Duration,
}

/// Where scrapers are answered, one reading at a time.
struct Desk {
    daemon: Arc<Daemon>,
    last: Mutex<Option<Written>>,
}

impl Desk {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "there is /metrics, and nothing else\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics can be read: GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match self.read().await {
            Ok(text) => {
                let mut response = Response::new(Full::new(text));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FORMAT));
                response
            }
            Err(why) => {
                log::warn!("metrics: {why}");
                plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{why}\n"))
            }
        }
    }

    /// What the kernel has now, or had a moment ago.
    async fn read(&self) -> Result<Bytes, String> {
        let mut last = self.last.lock().await;
        if let Some(written) = last.as_ref().filter(|written| written.at.elapsed() < written.good_for) {
            return Ok(written.text.clone());
        }
        let (begun, daemon) = (Instant::now(), Arc::clone(&self.daemon));
        let text = tokio::task::spawn_blocking(move || read(&daemon))
            .await
            .map_err(|error| format!("the reading ended in the middle: {error}"))??;
        let text = Bytes::from(text);
        let good_for = FRESH.max(begun.elapsed() * REST);
        *last = Some(Written { text: text.clone(), at: Instant::now(), good_for });
        Ok(text)
    }
}

fn read(daemon: &Daemon) -> Result<String, String> {
    let places = &daemon.places;
    let reading = Reading {
        stats: stats::read(&places.pins).map_err(|error| error.to_string())?,
        status: status::read(&places.pins, &places.run_dir).map_err(|error| error.to_string())?,
        bans: daemon.bans.in_force().map_err(|error| error.to_string())?,
        applies: daemon.applies.read(),
        proxy: daemon.proxy.plan().zip(daemon.proxy.measure()),
        issuing: daemon.proxy.issuing(),
    };
    metrics::text(&reading)
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_can_ask() {
        for text in ["127.0.0.1:9184", "127.8.8.8:1", "[::1]:9184", "unix:/run/tollgate/metrics.sock"] {
            let address: Address = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), text);
        }
        for (text, why) in [
            ("0.0.0.0:9184", "from elsewhere"),
            ("[::]:9184", "from elsewhere"),
            ("192.0.2.1:9184", "from elsewhere"),
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1", "no address"),
            ("localhost:9184", "no address"),
            ("9184", "no address"),
            ("", "no address"),
            ("unix:", "begins with /"),
            ("unix:metrics.sock", "begins with /"),
        ] {
            assert!(text.parse::<Address>().is_err_and(|error| error.contains(why)), "{text}");
        }
    }
}
