//! The request shapes, by topic, and how they are written down.

mod answers;
mod bodies;
mod connections;
mod heads;
mod hosts;
mod http2;
mod upstreams;

use super::{How, Shape, Step, Tls, Via};

/// All of them, in the order in which they are sent.
pub fn shapes() -> Vec<Shape> {
    let mut all = Vec::new();
    for topic in [
        answers::shapes,
        bodies::shapes,
        connections::shapes,
        heads::shapes,
        http2::shapes,
        upstreams::shapes,
        hosts::shapes,
    ] {
        all.extend(topic());
    }
    all
}

/// The host of the CRM, by the development server; without a server name.
const CRM: &str = "192.168.0.104";
/// The host of the main platform, by gunicorn.
const PLATFORM: &str = "dashboard.krystal.technology";
/// The host of what answers with odd bytes.
const ODD: &str = "odd.example";
/// The host of what is not there.
const DOWN: &str = "down.example";

/// TLS as browsers do it.
const fn tls(sni: Option<&'static str>) -> Via {
    Via::Tls(Tls { sni, alpn: &["http/1.1"], old: false })
}

/// How clients come to a host.
fn to(host: &str) -> Via {
    match host {
        PLATFORM => tls(Some(PLATFORM)),
        ODD => tls(Some(ODD)),
        DOWN => tls(Some(DOWN)),
        _ => tls(None),
    }
}

/// A request of HTTP/1.1: `line` is method and target.
fn request(line: &str, host: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: {host}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// The same with a `Content-Length`.
fn with_body(line: &str, host: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    request(line, host, &[headers, &[&length]].concat(), body)
}

/// One request and its answer.
fn once(name: &'static str, via: Via, bytes: impl Into<Vec<u8>>) -> Shape {
    let bytes = bytes.into();
    let head = bytes.starts_with(b"HEAD ");
    steps(name, via, vec![Step::Send(bytes), Step::Read { head }])
}

fn steps(name: &'static str, via: Via, steps: Vec<Step>) -> Shape {
    Shape { name, how: How::Steps(via, steps) }
}

/// A GET of a host's path, with more headers.
fn get(name: &'static str, host: &str, path: &str, headers: &[&str]) -> Shape {
    once(name, to(host), request(&format!("GET {path}"), host, headers, b""))
}

/// A request with a body.
fn post(name: &'static str, host: &str, path: &str, headers: &[&str], body: &[u8]) -> Shape {
    once(name, to(host), with_body(&format!("POST {path}"), host, headers, body))
}
