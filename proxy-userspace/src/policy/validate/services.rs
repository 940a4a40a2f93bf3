//! `[services.NAME]`: ports, who may reach them, and at what rate.

use ipnet::IpNet;

use crate::policy::document::Entry;
use crate::policy::model::{LimitId, PortRange, Refusal, Service, Transport, Unit, ZoneId};
use crate::policy::names::fault;
use crate::policy::report::{Report, Span};
use crate::policy::schema::{self, Names};
use crate::policy::units::{Ports, quote};

use super::limits::Limits;
use super::zones::{NONE, Zones};

/// Most services.
const MOST: usize = 1000;
/// Names of built-in rules in the counters.
const RESERVED: [&str; 3] = ["default", "deny", "plumbing"];

/// A run of ports, and where it is given to whom.
struct Given {
    ports: PortRange,
    service: usize,
    span: Span,
}

pub(super) fn check(
    report: &mut Report<'_>,
    entries: Vec<Entry<schema::Service>>,
    zones: &mut Zones,
    limits: &Limits,
) -> Vec<Service> {
    if let Some(entry) = entries.get(MOST) {
        report.error(
            &entry.name_span,
            format!("these are more than {MOST} services"),
            "put ports that are treated alike into one service",
        );
    }
    let mut services = Vec::with_capacity(entries.len());
    let mut given = Vec::new();
    for (index, Entry { name, name_span, value }) in entries.into_iter().enumerate() {
        if let Some((message, help)) = fault(&name, &RESERVED) {
            report.error(&name_span, message, help);
        }
        let mut service = Service {
            name,
            ports: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            limit: None,
            refuse: Refusal::Drop,
            audit: false,
        };
        if let Some(value) = value {
            ports(report, &mut service, &name_span, value.ports, index, &mut given);
            sources(report, &mut service, &name_span, value.allow, value.deny, zones);
            service.refuse = value.refuse.map_or(Refusal::Drop, toml::Spanned::into_inner);
            if let Some(audit) = value.audit.filter(|audit| *audit.get_ref()) {
                service.audit = true;
                report.warning(
                    &audit.span(),
                    format!(
                        "{} audits: nothing is dropped by it, whatever it allows and limits",
                        quote(&service.name)
                    ),
                    "leave it out once `tollgate stats` shows nothing under audit-… that should pass",
                );
            }
            if let Some(name) = value.limit {
                service.limit = limits.find(report, &name);
                limit_counts(report, &service, &name.span(), limits);
            }
        }
        services.push(service);
    }
    overlaps(report, &services, given);
    services
}

fn ports(
    report: &mut Report<'_>,
    service: &mut Service,
    name_span: &Span,
    value: Option<toml::Spanned<Vec<toml::Spanned<Ports>>>>,
    index: usize,
    given: &mut Vec<Given>,
) {
    let Some(list) = value else {
        report.error(
            name_span,
            format!("the service {} has no ports", quote(&service.name)),
            "write `ports = [\"tcp/8000\"]` in it",
        );
        return;
    };
    if list.get_ref().is_empty() {
        report.error(&list.span(), "this list of ports is empty", "write `ports = [\"tcp/8000\"]`");
    }
    for item in list.into_inner() {
        let span = item.span();
        let Ports(ports) = item.into_inner();
        service.ports.push(ports);
        given.push(Given { ports, service: index, span });
    }
}

