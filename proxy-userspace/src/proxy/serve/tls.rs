//! TLS of a listener: which certificate answers which name, versions, ciphers and resumption. Called by [`super::Service`] when it
//! starts and with each new plan; what it makes is used by `accept.rs`.
//!
//! Certificates are whole or not at all: an error names the file, and nothing is changed. Clients that come back resume their
//! sessions under a new plan too: keys of tickets are kept by [`Tickets`], and not by what is replaced.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerConfig, ServerSessionMemoryCache,
    StoresServerSessions,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::challenge::{ACME_TLS, Challenges};
use crate::proxy::plan::{self, Challenge, Plan, TlsVersion};

/// Sessions that are kept for clients which can't take tickets.
const SESSIONS: usize = 1024;

/// What the files of certificates and keys contain, by path. Read by a process that may; `Debug` shows no contents.
#[derive(Clone, Default)]
pub struct Certificates {
    files: BTreeMap<PathBuf, Result<Vec<u8>, String>>,
}

impl Certificates {
    /// Adds what a file contains, or why it could not be read.
    pub fn insert(&mut self, path: PathBuf, contents: Result<Vec<u8>, String>) {
        self.files.insert(path, contents);
    }

    fn read(&self, path: &Path) -> Result<&[u8], Invalid> {
        match self.files.get(path) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(why)) => Err(Invalid::new(path, format!("can't be read: {why}"))),
            None => Err(Invalid::new(path, "was not read".to_owned())),
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.keys()).finish()
    }
}

/// A certificate or key that can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct Invalid {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl Invalid {
    fn new(file: &Path, why: impl Into<String>) -> Self {
        Self { file: file.to_owned(), why: why.into() }
    }
}

/// What lets clients resume sessions. One for the life of the service.
#[derive(Debug)]
pub struct Tickets {
    ticketer: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Tickets {
    /// New keys; they change by themselves every six hours.
    ///
    /// # Errors
    /// If there is no randomness to be had.
    pub fn new() -> Result<Self, String> {
        let ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| format!("no keys for TLS tickets: {error}"))?;
        Ok(Self { ticketer, sessions: ServerSessionMemoryCache::new(SESSIONS) })
    }
}

/// Until when a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The file of its chain.
    pub file: PathBuf,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// TLS of listeners, by name.
pub(super) type Configs = BTreeMap<String, Arc<ServerConfig>>;

/// TLS of each listener that has it, and when the certificates end.
pub(super) fn listeners(
    plan: &Plan,
    files: &Certificates,
    tickets: &Tickets,
    challenges: &Arc<Challenges>,
    now: i64,
) -> Result<(Configs, Vec<Expiry>), Invalid> {
    let (mut configs, mut expiries) = (BTreeMap::new(), Vec::new());
    let is_looked_at = plan.authorities.values().any(|one| one.challenge == Challenge::TlsAlpn01);
    for (name, listener) in &plan.listeners {
        let Some(tls) = &listener.tls else { continue };
        let mut chosen = Chosen::new(tls, files, now, &mut expiries)?;
        chosen.challenges = is_looked_at.then(|| Arc::clone(challenges));
        let config = config(tls, listener.http2, chosen, tickets).map_err(|why| {
            let file = tls.certificates.first().map_or(Path::new(name), |certificate| &certificate.chain);
            Invalid::new(file, format!("listener {name}: {why}"))
        })?;
        configs.insert(name.clone(), Arc::new(config));
    }
    expiries.sort_by(|a, b| a.file.cmp(&b.file));
    expiries.dedup();
    Ok((configs, expiries))
}

