//! `[listeners.NAME]`: where clients connect, and with which certificates.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::model::{DefaultAction, Transport};
use crate::policy::report::{Report, Span};
use crate::policy::schema_proxy::{self as schema, Several};
use crate::policy::units::quote;
use crate::proxy::plan::{Certificate, Listener, Tls};

use super::acme::Authorities;
use super::{Filter, absolute, ciphers, names_of};

const MOST: usize = 64;
const MOST_CERTIFICATES: usize = 1000;

/// An address that is bound, by which listener and where that stands.
struct Bound {
    address: SocketAddr,
    listener: String,
    span: Span,
}

pub(super) fn check(
    report: &mut Report<'_>,
    entries: Vec<Entry<schema::Listener>>,
    authorities: &mut Authorities,
    filter: &Filter<'_>,
) -> BTreeMap<String, Listener> {
    names_of(report, &entries, MOST, "listeners");
    let mut listeners = BTreeMap::new();
    let mut bound = Vec::new();
    for Entry { name, name_span, value } in entries {
        let Some(value) = value else { continue };
        let bind = bind(report, &name, &name_span, value.bind.as_ref(), &mut bound);
        let tls = value.tls.map(|tls| self::tls(report, tls, authorities));
        if tls.is_none()
            && let Some(http2) = value.http2.as_ref().filter(|http2| *http2.get_ref())
        {
            report.error(
                &http2.span(),
                "HTTP/2 is spoken with TLS alone, where client and server agree on it",
                "leave `http2` out, or write `tls = { … }`",
            );
        }
        let http2 = value.http2.map_or(tls.is_some(), Spanned::into_inner);
        listeners.insert(name, Listener { bind, tls, http2 });
    }
    closed_ports(report, &bound, filter);
    listeners
}

fn bind(
    report: &mut Report<'_>,
    name: &str,
    name_span: &Span,
    given: Option<&Spanned<Several<crate::policy::units::Bind>>>,
    bound: &mut Vec<Bound>,
) -> Vec<SocketAddr> {
    let example = "write `bind = \":80\"`";
    let Some(given) = given else {
        report.error(
            name_span,
            format!("the listener {} does not say where it listens", quote(name)),
            format!("{example} in it"),
        );
        return Vec::new();
    };
    let items = Several::items(given);
    if items.is_empty() {
        report.error(&given.span(), "this listener is bound to nothing", example);
    }
    let mut addresses = Vec::new();
    for (bind, span) in items {
        let all = bind.addresses();
        let clash = bound.iter().find_map(|before| {
            all.iter().find(|address| overlap(**address, before.address)).map(|address| (before, *address))
        });
        if let Some((before, address)) = clash {
            let message = if address == before.address {
                format!("{address} is bound already, by {}", quote(&before.listener))
            } else {
                format!(
                    "{address} and {} of {} take the same connections",
                    before.address,
                    quote(&before.listener)
                )
            };
            report.error_with_note(
                &span,
                message,
                "bind each address and port once",
                &before.span,
                "it is here first",
            );
        }
        bound.extend(all.iter().map(|address| Bound {
            address: *address,
            listener: name.to_owned(),
            span: span.clone(),
        }));
        addresses.extend(all);
    }
    addresses
}

