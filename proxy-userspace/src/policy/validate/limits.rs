//! `[limits.NAME]`: from the rates and bursts of each scope to buckets, and the names of limits.

use std::collections::HashMap;

use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::model::{Bucket, Escalation, Limit, LimitId, Scope, Unit};
use crate::policy::names::{fault, nearest};
use crate::policy::report::{Report, Span};
use crate::policy::schema;
use crate::policy::units::{Amount, ByteRate, CountRate, TimeSpan, quote};

use super::rate::Rate;

/// Most limits, the built-in one included.
const MOST: usize = 250;
/// Packets over the limit within a minute for which a source is banned, if the file does not say.
const DEFAULT_AFTER: u64 = 100;
/// Most of them: what the kernel tells of within a minute on one processor.
const MOST_AFTER: u64 = 30_000;
/// Bounds of how long it is.
const SHORTEST_BAN: TimeSpan = TimeSpan::from_secs(1);
const LONGEST_BAN: TimeSpan = TimeSpan::from_secs(365 * 86_400);
/// In place of a limit's name: not limited.
pub(super) const NONE: &str = "none";

/// The limits of a policy.
pub(super) struct Limits {
    list: Vec<Limit>,
    ids: HashMap<String, LimitId>,
}

impl Limits {
    pub(super) fn new(report: &mut Report<'_>, entries: Vec<Entry<schema::Limit>>) -> Self {
        let mut limits = Self { list: Vec::new(), ids: HashMap::new() };
        if let Some(entry) = entries.get(MOST - 1) {
            report.error(
                &entry.name_span,
                format!("these are more than {} limits", MOST - 1),
                "use one limit in several services: each source then keeps it over all of them together",
            );
        }
        for Entry { name, name_span, value } in entries {
            if let Some((message, help)) = fault(&name, &[NONE]) {
                report.error(&name_span, message, help);
            }
            let (buckets, ban) = match &value {
                Some(limit) => (buckets(report, &name, &name_span, limit), ban(report, limit)),
                None => (Vec::new(), None),
            };
            limits.add(Limit { name, buckets, ban });
        }
        limits
    }

    /// Adds a limit.
    pub(super) fn add(&mut self, limit: Limit) -> LimitId {
        let id = LimitId(self.list.len());
        self.ids.insert(limit.name.clone(), id);
        self.list.push(limit);
        id
    }

    pub(super) fn into_list(self) -> Vec<Limit> {
        self.list
    }

    /// The limit of an id.
    pub(super) fn limit(&self, id: LimitId) -> &Limit {
        &self.list[id.0]
    }

    /// The limit of a name.
    pub(super) fn named(&self, name: &str) -> Option<LimitId> {
        self.ids.get(name).copied()
    }

    /// The limit that is named; an unknown one is reported.
    pub(super) fn find(&self, report: &mut Report<'_>, name: &Spanned<String>) -> Option<LimitId> {
        let text = name.get_ref();
        let found = self.named(text);
        if found.is_none() {
            let help = match nearest(text, self.list.iter().map(|limit| limit.name.as_str())) {
                Some(near) => format!("write {} instead", quote(near)),
                None => format!("write `[limits.{text}]` and its rates, or leave `limit` out"),
            };
            report.error(&name.span(), format!("unknown limit {}", quote(text)), help);
        }
        found
    }
}

/// The rates of one scope, whichever it is.
struct Rates<'a> {
    span: Span,
    packets: &'a Option<Spanned<CountRate>>,
    bytes: &'a Option<Spanned<ByteRate>>,
    connections: &'a Option<Spanned<CountRate>>,
    burst: &'a Option<Spanned<Amount>>,
    bytes_burst: &'a Option<Spanned<Amount>>,
    connections_burst: &'a Option<Spanned<Amount>>,
}

macro_rules! rates {
    ($table:expr) => {{
        let table = $table.get_ref();
        Rates {
            span: $table.span(),
            packets: &table.packets,
            bytes: &table.bytes,
            connections: &table.connections,
            burst: &table.burst,
            bytes_burst: &table.bytes_burst,
            connections_burst: &table.connections_burst,
        }
    }};
}

fn buckets(report: &mut Report<'_>, name: &str, name_span: &Span, limit: &schema::Limit) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    if let Some(table) = &limit.per_source {
        let v6_len = length(report, &table.get_ref().v6_prefix, 64, 64);
        scope(report, &mut buckets, Scope::Source { v6_len }, &rates!(table));
    }
    if let Some(table) = &limit.per_prefix {
        let v4_len = length(report, &table.get_ref().v4_prefix, 24, 32);
        let v6_len = length(report, &table.get_ref().v6_prefix, 48, 64);
        scope(report, &mut buckets, Scope::Prefix { v4_len, v6_len }, &rates!(table));
    }
    if let Some(table) = &limit.service {
        scope(report, &mut buckets, Scope::Service, &rates!(table));
    }
    if limit.per_source.is_none() && limit.per_prefix.is_none() && limit.service.is_none() {
        report.error(
            name_span,
            format!("the limit {} limits nothing", quote(name)),
            "write `per-source = { packets = \"2000/s\" }`, `per-prefix = { … }` or `service = { … }`",
        );
    }
    buckets
}

/// When who exceeds the limit is banned.
fn ban(report: &mut Report<'_>, limit: &schema::Limit) -> Option<Escalation> {
    let exceed = limit.exceed.as_ref()?;
    let schema::Exceed::Ban(table) = exceed.get_ref() else { return None };
    if limit.per_source.is_none() && table.ban.is_some() {
        report.error(
            &exceed.span(),
            "a source can be banned for its own packets alone, and this limit counts none by source",
            "write `per-source = { … }` too, or leave `exceed` out",
        );
    }
    let offence = Offence { what: "packets over the limit", default_after: DEFAULT_AFTER };
    escalation(report, &exceed.span(), table, &offence)
}

