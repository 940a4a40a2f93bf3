//! `[proxy]`: what holds for all listeners.

use toml::Spanned;

use crate::policy::model::Escalation;
use crate::policy::report::Report;
use crate::policy::schema::Names;
use crate::policy::schema_proxy::{self as schema, AccessLogTable};
use crate::policy::units::quote;
use crate::policy::validate::limits::{self, Offence};
use crate::policy::validate::zones::Zones;
use crate::proxy::plan::{self, AccessLog, ClientTimeouts, Common, LogFormat, MOST_THREADS, Sizes};

use super::{absolute, bytes, headers, millis, number};

/// Most prefixes of proxies in front of this one: each request is compared with all of them.
const MOST_TRUSTED: usize = 1000;
/// Longest name of a user (`useradd`).
const LONGEST_USER: usize = 32;
/// Offences within a minute for which a client is banned, if the file does not say.
const DEFAULT_ABUSE: u64 = 20;
const LOG_EXAMPLE: &str = "/var/log/tollgate/access.log";
/// Least room for headers: what the HTTP/1 parser reads at a time.
const LEAST_HEADERS: u64 = 8 << 10;
/// Bounds of timeouts, milliseconds.
const SECOND_TO_HOUR: (u64, u64) = (1000, 3_600_000);
const SECOND_TO_MONTH: (u64, u64) = (1000, 30 * 86_400_000);
/// Most memory for bodies that are read ahead, bytes.
const MOST_BUFFERS: u64 = 1 << 30;
/// Most bytes of a body.
pub(super) const MOST_BODY: u64 = 1 << 40;

pub(super) fn check(report: &mut Report<'_>, value: schema::Proxy, zones: &mut Zones) -> Common {
    let default = Common::default();
    let max_connections =
        number(report, value.max_connections.as_ref(), (1, 1_000_000), default.max_connections);
    let per_source = value.max_connections_per_source.as_ref();
    let target = bytes(report, value.max_target.as_ref(), (256, 64 << 10), default.sizes.target.into());
    let headers =
        bytes(report, value.max_headers.as_ref(), (LEAST_HEADERS, 1 << 20), default.sizes.headers.into());
    let sizes = Sizes {
        target: u32::try_from(target).unwrap_or(default.sizes.target),
        headers: u32::try_from(headers).unwrap_or(default.sizes.headers),
        header_count: number(report, value.max_header_count.as_ref(), (16, 1000), default.sizes.header_count),
        body: bytes(report, value.max_body.as_ref(), (0, MOST_BODY), default.sizes.body),
    };
    let t = default.timeouts;
    let timeouts = ClientTimeouts {
        handshake_ms: millis(report, value.handshake_timeout.as_ref(), SECOND_TO_HOUR, t.handshake_ms),
        header_ms: millis(report, value.header_timeout.as_ref(), SECOND_TO_HOUR, t.header_ms),
        body_ms: millis(report, value.body_timeout.as_ref(), SECOND_TO_HOUR, t.body_ms),
        send_ms: millis(report, value.send_timeout.as_ref(), SECOND_TO_HOUR, t.send_ms),
        idle_ms: millis(report, value.idle_timeout.as_ref(), SECOND_TO_HOUR, t.idle_ms),
        tunnel_ms: millis(report, value.tunnel_timeout.as_ref(), SECOND_TO_MONTH, t.tunnel_ms),
        drain_ms: millis(report, value.drain_timeout.as_ref(), SECOND_TO_HOUR, t.drain_ms),
    };
    Common {
        user: value.user.map_or(default.user, |user| self::user(report, user)),
        trusted: value.trusted.map(|names| trusted(report, &names, zones)).unwrap_or_default(),
        access_log: value.access_log.and_then(|log| access_log(report, log)),
        threads: value.threads.map(|threads| number(report, Some(&threads), (1, MOST_THREADS.into()), 1)),
        max_connections,
        max_connections_per_source: number(
            report,
            per_source,
            (1, max_connections.into()),
            default.max_connections_per_source.min(max_connections),
        ),
        sizes,
        timeouts,
        buffer_memory: bytes(report, value.buffer_memory.as_ref(), (0, MOST_BUFFERS), default.buffer_memory),
        abuse: value.abuse.and_then(|ban| {
            let offence = Offence { what: "offences", default_after: DEFAULT_ABUSE };
            limits::escalation(report, &ban.span(), ban.get_ref(), &offence).map(as_planned)
        }),
        headers: headers::check(report, value.headers),
    }
}

/// A ban as the proxy counts it.
pub(super) fn as_planned(ban: Escalation) -> plan::Escalation {
    plan::Escalation { ban_ms: ban.for_ns / 1_000_000, after: u32::try_from(ban.after).unwrap_or(u32::MAX) }
}

fn user(report: &mut Report<'_>, user: Spanned<String>) -> String {
    let name = user.get_ref();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name == "root" || name.bytes().all(|b| b.is_ascii_digit()) {
        report.error(
            &user.span(),
            format!(
                "the proxy does not run as {}: it is to have no privileges, and a user is given by name",
                quote(name)
            ),
            "write the name of a user that owns nothing, such as \"nobody\"",
        );
    } else if !name.bytes().all(plain) || name.starts_with('-') || name.len() > LONGEST_USER {
        report.error(
            &user.span(),
            format!("{} is not the name of a user", quote(name)),
            "write the name of a user that owns nothing, such as \"nobody\"",
        );
    }
    user.into_inner()
}

fn trusted(report: &mut Report<'_>, names: &Spanned<Names>, zones: &mut Zones) -> Vec<ipnet::IpNet> {
    let ids = zones.resolve(report, names);
    if ids.iter().any(|id| zones.zone(*id).any) {
        report.error(
            &names.span(),
            "every address would be trusted here, and any client could say that it is another",
            "name zones of the proxies in front of this one, or leave `trusted` out",
        );
    }
    let prefixes: Vec<_> = ids.iter().flat_map(|id| zones.zone(*id).prefixes.iter().copied()).collect();
    if prefixes.len() > MOST_TRUSTED {
        report.error(
            &names.span(),
            format!("these are {} prefixes of proxies in front of this one", prefixes.len()),
            format!("name zones with at most {MOST_TRUSTED} in all"),
        );
    }
    prefixes
}

fn access_log(report: &mut Report<'_>, log: Spanned<schema::AccessLog>) -> Option<AccessLog> {
    let span = log.span();
    match log.into_inner() {
        schema::AccessLog::File(file) => {
            let file = absolute(report, &file, &span, LOG_EXAMPLE);
            Some(AccessLog { file, format: LogFormat::default() })
        }
        schema::AccessLog::Table(AccessLogTable { file: Some(file), format }) => {
            let file = absolute(report, file.get_ref(), &file.span(), LOG_EXAMPLE);
            Some(AccessLog { file, format: format.unwrap_or_default() })
        }
        schema::AccessLog::Table(AccessLogTable { file: None, .. }) => {
            report.error(
                &span,
                "the access log has no `file`",
                format!("write `file = \"{LOG_EXAMPLE}\"` in it"),
            );
            None
        }
    }
}
