//! What the proxy counts: requests by route, class of status and reason, latency, connections. Plain values for whoever shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Shared, threads, unix_ns};
use crate::proxy::decide::Reason;
use crate::proxy::plan::Plan;

/// Upper ends of the buckets of latency, microseconds.
const BUCKETS_US: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];
const DAY: i64 = 86_400;
/// Routes of plans before that are still told, so that what they came to at last is not lost.
const FORMER: usize = 256;

/// What was counted since the start, and what is open now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Requests by route; the empty name is for those that came to no route.
    pub routes: BTreeMap<String, RouteCounts>,
    /// Refusals and failures, by [`Reason::name`].
    pub reasons: BTreeMap<String, u64>,
    /// Connections of clients that are open, tunnels too.
    pub connections: u32,
    /// Tunnels that are open.
    pub tunnels: u32,
    /// Connections that were taken.
    pub accepted: u64,
    /// From a request's head to the end of its answer; tunnels are left out.
    pub latency: Vec<LatencyBucket>,
    /// Sum of those, microseconds.
    pub latency_sum_us: u64,
    /// When certificates end.
    pub certificates: Vec<CertificateLife>,
    /// Servers of upstreams.
    pub servers: Vec<ServerHealth>,
}

/// Requests of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCounts {
    /// By hundreds of the status, 1xx first; none in the first place of all: there was no answer.
    pub classes: [u64; 6],
    /// Body bytes from clients.
    pub received: u64,
    /// Body bytes to clients.
    pub sent: u64,
}

/// Requests that took so long at most, and longer than the bucket before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// Microseconds; `None`: no end.
    pub upto_us: Option<u64>,
    /// Requests.
    pub count: u64,
}

/// How long a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateLife {
    /// The file of its chain.
    pub file: String,
    /// Whole days; below 0: it has expired.
    pub days: i64,
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHealth {
    /// The upstream's name.
    pub upstream: String,
    /// The server's address.
    pub server: String,
    /// It rests after failures, or its health check says that it is down.
    pub avoided: bool,
}

/// The counters themselves: for each thread that serves its own, and one for all others.
#[derive(Debug)]
pub(super) struct Counts(Vec<Shard>);

/// In lines of the cache that no other thread writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    routes: Mutex<BTreeMap<String, RouteCounts>>,
    /// By the places of [`Reason::ALL`].
    reasons: [AtomicU64; Reason::ALL.len()],
    accepted: AtomicU64,
    /// Those that began here, less those that ended here: less than nothing, maybe.
    tunnels: AtomicU32,
    latency: [AtomicU64; BUCKETS_US.len() + 1],
    latency_sum_us: AtomicU64,
}

/// A request that is over.
pub(super) struct Request<'a> {
    pub(super) route: Option<&'a str>,
    pub(super) status: u16,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// `None`: a tunnel.
    pub(super) took_us: Option<u64>,
}

impl Counts {
    pub(super) fn new(threads: usize) -> Self {
        Self((0..=threads).map(|_| Shard::default()).collect())
    }

    /// This thread's.
    fn shard(&self) -> &Shard {
        &self.0[threads::number().min(self.0.len() - 1)]
    }

    fn sum(&self, of: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.0.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum()
    }

