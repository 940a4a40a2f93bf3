//! `[[test]]`: the policy's own tests, run on a candidate before it goes live.

use crate::policy::document::Entry;
use crate::policy::model::{Interface, PolicyTest, TestTarget};
use crate::policy::names::nearest;
use crate::policy::report::Report;
use crate::policy::schema::{self, Expect, Target};
use crate::policy::units::{InterfacePattern, quote};

pub(super) fn check(
    report: &mut Report<'_>,
    entries: Vec<Entry<schema::Test>>,
    interfaces: &[Interface],
) -> Vec<PolicyTest> {
    let mut tests = Vec::with_capacity(entries.len());
    for Entry { name_span, value, .. } in entries {
        let Some(value) = value else { continue };
        let mut missing = |key: &str, example: &str| {
            report.error(
                &name_span,
                format!("the test has no `{key}`"),
                format!("write `{key} = {example}` in it"),
            );
        };
        if value.from.is_none() {
            missing("from", "\"203.0.113.9\"");
        }
        if value.to.is_none() {
            missing("to", "\"tcp/22\"");
        }
        if value.expect.is_none() {
            missing("expect", "\"drop\"");
        }
        if let Some(interface) = &value.interface {
            known(report, interface, interfaces);
        }
        let (Some(from), Some(to), Some(expect)) = (value.from, value.to, value.expect) else {
            continue;
        };
        tests.push(PolicyTest {
            line: report.line_of(name_span.start),
            from: from.0,
            to: match to {
                Target::Ping => TestTarget::Ping,
                Target::Port(port) => TestTarget::Port(port.transport, port.number),
            },
            interface: value.interface.map(|name| name.get_ref().to_string()),
            expect_pass: expect == Expect::Pass,
        });
    }
    tests
}

/// A test's interface must be one that the policy enforces.
fn known(report: &mut Report<'_>, interface: &toml::Spanned<InterfacePattern>, interfaces: &[Interface]) {
    let name = interface.get_ref();
    if name.is_pattern() {
        report.error(
            &interface.span(),
            format!("{} is a pattern, and a packet arrives on one interface", quote(name.as_str())),
            "write the name of an interface that the pattern means",
        );
        return;
    }
    let enforced = |i: &Interface| {
        i.name.parse::<InterfacePattern>().is_ok_and(|pattern| pattern.matches(name.as_str()))
    };
    if interfaces.is_empty() || interfaces.iter().any(enforced) {
        return;
    }
    let names = || interfaces.iter().map(|i| i.name.as_str());
    let help = match (nearest(name.as_str(), names()), names().next()) {
        (Some(near), _) => format!("write {} instead", quote(near)),
        (None, Some(first)) => {
            format!("write one of this policy's, such as {}, or add `[interfaces.{name}]`", quote(first))
        }
        (None, None) => format!("add `[interfaces.{name}]`"),
    };
    report.error(&interface.span(), format!("unknown interface {}", quote(name.as_str())), help);
}
