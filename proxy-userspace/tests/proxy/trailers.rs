//! Fields after bodies: which go on, to whom, and that none comes in that a header could not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tollgate::proxy::plan::{Plan, UpstreamProtocol};

use crate::backend::{Backend, Does};
use crate::client::{self, GET, Parts, Wire};
use crate::stage::{Stage, within};
use crate::tls::{config, encrypted};

/// What an upstream says: two parts, what it announces, and what it does not.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, x-real-ip\r\n\r\n\
    2\r\nok\r\n0\r\nx-sum: 7\r\nX-Real-IP: 192.0.2.66\r\ngrpc-status: 0\r\nx-other: 1\r\n\r\n";

const POST: &str = "POST / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
    Trailer: X-Real-IP, X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Real-IP: 192.0.2.66\r\nX-Sum: 7\r\nX-Other: 1\r\n\r\n";

fn names(trailers: Option<&HeaderMap>) -> Vec<String> {
    let mut names: Vec<_> = trailers.iter().flat_map(|map| map.keys()).map(ToString::to_string).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_clients_get_what_is_announced_if_they_ask_for_it() {
    let backend = Backend::that(Does::Bytes(ANSWER.to_vec())).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    for (te, announced, trailers) in [
        ("TE: trailers\r\nConnection: TE\r\n", true, "0\r\nx-sum: 7\r\n\r\n"),
        ("", false, "0\r\n\r\n"),
        ("TE: gzip\r\n", false, "0\r\n\r\n"),
    ] {
        let reply = wire.ask(GET.replace("\r\n\r\n", &format!("\r\n{te}\r\n"))).await;
        let head = reply.head.to_ascii_lowercase();
        assert_eq!(head.contains("trailer: x-sum\r\n"), announced, "{te:?}: {head}");
        assert!(reply.status == 200 && reply.text().ends_with(trailers), "{te:?}: {reply:?}");
        assert!(reply.text().contains("ok") && !reply.text().contains("192.0.2.66"), "{reply:?}");
    }
    let noted = stage.noted(3).await;
    assert!(noted.iter().all(|line| line.reason.is_none() && line.sent == 2), "{noted:?}");
    // The upstream's connection is used again.
    assert_eq!(backend.log.opened(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_upstreams_get_none() {
    let backend = Backend::that(Does::Bytes(ANSWER.to_vec())).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    assert_eq!(wire.ask(POST).await.status, 200);
    let bytes = backend.log.bytes();
    assert!(
        bytes.ends_with("0\r\n\r\n") && !bytes.contains("192.0.2.66") && !bytes.contains("X-Sum"),
        "{bytes}"
    );
    assert!(!bytes.to_ascii_lowercase().contains("\r\nte:"), "{bytes}");
    // And the connection is where it should be.
    assert_eq!(wire.ask(GET).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_clients_get_what_is_announced_and_the_status_of_grpc() {
    let backend = Backend::that(Does::Bytes(ANSWER.to_vec())).await;
    let stage = encrypted(&backend, |_| {}).await;
    let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    let (mut sender, _task) = client::http2(wire.stream).await;
    let response = within(sender.send_request(client::get("/"))).await.expect("an answer");
    let body = within(response.into_body().collect()).await.expect("a body");
    assert_eq!(names(body.trailers()), ["grpc-status", "x-sum"]);
    assert_eq!(body.to_bytes(), "ok");
    let noted = stage.noted(1).await.remove(0);
    assert_eq!((noted.sent, noted.reason), (2, None));
}

/// What an HTTP/2 upstream was sent: its request's header, and what came after the body.
type Sent = Arc<Mutex<Vec<(HeaderMap, HeaderMap)>>>;

/// An upstream of HTTP/2 that answers as gRPC does.
async fn grpc() -> (SocketAddr, Sent) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, sent) = (listener.local_addr().expect("its address"), Sent::default());
    let kept = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.expect("a body");
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    kept.lock().expect("sent").push((head.headers, trailers));
                    let answer =
                        [("grpc-status", "5"), ("grpc-message", "gone"), ("x-real-ip", "192.0.2.66")];
                    Ok::<_, Infallible>(Response::new(Parts::of(&["message"]).then(&answer)))
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, sent)
}

fn to_http2(address: SocketAddr) -> impl FnOnce(&mut Plan) {
    move |plan| {
        let app = plan.upstreams.get_mut("app").expect("app");
        app.servers = vec![tollgate::proxy::plan::Server::Tcp(address)];
        app.protocol = UpstreamProtocol::Http2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes() {
    let (address, sent) = grpc().await;
    let backend = Backend::that(Does::Nothing).await;
    let stage = encrypted(&backend, to_http2(address)).await;
    let wire = client::tls(stage.address, "a.example", config(&["h2"])).await.expect("a handshake");
    let (mut sender, _task) = client::http2(wire.stream).await;
    let request = Request::post("https://a.example/service/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Parts::of(&["a message"]))
        .expect("a request");
    let response = within(sender.send_request(request)).await.expect("an answer");
    let body = within(response.into_body().collect()).await.expect("a body");
    assert_eq!(names(body.trailers()), ["grpc-message", "grpc-status"]);
    assert_eq!(
        body.trailers().map(|trailers| &trailers["grpc-status"]),
        Some(&"5".parse().expect("a value"))
    );
    let (head, trailers) = sent.lock().expect("sent")[0].clone();
    assert!(head["te"] == "trailers" && trailers.is_empty(), "{head:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_upstreams_get_what_is_announced() {
    let (address, sent) = grpc().await;
    let stage = Stage::with(crate::stage::upstream(&[address]), to_http2(address));
    assert_eq!(Wire::to(stage.address).await.ask(POST).await.status, 200);
    let (head, trailers) = sent.lock().expect("sent")[0].clone();
    assert_eq!(names(Some(&trailers)), ["x-sum"]);
    assert!(head["te"] == "trailers" && head["x-real-ip"] == "127.0.0.1", "{head:?}");
}
