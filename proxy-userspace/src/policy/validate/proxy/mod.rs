//! `[proxy]`, `[acme.NAME]`, `[listeners.NAME]`, `[upstreams.NAME]` and `[routes.NAME]`: what the L7 proxy is to do.
//!
//! Called by [`super::policy`] once zones, services and interfaces are known. One file a section; what they share is here.

mod acme;
mod ciphers;
mod common;
mod headers;
mod listeners;
mod respond;
mod routes;
mod upstreams;

use std::cell::Cell;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use sha2::Sha256;
use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::model::{Interface, Service, Zone};
use crate::policy::names::{fault, nearest};
use crate::policy::report::{Report, Span};
use crate::policy::schema_proxy::{Authority, Listener, Proxy, Route, Upstream};
use crate::policy::units::{Size, TimeSpan, quote};
use crate::proxy::decide::for_matching;
use crate::proxy::plan::{self, Plan};

use super::zones::Zones;

/// Prefixes that the proxy's process has for its log: a block list of millions is not sent there.
const MOST_NAMED: usize = 1 << 16;

/// The sections, as they were read.
pub(super) struct Sections {
    pub(super) proxy: Proxy,
    pub(super) acme: Vec<Entry<Authority>>,
    pub(super) listeners: Vec<Entry<Listener>>,
    pub(super) upstreams: Vec<Entry<Upstream>>,
    pub(super) routes: Vec<Entry<Route>>,
}

/// What the packet filter lets in.
pub(super) struct Filter<'a> {
    pub(super) interfaces: &'a [Interface],
    pub(super) services: &'a [Service],
}

/// Checks the sections. The plan is `None` if nothing listens; with it the files of bodies that were read.
pub(super) fn check(
    report: &mut Report<'_>,
    sections: Sections,
    zones: &mut Zones,
    filter: &Filter<'_>,
    hash: &mut Sha256,
) -> (Option<Plan>, Vec<String>) {
    let listener_names = Known::new("listener", "listeners", &sections.listeners);
    let upstream_names = Known::new("upstream", "upstreams", &sections.upstreams);
    let common = common::check(report, sections.proxy, zones);
    let mut authorities = acme::Authorities::check(report, sections.acme);
    let listeners = listeners::check(report, sections.listeners, &mut authorities, filter);
    let authorities = authorities.finish(report, &listeners, filter, zones);
    let upstreams = upstreams::check(report, sections.upstreams, common.buffer_memory);
    let mut bodies = Vec::new();
    let routes = routes::check(
        report,
        sections.routes,
        &mut routes::Context {
            listeners: &listener_names,
            upstreams: &upstream_names,
            body: common.sizes.body,
            bodies: &mut bodies,
            hash,
        },
    );
    listener_names.unused(
        report,
        "no route names this listener: all that it answers is 404",
        "write a route with it",
    );
    upstream_names.unused(
        report,
        "no route goes to this upstream",
        "write a route with `to`, or leave it out",
    );
    let zones = if common.access_log.is_some() { named(zones) } else { Vec::new() };
    let plan = Plan { listeners, upstreams, routes, zones, authorities, common };
    (Some(plan).filter(|plan| !plan.listeners.is_empty()), bodies)
}