/// What somebody is banned for.
pub(super) struct Offence {
    /// Completes "this number of …".
    pub(super) what: &'static str,
    /// How many within a minute, if the file does not say.
    pub(super) default_after: u64,
}

/// `{ ban = "10m", after = 100 }`, which stands at `span`.
pub(super) fn escalation(
    report: &mut Report<'_>,
    span: &Span,
    table: &schema::Ban,
    offence: &Offence,
) -> Option<Escalation> {
    let Some(ban) = &table.ban else {
        report.error(
            span,
            "this does not say for how long who does it is banned",
            "write `{ ban = \"10m\" }`",
        );
        return None;
    };
    let for_ns = ban.get_ref().ns;
    if !(SHORTEST_BAN..=LONGEST_BAN).contains(&TimeSpan { ns: for_ns }) {
        report.error(
            &ban.span(),
            "such a ban lasts from 1 second to 365 days",
            "write a duration such as \"10m\"",
        );
    }
    let Offence { what, default_after } = offence;
    let after = table.after.as_ref().map_or(Some(*default_after), |after| {
        let number = u64::try_from(*after.get_ref()).ok().filter(|number| (1..=MOST_AFTER).contains(number));
        if number.is_none() {
            report.error(
                &after.span(),
                format!("this number of {what} is not from 1 to {MOST_AFTER}"),
                format!(
                    "write a number from 1 to {MOST_AFTER}, or leave `after` out: it is {default_after} then"
                ),
            );
        }
        number
    })?;
    Some(Escalation { for_ns, after })
}

/// The length of a prefix that shares a bucket.
pub(super) fn length(report: &mut Report<'_>, given: &Option<Spanned<i64>>, default: u8, longest: u8) -> u8 {
    let Some(given) = given else { return default };
    match u8::try_from(*given.get_ref()) {
        Ok(length) if (1..=longest).contains(&length) => length,
        _ => {
            let why = if longest == 64 { "; an IPv6 host has a whole /64 to itself" } else { "" };
            report.error(
                &given.span(),
                format!("the length of the prefix is not from 1 to {longest}"),
                format!("write a length from 1 to {longest}{why}"),
            );
            default
        }
    }
}

/// The buckets of one scope, in the order they are charged: the dearest to be wrong about first.
fn scope(report: &mut Report<'_>, buckets: &mut Vec<Bucket>, scope: Scope, rates: &Rates<'_>) {
    let given = [rates.connections.is_some(), rates.packets.is_some(), rates.bytes.is_some()];
    let count = given.iter().filter(|given| **given).count();
    if count == 0 {
        report.error(
            &rates.span,
            "this limits nothing",
            "write a rate: `packets = \"2000/s\"`, `bytes` or `connections`",
        );
        return;
    }
    // `burst` is the burst of packets, or of the only thing that is counted.
    let burst_of = if rates.packets.is_some() {
        Some(Unit::Packets)
    } else if count == 1 {
        Some(if rates.bytes.is_some() { Unit::Bytes } else { Unit::Connections })
    } else {
        None
    };
    if let (None, Some(burst)) = (burst_of, rates.burst) {
        report.error(
            &burst.span(),
            "`burst` is of packets, and no rate of packets is given",
            "write `bytes-burst` or `connections-burst`",
        );
    }
    let own_bursts = [
        ("connections", Unit::Connections, rates.connections.is_some(), rates.connections_burst),
        ("bytes", Unit::Bytes, rates.bytes.is_some(), rates.bytes_burst),
    ];
    for (what, unit, has_rate, own) in own_bursts {
        let Some(own) = own else { continue };
        if !has_rate {
            report.error(
                &own.span(),
                format!("this is a burst of {what}, and no rate of {what} is given"),
                format!("write a rate too, `{what} = \"…/s\"`, or leave `{what}-burst` out"),
            );
        } else if burst_of == Some(unit)
            && let Some(burst) = rates.burst
        {
            report.error_with_note(
                &own.span(),
                format!("the burst of {what} is given twice"),
                format!("leave out `burst` or `{what}-burst`"),
                &burst.span(),
                "the first one is here",
            );
        }
    }
    let burst = |unit, own: &Option<Spanned<Amount>>| {
        let shared = if burst_of == Some(unit) { rates.burst.as_ref() } else { None };
        own.as_ref().or(shared).map(|burst| (*burst.get_ref(), burst.span()))
    };
    let wanted = [
        rates.connections.as_ref().map(|rate| {
            let CountRate { count, per_ns } = *rate.get_ref();
            (Unit::Connections, count, per_ns, rate.span(), burst(Unit::Connections, rates.connections_burst))
        }),
        rates.packets.as_ref().map(|rate| {
            let CountRate { count, per_ns } = *rate.get_ref();
            (Unit::Packets, count, per_ns, rate.span(), burst(Unit::Packets, &None))
        }),
        rates.bytes.as_ref().map(|rate| {
            let ByteRate { size, per_ns } = *rate.get_ref();
            (Unit::Bytes, size.bytes, per_ns, rate.span(), burst(Unit::Bytes, rates.bytes_burst))
        }),
    ];
    for (unit, tokens, per_ns, rate_span, burst) in wanted.into_iter().flatten() {
        let rate = Rate { unit, tokens, per_ns, span: rate_span };
        if let Some(burst) = rate.checked_burst(report, burst) {
            buckets.push(Bucket { scope, unit, tokens, per_ns, burst });
        }
    }
}
