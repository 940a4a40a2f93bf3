//! The counters with names: by reason, by rule, by interface and in sum. Called by `tollgate stats`.

use std::collections::BTreeMap;

use proxy_common::abi::counter::{self, Counter};
use proxy_common::abi::flow::FLOWS_LEN;
use proxy_common::abi::reason::{Reason, Verdict};
use serde::{Deserialize, Serialize};

use super::words::{self, Word};

use crate::dataplane::{
    Count, DataplaneError, Pins, attached, count_flows, read_answers, read_counters, read_rules,
};

/// Packets, and bytes of whole frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Total {
    fn add(&mut self, counter: Counter) {
        self.packets = self.packets.wrapping_add(counter.packets);
        self.bytes = self.bytes.wrapping_add(counter.bytes);
    }

    /// What has come since an earlier reading; zero if counters were reset in between.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

/// A reason and how often packets ended with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStats {
    /// Its name.
    #[serde(deserialize_with = "words::one")]
    pub name: Word,
    /// `pass` or `drop`.
    #[serde(deserialize_with = "words::one")]
    pub verdict: Word,
    /// How much.
    #[serde(flatten)]
    pub total: Total,
}

/// A rule and how often packets ended under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStats {
    /// The service's name, or `default`.
    pub name: String,
    /// False if the policy in force has no such rule any more.
    pub active: bool,
    /// How much in all.
    #[serde(flatten)]
    pub total: Total,
    /// By reason, those that are zero left out.
    pub outcomes: Vec<ReasonStats>,
}

/// What became of answers to rejected packets. The packets themselves are among the dropped ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerStats {
    /// Sent.
    pub sent: u64,
    /// Withheld, because too many were sent lately.
    pub throttled: u64,
    /// Withheld, because the kernel could not make one.
    pub failed: u64,
}

impl AnswerStats {
    fn add(&mut self, one: counter::Answers) {
        self.sent = self.sent.wrapping_add(one.sent);
        self.throttled = self.throttled.wrapping_add(one.throttled);
        self.failed = self.failed.wrapping_add(one.failed);
    }
}

/// The counters of one interface, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Everything that reached the hook.
    pub seen: Total,
    /// Every reason.
    pub reasons: Vec<ReasonStats>,
    /// The rules of the policy in force, and others that have counted something.
    pub rules: Vec<RuleStats>,
    /// Answers to rejected packets.
    pub answers: AnswerStats,
}

impl Counters {
    /// Sum over the reasons of a verdict.
    pub fn sum(&self, verdict: &str) -> Total {
        let mut sum = Total::default();
        for Total { packets, bytes } in
            self.reasons.iter().filter(|one| one.verdict == verdict).map(|one| one.total)
        {
            sum.add(Counter { packets, bytes });
        }
        sum
    }
}

/// The counters of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Its name.
    pub name: String,
    /// Its counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// The table of the connections that this host has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Entries, those whose time is over included.
    pub known: u64,
    /// Room for so many; after that the least recently used go first.
    pub most: u64,
}

impl Default for Flows {
    fn default() -> Self {
        Self { known: 0, most: u64::from(FLOWS_LEN) }
    }
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// All interfaces together.
    #[serde(flatten)]
    pub all: Counters,
    /// What this host has begun, on all interfaces.
    pub flows: Flows,
    /// Each by itself.
    pub interfaces: Vec<InterfaceStats>,
}

/// Reads everything. No program on a hook gives nothing counted.
///
/// # Errors
/// If the counters can't be read.
pub fn read(pins: &Pins) -> Result<Stats, DataplaneError> {
    let attached = attached(pins)?;
    if attached.is_empty() {
        return Ok(Stats::default());
    }
    let names = read_rules(pins)?;
    let rules: Vec<(u16, String)> =
        (0..).zip(names).filter_map(|(id, name): (u16, _)| Some((id, name?))).collect();
    let ids: Vec<u16> = rules.iter().map(|(id, _)| *id).collect();
    let mut everything = Vec::new();
    let mut interfaces = Vec::new();
    let mut answers = AnswerStats::default();
    let active = |id: u16| attached.iter().any(|one| one.label.has_rule(id));
    for one in &attached {
        let counts = read_counters(pins, one.interface.index, &ids)?;
        let mut counters = counters(&counts, &rules, &|id| one.label.has_rule(id));
        let answered = read_answers(pins, one.interface.index)?;
        counters.answers.add(answered);
        answers.add(answered);
        interfaces.push(InterfaceStats { name: one.interface.name.clone(), counters });
        everything.extend(counts);
    }
    let flows = Flows { known: count_flows(pins)?, ..Flows::default() };
    let all = Counters { answers, ..counters(&everything, &rules, &active) };
    Ok(Stats { all, flows, interfaces })
}

