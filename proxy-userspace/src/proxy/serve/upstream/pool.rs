//! The servers of an upstream: who is asked next, and connections that are kept for the request after. Used by [`mod@super::send`].
//!
//! Each thread has an [`Upstream`] of its own, with connections of its own, which no other thread serves; what is known of the servers
//! is shared. HTTP/1.1 connections are kept per server, `keep` of them at most and for `keep_ms`; the one that was used last is taken
//! first, so that those over the need grow old and go. An HTTP/2 server has one connection of each thread for so many requests at a
//! time, and is given another beyond.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use super::connect::{Sender, Unreachable, connect};
use super::health::{Health, check};
use crate::proxy::plan::{self, Server, UpstreamProtocol};

/// Requests at a time on a connection of HTTP/2. A server that allows fewer (RFC 9113 5.1.2) has hyper wait, for all that come after
/// too: clients that do not read must not be able to have that many.
const STREAMS: usize = 64;
/// How long a connection may take to be ready again whose answer is complete.
const SETTLING: Duration = Duration::from_millis(200);

/// An upstream.
#[derive(Debug)]
pub(in crate::proxy::serve) struct Upstream {
    /// Its name in the plan.
    pub(in crate::proxy::serve) name: String,
    /// As planned.
    pub(in crate::proxy::serve) plan: plan::Upstream,
    pub(in crate::proxy::serve) servers: Vec<Arc<ServerState>>,
    turn: AtomicUsize,
    /// Connections that are kept for each server.
    keep: usize,
    /// Asks after the servers' health, for all threads.
    checks: Mutex<Option<JoinHandle<()>>>,
}

/// A server and its connections.
#[derive(Debug)]
pub(in crate::proxy::serve) struct ServerState {
    pub(in crate::proxy::serve) known: Arc<Known>,
    /// The one used last is at the end.
    idle: Mutex<Vec<Idle>>,
    /// Connections of HTTP/2. Locked while connecting, so that one is made and not one a request.
    shared: tokio::sync::Mutex<Vec<Http2>>,
}

/// What all threads know of a server.
#[derive(Debug)]
pub(in crate::proxy::serve) struct Known {
    pub(super) address: Server,
    /// For logs.
    pub(in crate::proxy::serve) label: String,
    pub(in crate::proxy::serve) health: Health,
    /// Requests that it has not answered completely; not counted where there is no choice of servers.
    active: AtomicU32,
}

/// A connection of HTTP/2, and a hand on it for each request that it has.
#[derive(Debug)]
struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    requests: Arc<()>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// A server is asked; counted until this is dropped.
#[derive(Debug)]
pub(in crate::proxy::serve) struct Lease {
    pub(in crate::proxy::serve) upstream: Arc<Upstream>,
    pub(super) index: usize,
    /// Its place on a connection of HTTP/2.
    place: Option<Arc<()>>,
    /// To be kept for the next, when the answer is complete.
    pub(super) sender: Option<http1::SendRequest<RequestBody>>,
}

impl Upstream {
    /// Begins with no connections, and serves no thread; asks after the servers' health if the plan wants it.
    pub(in crate::proxy::serve) fn start(name: &str, plan: &plan::Upstream) -> Arc<Self> {
        let known = plan.servers.iter().map(|address| {
            Arc::new(Known {
                address: address.clone(),
                label: match address {
                    Server::Tcp(address) => address.to_string(),
                    Server::Unix(path) => format!("unix:{}", path.display()),
                },
                health: Health::new(),
                active: AtomicU32::new(0),
            })
        });
        let upstream = Arc::new(Self::with(name, plan, known, 0, 0));
        if let Some(checks) = &plan.health {
            let task = tokio::spawn(check(Arc::downgrade(&upstream), checks.clone()));
            *upstream.checks.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        }
        upstream
    }

    /// The same servers with connections of their own: for one of so many threads, this one by number.
    pub(in crate::proxy::serve) fn twin(&self, number: usize, threads: usize) -> Arc<Self> {
        let known = self.servers.iter().map(|server| Arc::clone(&server.known));
        let keep = usize::from(self.plan.keep).div_ceil(threads.max(1));
        Arc::new(Self::with(&self.name, &self.plan, known, number, keep))
    }

    fn with(
        name: &str,
        plan: &plan::Upstream,
        known: impl Iterator<Item = Arc<Known>>,
        turn: usize,
        keep: usize,
    ) -> Self {
        let servers = known.map(|known| {
            let (idle, shared) = (Mutex::new(Vec::new()), tokio::sync::Mutex::default());
            Arc::new(ServerState { known, idle, shared })
        });
        Self {
            name: name.to_owned(),
            plan: plan.clone(),
            servers: servers.collect(),
            // Not all threads begin with the same server.
            turn: AtomicUsize::new(turn),
            keep,
            checks: Mutex::new(None),
        }
    }

    /// The server with the fewest requests, the next in turn among equals, that is not in `tried`. Servers that rest or are
    /// down are asked when there is nobody else: they may have come back, and the client gets nothing otherwise.
    pub(super) fn choose(self: &Arc<Self>, tried: &[usize]) -> Option<Lease> {
        let (count, turn) = (self.servers.len(), self.turn.fetch_add(1, Ordering::Relaxed));
        let candidates =
            (0..count).map(|step| (turn % count + step) % count).filter(|index| !tried.contains(index));
        let index = candidates.min_by_key(|index| {
            let server = &self.servers[*index];
            (server.known.health.is_avoided(), server.known.active.load(Ordering::Relaxed))
        })?;
        let lease = Lease { upstream: Arc::clone(self), index, place: None, sender: None };
        if let Some(active) = lease.active() {
            active.fetch_add(1, Ordering::Relaxed);
        }
        Some(lease)
    }

