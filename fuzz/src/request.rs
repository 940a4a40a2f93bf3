//! Requests of strangers to the L7 proxy and answers of its upstreams, from the parsed head on: what an upstream, a client and the log
//! are given. The parsers before it are hyper's, which has targets of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header, response};
use tollgate::policy;
use tollgate::proxy::decide::log::{Record, line};
use tollgate::proxy::decide::{self, Asked, Client, Decision, Forward, Router, for_matching};
use tollgate::proxy::plan::{LogFormat, UpstreamProtocol};

/// `proxy.toml`, as the worker has it.
static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let policy =
        policy::parse(include_str!("../proxy.toml"), Path::new("proxy.toml")).expect("the policy is good");
    Router::new(&policy.proxy.expect("it has routes"))
});
/// A proxy that is trusted, and one of everybody else.
const PEERS: [&str; 2] = ["192.0.2.9:40000", "[2001:db8:9::1]:40000"];
const VERSIONS: [Version; 3] = [Version::HTTP_11, Version::HTTP_10, Version::HTTP_2];
/// What no upstream is sent, whatever a client sends: hop-by-hop headers, those that only this proxy may say something in, and
/// those that programs take for others.
const NEVER: [&str; 9] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy",
    "transfer-encoding",
    "trailer",
    "expect",
    "forwarded",
    "http2-settings",
];

/// Reads bytes as a request and the answer to it. The first says version, peer and length of the body; then come the lines of the
/// request, an empty one, and those of the answer.
///
/// # Panics
/// If the upstream, the client or the log is given what may not be.
pub fn run(data: &[u8]) {
    let Some((flags, text)) = data.split_first() else { return };
    let version = VERSIONS[usize::from(flags & 3) % VERSIONS.len()];
    let peer: SocketAddr = PEERS[usize::from(flags >> 2 & 1)].parse().expect("an address");
    let client = Client { listener: "web".into(), peer, local: ([192, 0, 2, 1], 80).into(), tls: None };
    let mut lines = text.split(|byte| *byte == b'\n');
    let Some(head) = request(version, &mut lines) else { return };
    let body = match flags >> 3 & 3 {
        0 => Some(0),
        1 => length(&head.headers),
        _ => None,
    };
    let sent = head.clone();
    let id = HeaderValue::from_static("id-1");
    let (asked, decision) = decide::request(&ROUTER, &client, head, body, id, u64::from(*flags) << 24);
    let status = match decision {
        Decision::Forward(forward) => {
            forwarded(&forward, &client, &asked, &sent, body);
            answered(&forward, &asked, &mut lines)
        }
        Decision::Answer(answer) => {
            assert!((200..600).contains(&answer.status.as_u16()), "a client can't read {}", answer.status);
            let length = answer.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            let length: usize =
                length.and_then(|length| length.parse().ok()).expect("an answer of ours has a length");
            let is_head = asked.method == http::Method::HEAD;
            assert!(is_head || length == answer.body.len(), "the length of an answer is that of its body");
            answer.status.as_u16()
        }
    };
    noted(&client, &asked, status);
}

fn request<'a>(version: Version, lines: &mut impl Iterator<Item = &'a [u8]>) -> Option<Parts> {
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let (method, target) = (&first[..space], &first[space + 1..]);
    let mut request = Request::builder().method(method).uri(target).version(version).body(()).ok()?;
    *request.headers_mut() = headers(lines);
    Some(request.into_parts().0)
}

/// Header lines up to an empty one; those that no parser would let through are left out.
fn headers<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn count(headers: &HeaderMap, name: impl header::AsHeaderName) -> usize {
    headers.get_all(name).iter().count()
}

