//! HTTP/1: where a request ends (RFC 9112 6 and 7). Lengths, codings, chunks, trailers, and bodies that look like requests.

use crate::case::{Case, NEXT, Why, get, post, raw};

const CHUNKED: &str = "Transfer-Encoding: chunked";
/// An empty chunked body.
const NONE: &str = "0\r\n\r\n";
/// `hello`, chunked.
const HELLO: &str = "5\r\nhello\r\n0\r\n\r\n";

/// All of them.
pub fn cases() -> Vec<Case> {
    [lengths(), codings(), both(), chunks(), trailers(), bodies()].concat()
}

fn lengths() -> Vec<Case> {
    let length =
        |value: &str, wanted, arrives| post(&format!("Content-Length:{value}"), "hello", wanted, arrives);
    vec![
        length(" 5", "200 200 kept", 2),
        length("5", "200 200 kept", 2),
        length(" \t5 \t", "200 200 kept", 2).unlike(Why::Tabs),
        length(" 05", "200 200 kept", 2),
        length(" 00000000000000000000000000000005", "200 200 kept", 2),
        length(" +5", "400 closed", 0),
        length(" -1", "400 closed", 0),
        length(" -0", "400 closed", 0),
        length(" 0x5", "400 closed", 0),
        length(" 5,5", "400 closed", 0),
        length(" 5, 6", "400 closed", 0),
        length(" 5 5", "400 closed", 0),
        length(" 5.0", "400 closed", 0),
        length(" 5e0", "400 closed", 0),
        length(" five", "400 closed", 0),
        length("", "400 closed", 0),
        length(" \u{665}", "400 closed", 0),
        length(" 5;a", "400 closed", 0),
        length(" \"5\"", "400 closed", 0),
        length(" 5\u{b}", "400 closed", 0),
        length(" 1048577", "413 closed", 0).unlike(Why::Lingers),
        length(" 18446744073709551615", "431 closed", 0),
        length(" 18446744073709551616", "400 closed", 0),
        length(" 18446744073709551621", "400 closed", 0),
        length("\r\n 5", "400 closed", 0),
        post("Content-Length: 5\r\nContent-Length: 5", "hello", "200 200 kept", 2)
            .unlike(Why::LengthRepeated),
        post("Content-Length: 5\r\nContent-Length: 6", "hello!", "400 closed", 0),
        post("Content-Length: 6\r\ncontent-length: 5", "hello!", "400 closed", 0),
        post("Content-Length: 0\r\nContent-Length: 0\r\nContent-Length: 5", "hello", "400 closed", 0),
        post("Content-Length : 5", "hello", "400 closed", 0),
        post(" Content-Length: 5", "hello", "400 closed", 0),
        post("Content-Length\t: 5", "hello", "400 closed", 0),
        post("Content_Length: 5", "hello", "200 200 kept", 2).unlike(Why::Methods),
        post("Content Length: 5", "hello", "400 closed", 0),
        post("X: y\rContent-Length: 5", "hello", "400 closed", 0),
        post("X: y\nContent-Length: 5", "hello", "200 200 kept", 2),
        get("Content-Length: 0", "200 200 kept", 2),
        raw(
            "a GET with a body",
            "GET /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
            "200 200 kept",
            2,
        ),
        raw(
            "a HEAD with a body",
            "HEAD /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
            "200 200 kept",
            2,
        ),
        raw(
            "HTTP/1.0 with a length",
            "POST /case HTTP/1.0\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
            "200 closed",
            1,
        ),
    ]
}

