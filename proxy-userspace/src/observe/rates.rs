//! How fast counters grow: two readings and the time between them. Called by `tollgate stats --watch`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::stats::{Counters, ReasonStats, Stats, Total};

/// So many a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Packets.
    pub packets: f64,
    /// Bytes.
    pub bytes: f64,
}

/// What passes and what is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sides {
    /// What passes.
    pub passed: Rate,
    /// What is dropped.
    pub dropped: Rate,
}

/// The rates of one interface, or of all; what does not grow is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Seconds between the two readings.
    pub seconds: f64,
    /// Everything that reaches the hook.
    pub seen: Rate,
    /// By verdict.
    #[serde(flatten)]
    pub sides: Sides,
    /// By reason.
    pub reasons: BTreeMap<&'static str, Rate>,
    /// By rule and reason.
    pub rules: BTreeMap<String, BTreeMap<&'static str, Rate>>,
    /// By interface and verdict; those that are at rest too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub interfaces: BTreeMap<String, Sides>,
}

impl Rates {
    /// Of one interface. What the earlier reading does not have was zero then.
    pub fn of(now: &Counters, before: &Counters, time: Duration) -> Self {
        let rule = |name: &str| before.rules.iter().find(|rule| rule.name == name);
        let rules = now.rules.iter().map(|one| {
            let earlier = rule(&one.name).map_or(&[][..], |rule| &rule.outcomes);
            (one.name.clone(), by_reason(&one.outcomes, earlier, time))
        });
        Self {
            seconds: time.as_secs_f64(),
            seen: rate(now.seen, before.seen, time),
            sides: sides(now, before, time),
            reasons: by_reason(&now.reasons, &before.reasons, time),
            rules: rules.filter(|(_, outcomes)| !outcomes.is_empty()).collect(),
            interfaces: BTreeMap::new(),
        }
    }

    /// Of all.
    pub fn of_all(now: &Stats, before: &Stats, time: Duration) -> Self {
        let nothing = Counters::default();
        let interfaces = now.interfaces.iter().map(|one| {
            let earlier = before.interfaces.iter().find(|earlier| earlier.name == one.name);
            let earlier = earlier.map_or(&nothing, |earlier| &earlier.counters);
            (one.name.clone(), sides(&one.counters, earlier, time))
        });
        Self { interfaces: interfaces.collect(), ..Self::of(&now.all, &before.all, time) }
    }

    /// Packets a second of a reason.
    pub fn reason(&self, name: &str) -> f64 {
        self.reasons.get(name).map_or(0.0, |rate| rate.packets)
    }

    /// Packets a second of a reason under a rule.
    pub fn outcome(&self, rule: &str, reason: &str) -> f64 {
        self.rules.get(rule).and_then(|reasons| reasons.get(reason)).map_or(0.0, |rate| rate.packets)
    }
}

fn by_reason(now: &[ReasonStats], before: &[ReasonStats], time: Duration) -> BTreeMap<&'static str, Rate> {
    let earlier = |name| before.iter().find(|one| one.name == name).map_or(Total::default(), |one| one.total);
    let rates = now.iter().map(|one| (one.name, rate(one.total, earlier(one.name), time)));
    rates.filter(|(_, rate)| *rate != Rate::default()).collect()
}

fn sides(now: &Counters, before: &Counters, time: Duration) -> Sides {
    let of = |verdict| rate(now.sum(verdict), before.sum(verdict), time);
    Sides { passed: of("pass"), dropped: of("drop") }
}

fn rate(now: Total, before: Total, time: Duration) -> Rate {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return Rate::default();
    }
    let Total { packets, bytes } = now.since(before);
    Rate { packets: packets as f64 / seconds, bytes: bytes as f64 / seconds }
}

#[cfg(test)]
mod tests {
    use crate::observe::stats::{InterfaceStats, RuleStats};

    use super::*;

    fn reading(dropped: u64) -> Stats {
        let total = |packets| Total { packets, bytes: packets * 100 };
        let drop = ReasonStats { name: "no-service", verdict: "drop", total: total(dropped) };
        let pass = ReasonStats { name: "arp", verdict: "pass", total: total(5) };
        let rule = |name: &str, outcomes| RuleStats {
            name: name.to_owned(),
            active: true,
            total: total(0),
            outcomes,
        };
        let all = Counters {
            seen: total(5 + dropped),
            reasons: vec![drop.clone(), pass],
            rules: vec![rule("default", vec![drop]), rule("web", vec![])],
            ..Counters::default()
        };
        let interfaces = vec![InterfaceStats { name: "eth0".to_owned(), counters: all.clone() }];
        Stats { all, interfaces, ..Stats::default() }
    }

    #[test]
    fn a_rate_is_what_came_divided_by_the_time() {
        let rates = Rates::of_all(&reading(130), &reading(10), Duration::from_millis(500));
        assert_eq!(rates.seen, Rate { packets: 240.0, bytes: 24_000.0 });
        assert_eq!(rates.reason("no-service"), 240.0);
        assert_eq!((rates.reason("arp"), rates.reasons.len()), (0.0, 1));
        assert_eq!(rates.outcome("default", "no-service"), 240.0);
        assert_eq!(rates.outcome("web", "no-service"), 0.0);
        assert_eq!(rates.interfaces.get("eth0"), Some(&rates.sides));
        assert_eq!(rates.sides.dropped.packets, 240.0);
    }

    #[test]
    fn what_is_new_was_zero_and_what_was_reset_does_not_run_backwards() {
        let second = Duration::from_secs(1);
        let rates = Rates::of_all(&reading(7), &Stats::default(), second);
        assert_eq!((rates.reason("no-service"), rates.interfaces.len()), (7.0, 1));
        assert_eq!(Rates::of_all(&reading(3), &reading(100), second).reason("no-service"), 0.0);
        assert_eq!(Rates::of_all(&reading(3), &reading(1), Duration::ZERO).seen, Rate::default());
    }
}