fn counters(counts: &[Count], rules: &[(u16, String)], active: &dyn Fn(u16) -> bool) -> Counters {
    let mut seen = Total::default();
    let mut reasons: BTreeMap<Reason, Total> = BTreeMap::new();
    let mut by_rule: BTreeMap<u16, BTreeMap<Reason, Total>> = BTreeMap::new();
    for Count { reason, rule, counter } in counts {
        seen.add(*counter);
        reasons.entry(*reason).or_default().add(*counter);
        if let Some(rule) = rule {
            by_rule.entry(*rule).or_default().entry(*reason).or_default().add(*counter);
        }
    }
    let named =
        |reason: Reason, total| ReasonStats { name: reason.name(), verdict: word(reason.verdict()), total };
    let rule = |(id, name): &(u16, String)| {
        let outcomes = by_rule.get(id);
        let active = active(*id);
        if outcomes.is_none() && !active {
            return None;
        }
        let mut total = Total::default();
        let outcomes = outcomes.into_iter().flatten().map(|(reason, one)| {
            total.add(Counter { packets: one.packets, bytes: one.bytes });
            named(*reason, *one)
        });
        let outcomes = outcomes.collect();
        Some(RuleStats { name: name.clone(), active, total, outcomes })
    };
    Counters {
        seen,
        reasons: Reason::ALL
            .iter()
            .map(|reason| named(*reason, reasons.get(reason).copied().unwrap_or_default()))
            .collect(),
        rules: rules.iter().filter_map(rule).collect(),
        answers: AnswerStats::default(),
    }
}

/// A verdict as `--json` writes it.
pub const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(reason: Reason, rule: Option<u16>, packets: u64) -> Count {
        Count { reason, rule, counter: Counter { packets, bytes: packets * 100 } }
    }

    #[test]
    fn sums_are_consistent() {
        let counts = [
            count(Reason::Arp, None, 3),
            count(Reason::ServiceAllowed, Some(1), 5),
            count(Reason::ServiceRefused, Some(1), 2),
            count(Reason::ServiceAllowed, Some(2), 7),
            count(Reason::NoService, Some(0), 11),
        ];
        let rules = [(0, "default"), (1, "web"), (2, "old"), (3, "idle"), (4, "gone")];
        let rules = rules.map(|(id, name)| (id, name.to_owned()));
        let all = counters(&counts, &rules, &|id| matches!(id, 0 | 1 | 3));
        assert_eq!(all.seen, Total { packets: 28, bytes: 2800 });
        assert_eq!(all.reasons.len(), Reason::ALL.len());
        assert_eq!(all.reasons.iter().map(|reason| reason.total.packets).sum::<u64>(), 28);
        let rule = |name: &str| all.rules.iter().find(|rule| rule.name == name);
        assert_eq!(rule("web").map(|rule| (rule.total.packets, rule.outcomes.len())), Some((7, 2)));
        assert_eq!(rule("old").map(|rule| (rule.total.packets, rule.active)), Some((7, false)));
        assert_eq!(rule("idle").map(|rule| (rule.total.packets, rule.active)), Some((0, true)));
        assert_eq!(rule("gone"), None);
    }

    #[test]
    fn a_reset_counts_as_nothing() {
        let (old, new) = (Total { packets: 5, bytes: 9 }, Total { packets: 2, bytes: 10 });
        assert_eq!(new.since(old), Total { packets: 0, bytes: 1 });
    }
}
