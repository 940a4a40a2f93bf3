//! Which fields after a body go on: a list, and never what a header of that name would decide. Called by [`super::request()`] and
//! [`super::response()`].
//!
//! Servers and clients merge trailers with headers, so what would be refused, rewritten or removed there must not come in here.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{forwarded, hop};

/// What gRPC sends after an answer, announced or not.
const GRPC: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];
/// Names that are looked at of those that a sender announces.
const MOST: usize = 16;

/// The trailers of a message that go on; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers {
    grpc: bool,
    announced: Vec<HeaderName>,
}

impl Trailers {
    /// Those that the sender announces (RFC 9110 6.6.2), and gRPC's, as far as they may be there.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { grpc: true, ..Self::announced(headers) }
    }

    /// Those that the sender announces, as far as they may be there: HTTP/1.1 has no others.
    pub(super) fn announced(headers: &HeaderMap) -> Self {
        let named = hop::tokens(headers, &header::TRAILER).take(MOST);
        let names = named.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        Self { grpc: false, announced: names.filter(|name| !is_forbidden(name.as_str())).collect() }
    }

    /// The announcement that goes on.
    pub(super) fn announcement(&self) -> Option<HeaderValue> {
        let names: Vec<&str> = self.announced.iter().map(HeaderName::as_str).collect();
        HeaderValue::from_str(&names.join(", ")).ok().filter(|value| !value.is_empty())
    }

    /// What of these goes on.
    pub fn pass(&self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        let passes = |name: &HeaderName| self.announced.contains(name) || (self.grpc && GRPC.contains(name));
        let stopped: Vec<HeaderName> = trailers.keys().filter(|name| !passes(name)).cloned().collect();
        for name in stopped {
            trailers.remove(name);
        }
        (!trailers.is_empty()).then_some(trailers)
    }
}

/// RFC 9110 6.5.1: framing, routing, authentication, request modifiers, response controls, what describes the content; and what this
/// proxy says, or keeps from being said.
fn is_forbidden(name: &str) -> bool {
    const BEGINNINGS: [&str; 12] = [
        "content-",
        "proxy-",
        "if-",
        "accept",
        "sec-",
        "access-control-",
        "cross-origin-",
        "x-accel-",
        "x-forwarded",
        "x-remote-",
        "remote-",
        "x-xss-",
    ];
    const NAMES: [&str; 43] = [
        "age",
        "allow",
        "alt-svc",
        "authentication-info",
        "authorization",
        "cache-control",
        "clear-site-data",
        "connection",
        "cookie",
        "date",
        "expect",
        "expires",
        "from",
        "host",
        "http2-settings",
        "keep-alive",
        "last-modified",
        "link",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "proxy",
        "range",
        "referer",
        "referrer-policy",
        "refresh",
        "retry-after",
        "server",
        "set-cookie",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-content-type-options",
        "x-frame-options",
        "x-sendfile",
    ];
    name.contains('_')
        || NAMES.contains(&name)
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || forwarded::speaks_of_clients(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn passed(trailers: &Trailers, lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut names: Vec<_> =
            trailers.pass(map(lines)).iter().flat_map(HeaderMap::keys).map(ToString::to_string).collect();
        names.sort();
        names
    }

    const SENT: [(&str, &str); 5] = [
        ("grpc-status", "0"),
        ("x-checksum", "abc"),
        ("x-other", "1"),
        ("etag", "\"e\""),
        ("x-real-ip", "192.0.2.66"),
    ];

    #[test]
    fn what_is_announced_goes_on_and_grpc_unannounced() {
        let head = map(&[("trailer", "X-Checksum, etag"), ("trailer", "X-Real-IP, x a,, ")]);
        assert_eq!(passed(&Trailers::of(&head), &SENT), ["etag", "grpc-status", "x-checksum"]);
        assert_eq!(passed(&Trailers::announced(&head), &SENT), ["etag", "x-checksum"]);
        assert_eq!(passed(&Trailers::of(&HeaderMap::new()), &SENT), ["grpc-status"]);
        assert_eq!(Trailers::default().pass(map(&SENT)), None);
        let announced = Trailers::of(&head).announcement().expect("an announcement");
        assert_eq!(announced, "x-checksum, etag");
        assert_eq!(Trailers::of(&HeaderMap::new()).announcement(), None);
    }

    #[test]
    fn what_a_header_would_decide_does_not_go_on_however_it_is_announced() {
        for name in [
            "transfer-encoding",
            "content-length",
            "host",
            "trailer",
            "te",
            "connection",
            "upgrade",
            "keep-alive",
            "expect",
            "authorization",
            "proxy-authorization",
            "www-authenticate",
            "proxy-authenticate",
            "cookie",
            "set-cookie",
            "content-encoding",
            "content-type",
            "content-range",
            "content-security-policy",
            "cache-control",
            "if-match",
            "range",
            "max-forwards",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-proto",
            "forwarded",
            "x-request-id",
            "x_real_ip",
            "proxy",
            "location",
            "date",
            "vary",
            "age",
            "expires",
            "retry-after",
            "server",
            "x-accel-redirect",
            "x-sendfile",
            "x-frame-options",
            "x-content-type-options",
            "x-xss-protection",
            "strict-transport-security",
            "access-control-allow-origin",
            "sec-websocket-accept",
            "remote-user",
            "x-remote-user",
        ] {
            let head = map(&[("trailer", name)]);
            assert_eq!(passed(&Trailers::of(&head), &[(name, "x")]), [""; 0], "{name}");
        }
    }

    #[test]
    fn so_many_are_announced_and_no_more() {
        let many: Vec<String> = (0..MOST + 9).map(|number| format!("x-{number}")).collect();
        let mut head = HeaderMap::new();
        head.insert(header::TRAILER, HeaderValue::from_str(&many.join(",")).expect("a value"));
        assert_eq!(Trailers::of(&head).announced.len(), MOST);
    }
}
