//! Clients of the proxies, where no tool does what is measured: handshakes alone, requests at a fixed rate, connections that stay
//! idle. Called by `mod.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The name in the certificates.
pub const NAME: &str = "bench.example";
/// Connections that shake hands at a time.
const HANDSHAKES: usize = 16;
/// Threads that share the fixed rate, each with a connection.
const PACERS: u32 = 8;

/// TLS 1.3 over X25519, which all contenders have, and no session is resumed.
pub fn config(certificates: &[CertificateDer<'static>], protocol: &str) -> Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(Arc::new(config))
}

/// Connects and shakes hands.
pub async fn tls(to: SocketAddr, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(NAME)?, stream).await?)
}

/// A connection on which requests are sent.
pub enum Connection {
    /// One at a time.
    Http1(http1::SendRequest<Empty<Bytes>>),
    /// The same, as one stream after the other.
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Answered as it should be.
    Answered,
    /// It was not sent: the connection had been closed before.
    Unsent,
    /// It was answered otherwise, or not to the end.
    Failed,
}

impl Connection {
    /// Speaks HTTP/2 if the handshake came to that.
    pub async fn open(to: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let stream = tls(to, config).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }

    /// The server has ended it.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Asks for 1 KiB and reads all of it.
    pub async fn ask(&mut self) -> Fate {
        // nginx refuses HTTP/2 with a `Host`.
        let request = match self {
            Self::Http1(_) => Request::get("/1k").header(HOST, NAME),
            Self::Http2(_) => Request::get(format!("https://{NAME}/1k")),
        };
        let Ok(request) = request.body(Empty::new()) else { return Fate::Failed };
        let answer = match self {
            Self::Http1(sender) => match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(_) => return Fate::Unsent,
            },
            Self::Http2(sender) => match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(_) => return Fate::Unsent,
            },
        };
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => {
                let body = answer.into_body().collect().await;
                let whole = body.is_ok_and(|body| body.to_bytes().len() == 1024);
                if whole { Fate::Answered } else { Fate::Failed }
            }
            Err(error) if error.is_canceled() => Fate::Unsent,
            _ => Fate::Failed,
        }
    }
}

/// Shakes hands for so long, closes each connection in order, and counts them.
pub fn handshakes(
    runtime: &Runtime,
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    time: Duration,
) -> Result<u64> {
    let count = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    runtime.block_on(async {
        let clients = (0..HANDSHAKES).map(|_| {
            let (count, config) = (Arc::clone(&count), Arc::clone(config));
            tokio::spawn(async move {
                let mut rest = Vec::new();
                while Instant::now() < end {
                    let mut stream = tls(to, &config).await?;
                    stream.shutdown().await?;
                    // The server's tickets, and its end. Not all say goodbye before they close.
                    let _ = stream.read_to_end(&mut rest).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await??;
        }
        anyhow::Ok(())
    })?;
    Ok(count.load(Ordering::Relaxed))
}

/// Sends requests at a fixed rate for so long; gives what each took, from when it was due, shortest first. A generator that wakes
/// late is not the server's fault, so that a request is due at its time only if its connection was still busy then.
pub fn paced(to: SocketAddr, config: &Arc<ClientConfig>, rate: u32, time: Duration) -> Result<Vec<Duration>> {
    let gap = Duration::from_secs(1) * PACERS / rate;
    let each = u32::try_from(time.as_nanos() / gap.as_nanos())?;
    // All connect before the first request is due.
    let mut ready = Vec::new();
    for _ in 0..PACERS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(Connection::open(to, config))?;
        ready.push((runtime, connection));
    }
    let begin = Instant::now() + Duration::from_millis(50);
    let pacer = |number: u32, runtime: Runtime, mut connection: Connection| {
        move || -> Result<Vec<Duration>> {
            nix::sys::prctl::set_timerslack(1)?;
            let first = begin + gap * number / PACERS;
            let mut took = Vec::new();
            for turn in 0..each {
                let due = first + gap * turn;
                let wait = due.saturating_duration_since(Instant::now());
                thread::sleep(wait);
                let since = if wait.is_zero() { due } else { Instant::now() };
                let fate = runtime.block_on(connection.ask());
                ensure!(fate == Fate::Answered, "a request at the fixed rate: {fate:?}");
                took.push(since.elapsed());
            }
            Ok(took)
        }
    };
    let ready = (0..).zip(ready);
    let pacers: Vec<_> = ready
        .map(|(number, (runtime, connection))| thread::spawn(pacer(number, runtime, connection)))
        .collect();
    let mut all = Vec::new();
    for pacer in pacers {
        all.extend(pacer.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    all.sort();
    Ok(all)
}

/// The value below which this share lies; of sorted ones.
pub fn quantile(sorted: &[Duration], share: f64) -> Result<Duration> {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().context("nothing was measured")
}

/// Connections that have each had an answer, and stay.
pub fn idle(
    runtime: &Runtime,
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    count: usize,
) -> Result<Vec<Connection>> {
    runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..count {
            let mut connection = Connection::open(to, config).await?;
            let fate = connection.ask().await;
            ensure!(fate == Fate::Answered, "a request of a connection that is to be idle: {fate:?}");
            all.push(connection);
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_what_was_measured() {
        let hundred: Vec<_> = (0..100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&hundred, 0.5).ok(), Some(Duration::from_millis(50)));
        assert_eq!(quantile(&hundred, 0.99).ok(), Some(Duration::from_millis(99)));
        assert_eq!(quantile(&hundred, 1.0).ok(), Some(Duration::from_millis(99)));
        assert!(quantile(&[], 0.5).is_err());
    }
}