fn config(tls: &plan::Tls, http2: bool, chosen: Chosen, tickets: &Tickets) -> Result<ServerConfig, String> {
    let mut provider = aws_lc_rs::default_provider();
    if !tls.ciphers.is_empty() {
        provider.cipher_suites = suites(&provider, &tls.ciphers)?;
    }
    let versions: &[_] = match tls.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let is_looked_at = chosen.challenges.is_some();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .map_err(|error| format!("the ciphers don't go with the versions of TLS: {error}"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(chosen));
    config.ignore_client_order = !tls.ciphers.is_empty();
    config.session_storage = Arc::clone(&tickets.sessions);
    config.ticketer = Arc::clone(&tickets.ticketer);
    config.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    if is_looked_at {
        config.alpn_protocols.push(ACME_TLS.to_vec());
    }
    Ok(config)
}

fn suites(
    provider: &CryptoProvider,
    names: &[String],
) -> Result<Vec<tokio_rustls::rustls::SupportedCipherSuite>, String> {
    let known = |name: &String| {
        let is = |suite: &&tokio_rustls::rustls::SupportedCipherSuite| suite.suite().as_str() == Some(name);
        provider.cipher_suites.iter().find(is).copied().ok_or_else(|| {
            let known: Vec<_> =
                provider.cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
            format!("there is no cipher suite {name}; write one of {}", known.join(", "))
        })
    };
    names.iter().map(known).collect()
}

/// Certificates by the names that they answer for.
#[derive(Debug)]
struct Chosen {
    /// For who sends no name (an IP address never is one), or a name that nothing has.
    default: Arc<CertifiedKey>,
    exact: BTreeMap<String, Arc<CertifiedKey>>,
    /// `example.org` for `*.example.org`.
    wildcard: BTreeMap<String, Arc<CertifiedKey>>,
    /// Where authorities look for certificates of their own.
    challenges: Option<Arc<Challenges>>,
}

impl Chosen {
    fn new(
        tls: &plan::Tls,
        files: &Certificates,
        now: i64,
        expiries: &mut Vec<Expiry>,
    ) -> Result<Self, Invalid> {
        let mut made: Option<Self> = None;
        for certificate in &tls.certificates {
            let (key, facts) = load(certificate, files)?;
            if facts.not_after < now {
                log::warn!(
                    "{}: the certificate has expired; clients will refuse it",
                    certificate.chain.display()
                );
            } else if facts.not_before > now {
                log::warn!("{}: the certificate is not valid yet", certificate.chain.display());
            }
            expiries.push(Expiry { file: certificate.chain.clone(), not_after: facts.not_after });
            let names = if certificate.names.is_empty() { facts.names } else { certificate.names.clone() };
            let key = Arc::new(key);
            let chosen = made.get_or_insert_with(|| Self {
                default: Arc::clone(&key),
                exact: BTreeMap::new(),
                wildcard: BTreeMap::new(),
                challenges: None,
            });
            for name in names {
                match name.strip_prefix("*.") {
                    // The first that has a name keeps it.
                    Some(below) => chosen.wildcard.entry(below.to_owned()).or_insert(Arc::clone(&key)),
                    None => chosen.exact.entry(name).or_insert(Arc::clone(&key)),
                };
            }
        }
        made.ok_or_else(|| Invalid::new(Path::new("tls"), "a listener with TLS needs a certificate"))
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let below = || name.split_once('.').and_then(|(_, below)| self.wildcard.get(below));
        self.exact.get(&name).or_else(below).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Chosen {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(looked_at) = self.challenges.as_ref().and_then(|challenges| challenges.tls(&hello)) {
            return looked_at;
        }
        Some(Arc::clone(hello.server_name().map_or(&self.default, |name| self.find(name))))
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its names, lower case.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// What a certificate says of itself, if it is one with its key: PEM of both, in one text.
///
/// # Errors
/// What is wrong with it.
pub fn facts_of(pem: &str) -> Result<Facts, String> {
    let file = PathBuf::new();
    let mut files = Certificates::default();
    files.insert(file.clone(), Ok(pem.as_bytes().to_vec()));
    let certificate =
        plan::Certificate { chain: file.clone(), key: file, names: Vec::new(), authority: None };
    load(&certificate, &files).map(|(_, facts)| facts).map_err(|error| format!("it {}", error.why))
}

fn load(certificate: &plan::Certificate, files: &Certificates) -> Result<(CertifiedKey, Facts), Invalid> {
    let bytes = files.read(&certificate.chain)?;
    let invalid = |why: String| Invalid::new(&certificate.chain, why);
    let chain = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|error| {
        invalid(format!("is not whole: {error}; write the chain in PEM, the server's own first"))
    })?;
    let own = chain.first().ok_or_else(|| {
        invalid("has no certificate; write the chain in PEM, the server's own first".to_owned())
    })?;
    // A chain that was cut between two blocks shows nothing wrong in PEM: each must at least be a certificate.
    for der in &chain {
        facts(der).map_err(invalid)?;
    }
    let facts = facts(own).map_err(invalid)?;
    let invalid = |why: String| Invalid::new(&certificate.key, why);
    let key = PrivateKeyDer::from_pem_slice(files.read(&certificate.key)?).map_err(|error| {
        invalid(format!("has no whole private key ({error}); write PKCS#8, PKCS#1 or SEC1 in PEM"))
    })?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        invalid(format!("does not go with the certificate in {}: {error}", certificate.chain.display()))
    })?;
    Ok((key, facts))
}

fn facts(der: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|error| format!("has a malformed certificate: {error}"))?;
    let alternative = parsed
        .subject_alternative_name()
        .map_err(|error| format!("has a certificate with malformed names: {error}"))?;
    let names =
        alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(
            |name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            },
        );
    Ok(Facts {
        names: names.collect(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn tls(files: &[(&str, &str)]) -> plan::Tls {
        let certificates = files.iter().map(|(chain, key)| plan::Certificate {
            chain: chain.into(),
            key: key.into(),
            names: Vec::new(),
            authority: None,
        });
        plan::Tls { certificates: certificates.collect(), min_version: TlsVersion::V1_2, ciphers: Vec::new() }
    }

    #[test]
    fn names_come_from_the_certificate_and_a_wildcard_is_for_one_label() {
        let mut files = Certificates::default();
        for (name, names) in [("a", &["a.example", "*.a.example"][..]), ("b", &["b.example"])] {
            let (chain, key) = made(names);
            files.insert(format!("{name}.pem").into(), Ok(chain.into()));
            files.insert(format!("{name}.key").into(), Ok(key.into()));
        }
        let mut expiries = Vec::new();
        let chosen = Chosen::new(&tls(&[("a.pem", "a.key"), ("b.pem", "b.key")]), &files, 0, &mut expiries)
            .expect("both are good");
        let (a, b) = (&chosen.default, &chosen.exact["b.example"]);
        assert!(!Arc::ptr_eq(a, b));
        assert_eq!(expiries.len(), 2);
        for name in ["a.example", "x.a.example", "X.A.Example.", "x.y.a.example", "other.example"] {
            assert!(Arc::ptr_eq(chosen.find(name), a), "{name}");
        }
        assert!(Arc::ptr_eq(chosen.find("B.example"), b));
        assert!(chosen.wildcard.contains_key("a.example"));
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let ((chain, key), (_, other)) = (made(&["a.example"]), made(&["a.example"]));
        let half = |text: &str| text[..text.len() / 2].to_owned();
        type Contents<'a> = Result<&'a str, &'a str>;
        let cases: [(Contents<'_>, Contents<'_>, &str, &str); 6] = [
            (Ok(&chain), Ok(&other), "key", "does not go with the certificate in chain"),
            (Ok(&half(&chain)), Ok(&key), "chain", "is not whole"),
            (Ok(&chain), Ok(&half(&key)), "key", "no whole private key"),
            (Ok(""), Ok(&key), "chain", "has no certificate"),
            (Err("Permission denied"), Ok(&key), "chain", "can't be read: Permission denied"),
            (
                Ok("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                Ok(&key),
                "chain",
                "malformed",
            ),
        ];
        for (chain, key, file, why) in cases {
            let mut files = Certificates::default();
            files.insert("chain".into(), chain.map(Into::into).map_err(str::to_owned));
            files.insert("key".into(), key.map(Into::into).map_err(str::to_owned));
            let error = Chosen::new(&tls(&[("chain", "key")]), &files, 0, &mut Vec::new()).expect_err(why);
            assert!(error.file == Path::new(file) && error.why.contains(why), "{error}");
        }
    }

    #[test]
    fn an_unknown_cipher_is_named_with_those_that_are_known() {
        let mut tls = tls(&[("chain", "key")]);
        tls.ciphers = vec!["TLS_RSA_WITH_RC4_128_MD5".to_owned()];
        let error = suites(&aws_lc_rs::default_provider(), &tls.ciphers).expect_err("RC4");
        assert!(error.contains("RC4") && error.contains("TLS13_AES_256_GCM_SHA384"), "{error}");
    }
}
