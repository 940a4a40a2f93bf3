//! Headers that end here: hop-by-hop ones (RFC 9110 7.6.1), and names that upstreams could take for others. Called by
//! [`super::request()`] and [`super::response()`].

use http::header::{self, HeaderMap, HeaderName};

/// Whether a header has a value that is this token, in a comma-separated list, in any case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// Removes what is meant for this connection, and all other headers whose name (lower case) is `unwanted`. For this connection are
/// the known ones, and those that `Connection` names, but for framing, `Host` and what `kept` says, which no peer may have removed by
/// naming them.
pub(super) fn strip(headers: &mut HeaderMap, kept: impl Fn(&str) -> bool, unwanted: impl Fn(&str) -> bool) {
    // Most have none or one of them: one walk costs less than to ask for each.
    let mut gone: Vec<HeaderName> =
        headers.keys().filter(|name| is_of_connection(name) || unwanted(name.as_str())).cloned().collect();
    if gone.contains(&header::CONNECTION) {
        let named = tokens(headers, &header::CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST && !kept(name.as_str()));
        gone.extend(named);
    }
    for name in gone {
        headers.remove(name);
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The tokens of a header that is a comma-separated list, of all its lines.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn left(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        strip(&mut headers, |name| name == "x-kept", |name| name == "x-unwanted");
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "proxy-authorization",
            "proxy-authenticate",
        ] {
            assert_eq!(left(&[(name, "x"), ("accept", "y")]), ["accept"], "{name}");
        }
    }

    #[test]
    fn what_is_unwanted_ends_here_whoever_names_it() {
        assert_eq!(left(&[("x-unwanted", "1"), ("x-a", "1"), ("x-unwanted", "2")]), ["x-a"]);
        assert_eq!(left(&[("connection", "x-unwanted"), ("x-unwanted", "1"), ("x-kept", "1")]), ["x-kept"]);
    }

    #[test]
    fn what_connection_names_ends_here_but_for_framing_and_host() {
        for (connection, expected) in [
            ("x-a", &["content-length", "host", "x-b", "x-kept"][..]),
            ("close, X-A,x-b", &["content-length", "host", "x-kept"]),
            (" , x-a ,, \tx-b\t", &["content-length", "host", "x-kept"]),
            ("Host, Content-Length, x-kept", &["content-length", "host", "x-a", "x-b", "x-kept"]),
            ("x a, \"x-a\", x-a;q=1", &["content-length", "host", "x-a", "x-b", "x-kept"]),
            ("", &["content-length", "host", "x-a", "x-b", "x-kept"]),
        ] {
            let lines = [
                ("connection", connection),
                ("host", "h"),
                ("content-length", "1"),
                ("x-a", "1"),
                ("x-b", "1"),
                ("x-kept", "1"),
            ];
            assert_eq!(left(&lines), expected, "{connection}");
        }
        assert_eq!(
            left(&[("connection", "x-a"), ("connection", "x-b"), ("x-a", "1"), ("x-b", "1")]),
            [""; 0]
        );
    }

    #[test]
    fn tokens_are_found_in_any_line_and_case() {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_static("keep-alive"));
        headers.append("connection", HeaderValue::from_static("x, UPGRADE"));
        assert!(has_token(&headers, &header::CONNECTION, "upgrade"));
        assert!(!has_token(&headers, &header::CONNECTION, "up"));
    }
}
