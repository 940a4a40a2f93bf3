//! What a new policy changes: services, zones, limits and routes opened, closed and changed, a line each. Called by the daemon for
//! whoever applies a policy.

use std::collections::BTreeSet;

use super::difference_proxy;
use super::model::{Interface, Limit, Policy, Service, Zone, ZoneId};
use super::units::{Ports, TimeSpan};

/// The differences between a policy and the next, a line each: `+` for what is new, `-` for what is gone, `~` for what is
/// changed.
pub fn difference(before: &Policy, after: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    compare(
        &mut lines,
        "interface",
        (before.interfaces.iter(), after.interfaces.iter()),
        |one| &one.name,
        |one, other| interface((before, one), (after, other)),
        |_, one| format!("default {}", word(&one.default)),
    );
    compare(
        &mut lines,
        "zone",
        (before.zones.iter(), after.zones.iter()),
        |one| &one.name,
        zone,
        |_, one| size(one),
    );
    compare(
        &mut lines,
        "limit",
        (before.limits.iter(), after.limits.iter()),
        |one| &one.name,
        limit_changes,
        |_, one| format!("{} bucket{}", one.buckets.len(), if one.buckets.len() == 1 { "" } else { "s" }),
    );
    compare(
        &mut lines,
        "service",
        (before.services.iter(), after.services.iter()),
        |one| &one.name,
        |one, other| service((before, one), (after, other)),
        |is_new, one| {
            let policy = if is_new { after } else { before };
            format!("{} from {}", ports(one), zones(policy, &one.allow))
        },
    );
    let rest =
        [("plumbing", before.plumbing != after.plumbing), ("timeouts", before.timeouts != after.timeouts)];
    difference_proxy::add(&mut lines, before.proxy.as_ref(), after.proxy.as_ref());
    lines.extend(rest.iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("~ {name}")));
    lines
}

/// Compares things that go by name.
pub(super) fn compare<'a, T: 'a>(
    lines: &mut Vec<String>,
    what: &str,
    (before, after): (impl Iterator<Item = &'a T> + Clone, impl Iterator<Item = &'a T> + Clone),
    name: impl Fn(&T) -> &String,
    changes: impl Fn(&T, &T) -> Vec<String>,
    describe: impl Fn(bool, &T) -> String,
) {
    for one in before.clone() {
        match after.clone().find(|other| name(other) == name(one)) {
            None => lines.push(format!("- {what} {}: {}", name(one), describe(false, one))),
            Some(other) => {
                let changes = changes(one, other);
                if !changes.is_empty() {
                    lines.push(format!("~ {what} {}: {}", name(one), changes.join("; ")));
                }
            }
        }
    }
    for other in after.filter(|other| !before.clone().any(|one| name(one) == name(other))) {
        lines.push(format!("+ {what} {}: {}", name(other), describe(true, other)));
    }
}

fn interface((before, one): (&Policy, &Interface), (after, other): (&Policy, &Interface)) -> Vec<String> {
    let mut changes = Vec::new();
    changed(&mut changes, "default", word(&one.default), word(&other.default));
    changed(&mut changes, "hook", word(&one.hook), word(&other.hook));
    changed(&mut changes, "deny", zones(before, &one.deny), zones(after, &other.deny));
    changed(&mut changes, "isolate", zones(before, &one.isolate), zones(after, &other.isolate));
    changes
}

fn zone(one: &Zone, other: &Zone) -> Vec<String> {
    let mut changes = Vec::new();
    if one.any != other.any {
        changed(&mut changes, "addresses", size(one), size(other));
    } else {
        let (before, after): (BTreeSet<_>, BTreeSet<_>) =
            (one.prefixes.iter().collect(), other.prefixes.iter().collect());
        let (gone, come) = (before.difference(&after).count(), after.difference(&before).count());
        if gone + come > 0 {
            changes.push(format!("{come} prefixes more, {gone} fewer"));
        }
    }
    changed(&mut changes, "interfaces", list(&one.interfaces), list(&other.interfaces));
    changes
}

