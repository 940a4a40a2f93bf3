//! HTTP/1: first lines, hosts, header lines, upgrades, and what is too large (RFC 9112 2 to 5, RFC 9110 7).

use crate::case::{Case, NEXT, Over, Why, get, line, post, raw};

/// All of them.
pub fn cases() -> Vec<Case> {
    [lines(), versions(), targets(), hosts(), headers(), sizes(), upgrades(), strangers()].concat()
}

fn lines() -> Vec<Case> {
    vec![
        line("GET /case HTTP/1.1", "200 200 kept", 2),
        line("\r\nGET /case HTTP/1.1", "200 200 kept", 2),
        line("\r\n\r\n\r\nGET /case HTTP/1.1", "200 200 kept", 2),
        line("\nGET /case HTTP/1.1", "200 200 kept", 2),
        line(" GET /case HTTP/1.1", "400 closed", 0),
        line("GET  /case HTTP/1.1", "400 closed", 0).unlike(Why::FirstLine),
        line("GET /case  HTTP/1.1", "400 closed", 0).unlike(Why::FirstLine),
        line("GET\t/case\tHTTP/1.1", "400 closed", 0),
        line("GET /ca se HTTP/1.1", "400 closed", 0),
        line("GET /case HTTP/1.1 ", "400 closed", 0).unlike(Why::FirstLine),
        line("GET /case HTTP/1.1 x", "400 closed", 0),
        line("GET", "400 closed", 0),
        line("GET HTTP/1.1", "400 closed", 0),
        line(" /case HTTP/1.1", "400 closed", 0),
        line("get /case HTTP/1.1", "200 200 kept", 2).unlike(Why::Methods),
        line("G(T /case HTTP/1.1", "400 closed", 0),
        line("G\0T /case HTTP/1.1", "400 closed", 0),
        line("BREW /case HTTP/1.1", "200 200 kept", 2),
        line("M-SEARCH /case HTTP/1.1", "200 200 kept", 2),
        line("PRI /case HTTP/1.1", "200 200 kept", 2),
        line("CONNECT a.example:443 HTTP/1.1", "405 closed", 0),
        line("CONNECT /case HTTP/1.1", "405 closed", 0),
        line("TRACE /case HTTP/1.1", "405 closed", 0),
        line("trace /case HTTP/1.1", "405 closed", 0),
        line("TRACK /case HTTP/1.1", "405 closed", 0).unlike(Why::Methods),
        raw("lines end by LF", "GET /case HTTP/1.1\nHost: a.example\n\n", "200 200 kept", 2),
        raw("lines end by CR", "GET /case HTTP/1.1\rHost: a.example\r\r", "400 closed", 0),
        raw("the head ends by LF", "GET /case HTTP/1.1\r\nHost: a.example\r\n\n", "200 200 kept", 2),
        raw("the head ends by CR CR LF", "GET /case HTTP/1.1\r\nHost: a.example\r\n\r\r\n", "400 closed", 0),
    ]
}

fn versions() -> Vec<Case> {
    vec![
        raw("HTTP/0.9", "GET /case\r\n", "400 closed", 0).unlike(Why::Versions),
        line("GET /case HTTP/0.9", "400 closed", 0),
        line("GET /case HTTP/1.0", "200 closed", 1),
        line("GET /case HTTP/1.2", "400 closed", 0).unlike(Why::Versions),
        line("GET /case HTTP/2.0", "400 closed", 0).unlike(Why::Versions),
        line("GET /case HTTP/2", "400 closed", 0).unlike(Why::Versions),
        line("GET /case HTTP/3.0", "400 closed", 0).unlike(Why::Versions),
        line("GET /case http/1.1", "400 closed", 0),
        line("GET /case HTTP/01.1", "400 closed", 0),
        line("GET /case HTTP/1.01", "400 closed", 0).unlike(Why::Versions),
        line("GET /case HTTP/1.1x", "400 closed", 0),
        line("GET /case HTTP/1,1", "400 closed", 0),
        line("GET /case HTTP 1.1", "400 closed", 0),
        line("GET /case HTP/1.1", "400 closed", 0),
        raw("HTTP/1.0 without a host", "GET /case HTTP/1.0\r\n\r\n", "200 closed", 1).unlike(Why::NoHost),
        raw(
            "HTTP/1.0 kept alive",
            "GET /case HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n",
            "200 200 kept",
            2,
        ),
        raw("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", "- closed", 0)
            .unlike(Why::Preface),
    ]
}

