//! `[interfaces.NAME]`: where the policy is enforced.

use toml::Spanned;

use crate::policy::document::Entry;
use crate::policy::model::{DefaultAction, HookChoice, Interface, ZoneId};
use crate::policy::report::Report;
use crate::policy::schema::{self, Names};
use crate::policy::units::InterfacePattern;

use super::zones::Zones;

/// Most entries.
const MOST: usize = 256;

pub(super) fn check(
    report: &mut Report<'_>,
    entries: Vec<Entry<schema::Interface>>,
    zones: &mut Zones,
) -> Vec<Interface> {
    if entries.is_empty() {
        report.error_of_file(
            "the policy names no interface, so it would protect nothing",
            "write `[interfaces.eth0]` with the name of the interface that faces the network; `ip link` lists them",
        );
    }
    if let Some(entry) = entries.get(MOST) {
        report.error(
            &entry.name_span,
            format!("these are more than {MOST} interfaces"),
            "write one pattern for interfaces that are treated alike: [interfaces.\"br-*\"]",
        );
    }
    let mut interfaces = Vec::new();
    for entry in entries {
        if let Err(error) = entry.name.parse::<InterfacePattern>() {
            report.error(&entry.name_span, error.message, error.help);
        }
        let Some(value) = entry.value else {
            // Its name is still known: a test that names it is not wrong too.
            interfaces.push(unchecked(entry.name));
            continue;
        };
        interfaces.push(Interface {
            hook: value.hook.map_or(HookChoice::Auto, Spanned::into_inner),
            default: value.default.map_or(DefaultAction::Drop, Spanned::into_inner),
            deny: value.deny.map(|names| zones.resolve(report, &names)).unwrap_or_default(),
            isolate: value.isolate.map(|names| isolated(report, &names, zones)).unwrap_or_default(),
            ..unchecked(entry.name)
        });
    }
    interfaces
}

fn unchecked(name: String) -> Interface {
    Interface {
        name,
        hook: HookChoice::Auto,
        default: DefaultAction::Drop,
        deny: Vec::new(),
        isolate: Vec::new(),
    }
}

/// Destinations, of which this host itself must not be one: whoever means all addresses means `deny`.
fn isolated(report: &mut Report<'_>, names: &Spanned<Names>, zones: &mut Zones) -> Vec<ZoneId> {
    let ids = zones.resolve(report, names);
    if ids.iter().any(|id| zones.zone(*id).any) {
        report.error(
            &names.span(),
            "a zone of every address is isolated here, and with it this host itself",
            "name zones of the networks behind this host, or write `deny` to take nothing from them",
        );
    }
    ids
}