    /// Closes connections that were idle for too long, and those of HTTP/2 that are over the need.
    pub(in crate::proxy::serve) fn sweep(&self) {
        for server in &self.servers {
            let mut idle = server.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < self.kept_for());
            drop(idle);
            // One stays for the next request. Whoever has the lock is about to use them.
            if let Ok(mut shared) = server.shared.try_lock() {
                let mut spare = 0;
                shared.retain(|one| {
                    spare += usize::from(Arc::strong_count(&one.requests) == 1);
                    !one.sender.is_closed() && (Arc::strong_count(&one.requests) > 1 || spare == 1)
                });
            }
        }
    }

    fn kept_for(&self) -> Duration {
        Duration::from_millis(self.plan.keep_ms)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(task) = self.checks.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Lease {
    pub(in crate::proxy::serve) fn server(&self) -> &Arc<ServerState> {
        &self.upstream.servers[self.index]
    }

    /// Where it is counted, if it is.
    fn active(&self) -> Option<&AtomicU32> {
        (self.upstream.servers.len() > 1).then(|| &self.server().known.active)
    }

    /// A connection that was kept, or a new one; says whether it was used before. A `fresh` one was never used (but for
    /// HTTP/2, where one that works is as good).
    pub(super) async fn connection(&mut self, fresh: bool) -> Result<(Sender, bool), Unreachable> {
        let (server, plan) = (Arc::clone(self.server()), &self.upstream.plan);
        let limit = Duration::from_millis(plan.connect_ms);
        if plan.protocol == UpstreamProtocol::Http2 {
            // Whoever waits for another's attempt to connect waits no longer than for one of its own.
            let mut shared = timeout(limit, server.shared.lock()).await.map_err(|_| Unreachable::Timeout)?;
            shared.retain(|one| !one.sender.is_closed());
            // The first that has room: those over the need stay without requests.
            if let Some(one) = shared.iter().find(|one| Arc::strong_count(&one.requests) <= STREAMS) {
                self.place = Some(Arc::clone(&one.requests));
                return Ok((Sender::Http2(one.sender.clone()), true));
            }
            let sender = connect(&server.known.address, plan.protocol, limit).await?;
            if let Sender::Http2(sender) = &sender {
                let requests = Arc::new(());
                self.place = Some(Arc::clone(&requests));
                shared.push(Http2 { sender: sender.clone(), requests });
            }
            return Ok((sender, false));
        }
        if !fresh && let Some(sender) = self.kept().await {
            return Ok((Sender::Http1(sender), true));
        }
        connect(&server.known.address, plan.protocol, limit).await.map(|sender| (sender, false))
    }

    /// A connection that was kept and is still good.
    async fn kept(&self) -> Option<http1::SendRequest<RequestBody>> {
        loop {
            let Idle { mut sender, since } =
                self.server().idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() >= self.upstream.kept_for() || sender.is_closed() {
                continue;
            }
            // Its answer is complete; its task may still have to notice.
            if sender.is_ready() || matches!(timeout(SETTLING, sender.ready()).await, Ok(Ok(()))) {
                return Some(sender);
            }
        }
    }

    pub(super) fn succeeded(&self) {
        self.server().known.health.succeeded();
    }

    /// The server failed: was not reached, broke off, or took too long.
    pub(in crate::proxy::serve) fn failed(&self, why: &str) {
        let (server, plan) = (&self.server().known, &self.upstream.plan);
        log::debug!("upstream {}: {}: {why}", self.upstream.name, server.label);
        if server.health.failed(plan.failures, plan.rest_ms) {
            log::warn!(
                "upstream {}: {} rests for {} ms: {why}",
                self.upstream.name,
                server.label,
                plan.rest_ms
            );
        }
    }

    /// The answer is complete: its connection may have the next request.
    pub(in crate::proxy::serve) fn complete(&mut self) {
        let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) else { return };
        let mut idle = self.server().idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(Idle { sender, since: Instant::now() });
        if idle.len() > self.upstream.keep {
            idle.remove(0);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(active) = self.active() {
            active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(servers: u16) -> Arc<Upstream> {
        let servers = (1..=servers).map(|port| Server::Tcp(([127, 0, 0, 1], port).into()));
        Upstream::start(
            "app",
            &plan::Upstream {
                servers: servers.collect(),
                protocol: UpstreamProtocol::Http1,
                buffer: 0,
                chunked: true,
                keep: 4,
                keep_ms: 1_000,
                connect_ms: 1_000,
                response_ms: 1_000,
                failures: 1,
                rest_ms: 60_000,
                health: None,
            },
        )
    }

    #[test]
    fn who_has_the_fewest_requests_is_asked() {
        let upstream = upstream(3);
        let mut leases: Vec<Lease> = (0..9).filter_map(|_| upstream.choose(&[])).collect();
        let active = || {
            upstream
                .servers
                .iter()
                .map(|server| server.known.active.load(Ordering::Relaxed))
                .collect::<Vec<_>>()
        };
        assert_eq!(active(), [3, 3, 3]);
        leases.retain(|lease| lease.index != 1);
        assert_eq!(active(), [3, 0, 3]);
        for _ in 0..3 {
            leases.extend(upstream.choose(&[]));
        }
        assert_eq!(active(), [3, 3, 3]);
    }

    #[test]
    fn who_rests_is_asked_only_when_there_is_nobody_else() {
        let upstream = upstream(2);
        upstream.choose(&[1]).expect("the first").failed("refused");
        for _ in 0..4 {
            assert_eq!(upstream.choose(&[]).map(|lease| lease.index), Some(1));
        }
        assert_eq!(upstream.choose(&[1]).map(|lease| lease.index), Some(0));
        assert!(upstream.choose(&[0, 1]).is_none());
    }
}
