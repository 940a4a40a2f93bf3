//! A download that goes on while a test does something else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::lab::Ns;

/// What a download came to.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes of the body.
    pub bytes: u64,
    /// The longest time without a byte.
    pub longest_pause: Duration,
    /// From the connection to the last byte.
    pub took: Duration,
}

/// A download in a thread.
#[derive(Debug)]
pub struct Download {
    bytes: Arc<AtomicU64>,
    reading: JoinHandle<Result<Progress>>,
}

impl Download {
    /// Asks `to` for `bytes` at `rate` bytes a second.
    pub fn start(ns: &Ns, to: SocketAddr, bytes: u64, rate: u64) -> Result<Self> {
        let mut stream =
            ns.in_ns(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)).context("connecting"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /big?bytes={bytes}&rate={rate} HTTP/1.0\r\n\r\n")?;
        let seen = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&seen);
        let reading = thread::spawn(move || read(stream, &counter));
        Ok(Self { bytes: seen, reading })
    }

    /// Bytes of the body so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Progress> {
        self.reading.join().map_err(|_| anyhow!("the download's thread panicked"))?
    }
}

fn read(mut stream: TcpStream, bytes: &AtomicU64) -> Result<Progress> {
    let start = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    let mut head = Vec::new();
    let (mut last, mut longest_pause) = (start, Duration::ZERO);
    loop {
        let len = stream.read(&mut buffer).context("the download broke off")?;
        longest_pause = longest_pause.max(last.elapsed());
        last = Instant::now();
        if len == 0 {
            break;
        }
        let mut body = len as u64;
        if bytes.load(Ordering::Relaxed) == 0 {
            head.extend_from_slice(&buffer[..len]);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            body = (head.len() - end - 4) as u64;
            ensure!(head.starts_with(b"HTTP/1.0 200"), "the server refused the download");
        }
        bytes.fetch_add(body, Ordering::Relaxed);
    }
    Ok(Progress { bytes: bytes.load(Ordering::Relaxed), longest_pause, took: start.elapsed() })
}
