//! Which metrics there are, with their names, units and labels, in Prometheus' text format. Called by `control::scrape`.
//!
//! The number of series is bounded by the policy: labels are names of its interfaces and rules, and words of this program.
//! Nothing that a packet says ever becomes a label.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};
use proxy_common::abi::reason::Reason;

use super::stats::{Stats, Total, word};
use super::status::Status;
use crate::proxy::{self, plan::Plan};

/// What is counted is what arrives; a label for it keeps room for what is sent.
const DIRECTION: &str = "ingress";

/// What a scrape shows, read at the moment of it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The counters.
    pub stats: Stats,
    /// What is enforced.
    pub status: Status,
    /// Bans in force.
    pub bans: usize,
    /// How often policies were applied since the daemon began: word of the result and number.
    pub applies: [(&'static str, u64); 3],
    /// What the L7 proxy serves and has counted, if there is one.
    pub proxy: Option<(Arc<Plan>, proxy::serve::Metrics)>,
    /// Certificates that authorities issue.
    pub issuing: Vec<proxy::acme::Issuing>,
}

/// Writes a reading down.
///
/// # Errors
/// A sentence, if the numbers make no metrics.
pub fn text(reading: &Reading) -> Result<String, String> {
    // Made anew each time: what is not there any more leaves no series behind.
    let registry = Registry::new();
    fill(&registry, reading)
        .and_then(|()| TextEncoder::new().encode_to_string(&registry.gather()))
        .map_err(|error| error.to_string())
}

fn fill(registry: &Registry, reading: &Reading) -> prometheus::Result<()> {
    let Reading { stats, status, bans, applies, proxy, issuing } = reading;
    if let Some((plan, metrics)) = proxy {
        super::proxy_metrics::fill(registry, plan, metrics)?;
    }
    super::proxy_metrics::issuing(registry, issuing)?;
    packets(registry, stats)?;
    rules(registry, stats)?;
    answers(registry, stats)?;
    let gauge = |name, help, value: f64| -> prometheus::Result<()> {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        register(registry, &gauge)
    };
    gauge("tollgate_bans", "Bans in force.", *bans as f64)?;
    gauge(
        "tollgate_flows",
        "Connections that this host has begun and that are remembered.",
        stats.flows.known as f64,
    )?;
    let enforced = status.interfaces.len();
    gauge("tollgate_enforced_interfaces", "Interfaces on which a policy is enforced.", enforced as f64)?;
    let waits = status.confirm_within_s;
    gauge(
        "tollgate_policy_unconfirmed",
        "1 while the policy in force waits to be confirmed.",
        f64::from(u8::from(waits.is_some())),
    )?;
    gauge(
        "tollgate_locked_down",
        "1 while the built-in lock-down is enforced, since no policy could be.",
        f64::from(u8::from(status.locked_down)),
    )?;
    if let Some(seconds) = waits {
        let help = "Time until the kernel goes back to the policy before, unless this one is confirmed.";
        gauge("tollgate_policy_confirm_remaining_seconds", help, seconds as f64)?;
    }
    if let Some(policy) = &status.policy {
        if let Ok(since) = policy.since.parse::<jiff::Timestamp>() {
            let help = "When the policy in force was applied, since 1970.";
            gauge("tollgate_policy_loaded_timestamp_seconds", help, since.as_second() as f64)?;
        }
        let info = ["hash"];
        let hash = GaugeVec::new(Opts::new("tollgate_policy_info", "The policy in force, always 1."), &info)?;
        hash.with_label_values(&[policy.hash.as_str()]).set(1.0);
        register(registry, &hash)?;
    }
    let help = "How an interface is enforced, always 1.";
    let hooks = GaugeVec::new(Opts::new("tollgate_interface_info", help), &["interface", "hook", "mode"])?;
    for one in &status.interfaces {
        hooks.with_label_values(&[one.name.as_str(), one.hook, one.mode]).set(1.0);
    }
    register(registry, &hooks)?;
    let applied = counter("tollgate_applies_total", "Policies that the daemon was to apply.", &["result"])?;
    for (result, number) in applies {
        applied.with_label_values(&[result]).inc_by(*number);
    }
    register(registry, &applied)?;
    let build =
        GaugeVec::new(Opts::new("tollgate_build_info", "The daemon's version, always 1."), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    register(registry, &build)
}

/// Every reason of every interface: those at zero too, so that the first packet of a reason shows as a growth.
fn packets(registry: &Registry, stats: &Stats) -> prometheus::Result<()> {
    let labels = ["interface", "direction", "verdict", "reason"];
    let packets = counter("tollgate_packets_total", "Packets, by why they passed or were dropped.", &labels)?;
    let bytes = counter(
        "tollgate_bytes_total",
        "Bytes of whole frames, by why they passed or were dropped.",
        &labels,
    )?;
    for interface in &stats.interfaces {
        for reason in &interface.counters.reasons {
            let values = [interface.name.as_str(), DIRECTION, reason.verdict, reason.name];
            packets.with_label_values(&values).inc_by(reason.total.packets);
            bytes.with_label_values(&values).inc_by(reason.total.bytes);
        }
    }
    register(registry, &packets)?;
    register(registry, &bytes)
}

/// The rules of the policy in force, on all interfaces together.
fn rules(registry: &Registry, stats: &Stats) -> prometheus::Result<()> {
    let labels = ["rule", "verdict", "reason"];
    let packets =
        counter("tollgate_rule_packets_total", "Packets under a rule: a service, or default.", &labels)?;
    let bytes = counter("tollgate_rule_bytes_total", "Bytes of whole frames under a rule.", &labels)?;
    for rule in stats.all.rules.iter().filter(|rule| rule.active) {
        for reason in Reason::ALL.iter().filter(|reason| reason.has_rule()) {
            let values = [rule.name.as_str(), word(reason.verdict()), reason.name()];
            let found = rule.outcomes.iter().find(|one| one.name == reason.name());
            let total = found.map_or_else(Total::default, |one| one.total);
            packets.with_label_values(&values).inc_by(total.packets);
            bytes.with_label_values(&values).inc_by(total.bytes);
        }
    }
    register(registry, &packets)?;
    register(registry, &bytes)
}

fn answers(registry: &Registry, stats: &Stats) -> prometheus::Result<()> {
    let help = "Answers to rejected packets, by what became of them.";
    let answers = counter("tollgate_answers_total", help, &["interface", "result"])?;
    for interface in &stats.interfaces {
        let counted = interface.counters.answers;
        for (result, number) in
            [("sent", counted.sent), ("throttled", counted.throttled), ("failed", counted.failed)]
        {
            answers.with_label_values(&[interface.name.as_str(), result]).inc_by(number);
        }
    }
    register(registry, &answers)
}

fn counter(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn register(registry: &Registry, metric: &(impl Collector + Clone + 'static)) -> prometheus::Result<()> {
    registry.register(Box::new(metric.clone()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::observe::stats::{Counters, InterfaceStats, ReasonStats, RuleStats};
    use crate::observe::status::{DaemonStatus, PolicyStatus};

    fn reading() -> Reading {
        let total = Total { packets: 7, bytes: 700 };
        let refused = ReasonStats { name: "service-refused", verdict: "drop", total };
        let rule = |name: &str, active| RuleStats {
            name: name.to_owned(),
            active,
            total,
            outcomes: vec![refused.clone()],
        };
        let rules = vec![rule("we\"b", true), rule("gone", false)];
        let all = Counters { seen: total, reasons: vec![refused.clone()], rules, ..Counters::default() };
        let interfaces = vec![InterfaceStats { name: "eth0".to_owned(), counters: all.clone() }];
        let policy = PolicyStatus {
            file: PathBuf::from("/etc/p.toml"),
            hash: "ab12".to_owned(),
            since: "2026-01-31T10:00:07Z".to_owned(),
        };
        Reading {
            stats: Stats { all, interfaces, ..Stats::default() },
            status: Status {
                shadow: None,
                enforcing: true,
                locked_down: false,
                policy: Some(policy),
                interfaces: Vec::new(),
                confirm_within_s: Some(41),
                plumbing: Vec::new(),
                daemon: DaemonStatus { running: true, socket: PathBuf::new() },
            },
            bans: 3,
            proxy: None,
            issuing: Vec::new(),
            applies: [("applied", 2), ("refused", 0), ("bad_input", 1)],
        }
    }

    #[test]
    fn a_reading_is_written_down() {
        let text = text(&reading()).expect("text");
        for line in [
            r#"tollgate_packets_total{direction="ingress",interface="eth0",reason="service-refused",verdict="drop"} 7"#,
            r#"tollgate_bytes_total{direction="ingress",interface="eth0",reason="service-refused",verdict="drop"} 700"#,
            r#"tollgate_rule_packets_total{reason="service-refused",rule="we\"b",verdict="drop"} 7"#,
            r#"tollgate_rule_packets_total{reason="service-allowed",rule="we\"b",verdict="pass"} 0"#,
            r#"tollgate_answers_total{interface="eth0",result="sent"} 0"#,
            "tollgate_bans 3",
            "tollgate_flows 0",
            r#"tollgate_policy_info{hash="ab12"} 1"#,
            "tollgate_policy_loaded_timestamp_seconds 1769853607",
            "tollgate_policy_unconfirmed 1",
            "tollgate_locked_down 0",
            "tollgate_policy_confirm_remaining_seconds 41",
            r#"tollgate_applies_total{result="bad_input"} 1"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
    }

    #[test]
    fn nothing_enforced_is_no_error() {
        let none = Reading { stats: Stats::default(), ..reading() };
        let text = text(&none).expect("text");
        assert!(!text.contains("tollgate_packets_total{"), "{text}");
        assert!(text.contains("tollgate_build_info{version="), "{text}");
    }
}
