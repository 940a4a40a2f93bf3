//! What a shadow run has found, made ready for people and programs. Called by `tollgate shadow`; the names here are those of
//! its JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use proxy_common::abi::counter::Counter;
use serde::{Deserialize, Serialize};

use super::stats::Total;
use crate::dataplane::{Difference, Differences, ShadowRun, Shadowing, Side};
use crate::policy::compile::DEFAULT_NAME;

/// Lines of the files in which rules are defined, by name.
pub type Lines = BTreeMap<String, usize>;

/// A shadow that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowStatus {
    /// The candidate's file.
    pub file: PathBuf,
    /// SHA-256 of the file and its lists.
    pub hash: String,
    /// When it began, RFC 3339.
    pub since: String,
    /// The interfaces whose packets it judges.
    pub interfaces: Vec<String>,
}

impl From<&Shadowing> for ShadowStatus {
    fn from(shadow: &Shadowing) -> Self {
        let since = Timestamp::from_nanosecond(i128::from(shadow.since_unix_ns)).unwrap_or_default();
        Self {
            file: shadow.file.clone(),
            hash: shadow.hash.clone(),
            since: since.to_string(),
            interfaces: shadow.interfaces.clone(),
        }
    }
}

/// All that it has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowReport {
    /// Which.
    #[serde(flatten)]
    pub shadow: ShadowStatus,
    /// Packets that were compared: the sum of the next three.
    pub compared: Total,
    /// Packets that both policies let pass, or both drop.
    pub alike: Total,
    /// Packets that the candidate alone would drop.
    pub newly_dropped: DifferencesReport,
    /// Packets that the candidate alone would let pass.
    pub newly_passed: DifferencesReport,
}

/// What was treated differently in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferencesReport {
    /// How much.
    #[serde(flatten)]
    pub total: Total,
    /// How many sources are listed.
    pub sources: usize,
    /// Packets of sources that the list has no room for.
    pub unlisted: Total,
    /// By service and by what both policies say.
    pub by_rule: Vec<Row>,
    /// By source too.
    pub by_source: Vec<Row>,
}

/// Packets that were treated differently in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Whose, in rows by source; none if they were no IP packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The service that it is about: of the policy in force, else of the candidate, else `default`; none where no rule was asked.
    pub service: Option<String>,
    /// What the policy in force says.
    pub in_force: SideReport,
    /// What the candidate says.
    pub candidate: SideReport,
    /// How much.
    #[serde(flatten)]
    pub total: Total,
    /// How many of the listed sources.
    pub sources: usize,
    /// Where one of the last packets went: `tcp/22`.
    pub to: String,
    /// When the last one came, RFC 3339.
    pub last: String,
}

/// What one of the policies says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SideReport {
    /// The name of the reason.
    pub reason: &'static str,
    /// The rule, if the reason belongs to one.
    pub rule: Option<String>,
    /// The line of the policy file at which it is defined, if that is known.
    pub line: Option<usize>,
}

impl ShadowReport {
    /// Makes a report; `lines` are those of the policy in force and of the candidate, `to_unix_ns` leads from the engine's clock
    /// to that of the wall.
    pub fn new(run: &ShadowRun, lines: [&Lines; 2], to_unix_ns: i128) -> Self {
        let sum = [run.alike, run.newly_dropped.all, run.newly_passed.all].iter().fold(
            Total::default(),
            |sum, one| Total { packets: sum.packets + one.packets, bytes: sum.bytes + one.bytes },
        );
        Self {
            shadow: ShadowStatus::from(&run.shadow),
            compared: sum,
            alike: total(run.alike),
            newly_dropped: differences(&run.newly_dropped, lines, to_unix_ns),
            newly_passed: differences(&run.newly_passed, lines, to_unix_ns),
        }
    }
}

const fn total(counter: Counter) -> Total {
    Total { packets: counter.packets, bytes: counter.bytes }
}

fn differences(found: &Differences, lines: [&Lines; 2], to_unix_ns: i128) -> DifferencesReport {
    let mut sources_of: BTreeMap<(&Side, &Side), BTreeSet<IpAddr>> = BTreeMap::new();
    for one in &found.sources {
        sources_of.entry((&one.in_force, &one.candidate)).or_default().extend(one.source);
    }
    let all: BTreeSet<IpAddr> = found.sources.iter().filter_map(|one| one.source).collect();
    let rows = |list: &[Difference]| {
        let mut rows: Vec<_> = list
            .iter()
            .map(|one| {
                let sources = match one.source {
                    Some(_) => 1,
                    None => sources_of.get(&(&one.in_force, &one.candidate)).map_or(0, BTreeSet::len),
                };
                row(one, sources, lines, to_unix_ns)
            })
            .collect();
        // The most first; the rest of the order only keeps two readings alike.
        rows.sort_by(|a, b| {
            (b.total.packets, a.source, &a.service).cmp(&(a.total.packets, b.source, &b.service))
        });
        rows
    };
    DifferencesReport {
        total: total(found.all),
        sources: all.len(),
        unlisted: total(found.unlisted),
        by_rule: rows(&found.ways),
        by_source: rows(&found.sources),
    }
}

