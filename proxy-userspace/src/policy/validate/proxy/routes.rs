//! `[routes.NAME]`: which requests, and what happens to them.

use std::borrow::Cow;
use std::collections::HashMap;

use hyper::Uri;
use sha2::Sha256;
use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::report::{Report, Span};
use crate::policy::schema_proxy::{self as schema, Several};
use crate::policy::units::quote;
use crate::policy::validate::limits::{self, Offence};
use crate::proxy::decide::for_matching;
use crate::proxy::plan::{Action, RequestLimit, Route};

use super::common::{MOST_BODY, as_planned};
use super::{Known, bytes, headers, names_of, number, path_fault, respond};

const MOST: usize = 1000;
/// Most combinations of listener and host of all routes.
const MOST_PLACES: usize = 20_000;
/// Most requests of a second, of one source.
const MOST_REQUESTS: u64 = 1_000_000;
const MOST_BURST: i64 = 1_000_000;
/// Longest time in which a burst may refill: so long each source is remembered.
const LONGEST_REFILL_NS: u128 = 86_400_000_000_000;
/// RFC 6585 section 4.
const TOO_MANY_REQUESTS: u16 = 429;
/// Requests over a limit within a minute for which a client is banned, if the file does not say.
const DEFAULT_AFTER: u64 = 100;
const REDIRECTS: [i64; 5] = [301, 302, 303, 307, 308];

/// What routes refer to.
pub(super) struct Context<'a> {
    pub(super) listeners: &'a Known,
    pub(super) upstreams: &'a Known,
    /// Most bytes of a body, if a route says nothing.
    pub(super) body: u64,
    /// Names of the files with bodies.
    pub(super) bodies: &'a mut Vec<String>,
    pub(super) hash: &'a mut Sha256,
}

/// Which requests a route is for: listener, host (empty: any) and path, as paths are compared.
type Place = (String, String, Vec<u8>);

pub(super) fn check(
    report: &mut Report<'_>,
    entries: Vec<Entry<schema::Route>>,
    context: &mut Context<'_>,
) -> Vec<Route> {
    names_of(report, &entries, MOST, "routes");
    let mut routes = Vec::with_capacity(entries.len());
    let mut taken: HashMap<Place, (String, Span)> = HashMap::new();
    for Entry { name, name_span, value } in entries {
        let Some(value) = value else { continue };
        let listeners = listeners(report, &name, &name_span, value.listeners.as_ref(), context);
        let hosts = hosts(report, value.hosts.as_ref());
        let path = path(report, value.path.as_ref());
        places(report, &mut taken, (&name, &name_span), &listeners, &hosts, &path);
        let choices = Choices {
            to: value.to,
            websocket: value.websocket,
            redirect: value.redirect,
            respond: value.respond,
        };
        let action = action(report, &name, &name_span, choices, context);
        let Some(action) = action else { continue };
        routes.push(Route {
            place: format!("{}:{}", report.path().display(), report.line_of(name_span.start)),
            name,
            listeners,
            hosts: hosts.into_iter().map(|(host, _)| host).collect(),
            path,
            action,
            limit: value.limit.and_then(|limit| self::limit(report, limit)),
            body: bytes(report, value.max_body.as_ref(), (0, MOST_BODY), context.body),
            headers: headers::check(report, value.headers),
        });
    }
    routes
}

fn listeners(
    report: &mut Report<'_>,
    name: &str,
    name_span: &Span,
    given: Option<&Spanned<Several<String>>>,
    context: &Context<'_>,
) -> Vec<String> {
    let Some(given) = given else {
        report.error(
            name_span,
            format!("the route {} does not say where its requests arrive", quote(name)),
            "write `listeners = [\"…\"]` with names of listeners in it",
        );
        return Vec::new();
    };
    let items = Several::items(given);
    if items.is_empty() {
        report.error(&given.span(), "this list of listeners is empty", "write the names of listeners");
    }
    let mut listeners: Vec<String> = Vec::with_capacity(items.len());
    for (listener, span) in items {
        if listeners.contains(&listener) {
            report.error(
                &span,
                format!("the listener {} is named twice here", quote(&listener)),
                "write it once",
            );
        } else if context.listeners.find(report, &listener, &span) {
            listeners.push(listener);
        }
    }
    listeners
}

