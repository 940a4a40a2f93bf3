//! New plans while requests go on, listeners that come and go, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tollgate::proxy::plan::{Action, Listener, Zone};
use tollgate::proxy::serve::Refused;

use crate::backend::{Backend, Does, a_moment, says};
use crate::client::{self, GET, Wire};
use crate::stage::{Stage, socket, upstream, within};
use crate::tls::{config, encrypted};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_new_plans_under_load_fail_no_request_and_close_no_connection() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for number in 0..16 {
        let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), stage.address);
        clients.push(tokio::spawn(async move {
            let alpn = if number % 4 == 0 { "h2" } else { "http/1.1" };
            let mut wire = client::tls(address, "a.example", config(&[alpn])).await.expect("a handshake");
            if alpn == "h2" {
                let (mut sender, _task) = client::http2(wire.stream).await;
                while !stop.load(Ordering::Relaxed) {
                    let response = within(sender.send_request(client::get("/"))).await.expect("an answer");
                    assert_eq!(response.status(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            } else {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(wire.ask(GET).await.text(), "hello");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    for round in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut plan = stage.plan.clone();
        plan.routes[0].name = format!("route {round}");
        // Its listener is called something else each time, and takes new connections all the while.
        let (name, web) = (format!("web {round}"), plan.listeners.remove("web").expect("web"));
        plan.listeners.insert(name.clone(), web);
        plan.routes[0].listeners = vec![name];
        // Every other one has a new upstream, with new connections.
        plan.upstreams.get_mut("app").expect("app").keep = 16 + round % 2;
        stage.service.replace(plan, &stage.certificates, Vec::new()).expect("a good plan");
        let mut fresh = client::tls(stage.address, "a.example", config(&[])).await.expect("a handshake");
        assert_eq!(fresh.ask(GET).await.text(), "hello");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("all were answered on their one connection");
    }
    let metrics = stage.service.snapshot();
    assert!(answered.load(Ordering::Relaxed) > 100 && metrics.accepted == 16 + 20, "{metrics:?}");
    assert!(metrics.reasons.is_empty() && metrics.routes.len() > 2, "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_served_by_the_plan_of_its_head_and_the_next_by_the_new_one() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = Backend::that(Does::WaitsFor(permits.clone())).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    wire.send(GET).await;
    backend.was_asked().await;

    let mut plan = stage.plan.clone();
    plan.upstreams.clear();
    plan.routes[0].action =
        Action::Respond { status: 410, content_type: "text/plain".to_owned(), body: "gone".to_owned() };
    stage.service.replace(plan, &stage.certificates, Vec::new()).expect("a good plan");

    permits.add_permits(1);
    assert_eq!(wire.reply().await.text(), "waited");
    let reply = wire.ask(GET).await;
    assert_eq!((reply.status, reply.text().as_str()), (410, "gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zone_in_the_log_is_that_of_the_plan_in_force() {
    let zone = |name: &str, net: &str| Zone {
        name: name.to_owned(),
        prefixes: vec![net.parse().expect("a prefix")],
    };
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::with(upstream(&[backend.address]), |plan| {
        plan.zones = vec![zone("wide", "127.0.0.0/8"), zone("here", "127.0.0.1/32")];
    });
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(GET).await.status, 200);
    let mut plan = stage.plan.clone();
    plan.zones.pop();
    stage.service.replace(plan.clone(), &stage.certificates, Vec::new()).expect("a good plan");
    assert_eq!(wire.ask(GET).await.status, 200);
    plan.zones.clear();
    stage.service.replace(plan, &stage.certificates, Vec::new()).expect("a good plan");
    // What can't be parsed has a line and a zone, too.
    assert_eq!(wire.ask("\x01\r\n\r\n").await.status, 400);
    let zones: Vec<_> = stage.noted(3).await.into_iter().map(|line| line.zone).collect();
    assert_eq!(zones, [Some("here".to_owned()), Some("wide".to_owned()), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_and_those_that_stay_keep_their_connections() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = Backend::that(Does::WaitsFor(permits.clone())).await;
    let stage = Stage::before(backend.address);
    let (second, address) = socket();
    let mut both = stage.plan.clone();
    both.listeners.insert("second".to_owned(), Listener { bind: vec![address], tls: None, http2: false });
    both.routes[0].listeners.push("second".to_owned());

    let missing = stage.service.replace(both.clone(), &stage.certificates, Vec::new());
    assert!(matches!(missing, Err(Refused::NoSocket { listener, .. }) if listener == "second"));
    let sockets = vec![("second".to_owned(), second)];
    stage.service.replace(both, &stage.certificates, sockets).expect("a good plan");

    let (mut stays, mut busy, mut idle) =
        (Wire::to(stage.address).await, Wire::to(address).await, Wire::to(address).await);
    permits.add_permits(2);
    assert_eq!((stays.ask(GET).await.status, idle.ask(GET).await.status), (200, 200));
    busy.send(GET).await;
    within(async {
        while backend.log.heads().len() < 3 {
            a_moment().await
        }
    })
    .await;

    stage.service.replace(stage.plan.clone(), &stage.certificates, Vec::new()).expect("a good plan");
    assert!(idle.is_closed().await);
    within(async {
        while TcpStream::connect(address).await.is_ok() {
            a_moment().await
        }
    })
    .await;
    permits.add_permits(2);
    // What is on its way is finished, with a word that it is the last.
    let reply = busy.reply().await;
    assert!(
        reply.status == 200 && reply.head.to_ascii_lowercase().contains("connection: close"),
        "{reply:?}"
    );
    assert!(busy.is_closed().await);
    assert_eq!(stays.ask(GET).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_went_is_not_waited_for_longer_than_planned() {
    let backend = Backend::that(Does::Nothing).await;
    let mut stage = Stage::before(backend.address);
    stage.plan.common.timeouts.drain_ms = 300;
    stage.service.replace(stage.plan.clone(), &stage.certificates, Vec::new()).expect("a good plan");
    let mut wire = Wire::to(stage.address).await;
    wire.send(GET).await;
    backend.was_asked().await;
    let mut none = stage.plan.clone();
    none.listeners.clear();
    none.routes.clear();
    stage.service.replace(none, &stage.certificates, Vec::new()).expect("a good plan");
    assert!(wire.try_reply().await.is_none());
    assert_eq!(stage.noted(1).await[0].reason, Some("draining"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_on_its_way() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = Backend::that(Does::WaitsFor(permits.clone())).await;
    let stage = encrypted(&backend, |_| {}).await;
    let mut http1 =
        client::tls(stage.address, "a.example", config(&["http/1.1"])).await.expect("a handshake");
    let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    let (mut sender, task) = client::http2(wire.stream).await;
    let mut idle = client::tls(stage.address, "a.example", config(&[])).await.expect("a handshake");
    http1.send(GET).await;
    let http2 =
        tokio::spawn(async move { sender.send_request(client::get("/")).await.map(|reply| reply.status()) });
    within(async {
        while backend.log.heads().len() < 2 {
            a_moment().await
        }
    })
    .await;

    let service = Arc::clone(&stage.service);
    let drain = tokio::spawn(async move { service.drain(Duration::from_secs(20)).await });
    assert!(idle.is_closed().await);
    within(async {
        while TcpStream::connect(stage.address).await.is_ok() {
            a_moment().await
        }
    })
    .await;
    assert!(!drain.is_finished());
    permits.add_permits(2);
    assert_eq!(http1.reply().await.text(), "waited");
    assert_eq!(within(http2).await.expect("a task").expect("an answer"), 200);
    within(task).await.expect("the connection ended");
    drop(http1);
    assert_eq!(within(drain).await.expect("drained"), 0);
}

/// Closing on a client that is just asking would cost it its answer.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_during_a_drain_is_answered_for_the_last_time() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    let mut again = client::tls(stage.address, "a.example", config(&[])).await.expect("a handshake");
    assert_eq!(again.ask(GET).await.status, 200);
    let first = client::tls(stage.address, "a.example", config(&[])).await.expect("a handshake");
    let service = Arc::clone(&stage.service);
    let drain = tokio::spawn(async move { service.drain(Duration::from_secs(20)).await });
    within(async {
        while TcpStream::connect(stage.address).await.is_ok() {
            a_moment().await
        }
    })
    .await;
    for mut wire in [again, first] {
        let reply = wire.ask(GET).await;
        let head = reply.head.to_ascii_lowercase();
        assert!(reply.status == 200 && head.contains("connection: close"), "{reply:?}");
        assert!(wire.is_closed().await);
    }
    assert_eq!(within(drain).await.expect("drained"), 0);
}
