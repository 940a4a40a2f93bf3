//! `tollgate stats --watch` says how fast counters grow: by reason, by rule and by interface.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tollgate_tests::frames::{Link, Path};
use tollgate_tests::lab::{LAN_MAC, SERVER_MAC, SERVER_PORT, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::{Deployment, Hook, Host};

const POLICY: &str =
    "version = 1\n\n[interfaces.wlp2s0]\n\n[services.sink]\nports = [\"udp/7000\"]\nallow = \"any\"\n";
/// So many lines without what must come are too many: several readings of tables, and of JSON as many seconds.
const LINES: usize = 300;

/// A command that goes on until it is dropped.
struct Watch(Child);

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends something that is dropped before each line, until a line is as it should be.
fn watched<T>(args: &[&str], mut found: impl FnMut(&str) -> Result<Option<T>>) -> Result<T> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    d.lab.isolate_server()?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let path = Path::new(Ipv4Addr::new(192, 168, 0, 50), Ipv4Addr::new(192, 168, 0, 104));
    let stray = Link { source: LAN_MAC, destination: SERVER_MAC }.ip(&path.udp(4000, 9, b"stray"));
    let mut command = d.tollgate.command()?;
    command.args(["stats", "--watch"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut watch = Watch(command.spawn()?);
    let lines = BufReader::new(watch.0.stdout.take().context("no pipe")?).lines();
    for line in lines.take(LINES) {
        if let Some(found) = found(&line?)? {
            return Ok(found);
        }
        sender.send(&vec![stray.clone(); 50])?;
    }
    bail!("{args:?}: not within {LINES} lines")
}

fn rate(reading: &Value, of: &str) -> f64 {
    reading.pointer(&format!("/rates/{of}/packets")).and_then(Value::as_f64).unwrap_or_default()
}

#[test]
fn json_has_rates_by_reason_rule_and_interface() -> Result<()> {
    let mut first = true;
    let reading = watched(&["--json"], |line| {
        let reading: Value = serde_json::from_str(line)?;
        ensure!(reading.get("rates").is_some() != first, "{reading}");
        first = false;
        Ok((rate(&reading, "reasons/no-service") > 0.0).then_some(reading))
    })?;
    let dropped = rate(&reading, "reasons/no-service");
    for of in ["rules/default/no-service", "dropped", &format!("interfaces/{UPLINK}/dropped")] {
        ensure!((rate(&reading, of) - dropped).abs() < 0.001, "{of}: not {dropped}: {reading}");
    }
    ensure!(rate(&reading, "reasons/arp") == 0.0 && rate(&reading, "seen") >= dropped, "{reading}");
    Ok(())
}

#[test]
fn one_interface_has_rates_of_its_own() -> Result<()> {
    let reading = watched(&["--json", "--interface", UPLINK], |line| {
        let reading: Value = serde_json::from_str(line)?;
        Ok((rate(&reading, "rules/default/no-service") > 0.0).then_some(reading))
    })?;
    ensure!(reading.pointer("/rates/interfaces").is_none(), "{reading}");
    Ok(())
}

#[test]
fn people_see_rates_of_each_interface() -> Result<()> {
    let mut titles = String::new();
    let line = watched(&[], |line| {
        if line.starts_with("interface") {
            line.clone_into(&mut titles);
        }
        let dropped = line.split_whitespace().last().and_then(|last| last.parse::<u64>().ok());
        Ok((line.starts_with(UPLINK) && dropped > Some(0) && titles.contains("dropped/s"))
            .then(|| line.to_owned()))
    })?;
    ensure!(line.split_whitespace().count() == 5, "{titles}\n{line}");
    Ok(())
}