fn hosts(
    report: &mut Report<'_>,
    given: Option<&Spanned<Several<crate::policy::units::Host>>>,
) -> Vec<(String, Span)> {
    let Some(given) = given else { return Vec::new() };
    let items = Several::items(given);
    if items.is_empty() {
        report.error(&given.span(), "this list of hosts is empty", "leave `hosts` out for any host");
    }
    let mut hosts: Vec<(String, Span)> = Vec::with_capacity(items.len());
    for (host, span) in items {
        if hosts.iter().any(|(other, _)| other == host.as_str()) {
            report.error(
                &span,
                format!("the host {} is named twice here", quote(host.as_str())),
                "write it once",
            );
        } else {
            hosts.push((host.as_str().to_owned(), span));
        }
    }
    hosts
}

fn path(report: &mut Report<'_>, given: Option<&Spanned<String>>) -> String {
    let root = || "/".to_owned();
    let Some(given) = given else { return root() };
    let path = given.get_ref();
    if let Some(why) = path_fault(path) {
        report.error(
            &given.span(),
            format!("the path {} {why}", quote(path)),
            "write a path such as \"/api\"",
        );
    } else if path.len() > 1 && path.ends_with('/') {
        let bare = path.trim_end_matches('/');
        report.error(
            &given.span(),
            format!("the path {} ends with a /", quote(path)),
            format!("write {}: it is for {bare} and what is below it", quote(bare)),
        );
    } else {
        return path.clone();
    }
    root()
}

/// Reports requests that two routes are for: which of them took one would be anybody's guess.
fn places(
    report: &mut Report<'_>,
    taken: &mut HashMap<Place, (String, Span)>,
    (name, name_span): (&str, &Span),
    listeners: &[String],
    hosts: &[(String, Span)],
    path: &str,
) {
    let any = [(String::new(), name_span.clone())];
    let hosts = if hosts.is_empty() { &any[..] } else { hosts };
    if taken.len() + listeners.len() * hosts.len() > MOST_PLACES {
        report.error(
            name_span,
            format!("up to this route there are more than {MOST_PLACES} hosts, each counted once a listener"),
            "use wildcards, or routes without hosts",
        );
        return;
    }
    let compared = for_matching(path).unwrap_or(Cow::Borrowed(path.as_bytes()));
    for listener in listeners {
        for (host, span) in hosts {
            let place = (listener.clone(), host.clone(), compared.to_vec());
            if let Some((other, first)) = taken.get(&place) {
                let of = if host.is_empty() {
                    "any other host".to_owned()
                } else {
                    format!("the host {}", quote(host))
                };
                report.error_with_note(
                    span,
                    format!(
                        "the routes {} and {} are both for {of} and the path {} of the listener {}",
                        quote(other),
                        quote(name),
                        quote(path),
                        quote(listener)
                    ),
                    "give one of them another host or path",
                    first,
                    "the first one is here",
                );
                return;
            }
            taken.insert(place, (name.to_owned(), span.clone()));
        }
    }
}

/// What a route may do, of which it does one.
struct Choices {
    to: Option<Spanned<String>>,
    websocket: Option<Spanned<bool>>,
    redirect: Option<Spanned<schema::Redirect>>,
    respond: Option<Spanned<schema::Respond>>,
}

fn action(
    report: &mut Report<'_>,
    name: &str,
    name_span: &Span,
    choices: Choices,
    context: &mut Context<'_>,
) -> Option<Action> {
    let Choices { to, websocket, redirect, respond } = choices;
    let given = [
        to.as_ref().map(|to| ("to", to.span())),
        redirect.as_ref().map(|redirect| ("redirect", redirect.span())),
        respond.as_ref().map(|respond| ("respond", respond.span())),
    ];
    let mut given = given.into_iter().flatten();
    let first = given.next();
    let Some((first_key, first_span)) = first else {
        report.error(
            name_span,
            format!("the route {} does not say what happens to requests", quote(name)),
            "write one of `to = \"…\"`, `redirect = { … }` and `respond = { … }` in it",
        );
        return None;
    };
    for (key, span) in given {
        report.error_with_note(
            &span,
            format!("a route does one thing, and {} has `{first_key}` and `{key}`", quote(name)),
            format!("leave out `{first_key}` or `{key}`"),
            &first_span,
            "the first one is here",
        );
    }
    if to.is_none()
        && let Some(websocket) = websocket.as_ref().filter(|websocket| *websocket.get_ref())
    {
        report.error(
            &websocket.span(),
            "there is no upstream to which WebSockets could go",
            "leave `websocket` out, or write `to = \"…\"`",
        );
    }
    // Each is looked at, so that one run shows the errors of all.
    let redirect = redirect.map(|given| self::redirect(report, given));
    let respond = respond.map(|given| respond::check(report, given, context.hash, context.bodies));
    match to {
        Some(to) => context.upstreams.find(report, to.get_ref(), &to.span()).then(|| Action::Forward {
            upstream: to.into_inner(),
            websocket: websocket.is_some_and(Spanned::into_inner),
        }),
        None => redirect.flatten().or(respond),
    }
}

