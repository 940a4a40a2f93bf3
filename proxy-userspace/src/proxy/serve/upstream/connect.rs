//! A connection to a server: TCP or a Unix socket, HTTP/1.1 or HTTP/2. Made by [`super::pool`] and [`super::health`].

use std::io;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::body::RequestBody;
use crate::proxy::plan::{Server, UpstreamProtocol};

/// Most bytes of an answer's head, and of what is read of its body at a time.
const BUFFER: usize = 64 << 10;
/// What an HTTP/2 server may send ahead, of one answer and of all. All clients share the connection: were its window that of a few
/// answers, so many clients that do not read would hold up everybody's (RFC 9113 5.2.2).
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// An HTTP/2 server that does not answer a ping is gone: every request would wait for it else.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// What sends requests on a connection.
#[derive(Debug)]
pub(in crate::proxy::serve) enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<RequestBody>),
    /// As many as the server allows.
    Http2(http2::SendRequest<RequestBody>),
}

impl Sender {
    /// Sends a request. An error has the request again if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(in crate::proxy::serve) enum Unreachable {
    /// It took too long.
    Timeout,
    /// It was refused, or the like.
    Refused(String),
}

/// Connects.
pub(super) async fn connect(
    server: &Server,
    protocol: UpstreamProtocol,
    limit: Duration,
) -> Result<Sender, Unreachable> {
    let connecting = async {
        match server {
            Server::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                handshake(stream, protocol).await
            }
            Server::Unix(path) => {
                handshake(UnixStream::connect(path).await.map_err(refused)?, protocol).await
            }
        }
    };
    timeout(limit, connecting).await.unwrap_or(Err(Unreachable::Timeout))
}

fn refused(error: io::Error) -> Unreachable {
    Unreachable::Refused(error.to_string())
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: UpstreamProtocol,
) -> Result<Sender, Unreachable> {
    let failed = |error: hyper::Error| Unreachable::Refused(error.to_string());
    match protocol {
        UpstreamProtocol::Http1 => {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(BUFFER)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    log::debug!("upstream connection: {error}");
                }
            });
            Ok(Sender::Http1(sender))
        }
        UpstreamProtocol::Http2 => {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_PATIENCE)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    log::debug!("upstream connection: {error}");
                }
            });
            Ok(Sender::Http2(sender))
        }
    }
}
