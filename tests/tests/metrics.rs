//! Metrics: the same numbers as `stats`, in a form that promtool accepts, and no scraper holds up an apply. The alerts and the
//! dashboard that ship speak of metrics that there are.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::counters::{Count, Stats, Verdict};
use tollgate_tests::lab::SERVER_V4;
use tollgate_tests::scrape::{ADDRESS, Metrics, connect, exchange, request};
use tollgate_tests::shared::Shared;
use tollgate_tests::tollgate::workspace;
use tollgate_tests::traffic::{http_get, ping, tcp_connect};
use tollgate_tests::{Deployment, Host};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]

[zones]
lan = ["192.168.0.0/24", "fe80::/10"]

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]

[services.crm]
ports = ["tcp/8082"]
allow = ["lan"]
"#;

const PATIENCE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(300);
/// An apply beside hostile scrapers: verification takes seconds of one processor by itself.
const APPLY: Duration = Duration::from_secs(60);

static DEPLOYMENT: Shared<Deployment> = Shared::new();

fn deployed(work: impl FnOnce(&Deployment) -> Result<()>) -> Result<()> {
    let make = || Deployment::with_arguments(POLICY, &["--metrics", ADDRESS]);
    DEPLOYMENT.with(make, |d| work(d))
}

fn at(port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(SERVER_V4.parse().context("an address")?, port))
}

/// Runs promtool on an input; what it says if it does not approve is the error.
fn promtool(args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool: `cargo xtask setup` installs it")?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {}: {said}", args.join(" "));
    Ok(())
}

fn is(metrics: &Metrics, series: &str, number: u64) -> Result<()> {
    let found = metrics.get(series)?;
    ensure!(found == number as f64, "{series} is {found}, stats says {number}");
    Ok(())
}

