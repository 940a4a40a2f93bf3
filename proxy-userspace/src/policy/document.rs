//! From text to [`super::schema`]: TOML, then serde, table by table.
//!
//! Called by [`super::parse`]. serde stops at the first error; to report more than that, each entry is read on its own,
//! and an entry with an error is read again without the part that was wrong.

use std::mem;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use super::explain::explain;
use super::names::{listed, nearest};
use super::report::{Report, Span};
use super::schema;
use super::schema_proxy;
use super::units::quote;

/// The only version of the language.
const VERSION: i64 = 1;
/// Syntax errors that are reported: what follows the first ones is often their echo.
const MOST_SYNTAX_ERRORS: usize = 5;

/// A policy file, read but not checked. Entries are in file order.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) interfaces: Vec<Entry<schema::Interface>>,
    pub(super) zones: Vec<Entry<schema::Zone>>,
    pub(super) limits: Vec<Entry<schema::Limit>>,
    pub(super) services: Vec<Entry<schema::Service>>,
    pub(super) plumbing: schema::Plumbing,
    pub(super) timeouts: schema::Timeouts,
    pub(super) proxy: schema_proxy::Proxy,
    pub(super) listeners: Vec<Entry<schema_proxy::Listener>>,
    pub(super) acme: Vec<Entry<schema_proxy::Authority>>,
    pub(super) upstreams: Vec<Entry<schema_proxy::Upstream>>,
    pub(super) routes: Vec<Entry<schema_proxy::Route>>,
    pub(super) tests: Vec<Entry<schema::Test>>,
}

/// A table with a name (the name of a `[[test]]` is empty).
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) name: String,
    /// Where the name stands.
    pub(super) name_span: Span,
    /// `None` if an error in it was reported: its name is still known.
    pub(super) value: Option<T>,
}

/// Reads a policy's text; `None` if it is not TOML.
pub(super) fn read(report: &mut Report<'_>) -> Option<Document> {
    let (root, errors) = DeTable::parse_recoverable(report.text());
    if !errors.is_empty() {
        syntax_errors(report, &errors);
        return None;
    }
    let mut document = Document::default();
    let mut version = false;
    for (key, value) in in_file_order(root.into_inner()) {
        match key.get_ref().as_ref() {
            "version" => {
                version = true;
                check_version(report, &value);
            }
            "interfaces" => document.interfaces = entries(report, "interfaces", value),
            "zones" => document.zones = entries(report, "zones", value),
            "limits" => document.limits = entries(report, "limits", value),
            "services" => document.services = entries(report, "services", value),
            "plumbing" => document.plumbing = section(report, value).unwrap_or_default(),
            "timeouts" => document.timeouts = section(report, value).unwrap_or_default(),
            "proxy" => document.proxy = section(report, value).unwrap_or_default(),
            "listeners" => document.listeners = entries(report, "listeners", value),
            "acme" => document.acme = entries(report, "acme", value),
            "upstreams" => document.upstreams = entries(report, "upstreams", value),
            "routes" => document.routes = entries(report, "routes", value),
            "test" => document.tests = list(report, value),
            unknown => unknown_section(report, unknown, &key.span(), &value),
        }
    }
    if !version {
        report.error_of_file(
            "the file does not say its version",
            format!("write `version = {VERSION}` at its top"),
        );
    }
    Some(document)
}

fn syntax_errors(report: &mut Report<'_>, errors: &[toml::de::Error]) {
    let mut lines = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = report.line_of(span.start);
        if lines.contains(&line) {
            continue;
        }
        if lines.len() == MOST_SYNTAX_ERRORS {
            break;
        }
        lines.push(line);
        let text = report.text().get(span.clone()).unwrap_or_default();
        let mut message = error.message();
        let help = if message.contains("duplicate key") {
            "write each key and each table once".to_owned()
        } else if let Some(("string values must be quoted", _)) = message.split_once(", expected") {
            if text.trim().is_empty() {
                message = "there is no value";
                "write a value after the `=`".to_owned()
            } else {
                message = "text must be in quotes";
                format!("write {}", quote(text))
            }
        } else {
            "write `key = value` or `[table]`, text in double quotes, lists in [ ]".to_owned()
        };
        report.error(&span, format!("this is not TOML: {message}"), help);
    }
}

fn check_version(report: &mut Report<'_>, value: &Spanned<DeValue<'_>>) {
    let number = value.get_ref().as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
    if number != Some(VERSION) {
        report.error(
            &value.span(),
            "this is not a version of the policy language that this program knows",
            format!("write `version = {VERSION}`"),
        );
    }
}

fn unknown_section(report: &mut Report<'_>, name: &str, span: &Span, value: &Spanned<DeValue<'_>>) {
    let known = || schema::SECTIONS.iter();
    let nearest = nearest(name, known().map(|(name, _)| *name));
    let help = match known().find(|(known, _)| Some(*known) == nearest) {
        Some((_, example)) => format!("write `{example}` instead"),
        None if value.get_ref().is_table() || value.get_ref().is_array() => {
            let names: Vec<&str> = known().map(|(name, _)| *name).collect();
            format!("write {}", listed(&names))
        }
        None => "move it below the [table] that it belongs to".to_owned(),
    };
    report.error(span, format!("unknown key {}", quote(name)), help);
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;

fn in_file_order<'i>(table: DeTable<'i>) -> Vec<(Key<'i>, Spanned<DeValue<'i>>)> {
    let mut items: Vec<_> = table.into_iter().collect();
    items.sort_by_key(|(key, _)| key.span().start);
    items
}

