//! Requests and answers on their way: bodies, expectations, and what goes wrong behind the proxy.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::backend::{Backend, Does, a_moment, says};
use crate::client::{self, GET, Wire};
use crate::stage::{Stage, socket, upstream, within};
use crate::tls::{config, encrypted};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_both_ways_whatever_their_framing() {
    let backend = Backend::that(Does::Bytes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
            .to_vec(),
    ))
    .await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\nabcdef",
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n",
    ] {
        let reply = wire.ask(request).await;
        assert!(
            reply.status == 200 && reply.text().contains("hello") && reply.text().contains(" world"),
            "{reply:?}"
        );
    }
    let bodies: Vec<_> =
        backend.log.requests.lock().expect("log").iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies[0], b"abcdef");
    let chunked = String::from_utf8_lossy(&bodies[1]).replace(['\r', '\n'], "");
    assert!(chunked.contains("ab") && chunked.contains("cdef") && chunked.ends_with('0'), "{chunked}");
    let noted = stage.noted(2).await;
    assert!(noted.iter().all(|line| (line.received, line.sent, line.reason) == (6, 11, None)), "{noted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn continue_is_said_when_the_upstream_is_there_and_only_then() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::before(backend.address);
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(head).await.status, 100);
    assert_eq!(wire.ask("abc").await.status, 200);
    let heads = backend.log.heads();
    assert!(heads.len() == 1 && !heads[0].to_ascii_lowercase().contains("expect"), "{heads:?}");

    let (gone, address) = socket();
    drop(gone);
    let stage = Stage::before(address);
    assert_eq!(Wire::to(stage.address).await.ask(head).await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_there_is_a_502() {
    let (gone, address) = socket();
    drop(gone);
    let stage = Stage::before(address);
    let mut wire = Wire::to(stage.address).await;
    for _ in 0..2 {
        assert_eq!(wire.ask(GET).await.status, 502);
    }
    assert_eq!(stage.noted(2).await[0].reason, Some("upstream-down"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_answer_is_a_504() {
    let backend = Backend::that(Does::Nothing).await;
    let mut slow = upstream(&[backend.address]);
    slow.response_ms = 300;
    let stage = Stage::with(slow, |_| {});
    for request in [GET, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc"] {
        assert_eq!(Wire::to(stage.address).await.ask(request).await.status, 504);
    }
    let noted = stage.noted(2).await;
    assert!(noted.iter().all(|line| line.reason == Some("upstream-timeout")), "{noted:?}");
    // Its connections are not used again.
    within(async {
        while backend.log.closed() < 2 {
            a_moment().await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_a_502() {
    for (bytes, reason) in [
        (&b"220 smtp.example ESMTP\r\n"[..], "upstream-invalid"),
        (b"", "upstream-broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "upstream-broke"),
    ] {
        let backend = Backend::that(Does::BytesAndCloses(bytes.to_vec())).await;
        let stage = Stage::before(backend.address);
        assert_eq!(Wire::to(stage.address).await.ask(GET).await.status, 502, "{reason}");
        assert_eq!(stage.noted(1).await[0].reason, Some(reason));
        assert_eq!(backend.log.heads().len(), 1, "on a new connection nothing is sent twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_looks_broken_to_the_client_too() {
    let part = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    let backend = Backend::that(Does::BytesAndCloses(part.to_vec())).await;
    let stage = encrypted(&backend, |_| {}).await;
    let mut wire = client::tls(stage.address, "a.example", config(&[])).await.expect("a handshake");
    let reply = wire.ask(GET).await;
    assert!(reply.status == 200 && !reply.whole && reply.text() == "part", "{reply:?}");
    assert_eq!(stage.noted(1).await[0].reason, Some("upstream-broke"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_let_go_when_the_client_leaves() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = Backend::that(Does::WaitsFor(permits)).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    wire.send(GET).await;
    backend.was_asked().await;
    drop(wire);
    within(async {
        while backend.log.closed() == 0 {
            a_moment().await
        }
    })
    .await;
    let noted = stage.noted(1).await.remove(0);
    assert_eq!((noted.status, noted.reason), (0, Some("client-gone")));
    stage.until("nobody is there", |stage| stage.service.snapshot().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_does_not_count_against_the_upstream() {
    let backend = Backend::that(says("hello")).await;
    let mut fragile = upstream(&[backend.address]);
    fragile.failures = 1;
    let stage = Stage::with(fragile, |_| {});
    let mut wire = Wire::to(stage.address).await;
    wire.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nabc").await;
    a_moment().await;
    drop(wire);
    assert_eq!(stage.noted(1).await[0].reason, Some("client-gone"));
    assert!(stage.service.snapshot().servers.iter().all(|server| !server.avoided));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_no_content_have_no_body() {
    let backend = Backend::scripted(|seen, _| match seen.head.starts_with("HEAD") {
        true => Does::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec()),
        false => Does::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
    })
    .await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    wire.send("HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let bytes = String::from_utf8(wire.bytes(60).await).expect("text");
    assert!(bytes.starts_with("HTTP/1.1 200 OK"), "{bytes}");
    let noted = stage.noted(2).await;
    assert!(noted.iter().all(|line| line.reason.is_none() && line.sent == 0), "{noted:?}");
    assert_eq!(backend.log.opened(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_class() {
    let backend = Backend::scripted(|seen, _| match seen.head.contains("/missing") {
        true => Does::Bytes(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()),
        false => says("hello"),
    })
    .await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    for path in ["/", "/missing", "/"] {
        wire.ask(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
    }
    stage.noted(3).await;
    let metrics = stage.service.snapshot();
    assert_eq!(metrics.routes["all"].classes, [0, 0, 2, 0, 1, 0]);
    assert_eq!(metrics.routes["all"].sent, 10);
    assert_eq!(metrics.latency.iter().map(|bucket| bucket.count).sum::<u64>(), 3);
    assert_eq!((metrics.connections, metrics.accepted, metrics.tunnels), (1, 1, 0));
}
