//! `[proxy]`, `[listeners.NAME]`, `[upstreams.NAME]` and `[routes.NAME]`: what the L7 proxy is to do.
//!
//! Called by [`super::policy`] once zones, services and interfaces are known. One file a section; what they share is here.

mod ciphers;
mod common;
mod headers;
mod listeners;
mod respond;
mod routes;
mod upstreams;

use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use sha2::Sha256;
use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::model::{Interface, Service, Zone};
use crate::policy::names::{fault, nearest};
use crate::policy::report::{Report, Span};
use crate::policy::schema_proxy::{Listener, Proxy, Route, Upstream};
use crate::policy::units::{Size, TimeSpan, quote};
use crate::proxy::decide::for_matching;
use crate::proxy::plan::{self, Plan};

use super::zones::Zones;

/// Prefixes that the proxy's process has for its log: a block list of millions is not sent there.
const MOST_NAMED: usize = 1 << 16;

/// The sections, as they were read.
pub(super) struct Sections {
    pub(super) proxy: Proxy,
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
    let names = |entries: &mut dyn Iterator<Item = (&String, &Span)>| {
        entries.map(|(name, span)| (name.clone(), span.clone())).collect::<Vec<_>>()
    };
    let listener_names =
        Known::new("listener", names(&mut sections.listeners.iter().map(|e| (&e.name, &e.name_span))));
    let upstream_names =
        Known::new("upstream", names(&mut sections.upstreams.iter().map(|e| (&e.name, &e.name_span))));
    let common = common::check(report, sections.proxy, zones);
    let listeners = listeners::check(report, sections.listeners, filter);
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
    let plan = Plan { listeners, upstreams, routes, zones, common };
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
    names: Vec<(String, Span)>,
    used: std::cell::RefCell<Vec<String>>,
}

impl Known {
    fn new(what: &'static str, names: Vec<(String, Span)>) -> Self {
        Self { what, names, used: std::cell::RefCell::default() }
    }

    /// True if the name is known; it is used then. An unknown one is reported.
    fn find(&self, report: &mut Report<'_>, name: &str, span: &Span) -> bool {
        if self.names.iter().any(|(known, _)| known == name) {
            self.used.borrow_mut().push(name.to_owned());
            return true;
        }
        let what = self.what;
        let help = match nearest(name, self.names.iter().map(|(known, _)| known.as_str())) {
            Some(near) => format!("write {} instead", quote(near)),
            None => format!("write `[{what}s.NAME]` with that name, or name another {what}"),
        };
        report.error(span, format!("unknown {what} {}", quote(name)), help);
        false
    }

    fn unused(&self, report: &mut Report<'_>, message: &str, help: &str) {
        let used = self.used.borrow();
        for (_, span) in self.names.iter().filter(|(name, _)| !used.contains(name)) {
            report.warning(span, message, help);
        }
    }
}

/// Reports more entries than there may be, and names that are none.
fn names_of<T>(report: &mut Report<'_>, entries: &[Entry<T>], most: usize, what: &str) {
    if let Some(entry) = entries.get(most) {
        report.error(
            &entry.name_span,
            format!("these are more than {most} {what}s"),
            format!("put {what}s that are treated alike into one"),
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
    let Some(given) = given else { return default_ms };
    let ms = given.get_ref().ns / 1_000_000;
    if (least_ms..=most_ms).contains(&ms) {
        return ms;
    }
    let [least, most, default] = [least_ms, most_ms, default_ms].map(|ms| TimeSpan { ns: ms * 1_000_000 });
    report.error(
        &given.span(),
        format!("this duration is not from {least} to {most}"),
        format!("write a duration from \"{least}\" to \"{most}\", such as \"{default}\""),
    );
    default_ms
}

/// A size within bounds, bytes, or its default.
fn bytes(
    report: &mut Report<'_>,
    given: Option<&Spanned<Size>>,
    (least, most): (u64, u64),
    default: u64,
) -> u64 {
    let Some(given) = given else { return default };
    let size = given.get_ref().bytes;
    if (least..=most).contains(&size) {
        return size;
    }
    let [least, most, instead] = [least, most, default].map(|bytes| Size { bytes });
    report.error(
        &given.span(),
        format!("this size is not from {least} to {most}"),
        format!("write a size from \"{least}\" to \"{most}\", such as \"{instead}\""),
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
