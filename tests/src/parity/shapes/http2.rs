//! HTTP/2, as curl speaks it.

use super::super::{How, Shape};
use super::{CRM, DOWN, ODD, PLATFORM};

fn by(name: &'static str, host: &str, path: &str, args: &[&str]) -> Shape {
    let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    all.push(format!("https://{host}{path}"));
    Shape { name, how: How::Http2(all) }
}

pub(super) fn shapes() -> Vec<Shape> {
    let long = "x".repeat(100_000);
    vec![
        by("HTTP/2: a page", PLATFORM, "/plain", &[]),
        by("HTTP/2: a page of the development server", CRM, "/plain", &[]),
        by("HTTP/2: HEAD", PLATFORM, "/plain", &["--head"]),
        by("HTTP/2: a query", PLATFORM, "/echo?a=1&b=%20", &[]),
        by("HTTP/2: several cookies are set", PLATFORM, "/cookies", &[]),
        by("HTTP/2: cookies", PLATFORM, "/echo", &["-H", "Cookie: a=1; b=2"]),
        by("HTTP/2: a form", PLATFORM, "/echo", &["-d", "a=1&b=2"]),
        by(
            "HTTP/2: JSON by PUT",
            PLATFORM,
            "/echo",
            &["-X", "PUT", "-H", "Content-Type: application/json", "-d", "{}"],
        ),
        by("HTTP/2: 100 kB", PLATFORM, "/echo", &["-d", &long]),
        by(
            "HTTP/2: a file",
            PLATFORM,
            "/echo",
            &[
                "-H",
                "Content-Type: multipart/form-data; boundary=x",
                "--data-binary",
                "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\nabc\r\n--x--\r\n",
            ],
        ),
        by(
            "HTTP/2: a body without a length",
            PLATFORM,
            "/echo",
            &["-X", "POST", "-T", "/etc/hostname", "-H", "Content-Length:"],
        ),
        by("HTTP/2: a stream", PLATFORM, "/stream", &[]),
        by("HTTP/2: 3 MiB", PLATFORM, "/big/3145728", &[]),
        by("HTTP/2: 304", PLATFORM, "/tagged", &["-H", "If-None-Match: \"of-the-lab\""]),
        by("HTTP/2: a range", PLATFORM, "/ranges", &["-r", "0-4"]),
        by("HTTP/2: 404", PLATFORM, "/missing", &[]),
        by("HTTP/2: 500", PLATFORM, "/breaks", &[]),
        by("HTTP/2: a stream that breaks off", PLATFORM, "/broken-stream", &[]),
        by("HTTP/2: an upstream that is not there", DOWN, "/", &[]),
        by("HTTP/2: trailers of an answer", ODD, "/trailers", &[]),
        by("HTTP/2: early hints", ODD, "/early-hints", &[]),
        by("HTTP/2: hop-by-hop headers of an answer", ODD, "/hop-by-hop", &[]),
        by("HTTP/2: a host that nobody has", "other.example", "/url", &[]),
        by(
            "HTTP/2: a host with a port",
            PLATFORM,
            "/url",
            &["-H", "Host: dashboard.krystal.technology:8443"],
        ),
        by(
            "HTTP/2: X-Forwarded-For of the client's",
            PLATFORM,
            "/echo",
            &["-H", "X-Forwarded-For: 10.0.0.1"],
        ),
        by("HTTP/2: TE", ODD, "/", &["-H", "TE: trailers"]),
        by(
            "HTTP/2: an expectation",
            PLATFORM,
            "/echo",
            &["-d", "abc", "-H", "Expect: 100-continue", "--expect100-timeout", "0.1"],
        ),
    ]
}