/// True if both can't be bound: equal, or one of them is every address of the family.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn tls(report: &mut Report<'_>, given: Spanned<schema::Tls>, authorities: &mut Authorities) -> Tls {
    let span = given.span();
    let value = given.into_inner();
    let example = "certificates = [{ chain = \"/etc/ssl/site.crt\", key = \"/etc/ssl/site.key\" }]";
    let mut certificates = Vec::new();
    match value.certificates {
        None => report.error(&span, "TLS has no certificate", format!("write `{example}` in it")),
        Some(list) if list.get_ref().is_empty() => {
            report.error(&list.span(), "this list of certificates is empty", format!("write `{example}`"));
        }
        Some(list) => {
            if let Some(one) = list.get_ref().get(MOST_CERTIFICATES) {
                report.error(
                    &one.span(),
                    format!("these are more than {MOST_CERTIFICATES} certificates"),
                    "use certificates with several names",
                );
            }
            let mut names: Vec<(String, Span)> = Vec::new();
            for one in list.into_inner() {
                certificates.extend(certificate(report, one, &mut names, authorities));
            }
        }
    }
    let min_version = value.min_version.map(Spanned::into_inner).unwrap_or_default();
    let ciphers = value.ciphers.map(|given| {
        let names = Several::items(&given);
        if names.is_empty() {
            report.error(
                &given.span(),
                "this list of cipher suites is empty",
                "leave `ciphers` out: good ones are chosen then",
            );
            return Vec::new();
        }
        ciphers::check(report, &names, &given.span(), min_version)
    });
    Tls { certificates, min_version, ciphers: ciphers.unwrap_or_default() }
}

/// A certificate; `names` are those of the ones before it.
fn certificate(
    report: &mut Report<'_>,
    given: Spanned<schema::Certificate>,
    names: &mut Vec<(String, Span)>,
    authorities: &mut Authorities,
) -> Option<Certificate> {
    let span = given.span();
    let value = given.into_inner();
    let mut own = Vec::new();
    for (host, at) in value.names.as_ref().map(Several::items).unwrap_or_default() {
        let name = host.as_str().to_owned();
        if host.is_address() {
            report.error(
                &at,
                format!("no client sends the address {} as a server name", quote(&name)),
                "leave it out, and put the certificate first: the first is for clients that send no name",
            );
        } else if let Some((_, first)) = names.iter().find(|(other, _)| *other == name) {
            report.error_with_note(
                &at,
                format!("the server name {} is given twice", quote(&name)),
                "write it once, at the certificate that is to answer for it",
                first,
                "it is here first",
            );
        } else {
            names.push((name.clone(), at));
        }
        own.push(name);
    }
    if let Some(authority) = &value.acme {
        return authorities.certificate(report, &span, &value, authority, own);
    }
    let mut missing = |key: &str, example: &str| {
        report.error(
            &span,
            format!("the certificate has no `{key}`"),
            format!("write `{key} = \"{example}\"` in it"),
        );
    };
    match (&value.chain, &value.key) {
        (None, None) => report.error(
            &span,
            "the certificate has no files, and nobody issues it",
            "write `chain = \"…\"` and `key = \"…\"` in it, or `acme = \"…\"` with the name of an `[acme.NAME]`",
        ),
        (None, Some(_)) => missing("chain", "/etc/ssl/site.crt"),
        (Some(_), None) => missing("key", "/etc/ssl/site.key"),
        (Some(_), Some(_)) => {}
    }
    let (chain, key) = (value.chain?, value.key?);
    let chain = absolute(report, chain.get_ref(), &chain.span(), "/etc/ssl/site.crt");
    let key = absolute(report, key.get_ref(), &key.span(), "/etc/ssl/site.key");
    Some(Certificate { chain, key, names: own, authority: None })
}

/// Warns of ports that clients on the network can't reach, because the packet filter drops what they send.
fn closed_ports(report: &mut Report<'_>, bound: &[Bound], filter: &Filter<'_>) {
    if filter.interfaces.iter().all(|interface| interface.default == DefaultAction::Accept) {
        return;
    }
    let open = |port: u16| {
        filter.services.iter().any(|service| {
            !service.allow.is_empty()
                && service.ports.iter().any(|range| {
                    range.transport == Transport::Tcp && (range.first..=range.last).contains(&port)
                })
        })
    };
    let mut told: Vec<&Span> = Vec::new();
    for Bound { address, span, .. } in bound {
        if !address.ip().is_loopback() && !open(address.port()) && !told.contains(&span) {
            told.push(span);
            report.warning(
                span,
                format!(
                    "no service lets anybody reach tcp/{}: clients on the network are dropped",
                    address.port()
                ),
                format!(
                    "write a service with \"tcp/{}\", or bind an address of this host alone: 127.0.0.1",
                    address.port()
                ),
            );
        }
    }
}
