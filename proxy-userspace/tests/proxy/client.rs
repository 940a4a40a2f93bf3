//! Clients of the proxy: raw bytes over TCP or TLS, and HTTP/2 by hyper.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::stage::within;

/// A connection on which bytes are written as they are.
pub struct Wire<S> {
    pub stream: S,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The body has the length that the head says.
    pub whole: bool,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

impl Wire<TcpStream> {
    pub async fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the proxy listens"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // Whoever closes on us is seen when we read.
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Sends a request and gives its answer.
    pub async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Reply {
        self.send(bytes).await;
        self.reply().await
    }

    pub async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("an answer")
    }

    /// The next answer; none if the connection ends before.
    pub async fn try_reply(&mut self) -> Option<Reply> {
        within(async {
            let head = loop {
                if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break String::from_utf8_lossy(&self.buffer.drain(..at + 4).collect::<Vec<_>>())
                        .into_owned();
                }
                if !self.more().await {
                    return None;
                }
            };
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.and_then(|length| length.trim().parse::<usize>().ok());
            let chunked = lower.contains("transfer-encoding: chunked");
            let mut whole = true;
            let mut body = Vec::new();
            if (100..200).contains(&status) {
                return Some(Reply { status, head, body, whole });
            }
            loop {
                let end = match (chunked, length) {
                    (true, _) => end_of_chunks(&self.buffer),
                    (false, Some(length)) => (self.buffer.len() >= length).then_some(length),
                    (false, None) => None,
                };
                if let Some(end) = end {
                    body.extend(self.buffer.drain(..end));
                    break;
                }
                if !self.more().await {
                    whole = !chunked && length.is_none();
                    body.append(&mut self.buffer);
                    break;
                }
            }
            Some(Reply { status, head, body, whole })
        })
        .await
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    /// Reads exactly so many bytes of a tunnel.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        within(async { while self.buffer.len() < count && self.more().await {} }).await;
        let count = count.min(self.buffer.len());
        self.buffer.drain(..count).collect()
    }

    /// Whether the other side ends the connection; what comes before is thrown away.
    pub async fn is_closed(&mut self) -> bool {
        within(async { while self.more().await {} }).await;
        true
    }

    /// Whether it is open, as far as can be seen.
    pub async fn is_open(&mut self) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(50), self.more()).await.unwrap_or(true)
    }
}

/// Where a chunked body ends, trailers and all.
fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let find = |from: usize, pattern: &[u8]| {
        let found = bytes[from..].windows(pattern.len()).position(|window| window == pattern);
        found.map(|at| from + at)
    };
    let last = if bytes.starts_with(b"0\r\n") { 0 } else { find(0, b"\r\n0\r\n")? + 2 };
    find(last, b"\r\n\r\n").map(|at| at + 4)
}

/// TLS to a name, or to an address (which sends no name).
pub async fn tls(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<Wire<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    within(TlsConnector::from(config).connect(name, stream)).await.map(Wire::over)
}

/// A body in parts, of a length that nobody is told.
#[derive(Default)]
pub struct Parts(pub VecDeque<Frame<Bytes>>);

impl Parts {
    pub fn of(data: &[&'static str]) -> Self {
        Self(data.iter().map(|part| Frame::data(Bytes::from_static(part.as_bytes()))).collect())
    }

    pub fn then(mut self, trailers: &[(&'static str, &'static str)]) -> Self {
        let field = |(name, value): &(&'static str, &'static str)| {
            (name.parse().expect("a name"), value.parse().expect("a value"))
        };
        self.0.push_back(Frame::trailers(trailers.iter().map(field).collect()));
        self
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// HTTP/2 over a stream; the task ends with the connection.
pub async fn http2<S, B>(stream: S) -> (http2::SendRequest<B>, JoinHandle<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let (sender, connection) = within(
        http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(64 << 10)
            .handshake(TokioIo::new(stream)),
    )
    .await
    .expect("HTTP/2");
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, task)
}

pub fn get(path: &str) -> hyper::Request<Full<Bytes>> {
    hyper::Request::get(format!("https://a.example{path}")).body(Full::default()).expect("a request")
}
