//! Requests within requests: whatever a client writes, the upstream sees what the proxy decided on, and nothing that follows it.

use crate::backend::{Backend, a_moment, says};
use crate::client::Wire;
use crate::stage::Stage;

/// Hidden in each of the requests below. If a server ever sees it at the beginning of a line, it was smuggled in.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn no_second_request_arrives() {
    let length = HIDDEN.len();
    let cl_te =
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}", length + 5);
    let cases = [
        ("CL.TE", cl_te.as_str()),
        ("TE.CL", &format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{HIDDEN}")),
        (
            "TE.TE",
            &format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{HIDDEN}"),
        ),
        (
            "TE twice",
            &format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"),
        ),
        ("gzip, chunked", &format!("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("identity, chunked", &format!("Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("chunked, identity", &format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("xchunked", &format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        (
            "space before the colon",
            &format!("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{HIDDEN}"),
        ),
        ("tab before the value", &format!("Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("obs-fold", &format!("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("folded length", &format!("Content-Length:\r\n {length}\r\n\r\n{HIDDEN}")),
        ("two lengths", &format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{HIDDEN}")),
        ("a list of lengths", &format!("Content-Length: 0, {length}\r\n\r\n{HIDDEN}")),
        ("a signed length", &format!("Content-Length: +0\r\n\r\n{HIDDEN}")),
        ("a negative length", &format!("Content-Length: -1\r\n\r\n{HIDDEN}")),
        ("a hexadecimal length", &format!("Content-Length: 0x0\r\n\r\n{HIDDEN}")),
        ("a bare CR in a header", &format!("A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("a null in a header", &format!("A: b\0c\r\n\r\n{HIDDEN}")),
        (
            "a bare LF in a chunk's line",
            &format!("Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n{HIDDEN}"),
        ),
        (
            "a chunk's extension with LF",
            &format!("Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\nab\r\n0\r\n\r\n{HIDDEN}"),
        ),
        (
            "a chunk longer than said",
            &format!("Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n{HIDDEN}"),
        ),
        ("trailers with a length", "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 50\r\n\r\n"),
    ];
    for (name, rest) in cases {
        let backend = Backend::that(says("hello")).await;
        let stage = Stage::before(backend.address);
        let mut wire = Wire::to(stage.address).await;
        let reply = wire.ask(format!("POST /seen HTTP/1.1\r\nHost: a.example\r\n{rest}")).await;
        match name {
            // hyper drops the length, as RFC 9112 6.3 lets a proxy do that closes the connection afterwards.
            "CL.TE" | "TE.CL" => assert!(
                reply.status >= 400 || reply.head.to_ascii_lowercase().contains("connection: close"),
                "{name}: {reply:?}"
            ),
            "trailers with a length" => assert_eq!(reply.status, 200, "{name}"),
            _ => assert!((400..=501).contains(&reply.status), "{name}: {reply:?}"),
        }
        // The rest is not taken for a request, and the connection is over.
        if name != "trailers with a length" {
            assert!(wire.try_reply().await.is_none(), "{name}: another answer");
        }
        a_moment().await;
        let bytes = backend.log.bytes();
        assert!(!bytes.contains("/hidden"), "{name}: {bytes}");
        for head in backend.log.heads() {
            let lower = head.to_ascii_lowercase();
            let framings = lower.matches("\r\ncontent-length:").count()
                + lower.matches("\r\ntransfer-encoding:").count();
            assert!(framings <= 1, "{name}: {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_looks_like_a_request_stays_a_body() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    let request =
        format!("POST /seen HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
    assert_eq!(wire.ask(request).await.status, 200);
    let seen = backend.log.requests.lock().expect("log").clone();
    assert!(seen.len() == 1 && seen[0].body == HIDDEN.as_bytes(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_one_after_the_other_are_each_decided_on() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    wire.send(format!("{HIDDEN}TRACE /traced HTTP/1.1\r\nHost: a.example\r\n\r\n{HIDDEN}")).await;
    let statuses = [wire.reply().await.status, wire.reply().await.status];
    assert_eq!(statuses, [200, 405]);
    a_moment().await;
    assert!(!backend.log.bytes().contains("/traced"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_would_merge_or_believe_does_not_arrive() {
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::before(backend.address);
    let mut wire = Wire::to(stage.address).await;
    let reply = wire
        .ask(
            "GET / HTTP/1.1\r\nHost: a.example\r\nX_Real_IP: 192.0.2.66\r\nX-Real-IP: 192.0.2.66\r\n\
             X-Forwarded-For: 192.0.2.66\r\nForwarded: for=192.0.2.66\r\nX-Forwarded-Host: evil.example\r\n\
             Connection: close, x-hop\r\nX-Hop: 192.0.2.66\r\n\r\n",
        )
        .await;
    assert_eq!(reply.status, 200);
    let bytes = backend.log.bytes();
    assert!(!bytes.contains("192.0.2.66") && !bytes.contains("evil.example"), "{bytes}");
    assert!(bytes.contains("127.0.0.1"), "{bytes}");
}
