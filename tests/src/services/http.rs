//! A small threaded HTTP server of the lab process: it answers with its port, or with as many bytes as asked for.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown, shutdown};

use crate::lab::Ns;

/// A peer that says nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that `/big` writes at a time.
const CHUNK: usize = 16 * 1024;

/// Serves one address; `/` names the port, `/big?bytes=N&rate=R` sends N bytes at R bytes a second (0: at once), and `/page?parts=N`
/// is a page that asks for N scripts, each of which writes a line.
#[derive(Debug)]
pub struct HttpServer {
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Listens in a namespace; `[::]:port` answers both families.
    pub fn start(ns: &Ns, address: &str) -> Result<Self> {
        let listener =
            ns.in_ns(|| TcpListener::bind(address).with_context(|| format!("listening on {address}")))?;
        let listener = Arc::new(listener);
        let stopping = Arc::new(AtomicBool::new(false));
        let (socket, stop) = (Arc::clone(&listener), Arc::clone(&stopping));
        let accepting = thread::spawn(move || accept(&socket, &stop));
        Ok(Self { listener, stopping, accepting: Some(accepting) })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread in accept(2).
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, stopping: &Arc<AtomicBool>) {
    while !stopping.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let stop = Arc::clone(stopping);
                // A client that goes away is the client's affair.
                thread::spawn(move || {
                    let _ = answer(&stream, &stop);
                });
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The client has given up already, or there are no more descriptors for a moment.
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn answer(stream: &TcpStream, stopping: &AtomicBool) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().context("no request")??;
    // The rest of the head must be read: closing on unread data resets the connection.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let target = request.split(' ').nth(1).unwrap_or("/");
    if let Some(query) = target.strip_prefix("/big?") {
        return big(stream, number(query, "bytes="), number(query, "rate="), stopping);
    }
    if let Some(query) = target.strip_prefix("/page?") {
        let part = |part| format!("<script src=\"/part?n={part}\"></script>");
        return say(stream, "text/html", &(0..number(query, "parts=")).map(part).collect::<String>());
    }
    if let Some(query) = target.strip_prefix("/part?") {
        return say(stream, "text/javascript", &format!("document.write('part {};')", number(query, "n=")));
    }
    say(stream, "text/plain", &format!("this is port {}\n", stream.local_addr()?.port()))
}

fn say(mut stream: &TcpStream, kind: &str, body: &str) -> Result<()> {
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

fn number(query: &str, key: &str) -> u64 {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.parse().ok()).unwrap_or(0)
}

fn big(mut stream: &TcpStream, bytes: u64, rate: u64, stopping: &AtomicBool) -> Result<()> {
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
    let chunk = [b'.'; CHUNK];
    let start = Instant::now();
    let mut sent = 0;
    while sent < bytes && !stopping.load(Ordering::Relaxed) {
        let size = (bytes - sent).min(CHUNK as u64);
        stream.write_all(&chunk[..size as usize])?;
        sent += size;
        if rate > 0 {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    Ok(())
}
