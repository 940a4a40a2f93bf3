//! WebSockets.

use std::time::{Duration, Instant};

use tollgate::proxy::plan::Action;

use crate::backend::{Backend, Does, a_moment, says};
use crate::client::{self, GET, Wire};
use crate::stage::{Stage, upstream, within};
use crate::tls::{config, encrypted};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways_and_a_new_plan_does_not_stop_them() {
    let backend = Backend::that(Does::Echoes).await;
    let stage = encrypted(&backend, |_| {}).await;
    let mut wire = client::tls(stage.address, "a.example", config(&["http/1.1"])).await.expect("a handshake");
    let reply = wire.ask(UPGRADE).await;
    assert_eq!(reply.status, 101, "{reply:?}");
    for round in 0..5 {
        let message = format!("message {round}");
        wire.send(&message).await;
        assert_eq!(wire.bytes(message.len()).await, message.as_bytes());
        let mut plan = stage.plan.clone();
        plan.routes[0].name = format!("renamed {round}");
        plan.upstreams.get_mut("app").expect("app").keep = 3 + round;
        stage.service.replace(plan, &stage.certificates, Vec::new()).expect("a good plan");
    }
    assert_eq!(stage.service.snapshot().tunnels, 1);
    drop(wire);
    let noted = stage.noted(1).await.remove(0);
    assert_eq!((noted.status, noted.reason), (101, None));
    stage.until("the tunnel is gone", |stage| stage.service.snapshot().tunnels == 0).await;
    within(async {
        while backend.log.closed() == 0 {
            a_moment().await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_with_the_handshake_is_not_lost() {
    let backend = Backend::that(Does::Echoes).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(format!("{UPGRADE}early")).await.status, 101);
    assert_eq!(wire.bytes(5).await, b"early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_without_traffic_ends() {
    let backend = Backend::that(Does::Echoes).await;
    let stage = Stage::with(upstream(&[backend.address]), |plan| {
        plan.common.timeouts.tunnel_ms = 500;
        plan.common.timeouts.idle_ms = 100;
    });
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(UPGRADE).await.status, 101);
    let mut last = Instant::now();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        last = Instant::now();
        wire.send("x").await;
        assert_eq!(wire.bytes(1).await, b"x");
    }
    assert!(wire.is_closed().await && last.elapsed() >= Duration::from_millis(450));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_switch_is_answered_for() {
    let backend = Backend::that(says("no tunnel")).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    let reply = wire.ask(UPGRADE).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "no tunnel"));
    assert_eq!(wire.ask(GET).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_switches_unasked() {
    let backend = Backend::that(Does::Echoes).await;
    let stage = Stage::before(backend.address);
    // Not a WebSocket, and a route that has none.
    let h2c = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
    let reply = Wire::to(stage.address).await.ask(h2c).await;
    assert_ne!(reply.status, 101);
    let bytes = backend.log.bytes().to_ascii_lowercase();
    assert!(!bytes.contains("h2c") && !bytes.contains("http2-settings"), "{bytes}");
    assert_ne!(Wire::to(stage.address).await.ask(GET).await.status, 101);

    let mut plan = stage.plan.clone();
    plan.routes[0].action = Action::Forward { upstream: "app".to_owned(), websocket: false };
    stage.service.replace(plan, &stage.certificates, Vec::new()).expect("a good plan");
    assert_ne!(Wire::to(stage.address).await.ask(UPGRADE).await.status, 101);
    assert_eq!(stage.service.snapshot().tunnels, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_tunnels_until_its_deadline() {
    let backend = Backend::that(Does::Echoes).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(UPGRADE).await.status, 101);
    let begun = Instant::now();
    assert_eq!(stage.service.drain(Duration::from_millis(400)).await, 1);
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert!(wire.is_closed().await);
    stage.until("all have left", |stage| stage.service.snapshot().connections == 0).await;
}
