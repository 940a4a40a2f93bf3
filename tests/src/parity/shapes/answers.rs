//! What applications answer: statuses, redirects, cookies, streams, caches, ranges, sessions.

use super::super::{Shape, Step};
use super::{CRM, PLATFORM, get, post, request, steps, to, with_body};

const TOKEN: &str = "abcdefghijklmnopqrstuvwxyzABCDEFabcdefghijklmnopqrstuvwxyzABCDEF";

pub(super) fn shapes() -> Vec<Shape> {
    let mut all = vec![
        get("a page of the development server", CRM, "/plain", &[]),
        get("a page of gunicorn", PLATFORM, "/plain", &[]),
        get("the scheme that the application believes", PLATFORM, "/secure", &[]),
        get("an absolute URL of the application's", PLATFORM, "/url", &[]),
        get("redirect 301 to a path", PLATFORM, "/moved/301/plain", &[]),
        get("redirect 302 with query and fragment", PLATFORM, "/moved/302/plain?a=b%20c#d", &[]),
        get("redirect 307", CRM, "/moved/307/plain", &[]),
        get("redirect to an absolute URL", PLATFORM, "/absolutely", &[]),
        get("redirect to an absolute URL of the development server", CRM, "/absolutely", &[]),
        get("several cookies are set", PLATFORM, "/cookies", &[]),
        get("several cookies are set by the development server", CRM, "/cookies", &[]),
        get("404 without a route in Django", PLATFORM, "/there-is-no-such-page", &[]),
        get("404 of a view", CRM, "/missing", &[]),
        get("403 of a view", PLATFORM, "/denied", &[]),
        get("400 of a view", PLATFORM, "/bad", &[]),
        get("500 by an exception", PLATFORM, "/breaks", &[]),
        get("500 by an exception in the development server", CRM, "/breaks", &[]),
        get("502 of the application's own", PLATFORM, "/status/502", &[]),
        get("503 of the application's own", PLATFORM, "/status/503", &[]),
        get("504 of the application's own", CRM, "/status/504", &[]),
        get("201", PLATFORM, "/status/201", &[]),
        get("204", PLATFORM, "/status/204", &[]),
        get("204 of the development server", CRM, "/status/204", &[]),
        get("401", PLATFORM, "/status/401", &[]),
        get("410", PLATFORM, "/status/410", &[]),
        get("418", PLATFORM, "/status/418", &[]),
        get("429 of the application's own", PLATFORM, "/status/429", &[]),
        get("451", PLATFORM, "/status/451", &[]),
        get("599", PLATFORM, "/status/599", &[]),
        get("a status of the application's own with its phrase", PLATFORM, "/reason", &[]),
        get("405 with Allow", PLATFORM, "/only-get", &[]),
        get("a stream of gunicorn", PLATFORM, "/stream", &[]),
        get("a stream of the development server", CRM, "/stream", &[]),
        get("events, slowly", PLATFORM, "/slow-stream", &["Accept: text/event-stream"]),
        get("a stream that breaks off", PLATFORM, "/broken-stream", &[]),
        get("an answer shorter than it says", PLATFORM, "/short", &[]),
        get("3 MiB with a length", PLATFORM, "/big/3145728", &[]),
        get("3 MiB with a length from the development server", CRM, "/big/3145728", &[]),
        get("3 MiB as a stream", PLATFORM, "/big-stream/3145728", &[]),
        get("3 MiB as a stream of the development server", CRM, "/big-stream/3145728", &[]),
        get("gzip where it is wanted", PLATFORM, "/zipped", &["Accept-Encoding: gzip, deflate, br"]),
        get("no gzip where it is not", PLATFORM, "/zipped", &[]),
        get("an entity tag", PLATFORM, "/tagged", &[]),
        get("304 by an entity tag", PLATFORM, "/tagged", &["If-None-Match: \"of-the-lab\""]),
        get("another entity tag", CRM, "/tagged", &["If-None-Match: \"other\""]),
        get("412 by an entity tag", PLATFORM, "/tagged", &["If-Match: \"other\""]),
        get("304 by a date", PLATFORM, "/modified", &["If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT"]),
        get("modified since", CRM, "/modified", &["If-Modified-Since: Mon, 01 Jan 2020 00:00:00 GMT"]),
        get("a range", PLATFORM, "/ranges", &["Range: bytes=5-9"]),
        get("the last bytes", CRM, "/ranges", &["Range: bytes=-5"]),
        get("a range beyond the end", PLATFORM, "/ranges", &["Range: bytes=5000-"]),
        get("a range of what knows none", PLATFORM, "/plain", &["Range: bytes=0-1"]),
        get("what has ranges, whole", PLATFORM, "/ranges", &[]),
        get("a download", PLATFORM, "/download", &[]),
        get("headers of the application's own", PLATFORM, "/own-headers", &[]),
        get("headers that speak to a proxy", PLATFORM, "/for-the-proxy", &[]),
        get("a slow answer", PLATFORM, "/slow", &[]),
        get("who is logged in, without a session", PLATFORM, "/who", &[]),
        get("a form is fetched", PLATFORM, "/form", &[]),
    ];
    let form = format!("name=x&csrfmiddlewaretoken={TOKEN}");
    let cookie = format!("Cookie: csrftoken={TOKEN}");
    let kind = "Content-Type: application/x-www-form-urlencoded";
    for (name, host, lines) in [
        (
            "a form with its token",
            PLATFORM,
            vec![&*cookie, kind, "Referer: https://dashboard.krystal.technology/form"],
        ),
        (
            "a form with its token and an Origin",
            PLATFORM,
            vec![
                &*cookie,
                kind,
                "Referer: https://dashboard.krystal.technology/form",
                "Origin: https://dashboard.krystal.technology",
            ],
        ),
        (
            "a form with its token to the development server",
            CRM,
            vec![&*cookie, kind, "Referer: https://192.168.0.104/form"],
        ),
        ("a form without a referer", PLATFORM, vec![&*cookie, kind]),
        ("a form of another site", PLATFORM, vec![&*cookie, kind, "Referer: https://other.example/form"]),
        (
            "a form of the same site without TLS",
            PLATFORM,
            vec![&*cookie, kind, "Referer: http://dashboard.krystal.technology/form"],
        ),
        (
            "a form without its cookie",
            PLATFORM,
            vec![kind, "Referer: https://dashboard.krystal.technology/form"],
        ),
    ] {
        all.push(post(name, host, "/form", &lines, form.as_bytes()));
    }
    for (name, host) in
        [("a session, on one connection", PLATFORM), ("a session of the development server", CRM)]
    {
        all.push(steps(
            name,
            to(host),
            vec![
                Step::Send(with_body("POST /login", host, &[kind], b"user=anna")),
                Step::Read { head: false },
                Step::Send(request("GET /who", host, &["Cookie: sessionid={cookie:sessionid}"], b"")),
                Step::Read { head: false },
            ],
        ));
    }
    all
}
