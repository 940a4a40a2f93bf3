//! `explain` says what really happens, and leaves no trace.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::frames::{Link, Path, SYN};
use tollgate_tests::lab::{OUTSIDE_V4, ROUTER_MAC, SERVER_MAC, SERVER_PORT, SERVER_V4};
use tollgate_tests::sender::Sender;
use tollgate_tests::traffic::tcp_connect;
use tollgate_tests::{Deployment, Hook, Host};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"

[zones]
lan = ["192.168.0.0/24"]
strangers = ["203.0.113.0/24"]

[limits.slow]
per-source = { connections = "1/h", burst = 3 }

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]

[services.web]
ports = ["tcp/80"]
allow = "any"
limit = "slow"
"#;

fn explain(d: &Deployment, args: &[&str]) -> Result<Value> {
    let args = [&["explain", "--json"], args].concat();
    Ok(serde_json::from_slice(&d.tollgate.checked(&args)?.stdout)?)
}

fn reason(d: &Deployment, args: &[&str]) -> Result<String> {
    let answer = explain(d, args)?;
    Ok(answer["reason"].as_str().with_context(|| format!("{answer}"))?.to_owned())
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn explains_what_happens(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    let before = d.tollgate.settled_stats()?;
    let refused = explain(&d, &["tcp", "from", OUTSIDE_V4, "to", ":8000", "in", "wlp2s0"])?;
    ensure!(refused["verdict"] == "drop" && refused["reason"] == "service-refused", "{refused}");
    ensure!(
        refused["rule"] == "django" && refused["zones"] == serde_json::json!(["strangers", "any"]),
        "{refused}"
    );
    // The line of `[services.django]`, whatever line the lab's hook has added.
    let text = std::fs::read_to_string(refused["policy"].as_str().context("a path")?)?;
    let line = text.lines().position(|line| line == "[services.django]").context("a service")? + 1;
    ensure!(refused["rule_line"] == line, "{refused}");
    ensure!(reason(&d, &["tcp", "from", "192.168.0.50", "to", ":8000"])? == "service-allowed");
    ensure!(reason(&d, &["udp", "from", OUTSIDE_V4, "to", ":9"])? == "no-service");
    ensure!(reason(&d, &["ping", "from", OUTSIDE_V4])? == "ping");
    ensure!(reason(&d, &["tcp", "from", "127.0.0.1", "to", ":80"])? == "source-invalid");
    ensure!(reason(&d, &["tcp", "from", "2001:db8:113::9", "to", ":8000"])? == "service-refused");
    let people = d.tollgate.checked(&["explain", "tcp from 203.0.113.9 to :8000"])?;
    let people = String::from_utf8_lossy(&people.stdout).into_owned();
    ensure!(people.contains("strangers") && people.contains(&format!(":{line})")), "{people}");

    // Frames: a tag, a tag too many, a fragment without its first.
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let server: Ipv4Addr = SERVER_V4.parse()?;
    let path = Path::new(Ipv4Addr::new(203, 0, 113, 9), server);
    let syn = path.tcp(50_000, 8000, SYN, 1, &[]);
    for (tags, wanted) in [(1, "service-refused"), (2, "service-refused"), (3, "vlan-depth")] {
        // By TC the kernel takes the outermost tag off before.
        let tags = if hook == Hook::Tc { tags + 1 } else { tags };
        let frame = link.tagged(&vec![(0x8100, 5); tags], 0x0800, &syn);
        ensure!(reason(&d, &["--hex", &hex(&frame)])? == wanted, "{tags} tags");
    }
    let mut later = syn.clone();
    later[6..8].copy_from_slice(&[0, 9]);
    ensure!(reason(&d, &["--hex", &hex(&link.ip(&later))])? == "fragment-orphan");
    for (bad, code) in [
        (&["--hex", "0g"][..], 2),
        (&["tcp", "from", "nowhere"], 2),
        (&["tcp from 192.0.2.1 to :1 in eth9"], 2),
    ] {
        let output = d.tollgate.output(&[&["explain"], bad].concat())?;
        ensure!(output.status.code() == Some(code), "{bad:?}: {output:?}");
    }
    // Hosts of the lab may ask for each other's addresses meanwhile; what was asked about has other reasons.
    let asked = d.tollgate.settled_stats()?.since(&before);
    for reason in [
        "service-allowed",
        "service-refused",
        "no-service",
        "ping",
        "source-invalid",
        "vlan-depth",
        "fragment-orphan",
    ] {
        ensure!(asked.reason(reason).packets == 0, "a question was counted: {asked:#?}");
    }

    // A source that has used up its limit is told so; a question uses nothing up.
    for _ in 0..10 {
        ensure!(reason(&d, &["tcp", "from", "198.18.0.7", "to", ":80"])? == "service-allowed");
    }
    let spender = Path::new(Ipv4Addr::new(198, 18, 0, 7), server);
    let syns: Vec<_> = (0..4).map(|n| link.ip(&spender.tcp(50_000 + n, 80, SYN, 1, &[]))).collect();
    Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?.send(&syns)?;
    let delta = d.tollgate.settled_stats()?.since(&before);
    ensure!(delta.outcome("web", "over-limit-connections").packets == 1, "{delta:#?}");
    ensure!(reason(&d, &["tcp", "from", "198.18.0.7", "to", ":80"])? == "over-limit-connections");
    ensure!(reason(&d, &["tcp", "from", "198.18.0.8", "to", ":80"])? == "service-allowed");

    // What answers a connection of this host is known.
    let outside = SocketAddr::new(OUTSIDE_V4.parse()?, 80);
    let (local, stream) = d.lab.ns(Host::Server).in_ns(|| {
        let stream = std::net::TcpStream::connect_timeout(&outside, Duration::from_secs(10))?;
        Ok((stream.local_addr()?, stream))
    })?;
    let to = local.to_string();
    ensure!(reason(&d, &["--ack", "tcp", "from", &outside.to_string(), "to", &to])? == "reply");
    ensure!(reason(&d, &["--ack", "tcp", "from", "203.0.113.10:80", "to", &to])? == "no-service");
    drop(stream);
    // And all of it without a daemon.
    let mut d = d;
    d.tollgate.kill()?;
    ensure!(reason(&d, &["tcp", "from", "192.168.0.50", "to", ":8000"])? == "service-allowed");
    ensure!(
        tcp_connect(&d.lab.ns(Host::Lan), SocketAddr::new(SERVER_V4.parse()?, 8000), Duration::from_secs(5))?
            .is_answered()
    );
    Ok(())
}

#[test]
fn explains_what_happens_by_native_xdp() -> Result<()> {
    explains_what_happens(Hook::AsWritten)
}

#[test]
fn explains_what_happens_by_tc() -> Result<()> {
    explains_what_happens(Hook::Tc)
}
