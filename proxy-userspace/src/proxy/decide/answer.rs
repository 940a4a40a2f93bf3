//! Answers that the proxy makes itself: redirects, fixed ones, refusals. Called by [`super::request()`] and, through
//! [`super::Router::refusal`], by the network side.
//!
//! A refusal says its status and one sentence, in plain text: nothing of the request, of the upstream, or of this software.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::body::Bytes;

use super::host::Host;
use super::{Reason, RouteState};

/// What is served, for 405 (RFC 9110 10.2.1).
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// An answer of the proxy's own.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// All of them, `Content-Length` too; not `Date`, nor `Connection`.
    pub headers: HeaderMap,
    /// Empty for HEAD.
    pub body: Bytes,
    /// Why the proxy answers. Where [`Reason::closes`] the connection ends after it (HTTP/1: `Connection: close`; HTTP/2: only this
    /// stream ends).
    pub reason: Reason,
    /// The route that was found, if any.
    pub route: Option<Arc<RouteState>>,
}

/// What answers of one place have in common.
pub(super) struct Frame<'a> {
    /// The route that was found, if any.
    pub route: Option<&'a Arc<RouteState>>,
    /// Headers that all answers get.
    pub headers: &'a [(HeaderName, HeaderValue)],
    /// HEAD has no body.
    pub method: Option<&'a Method>,
}

