//! An upstream that answers with whatever bytes the path asks for, well-formed or not, and speaks WebSocket: what Django can't be
//! made to do. Like Django it notes each request that it sees.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown, shutdown};

use super::outcome::Seen;
use crate::lab::Ns;

/// A peer that says nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(20);
/// A value that is longer than the buffer that many proxies have for a head.
const LONG: usize = 20_000;
/// Longer than the shortest patience of a route here.
const LATE: Duration = Duration::from_secs(3);

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Odd {
    listener: Arc<TcpListener>,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Odd {
    /// Listens at an address of a namespace.
    pub fn start(ns: &Ns, address: SocketAddr) -> Result<Self> {
        let listener = ns.in_ns(|| TcpListener::bind(address).with_context(|| address.to_string()))?;
        let listener = Arc::new(listener);
        let (seen, stopping) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (socket, notes, stop) = (Arc::clone(&listener), Arc::clone(&seen), Arc::clone(&stopping));
        let accepting = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = socket.accept() else { continue };
                let notes = Arc::clone(&notes);
                // A proxy that goes away is what some of the answers are for.
                thread::spawn(move || drop(serve(&stream, &notes)));
            }
        });
        Ok(Self { listener, seen, stopping, accepting: Some(accepting) })
    }

    /// The requests since this was last asked.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread in accept(2).
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(stream: &TcpStream, notes: &Mutex<Vec<Seen>>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(seen) = request(&mut reader)? {
        let last = seen.get("header:connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let target = seen.get("target").cloned().unwrap_or_default();
        notes.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        let path = target.split('?').next().unwrap_or("");
        if path == "/late" {
            thread::sleep(LATE);
        }
        let answer = answer(path);
        (&mut &*stream).write_all(&answer.bytes)?;
        if path == "/ws" {
            return echo(&mut reader, stream);
        }
        if answer.closes || last {
            break;
        }
    }
    Ok(())
}

/// Reads one request; none if the connection ends.
fn request(reader: &mut impl BufRead) -> Result<Option<Seen>> {
    let Some(first) = line(reader)? else { return Ok(None) };
    let mut words = first.trim_end().splitn(3, ' ').map(str::to_owned);
    let mut seen: Seen = BTreeMap::new();
    for name in ["method", "target", "version"] {
        seen.insert(name.to_owned(), words.next().unwrap_or_default());
    }
    while let Some(line) = line(reader)?.filter(|line| !line.trim_end().is_empty()) {
        let (name, value) = line.trim_end().split_once(':').unwrap_or((line.trim_end(), ""));
        let values = seen.entry(format!("header:{}", name.to_ascii_lowercase())).or_default();
        let comma = if values.is_empty() { "" } else { " | " };
        *values = format!("{values}{comma}{}", value.trim());
    }
    let length = seen.get("header:content-length").and_then(|length| length.parse::<usize>().ok());
    let mut body = Vec::new();
    if seen.contains_key("header:transfer-encoding") {
        chunks(reader, &mut body)?;
    } else if let Some(length) = length {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    }
    seen.insert("body".to_owned(), format!("{} bytes: {}", body.len(), String::from_utf8_lossy(&body)));
    Ok(Some(seen))
}

/// A line, whatever its bytes; none at the end.
fn line(reader: &mut impl BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = reader.read_until(b'\n', &mut bytes)?;
    Ok((read > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

fn chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).context("a chunk's length")?;
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..])?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Sends back what comes, until the other side is done.
fn echo(reader: &mut impl Read, mut stream: &TcpStream) -> Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read])?;
    }
}

struct Answer {
    bytes: Vec<u8>,
    closes: bool,
}

/// What a path is answered with. The key of the handshake is that of RFC 6455 1.3.
fn answer(path: &str) -> Answer {
    let ok = |lines: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}").into_bytes();
    let whole = |lines: &str| ok(&format!("Content-Length: 2\r\n{lines}"), "ok");
    let stays = |bytes: Vec<u8>| Answer { bytes, closes: false };
    let closes = |bytes: Vec<u8>| Answer { bytes, closes: true };
    let switch = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let cookies: String = (0..6).map(|n| format!("Set-Cookie: c{n}={}\r\n", "v".repeat(1000))).collect();
    match path {
        "/close" => closes(Vec::new()),
        "/garbage" => closes(b"this is not HTTP at all\r\n\r\n".to_vec()),
        "/half-a-head" => closes(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        "/cut" => closes(ok("Content-Length: 100\r\n", "only this")),
        "/cut-chunks" => closes(ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n9\r\nonly")),
        "/two-lengths" => closes(ok("Content-Length: 2\r\nContent-Length: 3\r\n", "ok")),
        "/length-twice" => stays(ok("Content-Length: 2\r\nContent-Length: 2\r\n", "ok")),
        "/length-and-chunks" => {
            closes(ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"))
        }
        "/coded" => closes(ok("Transfer-Encoding: gzip, chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        "/trailers" => stays(ok(
            "Transfer-Encoding: chunked\r\nTrailer: X-Last\r\n",
            "2\r\nok\r\n0\r\nX-Last: yes\r\n\r\n",
        )),
        "/chunks" => stays(ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n3;x=y\r\n, k\r\n0\r\n\r\n")),
        "/early-hints" => {
            stays([b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".to_vec(), whole("")].concat())
        }
        "/continue" => stays([b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), whole("")].concat()),
        "/hop-by-hop" => stays(whole(
            "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
             Proxy-Authenticate: Basic\r\nX-Yours: 2\r\n",
        )),
        "/long-header" => stays(whole(&format!("X-Long: {}\r\n", "v".repeat(LONG)))),
        "/many-cookies" => stays(whole(&cookies)),
        "/folded" => stays(whole("X-Folded: one\r\n two\r\n")),
        "/no-colon" => stays(whole("X-No-Colon\r\n")),
        "/bare-lf" => closes(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok".to_vec()),
        "/no-reason" => stays(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        "/reason" => stays(b"HTTP/1.1 404 Gone Fishing\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        "/until-the-end" => closes(ok("", "until the end")),
        "/http10" => closes(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nof old".to_vec()),
        "/204" => stays(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".to_vec()),
        "/205" => stays(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n".to_vec()),
        "/304" => stays(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n".to_vec()),
        "/600" => stays(b"HTTP/1.1 600 Beyond\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        "/099" => closes(b"HTTP/1.1 099 Below\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        "/701-times" => closes(b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        "/unasked" => {
            closes(format!("HTTP/1.1 101 Switching Protocols\r\n{switch}{accept}\r\n").into_bytes())
        }
        "/ws" => closes(format!("HTTP/1.1 101 Switching Protocols\r\n{switch}{accept}\r\n").into_bytes()),
        "/ws-declined" => stays(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec()),
        "/to-itself" => stays(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:8090/there\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        ),
        "/accel-redirect" => stays(ok("Content-Length: 8\r\nX-Accel-Redirect: /there\r\n", "not this")),
        "/refresh" => stays(whole("Refresh: 5; url=http://127.0.0.1:8090/there\r\n")),
        "/mixed-case" => stays(whole("x-MiXeD: 1\r\nX-mIxEd: 2\r\n")),
        "/latin-1" => {
            let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Name: caf".to_vec();
            bytes.extend_from_slice(b"\xe9\r\n\r\nok");
            stays(bytes)
        }
        _ => stays(whole("")),
    }
}
