//! Clients that are slow, or do nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tollgate::proxy::plan::ClientTimeouts;

use crate::backend::{Backend, Does, a_moment, says};
use crate::client::{self, GET, Wire};
use crate::stage::{Stage, upstream, within};
use crate::tls::{config, encrypted};

fn stage(backend: &Backend, change: impl FnOnce(&mut ClientTimeouts)) -> Stage {
    Stage::with(upstream(&[backend.address]), |plan| change(&mut plan.common.timeouts))
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_http1_is_closed() {
    let backend = Backend::that(says("hello")).await;
    let stage = stage(&backend, |timeouts| timeouts.idle_ms = 300);
    let mut never = Wire::to(stage.address).await;
    let mut once = Wire::to(stage.address).await;
    assert_eq!(once.ask(GET).await.status, 200);
    let begun = Instant::now();
    assert!(never.is_closed().await && once.is_closed().await);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    stage.until("the seats are free", |stage| stage.service.snapshot().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_http2_is_closed_though_it_answers_pings() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |plan| plan.common.timeouts.idle_ms = 400).await;
    let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    let (mut sender, task) = client::http2(wire.stream).await;
    assert_eq!(sender.send_request(client::get("/")).await.expect("an answer").status(), 200);
    let begun = Instant::now();
    within(task).await.expect("the connection ended");
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_goes_on_is_not_idle() {
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let backend = Backend::that(Does::WaitsFor(permits.clone())).await;
    let stage = stage(&backend, |timeouts| {
        (timeouts.idle_ms, timeouts.header_ms, timeouts.send_ms) = (100, 100, 100)
    });
    let mut wire = Wire::to(stage.address).await;
    wire.send(GET).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    permits.add_permits(1);
    assert_eq!(wire.reply().await.text(), "waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_header_is_cut_however_often_a_byte_comes() {
    let backend = Backend::that(says("hello")).await;
    let stage = stage(&backend, |timeouts| timeouts.header_ms = 400);
    let mut wire = Wire::to(stage.address).await;
    // Idle for longer than a header may take: that is another limit.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let begun = Instant::now();
    wire.send("GET / HTTP/1.1\r\n").await;
    while wire.is_open().await {
        wire.send("a: b\r\n").await;
        assert!(begun.elapsed() < Duration::from_secs(15), "still open");
    }
    assert!(begun.elapsed() >= Duration::from_millis(380));
    assert_eq!(stage.reasons("client-timeout"), 1);
    assert!(backend.log.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_answered_with_408() {
    let backend = Backend::that(says("hello")).await;
    let stage = stage(&backend, |timeouts| timeouts.body_ms = 300);
    let mut wire = Wire::to(stage.address).await;
    let reply = wire.ask("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(reply.status, 408, "{reply:?}");
    assert!(wire.is_closed().await);
    assert_eq!(stage.noted(1).await[0].reason, Some("client-timeout"));
    // Nobody says that the upstream failed.
    assert!(stage.service.snapshot().servers.iter().all(|server| !server.avoided));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_and_holds_up_no_upstream() {
    let backend = Backend::that(Does::Says(vec![b'x'; 64 << 20])).await;
    let stage = stage(&backend, |timeouts| timeouts.send_ms = 300);
    let mut wire = Wire::to(stage.address).await;
    wire.send(GET).await;
    stage.until("cut", |stage| stage.reasons("client-timeout") == 1).await;
    let noted = stage.noted(1).await.remove(0);
    // Back-pressure: what the proxy took from the upstream is what sockets hold, not the whole answer.
    assert!(noted.reason == Some("client-timeout") && noted.sent < 32 << 20, "{noted:?}");
    within(async {
        while backend.log.closed() < 1 {
            a_moment().await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_but_reads_is_not_cut() {
    let backend = Backend::that(Does::Says(vec![b'x'; 16 << 20])).await;
    let stage = stage(&backend, |timeouts| timeouts.send_ms = 1_000);
    let mut wire = Wire::to(stage.address).await;
    wire.send(GET).await;
    let (begun, mut buffer) = (Instant::now(), vec![0; 4 << 20]);
    while begun.elapsed() < Duration::from_millis(2_500) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let read = wire.stream.read(&mut buffer[..256 << 10]).await.expect("more");
        assert!(read > 0, "cut after {:?}", begun.elapsed());
    }
    assert_eq!(stage.reasons("client-timeout"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_stream_whose_window_stays_shut_is_reset_and_the_others_are_not() {
    let backend = Backend::that(Does::Says(vec![b'x'; 1 << 20])).await;
    let stage = encrypted(&backend, |plan| plan.common.timeouts.send_ms = 1_500).await;
    let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    let (mut sender, task) = client::http2(wire.stream).await;
    let paused = sender.send_request(client::get("/")).await.expect("an answer");
    // Its body is not read: the socket has room, the stream has none. Those that are read go on meanwhile and afterwards.
    let mut read = 0;
    while stage.reasons("client-timeout") == 0 || read < 3 {
        let other = within(sender.send_request(client::get("/"))).await.expect("an answer");
        let body = within(other.into_body().collect()).await.expect("its body");
        assert_eq!(body.to_bytes().len(), 1 << 20);
        read += 1;
    }
    let error = within(paused.into_body().collect()).await.expect_err("a reset");
    let error = std::error::Error::source(&error).and_then(|error| error.downcast_ref::<h2::Error>());
    assert_eq!(error.and_then(h2::Error::reason), Some(h2::Reason::CANCEL));
    assert!(!task.is_finished() && stage.reasons("client-timeout") == 1);
    assert!(stage.noted(1).await.iter().any(|noted| noted.reason == Some("client-timeout")));
}

/// The end of an answer is with the connection, and its request may be over: other requests don't make up for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_answer_that_an_http2_client_does_not_take_is_not_kept_for_it() {
    for (length, window) in [(16 << 10, 1), (70_000, 65_537)] {
        let backend = Backend::that(Does::Says(vec![b'x'; length])).await;
        let stage = encrypted(&backend, |plan| plan.common.timeouts.send_ms = 400).await;
        let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
        let mut builder = h2::client::Builder::new();
        // One byte more than nothing, so that the last part is handed over.
        builder.initial_window_size(window);
        let (sender, connection) = within(builder.handshake::<_, Bytes>(wire.stream)).await.expect("HTTP/2");
        let task = tokio::spawn(connection);
        let mut sender = within(sender.ready()).await.expect("ready");
        let (answer, _) = sender.send_request(client::get("/").map(drop), true).expect("sent");
        let mut body = within(answer).await.expect("an answer").into_body();
        let asking = tokio::spawn(async move {
            while let Ok(mut next) = sender.clone().ready().await {
                let Ok((answer, _)) = next.send_request(client::get("/").map(drop), true) else { return };
                let _ = answer.await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let end = within(async {
            loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    end => return end,
                }
            }
        });
        assert!(matches!(end.await, Some(Err(_))), "all of {length} bytes came");
        stage.until("counted", |stage| stage.reasons("client-timeout") >= 1).await;
        asking.abort();
        task.abort();
    }
}
