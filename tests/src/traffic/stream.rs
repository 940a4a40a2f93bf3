//! A connection that is busy while a test does something else: numbered lines without a pause for answers, and each comes back
//! in its turn.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::lab::Ns;

/// What takes longer never comes: a connection that the filter cuts is retried by TCP for minutes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the next lines are written, and how many: 5,000 a second.
const BEAT: Duration = Duration::from_millis(10);
const LINES: u64 = 50;

/// What a stream came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Lines that came back, all in their order: as many as were sent.
    pub lines: u64,
    /// The longest time in which none came.
    pub longest_pause: Duration,
}

/// A stream in two threads, one for each direction.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    writing: JoinHandle<Result<u64>>,
    reading: JoinHandle<Result<Streamed>>,
}

impl Stream {
    /// Connects to a [`crate::services::TcpEcho`] and begins to write.
    pub fn start(ns: &Ns, to: SocketAddr) -> Result<Self> {
        let stream = ns.in_ns(|| TcpStream::connect_timeout(&to, PATIENCE).context("connecting"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (back, stopped) = (stream.try_clone()?, Arc::clone(&stop));
        let writing = thread::spawn(move || write(&stream, &stopped));
        let reading = thread::spawn(move || read(&back));
        Ok(Self { stop, writing, reading })
    }

    /// Ends it, and waits for the last line; one that is missing, or comes out of turn, is an error.
    pub fn finish(self) -> Result<Streamed> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.writing.join().map_err(|_| anyhow!("the writer panicked"))?;
        let back = self.reading.join().map_err(|_| anyhow!("the reader panicked"))??;
        let sent = sent?;
        ensure!(sent == back.lines, "{sent} lines were sent, {back:?} came back");
        Ok(back)
    }
}

fn write(mut stream: &TcpStream, stop: &AtomicBool) -> Result<u64> {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let lines: String = (next..next + LINES).map(|n| format!("{n}\n")).collect();
        stream.write_all(lines.as_bytes()).with_context(|| format!("writing line {next}"))?;
        next += LINES;
        thread::sleep(BEAT);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(next)
}

fn read(stream: &TcpStream) -> Result<Streamed> {
    let mut streamed = Streamed { lines: 0, longest_pause: Duration::ZERO };
    let mut last = Instant::now();
    for line in BufReader::new(stream).lines() {
        let line = line.with_context(|| format!("reading line {}", streamed.lines))?;
        ensure!(line == streamed.lines.to_string(), "{line:?} came instead of {}", streamed.lines);
        streamed.lines += 1;
        streamed.longest_pause = streamed.longest_pause.max(last.elapsed());
        last = Instant::now();
    }
    Ok(streamed)
}
