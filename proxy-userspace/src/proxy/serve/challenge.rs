//! Answers to the challenges of authorities (ACME), as long as an order is under way: HTTP-01 at listeners without TLS, TLS-ALPN-01 at
//! those with it. Asked by `exchange.rs` before a route's answer is sent, and by `tls.rs` in a handshake.
//!
//! What is not pending is treated as any other request or handshake.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::proxy::acme::{Proof, certificate};
use crate::proxy::decide::{Answer, Client, Decision, Reason};

/// The protocol that an authority negotiates to look at a certificate (RFC 8737 section 6.2).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where it looks for an answer (RFC 8555 section 8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The answers that are in service.
#[derive(Debug, Default)]
pub struct Challenges(ArcSwap<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// By token.
    http: HashMap<String, Bytes>,
    /// By server name.
    tls: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Challenges {
    /// Puts these in service, and no others.
    ///
    /// # Errors
    /// If a certificate can't be made; nothing is changed then.
    pub fn present(&self, proofs: Vec<Proof>) -> Result<(), String> {
        let mut pending = Pending::default();
        for proof in proofs {
            match proof {
                Proof::Http { token, content } => {
                    pending.http.insert(token, content.into());
                }
                Proof::Tls { name, digest } => {
                    let key = certificate::challenge(&name, &digest)?;
                    pending.tls.insert(name, Arc::new(key));
                }
            }
        }
        self.0.store(Arc::new(pending));
        Ok(())
    }

    /// What is sent in place of a route's answer. What the proxy refuses to read any further is refused as ever.
    pub(super) fn http(&self, client: &Client, head: &Parts, body: Option<u64>) -> Option<Answer> {
        if client.tls.is_some() || head.method != Method::GET || body != Some(0) {
            return None;
        }
        let token = head.uri.path().strip_prefix(WELL_KNOWN)?;
        let pending = self.0.load();
        let content = pending.http.get(token)?;
        let octets = (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let length = (CONTENT_LENGTH, HeaderValue::from(content.len()));
        Some(Answer {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([octets, length]),
            body: content.clone(),
            reason: Reason::Responded,
            route: None,
        })
    }

    /// Whether a handshake is an authority's look at a certificate: it offers that protocol and no other (RFC 8737 section 3). The
    /// certificate is `None` if nothing is pending for the name.
    pub(super) fn tls(&self, hello: &ClientHello<'_>) -> Option<Option<Arc<CertifiedKey>>> {
        let mut offered = hello.alpn()?;
        if offered.next() != Some(ACME_TLS) || offered.next().is_some() {
            return None;
        }
        let name = hello.server_name().map(str::to_ascii_lowercase);
        Some(name.and_then(|name| self.0.load().tls.get(&name).cloned()))
    }
}

/// The answer to a challenge, or what was decided: a connection that is to end is ended.
pub(super) fn instead(challenge: Option<Answer>, decision: Decision) -> Decision {
    match (challenge, decision) {
        (Some(_), Decision::Answer(refusal)) if refusal.reason.closes() => Decision::Answer(refusal),
        (Some(answer), _) => Decision::Answer(answer),
        (None, decision) => decision,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::proxy::decide::TlsInfo;

    fn asked(challenges: &Challenges, method: &str, target: &str, tls: bool) -> Option<Bytes> {
        let peer = "192.0.2.1:4000".parse().expect("an address");
        let tls = tls.then_some(TlsInfo { sni: None, version: "TLSv1.3", cipher: "" });
        let client = Client { listener: "http".into(), peer, local: peer, tls };
        let (head, ()) =
            Request::builder().method(method).uri(target).body(()).expect("a request").into_parts();
        challenges.http(&client, &head, Some(0)).map(|answer| answer.body)
    }

    #[test]
    fn only_a_pending_token_is_answered_and_only_without_tls() {
        let challenges = Challenges::default();
        let target = "/.well-known/acme-challenge/abc";
        assert_eq!(asked(&challenges, "GET", target, false), None);
        challenges
            .present(vec![Proof::Http { token: "abc".to_owned(), content: "abc.x".to_owned() }])
            .expect("in service");
        assert_eq!(asked(&challenges, "GET", target, false).as_deref(), Some(&b"abc.x"[..]));
        for (method, target, tls) in [
            ("POST", target, false),
            ("GET", target, true),
            ("GET", "/.well-known/acme-challenge/", false),
            ("GET", "/.well-known/acme-challenge/abd", false),
            ("GET", "/x/.well-known/acme-challenge/abc", false),
        ] {
            assert_eq!(asked(&challenges, method, target, tls), None, "{method} {target}");
        }
        challenges.present(Vec::new()).expect("none");
        assert_eq!(asked(&challenges, "GET", target, false), None);
    }
}