fn limit_changes(one: &Limit, other: &Limit) -> Vec<String> {
    let mut changes = Vec::new();
    if one.buckets != other.buckets {
        changes.push("other rates".to_owned());
    }
    changed(&mut changes, "exceed", exceed(one), exceed(other));
    changes
}

fn exceed(limit: &Limit) -> String {
    limit.ban.map_or_else(
        || "drop".to_owned(),
        |ban| format!("ban for {} after {}", TimeSpan { ns: ban.for_ns }, ban.after),
    )
}

fn service((before, one): (&Policy, &Service), (after, other): (&Policy, &Service)) -> Vec<String> {
    let mut changes = Vec::new();
    changed(&mut changes, "ports", ports(one), ports(other));
    changed(&mut changes, "allow", zones(before, &one.allow), zones(after, &other.allow));
    changed(&mut changes, "deny", zones(before, &one.deny), zones(after, &other.deny));
    changed(&mut changes, "limit", limit(before, one), limit(after, other));
    changed(&mut changes, "refuse", word(&one.refuse), word(&other.refuse));
    changed(&mut changes, "audit", one.audit.to_string(), other.audit.to_string());
    changes
}

pub(super) fn changed(changes: &mut Vec<String>, what: &str, before: String, after: String) {
    if before != after {
        changes.push(format!("{what} {after} (was {before})"));
    }
}

fn ports(service: &Service) -> String {
    let ports = service.ports.iter().map(|range| Ports(*range).to_string());
    ports.collect::<Vec<_>>().join(", ")
}

fn zones(policy: &Policy, ids: &[ZoneId]) -> String {
    let names = ids.iter().filter_map(|id| policy.zones.get(id.0)).map(|zone| zone.name.clone());
    list(&names.collect::<Vec<_>>())
}

fn limit(policy: &Policy, service: &Service) -> String {
    policy.limit_of(service).map_or_else(|| "none".to_owned(), |limit| limit.name.clone())
}

fn size(zone: &Zone) -> String {
    match (zone.any, zone.prefixes.len()) {
        (true, _) => "every address".to_owned(),
        (_, 1) => "1 prefix".to_owned(),
        (_, many) => format!("{many} prefixes"),
    }
}

pub(super) fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A word of the language, as the file has it.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn policy(text: &str) -> Policy {
        let text = format!("version = 1\n[interfaces.eth0]\n{text}");
        super::super::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn nothing_differs_from_itself() {
        let one = policy("[services.a]\nports = [\"tcp/1\"]\nallow = \"any\"\n");
        assert!(difference(&one, &one).is_empty());
    }

    #[test]
    fn what_opens_closes_and_changes_has_a_line() {
        let before = policy(
            "default = \"accept\"\n[zones]\nlan = [\"10.0.0.0/8\"]\n\
             [limits.l]\nper-source = { packets = \"1/s\", burst = 1 }\n\
             [services.a]\nports = [\"tcp/1\", \"udp/5-7\"]\nallow = [\"lan\"]\n\
             [services.b]\nports = [\"tcp/2\"]\nallow = \"any\"\nlimit = \"l\"\n",
        );
        let after = policy(
            "[zones]\nlan = [\"10.0.0.0/8\", \"192.168.0.0/24\"]\n\
             [services.a]\nports = [\"tcp/1\", \"udp/5-7\"]\nallow = \"any\"\n\
             [services.c]\nports = [\"tcp/3\"]\nallow = [\"lan\"]\n[plumbing]\nping = false\n",
        );
        assert_eq!(
            difference(&before, &after),
            [
                "~ interface eth0: default drop (was accept)",
                "~ zone lan: 1 prefixes more, 0 fewer",
                "- limit l: 1 bucket",
                "- limit ping: 1 bucket",
                "~ service a: allow any (was lan)",
                "- service b: tcp/2 from any",
                "+ service c: tcp/3 from lan",
                "~ plumbing",
            ]
        );
    }
}
