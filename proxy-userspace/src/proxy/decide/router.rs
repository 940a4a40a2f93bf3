//! The plan, compiled for lookups: listener, host, longest path prefix. Called by [`super::request`].
//!
//! The most specific route that has both host and path is taken: a host that is named has precedence over `*.`, the longer `*.` over
//! the shorter, and both over any; where the more specific has no route for the path, the less specific is asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::answer::{Answer, Frame};
use super::host::{self, Host};
use super::limit::Limiter;
use super::offences::{Ban, Offences};
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
}

/// A route, and its state.
#[derive(Debug)]
pub struct RouteState {
    /// As planned.
    pub plan: plan::Route,
    /// Its place in [`Plan::routes`].
    pub index: usize,
    /// The upstream's name, if it forwards.
    pub upstream: Option<Arc<str>>,
    /// What is spoken to it.
    pub protocol: UpstreamProtocol,
    /// Set on each answer unless it has them: the route's, then those of all routes.
    pub headers: Vec<(HeaderName, HeaderValue)>,
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
        Self::compile(plan, None)
    }

    /// Compiles the plan that follows this one: limits that did not change keep their state, and so do offences.
    pub fn succeed(&self, plan: &Plan) -> Self {
        Self::compile(plan, Some(self))
    }

    fn compile(plan: &Plan, before: Option<&Self>) -> Self {
        let known: HashMap<&str, &RouteState> = before
            .map(|before| {
                before.routes.iter().map(|route| (route.plan.name.as_str(), route.as_ref())).collect()
            })
            .unwrap_or_default();
        let state = |(index, route)| Arc::new(RouteState::new(plan, index, route, &known));
        let routes: Vec<Arc<RouteState>> = plan.routes.iter().enumerate().map(state).collect();
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
    fn new(plan: &Plan, index: usize, route: &plan::Route, known: &HashMap<&str, &Self>) -> Self {
        let before = known.get(route.name.as_str());
        let limiter = route.limit.as_ref().map(|limit| {
            let kept =
                before.and_then(|before| before.limiter.clone()).filter(|limiter| limiter.is_for(limit));
            kept.unwrap_or_else(|| Arc::new(Limiter::new(limit)))
        });
        let upstream = match &route.action {
            Action::Forward { upstream, .. } => Some(upstream.as_str()),
            Action::Redirect { .. } | Action::Respond { .. } => None,
        };
        Self {
            plan: route.clone(),
            index,
            upstream: upstream.map(Arc::from),
            protocol: upstream
                .and_then(|name| plan.upstreams.get(name))
                .map(|upstream| upstream.protocol)
                .unwrap_or_default(),
            headers: headers([&route.headers, &plan.common.headers]),
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
        let prefix = route.plan.path.trim_end_matches('/').as_bytes().to_vec();
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

#[cfg(test)]
mod tests {
    use super::super::tests::{client, plan, planned};
    use super::*;
    use crate::proxy::plan::{Escalation, RequestLimit};

    #[test]
    fn the_most_specific_route_is_taken() {
        let mut plan = plan();
        plan.routes = [
            ("exact", "web", "a.example", "/"),
            ("exact-api", "web", "a.example", "/api"),
            ("exact-api-v2", "web", "a.example", "/api/v2/"),
            ("below", "web", "*.example", "/"),
            ("below-b", "web", "*.b.example", "/"),
            ("only-path", "web", "c.example", "/only"),
            ("six", "web", "[2001:db8::1]", "/"),
            ("any", "web", "", "/"),
            ("any-api", "web", "", "/api"),
            ("other", "other", "", "/x"),
        ]
        .map(|(name, listener, host, path)| planned(name, listener, host, path))
        .into();
        let router = Router::new(&plan);
        for (listener, host, path, expected) in [
            ("web", "a.example", "/", "exact"),
            ("web", "A.EXAMPLE.:443", "/x", "exact"),
            ("web", "a.example", "/api", "exact-api"),
            ("web", "a.example", "/api/", "exact-api"),
            ("web", "a.example", "/api/x", "exact-api"),
            ("web", "a.example", "/apix", "exact"),
            ("web", "a.example", "/API", "exact"),
            ("web", "a.example", "/api/v2", "exact-api-v2"),
            ("web", "a.example", "/api/v2/", "exact-api-v2"),
            ("web", "a.example", "/api/v22", "exact-api"),
            ("web", "b.example", "/", "below"),
            ("web", "x.y.example", "/", "below"),
            ("web", "x.b.example", "/", "below-b"),
            ("web", "y.x.b.example", "/", "below-b"),
            ("web", "example", "/api", "any-api"),
            ("web", "notexample", "/", "any"),
            ("web", "c.example", "/only/x", "only-path"),
            ("web", "c.example", "/else", "below"),
            ("web", "[2001:db8:0:0::1]", "/", "six"),
            ("web", "", "/", "any"),
            ("web", "10.0.0.1", "/api/x", "any-api"),
            ("other", "a.example", "/x", "other"),
            ("other", "a.example", "/", "none"),
            ("unknown", "a.example", "/", "none"),
        ] {
            let host = Host::parse(host.as_bytes());
            let found = router.route(listener, host.as_ref(), path.as_bytes());
            assert_eq!(
                found.map_or("none", |route| &route.plan.name),
                expected,
                "{listener} {host:?} {path}"
            );
        }
    }

    #[test]
    fn headers_of_a_route_come_before_those_of_all() {
        let mut plan = plan();
        plan.common.headers =
            [("X-A", "all"), ("X-B", "all")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let mut route = planned("r", "web", "", "/");
        route.headers = [("x-a", "own"), ("bad name", "x"), ("x-c", "a\nb")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into();
        plan.routes = vec![route];
        let router = Router::new(&plan);
        let found: Vec<_> =
            router.routes()[0].headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(found, [("x-a", &b"own"[..]), ("x-b", b"all")]);
    }

    fn limited(ban_after: u32) -> Plan {
        let mut plan = plan();
        let mut route = planned("r", "web", "", "/");
        let exceed = Some(Escalation { ban_ms: 5000, after: ban_after });
        route.limit = Some(RequestLimit { interval_ns: 1000, burst: 0, status: 429, v6_prefix: 64, exceed });
        plan.routes = vec![route];
        plan.common.abuse = Some(Escalation { ban_ms: 7000, after: 2 });
        plan.common.trusted = vec!["10.0.0.0/8".parse().expect("a network")];
        plan
    }

    #[test]
    fn a_plan_that_follows_keeps_what_sources_owe() {
        let router = Router::new(&limited(2));
        let charge = |router: &Router| {
            router.routes()[0].limiter.as_ref().map(|l| l.charge([192, 0, 2, 1].into(), 1).is_ok())
        };
        assert_eq!(charge(&router), Some(true));
        assert_eq!(charge(&router.succeed(&limited(2))), Some(false));
        let mut other = limited(2);
        other.routes[0].limit.as_mut().expect("a limit").interval_ns = 2000;
        assert_eq!(charge(&router.succeed(&other)), Some(true));
        assert_eq!(
            router.offence(&client("192.0.2.1"), Reason::RateLimited, Some(&router.routes()[0]), 1),
            None
        );
        let next = router.succeed(&limited(2));
        assert!(
            next.offence(&client("192.0.2.1"), Reason::RateLimited, Some(&next.routes()[0]), 1).is_some()
        );
    }

    #[test]
    fn pitfall_15_the_peer_is_banned_and_no_proxy_nor_loopback() {
        for (peer, banned) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("127.8.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("10.2.3.4", false),
            ("::ffff:10.2.3.4", false),
        ] {
            let router = Router::new(&limited(2));
            let route = router.routes()[0].clone();
            for (reason, ms) in [(Reason::RateLimited, 5000), (Reason::BadHost, 7000)] {
                let offence = |now| router.offence(&client(peer), reason, Some(&route), now);
                assert_eq!(offence(1), None);
                let found = offence(2);
                let address: IpAddr = peer.parse().expect("an address");
                assert_eq!(
                    found.as_ref().map(|ban| (ban.address, ban.ms)),
                    banned.then_some((address.to_canonical(), ms))
                );
                assert!(found.is_none_or(|ban| ban.why.contains("within a minute")));
                assert_eq!(offence(3), None);
            }
        }
    }

    #[test]
    fn what_well_behaved_clients_meet_is_no_offence() {
        let router = Router::new(&limited(1));
        for reason in Reason::ALL {
            let expected = reason.is_abuse() || *reason == Reason::RateLimited;
            let quiet = Router::new(&plan());
            let found =
                Router::new(&limited(1)).offence(&client("192.0.2.1"), *reason, Some(&router.routes()[0]), 1);
            let once = found.is_some();
            // A minute's two are the least that abuse needs here.
            let second =
                router.offence(&client("192.0.2.1"), *reason, Some(&router.routes()[0]), 1).is_some();
            assert!(expected || (!once && !second), "{reason:?}");
            assert_eq!(quiet.offence(&client("192.0.2.1"), *reason, None, 1), None);
        }
        for reason in [
            Reason::NoRoute,
            Reason::UpstreamDown,
            Reason::UpstreamTimeout,
            Reason::BodyTooLarge,
            Reason::ClientTimeout,
        ] {
            assert!(!reason.is_abuse(), "{reason:?}");
        }
    }

    #[test]
    fn sources_are_prefixes() {
        for (address, prefix, same) in [
            ("2001:db8::1", 64, "2001:db8::"),
            ("2001:db8:1:2:3::", 48, "2001:db8:1::"),
            ("2001:db8::1", 128, "2001:db8::1"),
            ("2001:db8::1", 0, "::"),
            ("2001:db8::1", 200, "2001:db8::1"),
            ("192.0.2.1", 0, "::ffff:192.0.2.1"),
        ] {
            let same: IpAddr = same.parse().expect("an address");
            assert_eq!(
                source(address.parse().expect("an address"), prefix),
                source(same, 128),
                "{address}/{prefix}"
            );
        }
    }
}
