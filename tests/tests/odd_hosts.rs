//! Hosts that are not as one would wish: tunnels, interfaces that vanish, views of the file system that do.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use tollgate_tests::lab::UPLINK;
use tollgate_tests::{Deployment, Hook, Host, Lab, Tollgate};

const POLICY: &str = "version = 1\n[interfaces.wlp2s0]\n[interfaces.\"x*\"]\n";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Names of the interfaces that `status` shows.
fn shown(tollgate: &Tollgate) -> Result<Vec<String>> {
    let status = tollgate.status()?;
    let interfaces = status.get("interfaces").and_then(|all| all.as_array()).context("no interfaces")?;
    let names = interfaces.iter().filter_map(|one| one.get("name")?.as_str().map(str::to_owned));
    Ok(names.collect())
}

/// A folder with a policy, and `tollgate run` on it until it ends.
fn run(tollgate: &Tollgate, policy: &str) -> Result<Output> {
    let path = tollgate.run_dir().join("policy.toml");
    std::fs::write(&path, policy)?;
    let output = tollgate.command()?.args(["run", "--policy"]).arg(&path).stdin(Stdio::null()).output()?;
    Ok(output)
}

#[test]
fn a_tunnel_is_refused_by_name_and_passed_over_by_pattern() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let server = d.lab.ns(Host::Server);
    server.run(&["ip", "tuntap", "add", "dev", "xtun", "mode", "tun"])?;
    let named = d.write_policy("named.toml", "version = 1\n[interfaces.xtun]\n")?;
    let output = d.tollgate.apply(&named)?;
    ensure!(output.status.code() == Some(2) && text(&output).contains("Ethernet"), "{}", text(&output));
    ensure!(shown(&d.tollgate)? == [UPLINK]);
    let pattern = d.write_policy("pattern.toml", POLICY)?;
    let output = d.tollgate.apply(&pattern)?;
    ensure!(output.status.success() && text(&output).contains("xtun is not enforced"), "{}", text(&output));
    ensure!(shown(&d.tollgate)? == [UPLINK]);
    Ok(())
}

#[test]
fn an_interface_that_vanishes_is_shown_no_more_and_hinders_nothing() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let server = d.lab.ns(Host::Server);
    server.run(&["ip", "link", "add", "x0", "type", "veth", "peer", "name", "y0"])?;
    let policy = d.write_policy("same.toml", POLICY)?;
    ensure!(d.tollgate.apply(&policy)?.status.success());
    ensure!(shown(&d.tollgate)? == [UPLINK, "x0"], "{:?}", shown(&d.tollgate)?);
    server.run(&["ip", "link", "del", "x0"])?;
    ensure!(shown(&d.tollgate)? == [UPLINK], "{:?}", shown(&d.tollgate)?);
    ensure!(d.tollgate.stats()?.interfaces.keys().eq([UPLINK]));
    let output = d.tollgate.apply(&policy)?;
    ensure!(output.status.success(), "{}", text(&output));
    // It comes back under its name with another index.
    server.run(&["ip", "link", "add", "x0", "type", "veth", "peer", "name", "y0"])?;
    ensure!(d.tollgate.apply(&policy)?.status.success());
    ensure!(shown(&d.tollgate)? == [UPLINK, "x0"], "{:?}", shown(&d.tollgate)?);
    d.tollgate.detach()?;
    ensure!(shown(&d.tollgate)?.is_empty());
    Ok(())
}

#[test]
fn an_interface_that_is_renamed_stays_enforced() -> Result<()> {
    let d = Deployment::with_policy(POLICY, Hook::AsWritten)?;
    let server = d.lab.ns(Host::Server);
    server.run(&["ip", "link", "set", UPLINK, "down"])?;
    server.run(&["ip", "link", "set", UPLINK, "name", "xlan"])?;
    server.run(&["ip", "link", "set", "xlan", "up"])?;
    ensure!(shown(&d.tollgate)? == ["xlan"], "{:?}", shown(&d.tollgate)?);
    ensure!(d.tollgate.stats()?.interfaces.keys().eq(["xlan"]));
    Ok(())
}

#[test]
fn a_first_run_that_is_refused_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let tollgate = Tollgate::prepare(&lab, &PathBuf::new(), &[])?;
    let output = run(&tollgate, "version = 1\n[interfaces.wlan77]\n")?;
    ensure!(output.status.code() == Some(2) && text(&output).contains("wlan77"), "{}", text(&output));
    ensure!(!tollgate.pins().exists(), "{} was made", tollgate.pins().display());
    let failing = "version = 1\n[interfaces.wlp2s0]\n[[test]]\nfrom = \"192.0.2.1\"\nto = \"tcp/22\"\nexpect = \"pass\"\n";
    let output = run(&tollgate, failing)?;
    ensure!(output.status.code() == Some(1), "{}: {}", output.status, text(&output));
    ensure!(text(&output).contains("policy.toml:3: test failed: tcp/22 from 192.0.2.1"), "{}", text(&output));
    ensure!(shown(&tollgate)?.is_empty());
    Ok(())
}

#[test]
fn a_private_view_of_the_file_systems_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let tollgate = Tollgate::prepare(&lab, &PathBuf::new(), &[])?;
    let path = tollgate.run_dir().join("policy.toml");
    std::fs::write(&path, POLICY)?;
    // `ip netns exec` mounts a fresh /sys: a filter that is pinned there would end with the command.
    let output = Command::new("ip")
        .args(["netns", "exec", lab.ns(Host::Server).name()])
        .arg(tollgate_tests::tollgate::binary()?)
        .args(tollgate.directories())
        .args(["run", "--policy"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.code() == Some(1), "{}: {}", output.status, text(&output));
    ensure!(text(&output).contains("nsenter --net"), "{}", text(&output));
    Ok(())
}
