//! The decision on a request. Called by the worker's connections for each request.
//!
//! The order: what the head says of itself (version, method, sizes, framing), host, target, route; then what the route does: its
//! limit, the body's length, its action. Requests that are refused before the route was found are charged to no limit.

use std::sync::Arc;

use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version, header};

use super::answer::Answer;
use super::host::{self, Host};
use super::{
    Asked, Client, Decision, Forward, Reason, RouteState, Router, Trailers, forwarded, framing, hop, target,
};
use crate::proxy::plan::{Action, UpstreamProtocol};

/// What happens to a request with this head.
///
/// `body` is the exact length of the body if it is known (hyper's `size_hint().exact()`): `Some(0)` if there is none. `id` is an id
/// of the network side's making. `now_ns` comes from a clock that only goes forward, the same at each call.
pub fn request(
    router: &Router,
    client: &Client,
    mut head: Parts,
    body: Option<u64>,
    id: HeaderValue,
    now_ns: u64,
) -> (Asked, Decision) {
    let who = forwarded::who(router, client, &head.headers);
    let mut asked = Asked {
        method: head.method.clone(),
        uri: head.uri.clone(),
        version: head.version,
        host: None,
        referer: head.headers.get(header::REFERER).cloned(),
        user_agent: head.headers.get(header::USER_AGENT).cloned(),
        client: who.client,
        id,
        trailers: match head.version {
            Version::HTTP_2 => true,
            Version::HTTP_11 => hop::has_token(&head.headers, &header::TE, "trailers"),
            _ => false,
        },
        upgrade: false,
    };
    let refused = |reason, method: &Method| Decision::Answer(router.refusal(reason, None, Some(method)));
    let declared = match acceptable(router, &head, body) {
        Ok(declared) => declared,
        Err(reason) => {
            let decision = refused(reason, &asked.method);
            return (asked, decision);
        }
    };
    let host = match host::of_request(&head) {
        Ok(host) => host,
        Err(reason) => {
            let decision = refused(reason, &asked.method);
            return (asked, decision);
        }
    };
    let (host, text) = host.unzip();
    asked.host.clone_from(&text);
    let uri = asked.uri.clone();
    let route = target::origin_form(&uri).and_then(|target| {
        let path = target.split_once('?').map_or(target.as_ref(), |(path, _)| path);
        let path = target::for_matching(path)?;
        let route = router.route(&client.listener, host.as_ref(), &path).cloned();
        Ok((target, route.ok_or(Reason::NoRoute)?))
    });
    let (target, route) = match route {
        Ok(found) => found,
        Err(reason) => {
            let decision = refused(reason, &asked.method);
            return (asked, decision);
        }
    };
    if let Some(answer) = answered(router, client, &route, &asked, host.as_ref(), &target, body, now_ns) {
        return (asked, Decision::Answer(answer));
    }
    asked.upgrade = matches!(route.plan.action, Action::Forward { websocket: true, .. })
        && route.protocol == UpstreamProtocol::Http1
        && framing::is_websocket(&head, body);
    // Where they are part of the framing; HTTP/1.1 servers take them for headers.
    let http2 = route.protocol == UpstreamProtocol::Http2;
    let trailers = if http2 { Trailers::of(&head.headers) } else { Trailers::default() };
    let te = http2 && hop::has_token(&head.headers, &header::TE, "trailers");
    rewrite_headers(&who, client, &asked, &mut head, declared, body);
    if te {
        head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    head.extensions = http::Extensions::new();
    let text = text.unwrap_or_else(|| local_host(client));
    if address(&mut head, &route, text, &target).is_err() {
        let decision = Decision::Answer(router.refusal(Reason::BadTarget, Some(&route), Some(&asked.method)));
        return (asked, decision);
    }
    let forward = Forward {
        retry_safe: body == Some(0) && head.method.is_idempotent(),
        body_limit: route.plan.body,
        body: body.or(declared),
        trailers,
        head,
        route,
    };
    (asked, Decision::Forward(Box::new(forward)))
}

/// What does not depend on the route. Gives the declared length of the body.
fn acceptable(router: &Router, head: &Parts, body: Option<u64>) -> Result<Option<u64>, Reason> {
    if !matches!(head.version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(Reason::VersionRefused);
    }
    // Methods are told apart by case, but not by every server.
    if ["CONNECT", "TRACE", "TRACK"].iter().any(|refused| head.method.as_str().eq_ignore_ascii_case(refused))
    {
        return Err(Reason::MethodRefused);
    }
    let sizes = &router.common.sizes;
    if target::length(&head.uri, head.version) > sizes.target as usize {
        return Err(Reason::TargetTooLong);
    }
    // A colon, a space, and the end of the line.
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head.headers.len() > usize::from(sizes.header_count) || bytes > sizes.headers as usize {
        return Err(Reason::HeaderTooLarge);
    }
    framing::of_request(head, body)
}

/// What the proxy answers itself.
#[expect(clippy::too_many_arguments, reason = "all of one request, named once")]
fn answered(
    router: &Router,
    client: &Client,
    route: &Arc<RouteState>,
    asked: &Asked,
    host: Option<&Host>,
    target: &str,
    body: Option<u64>,
    now_ns: u64,
) -> Option<Answer> {
    let frame = router.frame(Some(route), Some(&asked.method));
    if let (Some(limiter), Some(limit)) = (&route.limiter, &route.plan.limit)
        && let Err(wait_ns) = limiter.charge(asked.client, now_ns)
    {
        return Some(frame.limited(limit.status, wait_ns));
    }
    if body.is_some_and(|body| body > route.plan.body) {
        return Some(frame.refusal(Reason::BodyTooLarge));
    }
    match &route.plan.action {
        Action::Forward { .. } => None,
        Action::Redirect { status, to } => Some(frame.redirect(*status, to, target, host, client.local.ip())),
        Action::Respond { status, content_type, .. } => Some(frame.fixed(*status, content_type, &route.body)),
    }
}

fn rewrite_headers(
    who: &forwarded::Who,
    client: &Client,
    asked: &Asked,
    head: &mut Parts,
    declared: Option<u64>,
    body: Option<u64>,
) {
    let headers = &mut head.headers;
    // WSGI and CGI make `X_Real_IP` and `X-Real-IP` one, and `Proxy` an environment variable that clients obey.
    let unwanted = |name: &str| {
        name.contains('_') || matches!(name, "proxy" | "expect") || forwarded::is_replaced(name, who.trusted)
    };
    hop::strip(headers, forwarded::speaks_of_clients, unwanted);
    join_cookies(headers);
    forwarded::set(headers, who, client.tls.is_some(), &asked.id);
    match (body, declared) {
        // No length where none was: GET without a body is no GET with an empty one.
        (Some(0), None) | (None, None) => {
            headers.remove(header::CONTENT_LENGTH);
        }
        (Some(length), _) | (None, Some(length)) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    if asked.upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// HTTP/2 may send each cookie by itself; HTTP/1.1 has one line (RFC 9113 8.2.3).
fn join_cookies(headers: &mut header::HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// For HTTP/1.0 without any: what the client connected to.
fn local_host(client: &Client) -> HeaderValue {
    let local = client.local;
    let standard = if client.tls.is_some() { 443 } else { 80 };
    let text = match local.ip().to_canonical() {
        std::net::IpAddr::V6(address) => format!("[{address}]"),
        address => address.to_string(),
    };
    let text = if local.port() == standard { text } else { format!("{text}:{}", local.port()) };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("localhost"))
}

/// Sets version, target and host as the upstream's protocol has them.
fn address(head: &mut Parts, route: &RouteState, host: HeaderValue, target: &str) -> Result<(), ()> {
    let path = match head.uri.path_and_query() {
        // Shared with what was parsed.
        Some(path) if path.as_str() == target => path.clone(),
        _ => PathAndQuery::try_from(target).map_err(|_| ())?,
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    match route.protocol {
        UpstreamProtocol::Http1 => {
            head.version = Version::HTTP_11;
            head.headers.insert(header::HOST, host);
        }
        UpstreamProtocol::Http2 => {
            head.version = Version::HTTP_2;
            head.headers.remove(header::HOST);
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(host.as_bytes().try_into().map_err(|_| ())?);
        }
    }
    head.uri = Uri::from_parts(parts).map_err(|_| ())?;
    Ok(())
}
