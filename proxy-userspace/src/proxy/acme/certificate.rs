//! Certificates and requests that are made here: what stands in for a certificate until there is one, the request for it, and what
//! answers TLS-ALPN-01. Called by the daemon for the first two, by the worker for the last.

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    date_time_ymd,
};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

/// How long what stands in is good: nobody is to rely on it.
const STAND_IN_DAYS: i64 = 90;

/// A new key, and the request for a certificate with it.
#[derive(Debug)]
pub struct Request {
    /// PEM, PKCS#8.
    pub key: String,
    /// DER, PKCS#10.
    pub der: Vec<u8>,
}

/// A request for these names. Its key is ECDSA, P-256.
///
/// # Errors
/// If a name is none, or there is no randomness to be had.
pub fn request(names: &[String]) -> Result<Request, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    // The authority knows names by their extension alone, and some refuse another name.
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok(Request { key: key.serialize_pem(), der: request.der().to_vec() })
}

/// Key and certificate for these names, PEM, signed by itself: no client trusts it, but the handshake and what is behind it work.
///
/// # Errors
/// As [`request`].
pub fn stand_in(names: &[String]) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "stands in until the authority has issued one");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let day = |days| {
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let date = now.saturating_add(jiff::Span::new().days(days));
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    // A day back: the client's clock may be behind.
    (params.not_before, params.not_after) = (day(-1), day(STAND_IN_DAYS));
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// What a server shows to an authority that looks whether `name` is ours (RFC 8737 section 3): signed by itself, for that name alone,
/// with the digest of the key authorization in it.
///
/// # Errors
/// As [`request`].
pub fn challenge(name: &str, digest: &[u8; 32]) -> Result<CertifiedKey, String> {
    let failed = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new([name.to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(failed)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| error.to_string())?;
    // Not `from_der`: it reads the certificate as a client would, and clients refuse the extension, as they should.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use x509_parser::prelude::{
        FromDer, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest,
    };

    use super::*;

    fn names_of(general: &[GeneralName<'_>]) -> Vec<String> {
        general.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_request_has_its_names_and_nothing_else_of_this_host() {
        let request = request(&["a.example".to_owned(), "b.example".to_owned()]).expect("a request");
        let (_, parsed) = X509CertificationRequest::from_der(&request.der).expect("PKCS#10");
        assert_eq!(parsed.certification_request_info.subject.iter().count(), 0);
        let names: Vec<_> = parsed
            .requested_extensions()
            .expect("extensions")
            .filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(names_of(&names.general_names)),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(names, ["DNSName(a.example)", "DNSName(b.example)"]);
        assert!(request.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn what_stands_in_is_for_its_names_and_not_for_long() {
        let pem = stand_in(&["a.example".to_owned()]).expect("a certificate");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (_, parsed) = X509Certificate::from_der(&der).expect("X.509");
        let names = parsed.subject_alternative_name().expect("names").expect("names");
        assert_eq!(names_of(&names.value.general_names), ["DNSName(a.example)"]);
        let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        assert!(parsed.validity().is_valid() && (to - from) / 86_400 == STAND_IN_DAYS + 1, "{from} to {to}");
    }

    #[test]
    fn a_challenge_is_answered_by_a_critical_extension_for_one_name() {
        let key = challenge("a.example", &[7; 32]).expect("a certificate");
        let (_, parsed) = X509Certificate::from_der(&key.cert[0]).expect("X.509");
        let found = parsed.extensions().iter().find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let found = found.expect("id-pe-acmeIdentifier");
        // An OCTET STRING of 32 bytes.
        assert!(found.critical && found.value == [&[4, 32][..], &[7; 32]].concat());
        let names = parsed.subject_alternative_name().expect("names").expect("names");
        assert_eq!(names_of(&names.value.general_names), ["DNSName(a.example)"]);
    }
}
