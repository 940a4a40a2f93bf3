//! What upstreams get of a request.

use std::net::IpAddr;

use http::Version;

use super::*;

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
    let (asked, decision) = Try::new("GET /x?y 1.1", &upgrade).action(to_app2()).run();
    let Decision::Forward(forward) = decision else { panic!("answered") };
    assert_eq!(
        (forward.head.version, forward.head.uri.to_string()),
        (Version::HTTP_2, "http://a.example/x?y".to_owned())
    );
    assert!(!forward.head.headers.contains_key("host") && !asked.upgrade);
    assert!(
        !forward.head.headers.contains_key("upgrade") && !forward.head.headers.contains_key("connection")
    );
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
    let (found, decision) = Try::new("GET /ws 1.1", &asked).run();
    let Decision::Forward(forward) = decision else { panic!("answered") };
    assert!(found.upgrade && forward.retry_safe);
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
        assert!(!asked.upgrade);
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
        let length = body.or(expected.first().and_then(|length| length.parse().ok()));
        assert_eq!((forward.body, forward.body_limit), (length, 1000));
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
fn nothing_of_the_client_s_connection_reaches_the_upstream_s() {
    let mut case = Try::new("GET / 1.1", &[]);
    case.head.extensions.insert(7_u8);
    assert!(case.forwarded().head.extensions.is_empty());
}