fn redirect(report: &mut Report<'_>, given: Spanned<schema::Redirect>) -> Option<Action> {
    let span = given.span();
    let value = given.into_inner();
    let status = match value.status {
        Some(status) if !REDIRECTS.contains(status.get_ref()) => {
            report.error(
                &status.span(),
                "this status sends nobody elsewhere",
                "write 301 or 308 (for good), 302 or 307 (for now), or 303",
            );
            301
        }
        Some(status) => u16::try_from(*status.get_ref()).unwrap_or(301),
        None => 301,
    };
    let example = "to = \"https://example.org{uri}\"";
    let Some(to) = value.to else {
        report.error(&span, "the redirect does not say where to", format!("write `{example}` in it"));
        return None;
    };
    if let Some(why) = location_fault(to.get_ref()) {
        report.error(
            &to.span(),
            format!("{} is no place to send clients to: {why}", quote(to.get_ref())),
            format!(
                "write one such as `{example}`; {{uri}} is path and query of the request, {{host}} its host"
            ),
        );
    }
    Some(Action::Redirect { status, to: to.into_inner() })
}

/// What is wrong with the pattern of a location.
fn location_fault(to: &str) -> Option<&'static str> {
    // {uri} begins with a slash; what follows it would be part of a query.
    let whole = to.replace("{host}", "host.example").replace("{uri}", "/path?query");
    if to == "{uri}" {
        Some("it is where they come from")
    } else if whole.contains(['{', '}']) {
        Some("there is nothing in braces but {uri} and {host}")
    } else if to.contains("{uri}") && !to.ends_with("{uri}") {
        Some("{uri} stands at the end, because it may have a query")
    } else if whole.starts_with("//") {
        Some("what follows // is another host")
    } else {
        match whole.parse::<Uri>() {
            Ok(uri) if whole.starts_with('/') && uri.authority().is_none() => None,
            Ok(uri) => match (uri.scheme_str(), uri.authority()) {
                (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => None,
                (Some("http" | "https"), _) => Some("a name or password stands before the host"),
                _ => Some("it begins neither with http://, https:// nor /"),
            },
            Err(_) => Some("it is not a URI"),
        }
    }
}

fn limit(report: &mut Report<'_>, given: Spanned<schema::RequestLimit>) -> Option<RequestLimit> {
    let span = given.span();
    let value = given.into_inner();
    let status = number(report, value.status.as_ref(), (400, 599), TOO_MANY_REQUESTS);
    let v6_prefix = limits::length(report, &value.v6_prefix, 64, 64);
    let exceed = value.exceed.and_then(|ban| {
        let offence = Offence { what: "requests over the limit", default_after: DEFAULT_AFTER };
        limits::escalation(report, &ban.span(), ban.get_ref(), &offence).map(as_planned)
    });
    let Some(rate) = value.requests else {
        report.error(&span, "the limit has no rate", "write `requests = \"10/s\"` in it");
        return None;
    };
    let (count, per_ns) = (rate.get_ref().count, rate.get_ref().per_ns);
    let in_a_second = u128::from(count) * 1_000_000_000 / u128::from(per_ns);
    if count == 0 || in_a_second > u128::from(MOST_REQUESTS) {
        report.error(
            &rate.span(),
            format!("this rate is not above zero and up to {MOST_REQUESTS}/s"),
            "write a rate such as \"10/s\"; `respond` answers everything the same",
        );
        return None;
    }
    let interval_ns = per_ns / count;
    let default = u32::try_from(in_a_second.max(1)).unwrap_or(u32::MAX);
    let burst = number(report, value.burst.as_ref(), (0, MOST_BURST), default);
    let deepest = LONGEST_REFILL_NS / u128::from(interval_ns);
    if u128::from(burst) > deepest
        && let Some(given) = &value.burst
    {
        report.error(
            &given.span(),
            "at this rate the burst takes longer than a day to refill, and sources are not remembered longer",
            format!("write at most {deepest}"),
        );
    }
    Some(RequestLimit { interval_ns, burst, status, v6_prefix, exceed })
}
