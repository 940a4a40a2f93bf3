//! Requests that the proxy answers itself, and those next to them that it does not.

use http::{HeaderValue, header};

use super::*;

#[test]
fn pitfall_6_methods_that_are_not_served() {
    for method in ["CONNECT", "TRACE", "TRACK", "trace", "Track"] {
        for version in ["1.0", "1.1", "2"] {
            let answer =
                Try::new(&format!("{method} http://a.example/ {version}"), &[("host", "a.example")]).answer();
            assert_eq!((answer.reason, answer.status.as_u16()), (Reason::MethodRefused, 405));
            assert!(answer.headers[header::ALLOW].to_str().expect("text").contains("GET"), "{method}");
        }
    }
    let authority = Try::new("CONNECT a.example:443 1.1", &[]).refused();
    assert_eq!(authority, (Reason::MethodRefused, 405, true));
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"] {
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
            assert_eq!((answer.status.as_u16(), answer.reason.closes()), (expected, true));
        }
    }
    for (length, passes) in [(1000, true), (1001, false), (u64::MAX, false)] {
        let text = length.to_string();
        let decision = Try::new("POST / 1.1", &[("content-length", &text)]).body(Some(length)).run().1;
        assert_eq!(matches!(decision, Decision::Forward(_)), passes, "{length}");
    }
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
    assert_eq!(
        (answer.reason, answer.status.as_u16(), answer.reason.closes()),
        (Reason::RateLimited, 429, false)
    );
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
