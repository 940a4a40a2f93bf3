//! `[acme.NAME]`: who issues certificates (RFC 8555), and the certificates of listeners that name one.
//!
//! Called by [`super::check`], before the listeners and once more when they are known: an authority connects to a port that one of
//! them must have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::model::Transport;
use crate::policy::report::{Report, Span};
use crate::policy::schema_proxy::{self as schema, Several};
use crate::policy::units::{Host, TimeSpan, quote};
use crate::policy::validate::zones::Zones;
use crate::proxy::plan::{Authority, Certificate, Challenge, Listener};

use super::{Filter, Known, absolute, millis, names_of};

/// Let's Encrypt.
const DEFAULT_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
const MOST: usize = 16;
const MOST_CONTACTS: usize = 8;
const LONGEST_TEXT: usize = 1000;
/// Names of a certificate: what Let's Encrypt takes.
const MOST_NAMES: usize = 100;
/// Bytes of a name that are part of a file's name.
const LONGEST_STEM: usize = 200;
/// Bounds of `renew-before`, milliseconds.
const HOUR_TO_YEAR: (u64, u64) = (3_600_000, 365 * 86_400_000);
const DEFAULT_RENEW_BEFORE_MS: u64 = 30 * 86_400_000;

/// What is known of authorities while the listeners are checked.
pub(super) struct Authorities {
    known: Known,
    places: Vec<(String, Span)>,
    checked: BTreeMap<String, Authority>,
    /// Certificates that name one.
    uses: Vec<Use>,
}

/// A certificate that an authority issues.
struct Use {
    authority: String,
    file: PathBuf,
    names: Vec<String>,
    span: Span,
}

impl Authorities {
    /// Checks the sections.
    pub(super) fn check(report: &mut Report<'_>, entries: Vec<Entry<schema::Authority>>) -> Self {
        names_of(report, &entries, MOST, "authorities");
        let places: Vec<_> = entries.iter().map(|one| (one.name.clone(), one.name_span.clone())).collect();
        let known = Known::new("authority", "acme", &entries);
        let mut checked = BTreeMap::new();
        for Entry { name, name_span, value } in entries {
            if let Some(value) = value {
                checked.insert(name.clone(), authority(report, &name, &name_span, value));
            }
        }
        Self { known, places, checked, uses: Vec::new() }
    }

    /// A certificate that names an authority. `names`: as they were checked for all certificates.
    pub(super) fn certificate(
        &mut self,
        report: &mut Report<'_>,
        span: &Span,
        given: &schema::Certificate,
        authority: &Spanned<String>,
        names: Vec<String>,
    ) -> Option<Certificate> {
        for other in [given.chain.as_ref(), given.key.as_ref()].into_iter().flatten() {
            report.error(
                &other.span(),
                "the authority issues this certificate, so it has no files of yours",
                "leave `chain` and `key` out, or `acme`",
            );
        }
        let is_known = self.known.find(report, authority.get_ref(), &authority.span());
        let first = own_names(report, span, given)?;
        if !is_known {
            return None;
        }
        let authority = authority.get_ref().clone();
        let stem: String = first.chars().take(LONGEST_STEM).collect();
        let file = PathBuf::from(format!("acme/{authority}/{stem}.pem"));
        self.keep(
            report,
            Use {
                authority: authority.clone(),
                file: file.clone(),
                names: names.clone(),
                span: span.clone(),
            },
        );
        Some(Certificate { chain: file.clone(), key: file, names, authority: Some(authority) })
    }

    /// Two listeners may have the same certificate, but not two that differ in part.
    fn keep(&mut self, report: &mut Report<'_>, one: Use) {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        let other = self.uses.iter().find(|other| other.file == one.file);
        if let Some(other) = other.filter(|other| sorted(&other.names) != sorted(&one.names)) {
            report.error_with_note(
                &one.span,
                "another certificate of this authority begins with the same name, and has other names",
                "give both the same names, or begin them with different ones",
                &other.span,
                "it is here",
            );
        }
        self.uses.push(one);
    }

    /// What can be told once the listeners are known. Gives the authorities that certificates name.
    pub(super) fn finish(
        self,
        report: &mut Report<'_>,
        listeners: &BTreeMap<String, Listener>,
        filter: &Filter<'_>,
        zones: &Zones,
    ) -> BTreeMap<String, Authority> {
        self.known.unused(
            report,
            "no certificate names this authority",
            "write `{ acme = \"…\", names = [\"…\"] }` among the certificates of a listener, or leave it out",
        );
        for (name, span) in &self.places {
            let Some(authority) = self.checked.get(name) else { continue };
            if self.uses.iter().any(|one| one.authority == *name) {
                reachable(report, span, authority, listeners, filter, zones);
            }
        }
        let is_used = |name: &String| self.uses.iter().any(|one| one.authority == *name);
        self.checked.into_iter().filter(|(name, _)| is_used(name)).collect()
    }
}

