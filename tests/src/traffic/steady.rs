//! A well-behaved UDP client: an even rate of datagrams, each of which wants its echo.

use std::net::{SocketAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::lab::Ns;
use crate::services::ECHO;

/// How long the last echoes may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a client sent and got back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echoes {
    /// Datagrams sent.
    pub sent: u64,
    /// Echoes received.
    pub received: u64,
}

/// A client in a thread.
#[derive(Debug)]
pub struct SteadyClient {
    sending: JoinHandle<Result<Echoes>>,
}

impl SteadyClient {
    /// Sends `count` datagrams, one every `interval`.
    pub fn start(ns: &Ns, to: SocketAddr, interval: Duration, count: u32) -> Result<Self> {
        let socket = ns.in_ns(|| {
            let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to).context("no way there")?;
            Ok(socket)
        })?;
        let sending = thread::spawn(move || run(&socket, interval, count));
        Ok(Self { sending })
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Echoes> {
        self.sending.join().map_err(|_| anyhow!("the client's thread panicked"))?
    }
}

fn run(socket: &UdpSocket, interval: Duration, count: u32) -> Result<Echoes> {
    let start = Instant::now();
    let mut echoes = Echoes { sent: 0, received: 0 };
    for n in 0..count {
        socket.send(ECHO).context("sending")?;
        echoes.sent += 1;
        listen(socket, start + interval * (n + 1), &mut echoes)?;
    }
    if echoes.received < echoes.sent {
        listen(socket, Instant::now() + PATIENCE, &mut echoes)?;
    }
    Ok(echoes)
}

/// Counts echoes until `end`.
fn listen(socket: &UdpSocket, end: Instant, echoes: &mut Echoes) -> Result<()> {
    let mut buffer = [0; 64];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        if socket.recv(&mut buffer).is_ok() {
            echoes.received += 1;
        }
    }
}
