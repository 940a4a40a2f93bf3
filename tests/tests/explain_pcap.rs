//! Captures are gone through packet by packet, and what is no capture of Ethernet is refused.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tollgate_tests::frames::{Link, Path, SYN};
use tollgate_tests::lab::{ROUTER_MAC, SERVER_MAC};
use tollgate_tests::pcap::{ETHERNET, pcap, pcapng};
use tollgate_tests::{Deployment, Hook};

const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"

[limits.slow]
per-source = { connections = "1/h", burst = 2 }

[services.web]
ports = ["tcp/80"]
allow = "any"
limit = "slow"

[services.django]
ports = ["tcp/8000"]
allow = "none"
"#;

#[test]
fn captures_are_explained_row_by_row() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
    let path = Path::new(Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(192, 168, 0, 104));
    let syn = |from: u16, to: u16| link.ip(&path.tcp(from, to, SYN, 1, &[]));
    // A limit that the first two use up; a long one; one that is no frame at all.
    let long = link.ip(&path.tcp(50_004, 8000, SYN, 1, &[7; 1000]));
    let frames = vec![syn(50_000, 80), syn(50_001, 80), syn(50_002, 80), syn(50_003, 8000), long, vec![2; 9]];
    let wanted = [
        ("pass", "service-allowed", Some("web")),
        ("pass", "service-allowed", Some("web")),
        ("drop", "over-limit-connections", Some("web")),
        ("drop", "service-refused", Some("django")),
        ("drop", "service-refused", Some("django")),
    ];
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("capture");
    let name = file.display().to_string();
    let before = d.tollgate.settled_stats()?;
    for bytes in [pcap(ETHERNET, &frames), pcapng(1, &frames, 128)] {
        std::fs::write(&file, bytes)?;
        let output = d.tollgate.checked(&["explain", "--json", "--pcap", &name])?;
        let text = String::from_utf8(output.stdout)?;
        let rows: Vec<Value> = text.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
        ensure!(rows.len() == frames.len(), "{text}");
        for ((nth, row), (verdict, reason, rule)) in (1..).zip(&rows).zip(wanted) {
            ensure!(row["number"] == nth && row["verdict"] == verdict && row["reason"] == reason, "{row}");
            ensure!(row["rule"].as_str() == rule && row["error"].is_null(), "{row}");
        }
        let packet = rows[4]["packet"].as_str().context("a packet")?;
        ensure!(packet == "tcp 203.0.113.9:50004 → 192.168.0.104:8000 SYN 1054 B", "{packet}");
        let error = rows[5]["error"].as_str().context("no error")?;
        ensure!(rows[5]["verdict"].is_null() && error.contains("14 to 4096 bytes, not 9"), "{}", rows[5]);
        let people = d.tollgate.checked(&["explain", "--pcap", &name, "--interface", "wlp2s0"])?;
        let people = String::from_utf8(people.stdout)?;
        ensure!(people.lines().count() == 7 && people.contains("over-limit-connections"), "{people}");
    }
    let asked = d.tollgate.settled_stats()?.since(&before);
    for reason in ["service-allowed", "service-refused", "over-limit-connections"] {
        ensure!(asked.reason(reason).packets == 0, "a question was counted: {asked:#?}");
    }

    let cut = pcap(ETHERNET, &frames);
    for (bytes, needle) in [
        (pcap(113, &frames), "not on Ethernet"),
        (pcapng(101, &frames, 128), "not on Ethernet"),
        (cut[..cut.len() - 20].to_vec(), "cut off within packet 6"),
        (POLICY.as_bytes().to_vec(), "neither a pcap nor a pcapng file"),
        (Vec::new(), "the file is empty"),
        (pcap(ETHERNET, &vec![vec![0; 14]; 100_001]), "more than 100000 packets"),
    ] {
        std::fs::write(&file, bytes)?;
        let output = d.tollgate.output(&["explain", "--pcap", &name])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(2) && said.contains(needle) && said.contains(&name),
            "{needle}: {said}"
        );
        ensure!(output.stdout.is_empty(), "{output:?}");
    }
    for wrong in
        [&["--pcap", "/nowhere.pcap"][..], &["--pcap", &name, "--hex", "00"], &["--pcap", &name, "ping"]]
    {
        let output = d.tollgate.output(&[&["explain"], wrong].concat())?;
        ensure!(output.status.code() == Some(2), "{wrong:?}: {output:?}");
    }
    Ok(())
}
