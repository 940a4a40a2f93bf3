//! Connections to upstreams, and which server is asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tollgate::proxy::plan::{Health, Server};

use crate::backend::{Backend, Does, a_moment, says};
use crate::client::{GET, Wire};
use crate::stage::{Stage, THREADS, socket, upstream, within};

const POST: &str = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc";
const EMPTY_POST: &str = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_each_thread_serves_many_requests_of_many_clients() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::before(backend.address);
    for round in 0..10 {
        let mut wire = Wire::to(stage.address).await;
        for request in [GET, POST] {
            assert_eq!(wire.ask(request).await.status, 200, "{round}");
        }
    }
    // A client may come while the one before still has its place at the first thread.
    let opened = backend.log.opened();
    assert!((1..=2).contains(&opened) && backend.log.heads().len() == 20, "{opened}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_kept_for_longer_than_planned() {
    let backend = Backend::that(says("hello")).await;
    let mut short = upstream(&[backend.address]);
    short.keep_ms = 200;
    let stage = Stage::with(short, |_| {});
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(GET).await.status, 200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(wire.ask(GET).await.status, 200);
    assert_eq!(backend.log.opened(), 2);
    // And closed by us, also when nobody asks any more.
    within(async {
        while backend.log.closed() < 2 {
            a_moment().await
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_kept_than_planned() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = Backend::that(Does::WaitsFor(permits.clone())).await;
    let mut few = upstream(&[backend.address]);
    few.keep = 2;
    let stage = Stage::with(few, |_| {});
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::to(stage.address).await;
        wire.send(GET).await;
        wires.push(wire);
    }
    within(async {
        while backend.log.heads().len() < 5 {
            a_moment().await
        }
    })
    .await;
    permits.add_permits(5);
    for wire in &mut wires {
        assert_eq!(wire.reply().await.status, 200);
    }
    within(async {
        while backend.log.closed() < 3 {
            a_moment().await
        }
    })
    .await;
    a_moment().await;
    assert_eq!((backend.log.opened(), backend.log.closed()), (5, 3));
}

/// Answers the first request of a connection, and closes instead of answering the second.
async fn forgetful() -> Backend {
    Backend::scripted(|_, count| match count {
        0 => says("hello"),
        _ => Does::BytesAndCloses(Vec::new()),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_sent_again_once_if_it_may_be_seen_twice() {
    let backend = forgetful().await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(GET).await.status, 200);
    assert_eq!(wire.ask(GET).await.status, 200);
    assert_eq!((backend.log.opened(), backend.log.heads().len()), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_changes_something_is_not_sent_again() {
    for request in [POST, EMPTY_POST, "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc"] {
        let backend = forgetful().await;
        let stage = Stage::before(backend.address);
        let mut wire = Wire::to(stage.address).await;
        assert_eq!(wire.ask(GET).await.status, 200);
        assert_eq!(wire.ask(request).await.status, 502, "{request}");
        assert_eq!((backend.log.opened(), backend.log.heads().len()), (1, 2), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_not_sent_a_third_time() {
    let backend = Backend::scripted(|seen, count| match (seen.connection, count) {
        (0, 0) => says("hello"),
        _ => Does::BytesAndCloses(Vec::new()),
    })
    .await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(GET).await.status, 200);
    assert_eq!(wire.ask(GET).await.status, 502);
    assert_eq!((backend.log.opened(), backend.log.heads().len()), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_on_a_new_connection_is_passed_over_once() {
    let broken = || Backend::that(Does::BytesAndCloses(Vec::new()));
    let good = Backend::that(says("hello")).await;
    let (first, second, third) = (broken().await, broken().await, broken().await);
    for request in [GET, POST] {
        let stage = Stage::with(upstream(&[first.address, good.address]), |_| {});
        let mut statuses = Vec::new();
        for _ in 0..4 {
            // Each asks on a new connection, so that the turns reach both servers.
            statuses.push(Wire::to(stage.address).await.ask(request).await.status);
        }
        // What changes something may have been done already.
        assert_eq!(statuses.contains(&502), request == POST, "{request}: {statuses:?}");
    }
    // What breaks two would break the third.
    let seen = || [&first, &second, &third].iter().map(|one| one.log.heads().len()).sum::<usize>();
    let before = seen();
    let stage = Stage::with(upstream(&[first.address, second.address, third.address]), |_| {});
    assert_eq!(Wire::to(stage.address).await.ask(GET).await.status, 502);
    assert_eq!(seen() - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_passed_over_and_rests() {
    let backend = Backend::that(says("hello")).await;
    let (gone, address) = socket();
    drop(gone);
    let mut two = upstream(&[address, backend.address]);
    two.failures = 2;
    let stage = Stage::with(two, |_| {});
    let mut wire = Wire::to(stage.address).await;
    for _ in 0..8 {
        // Also those with a body: nothing of them was sent.
        assert_eq!(wire.ask(POST).await.status, 200);
    }
    let avoided: Vec<_> = stage.service.snapshot().servers.into_iter().map(|server| server.avoided).collect();
    assert_eq!(avoided, [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_fewest_requests_is_asked() {
    let permits = Arc::new(Semaphore::new(0));
    let (busy, free) =
        (Backend::that(Does::WaitsFor(permits.clone())).await, Backend::that(says("free")).await);
    let stage = Stage::with(upstream(&[busy.address, free.address]), |_| {});
    let mut waiting = Wire::to(stage.address).await;
    waiting.send(GET).await;
    // By turns the first or the second asks the busy one.
    if tokio::time::timeout(Duration::from_millis(500), waiting.reply()).await.is_ok() {
        waiting.send(GET).await;
        a_moment().await;
    }
    let mut wire = Wire::to(stage.address).await;
    for _ in 0..10 {
        assert_eq!(wire.ask(GET).await.text(), "free");
    }
    assert_eq!(busy.log.heads().len(), 1);
    permits.add_permits(1);
    assert_eq!(waiting.reply().await.text(), "waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_takes_a_server_out_and_back_in() {
    let sick = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_sick = Arc::clone(&sick);
    let first = Backend::scripted(move |seen, _| match seen.head.starts_with("GET /health ") {
        true if is_sick.load(std::sync::atomic::Ordering::Relaxed) => {
            Does::Bytes(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec())
        }
        _ => says("first"),
    })
    .await;
    let second = Backend::that(says("second")).await;
    let mut checked = upstream(&[first.address, second.address]);
    checked.failures = 2;
    checked.health = Some(Health {
        path: "/health".to_owned(),
        host: "health.example".to_owned(),
        every_ms: 50,
        timeout_ms: 5_000,
    });
    let stage = Stage::with(checked, |_| {});
    let avoided = |stage: &Stage| stage.service.snapshot().servers[0].avoided;
    stage.until("the first is out", avoided).await;
    let mut wire = Wire::to(stage.address).await;
    for _ in 0..6 {
        assert_eq!(wire.ask(GET).await.text(), "second");
    }
    let heads = first.log.heads();
    assert!(heads.iter().all(|head| head.contains("health.example")), "{heads:?}");
    sick.store(false, std::sync::atomic::Ordering::Relaxed);
    stage.until("the first is back", |stage| !avoided(stage)).await;
    let mut texts = Vec::new();
    for _ in 0..4 {
        texts.push(wire.ask(GET).await.text());
    }
    assert!(texts.contains(&"first".to_owned()), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_as_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let log = Backend::unix(&path).await;
    let mut unix = upstream(&[]);
    unix.servers = vec![Server::Unix(path)];
    let stage = Stage::with(unix, |_| {});
    let mut wire = Wire::to(stage.address).await;
    for _ in 0..3 {
        assert_eq!(wire.ask(GET).await.text(), "unix");
    }
    assert_eq!(log.opened(), 1);
}

/// HTTP/2 without TLS, by hyper; counts its connections.
mod http2 {
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tollgate::proxy::plan::UpstreamProtocol;

    use super::*;

    /// More than all buffers between a server and a client that does not read.
    static LONG: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 16 << 20].into());

    /// A server that says what it got, or much; counts its connections.
    async fn server(connections: &'static AtomicUsize) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let service = service_fn(|request: Request<Incoming>| async {
                    let long = request.uri().path() == "/long";
                    let body =
                        request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let said = if long { LONG.clone() } else { [&b"got "[..], &body].concat().into() };
                    Ok::<_, Infallible>(Response::new(Full::new(said)))
                });
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(100);
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    /// Answers one who reads beside so many who do not, on so many connections.
    async fn answers_beside(idle: usize, connections: &'static AtomicUsize) -> usize {
        let mut h2 = upstream(&[server(connections).await]);
        h2.protocol = UpstreamProtocol::Http2;
        // Where all of them share connections.
        let stage = Stage::with(h2, |plan| plan.common.threads = Some(1));
        let mut wires = Vec::new();
        for _ in 0..idle {
            let mut wire = Wire::to(stage.address).await;
            wire.send("GET /long HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            wires.push(wire);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Long before those who do not read are given up.
        let mut wire = Wire::to(stage.address).await;
        let reply = tokio::time::timeout(Duration::from_secs(10), wire.ask(GET)).await.expect("an answer");
        assert!(reply.status == 200 && reply.text() == "got ", "{reply:?}");
        connections.load(Ordering::Relaxed)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_that_do_not_read_hold_up_nobody_else() {
        static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
        assert_eq!(answers_beside(6, &CONNECTIONS).await, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nor_do_as_many_as_a_server_has_streams() {
        static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
        assert_eq!(answers_beside(110, &CONNECTIONS).await, 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_http2_upstream_has_one_connection_of_each_thread() {
        static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
        let address = server(&CONNECTIONS).await;
        let mut h2 = upstream(&[address]);
        h2.protocol = UpstreamProtocol::Http2;
        let stage = Stage::with(h2, |_| {});
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let mut wire = Wire::to(stage.address).await;
            tasks.push(tokio::spawn(async move {
                for (request, text) in [(GET, "got "), (POST, "got abc")] {
                    let reply = wire.ask(request).await;
                    assert!(reply.status == 200 && reply.text().contains(text), "{reply:?}");
                }
            }));
        }
        for task in tasks {
            task.await.expect("all were answered");
        }
        assert_eq!(CONNECTIONS.load(Ordering::Relaxed), usize::from(THREADS));
    }
}