fn authority(report: &mut Report<'_>, name: &str, span: &Span, value: schema::Authority) -> Authority {
    if !value.terms_of_service_agreed.as_ref().is_some_and(|agreed| *agreed.get_ref()) {
        let at = value.terms_of_service_agreed.as_ref().map_or_else(|| span.clone(), Spanned::span);
        report.error(
            &at,
            format!(
                "the authority {} issues nothing to who does not agree to its terms of service",
                quote(name)
            ),
            "read them, and write `terms-of-service-agreed = true`",
        );
    }
    let directory =
        value.directory.map_or_else(|| DEFAULT_DIRECTORY.to_owned(), |url| directory(report, &url));
    let contact = value.contact.map(|given| contacts(report, &given)).unwrap_or_default();
    let roots = value.ca.map(|ca| absolute(report, ca.get_ref(), &ca.span(), "/etc/ssl/our-ca.crt"));
    let renew_before = value.renew_before.as_ref();
    let renew_before_ms = renew_before
        .map(|given: &Spanned<TimeSpan>| millis(report, Some(given), HOUR_TO_YEAR, DEFAULT_RENEW_BEFORE_MS));
    let challenge = value.challenge.map(Spanned::into_inner).unwrap_or_default();
    Authority { directory, contact, challenge, roots, renew_before_ms }
}

fn directory(report: &mut Report<'_>, given: &Spanned<String>) -> String {
    let url = given.get_ref();
    let parsed: Option<http::Uri> = url.parse().ok();
    let is_good = url.len() <= LONGEST_TEXT
        && parsed.is_some_and(|url| {
            url.scheme_str() == Some("https")
                && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
    if !is_good {
        report.error(
            &given.span(),
            format!("{} is not the URL of an authority's directory", quote(url)),
            format!("write its https URL, such as \"{DEFAULT_DIRECTORY}\""),
        );
    }
    url.clone()
}

fn contacts(report: &mut Report<'_>, given: &Spanned<Several<String>>) -> Vec<String> {
    let items = Several::items(given);
    if let Some((_, span)) = items.get(MOST_CONTACTS) {
        report.error(span, format!("these are more than {MOST_CONTACTS} contacts"), "leave some out");
    }
    for (contact, span) in &items {
        let address = contact.strip_prefix("mailto:").unwrap_or(contact);
        let plain = |c: char| c.is_ascii_graphic() && !"?,<>\"".contains(c);
        let is_address = address.len() <= LONGEST_TEXT
            && address.chars().all(plain)
            && address
                .split_once('@')
                .is_some_and(|(user, host)| !user.is_empty() && host.parse::<Host>().is_ok());
        if !is_address || !contact.starts_with("mailto:") {
            let instead =
                if is_address { format!("mailto:{address}") } else { "mailto:admin@example.org".to_owned() };
            report.error(
                span,
                format!("{} is not where an authority writes to", quote(contact)),
                format!("write one address, such as {}", quote(&instead)),
            );
        }
    }
    items.into_iter().map(|(contact, _)| contact).collect()
}

/// Names that an authority can issue for by these challenges. Gives the first.
fn own_names(report: &mut Report<'_>, span: &Span, given: &schema::Certificate) -> Option<String> {
    let names = given.names.as_ref().map(Several::items).unwrap_or_default();
    if names.is_empty() {
        report.error(
            &given.names.as_ref().map_or_else(|| span.clone(), Spanned::span),
            "the certificate does not say which names it is for",
            "write `names = [\"example.org\"]` in it",
        );
    }
    if let Some((_, at)) = names.get(MOST_NAMES) {
        report.error(
            at,
            format!("these are more than {MOST_NAMES} names"),
            "write several certificates: a client sees the names of its own alone",
        );
    }
    for (host, at) in &names {
        // An address is refused for all certificates.
        if host.as_str().starts_with("*.") {
            report.error(
                at,
                format!("{} takes a challenge by DNS (dns-01), which is not offered", quote(host.as_str())),
                "write each name, or give the certificate's files as `chain` and `key`",
            );
        } else if host.as_str().contains('_') {
            report.error(
                at,
                format!(
                    "{} has an underscore, and no authority issues for such a name",
                    quote(host.as_str())
                ),
                "write the name of a host: letters, digits, `-` and dots",
            );
        }
    }
    names.into_iter().next().map(|(host, _)| host.as_str().to_owned())
}

/// Whether the authority can reach what answers its challenges.
fn reachable(
    report: &mut Report<'_>,
    span: &Span,
    authority: &Authority,
    listeners: &BTreeMap<String, Listener>,
    filter: &Filter<'_>,
    zones: &Zones,
) {
    let port = authority.challenge.port();
    let with_tls = authority.challenge == Challenge::TlsAlpn01;
    let is_there = |listener: &Listener| {
        listener.tls.is_some() == with_tls
            && listener.bind.iter().any(|address| address.port() == port && !address.ip().is_loopback())
    };
    if !listeners.values().any(is_there) {
        let (message, help) = if with_tls {
            (
                "tls-alpn-01 is answered by a listener with TLS at port 443, and there is none",
                "bind one to \":443\"",
            )
        } else {
            (
                "http-01 is answered by a listener without TLS at port 80, and there is none",
                "write `[listeners.http]` with `bind = \":80\"`, or `challenge = \"tls-alpn-01\"`",
            )
        };
        report.error(span, message, help);
        return;
    }
    // One with roots of its own is not somewhere on the Internet.
    if authority.roots.is_some() {
        return;
    }
    let is_open = filter.services.iter().any(|service| {
        service.allow.iter().any(|zone| zones.zone(*zone).any)
            && service
                .ports
                .iter()
                .any(|range| range.transport == Transport::Tcp && (range.first..=range.last).contains(&port))
    });
    let everywhere = crate::policy::model::DefaultAction::Accept;
    if !is_open && !filter.interfaces.iter().all(|interface| interface.default == everywhere) {
        report.warning(
            span,
            format!(
                "no service lets everyone reach tcp/{port}, and nobody knows where an authority connects from"
            ),
            format!("write a service with \"tcp/{port}\" and `allow = \"any\"`"),
        );
    }
}
