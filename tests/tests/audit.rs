//! A service that audits drops nothing, and says what it would have dropped: in counters, to `monitor`, and when it is applied.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use tollgate_tests::frames::{Link, Path};
use tollgate_tests::lab::{LAN_MAC, SERVER_MAC, SERVER_PORT};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::UdpService;
use tollgate_tests::{Deployment, Hook, Host, Monitor};

/// One service that refuses, denies and limits, each in front of a source of its own.
const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
lan = ["192.168.0.0/24"]
bad = ["192.168.0.66"]

[limits.three]
per-source = { packets = "1/h", burst = 3 }

[services.sink]
ports = ["udp/7001"]
allow = ["lan"]
deny = ["bad"]
limit = "three"
"#;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const LINK: Link = Link { source: LAN_MAC, destination: SERVER_MAC };
/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Datagrams of each source.
const EACH: u64 = 10;
/// Source, what it gets if the service drops and if it audits, and how many of its datagrams.
const CASES: [(Ipv4Addr, &str, &str, u64); 3] = [
    (Ipv4Addr::new(203, 0, 113, 9), "service-refused", "audit-refused", EACH),
    (Ipv4Addr::new(192, 168, 0, 66), "service-denied", "audit-denied", EACH),
    (Ipv4Addr::new(192, 168, 0, 50), "over-limit-packets", "audit-over-packets", EACH - 3),
];

/// So many datagrams reach the service, and soon.
fn has_come(service: &UdpService, wanted: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while service.received() < wanted && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    let come = service.received();
    ensure!(come == wanted, "{come} datagrams have come, not {wanted}");
    Ok(())
}

fn audits(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    d.lab.isolate_server()?;
    let service = UdpService::start(&d.lab.ns(Host::Server), 7001)?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let send = || -> Result<()> {
        for (source, ..) in CASES {
            let frame = LINK.ip(&Path::new(source, SERVER).udp(4000, 7001, b"audit"));
            sender.send(&vec![frame; EACH as usize])?;
        }
        Ok(())
    };

    let before = d.tollgate.settled_stats()?;
    send()?;
    let delta = d.tollgate.settled_stats()?.since(&before);
    delta.adds_up()?;
    for (source, dropped, _, many) in CASES {
        ensure!(delta.outcome("sink", dropped).packets == many, "{source}: {delta:?}");
    }
    has_come(&service, 3)?;

    // Its own `refuse` counts for nothing while it audits.
    let text = format!("{POLICY}refuse = \"reject\"\naudit = true\n");
    let path = d.write_policy("audit.toml", &hook.of(&text)?)?;
    let said = d.tollgate.apply(&path)?;
    let warned = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.success(), "{warned}");
    ensure!(warned.contains("\"sink\" audits") || warned.contains("sink audits"), "no warning: {warned}");
    let monitor = Monitor::start(&d.tollgate, &["--rule", "sink"])?;
    let before = d.tollgate.settled_stats()?;
    send()?;
    let delta = d.tollgate.settled_stats()?.since(&before);
    delta.adds_up()?;
    // The bucket of the third source is empty since before: a policy that is applied anew keeps it.
    for (source, dropped, audited, _) in CASES {
        ensure!(delta.outcome("sink", audited).packets == EACH, "{source} {audited}: {delta:?}");
        ensure!(delta.outcome("sink", dropped).packets == 0, "{source} is dropped: {delta:?}");
    }
    has_come(&service, 3 + 3 * EACH)?;
    let mut told = Vec::new();
    while told.len() < 3 * EACH as usize {
        told.push(monitor.event()?);
    }
    for (source, _, audited, _) in CASES {
        let of = |event: &&Value| event["source"] == source.to_string() && event["reason"] == audited;
        let many = told.iter().filter(of).count() as u64;
        ensure!(many == EACH, "{many} events of {source}: {told:?}");
    }
    Ok(())
}

#[test]
fn what_would_be_dropped_passes_and_is_told_of_by_native_xdp() -> Result<()> {
    audits(Hook::AsWritten)
}

#[test]
fn what_would_be_dropped_passes_and_is_told_of_by_tc() -> Result<()> {
    audits(Hook::Tc)
}

#[test]
fn other_steps_do_not_audit() -> Result<()> {
    let text =
        POLICY.replace("default = \"drop\"", "default = \"drop\"\ndeny = [\"bad\"]") + "audit = true\n";
    let d = Deployment::with_policy(&text, Hook::AsWritten)?;
    d.lab.isolate_server()?;
    let service = UdpService::start(&d.lab.ns(Host::Server), 7001)?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let before = d.tollgate.settled_stats()?;
    let denied = LINK.ip(&Path::new(CASES[1].0, SERVER).udp(4000, 7001, b"audit"));
    let stray = LINK.ip(&Path::new(CASES[2].0, SERVER).udp(4000, 7002, b"audit"));
    sender.send(&[denied, stray])?;
    let delta = d.tollgate.settled_stats()?.since(&before);
    let one = |name: &str| delta.reason(name).packets;
    ensure!((one("source-denied"), one("no-service")) == (1, 1), "{delta:?}");
    ensure!(service.received() == 0, "something came through");
    Ok(())
}
