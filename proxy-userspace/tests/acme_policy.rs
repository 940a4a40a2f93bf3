//! Certificates by ACME in a policy: what a good one means, and each fault with line, column, text and help.

mod faults;

use std::path::{Path, PathBuf};

use tollgate::policy::{self, PolicyError};
use tollgate::proxy::plan::{Authority, Certificate, Challenge, Plan};

use faults::Case;

/// A good policy, a line a fact.
const GOOD: &str = r#"version = 1
[interfaces.wlp2s0]
[services.web]
ports = ["tcp/80", "tcp/443"]
allow = "any"
[acme.le]
terms-of-service-agreed = true
[acme.ours]
directory = "https://ca.example:14000/dir"
contact = ["mailto:admin@a.example"]
terms-of-service-agreed = true
challenge = "tls-alpn-01"
ca = "/etc/ssl/ours.crt"
renew-before = "10d"
[listeners.http]
bind = ":80"
[listeners.https]
bind = ":443"
[listeners.https.tls]
certificates = [{ chain = "/etc/a.crt", key = "/etc/a.key" },
{ acme = "le", names = ["A.example", "www.a.example"] },
{ acme = "ours", names = "b.example" }]
[routes.all]
listeners = ["http", "https"]
respond = { status = 200 }
"#;

#[rustfmt::skip] // A table: a line a case.
const CASES: &[Case] = &[
    // Authorities.
    ("[acme.le]", "[acme.LE]", (6, 7), "LE", "\"LE\" is not a name", "write \"le\""),
    ("[acme.le]", "[amce.le]", (6, 2), "amce", "unknown key \"amce\"", "write `[acme.NAME]` instead"),
    ("[acme.le]\nterms-of-service-agreed = true", "[acme.le]", (6, 7), "le", "does not agree to its terms of service", "read them, and write `terms-of-service-agreed = true`"),
    ("[acme.le]\nterms-of-service-agreed = true", "[acme.le]\nterms-of-service-agreed = false", (7, 27), "false", "does not agree to its terms of service", "read them, and write `terms-of-service-agreed = true`"),
    ("\"https://ca.example:14000/dir\"", "\"http://ca.example/dir\"", (9, 13), "\"http://ca.example/dir\"", "is not the URL of an authority's directory", "write its https URL, such as \"https://acme-v02.api.letsencrypt.org/directory\""),
    ("\"https://ca.example:14000/dir\"", "\"https://u:p@ca.example/\"", (9, 13), "\"https://u:p@ca.example/\"", "is not the URL of an authority's directory", "write its https URL, such as \"https://acme-v02.api.letsencrypt.org/directory\""),
    ("mailto:admin@a.example", "admin@a.example", (10, 12), "\"admin@a.example\"", "is not where an authority writes to", "write one address, such as \"mailto:admin@a.example\""),
    ("mailto:admin@a.example", "mailto:admin", (10, 12), "\"mailto:admin\"", "is not where an authority writes to", "write one address, such as \"mailto:admin@example.org\""),
    ("mailto:admin@a.example", "mailto:a@b.example,c@d.example", (10, 12), "\"mailto:a@b.example,c@d.example\"", "is not where an authority writes to", "write one address, such as \"mailto:admin@example.org\""),
    ("\"tls-alpn-01\"", "\"dns-01\"", (12, 13), "\"dns-01\"", "unknown word \"dns-01\"", "write \"http-01\" or \"tls-alpn-01\""),
    ("\"/etc/ssl/ours.crt\"", "\"ours.crt\"", (13, 6), "\"ours.crt\"", "is not the whole path of a file", "write its whole path, such as \"/etc/ssl/our-ca.crt\""),
    ("\"10d\"", "\"1m\"", (14, 16), "\"1m\"", "not from 1h to 365d", "write a duration from \"1h\" to \"365d\", such as \"30d\""),
    // Where they look.
    ("bind = \":80\"", "bind = \":8080\"", (6, 7), "le", "http-01 is answered by a listener without TLS at port 80, and there is none", "write `[listeners.http]` with `bind = \":80\"`, or `challenge = \"tls-alpn-01\"`"),
    ("bind = \":80\"", "bind = \"127.0.0.1:80\"", (6, 7), "le", "http-01 is answered by a listener without TLS at port 80, and there is none", "write `[listeners.http]` with `bind = \":80\"`, or `challenge = \"tls-alpn-01\"`"),
    ("bind = \":443\"", "bind = \":8443\"", (8, 7), "ours", "tls-alpn-01 is answered by a listener with TLS at port 443, and there is none", "bind one to \":443\""),
    // Certificates.
    ("acme = \"le\"", "acme = \"el\"", (21, 10), "\"el\"", "unknown authority \"el\"", "write \"le\" instead"),
    ("acme = \"le\"", "acme = \"zerossl\"", (21, 10), "\"zerossl\"", "unknown authority \"zerossl\"", "write `[acme.NAME]` with that name, or name another authority"),
    ("acme = \"le\"", "acme = \"le\", chain = \"/etc/b.crt\"", (21, 24), "\"/etc/b.crt\"", "so it has no files of yours", "leave `chain` and `key` out, or `acme`"),
    (", names = \"b.example\"", "", (22, 1), "{ acme = \"ours\" }", "does not say which names it is for", "write `names = [\"example.org\"]` in it"),
    ("\"b.example\"", "[]", (22, 26), "[]", "does not say which names it is for", "write `names = [\"example.org\"]` in it"),
    ("\"b.example\"", "\"*.b.example\"", (22, 26), "\"*.b.example\"", "takes a challenge by DNS (dns-01), which is not offered", "write each name, or give the certificate's files as `chain` and `key`"),
    ("\"b.example\"", "\"192.0.2.1\"", (22, 26), "\"192.0.2.1\"", "no client sends the address", "leave it out, and put the certificate first: the first is for clients that send no name"),
    ("\"b.example\"", "\"b_b.example\"", (22, 26), "\"b_b.example\"", "has an underscore", "write the name of a host: letters, digits, `-` and dots"),
    ("\"b.example\"", "\"www.a.example\"", (22, 26), "\"www.a.example\"", "is given twice", "write it once, at the certificate that is to answer for it"),
    ("{ acme = \"ours\", names = \"b.example\" }", "{ names = \"b.example\" }", (22, 1), "{ names = \"b.example\" }", "has no files, and nobody issues it", "write `chain = \"…\"` and `key = \"…\"` in it, or `acme = \"…\"` with the name of an `[acme.NAME]`"),
];

