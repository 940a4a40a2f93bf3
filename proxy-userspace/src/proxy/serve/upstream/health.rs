//! Whether a server is worth asking: failures in a row make it rest, and answers to questions of our own say it is up or down.
//! Consulted by [`super::pool`]; the questions are asked by a task for each upstream that wants them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::{Method, Request, Version};
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use super::connect::connect;
use super::pool::{Known, Upstream};
use crate::proxy::plan::{Health as Checks, UpstreamProtocol};

/// What is known of a server.
#[derive(Debug)]
pub(in crate::proxy::serve) struct Health {
    begun: Instant,
    /// Failures in a row.
    failed: AtomicU32,
    /// Milliseconds since `begun`; 0: it does not rest.
    rests_until_ms: AtomicU64,
    /// Questions of our own that failed in a row.
    unanswered: AtomicU32,
    down: AtomicBool,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            failed: AtomicU32::new(0),
            rests_until_ms: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
            down: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether requests should go elsewhere.
    pub(in crate::proxy::serve) fn is_avoided(&self) -> bool {
        self.down.load(Ordering::Relaxed) || self.rests_until_ms.load(Ordering::Relaxed) > self.now_ms()
    }

    pub(super) fn succeeded(&self) {
        // Read first: a line of the cache that nobody writes is shared by all.
        if self.failed.load(Ordering::Relaxed) != 0 {
            self.failed.store(0, Ordering::Relaxed);
        }
    }

    /// Says whether the server begins to rest.
    pub(super) fn failed(&self, most: u32, rest_ms: u64) -> bool {
        if self.failed.fetch_add(1, Ordering::Relaxed) + 1 < most.max(1) {
            return false;
        }
        self.failed.store(0, Ordering::Relaxed);
        self.rests_until_ms.store(self.now_ms().saturating_add(rest_ms), Ordering::Relaxed);
        true
    }

    /// Takes the outcome of a question; says whether the server changed sides.
    fn asked(&self, answered: bool, most: u32) -> bool {
        if answered {
            self.unanswered.store(0, Ordering::Relaxed);
            return self.down.swap(false, Ordering::Relaxed);
        }
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        unanswered >= most.max(1) && !self.down.swap(true, Ordering::Relaxed)
    }
}

/// Asks each server again and again, until the upstream is gone.
pub(super) async fn check(upstream: Weak<Upstream>, checks: Checks) {
    let every = Duration::from_millis(checks.every_ms.max(1));
    loop {
        let Some(now) = upstream.upgrade() else { return };
        for server in &now.servers {
            let (server, checks) = (Arc::clone(&server.known), checks.clone());
            let (protocol, most) = (now.plan.protocol, now.plan.failures);
            let name = now.name.clone();
            tokio::spawn(async move {
                let limit = Duration::from_millis(checks.timeout_ms);
                let answered = timeout(limit, ask(&server, protocol, &checks)).await.unwrap_or(false);
                if server.health.asked(answered, most) {
                    let says = if answered { "is up again" } else { "is down" };
                    log::warn!("upstream {name}: {} {says}, says its health check", server.label);
                }
            });
        }
        drop(now);
        tokio::time::sleep(every).await;
    }
}

/// Whether it answers with a status below 400.
async fn ask(server: &Known, protocol: UpstreamProtocol, checks: &Checks) -> bool {
    let limit = Duration::from_millis(checks.timeout_ms);
    let Ok(mut sender) = connect(&server.address, protocol, limit).await else { return false };
    let request = match protocol {
        UpstreamProtocol::Http1 => Request::builder().uri(&checks.path).header("host", &checks.host),
        UpstreamProtocol::Http2 => {
            Request::builder().uri(format!("http://{}{}", checks.host, checks.path)).version(Version::HTTP_2)
        }
    };
    let request = request.method(Method::GET).header("user-agent", "tollgate").header("connection", "close");
    let Ok(mut request) = request.body(RequestBody::Empty) else { return false };
    if protocol == UpstreamProtocol::Http2 {
        request.headers_mut().remove("connection");
    }
    sender.send(request).await.is_ok_and(|response| response.status().as_u16() < 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rests_after_failures_in_a_row_and_only_so_long() {
        let health = Health::new();
        assert!(!health.failed(3, 1_000) && !health.failed(3, 1_000));
        health.succeeded();
        assert!(!health.failed(3, 1_000) && !health.failed(3, 1_000) && !health.is_avoided());
        assert!(health.failed(3, 1_000) && health.is_avoided());
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(health.is_avoided());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!health.is_avoided());
    }

    #[test]
    fn questions_take_it_down_and_one_answer_brings_it_back() {
        let health = Health::new();
        assert!(!health.asked(false, 2) && !health.is_avoided());
        assert!(health.asked(false, 2) && health.is_avoided());
        assert!(!health.asked(false, 2));
        assert!(health.asked(true, 2) && !health.is_avoided());
    }
}
