//! An upstream that dies and comes back: a server whose connections all break at once, as they do when a process is killed.
//! Started and killed by [`super`].

use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use super::ledger::{Ledger, Life};
use crate::lab::Ns;

/// A long answer comes in as many pieces of this size, with a pause after each.
pub const PIECES: usize = 16;
/// Bytes.
pub const PIECE: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(4);
/// How long a slow answer takes to begin.
const SLOW: Duration = Duration::from_millis(300);
/// Bytes of a short answer.
pub const SMALL: usize = 1024;

/// A server that runs until it is killed.
#[derive(Debug)]
pub struct Upstream {
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens in a namespace. `life` is for the ledger.
    pub fn start(ns: &Ns, address: &str, life: Life, ledger: Arc<Ledger>) -> Result<Self> {
        let listener =
            ns.in_ns(|| TcpListener::bind(address).with_context(|| format!("listening on {address}")))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (kill, killed) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let accepting = accept(listener, life, &ledger);
                tokio::select! {
                    // Whatever ends it is seen by the clients.
                    _ = accepting => {}
                    _ = killed => {}
                }
            });
            ledger.died(life);
            // Every connection with it, in whatever state.
            drop(runtime);
        });
        Ok(Self { kill: Some(kill), thread: Some(thread) })
    }

    /// Ends all connections at once.
    pub fn kill(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if let Some(kill) = self.kill.take() {
            // One that has ended by itself has nobody to tell.
            let _ = kill.send(());
        }
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("an upstream panicked"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

async fn accept(listener: TcpListener, life: Life, ledger: &Arc<Ledger>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let ledger = Arc::clone(ledger);
        let service = service_fn(move |request| answer(request, life, Arc::clone(&ledger)));
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::spawn(connection);
    }
}

async fn answer(
    request: Request<Incoming>,
    life: Life,
    ledger: Arc<Ledger>,
) -> Result<Response<Pieces>, Infallible> {
    let id = request.uri().query().and_then(|query| query.strip_prefix("id=")?.parse().ok());
    let Some(id) = id else { return Ok(status(StatusCode::BAD_REQUEST)) };
    ledger.arrived(id, life);
    let pieces =
        |piece: Bytes, left| Pieces { piece, left, pause: None, told: Some((Arc::clone(&ledger), id, life)) };
    let answer = match request.uri().path() {
        "/small" => Response::new(pieces(body(id, SMALL), 1)),
        "/slow" => {
            sleep(SLOW).await;
            Response::new(pieces(body(id, SMALL), 1))
        }
        "/big" => Response::new(pieces(body(id, PIECE), PIECES)),
        "/echo" => match request.into_body().collect().await {
            Ok(whole) => Response::new(pieces(whole.to_bytes(), 1)),
            Err(_) => status(StatusCode::BAD_REQUEST),
        },
        "/socket" => tunnel(request),
        _ => status(StatusCode::NOT_FOUND),
    };
    ledger.began(id, life);
    Ok(answer)
}

/// The bytes of the answer to a request: other ones for each.
pub fn body(id: u64, length: usize) -> Bytes {
    id.to_be_bytes().into_iter().cycle().take(length).collect()
}

fn status(status: StatusCode) -> Response<Pieces> {
    let mut answer = Response::new(Pieces { piece: Bytes::new(), left: 0, pause: None, told: None });
    *answer.status_mut() = status;
    answer
}

/// Sends back what comes.
fn tunnel(mut request: Request<Incoming>) -> Response<Pieces> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
            // The client ends it.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    });
    let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer
        .headers_mut()
        .insert("sec-websocket-accept", HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    answer
}

/// A body of equal pieces that tells the ledger when the last was taken.
#[derive(Debug)]
pub struct Pieces {
    piece: Bytes,
    left: usize,
    pause: Option<Pin<Box<Sleep>>>,
    told: Option<(Arc<Ledger>, u64, Life)>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        self.left = left;
        if left > 0 {
            self.pause = Some(Box::pin(sleep(PAUSE)));
        } else if let Some((ledger, id, life)) = self.told.take() {
            ledger.done(id, life);
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.piece.len() * self.left) as u64)
    }
}