fn sources(
    report: &mut Report<'_>,
    service: &mut Service,
    name_span: &Span,
    allow: Option<toml::Spanned<Names>>,
    deny: Option<toml::Spanned<Names>>,
    zones: &mut Zones,
) {
    if let Some(deny) = &deny {
        service.deny = zones.resolve(report, deny);
    }
    let Some(allow) = allow else {
        report.error(
            name_span,
            format!("the service {} does not say who may reach it", quote(&service.name)),
            "write `allow = [\"…\"]` with zones in it, `allow = \"any\"`, or `allow = \"none\"`",
        );
        return;
    };
    match allow.get_ref() {
        Names::One(name) if name == NONE => return,
        Names::List(list) if list.is_empty() => {
            report.error(
                &allow.span(),
                "this list allows nobody",
                "write `allow = \"none\"` to keep the service closed and count its drops under its name",
            );
            return;
        }
        Names::One(_) | Names::List(_) => {}
    }
    service.allow = zones.resolve(report, &allow);
    if service.allow.is_empty() {
        return;
    }
    let denied = |id: &ZoneId| service.deny.iter().any(|deny| deny == id || zones.zone(*deny).any);
    let closed = "leave out one of them, or write `allow = \"none\"` and no `deny`";
    if service.allow.iter().all(denied) {
        let message =
            format!("nobody can reach {}: `deny` names every zone that `allow` does", quote(&service.name));
        match &deny {
            Some(deny) => {
                report.error_with_note(&allow.span(), message, closed, &deny.span(), "these are denied");
            }
            None => report.error(&allow.span(), message, closed),
        }
    } else if service.allow.iter().all(|id| never_a_source(&zones.zone(*id).prefixes)) {
        report.error(
            &allow.span(),
            format!(
                "nobody can reach {}: packets from a network never have these sources",
                quote(&service.name)
            ),
            "write `allow = \"none\"`; this host itself reaches its own services in any case",
        );
    }
}

/// True if there are but loopback, multicast and broadcast addresses; they are invalid as sources.
fn never_a_source(prefixes: &[IpNet]) -> bool {
    let never = |net: &IpNet| match net {
        IpNet::V4(net) => {
            let (first, length) = (net.network(), net.prefix_len());
            (length >= 8 && first.is_loopback())
                || (length >= 4 && first.is_multicast())
                || (length == 32 && first.is_broadcast())
        }
        IpNet::V6(net) => {
            let (first, length) = (net.network(), net.prefix_len());
            (length == 128 && first.is_loopback()) || (length >= 8 && first.is_multicast())
        }
    };
    !prefixes.is_empty() && prefixes.iter().all(never)
}

/// A limit must count something that the service receives.
fn limit_counts(report: &mut Report<'_>, service: &Service, span: &Span, limits: &Limits) {
    let Some(id) = service.limit else { return };
    let tcp = service.ports.iter().any(|ports| ports.transport == Transport::Tcp);
    if !tcp && !service.ports.is_empty() && bans(limits, id) {
        report.warning(
            span,
            format!(
                "nobody is banned for exceeding this limit at {}: it has none but UDP ports",
                quote(&service.name)
            ),
            "name a limit without `exceed`: only sources that have completed a TCP handshake are banned",
        );
    }
    if !tcp && !service.ports.is_empty() && counts_only_connections(limits, id) {
        report.error(
            span,
            "this limit counts connections, which are TCP's, and the service has none but UDP ports",
            "name a limit with a rate of packets or bytes",
        );
    }
}

/// True if a limit bans who exceeds it.
fn bans(limits: &Limits, id: LimitId) -> bool {
    limits.limit(id).ban.is_some()
}

/// True if all of a limit's buckets are for connections.
pub(super) fn counts_only_connections(limits: &Limits, id: LimitId) -> bool {
    let buckets = &limits.limit(id).buckets;
    !buckets.is_empty() && buckets.iter().all(|bucket| bucket.unit == Unit::Connections)
}

/// Reports each port that is given twice, with both places.
fn overlaps(report: &mut Report<'_>, services: &[Service], mut given: Vec<Given>) {
    given.sort_by_key(|g| (g.ports.transport, g.ports.first, g.span.start));
    // The run seen so far that reaches furthest, for the protocol at hand.
    let mut furthest: Option<&Given> = None;
    for next in &given {
        let clash = furthest
            .filter(|f| f.ports.transport == next.ports.transport && f.ports.last >= next.ports.first);
        if let Some(before) = clash {
            let last = before.ports.last.min(next.ports.last);
            let both = Ports(PortRange { last, ..next.ports });
            let (first, second) =
                if before.span.start < next.span.start { (before, next) } else { (next, before) };
            let (message, help) = if first.service == second.service {
                (format!("{both} is in this service twice"), "write it once".to_owned())
            } else {
                (
                    format!("{both} is already the port of {}", quote(&services[first.service].name)),
                    format!(
                        "leave it out of {} or of {}",
                        quote(&services[first.service].name),
                        quote(&services[second.service].name)
                    ),
                )
            };
            report.error_with_note(&second.span, message, help, &first.span, "it is here first");
        }
        if clash.is_none_or(|before| before.ports.last < next.ports.last) {
            furthest = Some(next);
        }
    }
}
