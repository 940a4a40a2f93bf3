//! Bodies that are read ahead, as far as the plan says: so that slow clients hold no upstream, and those without a length get one.

use hyper::Request;
use tollgate::proxy::plan::Plan;

use crate::backend::{Backend, Seen, a_moment, says};
use crate::client::{self, Parts, Wire};
use crate::stage::{Stage, upstream, within};
use crate::tls::{config, encrypted};

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";

fn buffering(backend: &Backend, most: u64, change: impl FnOnce(&mut Plan)) -> Stage {
    let mut app = upstream(&[backend.address]);
    app.buffer = most;
    Stage::with(app, change)
}

fn seen(backend: &Backend) -> Vec<Seen> {
    backend.log.requests.lock().expect("log").clone()
}

/// The body, if it came with a length.
fn measured(seen: &Seen) -> Option<String> {
    let head = seen.head.to_ascii_lowercase();
    let lengths = head.lines().filter(|line| line.starts_with("content-length:")).count();
    let text = String::from_utf8_lossy(&seen.body).into_owned();
    (lengths == 1 && !head.contains("transfer-encoding")).then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_within_the_bound_has_a_length() {
    let backend = Backend::that(says("hello")).await;
    let stage = buffering(&backend, 6, |_| {});
    let mut wire = Wire::to(stage.address).await;
    for (chunks, body) in [
        ("2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n", "abcdef"),
        ("2\r\nab\r\n0\r\nX-Real-IP: 192.0.2.66\r\n\r\n", "ab"),
        ("0\r\n\r\n", ""),
    ] {
        assert_eq!(wire.ask(format!("{HEAD}{chunks}")).await.status, 200);
        assert_eq!(seen(&backend).last().and_then(measured).as_deref(), Some(body));
    }
    // Connections are used again, on both sides.
    assert_eq!((backend.log.opened(), stage.service.snapshot().accepted), (1, 1));
    assert!(!backend.log.bytes().contains("192.0.2.66"));
    let received: Vec<u64> = stage.noted(3).await.iter().map(|line| line.received).collect();
    assert_eq!(received, [6, 2, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_has_one_of_http2() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |plan| plan.upstreams.get_mut("app").expect("app").buffer = 6).await;
    let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    let (mut sender, _task) = client::http2(wire.stream).await;
    for (parts, body) in [(&["abc", "def"][..], "abcdef"), (&[], "")] {
        let request = Request::post("https://a.example/").body(Parts::of(parts)).expect("a request");
        assert_eq!(within(sender.send_request(request)).await.expect("an answer").status(), 200);
        assert_eq!(seen(&backend).last().and_then(measured).as_deref(), Some(body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_one_streams() {
    let backend = Backend::that(says("hello")).await;
    let stage = buffering(&backend, 6, |_| {});
    let mut wire = Wire::to(stage.address).await;
    wire.send(format!("{HEAD}5\r\nfirst\r\n6\r\nsecond\r\n")).await;
    within(async {
        while !backend.log.bytes().contains("second") {
            a_moment().await
        }
    })
    .await;
    assert_eq!(wire.ask("5\r\nthird\r\n0\r\n\r\n").await.status, 200);
    let seen = seen(&backend).remove(0);
    assert!(seen.head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{}", seen.head);
    let parts: Vec<_> = seen.body.split(|byte| *byte == b'\n').collect();
    assert_eq!(parts[1..6].concat(), b"first\r6\rsecond\r5\rthird\r", "{:?}", String::from_utf8(seen.body));
    assert_eq!(stage.noted(1).await[0].received, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_upstream_takes_none_in_chunks_a_longer_one_is_a_411() {
    let backend = Backend::that(says("hello")).await;
    let stage = buffering(&backend, 6, |plan| plan.upstreams.get_mut("app").expect("app").chunked = false);
    let mut wire = Wire::to(stage.address).await;
    let reply = wire.ask(format!("{HEAD}7\r\nseven b\r\n0\r\n\r\n")).await;
    assert!(reply.status == 411 && wire.is_closed().await, "{reply:?}");
    assert_eq!(seen(&backend).len(), 0);
    assert_eq!(stage.noted(1).await[0].reason, Some("length-required"));
    let sized = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 7\r\n\r\nseven b";
    assert_eq!(Wire::to(stage.address).await.ask(sized).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_have_so_much_memory_and_what_finds_none_streams() {
    let backend = Backend::that(says("hello")).await;
    let stage = buffering(&backend, 4_096, |plan| plan.common.buffer_memory = 6_000);
    let mut first = Wire::to(stage.address).await;
    first.send(format!("{HEAD}3\r\nabc\r\n")).await;
    let other = format!("{HEAD}5\r\nother\r\n0\r\n\r\n");
    // It takes a moment until somebody else has the memory.
    let until_it_is_taken = || {
        within(async {
            loop {
                assert_eq!(Wire::to(stage.address).await.ask(&other).await.status, 200);
                if seen(&backend).last().and_then(measured).is_none() {
                    break;
                }
            }
        })
    };
    until_it_is_taken().await;
    assert_eq!(first.ask("0\r\n\r\n").await.status, 200);
    assert_eq!(seen(&backend).last().and_then(measured).as_deref(), Some("abc"));
    // Who leaves gives it back, too.
    let mut second = Wire::to(stage.address).await;
    second.send(format!("{HEAD}3\r\nabc\r\n")).await;
    until_it_is_taken().await;
    drop(second);
    stage.until("it has left", |stage| stage.reasons("client-gone") == 1).await;
    assert_eq!(first.ask(&other).await.status, 200);
    assert_eq!(seen(&backend).last().and_then(measured).as_deref(), Some("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_slow_meanwhile_is_answered_and_the_upstream_is_not_asked() {
    let backend = Backend::that(says("hello")).await;
    let stage = buffering(&backend, 4_096, |plan| plan.common.timeouts.body_ms = 300);
    let mut wire = Wire::to(stage.address).await;
    let reply = wire.ask(format!("{HEAD}3\r\nabc\r\n")).await;
    assert!(reply.status == 408 && wire.is_closed().await, "{reply:?}");
    assert_eq!((seen(&backend).len(), backend.log.opened()), (0, 0));
    assert_eq!(stage.noted(1).await[0].reason, Some("client-timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_not_asked_before_a_short_body_is_there() {
    let backend = Backend::that(says("hello")).await;
    let stage = buffering(&backend, 6, |_| {});
    let head = |length| format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n");
    let mut slow = Wire::to(stage.address).await;
    slow.send(head(6)).await;
    slow.send("abc").await;
    a_moment().await;
    assert_eq!(backend.log.opened(), 0, "a worker waits for a slow client");
    assert_eq!(slow.ask("def").await.status, 200);
    assert_eq!(seen(&backend).last().and_then(measured).as_deref(), Some("abcdef"));
    // A longer one streams.
    let mut long = Wire::to(stage.address).await;
    long.send(head(7)).await;
    long.send("abc").await;
    within(async {
        while !backend.log.bytes().ends_with("abc") {
            a_moment().await
        }
    })
    .await;
    assert_eq!(long.ask("defg").await.status, 200);
}