/// The tables of `[section.NAME]`.
fn entries<T: DeserializeOwned>(
    report: &mut Report<'_>,
    section: &str,
    value: Spanned<DeValue<'_>>,
) -> Vec<Entry<T>> {
    let span = value.span();
    let DeValue::Table(table) = value.into_inner() else {
        let example =
            schema::SECTIONS.iter().find(|(name, _)| *name == section).map_or("", |(_, example)| example);
        report.error(&span, format!("{} is not a table", quote(section)), format!("write `{example}`"));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in in_file_order(table) {
        let name_span = key.span();
        let name = key.into_inner().into_owned();
        let dotted = (section == "interfaces").then_some(name.as_str());
        let value = read_value(report, value, dotted);
        found.push(Entry { name, name_span, value });
    }
    found
}

/// A table without names in it.
fn section<T: DeserializeOwned>(report: &mut Report<'_>, value: Spanned<DeValue<'_>>) -> Option<T> {
    read_value(report, value, None)
}

/// The tables of `[[test]]`.
fn list<T: DeserializeOwned>(report: &mut Report<'_>, value: Spanned<DeValue<'_>>) -> Vec<Entry<T>> {
    let span = value.span();
    let DeValue::Array(items) = value.into_inner() else {
        report.error(&span, "a test is not a list of tables", "write `[[test]]`, with two brackets");
        return Vec::new();
    };
    let mut found = Vec::new();
    for item in items {
        let name_span = item.span();
        let value = read_value(report, item, None);
        found.push(Entry { name: String::new(), name_span, value });
    }
    found
}

/// Reads one value, and again without what was wrong in it until nothing more is. `None` if anything was.
///
/// `dotted` is the name of an interface: one with dots, not in quotes, ends up as tables in tables.
fn read_value<T: DeserializeOwned>(
    report: &mut Report<'_>,
    mut value: Spanned<DeValue<'_>>,
    dotted: Option<&str>,
) -> Option<T> {
    let mut clean = true;
    loop {
        if report.is_full() {
            return None;
        }
        let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(read) => return clean.then_some(read),
            Err(error) => error,
        };
        clean = false;
        let whole = value.span();
        let span = error.span().unwrap_or_else(|| whole.clone());
        let removed = if span == whole { None } else { remove(value.get_mut(), &span) };
        let (message, mut help) =
            explain(error.message(), report.text().get(span.clone()).unwrap_or_default());
        if let (Some(name), Some(DeValue::Table(_)), Some(rest)) =
            (dotted, &removed, report.text().get(span.clone()))
        {
            help = format!("write a name with dots in quotes: [interfaces.\"{name}.{rest}\"]");
        }
        report.error(&span, message, help);
        removed.as_ref()?;
    }
}

/// Takes the key or value that stands at `span` out of a value.
fn remove<'i>(value: &mut DeValue<'i>, span: &Span) -> Option<DeValue<'i>> {
    match value {
        DeValue::Array(items) => {
            if let Some(at) = items.iter().position(|item| item.span() == *span) {
                let mut rest: Vec<_> = mem::replace(items, DeArray::new()).into_iter().collect();
                let removed = rest.remove(at);
                *items = rest.into_iter().collect();
                return Some(removed.into_inner());
            }
            items.iter_mut().find_map(|item| remove(item.get_mut(), span))
        }
        DeValue::Table(table) => {
            let hit = table.iter().find(|(key, item)| key.span() == *span || item.span() == *span);
            if let Some(key) = hit.map(|(key, _)| key.clone()) {
                return table.remove(&key).map(Spanned::into_inner);
            }
            table.iter_mut().find_map(|(_, item)| remove(item.get_mut(), span))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn errors(text: &str) -> Vec<(usize, usize, String, String)> {
        let mut report = Report::new(Path::new("p.toml"), text, &crate::policy::NO_LISTS);
        read(&mut report);
        report
            .into_error()
            .0
            .into_iter()
            .map(|d| {
                let place = d.place.expect("a place");
                (place.line, place.column, d.message, d.help)
            })
            .collect()
    }

    #[test]
    fn one_entry_shows_all_its_errors() {
        let text = "version = 1\n[services.a]\nprots = 1\nports = [80, \"tcp/x\"]\nalow = 2\nlimit = 3\n";
        let found = errors(text);
        let places: Vec<_> = found.iter().map(|(line, column, ..)| (*line, *column)).collect();
        assert_eq!(places, [(3, 1), (4, 10), (4, 14), (5, 1), (6, 9)], "{found:?}");
        assert_eq!(found[0].3, "write `ports` instead");
        assert_eq!(found[1].3, "write \"tcp/80\"");
        assert_eq!(found[3].3, "write `allow` instead");
    }

    #[test]
    fn a_dotted_interface_is_told_to_be_quoted() {
        let found = errors("version = 1\n[interfaces.eth0.100]\n");
        assert_eq!(found[0].3, "write a name with dots in quotes: [interfaces.\"eth0.100\"]");
    }

    #[test]
    fn entries_stay_in_file_order() {
        let text = "version = 1\n[zones]\nz = \"any\"\na = \"any\"\n[zones.m]\nfile = \"x\"\n";
        let mut report = Report::new(Path::new("p.toml"), text, &crate::policy::NO_LISTS);
        let document = read(&mut report).expect("TOML");
        let names: Vec<_> = document.zones.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["z", "a", "m"]);
    }
}
