//! HTTP/2: what must not become a line of HTTP/1 (RFC 9113 8.2 and 8.3, 10.3), frames out of place, and floods.

use crate::case::{Case, FIELDS, Why, fields, frames, plus, with};
use crate::frames::*;

/// What would be a request of its own, if a value could end a line.
const INJECTED: &str = "x\r\nHost: b.example\r\n\r\nGET /hidden HTTP/1.1\r\nX: ";

/// All of them.
pub fn cases() -> Vec<Case> {
    [pseudo(), injections(), connection(), bodies(), out_of_place(), floods()].concat()
}

fn pseudo() -> Vec<Case> {
    let [method, scheme, path, authority] = FIELDS;
    vec![
        fields("a plain request", &FIELDS, "200 200 kept", 2),
        fields("no method", &[scheme, path, authority], "rst1 200 kept", 1).unlike(Why::StreamReset),
        fields("no scheme", &[method, path, authority], "rst1 200 kept", 1).unlike(Why::StreamReset),
        fields("no path", &[method, scheme, authority], "rst1 200 kept", 1).unlike(Why::StreamReset),
        fields("no authority", &[method, scheme, path], "400 200 kept", 1),
        fields("no authority, but host", &[method, scheme, path, ("host", "a.example")], "200 200 kept", 2),
        fields("two methods", &[method, scheme, path, authority, (":method", "POST")], "rst1 200 kept", 1)
            .unlike(Why::StreamReset),
        fields("two paths", &[method, scheme, path, authority, (":path", "/b")], "rst1 200 kept", 1)
            .unlike(Why::StreamReset),
        fields(
            "two authorities",
            &[method, scheme, path, authority, (":authority", "b.example")],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::StreamReset),
        fields("two schemes", &[method, scheme, path, authority, (":scheme", "http")], "rst1 200 kept", 1)
            .unlike(Why::StreamReset),
        fields("a late pseudo-header", &[method, scheme, path, ("x", "y"), authority], "rst1 200 kept", 1)
            .unlike(Why::StreamReset),
        fields(
            "an unknown pseudo-header",
            &[method, scheme, path, authority, (":x", "y")],
            "goaway1 closed",
            0,
        )
        .unlike(Why::FieldBytes),
        fields(
            "a pseudo-header of answers",
            &[method, scheme, path, authority, (":status", "200")],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::StreamReset),
        fields(
            "a protocol that was not offered",
            &[(":method", "CONNECT"), scheme, path, authority, (":protocol", "websocket")],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::StreamReset),
        fields("no fields at all", &[], "rst1 200 kept", 1).unlike(Why::StreamReset),
        plus("host", "a.example", "200 200 kept", 2).unlike(Why::HostBesideAuthority),
        plus("host", "b.example", "400 200 kept", 1),
        plus("host", "", "400 200 kept", 1),
        fields(
            "two hosts",
            &[method, scheme, path, authority, ("host", "a.example"), ("host", "a.example")],
            "400 200 kept",
            1,
        ),
        with(":method", "", "goaway1 closed", 0).unlike(Why::FieldBytes),
        with(":method", "get", "200 200 kept", 2).unlike(Why::Methods),
        with(":method", "GET / HTTP/1.1", "goaway1 closed", 0).unlike(Why::FieldBytes),
        with(":method", "GET\r\nX: y", "goaway1 closed", 0).unlike(Why::FieldBytes),
        with(":method", "CONNECT", "rst1 200 kept", 1).unlike(Why::StreamReset),
        fields(
            "a CONNECT as it should be",
            &[(":method", "CONNECT"), (":authority", "a.example:443")],
            "405 200 kept",
            1,
        ),
        with(":method", "TRACE", "405 200 kept", 1),
        with(":path", "", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":path", "case", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":path", "*", "400 200 kept", 1),
        with(":path", "/case HTTP/1.1", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":path", "/case\tx", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":path", "/case#fragment", "200 200 kept", 2).unlike(Why::Fragment),
        with(":path", "/case\0", "rst1 200 kept", 1),
        with(":path", "/a%00b", "400 200 kept", 1),
        with(":path", "/../x", "400 200 kept", 1),
        with(":path", "/caf\u{e9}", "400 200 kept", 1).unlike(Why::TargetBytes),
        with(":path", "http://b.example/case", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":path", "//b.example/case", "200 200 kept", 2),
        with(":scheme", "http", "200 200 kept", 2),
        with(":scheme", "ftp", "400 200 kept", 1).unlike(Why::Scheme),
        with(":scheme", "", "400 200 kept", 1).unlike(Why::StreamReset),
        with(":scheme", "https://b.example/x?", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":authority", "", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":authority", "u@a.example", "400 200 kept", 1).unlike(Why::HostSyntax),
        with(":authority", "a.example:x", "400 200 kept", 1).unlike(Why::HostSyntax),
        with(":authority", "a.example/x", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":authority", "a example", "rst1 200 kept", 1).unlike(Why::StreamReset),
        with(":authority", "<script>", "rst1 200 kept", 1).unlike(Why::HostSyntax),
    ]
}

