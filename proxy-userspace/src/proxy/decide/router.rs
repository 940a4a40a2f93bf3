//! The plan, compiled for lookups: listener, host, longest path prefix. Called by [`super::request()`].
//!
//! The most specific route that has both host and path is taken: a host that is named has precedence over `*.`, the longer `*.` over
//! the shorter, and both over any; where the more specific has no route for the path, the less specific is asked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::answer::{Answer, Frame};
use super::host::{self, Host};
use super::limit::Limiter;
use super::offences::{Ban, Offences};
use super::target::for_matching;
use super::zones::Zones;
use super::{Client, Reason};
use crate::proxy::plan::{self, Action, Plan, UpstreamProtocol};

/// All routes, and what they share.
#[derive(Debug)]
pub struct Router {
    listeners: HashMap<String, Hosts>,
    routes: Vec<Arc<RouteState>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) common: plan::Common,
    abuse: Arc<Offences>,
    zones: Arc<Zones>,
}

/// A route, and its state.
#[derive(Debug)]
pub struct RouteState {
    /// As planned.
    pub plan: Arc<plan::Route>,
    /// The upstream's name, if it forwards.
    pub upstream: Option<Arc<str>>,
    /// What is spoken to it.
    pub protocol: UpstreamProtocol,
    /// Set on each answer unless it has them: the route's, then those of all routes.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is always answered, if it is.
    pub(super) body: Bytes,
    pub(super) limiter: Option<Arc<Limiter>>,
    exceeded: Arc<Offences>,
}

/// The routes of a listener.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<String, Paths>,
    /// By what follows `*.`.
    below: HashMap<String, Paths>,
    any: Paths,
}

/// Routes by prefix, without slashes at the end.
#[derive(Debug, Default)]
struct Paths {
    routes: HashMap<Vec<u8>, Arc<RouteState>>,
    /// The lengths that there are, longest first.
    lengths: Vec<usize>,
}

impl Router {
    /// Compiles a plan. Counts begin at nothing.
    pub fn new(plan: &Plan) -> Self {
        Self::compile(plan, None, Arc::new(Zones::new(&plan.zones)))
    }

    /// Compiles the plan that follows this one: limits that did not change keep their state, and so do offences.
    pub fn succeed(&self, plan: &Plan) -> Self {
        Self::compile(plan, Some(self), Arc::new(Zones::new(&plan.zones)))
    }

    /// The same for another thread, from the plan that this one is of: what is counted is shared, and what each request takes a hand on
    /// is not, since processors that count up and down in the same place wait for each other.
    pub fn twin(&self, plan: &Plan) -> Self {
        Self::compile(plan, Some(self), Arc::clone(&self.zones))
    }

    fn compile(plan: &Plan, before: Option<&Self>, zones: Arc<Zones>) -> Self {
        let known: HashMap<&str, &RouteState> = before
            .map(|before| {
                before.routes.iter().map(|route| (route.plan.name.as_str(), route.as_ref())).collect()
            })
            .unwrap_or_default();
        let state = |route| Arc::new(RouteState::new(plan, route, &known));
        let routes: Vec<Arc<RouteState>> = plan.routes.iter().map(state).collect();
        let mut listeners: HashMap<String, Hosts> = HashMap::new();
        for route in &routes {
            for listener in &route.plan.listeners {
                listeners.entry(listener.clone()).or_default().add(route);
            }
        }
        Self {
            listeners,
            routes,
            headers: headers([&plan.common.headers]),
            common: plan.common.clone(),
            abuse: before.map(|before| before.abuse.clone()).unwrap_or_default(),
            zones,
        }
    }

    /// All routes, in the plan's order.
    pub fn routes(&self) -> &[Arc<RouteState>] {
        &self.routes
    }

    /// Whether this is a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.common.trusted.iter().any(|net: &IpNet| net.contains(&address))
    }

    /// The zone that an address is in, by name, if the plan has zones.
    pub fn zone(&self, address: IpAddr) -> Option<&str> {
        self.zones.find(address)
    }

    /// The answer to what is refused or has failed. Without a method (nothing could be parsed) it has a body.
    pub fn refusal(
        &self,
        reason: Reason,
        route: Option<&Arc<RouteState>>,
        method: Option<&Method>,
    ) -> Answer {
        self.frame(route, method).refusal(reason)
    }

    /// Counts an offence of a peer, if it is one. Says once who is to be banned: never trusted proxies, nor loopback. Takes what the
    /// socket's peer is, never what `X-Forwarded-For` says.
    pub fn offence(
        &self,
        client: &Client,
        reason: Reason,
        route: Option<&RouteState>,
        now_ns: u64,
    ) -> Option<Ban> {
        let address = client.peer.ip().to_canonical();
        if address.is_loopback() || self.trusts(address) {
            return None;
        }
        let (escalation, offences) = if reason == Reason::RateLimited {
            let route = route?;
            (route.plan.limit.as_ref()?.exceed?, &route.exceeded)
        } else {
            (self.common.abuse.filter(|_| reason.is_abuse())?, &self.abuse)
        };
        let why = || match route {
            Some(route) if reason == Reason::RateLimited => {
                format!(
                    "{} requests within a minute beyond the limit of route {}",
                    escalation.after, route.plan.name
                )
            }
            _ => format!(
                "{} offences within a minute against TLS or HTTP, the last: {reason}",
                escalation.after
            ),
        };
        offences.count(address, escalation, now_ns).then(|| Ban {
            address,
            ms: escalation.ban_ms,
            why: why(),
        })
    }

    /// The route of a request; `path` in the form of [`super::target::for_matching`].
    pub(super) fn route(&self, listener: &str, host: Option<&Host>, path: &[u8]) -> Option<&Arc<RouteState>> {
        let hosts = self.listeners.get(listener)?;
        if let Some(Host { name, .. }) = host {
            if let Some(route) = hosts.exact.get(name).and_then(|paths| paths.find(path)) {
                return Some(route);
            }
            let mut below = name.as_str();
            while let Some((_, rest)) = below.split_once('.').filter(|_| !hosts.below.is_empty()) {
                if let Some(route) = hosts.below.get(rest).and_then(|paths| paths.find(path)) {
                    return Some(route);
                }
                below = rest;
            }
        }
        hosts.any.find(path)
    }

    pub(super) fn frame<'a>(
        &'a self,
        route: Option<&'a Arc<RouteState>>,
        method: Option<&'a Method>,
    ) -> Frame<'a> {
        Frame { route, headers: route.map_or(&self.headers, |route| &route.headers), method }
    }
}

