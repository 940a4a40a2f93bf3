//! Reloads under load: what clients lose. Called by `mod.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{sleep, timeout};

use super::client::{Connection, Fate};
use super::stage::{Contender, Stage};
use super::websocket::Socket;

/// Reloads in a row.
pub const RELOADS: usize = 20;
/// Clients that ask again and again on a connection of their own.
pub const HTTP1: usize = 48;
pub const HTTP2: usize = 16;
/// WebSockets.
pub const SOCKETS: usize = 8;
/// Between two requests of a client.
const THINKING: Duration = Duration::from_millis(5);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What clients had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were sent, and not answered as they should be.
    pub failed: u64,
    /// Connections that ended.
    pub closed: u64,
    /// WebSockets that did not echo in the end.
    pub sockets: u64,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    closed: AtomicU64,
    end: AtomicBool,
}

/// Reloads again and again while clients ask; `gap` apart.
pub fn under_load(stage: &Stage, contender: Contender, gap: Duration) -> Result<Losses> {
    let counts = Arc::new(Counts::default());
    let configs = std::iter::repeat_n(&stage.http1, HTTP1).chain(std::iter::repeat_n(&stage.http2, HTTP2));
    let clients: Vec<_> = configs
        .map(|config| {
            let (config, counts) = (Arc::clone(config), Arc::clone(&counts));
            stage.runtime.spawn(async move {
                let mut connection = Connection::open(contender.ecdsa(), &config).await?;
                while !counts.end.load(Ordering::Relaxed) {
                    let fate = timeout(PATIENCE, connection.ask()).await.unwrap_or(Fate::Failed);
                    match fate {
                        Fate::Answered => counts.answered.fetch_add(1, Ordering::Relaxed),
                        Fate::Failed => counts.failed.fetch_add(1, Ordering::Relaxed),
                        Fate::Unsent => 0,
                    };
                    sleep(THINKING).await;
                    if fate != Fate::Answered || connection.is_closed() {
                        counts.closed.fetch_add(1, Ordering::Relaxed);
                        connection = Connection::open(contender.ecdsa(), &config).await?;
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let mut sockets = stage.runtime.block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            let mut socket = Socket::open(contender.ecdsa(), &stage.http1).await?;
            ensure!(socket.works().await, "a WebSocket does not echo before any reload");
            sockets.push(socket);
        }
        Ok(sockets)
    })?;
    for turn in 1..=RELOADS {
        std::thread::sleep(gap);
        stage.reload(contender, turn)?;
    }
    std::thread::sleep(gap);
    let lost = stage.runtime.block_on(async {
        let mut lost = 0;
        for socket in &mut sockets {
            lost += u64::from(!socket.works().await);
        }
        lost
    });
    counts.end.store(true, Ordering::Relaxed);
    stage.runtime.block_on(async {
        for client in clients {
            client.await?.context("a client can't connect")?;
        }
        anyhow::Ok(())
    })?;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let losses = Losses {
        answered: read(&counts.answered),
        failed: read(&counts.failed),
        closed: read(&counts.closed),
        sockets: lost,
    };
    ensure!(losses.answered > 1000, "hardly any load: {losses:?}");
    Ok(losses)
}
