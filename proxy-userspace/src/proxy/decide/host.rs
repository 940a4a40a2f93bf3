//! Which host a request is for: one valid `uri-host [":" port]`, or none. Called by [`super::request()`].
//!
//! Routes are found by the validated name alone; the upstream gets what was validated, as the client sent it (RFC 9110 7.2,
//! RFC 9112 3.2). Names are letters, digits, `-`, `_` and `.`: what RFC 3986 allows beyond them (percent-encoding, `!$&'()*+,;=`)
//! is in no DNS name, and frameworks disagree on its meaning.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::request::Parts;
use http::{HeaderValue, Version, header};

use super::Reason;

/// The longest name of DNS in text.
const LONGEST_NAME: usize = 253;

/// A host that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Lower case, without trailing dot; IPv6 in its canonical form, without brackets.
    pub name: String,
    /// Its port, if it was written.
    pub port: Option<u16>,
}

impl Host {
    /// Reads a `Host` header's value or an authority.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            let name = address.parse::<Ipv6Addr>().ok()?.to_string();
            let port = match port {
                "" => None,
                port => Some(self::port(port.strip_prefix(':')?)?),
            };
            return Some(Self { name, port });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(self::port(port)?)),
            None => (text, None),
        };
        Some(Self { name: self::name(name)?, port })
    }

    /// As it stands in a URL, without port.
    pub fn in_url(&self) -> String {
        if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() }
    }
}

/// A name as a route has it, in the form of [`Host::name`]; IPv6 with or without brackets.
pub(super) fn of_route(text: &str) -> String {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<Ipv6Addr>() {
        Ok(address) => address.to_string(),
        Err(_) => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

/// The host of a request, and its text as sent; `None` for HTTP/1.0 without any.
///
/// # Errors
/// [`Reason::BadHost`].
pub(super) fn of_request(head: &Parts) -> Result<Option<(Host, HeaderValue)>, Reason> {
    let mut lines = head.headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Reason::BadHost);
    }
    let parse = |text: &[u8]| Host::parse(text).ok_or(Reason::BadHost);
    let from_line = line.map(|line| parse(line.as_bytes()).map(|host| (host, line.clone()))).transpose()?;
    // RFC 9112 3.2: even where the target has an authority.
    if from_line.is_none() && head.version == Version::HTTP_11 {
        return Err(Reason::BadHost);
    }
    let Some(authority) = head.uri.authority() else {
        return match from_line {
            None if head.version != Version::HTTP_10 => Err(Reason::BadHost),
            host => Ok(host),
        };
    };
    let host = parse(authority.as_str().as_bytes())?;
    match from_line {
        Some((other, _)) if other != host => Err(Reason::BadHost),
        _ => {
            let text = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadHost)?;
            Ok(Some((host, text)))
        }
    }
}