impl RouteState {
    fn new(plan: &Plan, route: &plan::Route, known: &HashMap<&str, &Self>) -> Self {
        let before = known.get(route.name.as_str());
        let limiter = route.limit.as_ref().map(|limit| {
            let kept =
                before.and_then(|before| before.limiter.clone()).filter(|limiter| limiter.is_for(limit));
            kept.unwrap_or_else(|| Arc::new(Limiter::new(limit)))
        });
        // Bodies may be long: there is one of each, however many threads and plans have it.
        let same = before.filter(|before| *before.plan == *route);
        let (upstream, body) = match &route.action {
            Action::Forward { upstream, .. } => (Some(upstream.as_str()), Bytes::new()),
            Action::Redirect { .. } => (None, Bytes::new()),
            Action::Respond { body, .. } => {
                let kept = same.map(|same| same.body.clone());
                (None, kept.unwrap_or_else(|| Bytes::copy_from_slice(body.as_bytes())))
            }
        };
        Self {
            plan: same.map_or_else(|| Arc::new(route.clone()), |same| Arc::clone(&same.plan)),
            upstream: upstream.map(Arc::from),
            protocol: upstream
                .and_then(|name| plan.upstreams.get(name))
                .map(|upstream| upstream.protocol)
                .unwrap_or_default(),
            headers: headers([&route.headers, &plan.common.headers]),
            body,
            limiter,
            exceeded: before.map(|before| before.exceeded.clone()).unwrap_or_default(),
        }
    }
}

impl Hosts {
    fn add(&mut self, route: &Arc<RouteState>) {
        if route.plan.hosts.is_empty() {
            self.any.add(route);
        }
        for name in &route.plan.hosts {
            let paths = match name.strip_prefix("*.") {
                Some(rest) => self.below.entry(host::of_route(rest)),
                None => self.exact.entry(host::of_route(name)),
            };
            paths.or_default().add(route);
        }
    }
}

impl Paths {
    /// Of two routes that say the same, which no checked policy has, the first stays.
    fn add(&mut self, route: &Arc<RouteState>) {
        let path = &route.plan.path;
        // As paths of requests are; of a policy that was not checked, as it stands.
        let path = for_matching(path).unwrap_or(Cow::Borrowed(path.as_bytes()));
        let prefix = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
        if !self.lengths.contains(&prefix.len()) {
            self.lengths.push(prefix.len());
            self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.routes.entry(prefix).or_insert_with(|| route.clone());
    }

    fn find(&self, path: &[u8]) -> Option<&Arc<RouteState>> {
        self.lengths.iter().find_map(|length| {
            let prefix = path.get(..*length)?;
            let whole = path.get(*length).is_none_or(|next| *next == b'/');
            if whole { self.routes.get(prefix) } else { None }
        })
    }
}

/// One host: an IPv4 address, or an IPv6 /64, which a host has for itself.
pub fn host_of(address: IpAddr) -> [u64; 2] {
    source(address, 64)
}

/// A source as it is counted: its address or, of IPv6, its prefix. IPv4 stands as IPv4-mapped.
pub(super) fn source(address: IpAddr, v6_prefix: u8) -> [u64; 2] {
    let bits = match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => {
            let host = 128 - u32::from(v6_prefix.min(128));
            u128::from(address) & u128::MAX.checked_shl(host).unwrap_or(0)
        }
    };
    [(bits >> 64) as u64, bits as u64]
}

/// In order of precedence; what is no header, which no checked policy has, is left out.
fn headers<const N: usize>(
    sets: [&std::collections::BTreeMap<String, String>; N],
) -> Vec<(HeaderName, HeaderValue)> {
    let mut all: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in sets.into_iter().flatten() {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            continue;
        };
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, value));
        }
    }
    all
}
