//! Whether a hook can do what the policy asks of it: XDP can't answer, so an interface that rejects needs TC.
//!
//! Called by [`super::policy`], with the places of the words before the sections are read, and once all of them are.

use toml::Spanned;

use crate::policy::document::Document;
use crate::policy::model::{DefaultAction, HookChoice, Interface, Policy, Refusal};
use crate::policy::report::{Report, Span};

/// Where hooks are named and where something is rejected.
pub(super) struct Places {
    /// By interface: its hook, and its default if that rejects.
    interfaces: Vec<(Option<Span>, Option<Span>)>,
    /// By service: its `refuse`, if that rejects.
    services: Vec<Option<Span>>,
}

impl Places {
    pub(super) fn of(document: &Document) -> Self {
        let interfaces = document.interfaces.iter().map(|entry| {
            let Some(value) = &entry.value else { return (None, None) };
            let default = value.default.as_ref().filter(|word| *word.get_ref() == DefaultAction::Reject);
            (value.hook.as_ref().map(Spanned::span), default.map(Spanned::span))
        });
        let services = document.services.iter().map(|entry| {
            let word = entry.value.as_ref()?.refuse.as_ref()?;
            (*word.get_ref() == Refusal::Reject).then(|| word.span())
        });
        Self { interfaces: interfaces.collect(), services: services.collect() }
    }

    /// Reports each interface that rejects by a hook that can't.
    pub(super) fn check(self, report: &mut Report<'_>, policy: &Policy) {
        for (interface, (hook, default)) in policy.interfaces.iter().zip(&self.interfaces) {
            let Some(hook) = hook.as_ref().filter(|_| is_xdp(interface)) else { continue };
            if default.is_none() && !policy.rejects(interface) {
                continue;
            }
            let because = default.as_ref().or_else(|| self.services.iter().flatten().next());
            let Some(because) = because else { continue };
            report.error_with_note(
                hook,
                "this hook can drop packets and not answer them, and this interface is to reject some",
                "write \"tc\", or \"auto\", which then takes TC; or reject nothing: write \"drop\" there",
                because,
                "packets are rejected here",
            );
        }
    }
}

fn is_xdp(interface: &Interface) -> bool {
    matches!(interface.hook, HookChoice::Native | HookChoice::Generic)
}
