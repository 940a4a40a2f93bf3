//! Certificates, ALPN, versions, resumption, and a handshake that does not come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};
use tollgate::proxy::plan::{Certificate, Tls, TlsVersion};
use tollgate::proxy::serve::Refused;
use tollgate::proxy::serve::tls::Certificates;

use crate::backend::{Backend, says};
use crate::client::{self, GET, Wire};
use crate::stage::{Stage, upstream};

/// Takes every certificate: which one it was is looked at afterwards.
#[derive(Debug)]
struct Anything(CryptoProvider);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub fn config(alpn: &[&str]) -> Arc<ClientConfig> {
    config_of(alpn, &[&version::TLS12, &version::TLS13])
}

fn config_of(alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let provider = aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// Chain, key, and the certificate itself.
type Set = (Vec<u8>, Vec<u8>, Vec<u8>);

/// A certificate for these names.
fn made(names: &[&str]) -> Set {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (made.cert.pem().into(), made.signing_key.serialize_pem().into(), made.cert.der().to_vec())
}

fn files(sets: &[(&str, &Set)]) -> Certificates {
    let mut files = Certificates::default();
    for (name, (chain, key, _)) in sets {
        files.insert(format!("{name}.pem").into(), Ok(chain.clone()));
        files.insert(format!("{name}.key").into(), Ok(key.clone()));
    }
    files
}

fn with(names: &[&str]) -> Option<Tls> {
    let certificates = names.iter().map(|name| Certificate {
        chain: format!("{name}.pem").into(),
        key: format!("{name}.key").into(),
        names: Vec::new(),
        authority: None,
    });
    Some(Tls { certificates: certificates.collect(), min_version: TlsVersion::V1_2, ciphers: Vec::new() })
}

/// A proxy with a certificate for `a.example`.
pub async fn encrypted(backend: &Backend, change: impl FnOnce(&mut tollgate::proxy::plan::Plan)) -> Stage {
    let files = files(&[("a", &made(&["a.example"]))]);
    Stage::with_certificates(upstream(&[backend.address]), files, |plan| {
        plan.listeners.get_mut("web").expect("web").tls = with(&["a"]);
        change(plan);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_goes_by_name_and_the_first_is_for_all_others() {
    let backend = Backend::that(says("hello")).await;
    let (a, b) = (made(&["a.example"]), made(&["b.example", "*.b.example"]));
    let stage =
        Stage::with_certificates(upstream(&[backend.address]), files(&[("a", &a), ("b", &b)]), |plan| {
            plan.listeners.get_mut("web").expect("web").tls = with(&["a", "b"]);
        });
    // A client that asks for an address sends no name.
    for (name, certificate) in [
        ("a.example", &a.2),
        ("b.example", &b.2),
        ("x.b.example", &b.2),
        ("x.y.b.example", &a.2),
        ("other.example", &a.2),
        ("127.0.0.1", &a.2),
    ] {
        let mut wire = client::tls(stage.address, name, config(&[])).await.expect("a handshake");
        let shown = wire.stream.get_ref().1.peer_certificates().expect("a certificate");
        assert_eq!(shown[0].as_ref(), certificate.as_slice(), "{name}");
        assert_eq!(wire.ask(GET).await.text(), "hello", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alpn_says_what_is_spoken() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let mut wire = client::tls(stage.address, "a.example", config(offered)).await.expect("a handshake");
        assert_eq!(wire.stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
        if chosen == Some(b"h2") {
            let (mut sender, _task) = client::http2(wire.stream).await;
            let response = sender.send_request(client::get("/")).await.expect("an answer");
            assert_eq!(response.status(), 200);
        } else {
            assert_eq!(wire.ask(GET).await.status, 200);
        }
    }
    assert!(client::tls(stage.address, "a.example", config(&["spdy/3"])).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_not_spoken_where_the_plan_does_not_want_it() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |plan| plan.listeners.get_mut("web").expect("web").http2 = false).await;
    let wire =
        client::tls(stage.address, "a.example", config(&["h2", "http/1.1"])).await.expect("a handshake");
    assert_eq!(wire.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    // Nor ever without TLS.
    let plain = Stage::before(backend.address);
    let mut wire = Wire::to(plain.address).await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(wire.is_closed().await && backend.log.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_refused() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |plan| {
        let tls = plan.listeners.get_mut("web").and_then(|web| web.tls.as_mut()).expect("TLS");
        tls.min_version = TlsVersion::V1_3;
    })
    .await;
    assert!(client::tls(stage.address, "a.example", config_of(&[], &[&version::TLS12])).await.is_err());
    assert!(client::tls(stage.address, "a.example", config_of(&[], &[&version::TLS13])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn ciphers_are_those_of_the_plan_in_its_order() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |plan| {
        let tls = plan.listeners.get_mut("web").and_then(|web| web.tls.as_mut()).expect("TLS");
        tls.ciphers = ["TLS13_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
            .map(str::to_owned)
            .into();
    })
    .await;
    for (version, cipher) in [
        (&version::TLS13, "TLS13_CHACHA20_POLY1305_SHA256"),
        (&version::TLS12, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ] {
        let wire =
            client::tls(stage.address, "a.example", config_of(&[], &[version])).await.expect("a handshake");
        let suite = wire.stream.get_ref().1.negotiated_cipher_suite().expect("a suite").suite();
        assert_eq!(suite.as_str(), Some(cipher));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_breaks_no_connection_and_no_session() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    for version in [&version::TLS12, &version::TLS13] {
        let config = config_of(&[], &[version]);
        let mut before =
            client::tls(stage.address, "a.example", Arc::clone(&config)).await.expect("a handshake");
        assert_eq!(before.ask(GET).await.status, 200);

        let renewed = made(&["a.example"]);
        stage
            .service
            .replace(stage.plan.clone(), &files(&[("a", &renewed)]), Vec::new())
            .expect("a good certificate");

        assert_eq!(before.ask(GET).await.status, 200);
        let resumed = client::tls(stage.address, "a.example", config).await.expect("a handshake");
        assert_eq!(resumed.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        let fresh =
            client::tls(stage.address, "a.example", config_of(&[], &[version])).await.expect("a handshake");
        assert_eq!(
            fresh.stream.get_ref().1.peer_certificates().expect("one")[0].as_ref(),
            renewed.2.as_slice()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_changes_nothing() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    let mut open = client::tls(stage.address, "a.example", config(&[])).await.expect("a handshake");
    let certificate = open.stream.get_ref().1.peer_certificates().expect("one")[0].clone().into_owned();
    let good = made(&["a.example"]);
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let mut unreadable = files(&[("a", &good)]);
    unreadable.insert("a.key".into(), Err("Permission denied (os error 13)".to_owned()));
    for (bad, file, why) in [
        (files(&[("a", &(good.0.clone(), made(&["a.example"]).1, Vec::new()))]), "a.key", "does not go with"),
        (files(&[("a", &(half(&good.0), good.1.clone(), Vec::new()))]), "a.pem", "not whole"),
        (unreadable, "a.key", "Permission denied"),
        (Certificates::default(), "a.pem", "was not read"),
    ] {
        let Err(Refused::Certificate(error)) = stage.service.replace(stage.plan.clone(), &bad, Vec::new())
        else {
            panic!("{why}")
        };
        assert!(error.to_string().starts_with(file) && error.to_string().contains(why), "{error}");
        let fresh = client::tls(stage.address, "a.example", config(&[])).await.expect("a handshake");
        assert_eq!(fresh.stream.get_ref().1.peer_certificates().expect("one")[0], certificate);
    }
    assert_eq!(open.ask(GET).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_served_and_its_end_is_known() {
    let backend = Backend::that(says("hello")).await;
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let expired = params.self_signed(&key).expect("a certificate");
    let set = (expired.pem().into_bytes(), key.serialize_pem().into_bytes(), expired.der().to_vec());
    let stage = Stage::with_certificates(upstream(&[backend.address]), files(&[("a", &set)]), |plan| {
        plan.listeners.get_mut("web").expect("web").tls = with(&["a"]);
    });
    assert!(client::tls(stage.address, "a.example", config(&[])).await.is_ok());
    let life = stage.service.snapshot().certificates;
    assert!(life.len() == 1 && life[0].file == "a.pem" && life[0].days < -8_000, "{life:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_is_given_up() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |plan| plan.common.timeouts.handshake_ms = 300).await;
    for begun_with in [&b""[..], b"\x16\x03\x01\x02"] {
        let (begun, mut wire) = (Instant::now(), Wire::to(stage.address).await);
        wire.send(begun_with).await;
        assert!(wire.is_closed().await && begun.elapsed() >= Duration::from_millis(280));
    }
    // Counted on another thread, a moment later.
    stage.until("both are counted", |stage| stage.reasons("client-timeout") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_an_offence() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |_| {}).await;
    let hello = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00";
    let garbage: [&[u8]; 4] =
        [b"\xde\xad\xbe\xef garbage", b"SSH-2.0-x\r\n", hello, b"\x17\x03\x03\x00\x01x"];
    for (number, bytes) in (1..).zip(garbage) {
        let mut wire = Wire::to(stage.address).await;
        wire.send(bytes).await;
        assert!(wire.is_closed().await);
        stage.until("noticed", |stage| stage.reasons("tls-invalid") == number).await;
    }
    assert!(stage.reasons("handshake-failed") == 0 && backend.log.heads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_or_can_not_agree_does_nothing_wrong() {
    let backend = Backend::that(says("hello")).await;
    let stage = encrypted(&backend, |plan| {
        let tls = plan.listeners.get_mut("web").and_then(|web| web.tls.as_mut()).expect("TLS");
        tls.min_version = TlsVersion::V1_3;
    })
    .await;
    drop(Wire::to(stage.address).await);
    stage.until("who left", |stage| stage.reasons("handshake-failed") == 1).await;
    for request in [GET, "POST / HTTP/1.1\r\n\r\n"] {
        let mut wire = Wire::to(stage.address).await;
        wire.send(request).await;
        assert!(wire.is_closed().await);
    }
    stage.until("plain HTTP", |stage| stage.reasons("handshake-failed") == 3).await;
    assert!(client::tls(stage.address, "a.example", config_of(&[], &[&version::TLS12])).await.is_err());
    assert!(client::tls(stage.address, "a.example", config(&["spdy/3"])).await.is_err());
    stage.until("other versions and protocols", |stage| stage.reasons("handshake-failed") == 5).await;
    // A client that trusts nobody.
    for versions in [&[&version::TLS13][..], &[&version::TLS12, &version::TLS13]] {
        let trusting_nobody = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        assert!(client::tls(stage.address, "a.example", Arc::new(trusting_nobody)).await.is_err());
    }
    stage.until("an unknown issuer", |stage| stage.reasons("handshake-failed") == 7).await;
    assert_eq!(stage.reasons("tls-invalid"), 0);
}
