//! HTTPS to the authority, for [`super::client`]: bounded in time and in bytes, and it notes when the authority does not want to be
//! asked again, which instant-acme reads of answers that went well alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// For connecting, and for each request with its answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of an answer: a chain has some thousand.
const MOST_BYTES: usize = 256 << 10;

/// When the authority may be asked again, seconds since 1970, if it has said so.
pub(super) type NotBefore = Arc<Mutex<Option<u64>>>;

/// A client of one authority.
pub(super) struct Https {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    not_before: NotBefore,
}

impl Https {
    /// Trusts these roots (PEM), or those of this host.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn new(roots: Option<&str>, not_before: NotBefore) -> Result<Self, String> {
        let store = match roots {
            Some(pem) => of_pem(pem)?,
            None => of_host()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(store)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_PATIENCE));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(https), not_before })
    }
}

fn of_pem(pem: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|error| format!("`ca` is not whole: {error}"))?;
        store.add(der).map_err(|error| format!("`ca` has a malformed certificate: {error}"))?;
    }
    if store.is_empty() { Err("`ca` has no certificate (PEM)".to_owned()) } else { Ok(store) }
}

fn of_host() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Hosts have odd ones among many that are good.
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "this host trusts no authority{why}: install its store (Debian: ca-certificates), or name `ca`"
        ));
    }
    Ok(store)
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let place = request.uri().host().unwrap_or_default().to_owned();
        let answer = self.client.request(request);
        let not_before = Arc::clone(&self.not_before);
        Box::pin(async move {
            let whole = async {
                let (head, body) = answer.await.map_err(|error| chain(&error))?.into_parts();
                let body = Limited::new(body, MOST_BYTES).collect().await.map_err(|error| chain(&*error))?;
                Ok::<_, String>((head, body.to_bytes()))
            };
            let answered = match tokio::time::timeout(PATIENCE, whole).await {
                Ok(answered) => answered,
                Err(_) => Err(format!("no whole answer within {} s", PATIENCE.as_secs())),
            };
            let (head, body) = answered.map_err(|why| Error::Other(format!("{place}: {why}").into()))?;
            if !head.status.is_success()
                && let Some(at) = retry_after(&head.headers, SystemTime::now())
            {
                *not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
            }
            // A proxy or a web server in its place has no problem document, and what it has need not be shown.
            if !head.status.is_success() && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
                return Err(Error::Other(format!("{place}: {}", head.status).into()));
            }
            Ok(BytesResponse::from(Response::from_parts(head, Full::new(body))))
        })
    }
}

/// An error and what it comes from: "error sending request" alone helps nobody.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(one) = source {
        let said = one.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = one.source();
    }
    text
}

/// `Retry-After`, seconds or a date (RFC 9110 section 10.2.3), as seconds since 1970.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(now.saturating_add(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(at.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_time_of_the_next_question_is_read_in_both_forms() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let read = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
        };
        assert_eq!(read("120"), Some(1_000_000_120));
        assert_eq!(read("Fri, 31 Dec 1999 23:59:59 GMT"), Some(946_684_799));
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn roots_that_are_none_are_said_to_be_none() {
        assert!(of_pem("").expect_err("nothing").contains("no certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(of_pem(broken).expect_err("broken").contains("malformed"));
        let good =
            rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate").cert.pem();
        assert_eq!(of_pem(&good).expect("good").len(), 1);
    }
}
