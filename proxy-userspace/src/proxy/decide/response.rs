//! What of an upstream's answer goes to the client. Called by the worker's connections for each answer.

use http::response::Parts;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};

use super::answer::add_missing;
use super::{Asked, Reason, RouteState, Trailers, framing, hop};

/// Makes an upstream's head into what the client gets. Its extensions are left as they are: whoever wants hyper's `OnUpgrade` takes
/// it out before. Says what of the answer's trailers goes on.
///
/// `Server` names the upstream's software and goes no further, nor does what speaks to a proxy (`X-Accel-*`, `X-Sendfile`). `Date` is
/// the upstream's, and the network side's where it has none (RFC 9110 6.6.1).
///
/// # Errors
/// [`Reason::UpstreamInvalid`] if it can't be passed on: an interim answer as the last one, a 101 that nobody asked for, a status
/// beyond 599, lengths that contradict themselves, a transfer coding that is not `chunked`.
pub fn response(route: &RouteState, asked: &Asked, head: &mut Parts) -> Result<Trailers, Reason> {
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if (head.status.is_informational() && !switching) || head.status.as_u16() > 599 {
        return Err(Reason::UpstreamInvalid);
    }
    if switching && !(asked.upgrade && is_websocket(head)) {
        return Err(Reason::UpstreamInvalid);
    }
    framing::of_message(&head.headers).map_err(|_| Reason::UpstreamInvalid)?;
    let trailers = match (asked.trailers, asked.version) {
        (false, _) => Trailers::default(),
        (true, Version::HTTP_2) => Trailers::of(&head.headers),
        (true, _) => Trailers::announced(&head.headers),
    };
    let of_the_upstream =
        |name: &str| matches!(name, "server" | "x-sendfile") || name.starts_with("x-accel-");
    hop::strip(&mut head.headers, |_| false, of_the_upstream);
    if switching || head.status == StatusCode::NO_CONTENT {
        // RFC 9110 8.6.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if asked.version == Version::HTTP_11
        && !head.headers.contains_key(header::CONTENT_LENGTH)
        && let Some(names) = trailers.announcement()
    {
        head.headers.insert(header::TRAILER, names);
    }
    if switching {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    add_missing(&mut head.headers, &route.headers);
    head.version = asked.version;
    Ok(trailers)
}

/// RFC 6455 4.2.2; the client compares the key.
fn is_websocket(head: &Parts) -> bool {
    let mut upgrades = head.headers.get_all(header::UPGRADE).iter();
    let named = upgrades.next().is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let accept: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
    named
        && upgrades.next().is_none()
        && hop::has_token(&head.headers, &header::CONNECTION, "upgrade")
        && head.headers.contains_key(accept)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Response};

    use super::super::tests::{asked, route};
    use super::*;

    fn answered(
        upgrade: bool,
        status: u16,
        lines: &[(&'static str, &'static str)],
    ) -> Result<HeaderMap, Reason> {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(status).expect("a status");
        for (name, value) in lines {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        let mut asked = asked();
        asked.upgrade = upgrade;
        response(&route(&[("x-frame-options", "DENY")]), &asked, &mut head).map(|_| head.headers)
    }

    #[test]
    fn hop_by_hop_headers_of_answers_end_here() {
        for (name, value) in [
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x"),
            ("proxy-authenticate", "Basic"),
            ("server", "WSGIServer/0.2 CPython/3.12"),
            ("x-accel-redirect", "/secret"),
            ("x-accel-buffering", "no"),
            ("x-sendfile", "/etc/passwd"),
        ] {
            let headers = answered(false, 200, &[(name, value), ("date", "x")]).expect("an answer");
            assert!(!headers.contains_key(name), "{name}");
            assert_eq!(headers["date"], "x");
        }
        let headers = answered(
            false,
            200,
            &[("connection", "x-a, content-length"), ("x-a", "1"), ("content-length", "3")],
        )
        .expect("an answer");
        assert!(!headers.contains_key("x-a") && headers["content-length"] == "3");
    }

    #[test]
    fn headers_of_the_policy_do_not_override() {
        let added = answered(false, 200, &[]).expect("an answer");
        let kept = answered(false, 404, &[("x-frame-options", "SAMEORIGIN")]).expect("an answer");
        assert_eq!(
            (&added["x-frame-options"], &kept["x-frame-options"]),
            (&"DENY".parse().expect("a value"), &"SAMEORIGIN".parse().expect("a value"))
        );
        assert_eq!(kept.get_all("x-frame-options").iter().count(), 1);
    }

    #[test]
    fn cookies_stay_apart() {
        let headers =
            answered(false, 200, &[("set-cookie", "a=1"), ("set-cookie", "b=2")]).expect("an answer");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn answers_that_can_not_be_passed_on_are_invalid() {
        for (status, lines) in [
            (100, &[][..]),
            (103, &[]),
            (101, &[("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-accept", "x")]),
            (600, &[]),
            (999, &[]),
            (200, &[("content-length", "1"), ("content-length", "2")]),
            (200, &[("content-length", "1, 2")]),
            (200, &[("content-length", "-1")]),
            (200, &[("content-length", "1"), ("transfer-encoding", "chunked")]),
            (200, &[("transfer-encoding", "gzip, chunked")]),
            (200, &[("transfer-encoding", "gzip")]),
        ] {
            assert_eq!(
                answered(false, status, lines).err(),
                Some(Reason::UpstreamInvalid),
                "{status} {lines:?}"
            );
        }
    }

    #[test]
    fn upgrades_are_answered_in_our_words() {
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "Upgrade, x-a"),
            ("sec-websocket-accept", "k"),
            ("x-a", "1"),
        ];
        let headers = answered(true, 101, &good).expect("an answer");
        assert_eq!(
            (headers["upgrade"].as_bytes(), headers["connection"].as_bytes()),
            (&b"websocket"[..], &b"upgrade"[..])
        );
        assert!(headers.contains_key("sec-websocket-accept") && !headers.contains_key("x-a"));
        for left_out in ["upgrade", "connection", "sec-websocket-accept"] {
            let lines: Vec<_> = good.into_iter().filter(|(name, _)| *name != left_out).collect();
            assert_eq!(
                answered(true, 101, &lines).err(),
                Some(Reason::UpstreamInvalid),
                "without {left_out}"
            );
        }
        // It may decline.
        let declined = answered(true, 200, &[("upgrade", "websocket")]).expect("an answer");
        assert!(!declined.contains_key("upgrade"));
    }

    #[test]
    fn no_content_has_no_length() {
        assert!(
            !answered(false, 204, &[("content-length", "0")])
                .expect("an answer")
                .contains_key("content-length")
        );
        assert!(
            answered(false, 304, &[("content-length", "9")])
                .expect("an answer")
                .contains_key("content-length")
        );
    }
}
