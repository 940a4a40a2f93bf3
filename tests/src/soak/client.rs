//! Clients of all kinds that ask one proxy, again and again, and note what failed. Run by [`super`] in the LAN's namespace.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::ledger::{Excuse, Failed, Ledger};
use super::upstream::{PIECE, PIECES, SMALL, body};

/// Whom the certificates are for.
pub const NAME: &str = "site.example";
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's body.
const SENT: usize = 16 * 1024;
/// Requests on one connection of HTTP/2 at a time.
const STREAMS: usize = 6;
/// Messages over one tunnel, and the pause before each.
const MESSAGES: usize = 40;
const BEAT: Duration = Duration::from_millis(50);
/// Failures that are described; all are counted.
const DESCRIBED: usize = 20;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Short requests and uploads over HTTPS, on one connection.
    Kept,
    /// A connection for each request.
    New,
    /// Several requests at a time over HTTP/2.
    Http2,
    /// Long answers.
    Long,
    /// Plain HTTP.
    Plain,
    /// A WebSocket that lives for a while.
    Tunnel,
}

impl Kind {
    /// All of them, and how many clients of each.
    pub const ALL: [(Self, usize); 6] = [
        (Self::Kept, 4),
        (Self::New, 2),
        (Self::Http2, 2),
        (Self::Long, 2),
        (Self::Plain, 2),
        (Self::Tunnel, 4),
    ];

    /// Between two requests of one client: the machine has other things to do.
    const fn pause(self) -> Duration {
        Duration::from_millis(match self {
            Self::Kept | Self::Plain => 10,
            Self::New | Self::Http2 => 25,
            Self::Long => 50,
            Self::Tunnel => 0,
        })
    }

    const fn is_tls(self) -> bool {
        !matches!(self, Self::Plain)
    }
}

/// What came of all requests of a kind.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Whole right answers.
    pub answered: u64,
    /// Connections that the proxy closed while nothing was asked.
    pub closed: u64,
    /// Failures that no proxy could have helped.
    pub excused: BTreeMap<Excuse, u64>,
    /// The others.
    pub failed: u64,
    /// The first of them.
    pub described: Vec<String>,
}

/// Whoever asks one proxy.
pub struct Crowd {
    /// Its name, for reports.
    pub proxy: &'static str,
    /// Where it serves HTTP.
    pub plain: SocketAddr,
    /// Where it serves HTTPS.
    pub tls: SocketAddr,
    /// What clients trust.
    pub trust: Arc<ClientConfig>,
    /// The same for those who speak HTTP/2.
    pub trust_http2: Arc<ClientConfig>,
    /// Of the upstreams.
    pub ledger: Arc<Ledger>,
    /// Numbers of requests, for all crowds.
    pub next: Arc<AtomicU64>,
    /// When to stop.
    pub until: Instant,
    /// By kind.
    pub tallies: Mutex<BTreeMap<Kind, Tally>>,
}

/// A connection.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What is asked.
#[derive(Clone, Copy)]
struct Ask {
    method: &'static Method,
    path: &'static str,
    length: usize,
}

const SMALL_GET: Ask = Ask { method: &Method::GET, path: "/small", length: SMALL };
const SLOW_GET: Ask = Ask { method: &Method::GET, path: "/slow", length: SMALL };
const BIG_GET: Ask = Ask { method: &Method::GET, path: "/big", length: PIECE * PIECES };
const ECHO: Ask = Ask { method: &Method::POST, path: "/echo", length: SENT };

impl Crowd {
    /// Runs all clients to the end.
    pub async fn run(self: &Arc<Self>) -> Result<()> {
        let clients: Vec<_> = Kind::ALL
            .into_iter()
            .flat_map(|(kind, count)| (0..count).map(move |_| kind))
            .map(|kind| tokio::spawn(Arc::clone(self).client(kind)))
            .collect();
        for client in clients {
            client.await.context("a client panicked")?;
        }
        Ok(())
    }

