//! Servers behind the proxy: they keep every byte, and answer as a test wants it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::stage::within;

/// What a server does with a request.
#[derive(Clone)]
pub enum Does {
    /// Answers 200 with this, and keeps the connection.
    Says(Vec<u8>),
    /// Sends these bytes, and keeps the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes.
    BytesAndCloses(Vec<u8>),
    /// Waits for a permit, then answers 200.
    WaitsFor(Arc<Semaphore>),
    /// Never answers.
    Nothing,
    /// Switches, and sends back whatever comes.
    Echoes,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The connection, counted from 0.
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
}

type Script = dyn Fn(&Seen, usize) -> Does + Send + Sync;

/// A server.
pub struct Backend {
    pub address: SocketAddr,
    pub log: Arc<Log>,
}

/// What a server saw.
#[derive(Default)]
pub struct Log {
    pub requests: Mutex<Vec<Seen>>,
    pub connections: Mutex<Vec<Vec<u8>>>,
    pub closed: Mutex<usize>,
}

impl Log {
    /// All bytes of all connections.
    pub fn bytes(&self) -> String {
        let connections = self.connections.lock().expect("log");
        connections
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect::<Vec<_>>()
            .join("\n--\n")
    }

    pub fn heads(&self) -> Vec<String> {
        self.requests.lock().expect("log").iter().map(|seen| seen.head.clone()).collect()
    }

    pub fn opened(&self) -> usize {
        self.connections.lock().expect("log").len()
    }

    pub fn closed(&self) -> usize {
        *self.closed.lock().expect("log")
    }
}

pub fn says(text: &str) -> Does {
    Does::Says(text.as_bytes().to_vec())
}

impl Backend {
    /// Answers all alike.
    pub async fn that(does: Does) -> Self {
        Self::scripted(move |_, _| does.clone()).await
    }

    /// Waits until a request has come.
    pub async fn was_asked(&self) {
        let asked = async {
            while self.log.heads().is_empty() {
                a_moment().await
            }
        };
        within(asked).await;
    }

    /// Does with each request what the script says, which is told its number on its connection, from 0.
    pub async fn scripted(script: impl Fn(&Seen, usize) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let log = Arc::<Log>::default();
        let (script, kept): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&log));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&kept), Arc::clone(&script)));
            }
        });
        Self { address, log }
    }

    /// Answers 200 on a Unix socket.
    pub async fn unix(path: &Path) -> Arc<Log> {
        let listener = UnixListener::bind(path).expect("a socket");
        let log = Arc::<Log>::default();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&kept), Arc::new(|_: &Seen, _| says("unix"))));
            }
        });
        log
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, log: Arc<Log>, script: Arc<Script>) {
    let number = {
        let mut connections = log.connections.lock().expect("log");
        connections.push(Vec::new());
        connections.len() - 1
    };
    let mut buffer = Vec::new();
    for count in 0.. {
        let Some(seen) = request(&mut stream, &mut buffer, &log, number).await else { break };
        log.requests.lock().expect("log").push(seen.clone());
        let ok = |body: &[u8]| {
            let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            bytes.extend_from_slice(body);
            bytes
        };
        let (bytes, goes_on) = match script(&seen, count) {
            Does::Says(body) => (ok(&body), true),
            Does::Bytes(bytes) => (bytes, true),
            Does::BytesAndCloses(bytes) => (bytes, false),
            Does::WaitsFor(permits) => {
                // Also ends when the other side leaves.
                tokio::select! {
                    permit = permits.acquire() => permit.expect("open").forget(),
                    _ = more(&mut stream, &mut buffer, &log, number) => break,
                }
                (ok(b"waited"), true)
            }
            Does::Nothing => {
                while more(&mut stream, &mut buffer, &log, number).await {}
                break;
            }
            Does::Echoes => {
                let switch =
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                let _ = stream.write_all(switch).await;
                while more(&mut stream, &mut buffer, &log, number).await {
                    let _ = stream.write_all(&std::mem::take(&mut buffer)).await;
                }
                break;
            }
        };
        if stream.write_all(&bytes).await.is_err() || !goes_on {
            break;
        }
    }
    let _ = stream.shutdown().await;
    drop(stream);
    *log.closed.lock().expect("log") += 1;
}

/// More bytes, unless that was all.
async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, log: &Log, number: usize) -> bool {
    let before = buffer.len();
    let read = stream.read_buf(buffer).await.unwrap_or(0);
    log.connections.lock().expect("log")[number].extend_from_slice(&buffer[before..]);
    read > 0
}

/// The next request, read as a lenient server would.
async fn request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    log: &Log,
    number: usize,
) -> Option<Seen> {
    let end =
        |bytes: &[u8], pattern: &[u8]| bytes.windows(pattern.len()).position(|window| window == pattern);
    let head = loop {
        if let Some(at) = end(buffer, b"\r\n\r\n") {
            break String::from_utf8_lossy(&buffer.drain(..at + 4).collect::<Vec<_>>()).into_owned();
        }
        if !more(stream, buffer, log, number).await {
            return None;
        }
    };
    let lower = head.to_ascii_lowercase();
    let value = |name: &str| {
        lower.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let wanted = |buffer: &[u8]| match (value("transfer-encoding:"), value("content-length:")) {
        (Some(_), _) => end(buffer, b"0\r\n\r\n").map(|at| at + 5),
        (None, Some(length)) => length.parse().ok().filter(|length| buffer.len() >= *length),
        (None, None) => Some(0),
    };
    let body = loop {
        if let Some(length) = wanted(buffer) {
            break buffer.drain(..length).collect();
        }
        if !more(stream, buffer, log, number).await {
            return None;
        }
    };
    Some(Seen { connection: number, head, body })
}

/// For a moment in which something must not happen.
pub async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}
