//! Sends a shape: HTTP/1 as bytes, over TCP or TLS, and HTTP/2 by curl. Answers are read with their framing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned, version,
};

use super::outcome::{Answer, End};
use super::{Step, Tls, Via};
use crate::lab::Ns;

/// Who says nothing for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is sent together arrives within it.
const A_MOMENT: Duration = Duration::from_millis(500);

/// What a client saw of a connection.
pub(super) struct Said {
    pub handshake: String,
    pub answers: Vec<Answer>,
    pub tunnel: Vec<u8>,
    pub end: End,
}

/// Goes through the steps on one connection.
pub(super) fn steps(ns: &Ns, address: Ipv4Addr, via: &Via, steps: &[Step]) -> Result<Said> {
    let (address, port) = match via {
        Via::Http => (address, 80),
        Via::Tls(_) | Via::NoTls => (address, 443),
        Via::Local => (loopback(address), 8006),
    };
    let to = SocketAddr::from((address, port));
    let stream = ns.in_ns(|| TcpStream::connect_timeout(&to, PATIENCE).with_context(|| to.to_string()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut said = Said { handshake: String::new(), answers: Vec::new(), tunnel: Vec::new(), end: End::Open };
    let mut wire = match via {
        Via::Tls(tls) => match handshake(&stream, tls) {
            Ok((encrypted, handshake)) => {
                said.handshake = handshake;
                Wire::new(Box::new(encrypted), stream)
            }
            Err(error) => {
                said.handshake = error.to_string();
                said.end = End::Closed;
                return Ok(said);
            }
        },
        _ => Wire::new(Box::new(stream.try_clone()?), stream),
    };
    for step in steps {
        match step {
            Step::Send(bytes) => wire.send(&filled_in(bytes, &said.answers)),
            Step::Pause => std::thread::sleep(A_MOMENT),
            Step::Shut => wire.plain.shutdown(Shutdown::Write)?,
            Step::Bytes(count) => {
                while wire.buffer.len() < *count && wire.more() {}
                let count = wire.buffer.len().min(*count);
                said.tunnel.extend(wire.buffer.drain(..count));
            }
            Step::End => {
                while wire.more() {}
                said.tunnel.append(&mut wire.buffer);
            }
            Step::ReadOne => said.answers.extend(wire.answer(false)),
            Step::Read { head } => {
                while let Some(answer) = wire.answer(*head) {
                    let is_final = answer.status == 101 || !(100..200).contains(&answer.status);
                    said.answers.push(answer);
                    if is_final {
                        break;
                    }
                }
            }
        }
    }
    let closes = |answer: &Answer| {
        answer.says("connection", "close")
            || answer.version == "HTTP/1.0" && !answer.says("connection", "keep-alive")
    };
    if wire.silent {
        said.end = End::Silent;
    } else if wire.ended || said.answers.last().is_some_and(closes) {
        said.end = End::Closed;
    }
    Ok(said)
}

/// The same side's address for this host alone.
pub(super) fn loopback(address: Ipv4Addr) -> Ipv4Addr {
    if address == super::HERE { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 0, 0, 2) }
}

/// One request by curl over HTTP/2; the last argument is the URL.
pub(super) fn http2(ns: &Ns, address: Ipv4Addr, args: &[String]) -> Result<Said> {
    let connect = format!("::{address}:443");
    let patience = PATIENCE.as_secs().to_string();
    // Apart from the body, since trailers follow it.
    let heads = tempfile::NamedTempFile::new()?;
    let place = heads.path().display().to_string();
    let mut argv =
        vec!["curl", "-sSk", "--http2", "--max-time", &patience, "--connect-to", &connect, "-D", &place];
    argv.extend(args.iter().map(String::as_str));
    let mut output = ns.output(&argv)?;
    let head = args.iter().any(|arg| arg == "--head");
    if head {
        // curl shows it as if it were the body.
        output.stdout.clear();
    }
    let mut answers: Vec<Answer> = Vec::new();
    let heads = std::fs::read(heads.path())?;
    let heads: String = heads.into_iter().map(char::from).collect();
    for block in heads.split("\r\n\r\n").filter(|block| !block.trim().is_empty()) {
        if block.starts_with("HTTP/") {
            answers.push(parse(block));
        } else if let Some(last) = answers.last_mut() {
            let trailers = block.split("\r\n").filter(|line| !line.is_empty()).map(header);
            last.headers.extend(trailers.map(|(name, value)| (format!("trailer:{name}"), value)));
        }
    }
    if let Some(last) = answers.last_mut() {
        let length = last.values("content-length").first().and_then(|length| length.parse().ok());
        last.whole = head
            || matches!(last.status, 204 | 304)
            || length.is_none_or(|length: usize| length == output.stdout.len());
        last.body = output.stdout;
    }
    let interim = answers.iter_mut().filter(|answer| (100..200).contains(&answer.status));
    interim.for_each(|answer| answer.whole = true);
    let end = match output.status.code() {
        Some(0) => End::Open,
        // The stream or the connection ended too early, or broke HTTP/2.
        Some(16 | 18 | 52 | 55 | 56 | 92) => End::Closed,
        Some(28) => End::Silent,
        // curl was called wrongly.
        code => bail!("curl {args:?}: {code:?} {}", String::from_utf8_lossy(&output.stderr)),
    };
    if let (Some(last), true) = (answers.last_mut(), end != End::Open) {
        last.whole = false;
    }
    Ok(Said { handshake: "curl".to_owned(), answers, tunnel: Vec::new(), end })
}

/// What reads and writes, whatever is below.
trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

struct Wire {
    stream: Box<dyn Both>,
    plain: TcpStream,
    buffer: Vec<u8>,
    ended: bool,
    silent: bool,
}

impl Wire {
    fn new(stream: Box<dyn Both>, plain: TcpStream) -> Self {
        Self { stream, plain, buffer: Vec::new(), ended: false, silent: false }
    }

    /// Whoever closes on us is seen when we read.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.flush();
    }

    /// Reads some more; false at the end, also at one that TLS was not told of.
    fn more(&mut self) -> bool {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.buffer.extend_from_slice(&bytes[..read]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.silent = true;
                }
                Err(_) => self.ended = true,
            }
            return false;
        }
    }

    /// The next answer; none if the connection ends before it begins.
    fn answer(&mut self, to_head: bool) -> Option<Answer> {
        let at = loop {
            if let Some(at) = end_of_head(&self.buffer) {
                break at;
            }
            let is_http = self.buffer.len() < 5 || self.buffer.starts_with(b"HTTP/");
            if !is_http || !self.more() {
                // HTTP/0.9, or half a head.
                if !is_http {
                    self.rest();
                }
                let body = std::mem::take(&mut self.buffer);
                let (version, reason) = Default::default();
                let answer = Answer { version, status: 0, reason, headers: Vec::new(), body, whole: false };
                return (!answer.body.is_empty()).then_some(answer);
            }
        };
        let head: String = self.buffer.drain(..at).map(char::from).collect();
        let mut answer = parse(&head);
        let length = answer.values("content-length").first().and_then(|length| length.parse().ok());
        if to_head || (100..200).contains(&answer.status) || matches!(answer.status, 204 | 304) {
            answer.whole = true;
        } else if answer.says("transfer-encoding", "chunked") {
            answer.whole = self.chunks(&mut answer);
        } else if let Some(length) = length {
            while self.buffer.len() < length && self.more() {}
            answer.whole = self.buffer.len() >= length;
            answer.body.extend(self.buffer.drain(..length.min(self.buffer.len())));
        } else {
            while self.more() {}
            answer.whole = !self.silent;
            answer.body = std::mem::take(&mut self.buffer);
        }
        Some(answer)
    }

    /// What comes at once of an answer that does not say where it ends.
    fn rest(&mut self) {
        let _ = self.plain.set_read_timeout(Some(A_MOMENT));
        while self.more() {}
        self.silent = false;
        let _ = self.plain.set_read_timeout(Some(PATIENCE));
    }

    /// Reads chunks and trailers, which become headers of the name `trailer:…`; false if they stop.
    fn chunks(&mut self, answer: &mut Answer) -> bool {
        loop {
            let Some(line) = self.line() else { return false };
            let digits = line.split(';').next().unwrap_or("").trim();
            let Ok(size) = usize::from_str_radix(digits, 16) else { return false };
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 && self.more() {}
            let there = self.buffer.len();
            answer.body.extend(self.buffer.drain(..size.min(there)));
            if there < size + 2 {
                return false;
            }
            self.buffer.drain(..2);
        }
        loop {
            match self.line() {
                None => return false,
                Some(line) if line.is_empty() => return true,
                Some(line) => {
                    let (name, value) = header(&line);
                    answer.headers.push((format!("trailer:{name}"), value));
                }
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).take(at).collect();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.more() {
                return None;
            }
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(b"HTTP/") {
        return None;
    }
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Bytes that are no UTF-8 stay apart: each is a character of its own.
fn parse(head: &str) -> Answer {
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or("").splitn(3, ' ');
    let version = words.next().unwrap_or("").to_owned();
    let status = words.next().and_then(|status| status.parse().ok()).unwrap_or(0);
    let reason = words.next().unwrap_or("").to_owned();
    Answer { version, status, reason, headers: lines.map(header).collect(), body: Vec::new(), whole: false }
}

fn header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

/// Fills `{cookie:NAME}` in with what was set last.
fn filled_in(bytes: &[u8], answers: &[Answer]) -> Vec<u8> {
    const MARK: &[u8] = b"{cookie:";
    let Some(start) = bytes.windows(MARK.len()).position(|window| window == MARK) else {
        return bytes.to_vec();
    };
    let rest = &bytes[start + MARK.len()..];
    let end = rest.iter().position(|byte| *byte == b'}').unwrap_or(rest.len());
    let prefix = format!("{}=", String::from_utf8_lossy(&rest[..end]));
    let values = answers.iter().flat_map(|answer| answer.values("set-cookie"));
    let value = values
        .filter_map(|cookie| cookie.strip_prefix(&prefix)?.split(';').next())
        .next_back()
        .unwrap_or("none");
    [&bytes[..start], value.as_bytes(), rest.get(end + 1..).unwrap_or(b"")].concat()
}

fn handshake(
    stream: &TcpStream,
    tls: &Tls,
) -> Result<(StreamOwned<ClientConnection, TcpStream>, String), rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[_] = if tls.old { &[&version::TLS12] } else { &[&version::TLS13, &version::TLS12] };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.enable_sni = tls.sni.is_some();
    let name = ServerName::try_from(tls.sni.unwrap_or("nobody.example"))
        .map_err(|_| rustls::Error::General("no server name".to_owned()))?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut below = stream.try_clone().map_err(|error| rustls::Error::General(error.to_string()))?;
    while connection.is_handshaking() {
        let failed = |error: std::io::Error| match error.downcast::<rustls::Error>() {
            Ok(error) => error,
            Err(error) => rustls::Error::General(format!("closed: {:?}", error.kind())),
        };
        connection.complete_io(&mut below).map_err(failed)?;
    }
    let mut hasher = DefaultHasher::new();
    connection
        .peer_certificates()
        .map(|chain| chain.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>())
        .hash(&mut hasher);
    let protocol = connection.alpn_protocol().map(String::from_utf8_lossy);
    let text = format!("{:?} {protocol:?} {:x}", connection.protocol_version(), hasher.finish());
    Ok((StreamOwned::new(connection, below), text))
}

/// Certificates of the lab sign themselves; which one is served is compared, not whether it is good.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
