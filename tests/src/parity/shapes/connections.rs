//! Versions of HTTP and TLS, connections that are kept, pipelines, upgrades.

use super::super::{Shape, Step, Tls, Via};
use super::{CRM, ODD, PLATFORM, get, once, request, steps, tls, to, with_body};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

pub(super) fn shapes() -> Vec<Shape> {
    let read = || Step::Read { head: false };
    let plain = |host| request("GET /plain", host, &[], b"");
    let old = |text: &str| text.replace('\n', "\r\n").into_bytes();
    let mut all = vec![
        once(
            "HTTP/1.0 with a host",
            to(PLATFORM),
            old(&format!("GET /plain HTTP/1.0\nHost: {PLATFORM}\n\n")),
        ),
        once("HTTP/1.0 without a host", to(CRM), old("GET /plain HTTP/1.0\n\n")),
        once("HTTP/1.0 without a host on plain HTTP", Via::Local, old("GET /plain HTTP/1.0\n\n")),
        steps(
            "HTTP/1.0 that keeps its connection",
            to(PLATFORM),
            vec![
                Step::Send(old(&format!(
                    "GET /plain HTTP/1.0\nHost: {PLATFORM}\nConnection: keep-alive\n\n"
                ))),
                read(),
                Step::Send(old(&format!("GET /secure HTTP/1.0\nHost: {PLATFORM}\n\n"))),
                read(),
            ],
        ),
        once(
            "HTTP/1.0 gets a stream",
            to(PLATFORM),
            old(&format!("GET /stream HTTP/1.0\nHost: {PLATFORM}\n\n")),
        ),
        once(
            "HTTP/1.0 with chunks",
            to(PLATFORM),
            old(&format!("POST /echo HTTP/1.0\nHost: {PLATFORM}\nTransfer-Encoding: chunked\n\n0\n\n")),
        ),
        once("HTTP/0.9", to(CRM), b"GET /plain\r\n".to_vec()),
        once("HTTP/1.2", to(PLATFORM), old(&format!("GET /plain HTTP/1.2\nHost: {PLATFORM}\n\n"))),
        once(
            "HTTP/2.0 in a line of HTTP/1",
            to(PLATFORM),
            old(&format!("GET /plain HTTP/2.0\nHost: {PLATFORM}\n\n")),
        ),
        once("HTTP/9.9", to(PLATFORM), old(&format!("GET /plain HTTP/9.9\nHost: {PLATFORM}\n\n"))),
        once(
            "no version that can be read",
            to(PLATFORM),
            old(&format!("GET /plain HTTP/x\nHost: {PLATFORM}\n\n")),
        ),
        once(
            "lines end with LF",
            to(PLATFORM),
            format!("GET /plain HTTP/1.1\nHost: {PLATFORM}\n\n").into_bytes(),
        ),
        once(
            "empty lines before the request",
            to(PLATFORM),
            [b"\r\n\r\n".to_vec(), plain(PLATFORM)].concat(),
        ),
        once("bytes that are no HTTP", to(CRM), b"\x16\x03\x01 what is this\r\n\r\n".to_vec()),
        once(
            "two spaces in the request line",
            to(PLATFORM),
            old(&format!("GET  /plain HTTP/1.1\nHost: {PLATFORM}\n\n")),
        ),
        steps("nothing is asked", to(CRM), vec![Step::Shut, Step::End]),
        steps(
            "half a head",
            to(CRM),
            vec![Step::Send(b"GET /plain HTTP/1.1\r\nHost: 192".to_vec()), Step::Shut, Step::End],
        ),
        steps(
            "two requests, one after the other",
            to(PLATFORM),
            vec![
                Step::Send(plain(PLATFORM)),
                read(),
                Step::Send(request("GET /secure", PLATFORM, &[], b"")),
                read(),
            ],
        ),
        steps(
            "three requests in a pipeline",
            to(PLATFORM),
            vec![
                Step::Send(
                    [plain(PLATFORM), request("GET /stream", PLATFORM, &[], b""), plain(PLATFORM)].concat(),
                ),
                read(),
                read(),
                read(),
            ],
        ),
        steps(
            "a pipeline behind a body",
            to(CRM),
            vec![
                Step::Send([with_body("POST /echo", CRM, &[], b"abc"), plain(CRM)].concat()),
                read(),
                read(),
            ],
        ),
        steps(
            "a connection after a 404",
            to(PLATFORM),
            vec![
                Step::Send(request("GET /missing", PLATFORM, &[], b"")),
                read(),
                Step::Send(plain(PLATFORM)),
                read(),
            ],
        ),
        get("the client closes", PLATFORM, "/plain", &["Connection: close"]),
        get(
            "the client names a header in Connection",
            ODD,
            "/",
            &["Connection: keep-alive, X-Mine", "X-Mine: 1"],
        ),
        get(
            "hop-by-hop headers",
            ODD,
            "/",
            &["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: trailers"],
        ),
        get("credentials for a proxy", ODD, "/", &["Proxy-Authorization: Basic eDp5"]),
        steps(
            "the client sends all and closes its side",
            to(PLATFORM),
            vec![Step::Send(request("GET /slow", PLATFORM, &[], b"")), Step::Pause, Step::Shut, Step::End],
        ),
    ];
    for (name, sni, alpn, old) in [
        ("TLS 1.2", None, &["http/1.1"][..], true),
        ("TLS without ALPN", None, &[], false),
        ("TLS with an ALPN of nobody's", None, &["nobody/1"], false),
        ("the platform's server name with the CRM's host", Some(PLATFORM), &["http/1.1"], false),
        ("a server name that nobody has", Some("other.example"), &["http/1.1"], false),
    ] {
        all.push(once(name, Via::Tls(Tls { sni, alpn, old }), plain(CRM)));
    }
    all.push(once("no server name with the platform's host", tls(None), plain(PLATFORM)));
    all.push(once("HTTP on the port of HTTPS", Via::NoTls, plain(CRM)));

    let socket = ["Connection: Upgrade", "Upgrade: websocket", KEY, "Sec-WebSocket-Version: 13"];
    let socket_but =
        |name: &str| -> Vec<&str> { socket.into_iter().filter(|line| !line.starts_with(name)).collect() };
    let mut talk = vec![Step::Send(request("GET /ws", ODD, &socket, b"")), read()];
    talk.extend([Step::Send(b"hello tunnel".to_vec()), Step::Bytes(12)]);
    all.extend([
        steps("a WebSocket", to(ODD), talk),
        get("a WebSocket that is declined", ODD, "/ws-declined", &socket),
        get("a WebSocket without a key", ODD, "/ws-declined", &socket_but("Sec-WebSocket-Key")),
        get(
            "a WebSocket of an old version",
            ODD,
            "/ws-declined",
            &["Connection: Upgrade", "Upgrade: websocket", KEY, "Sec-WebSocket-Version: 8"],
        ),
        get(
            "a WebSocket in capitals, with a protocol",
            ODD,
            "/ws-declined",
            &[
                "Connection: keep-alive, UPGRADE",
                "Upgrade: WebSocket",
                KEY,
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Protocol: chat",
                "Origin: https://odd.example",
            ],
        ),
        get("a WebSocket where none is spoken", PLATFORM, "/plain", &socket),
        get("a WebSocket of the development server's", CRM, "/plain", &socket),
        get(
            "an upgrade to h2c",
            PLATFORM,
            "/plain",
            &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
        ),
        get(
            "an upgrade to h2c where WebSockets are",
            ODD,
            "/ws-declined",
            &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
        ),
        once(
            "HTTP/2 by prior knowledge on plain HTTP",
            Via::Local,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        ),
    ]);
    all
}
