//! Requests as a whole, from head to decision; and what the tests of the parts begin with.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use super::*;
use crate::proxy::plan::{self, Action, Plan, RequestLimit, Upstream, UpstreamProtocol};

/// A plan without routes, with the upstreams `app` and `app2` (HTTP/2).
pub(super) fn plan() -> Plan {
    let upstream = |protocol| Upstream {
        servers: vec![plan::Server::Tcp(([127, 0, 0, 1], 8000).into())],
        protocol,
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
        (answer.reason, answer.status.as_u16(), answer.close)
    }
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}

#[test]
fn pitfall_2_headers_that_upstreams_take_for_others_go_no_further() {
    for name in [
        "x_real_ip",
        "x_forwarded_for",
        "a_b",
        "_",
        "proxy",
        "forwarded",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-user",
        "x-forwarded-proto_",
        "expect",
    ] {
        let value = if name == "expect" { "100-continue" } else { "10.0.0.1" };
        let headers = Try::new("GET / 1.1", &[(name, value), ("x-own", "1")]).headers();
        assert!(!headers.contains_key(name), "{name}");
        assert_eq!(all(&headers, "x-own"), ["1"]);
    }
}

#[test]
fn strangers_are_not_believed_about_themselves() {
    let said = [
        ("x-real-ip", "10.9.9.9"),
        ("x-real-ip", "10.9.9.8"),
        ("x-forwarded-for", "10.9.9.9"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "mine"),
    ];
    let (asked, _) = Try::new("GET / 1.1", &said).run();
    assert_eq!(asked.client, IpAddr::from([192, 0, 2, 1]));
    let headers = Try::new("GET / 1.1", &said).headers();
    for (name, expected) in [
        ("x-real-ip", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "id-1"),
    ] {
        assert_eq!(all(&headers, name), [expected], "{name}");
    }
    let headers = Try::new("GET / 1.1", &[]).asking_from("::ffff:192.0.2.1").tls(None).headers();
    assert_eq!(
        (all(&headers, "x-real-ip"), all(&headers, "x-forwarded-proto")),
        (vec!["192.0.2.1"], vec!["https"])
    );
}

#[test]
fn trusted_proxies_are_believed_up_to_the_first_stranger() {
    for (said, real, chain) in [
        (&["203.0.113.7"][..], "203.0.113.7", "203.0.113.7, 10.0.0.1"),
        (&["198.51.100.1, 203.0.113.7"], "203.0.113.7", "198.51.100.1, 203.0.113.7, 10.0.0.1"),
        (&["198.51.100.1", "203.0.113.7"], "203.0.113.7", "198.51.100.1, 203.0.113.7, 10.0.0.1"),
        (&["203.0.113.7, 10.0.0.2"], "203.0.113.7", "203.0.113.7, 10.0.0.2, 10.0.0.1"),
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        (&["203.0.113.7:4711"], "203.0.113.7", "203.0.113.7:4711, 10.0.0.1"),
        (&["[2001:db8::7]:1"], "2001:db8::7", "[2001:db8::7]:1, 10.0.0.1"),
        (&["2001:db8::7"], "2001:db8::7", "2001:db8::7, 10.0.0.1"),
        (&["203.0.113.7, nonsense, 10.0.0.2"], "10.0.0.2", "203.0.113.7, nonsense, 10.0.0.2, 10.0.0.1"),
        (&["unknown"], "10.0.0.1", "unknown, 10.0.0.1"),
        (&[""], "10.0.0.1", "10.0.0.1"),
        (&[], "10.0.0.1", "10.0.0.1"),
    ] {
        let lines: Vec<_> = said.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let case = || Try::new("GET / 1.1", &lines).trusting("10.0.0.0/8").asking_from("10.0.0.1");
        assert_eq!(case().run().0.client.to_string(), real, "{said:?}");
        let headers = case().headers();
        assert_eq!((all(&headers, "x-real-ip"), all(&headers, "x-forwarded-for")), (vec![real], vec![chain]));
    }
}

#[test]
fn of_a_trusted_proxy_only_a_known_scheme_is_believed() {
    for (said, expected) in
        [("https", "https"), ("http", "http"), ("HTTPS", "http"), ("https, http", "http"), ("x", "http")]
    {
        let headers = Try::new(
            "GET / 1.1",
            &[("x-forwarded-proto", said), ("x-forwarded-host", "h"), ("forwarded", "for=x")],
        )
        .trusting("10.0.0.0/8")
        .asking_from("10.0.0.1")
        .headers();
        assert_eq!(all(&headers, "x-forwarded-proto"), [expected], "{said}");
        assert_eq!(all(&headers, "x-forwarded-host"), ["h"]);
        assert!(!headers.contains_key("forwarded"));
    }
}

