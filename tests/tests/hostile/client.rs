//! Plays a case: writes its bytes, reads until the other side ends the connection, and says what came back.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tollgate_tests::certificates::Chain;
use tollgate_tests::proxied::NAME;

use crate::case::{Case, Over};
use crate::frames::Answers;

/// After so long in idleness the proxies end a connection.
pub const IDLE: Duration = Duration::from_secs(4);
/// What ends sooner after the last byte was ended on purpose.
const PROMPT: Duration = Duration::from_millis(2_500);
/// Nothing takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a proxy listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Statuses in order; with HTTP/2 those of the streams, `rst` and `goaway` with their codes. `0.9` is an answer without head.
    pub replies: Vec<String>,
    /// The connection was ended at once, not for idleness.
    pub closed: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replies = if self.replies.is_empty() { "-".to_owned() } else { self.replies.join(" ") };
        write!(f, "{replies} {}", if self.closed { "closed" } else { "kept" })
    }
}

/// Clients of both kinds of HTTP over TLS.
#[derive(Debug)]
pub struct Client {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

enum Wire {
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Plain(TcpStream),
}

impl Client {
    pub fn trusting(chain: &Chain) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(chain.root_der.clone()))?;
        let config = |alpn: &[u8]| -> Result<Arc<ClientConfig>> {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Self { http1: config(b"http/1.1")?, http2: config(b"h2")? })
    }

    /// Plays it from this address.
    pub fn play(&self, case: &Case, from: Ipv4Addr, ports: Ports) -> Result<Outcome> {
        let port = if case.over == Over::Plain { ports.http } else { ports.https };
        let stream = connected(from, port)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut wire = match case.over {
            Over::Plain | Over::PlainToTls => Wire::Plain(stream),
            Over::Http1 | Over::Http2 => {
                let config = if case.over == Over::Http2 { &self.http2 } else { &self.http1 };
                let mut tls = ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME)?)?;
                let mut stream = stream;
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream).context("the handshake")?;
                }
                let agreed = tls.alpn_protocol().map(<[u8]>::to_vec);
                ensure!(agreed == config.alpn_protocols.first().cloned(), "ALPN says {agreed:?}");
                Wire::Tls(Box::new(StreamOwned::new(tls, stream)))
            }
        };
        // Whoever is refused in the middle is told so by what can be read.
        let _ = wire.write(&case.bytes);
        if case.half_closes {
            wire.finish()?;
        }
        let mut last = Instant::now();
        let (mut all, mut answers) = (Vec::new(), Answers::default());
        let mut part = [0; 16 << 10];
        loop {
            let read = match wire.read(&mut part) {
                Ok(read) if read > 0 => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    anyhow::bail!(
                        "nothing ends the connection; so far came {:?}",
                        String::from_utf8_lossy(&all)
                    )
                }
                _ => break,
            };
            all.extend_from_slice(&part[..read]);
            if case.over != Over::Http2 {
                last = Instant::now();
            } else {
                if answers.read(&part[..read]) {
                    last = Instant::now();
                }
                let owed = std::mem::take(&mut answers.owed);
                if !owed.is_empty() {
                    let _ = wire.write(&owed);
                }
            }
        }
        let closed = last.elapsed() < PROMPT;
        let replies = match case.over {
            Over::Http2 => {
                let mut replies: Vec<String> = answers.streams.into_values().collect();
                replies.extend(answers.goaway.map(|code| format!("goaway{code}")));
                // Of a flood what came, not how often.
                if replies.len() > 3 {
                    replies.sort();
                    replies.dedup();
                }
                replies
            }
            _ => statuses(&all),
        };
        Ok(Outcome { replies, closed })
    }
}

impl Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Self::Plain(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, part: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tls(stream) => stream.read(part),
            Self::Plain(stream) => stream.read(part),
        }
    }

    /// Nothing more will come from here.
    fn finish(&mut self) -> Result<()> {
        let socket = match self {
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()?;
                &stream.sock
            }
            Self::Plain(stream) => stream,
        };
        Ok(socket.shutdown(std::net::Shutdown::Write)?)
    }
}

fn connected(from: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))
        .with_context(|| format!("port {port}"))?;
    Ok(TcpStream::from(socket))
}

/// The statuses of answers that follow each other.
fn statuses(mut rest: &[u8]) -> Vec<String> {
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        let (Some(end), true) = (end, rest.starts_with(b"HTTP/1.")) else {
            // TLS alerts are answers of another kind.
            if !rest.starts_with(&[0x15]) {
                statuses.push("0.9".to_owned());
            }
            break;
        };
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap_or("?").to_owned();
        rest = &rest[end..];
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        // An interim answer has no body, nor has one to HEAD.
        let bodyless = status.starts_with('1') || rest.starts_with(b"HTTP/1.");
        statuses.push(status);
        if bodyless {
            continue;
        }
        let used = if head.contains("transfer-encoding: chunked") {
            rest.windows(5).position(|window| window == b"0\r\n\r\n").map(|at| at + 5)
        } else {
            length
        };
        rest = used.and_then(|used: usize| rest.get(used..)).unwrap_or_default();
    }
    statuses
}

#[test]
fn answers_are_told_apart() {
    let two = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 400 Bad\r\n\r\nx";
    assert_eq!(statuses(two), ["100", "200", "400"]);
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 404 X\r\n\r\n";
    assert_eq!(statuses(chunked), ["200", "404"]);
    assert_eq!(statuses(b"ok"), ["0.9"]);
}
