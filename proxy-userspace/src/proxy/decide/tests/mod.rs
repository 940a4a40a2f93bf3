//! Requests as a whole, from head to decision; and what the tests of the parts begin with.

mod answered;
mod rewritten;
mod router;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};

use super::*;
use crate::proxy::plan::{self, Action, Plan, RequestLimit, Upstream, UpstreamProtocol};

/// A plan without routes, with the upstreams `app` and `app2` (HTTP/2).
pub(super) fn plan() -> Plan {
    let upstream = |protocol| Upstream {
        servers: vec![plan::Server::Tcp(([127, 0, 0, 1], 8000).into())],
        protocol,
        buffer: 0,
        chunked: true,
        keep: 8,
        keep_ms: 1000,
        connect_ms: 1000,
        response_ms: 1000,
        failures: 3,
        rest_ms: 1000,
        health: None,
    };
    Plan {
        upstreams: [
            ("app".to_owned(), upstream(UpstreamProtocol::Http1)),
            ("app2".to_owned(), upstream(UpstreamProtocol::Http2)),
        ]
        .into(),
        ..Plan::default()
    }
}

/// A route to `app`; an empty host is any.
pub(super) fn planned(name: &str, listener: &str, host: &str, path: &str) -> plan::Route {
    plan::Route {
        name: name.to_owned(),
        place: "a.toml:1".to_owned(),
        listeners: vec![listener.to_owned()],
        hosts: if host.is_empty() { Vec::new() } else { vec![host.to_owned()] },
        path: path.to_owned(),
        action: Action::Forward { upstream: "app".to_owned(), websocket: true },
        limit: None,
        body: 1000,
        headers: Default::default(),
    }
}

/// A client of `web`, without TLS.
pub(super) fn client(peer: &str) -> Client {
    let peer: IpAddr = peer.parse().expect("an address");
    Client {
        listener: "web".into(),
        peer: (peer, 50_000).into(),
        local: SocketAddr::from(([192, 168, 0, 104], 80)),
        tls: None,
    }
}

/// A plain GET.
pub(super) fn asked() -> Asked {
    Asked {
        method: Method::GET,
        uri: "/".parse().expect("a URI"),
        version: Version::HTTP_11,
        host: Some(HeaderValue::from_static("a.example")),
        referer: None,
        user_agent: None,
        client: [192, 0, 2, 1].into(),
        id: HeaderValue::from_static("id-1"),
        trailers: false,
        upgrade: false,
    }
}

/// A route's state with these headers.
pub(super) fn route(headers: &[(&str, &str)]) -> Arc<RouteState> {
    let mut plan = plan();
    plan.routes = vec![planned("r", "web", "", "/")];
    plan.common.headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Router::new(&plan).routes()[0].clone()
}

/// A request, and what it meets.
struct Try {
    plan: Plan,
    client: Client,
    head: http::request::Parts,
    body: Option<u64>,
}

impl Try {
    /// `METHOD TARGET VERSION`, and headers; `Host` is there unless HTTP/2 or one is given.
    fn new(line: &str, headers: &[(&str, &str)]) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().expect("a word");
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = word().parse().expect("a method");
        head.uri = word().parse().expect("a URI");
        head.version = match word() {
            "1.0" => Version::HTTP_10,
            "1.1" => Version::HTTP_11,
            "2" => Version::HTTP_2,
            "0.9" => Version::HTTP_09,
            other => panic!("{other}"),
        };
        if head.version == Version::HTTP_11 && !headers.iter().any(|(name, _)| *name == "host") {
            head.headers.insert("host", HeaderValue::from_static("a.example"));
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            head.headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let mut plan = plan();
        plan.routes = vec![planned("all", "web", "", "/")];
        Self { plan, client: client("192.0.2.1"), head, body: Some(0) }
    }

    fn body(mut self, body: Option<u64>) -> Self {
        self.body = body;
        self
    }

    fn trusting(mut self, net: &str) -> Self {
        self.plan.common.trusted.push(net.parse().expect("a network"));
        self
    }

    fn asking_from(mut self, peer: &str) -> Self {
        self.client = client(peer);
        self
    }

    fn tls(mut self, sni: Option<&str>) -> Self {
        self.client.tls = Some(TlsInfo {
            sni: sni.map(str::to_owned),
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
        });
        self
    }

    fn action(mut self, action: Action) -> Self {
        self.plan.routes[0].action = action;
        self
    }

    fn run(self) -> (Asked, Decision) {
        request(
            &Router::new(&self.plan),
            &self.client,
            self.head,
            self.body,
            HeaderValue::from_static("id-1"),
            1,
        )
    }

    fn forwarded(self) -> Forward {
        match self.run().1 {
            Decision::Forward(forward) => *forward,
            Decision::Answer(answer) => panic!("answered: {:?}", answer.reason),
        }
    }

    fn headers(self) -> HeaderMap {
        self.forwarded().head.headers
    }

    fn answer(self) -> Answer {
        match self.run().1 {
            Decision::Forward(_) => panic!("forwarded"),
            Decision::Answer(answer) => answer,
        }
    }

    fn refused(self) -> (Reason, u16, bool) {
        let answer = self.answer();
        (answer.reason, answer.status.as_u16(), answer.reason.closes())
    }
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}
