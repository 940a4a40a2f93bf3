//! Lines of the access log: JSON, or nginx's `combined`. Called by the worker when an answer has been sent.
//!
//! What a client sends can end no line, begin none, and give no terminal orders: JSON escapes it by its own rules, and bytes that are
//! no UTF-8 stand as `\xHH`; `combined` writes all but printing ASCII, quotes and backslashes as `\xHH`, as nginx does.

use std::cell::RefCell;
use std::io::Write;

use http::{HeaderValue, Version};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Asked, Client, Reason};
use crate::proxy::plan::LogFormat;

/// What a line says.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When the request came, nanoseconds since 1970.
    pub unix_ns: u64,
    /// Who is connected.
    pub client: &'a Client,
    /// The zone of the policy that the peer is in.
    pub zone: Option<&'a str>,
    /// What was asked; `None` if it could not be parsed.
    pub asked: Option<&'a Asked>,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// Body bytes received from the client.
    pub received: u64,
    /// Body bytes sent to the client.
    pub sent: u64,
    /// From the request's head to the end of its answer, nanoseconds.
    pub duration_ns: u64,
    /// From the upstream's being asked to its answer's head, nanoseconds.
    pub upstream_ns: Option<u64>,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The server that answered.
    pub upstream: Option<&'a str>,
    /// Why the proxy answered itself, or why the answer is not complete.
    pub reason: Option<Reason>,
}

/// A line of JSON. Times are in milliseconds, with microseconds.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    listener: &'a str,
    #[serde(flatten)]
    asked: Option<Question<'a>>,
    status: u16,
    received: u64,
    sent: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls<'a>>,
}

#[derive(Serialize)]
struct Question<'a> {
    method: &'a str,
    target: String,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    id: String,
}

#[derive(Serialize)]
struct Tls<'a> {
    version: &'static str,
    cipher: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
}

/// Appends a line, with its line feed.
pub fn line(format: LogFormat, record: &Record<'_>, out: &mut Vec<u8>) {
    match format {
        LogFormat::Json => json(record, out),
        LogFormat::Combined => combined(record, out),
    }
    out.push(b'\n');
}