fn codings() -> Vec<Case> {
    let coding =
        |value: &str, wanted, arrives| post(&format!("Transfer-Encoding:{value}"), NONE, wanted, arrives);
    let line = |line: &str, wanted, arrives| post(line, NONE, wanted, arrives);
    vec![
        coding(" chunked", "200 200 kept", 2),
        coding("\tchunked\t", "200 200 kept", 2).unlike(Why::Tabs),
        coding(" ChUnKeD", "200 200 kept", 2),
        coding(" chunked, identity", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" identity, chunked", "501 closed", 0),
        coding(" gzip, chunked", "501 closed", 0),
        coding(" chunked, gzip", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" chunked, chunked", "501 closed", 0),
        coding(" chunked,", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" ,chunked", "501 closed", 0),
        coding(" identity", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" xchunked", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" chunkedx", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" chunked;q=1", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" \"chunked\"", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" 'chunked'", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" chunked\u{b}", "400 closed", 0).unlike(Why::CodingStatus),
        coding("\u{b}chunked", "400 closed", 0).unlike(Why::CodingStatus),
        coding("\u{c}chunked", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" \u{a0}chunked", "400 closed", 0).unlike(Why::CodingStatus),
        coding(" chunked\0", "400 closed", 0),
        coding("\r\n chunked", "400 closed", 0),
        coding(" chunked\r\n , identity", "400 closed", 0),
        coding("", "400 closed", 0).unlike(Why::CodingStatus),
        line("Transfer-Encoding : chunked", "400 closed", 0),
        line("Transfer-Encoding\t: chunked", "400 closed", 0),
        line("\tTransfer-Encoding: chunked", "400 closed", 0),
        line(" Transfer-Encoding: chunked", "400 closed", 0),
        line("Transfer-Encoding\0: chunked", "400 closed", 0),
        line("Transfer_Encoding: chunked", "200 400 closed", 1),
        line("Transfer Encoding: chunked", "400 closed", 0),
        line("Transfer-Encoding", "400 closed", 0).unlike(Why::CodingStatus),
        line("X: y\rTransfer-Encoding: chunked", "400 closed", 0),
        line("X: y\nTransfer-Encoding: chunked", "200 200 kept", 2),
        line("TE: chunked", "200 400 closed", 1),
        line("Content-Encoding: chunked", "200 400 closed", 1),
        line("Connection: transfer-encoding\r\nTransfer-Encoding: chunked", "200 200 kept", 2),
        line("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "501 closed", 0)
            .unlike(Why::CodingStatus),
        line("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "400 closed", 0),
        line("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "501 closed", 0)
            .unlike(Why::CodingStatus),
        line("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "501 closed", 0).unlike(Why::CodingStatus),
        raw(
            "HTTP/1.0 chunked",
            format!("POST /case HTTP/1.0\r\nHost: a.example\r\n{CHUNKED}\r\n\r\n{NONE}"),
            "400 closed",
            0,
        ),
        raw(
            "HTTP/1.0 chunked and kept alive",
            format!(
                "POST /case HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n{CHUNKED}\r\n\r\n{NONE}"
            ),
            "400 closed",
            0,
        ),
        raw(
            "a chunked GET",
            format!("GET /case HTTP/1.1\r\nHost: a.example\r\n{CHUNKED}\r\n\r\n{HELLO}"),
            "200 200 kept",
            2,
        ),
    ]
}

/// A length and a coding: one server goes by this, another by that.
fn both() -> Vec<Case> {
    let both = |first: &str, second: &str, body: &str, wanted, arrives| {
        post(&format!("{first}\r\n{second}"), body, wanted, arrives)
    };
    let inside = format!("Content-Length: {}", NONE.len() + NEXT.len());
    vec![
        both(&inside, CHUNKED, NONE, "200 closed", 1).unlike(Why::LengthDropped),
        both(CHUNKED, &inside, NONE, "200 closed", 1).unlike(Why::LengthDropped),
        both("Content-Length: 4", CHUNKED, &format!("{:x}\r\n{NEXT}\r\n{NONE}", NEXT.len()), "200 closed", 1)
            .unlike(Why::LengthDropped),
        both(CHUNKED, "Content-Length: 4", &format!("{:x}\r\n{NEXT}\r\n{NONE}", NEXT.len()), "200 closed", 1)
            .unlike(Why::LengthDropped),
        both("Content-Length: 5", CHUNKED, NONE, "200 closed", 1).unlike(Why::LengthDropped),
        both(CHUNKED, "Content-Length: 0", HELLO, "200 closed", 1).unlike(Why::LengthDropped),
        both("Content-Length: 5", "Transfer-Encoding: identity", "hello", "400 closed", 0)
            .unlike(Why::CodingStatus),
        both("Content-Length: 5", "Transfer-Encoding: xchunked", NONE, "400 closed", 0)
            .unlike(Why::CodingStatus),
        both("Content-Length: 5", "Transfer-Encoding : chunked", NONE, "400 closed", 0),
        both("Content-Length: 5", "Transfer-Encoding: gzip, chunked", NONE, "501 closed", 0),
        both("Content-Length: 5", "Transfer_Encoding: chunked", "hello", "200 200 kept", 2),
        both("Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 6", NONE, "200 closed", 1)
            .unlike(Why::LengthDropped),
        both("Transfer-Encoding: chunked", "Content-Length: x", NONE, "200 closed", 1)
            .unlike(Why::LengthDropped),
        both("Content-Length: x", "Transfer-Encoding: chunked", NONE, "400 closed", 0),
        both("Connection: content-length\r\nContent-Length: 5", "X: y", "hello", "200 200 kept", 2),
    ]
}

fn chunks() -> Vec<Case> {
    let chunks = |body: &str, wanted, arrives| {
        let short = if body.len() > 40 { &body[..40] } else { body };
        Case { name: format!("chunks {short:?}"), ..post(CHUNKED, body, wanted, arrives) }
    };
    vec![
        chunks("A\r\n0123456789\r\n00000\r\n\r\n", "200 200 kept", 2),
        chunks("5;a=b\r\nhello\r\n0;c\r\n\r\n", "200 200 kept", 2),
        chunks("5;a=\"x;y\"\r\nhello\r\n0\r\n\r\n", "200 200 kept", 2),
        chunks(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000)), "400 closed", 0)
            .unlike(Why::Chunks),
        chunks("5;\na\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("5;a\rb\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("5 \r\nhello\r\n0\r\n\r\n", "200 200 kept", 2),
        chunks("5\t;a\r\nhello\r\n0\r\n\r\n", "200 200 kept", 2),
        chunks(" 5\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("+5\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("-5\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("0x5\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("5g\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("zz\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("10000000000000005\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "408 closed", 0),
        chunks("7fffffffffffffff\r\nhello\r\n0\r\n\r\n", "408 closed", 0),
        chunks("00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", "200 200 kept", 2),
        chunks("5\nhello\r\n0\r\n\r\n", "400 closed", 0).unlike(Why::Chunks),
        chunks("5\r\nhello\n0\r\n\r\n", "400 closed", 0).unlike(Why::Chunks),
        chunks("5\rhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("5\r\nhello0\r\n\r\n", "400 closed", 0),
        chunks("4\r\nhello\r\n0\r\n\r\n", "400 closed", 0),
        chunks("6\r\nhello\r\n0\r\n\r\n", "400 closed", 0).unlike(Why::Chunks),
        chunks("0\r\nhello\r\n\r\n", "400 closed", 0).unlike(Why::Chunks),
        chunks("0\n\n", "400 closed", 0).unlike(Why::Chunks),
        chunks("0\r\n\n", "200 kept", 1).unlike(Why::TrailerEnd),
        // Ends where the next request begins: that becomes trailers, or nothing at all.
        chunks("5\r\nhello\r\n0\r\n", "400 closed", 0).unlike(Why::TrailerEnd),
        chunks("5\r\nhel", "400 closed", 0),
        Case {
            bytes: format!("POST /case HTTP/1.1\r\nHost: a.example\r\n{CHUNKED}\r\n\r\n5\r\nhel")
                .into_bytes(),
            ..chunks("cut short", "408 closed", 0).unlike(Why::Unfinished)
        },
        Case {
            bytes: format!("POST /case HTTP/1.1\r\nHost: a.example\r\n{CHUNKED}\r\n\r\n5\r\nhel")
                .into_bytes(),
            ..chunks("cut short, then closed", "500 closed|400 closed", 0).unlike(Why::Unfinished)
        }
        .then_half_closes(),
        Case {
            bytes: format!("POST /case HTTP/1.1\r\nHost: a.example\r\n{CHUNKED}\r\n\r\n5\r\nhello\r\n")
                .into_bytes(),
            ..chunks("no last chunk, then closed", "500 closed|400 closed", 0).unlike(Why::Unfinished)
        }
        .then_half_closes(),
    ]
}

fn trailers() -> Vec<Case> {
    let trailers = |lines: &str, wanted, arrives| {
        let short = if lines.len() > 40 { &lines[..40] } else { lines };
        let body = format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n");
        Case { name: format!("trailer {short:?}"), ..post(CHUNKED, &body, wanted, arrives) }
    };
    vec![
        trailers("X-Checksum: 1", "200 200 kept", 2),
        trailers("X-Real-IP: 192.0.2.66", "200 200 kept", 2),
        trailers("Content-Length: 50", "200 200 kept", 2),
        trailers("Transfer-Encoding: chunked", "200 200 kept", 2),
        trailers("Host: b.example", "200 200 kept", 2),
        trailers("X : y", "400 closed", 0).unlike(Why::Chunks),
        trailers("no colon", "400 closed", 0).unlike(Why::Chunks),
        trailers("X: y\n\nGET /next HTTP/1.1", "200 200 kept", 2).unlike(Why::TrailerEnd),
        trailers(&format!("X: {}", "y".repeat(70_000)), "400 closed", 0).unlike(Why::Chunks),
        trailers(&"X: y\r\n".repeat(2_000), "400 closed", 0).unlike(Why::Chunks),
    ]
}

fn bodies() -> Vec<Case> {
    let length = NEXT.len();
    vec![
        raw(
            "a request as a body",
            format!("POST /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"),
            "200 kept",
            1,
        ),
        raw(
            "a request as a body, and another",
            format!("POST /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n{NEXT}"),
            "200 200 kept",
            2,
        ),
        raw(
            "a request in a chunk",
            format!(
                "POST /case HTTP/1.1\r\nHost: a.example\r\n{CHUNKED}\r\n\r\n{length:x}\r\n{NEXT}\r\n{NONE}"
            ),
            "200 200 kept",
            2,
        ),
        raw(
            "a body beyond the limit, chunked",
            format!(
                "POST /case HTTP/1.1\r\nHost: a.example\r\n{CHUNKED}\r\n\r\n100001\r\n{}\r\n{NONE}",
                "x".repeat(0x10_0001)
            ),
            "413 closed",
            0,
        ),
        raw(
            "a length that is not kept",
            "POST /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\nhello",
            "408 closed",
            0,
        )
        .unlike(Why::Unfinished),
        raw(
            "a length that is not kept, then closed",
            "POST /case HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\nhello",
            "500 closed|400 closed",
            0,
        )
        .unlike(Why::Unfinished)
        .then_half_closes(),
        get("Expect: 100-continue", "200 200 kept", 2).unlike(Why::Continue),
        post("Expect: 100-continue\r\nContent-Length: 5", "hello", "100 200 200 kept", 2),
        post("Expect: 100-continue\r\nContent-Length: 1048577", "", "413 closed", 0).unlike(Why::Lingers),
        post("Expect: 100-continue\r\nTransfer-Encoding: chunked", HELLO, "100 200 200 kept", 2),
        post("Expect: 200-ok\r\nContent-Length: 5", "hello", "417 closed", 0).unlike(Why::Expect),
        post("Expect: 100-continue, x\r\nContent-Length: 5", "hello", "417 closed", 0).unlike(Why::Expect),
        post("Expect:\r\nContent-Length: 5", "hello", "417 closed", 0).unlike(Why::Expect),
    ]
}