    pub(super) fn reason(&self, reason: Reason) {
        self.shard().reasons[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn accepted(&self) {
        self.shard().accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tunnel_begins(&self) {
        self.shard().tunnels.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tunnel_ends(&self) {
        self.shard().tunnels.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn request(&self, request: &Request<'_>) {
        let shard = self.shard();
        let mut routes = shard.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let name = request.route.unwrap_or_default();
        if !routes.contains_key(name) {
            routes.insert(name.to_owned(), RouteCounts::default());
        }
        if let Some(counts) = routes.get_mut(name) {
            counts.classes[usize::from(request.status / 100).min(5)] += 1;
            counts.received += request.received;
            counts.sent += request.sent;
        }
        drop(routes);
        if let Some(took_us) = request.took_us {
            let bucket = BUCKETS_US.iter().position(|upto| took_us <= *upto).unwrap_or(BUCKETS_US.len());
            shard.latency[bucket].fetch_add(1, Ordering::Relaxed);
            shard.latency_sum_us.fetch_add(took_us, Ordering::Relaxed);
        }
    }

    /// Routes that the plan has not any more are forgotten when they are many: names that come and go would otherwise stay for good.
    fn routes_of(&self, plan: &Plan) -> BTreeMap<String, RouteCounts> {
        let names: BTreeSet<_> = plan.routes.iter().map(|route| route.name.as_str()).collect();
        let stays = |name: &str| name.is_empty() || names.contains(name);
        let mut all = BTreeMap::<String, RouteCounts>::new();
        for shard in &self.0 {
            let mut routes = shard.routes.lock().unwrap_or_else(PoisonError::into_inner);
            if routes.keys().filter(|name| !stays(name)).count() > FORMER {
                routes.retain(|name, _| stays(name));
            }
            for (name, counts) in &*routes {
                all.entry(name.clone()).or_default().add(counts);
            }
        }
        all
    }

    pub(super) fn snapshot(&self, shared: &Shared) -> Metrics {
        let state = shared.states.common();
        let now = i64::try_from(unix_ns() / 1_000_000_000).unwrap_or(i64::MAX);
        let reasons = Reason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), self.sum(|shard| &shard.reasons[*reason as usize])));
        let ends = BUCKETS_US.iter().copied().map(Some).chain([None]);
        let tunnels = self.0.iter().map(|shard| shard.tunnels.load(Ordering::Relaxed));
        let servers = state.upstreams.values().flat_map(|upstream| {
            upstream.servers.iter().map(|server| ServerHealth {
                upstream: upstream.name.clone(),
                server: server.known.label.clone(),
                avoided: server.known.health.is_avoided(),
            })
        });
        Metrics {
            routes: self.routes_of(&state.plan),
            reasons: reasons.filter(|(_, count)| *count > 0).collect(),
            connections: shared.seats.open(),
            tunnels: tunnels.fold(0, u32::wrapping_add),
            accepted: self.sum(|shard| &shard.accepted),
            latency: ends
                .enumerate()
                .map(|(place, upto_us)| LatencyBucket {
                    upto_us,
                    count: self.sum(|shard| &shard.latency[place]),
                })
                .collect(),
            latency_sum_us: self.sum(|shard| &shard.latency_sum_us),
            certificates: state
                .expiries
                .iter()
                .map(|expiry| CertificateLife {
                    file: expiry.file.display().to_string(),
                    days: (expiry.not_after - now).div_euclid(DAY),
                })
                .collect(),
            servers: servers.collect(),
        }
    }
}

impl RouteCounts {
    fn add(&mut self, other: &Self) {
        self.classes.iter_mut().zip(other.classes).for_each(|(class, more)| *class += more);
        self.received += other.received;
        self.sent += other.sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::plan::{Action, Route};

    #[test]
    fn routes_that_the_plan_has_not_any_more_are_forgotten_when_they_are_many() {
        let counts = Counts::new(1);
        let request = |route: Option<&str>| {
            counts.request(&Request { route, status: 200, received: 1, sent: 2, took_us: Some(3) });
        };
        [None, Some("stays"), Some("stays")].into_iter().for_each(request);
        (0..FORMER).for_each(|number| request(Some(&format!("former {number}"))));
        let route = Route {
            name: "stays".to_owned(),
            place: "policy.toml:1".to_owned(),
            listeners: vec!["web".to_owned()],
            hosts: Vec::new(),
            path: "/".to_owned(),
            action: Action::Respond { status: 200, content_type: String::new(), body: String::new() },
            limit: None,
            body: 0,
            headers: BTreeMap::new(),
        };
        let plan = Plan { routes: vec![route], ..Plan::default() };
        assert_eq!(counts.routes_of(&plan).len(), 2 + FORMER);
        request(Some("one more"));
        let shown = counts.routes_of(&plan).into_iter().map(|(name, one)| (name, one.classes[2]));
        assert_eq!(shown.collect::<Vec<_>>(), [(String::new(), 1), ("stays".to_owned(), 2)]);
    }
}