fn targets() -> Vec<Case> {
    let target = |target: &str, wanted, arrives| line(&format!("GET {target} HTTP/1.1"), wanted, arrives);
    vec![
        target("http://a.example/case", "200 200 kept", 2),
        target("HTTP://A.example:80/case", "400 closed", 0).unlike(Why::Authority),
        target("https://a.example/case", "200 200 kept", 2),
        target("http://a.example", "200 200 kept", 2),
        target("http://a.example?x", "200 200 kept", 2),
        target("http://b.example/case", "400 closed", 0).unlike(Why::Authority),
        target("http://u@a.example/case", "400 closed", 0),
        target("http://a.example@b.example/case", "400 closed", 0),
        target("http://a.example:99999/case", "400 closed", 0).unlike(Why::Authority),
        target("http:///case", "400 closed", 0),
        target("ftp://a.example/case", "400 closed", 0).unlike(Why::Scheme),
        target("a.example:443", "400 closed", 0),
        target("//b.example/case", "200 200 kept", 2),
        target("case", "400 closed", 0),
        target("?x", "400 closed", 0),
        target("*", "400 closed", 0),
        line("OPTIONS * HTTP/1.1", "400 closed", 0),
        target("/a%00b", "400 closed", 0),
        target("/a%", "400 closed", 0),
        target("/a%zz", "400 closed", 0),
        target("/a%0d%0aX:%20y", "200 200 kept", 2),
        target("/a%20HTTP/1.1", "200 200 kept", 2),
        target("/..", "400 closed", 0),
        target("/a/../../etc", "400 closed", 0),
        target("/%2e%2e/etc", "400 closed", 0),
        target("/a/..%2f..%2fetc", "400 closed", 0),
        target("/a/../case", "200 200 kept", 2),
        target("/a/..;/case", "200 200 kept", 2),
        target("/..\\case", "200 200 kept", 2),
        target("/a\\b", "200 200 kept", 2),
        target("/case?x=../../y", "200 200 kept", 2),
        target("/case?x=%zz", "200 200 kept", 2),
        target("/case#fragment", "200 200 kept", 2).unlike(Why::Fragment),
        target("/caf\u{e9}", "400 closed", 0).unlike(Why::TargetBytes),
        target("/a\0b", "400 closed", 0),
        target("/a\tb", "400 closed", 0),
        target("/a\rb", "400 closed", 0),
        target("/a\u{7f}b", "400 closed", 0),
        target("/a\"<>`{}|^b", "400 closed", 0).unlike(Why::TargetBytes),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |host: &str, wanted, arrives| {
        raw(&format!("host {host:?}"), format!("GET /case HTTP/1.1\r\nHost:{host}\r\n\r\n"), wanted, arrives)
    };
    vec![
        raw("no host", "GET /case HTTP/1.1\r\nAccept: */*\r\n\r\n", "400 closed", 0),
        raw(
            "the same host twice",
            "GET /case HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
            "400 closed",
            0,
        ),
        raw("two hosts", "GET /case HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", "400 closed", 0),
        raw(
            "HTTP/1.0 with two hosts",
            "GET /case HTTP/1.0\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "400 closed",
            0,
        ),
        host("", "400 closed", 0),
        host(" ", "400 closed", 0),
        host(" A.Example.", "200 200 kept", 2).unlike(Why::HostAsSent),
        host(" a.example:443", "200 200 kept", 2).unlike(Why::HostAsSent),
        host(" a.example:", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a.example:x", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a.example:65536", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a.example:80:80", "400 closed", 0).unlike(Why::HostSyntax),
        host(" u@a.example", "400 closed", 0).unlike(Why::HostSyntax),
        host(" u:p@a.example", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a.example/x", "400 closed", 0),
        host(" a.example?x", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a.example#x", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a.example, b.example", "400 closed", 0),
        host(" a example", "400 closed", 0),
        host(" a..example", "400 closed", 0),
        host(" .example", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a%2eexample", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a_b.example", "200 200 kept", 2),
        host(" <script>", "400 closed", 0).unlike(Why::HostSyntax),
        host(" caf\u{e9}.example", "400 closed", 0).unlike(Why::HostSyntax),
        host(" a.example\0", "400 closed", 0),
        host(" a.example\tx", "400 closed", 0),
        host(" [::1]:443", "200 200 kept", 2).unlike(Why::HostAsSent),
        host(" [fe80::1%25eth0]", "400 closed", 0).unlike(Why::HostSyntax),
        host(" ::1", "400 closed", 0),
        host(" 1.2.3", "400 closed", 0).unlike(Why::HostSyntax),
        host(" 127.1", "400 closed", 0).unlike(Why::HostSyntax),
        host("\r\n a.example", "400 closed", 0),
        host(" a.example\r\nX-Forwarded-Host: b.example", "200 200 kept", 2),
    ]
}

fn headers() -> Vec<Case> {
    vec![
        get("X Y: z", "400 closed", 0),
        get("X: y\r\n z", "400 closed", 0),
        get("X : y", "400 closed", 0),
        get(": y", "400 closed", 0),
        get("X", "400 closed", 0).unlike(Why::HeaderLines),
        get("X;", "400 closed", 0).unlike(Why::HeaderLines),
        get("X:", "200 200 kept", 2),
        get("X(Y): z", "400 closed", 0).unlike(Why::HeaderLines),
        get("\"X\": z", "400 closed", 0).unlike(Why::HeaderLines),
        get("X_Y: z", "200 200 kept", 2),
        get("X\u{e9}: z", "400 closed", 0).unlike(Why::HeaderLines),
        get("X\0: z", "400 closed", 0),
        get("X: y\0z", "400 closed", 0),
        get("X: y\u{1}z", "400 closed", 0).unlike(Why::HeaderLines),
        get("X: y\u{7f}z", "400 closed", 0).unlike(Why::HeaderLines),
        get("X: y\rz", "400 closed", 0),
        get("X: y\r\rz", "400 closed", 0),
        get("X: y\nz", "400 closed", 0).unlike(Why::HeaderLines),
        get("X: y\n\nGET /hidden HTTP/1.1", "200 400 closed", 1),
        get("X: caf\u{e9}", "200 200 kept", 2),
        get("X-Real-IP: 192.0.2.66", "200 200 kept", 2),
        get("X_Real_IP: 192.0.2.66", "200 200 kept", 2),
        get("X-Forwarded-For: 192.0.2.66", "200 200 kept", 2),
        get("Connection: x-real-ip, host", "200 200 kept", 2),
        get("Connection: close", "200 closed", 1),
        get("Connection: close, keep-alive", "200 closed", 1),
        get("Connection: keep-alive\r\nConnection: close", "200 closed", 1),
        get("Keep-Alive: timeout=1000", "200 200 kept", 2),
        get("Proxy-Connection: close", "200 200 kept", 2),
        get("Cookie: a=1\r\nCookie: b=2", "200 200 kept", 2),
        get("Range: bytes=0-,0-,0-,0-,0-,0-,0-,0-", "200 200 kept", 2),
    ]
}

fn sizes() -> Vec<Case> {
    let named = |name: &str, case: Case| Case { name: name.to_owned(), ..case };
    let path = |length: usize| format!("GET /{} HTTP/1.1", "x".repeat(length));
    vec![
        named("a target of 4 KiB", line(&path(4 << 10), "200 200 kept", 2)),
        named("a target of 9 KiB", line(&path(9 << 10), "414 closed", 0)),
        named("a target of 60 KiB", line(&path(60 << 10), "431 closed", 0)),
        named("a target of 100 KiB", line(&path(100 << 10), "431 closed", 0)),
        named("a header of 4 KiB", get(&format!("X: {}", "y".repeat(4 << 10)), "200 200 kept", 2)),
        named(
            "a header of 10 KiB",
            get(&format!("X: {}", "y".repeat(10 << 10)), "200 200 kept", 2).unlike(Why::Limits),
        ),
        named("a header of 40 KiB", get(&format!("X: {}", "y".repeat(40 << 10)), "431 closed", 0)),
        named("a header of 200 KiB", get(&format!("X: {}", "y".repeat(200 << 10)), "431 closed", 0)),
        named("a name of 60 KiB", get(&format!("{}: y", "x".repeat(60 << 10)), "431 closed", 0)),
        named("90 header lines", get("X: y\r\n".repeat(90).trim_end(), "200 200 kept", 2)),
        named(
            "101 header lines",
            get("X: y\r\n".repeat(100).trim_end(), "431 closed", 0).unlike(Why::Limits),
        ),
        named("2000 header lines", get("X: y\r\n".repeat(2_000).trim_end(), "431 closed", 0)),
        named(
            "a method of 60 KiB",
            line(&format!("{} /case HTTP/1.1", "X".repeat(60 << 10)), "431 closed", 0),
        ),
        named(
            "100 KiB of line ends",
            line(&format!("{}GET /case HTTP/1.1", "\r\n".repeat(50 << 10)), "431 closed", 0)
                .unlike(Why::Limits),
        ),
    ]
}

fn upgrades() -> Vec<Case> {
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let websocket = |lines: &str, wanted, arrives| {
        get(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{lines}"), wanted, arrives)
    };
    vec![
        get(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "200 200 kept",
            2,
        ),
        get("Connection: Upgrade\r\nUpgrade: TLS/1.2", "200 200 kept", 2),
        get("Upgrade: websocket", "200 200 kept", 2),
        // The upstream declines: what follows is a request like any other, and no tunnel.
        websocket(&format!("{KEY}\r\nSec-WebSocket-Version: 13"), "200 200 kept", 2),
        websocket(&format!("{KEY}\r\nSec-WebSocket-Version: 1337"), "200 200 kept", 2),
        websocket("Sec-WebSocket-Version: 13", "200 200 kept", 2),
        websocket("Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13", "200 200 kept", 2),
        websocket(&format!("{KEY}\r\nSec-WebSocket-Version: 13\r\nUpgrade: h2c"), "200 200 kept", 2),
        raw(
            "a websocket with a body",
            format!(
                "GET /case HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\n\
                 Sec-WebSocket-Version: 13\r\nContent-Length: {}\r\n\r\n",
                NEXT.len()
            ),
            "200 kept",
            1,
        ),
        raw(
            "a websocket by POST",
            format!(
                "POST /case HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\n\
                 Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
            ),
            "200 200 kept",
            2,
        ),
        raw(
            "a websocket by HTTP/1.0",
            format!(
                "GET /case HTTP/1.0\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\n\
                 Sec-WebSocket-Version: 13\r\n\r\n"
            ),
            "200 closed",
            1,
        ),
    ]
}

/// What is no HTTP at all, and HTTP where something else is wanted.
fn strangers() -> Vec<Case> {
    vec![
        raw("random bytes", [0xde, 0xad, 0xbe, 0xef, 0x80, 0x0a, 0x0d, 0xff], "400 closed", 0),
        raw("an SMTP greeting", "EHLO a.example\r\n", "400 closed", 0),
        raw("a line of nothing but a colon", ":\r\n\r\n", "400 closed", 0),
        raw(
            "HTTP without TLS where TLS is wanted",
            "GET /case HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "- closed",
            0,
        )
        .unlike(Why::TlsWanted)
        .over(Over::PlainToTls),
        raw("TLS where HTTP is wanted", [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3], "400 closed", 0).over(Over::Plain),
        raw("the preface of HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "- closed", 0)
            .unlike(Why::Preface)
            .over(Over::Plain),
        line("GET http://a.example/case HTTP/1.1", "200 200 kept", 2).over(Over::Plain),
        get("Transfer-Encoding : chunked", "400 closed", 0).over(Over::Plain),
        post("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n", "200 closed", 1)
            .unlike(Why::LengthDropped)
            .over(Over::Plain),
    ]
}
