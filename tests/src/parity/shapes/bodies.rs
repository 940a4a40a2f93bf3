//! Methods and bodies of requests: none, with a length, in chunks, forms, files, too long, broken.

use super::super::{Shape, Step};
use super::{CRM, ODD, PLATFORM, get, once, post, request, steps, to, with_body};

/// The longest body that both take: nginx's default, and this proxy's.
const LONGEST: usize = 1 << 20;

pub(super) fn shapes() -> Vec<Shape> {
    let mut all = Vec::new();
    for (name, method, host) in [
        ("HEAD", "HEAD", PLATFORM),
        ("HEAD of the development server", "HEAD", CRM),
        ("OPTIONS", "OPTIONS", PLATFORM),
        ("DELETE without a body", "DELETE", PLATFORM),
        ("POST without a body or a length", "POST", PLATFORM),
        ("PROPFIND", "PROPFIND", PLATFORM),
        ("a method of nobody's", "FROBNICATE", PLATFORM),
        ("a method in lower case", "get", PLATFORM),
        ("TRACE", "TRACE", PLATFORM),
        ("TRACK", "TRACK", PLATFORM),
    ] {
        all.push(once(name, to(host), request(&format!("{method} /echo"), host, &[], b"")));
    }
    for (name, method) in
        [("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE with a body", "DELETE"), ("GET with a body", "GET")]
    {
        let line = format!("{method} /echo");
        all.push(once(
            name,
            to(PLATFORM),
            with_body(&line, PLATFORM, &["Content-Type: text/plain"], b"a body"),
        ));
    }
    let connect = format!("CONNECT {PLATFORM}:443");
    all.push(once("CONNECT", to(PLATFORM), request(&connect, PLATFORM, &[], b"")));
    all.push(get("HEAD's twin of a stream", PLATFORM, "/stream", &["Accept: */*"]));
    all.push(once("HEAD of a stream", to(PLATFORM), request("HEAD /stream", PLATFORM, &[], b"")));
    all.push(once("HEAD of 3 MiB", to(PLATFORM), request("HEAD /big/3145728", PLATFORM, &[], b"")));

    let json = "Content-Type: application/json";
    let form = "Content-Type: application/x-www-form-urlencoded";
    let parts = "Content-Type: multipart/form-data; boundary=frontier";
    let multipart = b"--frontier\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nJune\r\n--frontier\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a b.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n\
        \x00\x01\xff\r\n--frontier--\r\n";
    all.extend([
        post("a length of 0", PLATFORM, "/echo", &[], b""),
        post("a form", PLATFORM, "/echo", &[form], b"a=1&b=two+words&a=%C3%A9"),
        post("a form to the development server", CRM, "/echo", &[form], b"a=1&b=two+words"),
        post("JSON", PLATFORM, "/echo", &[json], br#"{"a": [1, 2]}"#),
        post("JSON to the development server", CRM, "/echo", &[json], br#"{"a": [1, 2]}"#),
        post("a file", PLATFORM, "/echo", &[parts], multipart),
        post("a file to the development server", CRM, "/echo", &[parts], multipart),
        post("a body of all bytes", PLATFORM, "/echo", &[], &(0..=255).collect::<Vec<u8>>()),
        post("1 MiB", PLATFORM, "/echo", &[], &vec![b'x'; LONGEST]),
        post("1 MiB to the development server", CRM, "/echo", &[], &vec![b'x'; LONGEST]),
        post("one byte more than 1 MiB", PLATFORM, "/echo", &[], &vec![b'x'; LONGEST + 1]),
        post("a body of gzip", PLATFORM, "/echo", &["Content-Encoding: gzip"], b"\x1f\x8b\x08\x00not really"),
    ]);

    let chunked = "Transfer-Encoding: chunked";
    let chunks = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    for (name, host, lines, body) in [
        ("chunks", PLATFORM, vec![chunked], &chunks[..]),
        ("chunks to the development server", CRM, vec![chunked], chunks),
        ("chunks to what reads chunks", ODD, vec![chunked], chunks),
        ("chunks with extensions", ODD, vec![chunked], b"3;a=b\r\nabc\r\n0\r\n\r\n"),
        (
            "chunks with a trailer",
            ODD,
            vec![chunked, "Trailer: X-Last"],
            b"3\r\nabc\r\n0\r\nX-Last: yes\r\n\r\n",
        ),
        ("no chunk but the last", ODD, vec![chunked], b"0\r\n\r\n"),
        ("a form in chunks", PLATFORM, vec![chunked, form], b"3\r\na=1\r\n4\r\n&b=2\r\n0\r\n\r\n"),
        ("a chunk of no length", ODD, vec![chunked], b"x\r\nabc\r\n0\r\n\r\n"),
        ("a chunk of too great a length", ODD, vec![chunked], b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("chunks and a length", ODD, vec![chunked, "Content-Length: 3"], b"3\r\nabc\r\n0\r\n\r\n"),
        ("gzip as a transfer coding", ODD, vec!["Transfer-Encoding: gzip, chunked"], b"0\r\n\r\n"),
        (
            "identity as a transfer coding",
            ODD,
            vec!["Transfer-Encoding: identity", "Content-Length: 2"],
            b"ab",
        ),
        ("chunked twice", ODD, vec![chunked, chunked], b"0\r\n\r\n"),
        ("two lengths that differ", ODD, vec!["Content-Length: 2", "Content-Length: 3"], b"abc"),
        ("a length twice", ODD, vec!["Content-Length: 3", "Content-Length: 3"], b"abc"),
        ("a length with a sign", ODD, vec!["Content-Length: +3"], b"abc"),
        ("a length that is no number", ODD, vec!["Content-Length: three"], b"abc"),
        ("a length beyond all numbers", ODD, vec!["Content-Length: 99999999999999999999"], b"abc"),
    ] {
        all.push(once(name, to(host), request("POST /echo", host, &lines, body)));
    }
    let many = [b"19000\r\n".as_slice(), &[b'x'; 0x19000], b"\r\n0\r\n\r\n"].concat();
    all.push(once("100 KiB in chunks", to(ODD), request("POST /echo", ODD, &[chunked], &many)));
    all.push(once(
        "100 KiB in chunks to gunicorn",
        to(PLATFORM),
        request("POST /echo", PLATFORM, &[chunked], &many),
    ));
    let long = [b"100001\r\n".as_slice(), &vec![b'x'; LONGEST + 1], b"\r\n0\r\n\r\n"].concat();
    all.push(once(
        "one byte more than 1 MiB in chunks",
        to(ODD),
        request("POST /echo", ODD, &[chunked], &long),
    ));
    let expect = "Expect: 100-continue";
    let waiting = |name, host: &'static str| {
        let head = request("POST /echo", host, &[expect, "Content-Length: 3"], b"");
        let all =
            vec![Step::Send(head), Step::ReadOne, Step::Send(b"abc".to_vec()), Step::Read { head: false }];
        steps(name, to(host), all)
    };
    all.extend([
        waiting("a body that waits for 100", PLATFORM),
        waiting("a body that waits for 100 of the development server", CRM),
        once(
            "a body that does not wait",
            to(PLATFORM),
            request("POST /echo", PLATFORM, &[expect, "Content-Length: 3"], b"abc"),
        ),
        once(
            "100 is asked for a body that is too long",
            to(PLATFORM),
            request("POST /echo", PLATFORM, &[expect, "Content-Length: 1048577"], b""),
        ),
        once(
            "another expectation",
            to(PLATFORM),
            request("POST /echo", PLATFORM, &["Expect: miracles", "Content-Length: 3"], b"abc"),
        ),
        steps(
            "the client leaves within a body",
            to(PLATFORM),
            vec![
                Step::Send(request("POST /echo", PLATFORM, &["Content-Length: 10"], b"abc")),
                Step::Pause,
                Step::Shut,
                Step::Read { head: false },
            ],
        ),
    ]);
    all
}
