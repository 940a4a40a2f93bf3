//! Metrics of the L7 proxy, from what its worker says that it has counted. Called by [`super::metrics`].
//!
//! The worker is not trusted: a series is made only for names that the policy in force has, so that it can't grow what Prometheus
//! keeps.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::proxy::acme::Issuing;
use crate::proxy::decide::Reason;
use crate::proxy::plan::Plan;
use crate::proxy::serve::Metrics;

/// Classes of status, as [`crate::proxy::serve::RouteCounts::classes`] has them.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Buckets that are shown at most; there are fewer.
const MOST_BUCKETS: usize = 32;

/// Adds what was counted under a plan.
pub(super) fn fill(registry: &Registry, plan: &Plan, metrics: &Metrics) -> prometheus::Result<()> {
    let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
    let requests = counter(
        "tollgate_proxy_requests_total",
        "Requests, by route and class of the answer's status.",
        &["route", "status"],
    )?;
    let help = "Bytes of bodies, by route; received from clients or sent to them.";
    let bytes = counter("tollgate_proxy_body_bytes_total", help, &["route", "direction"])?;
    // Those of no route too: its name is empty.
    let names = plan.routes.iter().map(|route| route.name.as_str()).chain([""]);
    for name in names {
        let Some(counts) = metrics.routes.get(name) else { continue };
        for (class, number) in CLASSES.iter().zip(counts.classes) {
            requests.with_label_values(&[name, class]).inc_by(number);
        }
        bytes.with_label_values(&[name, "received"]).inc_by(counts.received);
        bytes.with_label_values(&[name, "sent"]).inc_by(counts.sent);
    }
    registry.register(Box::new(requests))?;
    registry.register(Box::new(bytes))?;

    let help = "Requests that the proxy answered itself, or that failed, by why.";
    let reasons = counter("tollgate_proxy_refusals_total", help, &["reason"])?;
    for name in Reason::ALL.iter().map(|reason| reason.name()) {
        let number = metrics.reasons.get(name).copied().unwrap_or_default();
        reasons.with_label_values(&[name]).inc_by(number);
    }
    registry.register(Box::new(reasons))?;

    let accepted = IntCounter::new("tollgate_proxy_connections_total", "Connections that were taken.")?;
    accepted.inc_by(metrics.accepted);
    registry.register(Box::new(accepted))?;
    for (name, help, value) in [
        ("tollgate_proxy_connections", "Connections of clients that are open.", metrics.connections),
        ("tollgate_proxy_tunnels", "WebSockets that are open.", metrics.tunnels),
    ] {
        let gauge = Gauge::new(name, help)?;
        gauge.set(f64::from(value));
        registry.register(Box::new(gauge))?;
    }

    let help = "Time until a certificate expires, in days; negative once it has.";
    let expiry = GaugeVec::new(Opts::new("tollgate_proxy_certificate_expiry_days", help), &["file"])?;
    let tls = plan.listeners.values().filter_map(|listener| listener.tls.as_ref());
    let files: Vec<_> =
        tls.flat_map(|tls| &tls.certificates).map(|one| one.chain.display().to_string()).collect();
    for one in metrics.certificates.iter().filter(|one| files.contains(&one.file)) {
        expiry.with_label_values(&[one.file.as_str()]).set(one.days as f64);
    }
    registry.register(Box::new(expiry))?;

    let help = "1 while requests go to a server of an upstream, 0 while it rests or its health check fails.";
    let up = GaugeVec::new(Opts::new("tollgate_proxy_upstream_up", help), &["upstream", "server"])?;
    for (name, upstream) in &plan.upstreams {
        let said = metrics.servers.iter().filter(|one| one.upstream == *name && one.server.len() < 200);
        for one in said.take(upstream.servers.len()) {
            let value = f64::from(u8::from(!one.avoided));
            up.with_label_values(&[name.as_str(), one.server.as_str()]).set(value);
        }
    }
    registry.register(Box::new(up))?;
    registry.register(Box::new(Latency::new(metrics)?))
}

/// Adds what becomes of certificates that authorities issue. By the daemon's own word.
pub(super) fn issuing(registry: &Registry, all: &[Issuing]) -> prometheus::Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let help =
        "1 while a certificate that nobody trusts stands in for one that an authority has not issued yet.";
    let stands_in = GaugeVec::new(Opts::new("tollgate_proxy_certificate_stands_in", help), &["file"])?;
    let help = "Orders of a certificate that failed since the last that did not.";
    let failures = GaugeVec::new(Opts::new("tollgate_proxy_certificate_order_failures", help), &["file"])?;
    for one in all {
        stands_in.with_label_values(&[one.file.as_str()]).set(f64::from(u8::from(one.stands_in)));
        failures.with_label_values(&[one.file.as_str()]).set(f64::from(one.failures));
    }
    registry.register(Box::new(stands_in))?;
    registry.register(Box::new(failures))
}

