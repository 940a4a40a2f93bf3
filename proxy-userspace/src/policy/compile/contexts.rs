//! Which `[interfaces]` entry applies to an interface, and what sets interfaces apart.
//!
//! Called by [`super::compile`]; [`entry_for`] also by whoever decides which interfaces to enforce.

use super::CompileError;
use super::zoneset::ZoneSet;
use crate::policy::model::{DefaultAction, Policy};
use crate::policy::units::InterfacePattern;

/// Index in [`Policy::interfaces`] of the entry that applies to an interface: its own name, else the first pattern
/// of the file that matches it. `None`: the policy does not enforce it.
pub fn entry_for(policy: &Policy, interface: &str) -> Option<usize> {
    let own = policy.interfaces.iter().position(|entry| entry.name == interface);
    own.or_else(|| policy.interfaces.iter().position(|entry| means(&entry.name, interface)))
}

/// True if a name or pattern of the policy means the interface. What does not parse means nothing: the validator
/// has refused it.
fn means(pattern: &str, interface: &str) -> bool {
    pattern.parse::<InterfacePattern>().is_ok_and(|pattern| pattern.matches(interface))
}

/// All that a decision depends on besides source and port. Interfaces with equal contexts share their decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// What happens to what no service names.
    pub(super) default: DefaultAction,
    /// Zones that the interface denies.
    pub(super) denied: ZoneSet,
    /// Zones that are bound to other interfaces.
    pub(super) spoofed: ZoneSet,
    /// Zones that are isolated from the interface.
    pub(super) isolated: ZoneSet,
}

/// What one interface is subject to.
pub(super) struct Subject {
    /// Index in [`Policy::interfaces`].
    pub(super) entry: usize,
    /// Index of its context.
    pub(super) context: usize,
}

/// The different contexts of some interfaces, and which of them each has.
pub(super) fn contexts(
    policy: &Policy,
    interfaces: &[String],
) -> Result<(Vec<Context>, Vec<Subject>), CompileError> {
    let mut contexts: Vec<Context> = Vec::new();
    let mut subjects = Vec::with_capacity(interfaces.len());
    for name in interfaces {
        let found = entry_for(policy, name).and_then(|index| Some((index, policy.interfaces.get(index)?)));
        let (entry, rules) = found.ok_or_else(|| CompileError::NoEntry { interface: name.clone() })?;
        let foreign = (0u16..).zip(&policy.zones).filter(|(_, zone)| {
            !zone.interfaces.is_empty() && !zone.interfaces.iter().any(|pattern| means(pattern, name))
        });
        let context = Context {
            default: rules.default,
            denied: ZoneSet::of(&rules.deny),
            spoofed: foreign.map(|(number, _)| number).collect(),
            isolated: ZoneSet::of(&rules.isolate),
        };
        let index = contexts.iter().position(|known| *known == context).unwrap_or_else(|| {
            contexts.push(context);
            contexts.len() - 1
        });
        subjects.push(Subject { entry, context: index });
    }
    Ok((contexts, subjects))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_own_name_comes_before_the_first_pattern() {
        let text = "version = 1\n[interfaces.\"*\"]\n[interfaces.\"br-*\"]\n[interfaces.br-a]\n";
        let policy = crate::policy::parse(text, Path::new("p.toml")).expect("a policy");
        assert_eq!(entry_for(&policy, "br-a"), Some(2));
        assert_eq!(entry_for(&policy, "br-b"), Some(0));
        assert_eq!(entry_for(&policy, "eth0"), Some(0));
        assert_eq!(entry_for(&policy, "lo"), None);
    }

    #[test]
    fn interfaces_that_are_treated_alike_share_a_context() {
        let text = "version = 1\n[interfaces.\"*\"]\ndeny = [\"bad\"]\n[interfaces.eth9]\ndefault = \"accept\"\n\
                    [zones]\nbad = [\"192.0.2.0/24\"]\n\
                    lan = { prefixes = [\"10.0.0.0/8\"], interfaces = [\"eth1\", \"br-*\"] }\n";
        let policy = crate::policy::parse(text, Path::new("p.toml")).expect("a policy");
        let names = ["eth0", "eth1", "eth2", "br-0", "eth9"].map(str::to_owned);
        let (contexts, subjects) = contexts(&policy, &names).expect("contexts");
        let of: Vec<usize> = subjects.iter().map(|subject| subject.context).collect();
        assert_eq!(of, [0, 1, 0, 1, 2]);
        assert!(contexts[0].spoofed.has(1) && !contexts[1].spoofed.has(1));
        assert!(contexts[0].denied.has(0) && !contexts[2].denied.has(0));
    }

    #[test]
    fn an_interface_without_an_entry_is_an_error() {
        let policy = crate::policy::parse("version = 1\n[interfaces.eth0]\n", Path::new("p.toml"));
        let error = contexts(&policy.expect("a policy"), &["eth1".to_owned()]).err();
        assert_eq!(error, Some(CompileError::NoEntry { interface: "eth1".to_owned() }));
    }
}
