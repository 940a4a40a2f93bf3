//! Limits: connections, sizes, and requests that are not HTTP.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tollgate::proxy::plan::{Escalation, Plan};

use crate::backend::{Backend, Does, a_moment, says};
use crate::client::{self, GET, Wire};
use crate::stage::{Stage, upstream, within};
use crate::tls::{config, encrypted};

#[tokio::test(flavor = "multi_thread")]
async fn a_source_has_so_many_connections_and_no_more() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::with(upstream(&[backend.address]), |plan| plan.common.max_connections_per_source = 2);
    let (mut first, mut second) = (Wire::to(stage.address).await, Wire::to(stage.address).await);
    assert_eq!((first.ask(GET).await.status, second.ask(GET).await.status), (200, 200));
    assert!(Wire::to(stage.address).await.is_closed().await);
    assert_eq!(stage.reasons("too-many-connections"), 1);
    drop(second);
    stage.until("a seat is free", |stage| stage.service.snapshot().connections == 1).await;
    assert_eq!(Wire::to(stage.address).await.ask(GET).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_has_so_many_requests_in_flight_over_http2_and_no_more() {
    let backend = Backend::that(Does::Nothing).await;
    let stage = encrypted(&backend, |plan| plan.common.max_connections_per_source = 2).await;
    let mut senders = Vec::new();
    for _ in 0..2 {
        let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
        senders.push(client::http2(wire.stream).await.0);
    }
    let waiting: Vec<_> = (0..8).map(|number| senders[number % 2].send_request(client::get("/"))).collect();
    stage.until("asked", |_| backend.log.opened() == 8).await;
    let refused = within(senders[0].send_request(client::get("/"))).await.expect("an answer");
    assert_eq!(refused.status(), 429);
    assert_eq!(stage.reasons("too-many-requests"), 1);
    // Who leaves gives them back.
    drop(waiting);
    stage.until("reset", |stage| stage.reasons("client-gone") == 8).await;
    assert_eq!(backend.log.opened(), 8);
    let _next = senders[1].send_request(client::get("/"));
    stage.until("asked again", |_| backend.log.opened() == 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_bound_by_the_total_alone() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::with(upstream(&[backend.address]), |plan| {
        plan.common.max_connections_per_source = 1;
        plan.common.max_connections = 3;
        plan.common.trusted = vec!["127.0.0.0/8".parse().expect("a prefix")];
    });
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::to(stage.address).await;
        assert_eq!(wire.ask(GET).await.status, 200);
        wires.push(wire);
    }
    assert!(Wire::to(stage.address).await.is_closed().await);
}

fn small(plan: &mut Plan) {
    plan.common.sizes.target = 1_000;
    plan.common.sizes.headers = 4_000;
    plan.common.sizes.body = 1_000;
    plan.routes[0].body = 1_000;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_the_connection_closed() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::with(upstream(&[backend.address]), small);
    let long = "x".repeat(5_000);
    let longer = "x".repeat(100_000);
    let lines = "a: b\r\n".repeat(101);
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1_001));
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a.example\r\n\r\n", "x".repeat(1_001)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a.example\r\na: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a.example\r\na: {longer}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n"), 431),
        // Before any of it came, and without being asked for it.
        ("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1001\r\n\r\n".to_owned(), 413),
        (
            "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"
                .to_owned(),
            413,
        ),
        (format!("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"), 413),
    ] {
        let mut wire = Wire::to(stage.address).await;
        let reply = wire.ask(&request).await;
        assert_eq!(reply.status, status, "{}: {}", &request[..60], reply.head);
        assert!(wire.is_closed().await);
    }
    assert!(backend.log.requests.lock().expect("log").is_empty(), "{}", backend.log.bytes());
    // One that fits.
    let request =
        format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1_000));
    assert_eq!(Wire::to(stage.address).await.ask(request).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_though_the_client_still_sends() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::with(upstream(&[backend.address]), small);
    for _ in 0..20 {
        let mut wire = Wire::to(stage.address).await;
        wire.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 300000\r\n\r\n").await;
        wire.send(vec![b'x'; 300_000]).await;
        assert_eq!(wire.reply().await.status, 413);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_body_is_the_clients_fault() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::before(backend.address);
    for chunks in
        ["zz\r\n", "3\r\nabcd\r\n0\r\n\r\n", "ffffffffffffffffff\r\n", "-1\r\n", "3;\nx\r\nabc\r\n0\r\n\r\n"]
    {
        let mut wire = Wire::to(stage.address).await;
        let reply = wire
            .ask(format!("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))
            .await;
        assert_eq!(reply.status, 400, "{chunks:?}: {reply:?}");
        assert!(wire.is_closed().await);
    }
    assert_eq!(stage.reasons("body-invalid"), 5);
    assert!(backend.log.requests.lock().expect("log").is_empty());
    assert!(stage.service.snapshot().servers.iter().all(|server| !server.avoided));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_counted_and_noted() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::with(upstream(&[backend.address]), |plan| {
        plan.common.abuse = Some(Escalation { ban_ms: 60_000, after: 2 });
    });
    for _ in 0..4 {
        let mut wire = Wire::to(stage.address).await;
        assert_eq!(wire.ask("\x01\x02 garbage\r\n\r\n").await.status, 400);
        assert!(wire.is_closed().await);
    }
    let noted = stage.noted(4).await;
    assert!(noted.iter().all(|line| line.status == 400 && line.reason == Some("bad-request")), "{noted:?}");
    a_moment().await;
    // Loopback is never banned.
    assert!(stage.notes.bans.lock().expect("notes").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_has_the_same_limits_and_its_connection_goes_on() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, small).await;
    let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    let (mut sender, _task) = client::http2(wire.stream).await;
    let request = |path: &str, header: usize, body: usize| {
        Request::post(format!("https://a.example{path}"))
            .header("a", "x".repeat(header))
            .body(Full::new(Bytes::from(vec![b'x'; body])))
            .expect("a request")
    };
    let long = format!("/{}", "x".repeat(1_001));
    for (request, status) in [
        (request("/", 1, 1_000), 200),
        (request("/", 1, 1_001), 413),
        (request("/", 1, 100_000), 413),
        (request("/", 4_500, 0), 431),
        (request("/", 12_000, 0), 431),
        (request(&long, 1, 0), 414),
        (request("/", 1, 1_000), 200),
    ] {
        let response = within(sender.send_request(request)).await.expect("an answer");
        assert_eq!(response.status(), status);
    }
    assert_eq!(backend.log.heads().len(), 2);
    assert_eq!(stage.service.snapshot().accepted, 1);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2 (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_that_breaks_the_protocol_is_an_offender_and_one_that_leaves_is_not() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    let settings = || [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
    for (number, bytes) in (1..).zip([
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec(),
        // Data on a stream that was never opened, and a header block that is none.
        [settings(), frame(0, 0, 7, b"x")].concat(),
        [settings(), frame(1, 5, 1, &[0xff; 40])].concat(),
    ]) {
        let mut wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
        wire.send(bytes).await;
        assert!(wire.is_closed().await);
        stage.until("noticed", |stage| stage.reasons("http2-invalid") == number).await;
    }
    for farewell in [Vec::new(), settings(), [settings(), frame(7, 0, 0, &[0; 8])].concat()] {
        let mut wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
        wire.send(farewell).await;
        a_moment().await;
        drop(wire);
    }
    stage.until("all have left", |stage| stage.service.snapshot().connections == 0).await;
    assert_eq!(stage.reasons("http2-invalid"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_that_resets_what_it_begins_is_shut_out() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    let mut wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    wire.send([PREFACE.to_vec(), frame(4, 0, 0, &[])].concat()).await;
    // GET, https, /, and a.example as authority, without a table.
    let head = [&[0x82, 0x87, 0x84, 0x01, 9][..], b"a.example"].concat();
    let mut flood = Vec::new();
    for number in 0..2_000 {
        flood.extend(frame(1, 5, 2 * number + 1, &head));
        flood.extend(frame(3, 0, 2 * number + 1, &[0, 0, 0, 8]));
    }
    wire.send(flood).await;
    assert!(wire.is_closed().await);
    stage.until("the connection is gone", |stage| stage.service.snapshot().connections == 0).await;
    assert!(backend.log.heads().len() < 1_000, "{} of 2000", backend.log.heads().len());
    assert_eq!(stage.reasons("http2-invalid"), 1);
}
