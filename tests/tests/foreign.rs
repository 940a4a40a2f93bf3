//! Pins that another version or another product has made: every command says so, ends with 1, and touches nothing.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData, MapInfo};
use proxy_common::abi::{ABI_VERSION, Identity};
use tollgate_tests::alternate::{Judge, TARGETS, Turn, policy};
use tollgate_tests::holdings::Holdings;
use tollgate_tests::{Deployment, Hook, Lab, Tollgate};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command that must be refused; gives what it said. One that goes on is ended, and an error.
fn refused(tollgate: &Tollgate, args: &[&str]) -> Result<String> {
    let mut command = tollgate.command()?;
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let mut said = String::new();
    child.stderr.take().context("no pipe from tollgate")?.read_to_string(&mut said)?;
    ensure!(status.code() == Some(1), "{}: {status}: {said}", args.join(" "));
    ensure!(!said.contains("panicked"), "{}: {said}", args.join(" "));
    Ok(said)
}

fn identity(path: &Path) -> Result<Array<MapData, Identity>> {
    Ok(Array::try_from(Map::Array(MapData::from_pin(path)?))?)
}

/// Every command that would read or write what is pinned.
fn all_refuse(d: &Deployment, file: &str, expected: &[&str]) -> Result<()> {
    let before = Holdings::of(&d.tollgate)?;
    let commands: [&[&str]; 8] = [
        &["run", "--policy", file],
        &["status"],
        &["stats"],
        &["ban", "198.51.100.7"],
        &["unban", "198.51.100.7"],
        &["explain", "tcp", "from", "203.0.113.9", "to", ":7010"],
        &["monitor", "--count", "1"],
        &["detach"],
    ];
    for args in commands {
        let said = refused(&d.tollgate, args)?;
        let root = d.tollgate.pins().display().to_string();
        for part in expected.iter().copied().chain([root.as_str(), "nothing was touched"]) {
            ensure!(said.contains(part), "`{}` does not say {part:?}: {said}", args.join(" "));
        }
        let after = Holdings::of(&d.tollgate)?;
        ensure!(after == before, "`{}` has changed something: {before:#?}, then {after:#?}", args.join(" "));
    }
    Ok(())
}

/// The programs do not ask whose the pins are.
fn is_enforced(judge: &Judge) -> Result<()> {
    let before = judge.arrived()?;
    let sent = judge.ask()?;
    let start = Instant::now();
    loop {
        let after = judge.arrived()?;
        let fares = |one: &tollgate_tests::alternate::Target| {
            after[one.name] - before[one.name] == if one.is_open(Turn::A) { sent } else { 0 }
        };
        if TARGETS.iter().all(fares) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "the policy is not enforced: {before:?}, then {after:?}");
    }
}

#[test]
fn pins_of_another_version_or_product_are_refused_and_left_alone() -> Result<()> {
    let mut d = Deployment::with_policy(&policy(Turn::A, "hook = \"native\""), Hook::AsWritten)?;
    let judge = Judge::start(&d.lab)?;
    let file = d.write_policy("other.toml", &policy(Turn::B, "hook = \"native\""))?.display().to_string();
    d.tollgate.kill()?;
    let path = d.tollgate.pins().join("shared/IDENTITY");
    let (mut map, id) = (identity(&path)?, MapInfo::from_pin(&path)?.id());
    let ours = map.get(&0, 0)?;

    for version in [ABI_VERSION - 1, ABI_VERSION + 1] {
        let theirs = Identity { abi_version: version, ..ours };
        map.set(0, theirs, 0)?;
        let layout = format!("layout {version}, this one has {ABI_VERSION}");
        all_refuse(
            &d,
            &file,
            &["another version of Tollgate", &layout, "`tollgate detach` of that version"],
        )?;
        ensure!(map.get(&0, 0)?.abi_version == version, "the identity was overwritten");
        is_enforced(&judge)?;
    }

    let remedy = format!("rm -r {}", d.tollgate.pins().display());
    map.set(0, Identity { magic: 0x6e6f_7420_6f75_7273, ..ours }, 0)?;
    all_refuse(&d, &file, &["an IDENTITY that is not Tollgate's", &remedy])?;
    ensure!(map.get(&0, 0)?.magic == 0x6e6f_7420_6f75_7273, "the identity was overwritten");
    is_enforced(&judge)?;

    // A map of the same name and another shape.
    fs::remove_file(&path)?;
    MapData::from_pin(d.tollgate.pins().join("shared/RULES"))?.pin(&path)?;
    all_refuse(&d, &file, &["an IDENTITY that is not Tollgate's", &remedy])?;
    is_enforced(&judge)?;

    // With what was there before all is as it was.
    fs::remove_file(&path)?;
    map.set(0, ours, 0)?;
    MapData::from_id(id)?.pin(&path)?;
    judge.finds(&d.tollgate, Turn::A)?;
    d.tollgate.restart()?;
    judge.finds(&d.tollgate, Turn::A)?;
    Ok(())
}

#[test]
fn a_folder_that_somebody_else_uses_is_refused_and_left_alone() -> Result<()> {
    let lab = Lab::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("policy.toml");
    fs::write(&file, policy(Turn::A, ""))?;
    let tollgate = Tollgate::prepare(&lab, &file, &[])?;
    let theirs = tollgate.pins().join("somebody/globals");
    fs::create_dir_all(&theirs)?;
    let before = Holdings::of(&tollgate)?;
    for args in [&["run", "--policy", &file.display().to_string()][..], &["status"], &["detach"]] {
        let said = refused(&tollgate, args)?;
        for part in ["something that is not Tollgate's (somebody)", "nothing was touched", "--bpffs"] {
            ensure!(said.contains(part), "`{}` does not say {part:?}: {said}", args.join(" "));
        }
        ensure!(Holdings::of(&tollgate)? == before && theirs.is_dir(), "`{}` has touched it", args.join(" "));
    }
    Ok(())
}
