//! An interactive session that goes on while a test does something else: a line every so often, and each wants its answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::lab::Ns;
use crate::services;

/// An answer that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Lines that were answered: all that were sent.
    pub lines: u64,
    /// The longest time between a line and its answer.
    pub longest_wait: Duration,
}

/// A session in a thread.
#[derive(Debug)]
pub struct Dialogue {
    answered: Arc<AtomicU64>,
    talking: JoinHandle<Result<Answers>>,
    local: Option<SocketAddr>,
}

impl Dialogue {
    /// Talks to a [`services::TcpEcho`]: `count` lines, one every `interval`; then both sides close.
    pub fn with_echo(ns: &Ns, to: SocketAddr, interval: Duration, count: u64) -> Result<Self> {
        let stream = ns.in_ns(|| TcpStream::connect_timeout(&to, PATIENCE).context("connecting"))?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let lines = lines_of(stream.try_clone()?);
        let mut talk = Self::start(interval, count, move |n, talk| {
            let Some(n) = n else {
                stream.shutdown(Shutdown::Write)?;
                // The server's FIN is the end of the lines.
                return match lines.recv_timeout(PATIENCE) {
                    Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
                    other => bail!("no end of the session: {other:?}"),
                };
            };
            (&stream).write_all(format!("line {n}\n").as_bytes())?;
            talk.expect(&lines, &format!("line {n}"))
        });
        talk.local = Some(local);
        Ok(talk)
    }

    /// Asks a database by one session of the real psql: `count` queries, one every `interval`.
    pub fn with_psql(ns: &Ns, host: &str, interval: Duration, count: u64) -> Result<Self> {
        let mut psql = ns
            .command(services::postgres_program("psql")?)
            .args(["-h", host, "-U", "postgres", "-d", "postgres", "-X", "-q", "-t", "-A"])
            .env("PGCONNECT_TIMEOUT", "2")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting psql")?;
        let lines = lines_of(psql.stdout.take().context("no pipe from psql")?);
        let mut stdin = psql.stdin.take();
        let mut psql = Killed(psql);
        Ok(Self::start(interval, count, move |n, talk| {
            let Some(n) = n else {
                drop(stdin.take());
                let status = psql.0.wait()?;
                ensure!(status.success(), "psql: {status}");
                return Ok(());
            };
            let stdin = stdin.as_mut().context("no pipe to psql")?;
            writeln!(stdin, "SELECT {n};")?;
            talk.expect(&lines, &n.to_string())
        }))
    }

    fn start(
        interval: Duration,
        count: u64,
        mut say: impl FnMut(Option<u64>, &mut Talk) -> Result<()> + Send + 'static,
    ) -> Self {
        let answered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answered);
        let talking = thread::spawn(move || {
            let mut talk = Talk { longest_wait: Duration::ZERO };
            for n in 0..count {
                say(Some(n), &mut talk).with_context(|| format!("line {n} of a session"))?;
                counter.fetch_add(1, Ordering::Relaxed);
                thread::sleep(interval);
            }
            say(None, &mut talk).context("the end of a session")?;
            Ok(Answers { lines: count, longest_wait: talk.longest_wait })
        });
        Self { answered, talking, local: None }
    }

    /// Lines answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// The client's end of the connection; psql does not tell.
    pub const fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Waits for its end; an answer that did not come is an error.
    pub fn finish(self) -> Result<Answers> {
        self.talking.join().map_err(|_| anyhow!("the session's thread panicked"))?
    }
}

/// The measure of one session.
struct Talk {
    longest_wait: Duration,
}

impl Talk {
    fn expect(&mut self, lines: &Receiver<String>, wanted: &str) -> Result<()> {
        let start = Instant::now();
        let line = lines.recv_timeout(PATIENCE).map_err(|error| anyhow!("no answer: {error}"))?;
        self.longest_wait = self.longest_wait.max(start.elapsed());
        ensure!(line == wanted, "{line:?} came instead of {wanted:?}");
        Ok(())
    }
}

/// A process that does not outlive its session: psql waits for a lost answer for as long as TCP does.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