/// Every counter of `stats` is in the scrape with the same value.
fn agree(stats: &Stats, metrics: &Metrics) -> Result<()> {
    let both = |name: &str, labels: &str, count: Count| {
        is(metrics, &format!("tollgate_{name}packets_total{{{labels}}}"), count.packets)?;
        is(metrics, &format!("tollgate_{name}bytes_total{{{labels}}}"), count.bytes)
    };
    for (interface, counters) in &stats.interfaces {
        for (reason, (verdict, count)) in &counters.reasons {
            let verdict = if *verdict == Verdict::Pass { "pass" } else { "drop" };
            let labels = format!(
                r#"direction="ingress",interface="{interface}",reason="{reason}",verdict="{verdict}""#
            );
            both("", &labels, *count)?;
        }
    }
    for (rule, counted) in &stats.rules {
        for (reason, count) in &counted.outcomes {
            let verdict = if stats.reasons.get(reason).is_some_and(|(verdict, _)| *verdict == Verdict::Pass) {
                "pass"
            } else {
                "drop"
            };
            both("rule_", &format!(r#"reason="{reason}",rule="{rule}",verdict="{verdict}""#), *count)?;
        }
    }
    is(metrics, "tollgate_flows", stats.flows.context("no flows")?)
}

#[test]
fn a_scrape_says_what_stats_says() -> Result<()> {
    deployed(|d| {
        let (server, lan, outside) = (d.lab.ns(Host::Server), d.lab.ns(Host::Lan), d.lab.ns(Host::Outside));
        for _ in 0..3 {
            ensure!(http_get(&lan, at(8000)?, "/", PATIENCE)?.is_answered_by_port(8000), "the LAN");
        }
        tcp_connect(&outside, at(8082)?, SILENCE)?;
        tcp_connect(&outside, at(22)?, SILENCE)?;
        ping(&lan, SERVER_V4.parse()?)?;
        d.tollgate.checked(&["ban", "198.51.100.7", "--for", "1h"])?;
        // A scrape may show what another has read a moment ago.
        let (stats, metrics) = d.tollgate.settled_with(|| {
            thread::sleep(Duration::from_millis(700));
            Metrics::scrape(&server)
        })?;
        ensure!(stats.outcome("django", "service-allowed").packets >= 9, "{stats:#?}");
        ensure!(stats.outcome("crm", "service-refused").packets >= 1, "{stats:#?}");
        agree(&stats, &metrics)?;
        is(&metrics, "tollgate_bans", 1)?;
        is(&metrics, "tollgate_enforced_interfaces", 1)?;
        is(&metrics, "tollgate_policy_unconfirmed", 0)?;
        let status = d.tollgate.status()?;
        let hash = status.pointer("/policy/hash").and_then(Value::as_str).context("no hash")?;
        is(&metrics, &format!("tollgate_policy_info{{hash=\"{hash}\"}}"), 1)?;
        let loaded = metrics.get("tollgate_policy_loaded_timestamp_seconds")?;
        ensure!(loaded > 1_700_000_000.0, "{loaded}");
        ensure!(metrics.get(r#"tollgate_applies_total{result="applied"}"#)? >= 1.0, "{}", metrics.text);
        promtool(&["check", "metrics"], &metrics.text)?;
        d.tollgate.checked(&["unban", "198.51.100.7"])?;

        // Names are the policy's alone: packets make no series.
        tcp_connect(&outside, at(23)?, SILENCE)?;
        thread::sleep(Duration::from_millis(700));
        ensure!(Metrics::scrape(&server)?.len() == metrics.len(), "{}", metrics.text);
        shipped_files_name_metrics_that_there_are(&metrics)
    })
}

/// Alerts and dashboard speak of nothing that the daemon does not say.
fn shipped_files_name_metrics_that_there_are(metrics: &Metrics) -> Result<()> {
    let known = Metrics::names_in(&metrics.text);
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/tollgate.json"] {
        let text = fs::read_to_string(workspace().join("packaging").join(file)).context(file)?;
        let named = Metrics::names_in(&text);
        ensure!(!named.is_empty(), "{file} names no metric");
        for name in named {
            ensure!(known.contains(name), "{file} speaks of {name}, which is in no scrape");
        }
    }
    Ok(())
}

#[test]
fn alerts_and_dashboard_are_good() -> Result<()> {
    let folder = workspace().join("packaging");
    let path = |name: &str| folder.join("prometheus").join(name).display().to_string();
    promtool(&["check", "rules", &path("alerts.yml")], "")?;
    promtool(&["test", "rules", &path("alerts_test.yml")], "")?;
    let text = fs::read_to_string(folder.join("grafana/tollgate.json"))?;
    let dashboard: Value = serde_json::from_str(&text).context("the dashboard")?;
    let panels = dashboard.get("panels").and_then(Value::as_array).context("no panels")?;
    // Each of its queries as a rule, which promtool reads; Grafana's variables stand for something that it would not.
    let expressions =
        panels.iter().flat_map(|panel| panel.get("targets").and_then(Value::as_array)).flatten();
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (nth, target) in expressions.enumerate() {
        let expression = target.get("expr").and_then(Value::as_str).context("a target without a query")?;
        let expression = expression.replace("$__rate_interval", "5m");
        rules.push_str(&format!("  - record: panel:number:{nth}\n    expr: {}\n", Value::from(expression)));
    }
    let written = tempfile::NamedTempFile::with_suffix(".yml")?;
    fs::write(written.path(), rules)?;
    promtool(&["check", "rules", &written.path().display().to_string()], "")
}

#[test]
fn there_is_one_page_and_it_can_only_be_read() -> Result<()> {
    deployed(|d| {
        let server = d.lab.ns(Host::Server);
        for (method, path, code) in [
            ("GET", "/metrics", 200),
            ("GET", "/metrics?x=1", 200),
            ("GET", "/", 404),
            ("GET", "/metrics/", 404),
            ("GET", "/metrics/../metrics", 404),
            ("POST", "/metrics", 405),
            ("DELETE", "/metrics", 405),
            ("OPTIONS", "/metrics", 405),
            ("POST", "/apply", 404),
        ] {
            let answer = request(&server, method, path)?;
            ensure!(answer.code == code, "{method} {path}: {answer:?}");
        }
        let head = request(&server, "HEAD", "/metrics")?;
        ensure!(head.code == 200 && head.body.is_empty(), "{head:?}");
        ensure!(head.head.contains("text/plain; version=0.0.4"), "{head:?}");
        Ok(())
    })
}

#[test]
fn metrics_are_for_this_host_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("p.toml");
    fs::write(&policy, POLICY)?;
    for (address, why) in [
        ("0.0.0.0:9184", "can be reached from elsewhere"),
        ("[::]:9184", "can be reached from elsewhere"),
        ("192.168.0.104:9184", "can be reached from elsewhere"),
        ("9184", "no address to listen at"),
        ("unix:metrics.sock", "begins with /"),
    ] {
        let mut command = Command::new(tollgate_tests::tollgate::binary()?);
        let output = command.args(["run", "--metrics", address, "--policy"]).arg(&policy).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2) && said.contains(why),
            "{address}: {}: {said}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn a_unix_socket_is_for_root() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("metrics.sock");
    let mut d = Deployment::with_arguments(POLICY, &["--metrics", &format!("unix:{}", path.display())])?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    let answer = exchange(UnixStream::connect(&path)?, "GET", "/metrics")?;
    ensure!(answer.code == 200 && answer.body.contains("tollgate_build_info"), "{answer:?}");
    // The socket of a daemon that was killed is in nobody's way; somebody else's file is.
    d.tollgate.kill()?;
    d.tollgate.restart()?;
    let answer = exchange(UnixStream::connect(&path)?, "GET", "/metrics")?;
    ensure!(answer.code == 200, "{answer:?}");
    d.tollgate.kill()?;
    fs::remove_file(&path)?;
    fs::write(&path, "mine")?;
    let error = format!("{:#}", d.tollgate.restart().err().context("it started")?);
    ensure!(error.contains("metrics at unix:"), "{error}");
    ensure!(fs::read_to_string(&path)? == "mine", "the file is gone");
    Ok(())
}

#[test]
fn no_scraper_holds_up_an_apply() -> Result<()> {
    deployed(|d| {
        let server = d.lab.ns(Host::Server);
        let (over, scrapes) = (AtomicBool::new(false), AtomicU64::new(0));
        let policy = d.write_policy("next.toml", &format!("{POLICY}# next\n"))?;
        thread::scope(|scope| {
            // Connected and silent, half a request for ever, a head without an end, and answers that nobody reads.
            let silent: Vec<_> = (0..200).map(|_| connect(&server)).collect::<Result<_>>()?;
            let drip = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    let mut stream = connect(&server)?;
                    for byte in b"GET /metrics HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat_n(&b'a', 1000))
                    {
                        if over.load(Ordering::Relaxed) || stream.write_all(&[*byte]).is_err() {
                            break;
                        }
                        thread::sleep(Duration::from_millis(100));
                    }
                }
                Ok(())
            });
            let endless = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    let mut stream = connect(&server)?;
                    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
                    // Far more than it reads: the daemon hangs up, or says that this is too much.
                    for _ in 0..1000 {
                        if over.load(Ordering::Relaxed) || stream.write_all(&[b'a'; 65536]).is_err() {
                            break;
                        }
                    }
                }
                Ok(())
            });
            let greedy: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        while !over.load(Ordering::Relaxed) {
                            let mut stream = connect(&server)?;
                            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
                            let mut some = [0; 100];
                            if stream.read(&mut some).is_ok_and(|n| n > 0) {
                                scrapes.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(500));
            let begun = Instant::now();
            let applied = d.tollgate.apply(&policy);
            let took = begun.elapsed();
            let stats = d.tollgate.stats();
            over.store(true, Ordering::Relaxed);
            drop(silent);
            for hostile in greedy.into_iter().chain([drip, endless]) {
                // What they met is their own affair; that they did not panic is the test's.
                let _ = hostile.join().map_err(|_| anyhow::anyhow!("a hostile client panicked"))?;
            }
            let applied = applied?;
            ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
            ensure!(took < APPLY, "an apply took {took:?}");
            stats.map(drop)
        })?;
        // And after them everybody is served again.
        let metrics = Metrics::scrape(&server)?;
        ensure!(metrics.get("tollgate_enforced_interfaces")? == 1.0, "{}", metrics.text);
        eprintln!("{} scrapes beside the apply", scrapes.load(Ordering::Relaxed));
        ensure!(!d.tollgate.log().contains("panicked"), "{}", d.tollgate.log());
        Ok(())
    })
}