fn row(one: &Difference, sources: usize, lines: [&Lines; 2], to_unix_ns: i128) -> Row {
    let said = |side: &Side, lines: &Lines| SideReport {
        reason: side.reason.name(),
        line: side.rule.as_ref().and_then(|rule| lines.get(rule).copied()),
        rule: side.rule.clone(),
    };
    let last = Timestamp::from_nanosecond(i128::from(one.last_ns) + to_unix_ns).unwrap_or_default();
    let last = Timestamp::from_second(last.as_second()).unwrap_or_default();
    Row {
        source: one.source,
        service: service(&one.in_force, &one.candidate),
        in_force: said(&one.in_force, lines[0]),
        candidate: said(&one.candidate, lines[1]),
        total: total(one.counter),
        sources,
        to: to(one.to),
        last: last.to_string(),
    }
}

/// The service that a difference is about.
fn service(in_force: &Side, candidate: &Side) -> Option<String> {
    let rules = [&in_force.rule, &candidate.rule];
    let named = rules.into_iter().flatten().find(|rule| *rule != DEFAULT_NAME);
    named.or_else(|| rules.into_iter().flatten().next()).cloned()
}

/// Protocol and port as policies write them.
fn to((protocol, port): (u8, u16)) -> String {
    match (protocol, port) {
        (0, _) => String::new(),
        (1, _) => "icmp".to_owned(),
        (58, _) => "icmpv6".to_owned(),
        // A later fragment has no port.
        (6, 0) => "tcp".to_owned(),
        (17, 0) => "udp".to_owned(),
        (6, port) => format!("tcp/{port}"),
        (17, port) => format!("udp/{port}"),
        (other, _) => format!("protocol {other}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proxy_common::abi::reason::Reason;

    use super::*;

    pub(crate) fn side(reason: Reason, rule: &str) -> Side {
        Side { reason, rule: (!rule.is_empty()).then(|| rule.to_owned()) }
    }

    fn seen(source: Option<&str>, in_force: &Side, candidate: &Side, packets: u64) -> Difference {
        Difference {
            source: source.and_then(|text| text.parse().ok()),
            in_force: in_force.clone(),
            candidate: candidate.clone(),
            counter: Counter { packets, bytes: packets * 60 },
            last_ns: 5_000_000_000,
            to: (6, 22),
        }
    }

    /// Two sources that would lose ssh, one of them a reply too, and packets of others that the list had no room for.
    pub(crate) fn run() -> ShadowRun {
        let allowed = side(Reason::ServiceAllowed, "ssh");
        let refused = side(Reason::ServiceRefused, "ssh");
        let (reply, none) = (side(Reason::Reply, ""), side(Reason::NoService, "default"));
        ShadowRun {
            shadow: Shadowing {
                file: "/etc/new.toml".into(),
                hash: "ab".repeat(32),
                since_unix_ns: 1_700_000_000_000_000_000,
                interfaces: vec!["eth0".to_owned()],
            },
            alike: Counter { packets: 100, bytes: 6000 },
            newly_dropped: Differences {
                all: Counter { packets: 10, bytes: 600 },
                unlisted: Counter { packets: 2, bytes: 120 },
                ways: vec![seen(None, &reply, &none, 1), seen(None, &allowed, &refused, 9)],
                sources: vec![
                    seen(Some("192.0.2.7"), &allowed, &refused, 3),
                    seen(Some("192.0.2.7"), &reply, &none, 1),
                    seen(Some("2001:db8::9"), &allowed, &refused, 4),
                ],
            },
            newly_passed: Differences::default(),
        }
    }

    #[test]
    fn sources_are_counted_once_and_the_most_come_first() {
        let lines = Lines::from([("ssh".to_owned(), 7)]);
        let report = ShadowReport::new(&run(), [&lines, &Lines::new()], 0);
        assert_eq!(report.compared, Total { packets: 110, bytes: 6600 });
        let dropped = &report.newly_dropped;
        assert_eq!((dropped.sources, dropped.unlisted.packets), (2, 2));
        let ways: Vec<_> = dropped
            .by_rule
            .iter()
            .map(|row| (row.service.as_deref(), row.total.packets, row.sources))
            .collect();
        assert_eq!(ways, [(Some("ssh"), 9, 2), (Some("default"), 1, 1)]);
        assert_eq!((dropped.by_rule[0].in_force.line, dropped.by_rule[0].candidate.line), (Some(7), None));
        let sources: Vec<_> = dropped.by_source.iter().map(|row| row.total.packets).collect();
        assert_eq!(sources, [4, 3, 1]);
        assert_eq!(dropped.by_source[0].last, "1970-01-01T00:00:05Z");
        assert!(report.newly_passed.by_source.is_empty());
    }

    #[test]
    fn a_difference_is_about_a_service_if_one_of_the_two_has_one() {
        let default = side(Reason::NoService, "default");
        let web = side(Reason::ServiceAllowed, "web");
        let plain = side(Reason::FragmentOrphan, "");
        assert_eq!(service(&default, &web).as_deref(), Some("web"));
        assert_eq!(service(&web, &default).as_deref(), Some("web"));
        assert_eq!(service(&default, &plain).as_deref(), Some("default"));
        assert_eq!(service(&plain, &plain), None);
    }

    #[test]
    fn places_are_written_as_policies_write_them() {
        let written = [(6, 22), (17, 53), (17, 0), (1, 0), (47, 0), (0, 0)].map(to);
        assert_eq!(written, ["tcp/22", "udp/53", "udp", "icmp", "protocol 47", ""]);
    }
}
