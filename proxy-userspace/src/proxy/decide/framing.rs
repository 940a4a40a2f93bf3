//! Whether a head says one thing about its body: `Transfer-Encoding`, `Content-Length`, `Expect`, and what HTTP/2 does not have.
//! Called by [`super::request()`] and [`super::response()`].

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{HeaderName, Version};

use super::{Reason, hop};

/// Checks a request (RFC 9112 6, RFC 9113 8.2.2, RFC 9110 10.1.1); gives the length that it declares.
///
/// # Errors
/// [`Reason::TeInvalid`], [`Reason::LengthInvalid`], [`Reason::ExpectRefused`] or [`Reason::BadHeader`].
pub(super) fn of_request(head: &Parts, body: Option<u64>) -> Result<Option<u64>, Reason> {
    if head.version == Version::HTTP_2 {
        no_connection_headers(&head.headers)?;
    }
    let declared = of_message(&head.headers)?;
    if head.headers.contains_key(header::TRANSFER_ENCODING) && head.version != Version::HTTP_11 {
        return Err(Reason::TeInvalid);
    }
    if let (Some(declared), Some(body)) = (declared, body)
        && declared != body
    {
        return Err(Reason::LengthInvalid);
    }
    let mut expected = head.headers.get_all(header::EXPECT).iter();
    if let Some(expect) = expected.next()
        && head.version != Version::HTTP_10
        && (!expect.as_bytes().eq_ignore_ascii_case(b"100-continue") || expected.next().is_some())
    {
        return Err(Reason::ExpectRefused);
    }
    Ok(declared)
}

/// What holds for requests and answers: at most one length, or one `chunked`, never both. Gives the length.
///
/// # Errors
/// [`Reason::TeInvalid`] or [`Reason::LengthInvalid`].
pub(super) fn of_message(headers: &HeaderMap) -> Result<Option<u64>, Reason> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (length, coding) = (lengths.next(), codings.next());
    if length.is_some() && coding.is_some() || lengths.next().is_some() {
        return Err(Reason::LengthInvalid);
    }
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
    {
        return Err(Reason::TeInvalid);
    }
    length.map(|length| digits(length.as_bytes()).ok_or(Reason::LengthInvalid)).transpose()
}