#[test]
fn connection_takes_away_nothing_that_upstreams_rely_on() {
    let named =
        "close, host, content-length, x-real-ip, x-forwarded-for, x-forwarded-proto, x-request-id, x-own";
    let headers = Try::new("POST / 1.1", &[("connection", named), ("content-length", "3"), ("x-own", "1")])
        .body(Some(3))
        .headers();
    for (name, expected) in [
        ("host", "a.example"),
        ("content-length", "3"),
        ("x-real-ip", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "id-1"),
    ] {
        assert_eq!(all(&headers, name), [expected], "{name}");
    }
    assert!(!headers.contains_key("x-own") && !headers.contains_key("connection"));
    // Nor what a trusted proxy says.
    let headers =
        Try::new("GET / 1.1", &[("connection", "x-forwarded-for"), ("x-forwarded-for", "203.0.113.7")])
            .trusting("10.0.0.0/8")
            .asking_from("10.0.0.1")
            .headers();
    assert_eq!(all(&headers, "x-forwarded-for"), ["203.0.113.7, 10.0.0.1"]);
}

#[test]
fn pitfall_6_methods_that_are_not_served() {
    for method in ["CONNECT", "TRACE", "TRACK"] {
        for version in ["1.0", "1.1", "2"] {
            let answer =
                Try::new(&format!("{method} http://a.example/ {version}"), &[("host", "a.example")]).answer();
            assert_eq!((answer.reason, answer.status.as_u16()), (Reason::MethodRefused, 405));
            assert!(answer.headers[header::ALLOW].to_str().expect("text").contains("GET"), "{method}");
        }
    }
    let authority = Try::new("CONNECT a.example:443 1.1", &[]).refused();
    assert_eq!(authority, (Reason::MethodRefused, 405, false));
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "trace"] {
        let forward = Try::new(&format!("{method} / 1.1"), &[]).forwarded();
        assert_eq!(forward.head.method.as_str(), method);
        assert_eq!(
            forward.retry_safe,
            ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"].contains(&method),
            "{method}"
        );
    }
}

#[test]
fn requests_are_refused_with_the_right_status() {
    let long = "a".repeat(9000);
    let path = format!("GET /{long} 1.1");
    for (line, headers, body, expected) in [
        ("GET / 1.1", &[("host", "a b@c/d")][..], Some(0), (Reason::BadHost, 400, true)),
        ("GET / 1.1", &[("host", "")], Some(0), (Reason::BadHost, 400, true)),
        ("GET / 1.1", &[("host", "a"), ("host", "a")], Some(0), (Reason::BadHost, 400, true)),
        ("GET / 2", &[], Some(0), (Reason::BadHost, 400, true)),
        ("GET https://a/ 2", &[("host", "b")], Some(0), (Reason::BadHost, 400, true)),
        ("GET https://a/ 2", &[("te", "gzip")], Some(0), (Reason::BadHeader, 400, true)),
        ("GET / 0.9", &[("host", "a")], Some(0), (Reason::VersionRefused, 505, true)),
        ("OPTIONS * 1.1", &[], Some(0), (Reason::BadTarget, 400, true)),
        ("GET * 1.1", &[], Some(0), (Reason::BadTarget, 400, true)),
        ("GET a.example:80 1.1", &[("host", "a.example:80")], Some(0), (Reason::BadTarget, 400, true)),
        ("GET ftp://a.example/ 1.1", &[], Some(0), (Reason::BadTarget, 400, true)),
        ("GET /../etc 1.1", &[], Some(0), (Reason::BadTarget, 400, true)),
        ("GET /%00 1.1", &[], Some(0), (Reason::BadTarget, 400, true)),
        ("GET /%zz 1.1", &[], Some(0), (Reason::BadTarget, 400, true)),
        ("GET /\u{e9} 1.1", &[], Some(0), (Reason::BadTarget, 400, true)),
        (path.as_str(), &[], Some(0), (Reason::TargetTooLong, 414, true)),
        ("POST / 1.1", &[("transfer-encoding", "gzip, chunked")], None, (Reason::TeInvalid, 501, true)),
        ("POST / 1.0", &[("transfer-encoding", "chunked")], None, (Reason::TeInvalid, 501, true)),
        (
            "POST / 1.1",
            &[("transfer-encoding", "chunked"), ("content-length", "3")],
            None,
            (Reason::LengthInvalid, 400, true),
        ),
        ("POST / 1.1", &[("content-length", "3x")], Some(3), (Reason::LengthInvalid, 400, true)),
        ("POST / 1.1", &[("content-length", "1001")], Some(1001), (Reason::BodyTooLarge, 413, true)),
        ("POST / 1.1", &[("expect", "magic")], Some(0), (Reason::ExpectRefused, 417, true)),
    ] {
        assert_eq!(Try::new(line, headers).body(body).refused(), expected, "{line} {headers:?}");
    }
    let mut elsewhere = Try::new("GET / 1.1", &[]);
    elsewhere.client.listener = "other".into();
    assert_eq!(elsewhere.refused(), (Reason::NoRoute, 404, false));
}

