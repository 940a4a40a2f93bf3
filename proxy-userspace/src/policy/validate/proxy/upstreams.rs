//! `[upstreams.NAME]`: where requests go to.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::report::{Report, Span};
use crate::policy::schema_proxy::{self as schema, Several};
use crate::policy::units::{ServerAddress, Size, TimeSpan, quote};
use crate::proxy::plan::{Health, Server, Upstream, UpstreamProtocol};

use super::{bytes, millis, names_of, number, path_fault};

const MOST: usize = 256;
const MOST_SERVERS: usize = 64;
/// Idle connections kept for each server.
const KEEP: u16 = 32;
/// How long: less than gunicorn keeps its own (2 s), so that hardly a request meets a connection that is being closed.
const KEEP_MS: u64 = 1500;
/// Read ahead of a body without a length: what forms and calls of APIs have.
const BUFFER: u64 = 64 << 10;
const MOST_BUFFER: u64 = 64 << 20;
const CONNECT_MS: u64 = 5000;
const RESPONSE_MS: u64 = 60_000;
const FAILURES: u32 = 3;
const REST_MS: u64 = 10_000;
const EVERY_MS: u64 = 5000;
const TIMEOUT_MS: u64 = 2000;
/// The Host header of health checks: applications that look at it know this one as a rule.
const HEALTH_HOST: &str = "localhost";
/// Bounds, milliseconds.
const FROM_10_MS: u64 = 10;
const FROM_100_MS: u64 = 100;
const TEN_MINUTES: u64 = 600_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 86_400_000;

pub(super) fn check(
    report: &mut Report<'_>,
    entries: Vec<Entry<schema::Upstream>>,
    memory: u64,
) -> BTreeMap<String, Upstream> {
    names_of(report, &entries, MOST, "upstreams");
    let mut upstreams = BTreeMap::new();
    for Entry { name, name_span, value } in entries {
        let Some(mut value) = value else { continue };
        let (buffer, chunked) = buffering(report, &mut value, memory);
        let keep = value.keep_alive.unwrap_or_default();
        let upstream = Upstream {
            servers: servers(report, &name, &name_span, value.servers.as_ref()),
            protocol: value.protocol.unwrap_or_default(),
            buffer,
            chunked,
            keep: number(report, keep.connections.as_ref(), (0, 10_000), KEEP),
            keep_ms: millis(report, keep.idle.as_ref(), (FROM_10_MS, HOUR), KEEP_MS),
            connect_ms: millis(report, value.connect_timeout.as_ref(), (FROM_10_MS, TEN_MINUTES), CONNECT_MS),
            response_ms: millis(report, value.response_timeout.as_ref(), (FROM_100_MS, DAY), RESPONSE_MS),
            failures: number(report, value.fail_after.as_ref(), (1, 1000), FAILURES),
            rest_ms: millis(report, value.rest.as_ref(), (FROM_100_MS, HOUR), REST_MS),
            health: value.health.and_then(|health| self::health(report, health)),
        };
        upstreams.insert(name, upstream);
    }
    upstreams
}

/// What of a body without a length is read ahead, bytes, and whether longer ones go on as chunked.
fn buffering(report: &mut Report<'_>, value: &mut schema::Upstream, memory: u64) -> (u64, bool) {
    let (buffer, chunked) = (value.buffer_requests.take(), value.chunked_requests.take());
    let spans = [buffer.as_ref().map(Spanned::span), chunked.as_ref().map(Spanned::span)];
    if value.protocol == Some(UpstreamProtocol::Http2)
        && let Some(span) = spans.into_iter().flatten().next()
    {
        report.error(
            &span,
            "HTTP/2 shows where a body ends: there is nothing to be read ahead",
            "leave `buffer-requests` and `chunked-requests` out, or write `protocol = \"http1\"`",
        );
    }
    if let Some(given) = buffer.as_ref().filter(|given| given.get_ref().bytes > memory) {
        report.error(
            &given.span(),
            format!("all requests together have \"{}\" for it", Size { bytes: memory }),
            "write less, or more for `buffer-memory` in [proxy]",
        );
        return (BUFFER, true);
    }
    let buffer = bytes(report, buffer.as_ref(), (0, MOST_BUFFER), BUFFER);
    (buffer, chunked.is_none_or(Spanned::into_inner))
}

fn servers(
    report: &mut Report<'_>,
    name: &str,
    name_span: &Span,
    given: Option<&Spanned<Several<ServerAddress>>>,
) -> Vec<Server> {
    let example = "write `servers = [\"127.0.0.1:8000\"]`";
    let Some(given) = given else {
        report.error(
            name_span,
            format!("the upstream {} has no servers", quote(name)),
            format!("{example} in it"),
        );
        return Vec::new();
    };
    let items = Several::items(given);
    if items.is_empty() {
        report.error(&given.span(), "this list of servers is empty", example);
    }
    if let Some((_, span)) = items.get(MOST_SERVERS) {
        report.error(
            span,
            format!("these are more than {MOST_SERVERS} servers"),
            "put some into another upstream",
        );
    }
    let mut servers: Vec<Server> = Vec::with_capacity(items.len());
    for (ServerAddress(server), span) in items {
        if servers.contains(&server) {
            report.error(
                &span,
                format!(
                    "the server {} is in this upstream twice",
                    quote(&ServerAddress(server.clone()).to_string())
                ),
                "write it once",
            );
        }
        servers.push(server);
    }
    servers
}

fn health(report: &mut Report<'_>, given: Spanned<schema::Health>) -> Option<Health> {
    let span = given.span();
    let value = given.into_inner();
    let every_ms = millis(report, value.every.as_ref(), (FROM_100_MS, HOUR), EVERY_MS);
    let timeout_ms =
        millis(report, value.timeout.as_ref(), (FROM_10_MS, TEN_MINUTES), TIMEOUT_MS.min(every_ms));
    if timeout_ms > every_ms
        && let Some(timeout) = &value.timeout
    {
        report.error(
            &timeout.span(),
            "a health check would still wait when the next one begins",
            format!("write at most \"{}\", or a longer `every`", TimeSpan { ns: every_ms * 1_000_000 }),
        );
    }
    let Some(path) = value.path else {
        report.error(
            &span,
            "the health check does not say what to ask for",
            "write `path = \"/healthz\"` in it",
        );
        return None;
    };
    if let Some(why) = path_fault(path.get_ref().split('?').next().unwrap_or_default()) {
        report.error(
            &path.span(),
            format!("the path {} {why}", quote(path.get_ref())),
            "write a path such as \"/healthz\"",
        );
    }
    let host = value.host.map_or_else(|| HEALTH_HOST.to_owned(), |host| host.as_str().to_owned());
    Some(Health { path: path.into_inner(), host, every_ms, timeout_ms })
}
