//! `[plumbing]` and `[timeouts]`: what passes without being a service, and how long flows are remembered.

use toml::Spanned;

use crate::policy::model::{Bucket, Limit, LimitId, Plumbing, Scope, Timeouts, Unit};
use crate::policy::report::Report;
use crate::policy::schema;
use crate::policy::units::{TimeSpan, quote};

use super::limits::{Limits, NONE};
use super::services::counts_only_connections;

/// Name of the limit that echo requests keep unless the policy says otherwise.
const PING: &str = "ping";
/// Shortest timeout: flows are touched once a second.
const SHORTEST: TimeSpan = TimeSpan::from_secs(1);
/// Longest timeout.
const LONGEST: TimeSpan = TimeSpan::from_secs(30 * 86_400);

pub(super) fn check(report: &mut Report<'_>, value: schema::Plumbing, limits: &mut Limits) -> Plumbing {
    let ping = value.ping.unwrap_or(true);
    let ping_limit = match value.ping_limit {
        Some(name) if !ping => {
            report.error(
                &name.span(),
                "there is a limit for ping, and ping is off",
                "leave `ping-limit` out, or write `ping = true`",
            );
            None
        }
        Some(name) => named_limit(report, &name, limits),
        None if !ping => None,
        None => Some(limits.named(PING).unwrap_or_else(|| limits.add(default_limit()))),
    };
    let or_on = |given: Option<Spanned<bool>>| given.is_none_or(Spanned::into_inner);
    Plumbing {
        router_advertisements: or_on(value.router_advertisements),
        dhcp: or_on(value.dhcp),
        dhcpv6: or_on(value.dhcpv6),
        multicast_membership: or_on(value.multicast_membership),
        mdns: value.mdns.unwrap_or(false),
        ping,
        ping_limit,
    }
}

fn named_limit(report: &mut Report<'_>, name: &Spanned<String>, limits: &mut Limits) -> Option<LimitId> {
    match (name.get_ref().as_str(), limits.named(name.get_ref())) {
        (NONE, _) => None,
        (PING, None) => Some(limits.add(default_limit())),
        _ => {
            let id = limits.find(report, name)?;
            if counts_only_connections(limits, id) {
                report.error(
                    &name.span(),
                    format!("the limit {} counts connections, and a ping is none", quote(name.get_ref())),
                    "name a limit with a rate of packets or bytes",
                );
            }
            Some(id)
        }
    }
}

/// Enough for people and for monitoring, too little to be worth anything to a flood.
fn default_limit() -> Limit {
    let bucket = Bucket {
        scope: Scope::Source { v6_len: 64 },
        unit: Unit::Packets,
        tokens: 10,
        per_ns: 1_000_000_000,
        burst: 20,
    };
    Limit { name: PING.to_owned(), buckets: vec![bucket], ban: None }
}

pub(super) fn timeouts(report: &mut Report<'_>, value: &schema::Timeouts) -> Timeouts {
    let mut one = |given: &Option<Spanned<TimeSpan>>, default_secs: u64| {
        let Some(given) = given else {
            return TimeSpan::from_secs(default_secs).ns;
        };
        if !(SHORTEST..=LONGEST).contains(given.get_ref()) {
            report.error(
                &given.span(),
                format!("this timeout is not from {SHORTEST} to {LONGEST}"),
                format!(
                    "write a duration from \"{SHORTEST}\" to \"{LONGEST}\", such as \"{}\"",
                    TimeSpan::from_secs(default_secs)
                ),
            );
        }
        given.get_ref().ns
    };
    Timeouts {
        tcp_opening_ns: one(&value.tcp_opening, 120),
        tcp_established_ns: one(&value.tcp_established, 5 * 86_400),
        tcp_closing_ns: one(&value.tcp_closing, 120),
        udp_ns: one(&value.udp, 180),
        icmp_ns: one(&value.icmp, 30),
    }
}