#[test]
fn pitfall_10_sizes_are_limited_exactly() {
    for (sizes, passes) in [
        (plan::Sizes { target: 5, headers: 1000, header_count: 10, body: 1000 }, true),
        (plan::Sizes { target: 4, headers: 1000, header_count: 10, body: 1000 }, false),
        // `host: a.example` and `x: 12`, each with its end of line.
        (plan::Sizes { target: 5, headers: 24, header_count: 10, body: 1000 }, true),
        (plan::Sizes { target: 5, headers: 23, header_count: 10, body: 1000 }, false),
        (plan::Sizes { target: 5, headers: 1000, header_count: 2, body: 1000 }, true),
        (plan::Sizes { target: 5, headers: 1000, header_count: 1, body: 1000 }, false),
    ] {
        let mut case = Try::new("GET /abcd 1.1", &[("x", "12")]);
        case.plan.common.sizes = sizes;
        let decision = case.run().1;
        assert_eq!(matches!(decision, Decision::Forward(_)), passes, "{sizes:?}");
        if let Decision::Answer(answer) = decision {
            let expected = if sizes.target < 5 { 414 } else { 431 };
            assert_eq!((answer.status.as_u16(), answer.close), (expected, true));
        }
    }
    for (length, passes) in [(1000, true), (1001, false), (u64::MAX, false)] {
        let text = length.to_string();
        let decision = Try::new("POST / 1.1", &[("content-length", &text)]).body(Some(length)).run().1;
        assert_eq!(matches!(decision, Decision::Forward(_)), passes, "{length}");
    }
}

#[test]
fn upstreams_get_the_target_as_it_was_sent() {
    for (line, headers, uri, host) in [
        ("GET / 1.1", &[][..], "/", "a.example"),
        ("GET /a/../b?c=d/../e 1.1", &[], "/a/../b?c=d/../e", "a.example"),
        ("GET /a%2fb//c 1.1", &[], "/a%2fb//c", "a.example"),
        ("GET /? 1.1", &[], "/?", "a.example"),
        ("GET /{x}\"| 1.1", &[], "/{x}\"|", "a.example"),
        ("GET http://A.example:80/x?y 1.1", &[("host", "a.example:80")], "/x?y", "A.example:80"),
        ("GET http://a.example?y 1.1", &[], "/?y", "a.example"),
        ("GET https://A.example/x 2", &[], "/x", "A.example"),
        ("GET / 1.1", &[("host", "A.Example.:8080")], "/", "A.Example.:8080"),
        ("GET / 1.0", &[], "/", "192.168.0.104"),
    ] {
        let forward = Try::new(line, headers).forwarded();
        assert_eq!(forward.head.uri.to_string(), uri, "{line}");
        assert_eq!(all(&forward.head.headers, "host"), [host], "{line}");
        assert_eq!(forward.head.version, Version::HTTP_11);
    }
    let mut port = Try::new("GET / 1.0", &[]);
    port.client.local = "[2001:db8::1]:8006".parse().expect("an address");
    assert_eq!(all(&port.headers(), "host"), ["[2001:db8::1]:8006"]);
}

#[test]
fn http2_upstreams_get_an_authority() {
    let to_app2 = || Action::Forward { upstream: "app2".to_owned(), websocket: true };
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let forward = Try::new("GET /x?y 1.1", &upgrade).action(to_app2()).forwarded();
    assert_eq!(
        (forward.head.version, forward.head.uri.to_string()),
        (Version::HTTP_2, "http://a.example/x?y".to_owned())
    );
    assert!(!forward.head.headers.contains_key("host") && !forward.upgrade);
    assert!(
        !forward.head.headers.contains_key("upgrade") && !forward.head.headers.contains_key("connection")
    );
}

