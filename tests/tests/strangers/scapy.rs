//! Frames that scapy has made (`tests/scapy/*.py`): evasions, one by one, and random fields. Each script runs once, for both
//! hooks, and its frames are sent as they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use tollgate_tests::Hook;

use crate::scene::{Run, Sends, by_both_hooks, strangers};

/// The system's Python, for which distributions package scapy; another may come first on `PATH`.
const PYTHON: &str = "/usr/bin/python3";

/// The frames that a script writes, one a line, in hexadecimal digits.
pub fn frames(script: &'static str) -> Result<Vec<Vec<u8>>> {
    static MADE: Mutex<BTreeMap<&str, Vec<Vec<u8>>>> = Mutex::new(BTreeMap::new());

    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(frames) = made.get(script) {
        return Ok(frames.clone());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scapy").join(script);
    let output = Command::new(PYTHON).arg("-B").arg(&path).output().context(PYTHON)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}: {errors} (without scapy: apt-get install python3-scapy)",
        path.display()
    );
    let frames: Vec<_> = str::from_utf8(&output.stdout)?.lines().map(bytes).collect::<Result<_>>()?;
    made.insert(script, frames.clone());
    Ok(frames)
}

fn bytes(line: &str) -> Result<Vec<u8>> {
    let pairs = line.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?))
        .collect::<Result<_>>()
        .context(line.to_owned())
}

/// All frames of a script must arrive; it made at least so many.
fn run(name: &'static str, script: &'static str, at_least: usize) -> Result<Run> {
    let frames = frames(script)?;
    ensure!(frames.len() >= at_least, "{script} has made {} frames", frames.len());
    let count = frames.len() as u64;
    Ok(Run { name, sends: Sends::Frames(frames), passes: &[], drops: &[], random: false, frames: count })
}

fn scapy(hook: Hook) -> Result<()> {
    strangers(
        hook,
        &[
            Run {
                // First fragments to the open port are allowed, and so is what follows them.
                passes: &["service-allowed", "fragment-known", "ping"],
                drops: &[
                    "fragment-malformed",
                    "fragment-orphan",
                    "no-service",
                    "service-refused",
                    "source-invalid",
                ],
                ..run("scapy: fragments", "fragments.py", 460)?
            },
            Run {
                passes: &["service-allowed", "fragment-known", "ping"],
                drops: &[
                    "fragment-malformed",
                    "fragment-orphan",
                    "ipv6-header-chain",
                    "ipv6-routing-header",
                    "malformed-ipv6",
                    "malformed-tcp",
                    "no-service",
                    "service-refused",
                    "tcp-flags",
                ],
                ..run("scapy: extension headers", "extensions.py", 370)?
            },
            Run {
                drops: &[
                    "destination-isolated",
                    "malformed-ipv4",
                    "malformed-ipv6",
                    "malformed-tcp",
                    "no-service",
                    "service-refused",
                    "source-invalid",
                    "source-spoofed",
                    "tcp-flags",
                    "unknown-ethertype",
                    "vlan-depth",
                ],
                ..run("scapy: disguises", "disguises.py", 1900)?
            },
            Run {
                passes: &["ping", "icmp-error", "fragment-known"],
                drops: &[
                    "fragment-malformed",
                    "fragment-orphan",
                    "malformed-ipv4",
                    "malformed-ipv6",
                    "no-service",
                    "service-refused",
                    "tcp-flags",
                ],
                random: true,
                ..run("scapy: random fields", "random_fields.py", 2400)?
            },
        ],
    )
}

by_both_hooks!(scapy);
