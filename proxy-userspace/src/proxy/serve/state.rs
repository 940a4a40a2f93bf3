//! A plan that is ready to be served: once in common, and once for each thread that serves. Made by [`super::Service`], taken by each
//! request.
//!
//! What a request takes a hand on, and lets go of at its end, is of its thread alone: processors that count in the same place wait for
//! each other. What has to be the same for all (limits, offences, the health of servers) is shared by the copies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::challenge::Challenges;
use super::tls::{self, Certificates, Expiry, Tickets};
use super::upstream::Upstream;
use super::{Refused, threads, unix_ns};
use crate::proxy::decide::Router;
use crate::proxy::plan::{self, MOST_THREADS, Plan};

/// A plan, ready to be served.
pub(super) struct State {
    pub(super) plan: Arc<Plan>,
    pub(super) router: Router,
    pub(super) upstreams: BTreeMap<String, Arc<Upstream>>,
    pub(super) tls: tls::Configs,
    /// Listeners by address: a listener may get another name under connections that come in.
    pub(super) addresses: BTreeMap<SocketAddr, Arc<str>>,
    pub(super) expiries: Vec<Expiry>,
}

/// The plan in force, for each thread by number; the last one is in common, for all others.
pub(super) struct States(Vec<ArcSwap<State>>);

impl States {
    pub(super) fn new(state: State, threads: usize) -> Self {
        let twins = (0..threads).map(|number| state.twin(number, threads, None));
        let mut all: Vec<_> = twins.map(ArcSwap::from_pointee).collect();
        all.push(ArcSwap::from_pointee(state));
        Self(all)
    }

    fn at(&self, number: usize) -> Arc<State> {
        self.0[number.min(self.0.len() - 1)].load_full()
    }

    /// For who serves.
    pub(super) fn of_this_thread(&self) -> Arc<State> {
        self.at(threads::number())
    }

    /// For all others: what comes next is made from it, and its upstreams have no connections.
    pub(super) fn common(&self) -> Arc<State> {
        self.at(usize::MAX)
    }

    /// Puts another in force, which was made from the one in common.
    pub(super) fn replace(&self, state: State) -> Arc<State> {
        let state = Arc::new(state);
        let threads = self.0.len() - 1;
        for (number, place) in self.0.iter().enumerate().take(threads) {
            let before = place.load_full();
            place.store(Arc::new(state.twin(number, threads, Some(&before))));
        }
        self.0[threads].store(Arc::clone(&state));
        state
    }

    /// Closes connections to upstreams that were idle for too long.
    pub(super) fn sweep(&self) {
        for state in &self.0 {
            state.load().upstreams.values().for_each(|upstream| upstream.sweep());
        }
    }
}

impl State {
    /// The same for a thread; connections of the plan before stay.
    fn twin(&self, number: usize, threads: usize, before: Option<&Self>) -> Self {
        let upstreams = self.upstreams.iter().map(|(name, upstream)| {
            let kept = kept(before, name, &upstream.plan);
            (name.clone(), kept.unwrap_or_else(|| upstream.twin(number, threads)))
        });
        Self {
            plan: Arc::clone(&self.plan),
            router: self.router.twin(&self.plan),
            upstreams: upstreams.collect(),
            tls: self.tls.clone(),
            addresses: self.addresses.clone(),
            expiries: self.expiries.clone(),
        }
    }
}

fn kept(before: Option<&State>, name: &str, plan: &plan::Upstream) -> Option<Arc<Upstream>> {
    before?.upstreams.get(name).filter(|upstream| upstream.plan == *plan).cloned()
}

/// As planned, or one for each processor that this process may use (sched_getaffinity(2)).
pub(super) fn thread_count(plan: &Plan) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    plan.common.threads.map_or_else(processors, usize::from).clamp(1, MOST_THREADS.into())
}

/// Makes a plan ready. What did not change is taken over from the one before.
pub(super) fn prepare(
    plan: Plan,
    certificates: &Certificates,
    tickets: &Tickets,
    challenges: &Arc<Challenges>,
    before: Option<&State>,
) -> Result<State, Refused> {
    let now = i64::try_from(unix_ns() / 1_000_000_000).unwrap_or(i64::MAX);
    let (tls, expiries) = tls::listeners(&plan, certificates, tickets, challenges, now)?;
    let upstreams = plan.upstreams.iter().map(|(name, upstream)| {
        (name.clone(), kept(before, name, upstream).unwrap_or_else(|| Upstream::start(name, upstream)))
    });
    let upstreams = upstreams.collect();
    let router = match before {
        Some(before) => before.router.succeed(&plan),
        None => Router::new(&plan),
    };
    let mut addresses = BTreeMap::new();
    for (name, listener) in &plan.listeners {
        let name = Arc::<str>::from(name.as_str());
        addresses.extend(listener.bind.iter().map(|address| (*address, Arc::clone(&name))));
    }
    Ok(State { plan: Arc::new(plan), router, upstreams, tls, addresses, expiries })
}