fn name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let valid = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() > LONGEST_NAME || !name.split('.').all(valid) {
        return None;
    }
    // What looks like an address must be one: `1.2.3` and `0x7f.1` are read as addresses by some and as names by others.
    let last = name.rsplit('.').next()?;
    if last.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn port(text: &str) -> Option<u16> {
    // `parse` alone would take a sign.
    if text.len() > 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_hosts_are_read_for_routing() {
        for (text, name, port) in [
            ("example.org", "example.org", None),
            ("EXAMPLE.org", "example.org", None),
            ("example.org.", "example.org", None),
            ("example.org.:8443", "example.org", Some(8443)),
            ("example.org:0080", "example.org", Some(80)),
            ("localhost", "localhost", None),
            ("a_b-c.example", "a_b-c.example", None),
            ("192.168.0.104", "192.168.0.104", None),
            ("192.168.0.104:443", "192.168.0.104", Some(443)),
            ("[::1]", "::1", None),
            ("[2001:DB8:0:0::1]:8080", "2001:db8::1", Some(8080)),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ] {
            assert_eq!(Host::parse(text.as_bytes()), Some(Host { name: name.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn pitfall_7_empty_hosts_userinfo_and_bad_characters_are_refused() {
        let long = "a".repeat(64);
        let longer = ["a.".repeat(130).as_str(), "b"].concat();
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a b@c/d",
            "user@example.org",
            "user:pw@example.org",
            "example.org/",
            "example.org?x",
            "example.org#x",
            "example.org:",
            "example.org:x",
            "example.org:+80",
            "example.org:65536",
            "example.org:000080",
            "a:80:80",
            ":80",
            "a,b",
            "a%2eb",
            "a\\b",
            "a\tb",
            "a;b",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[]",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "2130706433",
            "a.7",
            "ex\u{e4}mple.org",
            "a\u{0}b",
            "<script>",
            "a'b",
            "a\"b",
            long.as_str(),
            longer.as_str(),
        ] {
            assert_eq!(Host::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Host::parse(b"caf\xe9.example"), None);
    }

    #[test]
    fn one_host_and_no_contradiction() {
        use Version as V;
        for (version, target, lines, expected) in [
            (V::HTTP_11, "/", &["a"][..], Ok(Some("a"))),
            (V::HTTP_11, "/", &[], Err(())),
            (V::HTTP_11, "/", &[""], Err(())),
            (V::HTTP_11, "/", &["a", "a"], Err(())),
            (V::HTTP_11, "/", &["a", "b"], Err(())),
            (V::HTTP_10, "/", &[], Ok(None)),
            (V::HTTP_10, "/", &["a"], Ok(Some("a"))),
            (V::HTTP_10, "/", &["a b"], Err(())),
            (V::HTTP_10, "http://A/", &[], Ok(Some("A"))),
            (V::HTTP_11, "http://A:80/", &["a:80"], Ok(Some("A:80"))),
            (V::HTTP_11, "http://a/", &["a:80"], Err(())),
            (V::HTTP_11, "http://a/", &["b"], Err(())),
            (V::HTTP_11, "http://a/", &[], Err(())),
            (V::HTTP_11, "http://u@a/", &["a"], Err(())),
            (V::HTTP_2, "https://a/", &[], Ok(Some("a"))),
            (V::HTTP_2, "https://a/", &["a"], Ok(Some("a"))),
            (V::HTTP_2, "https://a/", &["b"], Err(())),
            (V::HTTP_2, "https://u:p@a/", &[], Err(())),
            (V::HTTP_2, "/", &["a"], Ok(Some("a"))),
            (V::HTTP_2, "/", &[], Err(())),
        ] {
            let mut request = Request::builder().version(version).uri(target);
            for line in lines {
                request = request.header("host", *line);
            }
            let head = request.body(()).expect("a request").into_parts().0;
            let found = of_request(&head).map(|host| host.map(|(_, text)| text)).map_err(|reason| {
                assert_eq!(reason, Reason::BadHost);
            });
            assert_eq!(
                found,
                expected.map(|host| host.map(HeaderValue::from_static)),
                "{version:?} {target} {lines:?}"
            );
        }
    }

    #[test]
    fn hosts_of_routes_take_the_same_form() {
        for (text, name) in
            [("[::1]", "::1"), ("0:0::1", "::1"), ("A.example.", "a.example"), ("10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(of_route(text), name);
        }
    }

    proptest! {
        /// What is taken for a host is in a form that can stand in a URL and means the same there.
        #[test]
        fn what_is_read_is_read_again(text in "[a-cA-C0-9.:_@/ %-]{0,12}|[0-9.]{5,9}(:[0-9]{0,6})?|\\[[0-9a-f:.]{0,12}\\](:[0-9]{0,6})?") {
            if let Some(host) = Host::parse(text.as_bytes()) {
                prop_assert!(!text.contains(['@', '/', ' ', '%']), "{}", text);
                let again = Host { name: host.name.clone(), port: None };
                prop_assert_eq!(Host::parse(host.in_url().as_bytes()), Some(again));
                prop_assert_eq!(of_route(&host.in_url()), host.name);
            }
        }
    }
}