fn no_connection_headers(headers: &HeaderMap) -> Result<(), Reason> {
    let unknown = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    let te = headers.get_all(header::TE).iter().all(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if unknown.iter().any(|name| headers.contains_key(name)) || !te {
        return Err(Reason::BadHeader);
    }
    Ok(())
}

/// `parse` alone would take a sign.
fn digits(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Whether a request asks for a WebSocket in a way that may be passed on (RFC 6455 4.1): GET, HTTP/1.1, `websocket` alone, no body, a
/// key and version 13.
pub(super) fn is_websocket(head: &Parts, body: Option<u64>) -> bool {
    let headers = &head.headers;
    let only = |name: &HeaderName| {
        let mut lines = headers.get_all(name).iter();
        lines.next().filter(|_| lines.next().is_none()).map(http::HeaderValue::as_bytes)
    };
    head.method == http::Method::GET
        && head.version == Version::HTTP_11
        && body == Some(0)
        && only(&header::UPGRADE).is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
        && hop::has_token(headers, &header::CONNECTION, "upgrade")
        && only(&header::SEC_WEBSOCKET_VERSION) == Some(b"13")
        && only(&header::SEC_WEBSOCKET_KEY).is_some_and(is_nonce)
}

/// Sixteen bytes in base64.
fn is_nonce(key: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
    key.len() == 24 && key.ends_with(b"==") && key.iter().take(22).all(base64)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn head(version: Version, lines: &[(&'static str, &'static str)]) -> Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.version = version;
        for (name, value) in lines {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    #[test]
    fn pitfall_4_only_one_chunked_passes() {
        for (lines, expected) in [
            (&["chunked"][..], Ok(None)),
            (&["Chunked"], Ok(None)),
            (&["gzip, chunked"], Err(Reason::TeInvalid)),
            (&["identity, chunked"], Err(Reason::TeInvalid)),
            (&["chunked, chunked"], Err(Reason::TeInvalid)),
            (&["chunked", "chunked"], Err(Reason::TeInvalid)),
            (&["gzip", "chunked"], Err(Reason::TeInvalid)),
            (&["chunked, gzip"], Err(Reason::TeInvalid)),
            (&["identity"], Err(Reason::TeInvalid)),
            (&["chunked;x=1"], Err(Reason::TeInvalid)),
            (&["xchunked"], Err(Reason::TeInvalid)),
            (&["\"chunked\""], Err(Reason::TeInvalid)),
            (&[""], Err(Reason::TeInvalid)),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("transfer-encoding", *line)).collect();
            assert_eq!(of_request(&head(Version::HTTP_11, &lines), None), expected, "{lines:?}");
        }
        let old = head(Version::HTTP_10, &[("transfer-encoding", "chunked")]);
        assert_eq!(of_request(&old, None), Err(Reason::TeInvalid));
    }

    #[test]
    fn pitfall_5_lengths_that_do_not_say_one_thing_are_refused() {
        for (lines, body, expected) in [
            (&["5"][..], Some(5), Ok(Some(5))),
            (&["0"], Some(0), Ok(Some(0))),
            (&["5"], None, Ok(Some(5))),
            (&[], Some(0), Ok(None)),
            (&["5"], Some(4), Err(Reason::LengthInvalid)),
            (&["5", "6"], Some(5), Err(Reason::LengthInvalid)),
            (&["5", "5"], Some(5), Err(Reason::LengthInvalid)),
            (&["5, 5"], Some(5), Err(Reason::LengthInvalid)),
            (&["+5"], Some(5), Err(Reason::LengthInvalid)),
            (&["-1"], None, Err(Reason::LengthInvalid)),
            (&["0x5"], None, Err(Reason::LengthInvalid)),
            (&["5 "], Some(5), Err(Reason::LengthInvalid)),
            (&[""], Some(0), Err(Reason::LengthInvalid)),
            (&["18446744073709551616"], None, Err(Reason::LengthInvalid)),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            assert_eq!(of_request(&head(Version::HTTP_11, &lines), body), expected, "{lines:?}");
        }
        for coding in ["chunked", "gzip, chunked"] {
            let mut both = head(Version::HTTP_11, &[("content-length", "5")]);
            both.headers.insert("transfer-encoding", HeaderValue::from_static(coding));
            assert_eq!(of_request(&both, None), Err(Reason::LengthInvalid), "{coding}");
        }
    }

    #[test]
    fn only_100_continue_may_be_expected() {
        for (version, lines, expected) in [
            (Version::HTTP_11, &["100-continue"][..], Ok(None)),
            (Version::HTTP_11, &["100-Continue"], Ok(None)),
            (Version::HTTP_2, &["100-continue"], Ok(None)),
            (Version::HTTP_10, &["anything"], Ok(None)),
            (Version::HTTP_11, &["200-ok"], Err(Reason::ExpectRefused)),
            (Version::HTTP_11, &["100-continue, x"], Err(Reason::ExpectRefused)),
            (Version::HTTP_11, &["100-continue", "100-continue"], Err(Reason::ExpectRefused)),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("expect", *line)).collect();
            assert_eq!(of_request(&head(version, &lines), None), expected, "{lines:?}");
        }
    }

    #[test]
    fn headers_of_connections_do_not_belong_in_http2() {
        for (name, value, refused) in [
            ("connection", "close", true),
            ("connection", "", true),
            ("keep-alive", "1", true),
            ("proxy-connection", "close", true),
            ("transfer-encoding", "chunked", true),
            ("upgrade", "websocket", true),
            ("te", "gzip", true),
            ("te", "trailers, gzip", true),
            ("te", "trailers", false),
            ("accept", "*/*", false),
        ] {
            let expected = if refused { Err(Reason::BadHeader) } else { Ok(None) };
            assert_eq!(
                of_request(&head(Version::HTTP_2, &[(name, value)]), None),
                expected,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn pitfall_8_only_websockets_asked_for_properly_are_upgrades() {
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        assert!(is_websocket(&head(Version::HTTP_11, &good), Some(0)));
        for (name, value) in [
            ("upgrade", "h2c"),
            ("upgrade", "websocket, h2c"),
            ("upgrade", "TLS/1.2"),
            ("connection", "keep-alive"),
            ("sec-websocket-key", "short=="),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==="),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25 ZQ=="),
            ("sec-websocket-version", "8"),
        ] {
            let mut head = head(Version::HTTP_11, &good);
            head.headers.insert(name, HeaderValue::from_static(value));
            assert!(!is_websocket(&head, Some(0)), "{name}: {value}");
        }
        for (name, value) in good {
            let mut twice = head(Version::HTTP_11, &good);
            twice.headers.append(name, HeaderValue::from_static(value));
            assert_eq!(is_websocket(&twice, Some(0)), name == "connection", "{name} twice");
            let mut without = head(Version::HTTP_11, &good);
            without.headers.remove(name);
            assert!(!is_websocket(&without, Some(0)), "without {name}");
        }
        let mut post = head(Version::HTTP_11, &good);
        post.method = http::Method::POST;
        assert!(!is_websocket(&post, Some(0)));
        assert!(!is_websocket(&head(Version::HTTP_10, &good), Some(0)));
        assert!(!is_websocket(&head(Version::HTTP_11, &good), Some(1)));
        assert!(!is_websocket(&head(Version::HTTP_11, &good), None));
    }
}