fn plan(text: &str) -> Plan {
    let policy = policy::parse(text, Path::new("policy.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
    policy.proxy.expect("a plan")
}

fn warnings(text: &str) -> Vec<String> {
    let policy = policy::parse(text, Path::new("policy.toml")).unwrap_or_else(|error| panic!("{error}"));
    policy.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn authorities_and_what_they_issue_arrive_in_the_plan() {
    let plan = plan(GOOD);
    let le = &plan.authorities["le"];
    let expected = Authority {
        directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
        contact: Vec::new(),
        challenge: Challenge::Http01,
        roots: None,
        renew_before_ms: None,
    };
    assert_eq!(*le, expected);
    let ours = &plan.authorities["ours"];
    assert_eq!(ours.directory, "https://ca.example:14000/dir");
    assert_eq!(
        (ours.challenge, ours.roots.as_deref()),
        (Challenge::TlsAlpn01, Some(Path::new("/etc/ssl/ours.crt")))
    );
    assert_eq!(
        (&ours.contact[..], ours.renew_before_ms),
        (&["mailto:admin@a.example".to_owned()][..], Some(864_000_000))
    );
    let tls = plan.listeners["https"].tls.as_ref().expect("TLS");
    let [files, le, _] = &tls.certificates[..] else { panic!("{tls:?}") };
    assert_eq!((files.authority.as_deref(), files.names.len()), (None, 0));
    let file = PathBuf::from("acme/le/a.example.pem");
    let names = vec!["a.example".to_owned(), "www.a.example".to_owned()];
    assert_eq!(*le, Certificate { chain: file.clone(), key: file, names, authority: Some("le".to_owned()) });
    let sent = serde_json::to_string(&plan).expect("JSON");
    assert_eq!(serde_json::from_str::<Plan>(&sent).expect("a plan"), plan);
}

#[test]
fn every_fault_is_located_and_put_right() {
    faults::each_is_located_and_put_right(GOOD, CASES);
}

#[test]
fn one_certificate_may_be_at_two_listeners_but_not_two_that_differ_in_part() {
    let other = "[listeners.more]\nbind = \":8443\"\ntls = { certificates = [{ acme = \"le\", names = NAMES }] }\n\
                 [routes.more]\nlisteners = \"more\"\nrespond = { status = 200 }\n";
    let with = |names: &str| {
        let text = GOOD.replace("\"tcp/443\"", "\"tcp/443\", \"tcp/8443\"");
        policy::parse(&format!("{text}{}", other.replace("NAMES", names)), Path::new("policy.toml"))
    };
    assert!(with("[\"www.a.example\"]").is_ok());
    // The order of those that follow makes no other certificate.
    assert!(with("[\"a.example\", \"www.a.example\"]").is_ok());
    let PolicyError(found) = with("[\"a.example\"]").expect_err("differs");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("begins with the same name, and has other names"), "{}", found[0]);
}

#[test]
fn an_authority_that_can_not_look_or_that_nobody_names_is_warned_of() {
    let closed =
        GOOD.replace("allow = \"any\"", "allow = [\"lan\"]") + "[zones]\nlan = [\"192.168.0.0/24\"]\n";
    let found = warnings(&closed);
    // One with a root of its own is somewhere near.
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("no service lets everyone reach tcp/80") && found[0].contains("policy.toml:6:7")
    );
    let unused = GOOD.replace("{ acme = \"ours\", names = \"b.example\" }", "");
    let found = warnings(&unused);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("no certificate names this authority") && found[0].contains("policy.toml:8:7"));
}