#[test]
fn dot_segments_do_not_evade_routes() {
    for path in [
        "/admin",
        "/a/../admin/x",
        "/a/%2e%2e/admin",
        "/a/..%2fadmin",
        "//admin",
        "/%61dmin",
        "/./admin",
        "/a/..//admin/",
    ] {
        let mut case = Try::new(&format!("GET {path} 1.1"), &[]);
        let mut admin = planned("admin", "web", "", "/admin");
        admin.action =
            Action::Respond { status: 403, content_type: "text/plain".to_owned(), body: "no".to_owned() };
        case.plan.routes.push(admin);
        let answer = case.answer();
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.route.map(|route| route.plan.name.clone()).as_deref(), Some("admin"));
    }
}

#[test]
fn pitfall_8_upgrades_are_written_anew_or_not_at_all() {
    let asked = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade, x-own"),
        ("x-own", "1"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ];
    let forward = Try::new("GET /ws 1.1", &asked).forwarded();
    assert!(forward.upgrade && !forward.retry_safe);
    let headers = forward.head.headers;
    for (name, expected) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ] {
        assert_eq!(all(&headers, name), [expected], "{name}");
    }
    assert!(!headers.contains_key("x-own"));
    let refusing = Action::Forward { upstream: "app".to_owned(), websocket: false };
    let h2c = [
        ("upgrade", "h2c"),
        ("connection", "Upgrade, HTTP2-Settings"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ];
    for case in [
        Try::new("GET /ws 1.1", &asked).action(refusing),
        Try::new("POST /ws 1.1", &asked),
        Try::new("GET /ws 1.1", &asked).body(None),
        Try::new("GET / 1.1", &h2c),
    ] {
        let (asked, decision) = case.run();
        let Decision::Forward(forward) = decision else { panic!("answered") };
        assert!(!forward.upgrade && !asked.upgrade);
        for name in ["upgrade", "connection", "http2-settings"] {
            assert!(!forward.head.headers.contains_key(name), "{name}");
        }
    }
}

#[test]
fn pitfall_9_expect_is_not_passed_on() {
    let headers = Try::new("POST / 1.1", &[("expect", "100-continue"), ("content-length", "3")])
        .body(Some(3))
        .headers();
    assert!(!headers.contains_key("expect") && headers["content-length"] == "3");
}

#[test]
fn bodies_have_one_length_or_none() {
    for (line, headers, body, expected) in [
        ("GET / 1.1", &[][..], Some(0), &[][..]),
        ("POST / 1.1", &[("content-length", "0")], Some(0), &["0"]),
        ("POST / 1.1", &[("content-length", "007")], Some(7), &["7"]),
        ("POST / 1.1", &[("transfer-encoding", "chunked")], None, &[]),
        ("POST https://a/ 2", &[("content-length", "7")], None, &["7"]),
        ("POST https://a/ 2", &[], None, &[]),
        ("POST https://a/ 2", &[], Some(9), &["9"]),
    ] {
        let forward = Try::new(line, headers).body(body).forwarded();
        assert_eq!(all(&forward.head.headers, "content-length"), expected, "{line} {headers:?}");
        assert!(!forward.head.headers.contains_key("transfer-encoding"));
        assert_eq!((forward.body, forward.body_limit), (body, 1000));
        assert!(!forward.retry_safe || body == Some(0));
    }
}

#[test]
fn pitfall_11_cookies_are_one_line() {
    for (lines, expected) in
        [(&["a=1", "b=2", "c=3"][..], &["a=1; b=2; c=3"][..]), (&["a=1; b=2"], &["a=1; b=2"]), (&[], &[])]
    {
        let lines: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
        assert_eq!(all(&Try::new("GET https://a/ 2", &lines).headers(), "cookie"), expected);
        assert_eq!(all(&Try::new("GET / 1.1", &lines).headers(), "cookie"), expected);
    }
}

#[test]
fn traces_and_everything_else_pass() {
    let sent = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("authorization", "Basic x"),
        ("accept", "*/*"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
        ("x-csrftoken", "t"),
        ("origin", "https://a"),
    ];
    let headers = Try::new("GET / 1.1", &sent).headers();
    for (name, value) in sent {
        assert_eq!(all(&headers, name), [value]);
    }
}

