//! Names of cipher suites: as IANA, OpenSSL and rustls have them; and why one that is known elsewhere is not offered.
//!
//! Called by [`super::listeners`]. rustls speaks nothing but AEAD ciphers with a fresh elliptic-curve key (RFC 9325
//! section 4.2), so most of the names in old configurations are none of its suites.

use crate::policy::names::nearest;
use crate::policy::report::{Report, Span};
use crate::policy::units::quote;
use crate::proxy::plan::TlsVersion;

/// A suite, by its names.
struct Suite {
    rustls: &'static str,
    /// In RFC 8446 and the registry of IANA.
    iana: &'static str,
    openssl: &'static str,
    version: TlsVersion,
}

const fn tls13(rustls: &'static str, iana: &'static str) -> Suite {
    Suite { rustls, iana, openssl: iana, version: TlsVersion::V1_3 }
}

const fn tls12(iana: &'static str, openssl: &'static str) -> Suite {
    Suite { rustls: iana, iana, openssl, version: TlsVersion::V1_2 }
}

/// In rustls's order of preference.
const SUITES: [Suite; 9] = [
    tls13("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    tls13("TLS13_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    tls13("TLS13_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
    tls12("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    tls12("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    tls12("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    tls12("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    tls12("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    tls12("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
];

/// The suites of these names as rustls has them. Those of TLS 1.3 come first and are all there if none is named, as with
/// OpenSSL's cipher lists, which are of TLS 1.2.
pub(super) fn check(
    report: &mut Report<'_>,
    names: &[(String, Span)],
    whole: &Span,
    min_version: TlsVersion,
) -> Vec<String> {
    let mut found: Vec<(&Suite, Span)> = Vec::new();
    let mut wrong = false;
    for (name, span) in names {
        match suite(name) {
            Ok(suite) if found.iter().any(|(other, _)| other.rustls == suite.rustls) => {
                report.error(
                    span,
                    format!("the cipher suite {} is named twice", quote(name)),
                    "write it once",
                );
            }
            Ok(suite) => found.push((suite, span.clone())),
            Err((message, help)) => {
                wrong = true;
                report.error(span, message, help);
            }
        }
    }
    if wrong {
        return Vec::new();
    }
    let of = |version| found.iter().filter(move |(suite, _)| suite.version == version);
    if min_version == TlsVersion::V1_3 {
        for (suite, span) in of(TlsVersion::V1_2) {
            report.error(
                span,
                format!("{} is a cipher suite of TLS 1.2, which `min-version` rules out", suite.openssl),
                "leave it out, or write `min-version = \"1.2\"`",
            );
        }
    } else if of(TlsVersion::V1_2).next().is_none() {
        report.error(
            whole,
            "no cipher suite of TLS 1.2 is named, and TLS 1.2 is to be spoken",
            "add one such as \"ECDHE-RSA-AES256-GCM-SHA384\", or write `min-version = \"1.3\"`",
        );
    }
    let mut suites: Vec<String> = of(TlsVersion::V1_3).map(|(suite, _)| suite.rustls.to_owned()).collect();
    if suites.is_empty() {
        let all = SUITES.iter().filter(|suite| suite.version == TlsVersion::V1_3);
        suites.extend(all.map(|suite| suite.rustls.to_owned()));
    }
    suites.extend(of(TlsVersion::V1_2).map(|(suite, _)| suite.rustls.to_owned()));
    suites
}

/// The suite of a name, or what is wrong and what to write.
fn suite(name: &str) -> Result<&'static Suite, (String, String)> {
    if let Some(suite) = SUITES.iter().find(|suite| [suite.rustls, suite.iana, suite.openssl].contains(&name))
    {
        return Ok(suite);
    }
    let upper = name.to_ascii_uppercase().replace('_', "-");
    let same = |known: &str| known.replace('_', "-") == upper;
    if let Some(suite) = SUITES.iter().find(|suite| same(suite.iana) || same(suite.openssl)) {
        let instead = if same(suite.openssl) { suite.openssl } else { suite.iana };
        return Err((format!("{} is not a cipher suite", quote(name)), format!("write {}", quote(instead))));
    }
    Err(fault(name, &upper))
}

/// Why a name is none of the suites; `upper` is the name in capitals with `-` alone.
fn fault(name: &str, upper: &str) -> (String, String) {
    let parts: Vec<&str> = upper.split('-').collect();
    let has = |part: &str| parts.contains(&part);
    if name.contains([':', '!', '+', '@', ' ', ',']) {
        return (
            format!("{} is a rule of OpenSSL, not a cipher suite", quote(name)),
            "write each cipher suite by its name, in a list: [\"ECDHE-RSA-AES256-GCM-SHA384\"]".to_owned(),
        );
    }
    let bits = if has("AES128") || has("128") { "128" } else { "256" };
    let auth = if has("ECDSA") { "ECDSA" } else { "RSA" };
    let hash = if bits == "128" { "SHA256" } else { "SHA384" };
    let help = format!("write \"ECDHE-{auth}-AES{bits}-GCM-{hash}\"");
    let is_dhe = has("DHE") || has("EDH");
    let no_dhe = "a key exchange over a prime field (DHE) is not offered";
    let aes = has("AES128") || has("AES256") || has("AES");
    let ends_with = parts.last().copied().unwrap_or_default();
    // AES-128-GCM goes with SHA-256 and AES-256-GCM with SHA-384, in every suite there is (RFC 5288, RFC 5289).
    if aes && has("GCM") && ends_with != hash {
        let besides = if is_dhe { format!(", and {no_dhe}") } else { String::new() };
        return (
            format!("there is no cipher suite {}: AES-{bits} in GCM goes with {hash}{besides}", quote(name)),
            help,
        );
    }
    let why = if is_dhe {
        Some(no_dhe)
    } else if ["RC4", "3DES", "DES", "CBC3", "NULL", "ANON", "ADH", "AECDH", "EXP", "IDEA", "SEED"]
        .iter()
        .any(|part| has(part))
    {
        Some("it is broken or weak")
    } else if ["PSK", "SRP", "KRB5"].iter().any(|part| has(part)) {
        Some("clients of a web server have no shared secret")
    } else if [
        "CCM",
        "CCM8",
        "CAMELLIA",
        "CAMELLIA128",
        "CAMELLIA256",
        "ARIA",
        "ARIA128",
        "ARIA256",
        "ARIAGCM",
    ]
    .iter()
    .any(|part| has(part))
    {
        Some("of the ciphers AES-GCM and ChaCha20-Poly1305 are offered alone")
    } else if aes && !has("ECDHE") {
        Some("its key exchange gives no forward secrecy")
    } else if aes && !has("GCM") {
        Some("CBC mode is not offered")
    } else {
        None
    };
    if let Some(why) = why {
        return (format!("the cipher suite {} is not offered: {why}", quote(name)), help);
    }
    let known = SUITES.iter().flat_map(|suite| [suite.openssl, suite.iana]);
    let help = match nearest(name, known) {
        Some(near) => format!("write {}", quote(near)),
        None => "write one such as \"ECDHE-RSA-AES256-GCM-SHA384\", or leave `ciphers` out".to_owned(),
    };
    (format!("unknown cipher suite {}", quote(name)), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_goes_by_all_its_names() {
        for known in &SUITES {
            for name in [known.rustls, known.iana, known.openssl] {
                let found = suite(name).unwrap_or_else(|(message, _)| panic!("{message}"));
                assert_eq!(found.rustls, known.rustls);
            }
        }
    }

    #[test]
    fn what_is_not_offered_says_why() {
        for (name, why, help) in [
            (
                "ECDHE-RSA-AES256-GCM-SHA512",
                "there is no cipher suite",
                "write \"ECDHE-RSA-AES256-GCM-SHA384\"",
            ),
            (
                "DHE-RSA-AES256-GCM-SHA512",
                "there is no cipher suite",
                "write \"ECDHE-RSA-AES256-GCM-SHA384\"",
            ),
            ("DHE-RSA-AES256-GCM-SHA512", "(DHE) is not offered", "write \"ECDHE-RSA-AES256-GCM-SHA384\""),
            ("DHE-RSA-AES128-GCM-SHA256", "(DHE) is not offered", "write \"ECDHE-RSA-AES128-GCM-SHA256\""),
            ("ECDHE-ECDSA-AES256-SHA384", "CBC", "write \"ECDHE-ECDSA-AES256-GCM-SHA384\""),
            ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "CBC", "write \"ECDHE-RSA-AES128-GCM-SHA256\""),
            ("AES256-GCM-SHA384", "forward secrecy", "write \"ECDHE-RSA-AES256-GCM-SHA384\""),
            ("TLS_RSA_WITH_AES_128_GCM_SHA256", "forward secrecy", "write \"ECDHE-RSA-AES128-GCM-SHA256\""),
            ("DES-CBC3-SHA", "weak", "write \"ECDHE-RSA-AES256-GCM-SHA384\""),
            ("HIGH:!aNULL", "a rule of OpenSSL", "write each cipher suite by its name"),
            ("ecdhe-rsa-aes256-gcm-sha384", "is not a cipher suite", "write \"ECDHE-RSA-AES256-GCM-SHA384\""),
            ("ECDHE-RSA-CHACHA20-POLY1306", "unknown cipher suite", "write \"ECDHE-RSA-CHACHA20-POLY1305\""),
            ("swordfish", "unknown cipher suite", "write one such as"),
            ("", "unknown cipher suite", "write one such as"),
        ] {
            let Err((message, instead)) = suite(name) else { panic!("{name} is a suite") };
            assert!(message.contains(why) && instead.starts_with(help), "{name}: {message}; {instead}");
        }
    }
}