/// A histogram that was counted elsewhere.
struct Latency {
    desc: Desc,
    histogram: Histogram,
}

impl Latency {
    const NAME: &str = "tollgate_proxy_request_duration_seconds";
    const HELP: &str = "From a request's head to the end of its answer.";

    fn new(metrics: &Metrics) -> prometheus::Result<Self> {
        let desc = Desc::new(Self::NAME.to_owned(), Self::HELP.to_owned(), Vec::new(), Default::default())?;
        let mut by_end: BTreeMap<u64, u64> = BTreeMap::new();
        let mut total = 0u64;
        for one in &metrics.latency {
            total = total.saturating_add(one.count);
            if let Some(upto_us) = one.upto_us {
                by_end.insert(upto_us, one.count);
            }
        }
        let mut below = 0u64;
        let buckets = by_end.into_iter().map(|(upto_us, count)| {
            below = below.saturating_add(count);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(upto_us as f64 / 1e6);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.take(MOST_BUCKETS).collect());
        histogram.set_sample_count(total);
        histogram.set_sample_sum(metrics.latency_sum_us as f64 / 1e6);
        Ok(Self { desc, histogram })
    }
}

impl Collector for Latency {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metric = Metric::default();
        metric.set_histogram(self.histogram.clone());
        let mut family = MetricFamily::default();
        family.set_name(Self::NAME.to_owned());
        family.set_help(Self::HELP.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::proxy::plan::{Action, Route};
    use crate::proxy::serve::{LatencyBucket, RouteCounts};

    #[test]
    fn certificates_that_are_not_there_yet_are_told_of() {
        let registry = Registry::new();
        let one = Issuing { file: "acme/le/a.example.pem".to_owned(), stands_in: true, failures: 3 };
        issuing(&registry, &[one]).expect("metrics");
        let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        for line in [
            r#"tollgate_proxy_certificate_stands_in{file="acme/le/a.example.pem"} 1"#,
            r#"tollgate_proxy_certificate_order_failures{file="acme/le/a.example.pem"} 3"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn only_names_of_the_policy_become_series() {
        let respond =
            Action::Respond { status: 200, content_type: "text/plain".to_owned(), body: String::new() };
        let route = Route {
            name: "crm".to_owned(),
            place: "p.toml:1".to_owned(),
            listeners: vec!["https".to_owned()],
            hosts: Vec::new(),
            path: "/".to_owned(),
            action: respond,
            limit: None,
            body: 0,
            headers: BTreeMap::new(),
        };
        let plan = Plan { routes: vec![route], ..Plan::default() };
        let counts = RouteCounts { classes: [0, 0, 7, 0, 2, 0], received: 10, sent: 20 };
        let routes = BTreeMap::from([("crm".to_owned(), counts.clone()), ("made-up".to_owned(), counts)]);
        let reasons = BTreeMap::from([("no-route".to_owned(), 3), ("x\ny".to_owned(), 1)]);
        let latency = vec![
            LatencyBucket { upto_us: Some(500), count: 4 },
            LatencyBucket { upto_us: Some(1000), count: 3 },
            LatencyBucket { upto_us: None, count: 2 },
        ];
        let metrics = Metrics { routes, reasons, latency, latency_sum_us: 2_500_000, ..Metrics::default() };
        let registry = Registry::new();
        fill(&registry, &plan, &metrics).expect("metrics");
        let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        for line in [
            r#"tollgate_proxy_requests_total{route="crm",status="2xx"} 7"#,
            r#"tollgate_proxy_requests_total{route="crm",status="4xx"} 2"#,
            r#"tollgate_proxy_body_bytes_total{direction="sent",route="crm"} 20"#,
            r#"tollgate_proxy_refusals_total{reason="no-route"} 3"#,
            r#"tollgate_proxy_request_duration_seconds_bucket{le="0.001"} 7"#,
            r#"tollgate_proxy_request_duration_seconds_bucket{le="+Inf"} 9"#,
            "tollgate_proxy_request_duration_seconds_sum 2.5",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("made-up") && !text.contains("x\\ny"), "{text}");
    }
}
