//! The counters of `tollgate stats --json`, read into types, and differences of two readings.

use std::collections::BTreeMap;
use std::ops::{Add, Sub};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl Sub for Count {
    type Output = Self;

    /// Counters only grow; one that shrank shows as a huge number.
    fn sub(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }
}

/// What happened to the packets of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They went on to the host.
    Pass,
    /// They are gone.
    Drop,
}

/// A rule's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// All of it.
    pub count: Count,
    /// By what became of it.
    pub outcomes: BTreeMap<String, Count>,
}

/// What became of answers to rejected packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Sent.
    pub sent: u64,
    /// Withheld by their limit.
    pub throttled: u64,
    /// Withheld, because there could be none.
    pub failed: u64,
}

impl Sub for Answers {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            sent: self.sent.wrapping_sub(other.sent),
            throttled: self.throttled.wrapping_sub(other.throttled),
            failed: self.failed.wrapping_sub(other.failed),
        }
    }
}

/// One reading, of one interface or of all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Every packet that reached the hook.
    pub seen: Count,
    /// By reason.
    pub reasons: BTreeMap<String, (Verdict, Count)>,
    /// By rule.
    pub rules: BTreeMap<String, Rule>,
    /// Flows that are remembered; `None` in the reading of one interface.
    pub flows: Option<u64>,
    /// Answers to rejected packets.
    pub answers: Answers,
    /// By interface; empty in the reading of one.
    pub interfaces: BTreeMap<String, Self>,
}

impl Stats {
    /// Reads the JSON; anything missing is an error.
    pub fn parse(value: &Value) -> Result<Self> {
        let mut stats =
            Self { seen: count(field(value, "seen")?)?, answers: answers(value)?, ..Self::default() };
        for reason in list(value, "reasons")? {
            let verdict = match text(reason, "verdict")? {
                "pass" => Verdict::Pass,
                "drop" => Verdict::Drop,
                other => bail!("a verdict {other:?}"),
            };
            stats.reasons.insert(text(reason, "name")?.to_owned(), (verdict, count(reason)?));
        }
        for rule in list(value, "rules")? {
            let mut outcomes = BTreeMap::new();
            for outcome in list(rule, "outcomes")? {
                outcomes.insert(text(outcome, "name")?.to_owned(), count(outcome)?);
            }
            let rule_name = text(rule, "name")?.to_owned();
            stats.rules.insert(rule_name, Rule { count: count(rule)?, outcomes });
        }
        stats.flows = value.pointer("/flows/known").and_then(Value::as_u64);
        for interface in value.get("interfaces").and_then(Value::as_array).into_iter().flatten() {
            stats.interfaces.insert(text(interface, "name")?.to_owned(), Self::parse(interface)?);
        }
        Ok(stats)
    }

    /// Fails unless reasons, verdicts, rules and interfaces each add up to what was seen: true of any reading, and of
    /// any difference of two.
    pub fn adds_up(&self) -> Result<()> {
        let sum = |counts: &mut dyn Iterator<Item = Count>| counts.fold(Count::default(), Add::add);
        let reasons = sum(&mut self.reasons.values().map(|(_, count)| *count));
        ensure!(reasons == self.seen, "reasons: {self:#?}");
        ensure!(self.sum(Verdict::Pass) + self.sum(Verdict::Drop) == self.seen, "verdicts: {self:#?}");
        for (name, rule) in &self.rules {
            ensure!(sum(&mut rule.outcomes.values().copied()) == rule.count, "rule {name}: {rule:#?}");
        }
        for reason in ["service-allowed", "service-refused", "no-service"] {
            let under_rules = sum(&mut self.rules.keys().map(|rule| self.outcome(rule, reason)));
            ensure!(under_rules == self.reason(reason), "{reason}: {self:#?}");
        }
        if !self.interfaces.is_empty() {
            let interfaces = sum(&mut self.interfaces.values().map(|one| one.seen));
            ensure!(interfaces == self.seen, "interfaces: {self:#?}");
        }
        self.interfaces.values().try_for_each(Self::adds_up)
    }

