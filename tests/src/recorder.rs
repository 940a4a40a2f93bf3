//! The upstream that records: each byte of each connection, read as strictly as RFC 9112 allows. What it does not understand is
//! kept as strange, since a server that reads less strictly might find another request there.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::lab::Ns;
use anyhow::{Context, Result};

/// A target whose answer is more than sockets keep for a client that does not read.
pub const BIG: &str = "/big";
static VAST: [u8; 8 << 20] = [b'.'; 8 << 20];
/// Nobody keeps a connection open longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A whole request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// First line and header lines, as they came.
    pub head: String,
    /// The body, without chunks.
    pub body: Vec<u8>,
}

impl Seen {
    /// The values of a header.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.lines().skip(1).filter_map(move |line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Method, target, host and body: what two proxies must agree on.
    pub fn essence(&self) -> String {
        let line = self.head.lines().next().unwrap_or_default();
        let line = line.rsplit_once(' ').map_or(line, |(line, _)| line);
        let host = self.values("host").collect::<Vec<_>>().join("|");
        let mut body = String::from_utf8_lossy(&self.body).into_owned();
        if body.len() > 100 {
            body = format!("{} bytes", body.len());
        }
        format!("{line} of {host} {body:?}")
    }
}

#[derive(Debug, Default)]
struct Book {
    seen: Vec<Seen>,
    strange: Vec<String>,
}

/// Answers each request by 200 and its own body, or a line if it has none.
#[derive(Debug)]
pub struct Recorder {
    book: Arc<Mutex<Book>>,
}

impl Recorder {
    /// Listens on loopback of a namespace, until this process ends.
    ///
    /// # Errors
    /// A port that is taken.
    pub fn start(ns: &Ns, port: u16) -> Result<Self> {
        let listener = ns.in_ns(|| {
            TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("listening on {port}"))
        })?;
        let book = Arc::<Mutex<Book>>::default();
        let shared = Arc::clone(&book);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let book = Arc::clone(&shared);
                thread::spawn(move || record(stream, &book));
            }
        });
        Ok(Self { book })
    }

    /// The requests of each client, by the address that the proxy says they came from; those without exactly one such address
    /// are under the empty name.
    pub fn by_client(&self) -> HashMap<String, Vec<Seen>> {
        let mut clients: HashMap<String, Vec<Seen>> = HashMap::new();
        for seen in &self.book.lock().unwrap_or_else(PoisonError::into_inner).seen {
            let mut addresses = seen.values("x-real-ip");
            let client = match (addresses.next(), addresses.next()) {
                (Some(address), None) => address.to_owned(),
                _ => String::new(),
            };
            clients.entry(client).or_default().push(seen.clone());
        }
        clients
    }

    /// What was not HTTP, with the connection's bytes.
    pub fn strange(&self) -> Vec<String> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).strange.clone()
    }
}

fn record(mut stream: TcpStream, book: &Mutex<Book>) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    // Head and body are written one after the other.
    let _ = stream.set_nodelay(true);
    let (mut all, mut from) = (Vec::new(), 0);
    let mut part = [0; 16 << 10];
    loop {
        let read = match stream.read(&mut part) {
            Ok(read) if read > 0 => read,
            // What is left is a request that the proxy gave up in the middle.
            _ => return,
        };
        all.extend_from_slice(&part[..read]);
        loop {
            match parse(&all[from..]) {
                Ok(Some((seen, used))) => {
                    from += used;
                    // Before the answer: whoever has got that finds its request here.
                    book.lock().unwrap_or_else(PoisonError::into_inner).seen.push(seen.clone());
                    if answer(&seen, &stream).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(why) => {
                    let text = format!("{why}: {:?}", String::from_utf8_lossy(&all));
                    book.lock().unwrap_or_else(PoisonError::into_inner).strange.push(text);
                    return;
                }
            }
        }
    }
}

fn answer(seen: &Seen, mut to: impl Write) -> std::io::Result<()> {
    let big = seen.head.starts_with(&format!("GET {BIG} "));
    let body = match &*seen.body {
        _ if big => &VAST[..],
        b"" => b"This is the upstream.\n",
        body => body,
    };
    write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
    to.write_all(if seen.head.starts_with("HEAD ") { b"" } else { body })
}

/// A whole request at the beginning of this, and how long it is.
fn parse(bytes: &[u8]) -> Result<Option<(Seen, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = bytes[..end].to_vec();
    if head.iter().any(|byte| *byte == 0 || (*byte < b' ' && !b"\r\n\t".contains(byte)) || *byte == 0x7f) {
        return Err("a control byte in a head".to_owned());
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    if words.len() != 3 || !words[2].starts_with("HTTP/1.") || words[0].is_empty() {
        return Err(format!("no request line: {words:?}"));
    }
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no header: {line:?}"))?;
        if line.contains(['\r', '\n']) || name.is_empty() || name.contains([' ', '\t']) {
            return Err(format!("no header: {line:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        let again = match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                let value = value.parse().ok().filter(|_| digits);
                length.replace(value.ok_or_else(|| format!("no length: {line:?}"))?).is_some() || chunked
            }
            "transfer-encoding" if value == "chunked" => {
                std::mem::replace(&mut chunked, true) || length.is_some()
            }
            "transfer-encoding" => return Err(format!("another coding: {line:?}")),
            _ => false,
        };
        if again {
            return Err(format!("framed twice: {head:?}"));
        }
    }
    let rest = &bytes[end + 4..];
    let body = match (chunked, length.unwrap_or(0)) {
        (true, _) => dechunk(rest)?,
        (false, length) => rest.get(..length).map(|body| (body.to_vec(), length)),
    };
    Ok(body.map(|(body, used)| (Seen { head, body }, end + 4 + used)))
}

/// A whole chunked body without extensions and trailers, and how long it is.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + end]).unwrap_or("?");
        let hexadecimal = size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| hexadecimal);
        let size = size.ok_or_else(|| "a chunk's line that is no number".to_owned())?;
        at += end + 2;
        let Some(chunk) = bytes.get(at..at.saturating_add(size).saturating_add(2)) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a trailer, or a chunk without an end".to_owned());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
#[test]
fn the_recorder_tells_what_is_strange() {
    let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(parse(whole).map(|found| found.map(|(_, used)| used)), Ok(Some(whole.len())));
    let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET";
    let (seen, used) = parse(chunked).expect("HTTP").expect("whole");
    assert_eq!((seen.body.as_slice(), used), (&b"ab"[..], chunked.len() - 3));
    for strange in [
        "GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / x HTTP/1.1\r\n\r\n",
        "G / HTTP/1.1\r\nnothing\r\n\r\n",
        "G / HTTP/1.1\r\na : b\r\n\r\n",
        "G / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "G / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "G / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n",
        "G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        "G / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n",
    ] {
        assert!(parse(strange.as_bytes()).is_err(), "{strange:?}");
    }
}
