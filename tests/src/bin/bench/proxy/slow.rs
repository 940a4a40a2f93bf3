//! What a client notices of slow ones: its requests' p99 alone, and while slowhttptest's four modes go on. Called by `mod.rs`.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tollgate_tests::slow::{CONNECTIONS, Mode};

use super::client::{self, Connection, Fate};
use super::stage::{Contender, Stage};

/// Between two parts that slow clients send or read, seconds.
const INTERVAL: u32 = 2;
/// They connect for two seconds, and stay.
const TIME: Duration = Duration::from_secs(8);
/// They give up by themselves after so many seconds, if nobody ends them before.
const LENGTH: u32 = 30;
/// Between two requests, which are one at a time.
const PAUSE: Duration = Duration::from_millis(2);
/// Of so many requests one is on a new connection, its handshake included: slow clients may keep others from being accepted.
const TURNS: u32 = 10;
/// So many are connected half way through: who asks for ranges has its answer then, and leaves.
const LEAST_OPEN: u32 = 2 * CONNECTIONS;

/// The p99 of a client's requests, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct P99 {
    /// Of those on a connection that had one before.
    pub kept: f64,
    /// Of those that begin with a handshake.
    pub new: f64,
}

/// What a client has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noticed {
    /// With nobody beside it.
    pub alone: P99,
    /// From the moment that slow clients begin to connect.
    pub beside: P99,
}

/// Slow clients, until this is dropped.
struct Slow(Vec<Child>);

impl Slow {
    fn start(contender: Contender) -> Result<Self> {
        let mut all = Self(Vec::new());
        for mode in Mode::ALL {
            let path = if mode == Mode::Reading { "1m" } else { "1k" };
            let url = format!("https://{}/{path}", contender.ecdsa());
            let mut command = mode.here(&url, INTERVAL, LENGTH);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            all.0.push(command.spawn().context("starting `taskset`, `chrt` and `slowhttptest`")?);
        }
        Ok(all)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Measures one contender, first alone.
pub fn noticed(stage: &Stage, contender: Contender) -> Result<Noticed> {
    let alone = p99(stage, contender)?;
    let _slow = Slow::start(contender)?;
    let beside = thread::scope(|scope| {
        let measured = scope.spawn(|| p99(stage, contender));
        thread::sleep(TIME / 2);
        let open = connections(contender)?;
        ensure!(open >= LEAST_OPEN, "only {open} slow clients are connected");
        measured.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })?;
    Ok(Noticed { alone, beside })
}

/// Connections that it has accepted and not yet ended.
fn connections(contender: Contender) -> Result<u32> {
    let port = format!("{:04X}", contender.ecdsa().port());
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
    let open = table.lines().filter(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        // Its own end of it, ESTABLISHED.
        words.get(1).is_some_and(|local| local.ends_with(&port)) && words.get(3) == Some(&"01")
    });
    Ok(u32::try_from(open.count())?)
}

/// The p99 of requests for 1 KiB over HTTP/1.1, one at a time.
fn p99(stage: &Stage, contender: Contender) -> Result<P99> {
    nix::sys::prctl::set_timerslack(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = Instant::now() + TIME;
    let (mut kept, mut new) = (Vec::new(), Vec::new());
    let mut connection = None;
    for number in 0.. {
        let begun = Instant::now();
        if begun > end {
            break;
        }
        let was_kept: Option<Connection> = connection.take().filter(|_| number % TURNS != 0);
        let took = if was_kept.is_some() { &mut kept } else { &mut new };
        let fate = runtime.block_on(async {
            let open = match was_kept {
                Some(kept) => kept,
                None => Connection::open(contender.ecdsa(), &stage.http1).await?,
            };
            anyhow::Ok(connection.insert(open).ask().await)
        })?;
        ensure!(fate == Fate::Answered, "{} beside slow clients: {fate:?}", contender.name());
        took.push(begun.elapsed());
        thread::sleep(PAUSE);
    }
    let p99 = |mut took: Vec<Duration>| {
        took.sort();
        anyhow::Ok(client::quantile(&took, 0.99)?.as_secs_f64() * 1e6)
    };
    Ok(P99 { kept: p99(kept)?, new: p99(new)? })
}