/// Zones for the access log: the smaller before the larger, as many as together have [`MOST_NAMED`] prefixes.
fn named(zones: &Zones) -> Vec<plan::Zone> {
    let mut by_size: Vec<_> = zones.given().enumerate().collect();
    by_size.sort_by_key(|(_, zone)| zone.prefixes.len());
    let mut left = MOST_NAMED;
    by_size.retain(|(_, zone)| match left.checked_sub(zone.prefixes.len()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    by_size.sort_by_key(|(place, _)| *place);
    let everywhere = || [Ipv4Net::default().into(), Ipv6Net::default().into()].to_vec();
    let zone = |zone: &Zone| plan::Zone {
        name: zone.name.clone(),
        prefixes: if zone.any { everywhere() } else { zone.prefixes.clone() },
    };
    by_size.into_iter().map(|(_, one)| zone(one)).collect()
}

/// The names of a section, and which of them something uses.
struct Known {
    what: &'static str,
    /// Its section of the file.
    section: &'static str,
    names: Vec<(String, Span, Cell<bool>)>,
}

impl Known {
    fn new<T>(what: &'static str, section: &'static str, entries: &[Entry<T>]) -> Self {
        let names = entries.iter().map(|one| (one.name.clone(), one.name_span.clone(), Cell::new(false)));
        Self { what, section, names: names.collect() }
    }

    /// True if the name is known; it is used then. An unknown one is reported.
    fn find(&self, report: &mut Report<'_>, name: &str, span: &Span) -> bool {
        if let Some((.., used)) = self.names.iter().find(|(known, ..)| known == name) {
            used.set(true);
            return true;
        }
        let (what, section) = (self.what, self.section);
        let help = match nearest(name, self.names.iter().map(|(known, ..)| known.as_str())) {
            Some(near) => format!("write {} instead", quote(near)),
            None => format!("write `[{section}.NAME]` with that name, or name another {what}"),
        };
        report.error(span, format!("unknown {what} {}", quote(name)), help);
        false
    }

    fn unused(&self, report: &mut Report<'_>, message: &str, help: &str) {
        for (_, span, _) in self.names.iter().filter(|(.., used)| !used.get()) {
            report.warning(span, message, help);
        }
    }
}

/// Reports more entries than there may be, and names that are none.
fn names_of<T>(report: &mut Report<'_>, entries: &[Entry<T>], most: usize, what: &str) {
    if let Some(entry) = entries.get(most) {
        report.error(
            &entry.name_span,
            format!("these are more than {most} {what}"),
            format!("put {what} that are treated alike into one"),
        );
    }
    for entry in entries {
        if let Some((message, help)) = fault(&entry.name, &[]) {
            report.error(&entry.name_span, message, help);
        }
    }
}

/// A number within bounds, or its default.
fn number<T: TryFrom<i64>>(
    report: &mut Report<'_>,
    given: Option<&Spanned<i64>>,
    (least, most): (i64, i64),
    default: T,
) -> T {
    let Some(given) = given else { return default };
    let in_range = Some(*given.get_ref()).filter(|number| (least..=most).contains(number));
    in_range.and_then(|number| T::try_from(number).ok()).unwrap_or_else(|| {
        report.error(
            &given.span(),
            format!("this number is not from {least} to {most}"),
            format!("write a number from {least} to {most}"),
        );
        default
    })
}

/// A duration within bounds, milliseconds, or its default.
fn millis(
    report: &mut Report<'_>,
    given: Option<&Spanned<TimeSpan>>,
    (least_ms, most_ms): (u64, u64),
    default_ms: u64,
) -> u64 {
    let span = |ms: u64| TimeSpan { ns: ms * 1_000_000 };
    let given = given.map(|given| (given.get_ref().ns / 1_000_000, given.span()));
    within(report, "duration", given, (least_ms, most_ms), default_ms, span)
}

/// A size within bounds, bytes, or its default.
fn bytes(
    report: &mut Report<'_>,
    given: Option<&Spanned<Size>>,
    (least, most): (u64, u64),
    default: u64,
) -> u64 {
    let given = given.map(|given| (given.get_ref().bytes, given.span()));
    within(report, "size", given, (least, most), default, |bytes| Size { bytes })
}

/// A value within bounds, or its default; `shown` writes one as a policy has it.
fn within<T: Display>(
    report: &mut Report<'_>,
    what: &str,
    given: Option<(u64, Span)>,
    (least, most): (u64, u64),
    default: u64,
    shown: impl Fn(u64) -> T,
) -> u64 {
    let Some((value, span)) = given else { return default };
    if (least..=most).contains(&value) {
        return value;
    }
    let [least, most, instead] = [least, most, default].map(shown);
    report.error(
        &span,
        format!("this {what} is not from {least} to {most}"),
        format!("write a {what} from \"{least}\" to \"{most}\", such as \"{instead}\""),
    );
    default
}

/// A file that the daemon opens when the policy goes live: where a relative one would start is not the same for all.
fn absolute(report: &mut Report<'_>, text: &str, span: &Span, example: &str) -> PathBuf {
    if !Path::new(text).is_absolute() || text.ends_with('/') || text.contains(|c: char| c.is_control()) {
        report.error(
            span,
            format!("{} is not the whole path of a file", quote(text)),
            format!("write its whole path, such as {}", quote(example)),
        );
    }
    PathBuf::from(text)
}

/// Why a text is not the path of a request (RFC 3986 section 3.3), if it is not.
fn path_fault(path: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    let escaped = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if !path.starts_with('/') {
        Some("does not begin with /")
    } else if path.contains(['?', '#']) {
        Some("has a query or a fragment, and only paths are compared")
    } else if !path.bytes().all(plain) || !path.split('%').skip(1).all(escaped) {
        Some("has characters that a path has not: they stand there as %XX")
    } else if path.contains("//") || path.split('/').any(|segment| segment == "." || segment == "..") {
        Some("has an empty segment, or one of dots")
    } else if for_matching(path).is_err() {
        Some("has an escape of what no path has")
    } else if path.len() > 1024 {
        Some("is longer than 1024 bytes")
    } else {
        None
    }
}