fn injections() -> Vec<Case> {
    vec![
        with(":path", &format!("/{INJECTED}"), "rst1 200 kept", 1),
        with(":path", "/case HTTP/1.1\r\nHost: b.example\r\n\r\nGET /hidden", "rst1 200 kept", 1),
        with(":authority", &format!("a.example{INJECTED}"), "rst1 200 kept", 1),
        with(":scheme", &format!("https{INJECTED}"), "rst1 200 kept", 1),
        plus("x", INJECTED, "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x", "y\nhost: b.example", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x", "y\rhost: b.example", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x", "y\0z", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x", " y", "200 200 kept", 2),
        plus("x", "y\u{7f}", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x\r\nhost", "b.example", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x: y\r\nz", "1", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x:y", "z", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x y", "z", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x\0y", "z", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("", "z", "goaway1 closed", 0),
        plus("x\u{e9}", "z", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("X", "y", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x-Real-ip", "192.0.2.66", "goaway1 closed", 0).unlike(Why::FieldBytes),
        plus("x-real-ip", "192.0.2.66", "200 200 kept", 2),
        plus("x_real_ip", "192.0.2.66", "200 200 kept", 2),
        fields(
            "crumbs of cookies",
            &[&FIELDS[..], &[("cookie", "a=1"), ("cookie", "b=2")]].concat(),
            "200 200 kept",
            2,
        ),
        plus("cookie", "a=1\r\nx: y", "goaway1 closed", 0).unlike(Why::FieldBytes),
    ]
}

fn connection() -> Vec<Case> {
    vec![
        plus("connection", "close", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("connection", "x-real-ip", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("keep-alive", "timeout=5", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("proxy-connection", "close", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("upgrade", "websocket", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("upgrade", "h2c", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("transfer-encoding", "chunked", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("transfer-encoding", "identity", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("te", "trailers", "200 200 kept", 2),
        plus("te", "gzip", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("te", "trailers, chunked", "rst1 200 kept", 1).unlike(Why::ConnectionHeaders),
        plus("expect", "100-continue", "200 200 kept", 2),
        plus("expect", "x", "417 200 kept", 1).unlike(Why::Expect),
    ]
}

/// HEADERS without an end of the stream, then these frames.
fn posted(name: &str, more: &[(&str, &str)], then: &[Vec<u8>], wanted: &'static str, arrives: usize) -> Case {
    let mut head = FIELDS.to_vec();
    head[0].1 = "POST";
    head.extend_from_slice(more);
    frames(name, &[&[frame(HEADERS, END_HEADERS, 1, &block(&head))], then].concat(), wanted, arrives)
}

fn bodies() -> Vec<Case> {
    let data = |flags, text: &str| frame(DATA, flags, 1, text.as_bytes());
    let trailers = |fields: &[(&str, &str)]| frame(HEADERS, WHOLE, 1, &block(fields));
    let hello = || data(0, "hello");
    let chunked = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a.example\r\n\r\n";
    vec![
        posted("a body", &[], &[data(END_STREAM, "hello")], "200 200 kept", 2),
        posted(
            "a body and its length",
            &[("content-length", "5")],
            &[data(END_STREAM, "hello")],
            "200 200 kept",
            2,
        ),
        posted(
            "a body shorter than its length",
            &[("content-length", "6")],
            &[data(END_STREAM, "hello")],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::StreamReset),
        posted(
            "a body longer than its length",
            &[("content-length", "4")],
            &[data(END_STREAM, "hello")],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::StreamReset),
        posted(
            "a length of nothing",
            &[("content-length", "0")],
            &[data(END_STREAM, chunked)],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::StreamReset),
        plus("content-length", "5", "rst1 200 kept", 1).unlike(Why::StreamReset),
        plus("content-length", "+0", "rst1 200 kept", 1).unlike(Why::StreamReset),
        plus("content-length", "0, 0", "rst1 200 kept", 1).unlike(Why::StreamReset),
        plus("content-length", "18446744073709551616", "rst1 200 kept", 1).unlike(Why::StreamReset),
        fields(
            "two lengths",
            &[&FIELDS[..], &[("content-length", "0"), ("content-length", "0")]].concat(),
            "400 200 kept",
            1,
        ),
        posted(
            "two lengths that differ",
            &[("content-length", "5"), ("content-length", "0")],
            &[data(END_STREAM, "hello")],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::StreamReset),
        posted(
            "a chunked body by name",
            &[("transfer-encoding", "chunked")],
            &[data(END_STREAM, chunked)],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::ConnectionHeaders),
        posted("a body that looks chunked", &[], &[data(END_STREAM, chunked)], "200 200 kept", 2),
        posted(
            "a length beyond the limit",
            &[("content-length", "1048577")],
            &[data(0, "x")],
            "413 200 kept",
            1,
        ),
        posted("a body that does not end", &[("content-length", "5")], &[data(0, "hel")], "408 200 kept", 1)
            .unlike(Why::Unfinished),
        posted(
            "a body that is reset",
            &[("content-length", "5")],
            &[data(0, "hel"), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])],
            "200 kept",
            1,
        ),
        posted("trailers", &[], &[hello(), trailers(&[("x-checksum", "1")])], "200 200 kept", 2)
            .unlike(Why::Trailers),
        posted(
            "trailers that name a client",
            &[],
            &[hello(), trailers(&[("x-real-ip", "192.0.2.66")])],
            "200 200 kept",
            2,
        )
        .unlike(Why::Trailers),
        posted(
            "trailers with a pseudo-header",
            &[],
            &[hello(), trailers(&[(":path", "/b")])],
            "200 200 kept",
            2,
        )
        .unlike(Why::Trailers),
        posted("trailers in upper case", &[], &[hello(), trailers(&[("X", "y")])], "goaway1 closed", 0),
        posted(
            "trailers with a length",
            &[],
            &[hello(), trailers(&[("content-length", "50")])],
            "200 200 kept",
            2,
        )
        .unlike(Why::Trailers),
        posted(
            "trailers without an end",
            &[],
            &[hello(), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::Trailers),
        posted("trailers that inject", &[], &[hello(), trailers(&[("x", INJECTED)])], "goaway1 closed", 0),
        posted(
            "bytes after the end",
            &[],
            &[data(END_STREAM, "hello"), data(END_STREAM, "more")],
            "goaway1 closed",
            0,
        )
        .unlike(Why::Frames),
    ]
}

/// Frames that are malformed or not allowed where they are: the connection, or the stream, ends.
fn out_of_place() -> Vec<Case> {
    let whole = || frame(HEADERS, WHOLE, 1, &block(&FIELDS));
    let half = || frame(HEADERS, END_STREAM, 1, &block(&FIELDS));
    vec![
        frames("DATA before HEADERS", &[frame(DATA, END_STREAM, 1, b"x")], "goaway1 closed", 0)
            .unlike(Why::Frames),
        frames("HEADERS on stream 0", &[frame(HEADERS, WHOLE, 0, &block(&FIELDS))], "goaway1 closed", 0),
        frames(
            "HEADERS on an even stream",
            &[frame(HEADERS, WHOLE, 2, &block(&FIELDS))],
            "goaway1 closed",
            0,
        ),
        frames(
            "a push by a client",
            &[frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block(&FIELDS)].concat())],
            "goaway1 closed",
            0,
        ),
        frames(
            "CONTINUATION by itself",
            &[frame(CONTINUATION, END_HEADERS, 1, &block(&FIELDS))],
            "goaway1 closed",
            0,
        ),
        frames("a frame within a head", &[half(), frame(PING, 0, 0, &[0; 8])], "goaway1 closed", 0),
        frames(
            "a head in pieces",
            &[
                frame(HEADERS, END_STREAM, 1, &block(&FIELDS[..2])),
                frame(CONTINUATION, END_HEADERS, 1, &block(&FIELDS[2..])),
            ],
            "200 200 kept",
            2,
        ),
        frames("an unknown frame", &[frame(0xbe, 0xff, 0, b"what"), whole()], "200 200 kept", 2),
        frames("a frame that is too large", &[frame(DATA, 0, 1, &[0; 16_385])], "goaway6 closed", 0)
            .unlike(Why::Frames),
        frames("PING of seven bytes", &[frame(PING, 0, 0, &[0; 7])], "goaway1 closed", 0),
        frames("PING on a stream", &[frame(PING, 0, 1, &[0; 8])], "goaway1 closed", 0),
        frames("SETTINGS of five bytes", &[frame(SETTINGS, 0, 0, &[0; 5])], "goaway1 closed", 0),
        frames("a window of nothing", &[frame(WINDOW_UPDATE, 0, 0, &[0; 4])], "goaway1 closed", 0),
        frames(
            "a window beyond 2^31",
            &[frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])],
            "goaway3 closed",
            0,
        ),
        frames(
            "a stream that depends on itself",
            &[frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), whole()],
            "rst1 200 kept",
            1,
        )
        .unlike(Why::Frames),
        frames(
            "padding longer than its frame",
            &[frame(HEADERS, WHOLE | 8, 1, &[&[200][..], &block(&FIELDS)].concat())],
            "goaway1 closed",
            0,
        ),
        frames(
            "an index of HPACK that is none",
            &[frame(HEADERS, WHOLE, 1, &[0xff, 0xff, 0x03])],
            "goaway1 closed",
            0,
        ),
        frames(
            "a block of HPACK that is cut",
            &[frame(HEADERS, WHOLE, 1, &block(&FIELDS)[..20])],
            "goaway1 closed",
            0,
        ),
        frames("a farewell", &[frame(GOAWAY, 0, 0, &[0; 8]), whole()], "200 200 closed", 2)
            .unlike(Why::Farewell),
    ]
}

/// Bounded, and each on one connection.
fn floods() -> Vec<Case> {
    let stream = |number: u32| 2 * number + 5;
    let mut resets = Vec::new();
    let mut many = Vec::new();
    for number in 0..2_000 {
        resets.push(frame(HEADERS, WHOLE, stream(number), &block(&FIELDS)));
        resets.push(frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 8]));
        many.push(frame(HEADERS, END_HEADERS, stream(number), &block(&FIELDS)));
    }
    let first = frame(HEADERS, END_STREAM, 1, &block(&FIELDS));
    let piece = block(&[("x", &"y".repeat(16_000))]);
    let pieces: Vec<_> =
        std::iter::once(first.clone()).chain((0..500).map(|_| frame(CONTINUATION, 0, 1, &piece))).collect();
    let empty: Vec<_> =
        std::iter::once(first).chain((0..20_000).map(|_| frame(CONTINUATION, 0, 1, &[]))).collect();
    let fields_of = |count: usize, value: &str| {
        let more: Vec<(&str, &str)> = std::iter::repeat_n(("x", value), count).collect();
        frame(HEADERS, WHOLE, 1, &block(&[&FIELDS[..], &more].concat()))
    };
    vec![
        frames("rapid reset", &resets, "goaway11 closed|200 goaway11 closed|- closed", 0).flood(0..=300),
        frames("2000 streams at once", &many, "goaway11 rst7 closed|goaway11 closed|- closed", 0)
            .flood(0..=0),
        frames("CONTINUATION without end", &pieces, "- closed|goaway11 closed", 0).flood(0..=0),
        frames("empty CONTINUATION without end", &empty, "goaway11 closed|- closed", 0).flood(0..=0),
        frames(
            "20000 times SETTINGS",
            &vec![frame(SETTINGS, 0, 0, &[]); 20_000],
            "200 kept|goaway11 closed|- closed",
            0,
        )
        .flood(0..=1),
        frames(
            "20000 times PING",
            &vec![frame(PING, 0, 0, &[0; 8]); 20_000],
            "200 kept|goaway11 closed|- closed",
            0,
        )
        .flood(0..=1),
        frames(
            "20000 times empty DATA",
            &[vec![frame(HEADERS, END_HEADERS, 1, &block(&FIELDS))], vec![frame(DATA, 0, 1, &[]); 20_000]]
                .concat(),
            "goaway11 closed|- closed",
            0,
        )
        .flood(0..=1),
        frames("101 fields", &[fields_of(101, "y")], "431 200 kept", 1).unlike(Why::Limits),
        frames("a header of 10 KiB", &[fields_of(1, &"y".repeat(10 << 10))], "200 200 kept", 2)
            .unlike(Why::Limits),
        frames("1500 fields", &[fields_of(1_500, "y")], "431 200 kept", 1),
    ]
}