    /// What has been counted since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = self.clone();
        delta.seen = self.seen - earlier.seen;
        delta.answers = self.answers - earlier.answers;
        for (name, (_, count)) in &mut delta.reasons {
            *count = *count - earlier.reason(name);
        }
        for (name, rule) in &mut delta.rules {
            rule.count = rule.count - earlier.rule(name);
            for (outcome, count) in &mut rule.outcomes {
                *count = *count - earlier.outcome(name, outcome);
            }
        }
        let nothing = Self::default();
        for (name, interface) in &mut delta.interfaces {
            *interface = interface.since(earlier.interfaces.get(name).unwrap_or(&nothing));
        }
        delta
    }

    /// Count of a reason; nothing if it is not listed.
    pub fn reason(&self, name: &str) -> Count {
        self.reasons.get(name).map_or_else(Count::default, |(_, count)| *count)
    }

    /// Count of a rule; nothing if it is not listed.
    pub fn rule(&self, name: &str) -> Count {
        self.rules.get(name).map_or_else(Count::default, |rule| rule.count)
    }

    /// Count of one outcome of a rule; nothing if it is not listed.
    pub fn outcome(&self, rule: &str, name: &str) -> Count {
        let outcomes = self.rules.get(rule).map(|rule| &rule.outcomes);
        outcomes.and_then(|all| all.get(name)).copied().unwrap_or_default()
    }

    /// Sum over the reasons of a verdict.
    pub fn sum(&self, wanted: Verdict) -> Count {
        self.reasons
            .values()
            .filter(|(verdict, _)| *verdict == wanted)
            .fold(Count::default(), |sum, (_, count)| sum + *count)
    }

    /// What packets of a verdict were counted as: "arp", or "service-refused (crm)", and how many.
    pub fn named(&self, wanted: Verdict) -> Vec<(String, u64)> {
        let mut named = Vec::new();
        for (name, (verdict, count)) in &self.reasons {
            if *verdict != wanted || count.packets == 0 {
                continue;
            }
            let rules: Vec<_> = self
                .rules
                .iter()
                .filter(|(_, rule)| rule.outcomes.get(name).is_some_and(|count| count.packets > 0))
                .map(|(rule, _)| rule.as_str())
                .collect();
            let place = if rules.is_empty() { String::new() } else { format!(" ({})", rules.join(", ")) };
            named.push((format!("{name}{place}"), count.packets));
        }
        named
    }
}

fn field<'a>(value: &'a Value, key: &str) -> Result<&'a Value> {
    value.get(key).with_context(|| format!("no `{key}` in {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    field(value, key)?.as_str().with_context(|| format!("`{key}` is not a text in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    field(value, key)?.as_array().with_context(|| format!("`{key}` is not a list in {value}"))
}

fn count(value: &Value) -> Result<Count> {
    let number = |key| field(value, key)?.as_u64().with_context(|| format!("`{key}` is not a count"));
    Ok(Count { packets: number("packets")?, bytes: number("bytes")? })
}

fn answers(value: &Value) -> Result<Answers> {
    let answers = field(value, "answers")?;
    let number = |key| field(answers, key)?.as_u64().with_context(|| format!("`{key}` is not a count"));
    Ok(Answers { sent: number("sent")?, throttled: number("throttled")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(refused: u64) -> Result<Stats> {
        Stats::parse(&json!({
            "seen": {"packets": 10 + refused, "bytes": 1000},
            "answers": {"sent": refused, "throttled": 0, "failed": 0},
            "reasons": [
                {"name": "arp", "verdict": "pass", "packets": 10, "bytes": 420},
                {"name": "service-refused", "verdict": "drop", "packets": refused, "bytes": 580},
            ],
            "rules": [{"name": "crm", "packets": refused, "bytes": 580,
                "outcomes": [{"name": "service-refused", "packets": refused, "bytes": 580}]}],
        }))
    }

    #[test]
    fn differences_name_the_rule_of_a_drop() -> Result<()> {
        let delta = reading(5)?.since(&reading(2)?);
        assert_eq!(delta.seen.packets, 3);
        assert_eq!(delta.outcome("crm", "service-refused").packets, 3);
        assert_eq!(delta.sum(Verdict::Pass), Count::default());
        assert_eq!(delta.answers, Answers { sent: 3, throttled: 0, failed: 0 });
        assert_eq!(delta.named(Verdict::Drop), [("service-refused (crm)".to_owned(), 3)]);
        Ok(())
    }

    #[test]
    fn a_missing_field_is_an_error() {
        assert!(Stats::parse(&json!({"seen": {"packets": 1}})).is_err());
    }
}
