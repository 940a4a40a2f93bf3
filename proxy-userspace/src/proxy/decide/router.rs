//! The plan, compiled for lookups: listener, host, longest path prefix. Called by [`super::request`].

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::{Answer, Ban, Client, Reason};
use crate::proxy::plan::{self, Plan};

/// All routes, and what they share.
#[derive(Debug)]
pub struct Router {}

/// A route, and its state.
#[derive(Debug)]
pub struct RouteState {
    /// As planned.
    pub plan: plan::Route,
    /// Its place in [`Plan::routes`].
    pub index: usize,
    /// The upstream's name, if it forwards.
    pub upstream: Option<Arc<str>>,
    /// Set on each answer unless it has them: the route's, then those of all routes.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Router {
    /// Compiles a plan. Counts begin at nothing.
    pub fn new(plan: &Plan) -> Self {
        let _ = plan;
        unimplemented!()
    }

    /// Compiles the plan that follows this one: limits that did not change keep their state, and so do offences.
    pub fn succeed(&self, plan: &Plan) -> Self {
        let _ = plan;
        unimplemented!()
    }

    /// Whether this is a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let _ = address;
        unimplemented!()
    }

    /// The answer to what is refused or has failed. Without a method (nothing could be parsed) it has a body.
    pub fn refusal(
        &self,
        reason: Reason,
        route: Option<&Arc<RouteState>>,
        method: Option<&Method>,
    ) -> Answer {
        let _ = (reason, route, method);
        unimplemented!()
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
        let _ = (client, reason, route, now_ns);
        unimplemented!()
    }
}
