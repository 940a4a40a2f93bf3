//! Which host a request is for, and the listeners that are not HTTPS.

use super::super::{Shape, Step, Via};
use super::{CRM, PLATFORM, once, request, steps, tls, to};

/// The host of which a part has a route.
const PART: &str = "part.example";
/// More than the limit of plain HTTP and what it adds while they are answered.
const REQUESTS: usize = 60;

pub(super) fn shapes() -> Vec<Shape> {
    let on = |name, via: Via, host: &str| once(name, via, request("GET /url", host, &[], b""));
    let raw = |name, via: Via, text: &str| once(name, via, text.as_bytes().to_vec());
    let mut all = vec![
        on("the host by name", to(PLATFORM), PLATFORM),
        on("the host by address", to(CRM), CRM),
        on("a host with its port", to(PLATFORM), "dashboard.krystal.technology:443"),
        on("a host with another port", to(PLATFORM), "dashboard.krystal.technology:8443"),
        on("an address with its port", to(CRM), "192.168.0.104:443"),
        on("a host in capitals", to(PLATFORM), "Dashboard.Krystal.TECHNOLOGY"),
        on("a host with a dot at its end", to(PLATFORM), "dashboard.krystal.technology."),
        on("a host that nobody has", tls(None), "other.example"),
        on("a host below another", tls(None), "www.dashboard.krystal.technology"),
        on("an address of IPv6", tls(None), "[2001:db8::1]"),
        on("a host with an underscore", tls(None), "a_b.example"),
        on("an empty host", tls(None), ""),
        on("a host with a slash", tls(None), "a/b"),
        on("a host with a space", tls(None), "a b"),
        on("a host with credentials", tls(None), "u@a.example"),
        on("a host with a colon and no port", tls(None), "a.example:"),
        on("a host with a port of letters", tls(None), "a.example:http"),
        on("a host of two dots", tls(None), "a..example"),
        on("an address of three numbers", tls(None), "192.168.104"),
        raw("no host", to(CRM), "GET /url HTTP/1.1\r\n\r\n"),
        raw("two hosts", to(CRM), "GET /url HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"),
        raw("one host twice", to(CRM), "GET /url HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n"),
        // The redirect of plain HTTP.
        once("the redirect to HTTPS", Via::Http, request("GET /", CRM, &[], b"")),
        once(
            "the redirect with path and query",
            Via::Http,
            request("GET /a/b%20c?d=e&f=%C3%A9", CRM, &[], b""),
        ),
        once(
            "the redirect with dot segments and slashes",
            Via::Http,
            request("GET //a/../b/./c", CRM, &[], b""),
        ),
        once("the redirect with an empty query", Via::Http, request("GET /a?", CRM, &[], b"")),
        once(
            "the redirect of an absolute target",
            Via::Http,
            request("GET http://192.168.0.104/a?b", CRM, &[], b""),
        ),
        once("the redirect of HEAD", Via::Http, request("HEAD /a", CRM, &[], b"")),
        once("the redirect of POST", Via::Http, request("POST /a", CRM, &["Content-Length: 3"], b"abc")),
        once(
            "the redirect of a host with a port",
            Via::Http,
            request("GET /a", "192.168.0.104:80", &[], b""),
        ),
        steps(
            "the redirect twice on one connection",
            Via::Http,
            vec![
                Step::Send(request("GET /a", CRM, &[], b"")),
                Step::Read { head: false },
                Step::Send(request("GET /b", CRM, &[], b"")),
                Step::Read { head: false },
            ],
        ),
        // Any other host of plain HTTP.
        once("plain HTTP of the platform's name", Via::Http, request("GET /secure", PLATFORM, &[], b"")),
        once("plain HTTP of another host", Via::Http, request("GET /url", "other.example", &[], b"")),
        once(
            "a form on plain HTTP",
            Via::Http,
            request(
                "POST /echo",
                "other.example",
                &["Content-Type: application/x-www-form-urlencoded", "Content-Length: 3"],
                b"a=1",
            ),
        ),
        raw("plain HTTP without a host", Via::Http, "GET /url HTTP/1.0\r\n\r\n"),
        // This host's own.
        once("this host's own listener", Via::Local, request("GET /url", "localhost:8006", &[], b"")),
        once(
            "this host's own listener by another name",
            Via::Local,
            request("GET /url", "other.example", &[], b""),
        ),
        once(
            "a body to this host's own listener",
            Via::Local,
            request("POST /echo", "localhost:8006", &["Content-Length: 3"], b"abc"),
        ),
        once(
            "chunks to this host's own listener",
            Via::Local,
            request(
                "POST /echo",
                "localhost:8006",
                &["Transfer-Encoding: chunked"],
                b"3\r\nabc\r\n0\r\n\r\n",
            ),
        ),
        // A name that has a route for a part of its paths.
        once("the part of a host that has a route", tls(None), request("GET /api/x", PART, &[], b"")),
        once("the rest of a host that has a route", tls(None), request("GET /plain", PART, &[], b"")),
    ];
    // Last, so that it is in nobody's way: more than the limit of plain HTTP allows at once.
    let mut many = vec![Step::Send(request("GET /plain", "other.example", &[], b"").repeat(REQUESTS))];
    many.extend(vec![Step::Read { head: false }; REQUESTS]);
    all.push(steps("sixty requests to what allows twenty at once", Via::Http, many));
    all
}