/// What an upstream is sent.
fn forwarded(forward: &Forward, client: &Client, asked: &Asked, sent: &Parts, body: Option<u64>) {
    let head = &forward.head;
    let is_trusted = client.peer.ip().is_ipv4();
    let http2 = forward.route.protocol == UpstreamProtocol::Http2;
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    assert!(target.starts_with('/'), "{target:?} is no origin form");
    assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{target:?} has bytes that no target has");
    let path = for_matching(target.split('?').next().unwrap_or("/")).expect("what is passed on was matched");
    let path = String::from_utf8_lossy(&path);
    let below = path == *forward.route.plan.path
        || path.starts_with(&format!("{}/", forward.route.plan.path.trim_end_matches('/')));
    assert!(below, "{path} is not below {}", forward.route.plan.path);
    assert!(
        !path.starts_with("/admin/") && path != "/admin" || http2,
        "{target:?} got around the route of /admin"
    );
    for name in head.headers.keys() {
        let name = name.as_str();
        assert!(!name.contains('_'), "{name} reads as another header to some");
        assert!(!NEVER.contains(&name), "{name} is not for upstreams");
        assert!(is_trusted || name != "x-forwarded-host", "{name} of a stranger");
    }
    if http2 {
        assert_eq!(count(&head.headers, header::HOST), 0, "HTTP/2 has an authority");
        assert!(head.uri.authority().is_some(), "HTTP/2 has an authority");
        assert_eq!(count(&head.headers, header::CONNECTION), 0, "HTTP/2 has no hop-by-hop headers");
    } else {
        assert_eq!(count(&head.headers, header::HOST), 1, "one host");
        assert_eq!(count(&head.headers, header::TE), 0, "TE is of one hop");
        assert_eq!(
            count(&head.headers, header::UPGRADE),
            usize::from(asked.upgrade),
            "upgrades are asked for"
        );
    }
    for name in ["x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-request-id"] {
        assert_eq!(count(&head.headers, name), 1, "one {name}");
    }
    let real = head.headers["x-real-ip"].to_str().expect("an address is ASCII");
    assert_eq!(real, asked.client.to_string(), "the client is who asks");
    assert!(is_trusted || asked.client == client.peer.ip(), "strangers say who they are");
    // What a trusted proxy wrote before it stays as it is.
    let chain = String::from_utf8_lossy(head.headers["x-forwarded-for"].as_bytes());
    assert!(chain.ends_with(&client.peer.ip().to_string()), "{chain} does not end with who is connected");
    assert!(count(&head.headers, header::CONTENT_LENGTH) <= 1, "one length");
    assert!(!forward.retry_safe || body == Some(0), "a body is sent once");
    assert!(forward.body != Some(0) || body.is_none_or(|body| body == 0), "a body is lost");
    let all = head.headers.values().map(HeaderValue::len).sum::<usize>();
    let given = sent.headers.values().map(HeaderValue::len).sum::<usize>();
    assert!(all <= given + 1024 + sent.uri.to_string().len(), "heads do not grow: {given} to {all}");
}

/// What a client is sent of an upstream's answer. Gives the status.
fn answered<'a>(forward: &Forward, asked: &Asked, lines: &mut impl Iterator<Item = &'a [u8]>) -> u16 {
    let Some(mut head) = answer(lines) else { return 502 };
    if decide::response(&forward.route, asked, &mut head).is_err() {
        return 502;
    }
    let status = head.status.as_u16();
    assert!(status == 101 || (200..600).contains(&status), "a client can't read {status}");
    assert!(status != 101 || asked.upgrade, "nobody asked for another protocol");
    assert_eq!(count(&head.headers, "x-frame-options"), 1, "the policy's header, or the upstream's own");
    assert!(count(&head.headers, header::CONTENT_LENGTH) <= 1, "one length");
    for name in
        ["server", "keep-alive", "proxy-connection", "transfer-encoding", "x-accel-redirect", "x-sendfile"]
    {
        assert_eq!(count(&head.headers, name), 0, "{name} is not for clients");
    }
    assert!(status == 101 || count(&head.headers, header::CONNECTION) == 0, "connections end at the proxy");
    status
}

fn answer<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> Option<response::Parts> {
    let status: u16 = std::str::from_utf8(lines.next()?).ok()?.trim().parse().ok()?;
    let mut answer = Response::builder().status(status).body(()).ok()?;
    *answer.headers_mut() = headers(lines);
    Some(answer.into_parts().0)
}

/// What the log is given: a line, whatever the client wrote.
fn noted(client: &Client, asked: &Asked, status: u16) {
    for format in [LogFormat::Json, LogFormat::Combined] {
        let mut out = Vec::new();
        let record = Record {
            unix_ns: 1,
            client,
            zone: None,
            asked: Some(asked),
            status,
            received: 0,
            sent: 0,
            duration_ns: 0,
            upstream_ns: None,
            route: None,
            upstream: None,
            reason: None,
        };
        line(format, &record, &mut out);
        let line = out.strip_suffix(b"\n").expect("a line ends");
        assert!(
            line.iter().all(|byte| (b' '..0x7f).contains(byte) || *byte >= 0x80),
            "a line steers a terminal"
        );
        if format == LogFormat::Json {
            serde_json::from_slice::<serde_json::Value>(line).expect("a line of JSON");
        }
    }
}