fn json(record: &Record<'_>, out: &mut Vec<u8>) {
    let peer = record.client.peer.ip().to_canonical();
    let line = Line {
        time: second_of(record.unix_ns, |second| {
            format!("{}.{:06}Z", second.json, record.unix_ns % NANOSECONDS / 1000)
        }),
        peer: peer.to_string(),
        client: record
            .asked
            .map(|asked| asked.client)
            .filter(|client| *client != peer)
            .map(|client| client.to_string()),
        zone: record.zone,
        listener: &record.client.listener,
        asked: record.asked.map(|asked| Question {
            method: asked.method.as_str(),
            target: target(asked),
            version: version(asked.version),
            host: asked.host.as_ref().map(text),
            referer: asked.referer.as_ref().map(text),
            user_agent: asked.user_agent.as_ref().map(text),
            id: text(&asked.id),
        }),
        status: record.status,
        received: record.received,
        sent: record.sent,
        duration_ms: ms(record.duration_ns),
        upstream_ms: record.upstream_ns.map(ms),
        route: record.route,
        upstream: record.upstream,
        reason: record.reason.map(Reason::name),
        tls: record.client.tls.as_ref().map(|tls| Tls {
            version: tls.version,
            cipher: tls.cipher,
            sni: tls.sni.as_deref(),
        }),
    };
    let start = out.len();
    // Neither maps with odd keys nor a writer that fails: there is nothing to go wrong, and half a line would be worse than none.
    if serde_json::to_writer(&mut *out, &line).is_err() {
        out.truncate(start);
    }
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`; the address is
/// the client's, as with nginx's real-ip module. The user is not read.
fn combined(record: &Record<'_>, out: &mut Vec<u8>) {
    let address = record.asked.map_or_else(|| record.client.peer.ip().to_canonical(), |asked| asked.client);
    // Into memory: nothing fails.
    let _ = second_of(record.unix_ns, |second| write!(out, "{address} - - [{}] \"", second.combined));
    if let Some(asked) = record.asked {
        escape(asked.method.as_str().as_bytes(), out);
        out.push(b' ');
        escape(target(asked).as_bytes(), out);
        out.push(b' ');
        out.extend_from_slice(version(asked.version).as_bytes());
    }
    let _ = write!(out, "\" {:03} {} \"", record.status, record.sent);
    quoted(record.asked.and_then(|asked| asked.referer.as_ref()), out);
    out.extend_from_slice(b"\" \"");
    quoted(record.asked.and_then(|asked| asked.user_agent.as_ref()), out);
    out.push(b'"');
}

/// A header's value, or nginx's `-`.
fn quoted(value: Option<&HeaderValue>, out: &mut Vec<u8>) {
    escape(value.map_or(b"-", HeaderValue::as_bytes), out);
}

/// nginx's `escape=default`.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or(b'?');
                out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
            }
            byte => out.push(*byte),
        }
    }
}

/// UTF-8 as it is, other bytes as `\xHH`. A backslash of the value's own becomes `\x5C` then: the line can be read back.
fn text(value: &HeaderValue) -> String {
    if let Ok(text) = std::str::from_utf8(value.as_bytes()) {
        return text.to_owned();
    }
    let mut out = String::new();
    for chunk in value.as_bytes().utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', "\\x5C"));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02X}"));
        }
    }
    out
}

/// As the client sent it; of HTTP/2 the path.
fn target(asked: &Asked) -> String {
    match asked.uri.path_and_query() {
        Some(path) if asked.version == Version::HTTP_2 => path.to_string(),
        _ => asked.uri.to_string(),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP",
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

/// A second as the formats have it.
struct Second {
    /// Since 1970.
    number: u64,
    json: String,
    combined: String,
}

impl Second {
    /// Nanoseconds since 1970 reach the year 2554, which is within what a timestamp can be.
    fn new(number: u64) -> Self {
        let time = i64::try_from(number).ok().and_then(|number| Timestamp::from_second(number).ok());
        let time = time.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
        Self {
            number,
            json: time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            combined: time.strftime("%d/%b/%Y:%H:%M:%S %z").to_string(),
        }
    }
}

/// Many lines are of the same second: it is put into words once.
fn second_of<T>(unix_ns: u64, use_it: impl FnOnce(&Second) -> T) -> T {
    thread_local! {
        static LAST: RefCell<Second> = RefCell::new(Second::new(0));
    }
    let number = unix_ns / NANOSECONDS;
    LAST.with_borrow_mut(|last| {
        if last.number != number {
            *last = Second::new(number);
        }
        use_it(last)
    })
}

fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::TlsInfo;
    use super::super::tests::{asked, client};
    use super::*;

    const WHEN: u64 = 1_700_000_000_123_456_789;

    fn record<'a>(client: &'a Client, asked: Option<&'a Asked>) -> Record<'a> {
        Record {
            unix_ns: WHEN,
            client,
            zone: None,
            asked,
            status: 200,
            received: 0,
            sent: 12,
            duration_ns: 1_234_567,
            upstream_ns: None,
            route: None,
            upstream: None,
            reason: None,
        }
    }

    fn lined(format: LogFormat, record: &Record<'_>) -> String {
        let mut out = b"before\n".to_vec();
        line(format, record, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let line = text.strip_prefix("before\n").and_then(|line| line.strip_suffix('\n')).expect("one line");
        assert!(!line.contains(['\n', '\r', '\0', '\u{1b}']), "{line}");
        line.to_owned()
    }

    #[test]
    fn json_says_everything() {
        let mut client = client("10.0.0.1");
        client.tls = Some(TlsInfo { sni: Some("a.example".to_owned()), version: "TLSv1.3", cipher: "C" });
        let mut asked = asked();
        asked.uri = "/a?b".parse().expect("a URI");
        let full = Record {
            zone: Some("lan"),
            upstream_ns: Some(1_000_000),
            route: Some("crm"),
            upstream: Some("127.0.0.1:8082"),
            reason: Some(Reason::UpstreamBroke),
            received: 5,
            ..record(&client, Some(&asked))
        };
        let found: Value = serde_json::from_str(&lined(LogFormat::Json, &full)).expect("JSON");
        let expected = json!({
            "time": "2023-11-14T22:13:20.123456Z", "peer": "10.0.0.1", "client": "192.0.2.1", "zone": "lan", "listener": "web",
            "method": "GET", "target": "/a?b", "version": "HTTP/1.1", "host": "a.example", "id": "id-1",
            "status": 200, "received": 5, "sent": 12, "duration_ms": 1.234, "upstream_ms": 1.0, "route": "crm",
            "upstream": "127.0.0.1:8082", "reason": "upstream-broke",
            "tls": { "version": "TLSv1.3", "cipher": "C", "sni": "a.example" },
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn what_could_not_be_parsed_has_a_line_too() {
        let client = client("192.0.2.1");
        let bad = Record { status: 400, reason: Some(Reason::BadRequest), ..record(&client, None) };
        let found: Value = serde_json::from_str(&lined(LogFormat::Json, &bad)).expect("JSON");
        assert_eq!((&found["method"], &found["reason"]), (&Value::Null, &json!("bad-request")));
        let expected = r#"192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "" 400 12 "-" "-""#;
        assert_eq!(lined(LogFormat::Combined, &bad), expected);
    }

    #[test]
    fn what_clients_send_is_escaped() {
        for (sent, combined, plain) in [
            (&b"Mozilla/5.0 (X11)"[..], "Mozilla/5.0 (X11)", "Mozilla/5.0 (X11)"),
            (b"a\" 200 1 \"", r"a\x22 200 1 \x22", "a\" 200 1 \""),
            (br"a\x22\", r"a\x5Cx22\x5C", r"a\x22\"),
            (b"a\tb", r"a\x09b", "a\tb"),
            ("caf\u{e9}".as_bytes(), r"caf\xC3\xA9", "caf\u{e9}"),
            (b"caf\xe9\\", r"caf\xE9\x5C", r"caf\xE9\x5C"),
            (b"\xff\xfe", r"\xFF\xFE", r"\xFF\xFE"),
            ("\u{2028}\u{9b}31m".as_bytes(), r"\xE2\x80\xA8\xC2\x9B31m", "\u{2028}\u{9b}31m"),
            (b"", "", ""),
        ] {
            let mut asked = asked();
            asked.user_agent = Some(HeaderValue::from_bytes(sent).expect("a value"));
            asked.referer = asked.user_agent.clone();
            let client = client("192.0.2.1");
            let record = record(&client, Some(&asked));
            let expected = format!(
                r#"192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET / HTTP/1.1" 200 12 "{combined}" "{combined}""#
            );
            assert_eq!(lined(LogFormat::Combined, &record), expected);
            let found: Value = serde_json::from_str(&lined(LogFormat::Json, &record)).expect("JSON");
            assert_eq!((&found["user_agent"], &found["referer"]), (&json!(plain), &json!(plain)));
        }
    }

    #[test]
    fn control_bytes_are_escaped_wherever_they_come_from() {
        let mut out = Vec::new();
        escape(&(0..=255).collect::<Vec<u8>>(), &mut out);
        assert!(out.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'"'));
        assert!(out.starts_with(br"\x00\x01\x02") && out.ends_with(br"\xFE\xFF"));
        let client = client("192.0.2.1");
        let odd = Record { route: Some("a\"\n\u{1b}b"), zone: Some("\0"), ..record(&client, None) };
        let found: Value = serde_json::from_str(&lined(LogFormat::Json, &odd)).expect("JSON");
        assert_eq!((&found["route"], &found["zone"]), (&json!("a\"\n\u{1b}b"), &json!("\0")));
    }

    #[test]
    fn targets_stand_as_they_were_sent() {
        for (uri, version, expected) in [
            ("/a//../\"?c=d", Version::HTTP_11, r#""GET /a//../\x22?c=d HTTP/1.1""#),
            ("http://a.example/b", Version::HTTP_11, r#""GET http://a.example/b HTTP/1.1""#),
            ("https://a.example/b", Version::HTTP_2, r#""GET /b HTTP/2.0""#),
            ("*", Version::HTTP_10, r#""GET * HTTP/1.0""#),
        ] {
            let mut asked = asked();
            (asked.uri, asked.version) = (uri.parse().expect("a URI"), version);
            let client = client("192.0.2.1");
            let line = lined(LogFormat::Combined, &record(&client, Some(&asked)));
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn times_to_the_end_of_the_count_are_times() {
        let client = client("192.0.2.1");
        let last = Record { unix_ns: u64::MAX, duration_ns: u64::MAX, ..record(&client, None) };
        let found: Value = serde_json::from_str(&lined(LogFormat::Json, &last)).expect("JSON");
        assert_eq!(found["time"], "2554-07-21T23:34:33.709551Z");
    }
}