    /// A number of all kinds together.
    pub fn sum(&self, of: impl Fn(&Tally) -> u64) -> u64 {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).values().map(of).sum()
    }

    /// The first failures of each kind that have no excuse.
    pub fn described(&self) -> Vec<String> {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.values().flat_map(|tally| tally.described.clone()).collect()
    }

    fn tally(&self, kind: Kind, note: impl FnOnce(&mut Tally)) {
        let mut all: MutexGuard<'_, _> = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        note(all.entry(kind).or_default());
    }

    async fn client(self: Arc<Self>, kind: Kind) {
        let mut turn = 0;
        while Instant::now() < self.until {
            let begun = Instant::now();
            let sender =
                match timeout(PATIENCE, self.connect(kind)).await.map_err(Into::into).and_then(|made| made) {
                    Ok(sender) => sender,
                    Err(error) => {
                        self.failed(kind, 0, true, begun, &error.context("connecting"));
                        sleep(kind.pause()).await;
                        continue;
                    }
                };
            match sender {
                Sender::Http2(sender) => {
                    let streams: Vec<_> = (0..STREAMS)
                        .map(|turn| {
                            tokio::spawn(Arc::clone(&self).ask_on(kind, Sender::Http2(sender.clone()), turn))
                        })
                        .collect();
                    for stream in streams {
                        // One that panicked has told.
                        let _ = stream.await;
                    }
                }
                one => Arc::clone(&self).ask_on(kind, one, turn).await,
            }
            turn += 1;
        }
    }

    /// Asks until the connection or the time is over.
    async fn ask_on(self: Arc<Self>, kind: Kind, mut sender: Sender, mut turn: usize) {
        while Instant::now() < self.until {
            let ready = match &mut sender {
                Sender::Http1(sender) => sender.ready().await,
                Sender::Http2(sender) => sender.ready().await,
            };
            if ready.is_err() {
                self.tally(kind, |tally| tally.closed += 1);
                return;
            }
            let ask = match (kind, turn % 4) {
                (Kind::Long, _) => BIG_GET,
                (Kind::Kept | Kind::Plain | Kind::Http2, 1) => ECHO,
                (Kind::Http2 | Kind::Kept, 2) => SLOW_GET,
                _ => SMALL_GET,
            };
            turn += 1;
            let (id, begun) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
            let asked = async {
                match kind {
                    Kind::Tunnel => self.tunnel(&mut sender, id).await,
                    _ => ask.of(&mut sender, id).await,
                }
            };
            let result = match kind {
                Kind::Tunnel => asked.await,
                _ => timeout(PATIENCE, asked).await.map_err(Into::into).and_then(|asked| asked),
            };
            match result {
                Ok(()) => {
                    self.ledger.forget(id);
                    self.tally(kind, |tally| tally.answered += 1);
                }
                Err(error) => {
                    let repeatable = kind == Kind::Tunnel || ask.method == Method::GET;
                    self.failed(
                        kind,
                        id,
                        repeatable,
                        begun,
                        &error.context(format!("{} {}", ask.method, ask.path)),
                    );
                    if !matches!(sender, Sender::Http2(_)) {
                        return;
                    }
                }
            }
            if matches!(kind, Kind::New | Kind::Tunnel) {
                return;
            }
            sleep(kind.pause()).await;
        }
    }

    fn failed(&self, kind: Kind, id: u64, repeatable: bool, sent: Instant, error: &anyhow::Error) {
        let failed = Failed { id, repeatable, sent, failed: Instant::now() };
        let excuse = self.ledger.excuse(failed);
        self.tally(kind, |tally| match excuse {
            Some(excuse) => *tally.excused.entry(excuse).or_default() += 1,
            None => {
                tally.failed += 1;
                if tally.described.len() < DESCRIBED {
                    let took = failed.failed - sent;
                    tally
                        .described
                        .push(format!("{} {kind:?} request {id} after {took:?}: {error:#}", self.proxy));
                }
            }
        });
    }

    async fn connect(&self, kind: Kind) -> Result<Sender> {
        let stream =
            TcpStream::connect(if kind.is_tls() { self.tls } else { self.plain }).await.context("TCP")?;
        stream.set_nodelay(true)?;
        if !kind.is_tls() {
            return http1(stream).await;
        }
        let trust = if kind == Kind::Http2 { &self.trust_http2 } else { &self.trust };
        let name = ServerName::try_from(NAME)?;
        let stream = TlsConnector::from(Arc::clone(trust)).connect(name, stream).await.context("TLS")?;
        if kind != Kind::Http2 {
            return http1(stream).await;
        }
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "HTTP/2 was not chosen");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Sender::Http2(sender))
    }

    /// Opens a tunnel and sends messages that must come back.
    async fn tunnel(&self, sender: &mut Sender, id: u64) -> Result<()> {
        let Sender::Http1(sender) = sender else { bail!("tunnels are of HTTP/1.1") };
        let request = Request::get(format!("/socket?id={id}"))
            .header(HOST, NAME)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(Full::default())?;
        let answer = timeout(PATIENCE, sender.send_request(request)).await??;
        ensure!(answer.status() == StatusCode::SWITCHING_PROTOCOLS, "{}", answer.status());
        let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await?);
        for message in 0..MESSAGES {
            if Instant::now() >= self.until {
                break;
            }
            let sent = (id << 16) + message as u64;
            tunnel.write_u64(sent).await?;
            tunnel.flush().await?;
            let back = timeout(PATIENCE, tunnel.read_u64()).await??;
            ensure!(back == sent, "{back:x} came back for {sent:x}");
            sleep(BEAT).await;
        }
        Ok(())
    }
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(Sender::Http1(sender))
}

impl Ask {
    /// Asks, and compares every byte of the answer.
    async fn of(self, sender: &mut Sender, id: u64) -> Result<()> {
        let upload = self.method == Method::POST;
        let content = if upload { body(id, self.length) } else { Bytes::new() };
        let path = format!("{}?id={id}", self.path);
        let request = Request::builder().method(self.method);
        let answer: Response<Incoming> = match sender {
            Sender::Http1(sender) => {
                sender.send_request(request.uri(path).header(HOST, NAME).body(Full::new(content))?).await?
            }
            Sender::Http2(sender) => {
                let uri = format!("https://{NAME}{path}");
                sender.send_request(request.uri(uri).body(Full::new(content))?).await?
            }
        };
        let status = answer.status();
        let got = answer.into_body().collect().await.with_context(|| format!("{status}, then"))?.to_bytes();
        ensure!(
            status == StatusCode::OK,
            "{status}: {}",
            String::from_utf8_lossy(&got[..got.len().min(120)])
        );
        ensure!(got == body(id, self.length), "{} other bytes than sent", got.len());
        Ok(())
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, tally) in self.tallies.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let kind = format!("{kind:?}");
            write!(
                f,
                "{:<9} {kind:<7} {:>8} answered, {:>3} failed",
                self.proxy, tally.answered, tally.failed
            )?;
            write!(f, ", {:>4} connections closed while idle; not to be helped:", tally.closed)?;
            for excuse in [Excuse::AnswerCut, Excuse::NotRepeatable] {
                let what = match excuse {
                    Excuse::AnswerCut => "cut",
                    Excuse::NotRepeatable => "not repeatable",
                };
                write!(f, " {} {what}", tally.excused.get(&excuse).copied().unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