impl Frame<'_> {
    /// Refuses, with the status of the reason, or 500 where it has none.
    pub fn refusal(&self, reason: Reason) -> Answer {
        self.refusal_with(reason, reason.status().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// Refuses what comes too fast.
    pub fn limited(&self, status: u16, wait_ns: u64) -> Answer {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        let mut answer = self.refusal_with(Reason::RateLimited, status);
        // Whole seconds (RFC 9110 10.2.3); rounded down, whoever obeys would come too early.
        let seconds = wait_ns.div_ceil(1_000_000_000).max(1);
        answer.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        answer
    }

    /// Sends the client elsewhere.
    pub fn redirect(
        &self,
        status: u16,
        to: &str,
        target: &str,
        host: Option<&Host>,
        local: IpAddr,
    ) -> Answer {
        let place = location(to, target, host, local);
        match (StatusCode::from_u16(status), HeaderValue::from_str(&place)) {
            (Ok(status), Ok(place)) => {
                let mut answer = self.page(Reason::Redirected, status, TEXT, text(status, ""));
                answer.headers.insert(header::LOCATION, place);
                answer
            }
            // A plan that was not checked.
            _ => self.refusal_with(Reason::Redirected, StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// What is always the same.
    pub fn fixed(&self, status: u16, content_type: &str, body: &Bytes) -> Answer {
        match (StatusCode::from_u16(status), HeaderValue::from_str(content_type)) {
            (Ok(status), Ok(kind)) => self.page(Reason::Responded, status, kind, body.clone()),
            _ => self.refusal_with(Reason::Responded, StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn refusal_with(&self, reason: Reason, status: StatusCode) -> Answer {
        let mut answer = self.page(reason, status, TEXT, text(status, reason.sentence()));
        answer.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if reason == Reason::MethodRefused {
            answer.headers.insert(header::ALLOW, ALLOW);
        }
        answer
    }

    fn page(&self, reason: Reason, status: StatusCode, kind: HeaderValue, body: Bytes) -> Answer {
        let mut headers = HeaderMap::new();
        // RFC 9110 8.6: neither has a length, nor a body.
        let none = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        if !none {
            headers.insert(header::CONTENT_TYPE, kind);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        add_missing(&mut headers, self.headers);
        Answer {
            status,
            headers,
            body: if none || self.method == Some(&Method::HEAD) { Bytes::new() } else { body },
            reason,
            route: self.route.cloned(),
        }
    }
}

/// Sets headers that are not there.
pub(super) fn add_missing(headers: &mut HeaderMap, more: &[(HeaderName, HeaderValue)]) {
    for (name, value) in more {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}

fn text(status: StatusCode, sentence: &str) -> Bytes {
    let phrase = status.canonical_reason().unwrap_or("Error");
    let space = if sentence.is_empty() { "" } else { ": " };
    format!("{} {phrase}{space}{sentence}\n", status.as_u16()).into()
}

/// Fills `{uri}` and `{host}` in. A place that begins with the client's own target stays on this host: `//elsewhere` would not.
fn location(to: &str, target: &str, host: Option<&Host>, local: IpAddr) -> String {
    let host = match (host, local.to_canonical()) {
        (Some(host), _) => host.in_url(),
        (None, IpAddr::V4(address)) => address.to_string(),
        (None, IpAddr::V6(address)) => format!("[{address}]"),
    };
    let mut place = String::with_capacity(to.len() + target.len() + host.len());
    let mut rest = to;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        place.push_str(before);
        if let Some(after) = from.strip_prefix("{uri}") {
            if place.is_empty() {
                place.push('/');
                place.push_str(target.trim_start_matches(['/', '\\']));
            } else {
                place.push_str(target);
            }
            rest = after;
        } else if let Some(after) = from.strip_prefix("{host}") {
            place.push_str(&host);
            rest = after;
        } else {
            place.push('{');
            rest = from.get(1..).unwrap_or("");
        }
    }
    place.push_str(rest);
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame<'a>(headers: &'a [(HeaderName, HeaderValue)], method: &'a Method) -> Frame<'a> {
        Frame { route: None, headers, method: Some(method) }
    }

    #[test]
    fn places_are_filled_in_and_stay_where_they_should() {
        let host = Host::parse(b"a.example:80").expect("a host");
        let six = Host::parse(b"[::1]").expect("a host");
        let local: IpAddr = [192, 168, 0, 104].into();
        for (to, target, host, expected) in [
            ("https://{host}{uri}", "/a?b=c", Some(&host), "https://a.example/a?b=c"),
            ("https://{host}{uri}", "//evil.example/", Some(&host), "https://a.example//evil.example/"),
            ("https://{host}/", "/a", Some(&six), "https://[::1]/"),
            ("https://{host}{uri}", "/a", None, "https://192.168.0.104/a"),
            ("https://b.example/x?from={uri}", "/a", Some(&host), "https://b.example/x?from=/a"),
            ("{uri}", "//evil.example/", Some(&host), "/evil.example/"),
            ("{uri}", "/\\evil.example", Some(&host), "/evil.example"),
            ("{uri}", "/a", Some(&host), "/a"),
            ("/{x}/{", "/a", Some(&host), "/{x}/{"),
            // What a client sends is never filled in itself.
            ("https://b{uri}", "/{host}", Some(&host), "https://b/{host}"),
        ] {
            assert_eq!(location(to, target, host, local), expected, "{to} {target}");
        }
        let six = location("https://{host}/", "/", None, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(six, "https://[::1]/");
    }

    #[test]
    fn refusals_have_their_headers_and_tell_nothing() {
        let common = [
            (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
            (header::ALLOW, HeaderValue::from_static("X")),
        ];
        for reason in Reason::ALL {
            let answer = frame(&common, &Method::GET).refusal(*reason);
            assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{reason:?}");
            assert_eq!(answer.headers["x-frame-options"], "DENY", "{reason:?}");
            assert_eq!(answer.headers[header::CONTENT_LENGTH], answer.body.len().to_string(), "{reason:?}");
            assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
            let text = String::from_utf8(answer.body.to_vec()).expect("text").to_lowercase();
            assert!(text.starts_with(answer.status.as_str()) && text.ends_with('\n'), "{text}");
            assert!(!text.contains("tollgate") && !text.contains(env!("CARGO_PKG_VERSION")), "{text}");
            assert!(!answer.headers.contains_key(header::SERVER));
            assert_eq!(answer.headers[header::ALLOW] == ALLOW, *reason == Reason::MethodRefused);
        }
    }

    #[test]
    fn head_has_the_length_without_the_body() {
        let get = frame(&[], &Method::GET).fixed(200, "text/html", &Bytes::from_static(b"<p>"));
        let head = frame(&[], &Method::HEAD).fixed(200, "text/html", &Bytes::from_static(b"<p>"));
        assert_eq!((get.body.as_ref(), head.body.as_ref()), (&b"<p>"[..], &b""[..]));
        assert_eq!(get.headers, head.headers);
        assert_eq!(head.headers[header::CONTENT_LENGTH], "3");
        assert!(!head.reason.closes());
    }

    #[test]
    fn no_content_has_no_length() {
        for status in [204, 304] {
            let answer = frame(&[], &Method::GET).fixed(status, "text/plain", &Bytes::from_static(b"x"));
            assert!(answer.body.is_empty() && answer.headers.is_empty(), "{status}");
        }
    }

    #[test]
    fn waits_are_rounded_up_to_seconds() {
        for (wait_ns, expected) in
            [(0, "1"), (1, "1"), (1_000_000_000, "1"), (1_000_000_001, "2"), (u64::MAX, "18446744074")]
        {
            let answer = frame(&[], &Method::GET).limited(429, wait_ns);
            assert_eq!(
                (answer.headers[header::RETRY_AFTER].to_str().ok(), answer.status.as_u16()),
                (Some(expected), 429)
            );
        }
        assert_eq!(frame(&[], &Method::GET).limited(503, 1).status, 503);
    }

    #[test]
    fn redirects_name_the_place() {
        for status in [301, 302, 303, 307, 308] {
            let answer = frame(&[], &Method::GET).redirect(
                status,
                "https://b{uri}",
                "/a",
                None,
                IpAddr::from([127, 0, 0, 1]),
            );
            assert_eq!((answer.status.as_u16(), answer.reason), (status, Reason::Redirected));
            assert_eq!(answer.headers[header::LOCATION], "https://b/a");
            assert!(!answer.reason.closes());
        }
    }
}