#[test]
fn line_ends_and_nul_can_not_be_in_a_header_and_obs_text_can() {
    for value in [&b"a\r\nx: y"[..], b"a\nb", b"a\rb", b"a\0b"] {
        assert!(HeaderValue::from_bytes(value).is_err(), "{value:?}");
    }
    let mut case = Try::new("GET / 1.1", &[]);
    case.head.headers.insert("x-own", HeaderValue::from_bytes(b"caf\xe9").expect("obs-text"));
    assert_eq!(case.headers()["x-own"].as_bytes(), b"caf\xe9");
}

#[test]
fn pitfall_1_the_server_name_of_tls_does_not_choose_the_route() {
    for sni in [None, Some("a.example"), Some("b.example")] {
        let mut case = Try::new("GET / 1.1", &[("host", "b.example")]).tls(sni);
        case.plan.routes = vec![planned("a", "web", "a.example", "/"), planned("b", "web", "b.example", "/")];
        assert_eq!(case.forwarded().route.plan.name, "b", "{sni:?}");
    }
}

#[test]
fn pitfall_16_requests_over_the_limit_get_its_status_and_a_time() {
    let mut case = Try::new("GET / 1.1", &[]);
    case.plan.common.headers = [("X-Frame-Options".to_owned(), "DENY".to_owned())].into();
    case.plan.routes[0].limit =
        Some(RequestLimit { interval_ns: 1_500_000_000, burst: 1, status: 429, v6_prefix: 64, exceed: None });
    let router = Router::new(&case.plan);
    let ask = |peer: &str, now_ns| {
        request(&router, &client(peer), case.head.clone(), Some(0), HeaderValue::from_static("i"), now_ns).1
    };
    assert!(matches!(ask("192.0.2.1", 1), Decision::Forward(_)));
    assert!(matches!(ask("192.0.2.1", 1), Decision::Forward(_)));
    let Decision::Answer(answer) = ask("192.0.2.1", 1) else { panic!("forwarded") };
    assert_eq!((answer.reason, answer.status.as_u16(), answer.close), (Reason::RateLimited, 429, false));
    assert_eq!(
        (answer.headers["retry-after"].as_bytes(), answer.headers["x-frame-options"].as_bytes()),
        (&b"2"[..], &b"DENY"[..])
    );
    assert!(matches!(ask("192.0.2.2", 1), Decision::Forward(_)));
    assert!(matches!(ask("192.0.2.1", 1_500_000_001), Decision::Forward(_)));
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let limit = RequestLimit { interval_ns: 1000, burst: 0, status: 503, v6_prefix: 64, exceed: None };
    let mut plan = Try::new("GET / 1.1", &[]).trusting("10.0.0.0/8").plan;
    plan.routes[0].limit = Some(limit);
    let router = Router::new(&plan);
    for (peer, said, passes) in [
        ("10.0.0.1", "203.0.113.1", true),
        ("10.0.0.1", "203.0.113.1", false),
        ("10.0.0.2", "203.0.113.1", false),
        ("10.0.0.1", "203.0.113.2", true),
        // Strangers can't get another by saying so.
        ("192.0.2.1", "203.0.113.3", true),
        ("192.0.2.1", "203.0.113.4", false),
    ] {
        let head = Try::new("GET / 1.1", &[("x-forwarded-for", said)]).head;
        let decision = request(&router, &client(peer), head, Some(0), HeaderValue::from_static("i"), 1).1;
        assert_eq!(matches!(decision, Decision::Forward(_)), passes, "{peer} {said}");
    }
}

#[test]
fn routes_that_answer_do() {
    let redirect = || Action::Redirect { status: 301, to: "https://{host}{uri}".to_owned() };
    let answer = Try::new("GET /a?b=c 1.1", &[("host", "A.example:80")]).action(redirect()).answer();
    assert_eq!((answer.status.as_u16(), answer.reason), (301, Reason::Redirected));
    assert_eq!(answer.headers["location"], "https://a.example/a?b=c");
    let answer = Try::new("GET /a 1.0", &[]).action(redirect()).answer();
    assert_eq!(answer.headers["location"], "https://192.168.0.104/a");
    let respond =
        Action::Respond { status: 503, content_type: "text/html".to_owned(), body: "<p>".to_owned() };
    let answer = Try::new("HEAD / 1.1", &[]).action(respond).answer();
    assert_eq!(
        (answer.status.as_u16(), answer.headers["content-length"].as_bytes(), answer.body.len()),
        (503, &b"3"[..], 0)
    );
}

#[test]
fn nothing_of_the_client_s_connection_reaches_the_upstream_s() {
    let mut case = Try::new("GET / 1.1", &[]);
    case.head.extensions.insert(7_u8);
    assert!(case.forwarded().head.extensions.is_empty());
}
