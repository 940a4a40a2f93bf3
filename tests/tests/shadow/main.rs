//! A candidate in the shadow of the policy in force: what the two treat differently is counted by source, service and reason,
//! nothing that is enforced changes, and nothing is left of it when it ends.

mod alone;
mod life;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{MapInfo, MapType, loaded_maps};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_programs};
use serde_json::Value;
use tollgate_tests::counters::Stats;
use tollgate_tests::frames::{Link, Path, checksum};
use tollgate_tests::lab::{LAN_MAC, ROUTER_MAC, SERVER_MAC, SERVER_PORT, UPLINK};
use tollgate_tests::sender::Sender;
use tollgate_tests::services::UdpService;
use tollgate_tests::{Deployment, Hook, Host};

/// What is enforced. The candidate closes `web` to all but the LAN, opens `closed` to it, and halves the limit.
const POLICY: &str = r#"
version = 1

[interfaces.wlp2s0]
hook = "auto"
default = "drop"

[zones]
everyone = "any"
lan = ["192.168.0.0/24"]

[limits.few]
per-source = { packets = "6/h", burst = 10 }

[services.web]
ports = ["udp/7001"]
allow = ["everyone"]

[services.closed]
ports = ["udp/7002"]
allow = "none"

[services.slow]
ports = ["udp/7003"]
allow = ["everyone"]
limit = "few"
"#;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);
const LINK: Link = Link { source: LAN_MAC, destination: SERVER_MAC };
/// Longer than anything takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sources of strangers that lose `web`.
const STRANGERS: u8 = 37;
/// Room for sources in each direction.
const ROOM: u64 = 32_768;

fn candidate(hook: Hook) -> Result<String> {
    let text = POLICY
        .replace(
            "ports = [\"udp/7001\"]\nallow = [\"everyone\"]",
            "ports = [\"udp/7001\"]\nallow = [\"lan\"]",
        )
        .replace("allow = \"none\"", "allow = [\"lan\"]")
        .replace("burst = 10", "burst = 4");
    hook.of(&text)
}

/// A candidate runs in the shadow; gives what was said.
fn shadow(d: &Deployment, text: &str) -> Result<String> {
    let path = d.write_policy("candidate.toml", text)?;
    let path = path.to_str().context("a path")?;
    let output = d.tollgate.checked(&["apply", "--shadow", path])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn number(value: &Value, pointer: &str) -> Result<u64> {
    value.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no {pointer} in {value}"))
}

/// Rows of a report of which `text` is true for each of the pairs.
fn rows<'a>(report: &'a Value, pointer: &str, wanted: &[(&str, &str)]) -> Result<Vec<&'a Value>> {
    let all = report.pointer(pointer).and_then(Value::as_array).context("no rows")?;
    let is = |row: &&Value| wanted.iter().all(|(at, text)| row.pointer(at) == Some(&Value::from(*text)));
    Ok(all.iter().filter(is).collect())
}

/// The folder of the uplink's pins.
fn uplink(d: &Deployment) -> Result<PathBuf> {
    Ok(d.tollgate.pins().join(format!("interface-{}", d.lab.ns(Host::Server).ifindex(UPLINK)?)))
}

/// The ingress program on the uplink.
fn program(d: &Deployment) -> Result<ProgramInfo> {
    let folder = uplink(d)?;
    let pins = ["ingress-xdp-native", "ingress-tc-tcx"].map(|name| folder.join(name));
    let pin = pins.iter().find(|pin| pin.exists()).context("nothing is on the hook")?;
    let id = FdLink::from(PinnedLink::from_pin(pin)?).info()?.program_id();
    loaded_programs().filter_map(Result::ok).find(|one| one.id() == id).context("no program")
}

/// Programs and maps of the kernel that are there for the shadow alone.
fn of_the_shadow(d: &Deployment, before: &ProgramInfo) -> Result<(HashSet<u32>, HashSet<u32>)> {
    let carry = MapInfo::from_pin(d.tollgate.pins().join("shadow/CARRY"))?.id();
    let (mut programs, mut maps) = (HashSet::new(), HashSet::new());
    for one in loaded_programs().filter_map(Result::ok) {
        // Programs of others come and go.
        let used = one.map_ids().ok().flatten().unwrap_or_default();
        if used.contains(&carry) {
            programs.insert(one.id());
            maps.extend(used);
        }
    }
    for id in before.map_ids()?.unwrap_or_default() {
        maps.remove(&id);
    }
    for entry in std::fs::read_dir(d.tollgate.pins().join("shared"))? {
        maps.remove(&MapInfo::from_pin(entry?.path())?.id());
    }
    // Linux (6.18) keeps an array of programs, emptied, if somebody lists maps in the moment that it empties it: with or
    // without a shadow, and other tests list maps.
    for one in loaded_maps().filter_map(Result::ok) {
        if one.map_type().is_ok_and(|kind| kind == MapType::ProgramArray) {
            maps.remove(&one.id());
        }
    }
    Ok((programs, maps))
}

/// Nothing of these is in the kernel any more, soon.
fn are_gone(programs: &HashSet<u32>, maps: &HashSet<u32>) -> Result<()> {
    let start = Instant::now();
    loop {
        let left: Vec<_> =
            loaded_programs().filter_map(Result::ok).filter(|one| programs.contains(&one.id())).collect();
        let maps: Vec<_> =
            loaded_maps().filter_map(Result::ok).filter(|one| maps.contains(&one.id())).collect();
        if left.is_empty() && maps.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "left behind: {left:?} {maps:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The traffic, and how much of it there is: strangers to `web`, two each; the LAN to `web`, `closed` and `slow`.
fn traffic() -> (Vec<Vec<u8>>, u64) {
    let to = |source: Ipv4Addr, port| LINK.ip(&Path::new(source, SERVER).udp(4000, port, b"shadow"));
    let mut frames = Vec::new();
    for n in 1..=STRANGERS {
        frames.extend(vec![to(Ipv4Addr::new(203, 0, 113, n), 7001); 2]);
    }
    frames.extend(vec![to(LAN, 7001); 5]);
    for n in 60..63 {
        frames.extend(vec![to(Ipv4Addr::new(192, 168, 0, n), 7002); 4]);
    }
    frames.extend(vec![to(Ipv4Addr::new(203, 0, 113, 9), 7002); 6]);
    let many = frames.len() as u64;
    (frames, many)
}

/// Runs `work` and gives what the counters say of it.
fn counted(d: &Deployment, work: impl FnOnce() -> Result<()>) -> Result<Stats> {
    let before = d.tollgate.settled_stats()?;
    work()?;
    let delta = d.tollgate.settled_stats()?.since(&before);
    delta.adds_up()?;
    Ok(delta)
}

fn differences_are_counted(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    d.lab.isolate_server()?;
    let service = UdpService::start(&d.lab.ns(Host::Server), 7001)?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let (frames, many) = traffic();
    let alone = counted(&d, || sender.send(&frames))?;
    ensure!(alone.seen.packets == many, "{alone:#?}");
    let before = program(&d)?;

    let text = candidate(hook)?;
    let said = shadow(&d, &text)?;
    ensure!(said.contains("runs in the shadow of what is enforced, on wlp2s0"), "{said}");
    let during = program(&d)?;
    ensure!(during.size_translated() > before.size_translated(), "{before:?} {during:?}");
    let (programs, maps) = of_the_shadow(&d, &before)?;
    ensure!(programs.len() == 2 && maps.len() > 10, "{programs:?} {maps:?}");
    let status = d.tollgate.status()?;
    ensure!(status.pointer("/shadow/interfaces/0") == Some(&UPLINK.into()), "{status}");

    // The same traffic has the same fate, and is counted as before.
    let received = service.received();
    let beside = counted(&d, || sender.send(&frames))?;
    ensure!(beside == alone, "{alone:#?} without a shadow, {beside:#?} with one");
    let start = Instant::now();
    let wanted = received + 2 * u64::from(STRANGERS) + 5;
    while service.received() < wanted && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    ensure!(service.received() == wanted, "{} datagrams have come, not {wanted}", service.received());

    let report = d.tollgate.json("shadow")?;
    let (strangers, lost) = (u64::from(STRANGERS), 2 * u64::from(STRANGERS));
    ensure!(number(&report, "/compared/packets")? == many, "{report}");
    ensure!(number(&report, "/alike/packets")? == 5 + 6, "{report}");
    ensure!(number(&report, "/newly_dropped/packets")? == lost, "{report}");
    ensure!(number(&report, "/newly_dropped/sources")? == strangers, "{report}");
    ensure!(number(&report, "/newly_passed/packets")? == 12, "{report}");
    ensure!(number(&report, "/newly_passed/sources")? == 3, "{report}");
    let bytes = 2 * strangers * frames[0].len() as u64;
    ensure!(number(&report, "/newly_dropped/bytes")? == bytes, "{report}");
    let line = 1 + text.lines().position(|line| line == "[services.web]").context("a line")? as u64;
    let ways = rows(
        &report,
        "/newly_dropped/by_rule",
        &[
            ("/service", "web"),
            ("/in_force/reason", "service-allowed"),
            ("/in_force/rule", "web"),
            ("/candidate/reason", "service-refused"),
            ("/to", "udp/7001"),
        ],
    )?;
    ensure!(ways.len() == 1 && number(ways[0], "/packets")? == lost, "{report}");
    ensure!(number(ways[0], "/sources")? == strangers, "{report}");
    ensure!(
        number(ways[0], "/candidate/line")? == line && number(ways[0], "/in_force/line")? > 0,
        "{report}"
    );
    for n in 1..=STRANGERS {
        let source = Ipv4Addr::new(203, 0, 113, n).to_string();
        let of = rows(&report, "/newly_dropped/by_source", &[("/source", &source), ("/service", "web")])?;
        ensure!(of.len() == 1 && number(of[0], "/packets")? == 2, "{source}: {report}");
    }
    let opened =
        [("/service", "closed"), ("/candidate/reason", "service-allowed"), ("/source", "192.168.0.61")];
    let opened = rows(&report, "/newly_passed/by_source", &opened)?;
    ensure!(opened.len() == 1 && number(opened[0], "/packets")? == 4, "{report}");
    let said = d.tollgate.checked(&["shadow"])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.contains(&format!("would newly drop these {STRANGERS} sources")), "{said}");
    ensure!(said.contains("would newly let pass these 3 sources"), "{said}");

    let said = d.tollgate.checked(&["shadow", "--stop"])?;
    ensure!(String::from_utf8_lossy(&said.stdout).contains("candidate.toml"), "{said:?}");
    let after = program(&d)?;
    ensure!(after.id() == before.id() && after.size_translated() == before.size_translated(), "{after:?}");
    ensure!(!d.tollgate.pins().join("shadow").exists(), "pins are left");
    are_gone(&programs, &maps)?;
    ensure!(d.tollgate.status()?.get("shadow") == Some(&Value::Null), "{}", d.tollgate.status()?);
    ensure!(d.tollgate.output(&["shadow"])?.status.code() == Some(1), "a shadow is still shown");
    ensure!(counted(&d, || sender.send(&frames))? == alone, "after the shadow");
    Ok(())
}

#[test]
fn differences_are_counted_by_native_xdp() -> Result<()> {
    differences_are_counted(Hook::AsWritten)
}

#[test]
fn differences_are_counted_by_tc() -> Result<()> {
    differences_are_counted(Hook::Tc)
}

/// A limit is charged once by each policy, each to state of its own, which begins with what sources owe; and fragments are
/// judged by what became of their first one under the same policy.
fn state_is_private(hook: Hook) -> Result<()> {
    let d = Deployment::with_policy(POLICY, hook)?;
    d.lab.isolate_server()?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    let slow = |source| LINK.ip(&Path::new(source, SERVER).udp(4000, 7003, b"slow"));
    let (indebted, fresh) = (Ipv4Addr::new(192, 168, 0, 70), Ipv4Addr::new(192, 168, 0, 71));
    sender.send(&vec![slow(indebted); 3])?;
    d.tollgate.settled_stats()?;
    shadow(&d, &candidate(hook)?)?;

    let delta = counted(&d, || sender.send(&vec![slow(fresh); 12]))?;
    ensure!(delta.outcome("slow", "service-allowed").packets == 10, "{delta:#?}");
    ensure!(delta.outcome("slow", "over-limit-packets").packets == 2, "{delta:#?}");
    let delta = counted(&d, || sender.send(&vec![slow(indebted); 7]))?;
    ensure!(delta.outcome("slow", "service-allowed").packets == 7, "{delta:#?}");
    let report = d.tollgate.json("shadow")?;
    for (source, wanted) in [(fresh, 6), (indebted, 6)] {
        let source = source.to_string();
        let of = rows(
            &report,
            "/newly_dropped/by_source",
            &[("/source", &source), ("/candidate/reason", "over-limit-packets"), ("/candidate/rule", "slow")],
        )?;
        ensure!(of.len() == 1 && number(of[0], "/packets")? == wanted, "{source}: {report}");
    }

    let mut first = LINK.ip(&Path::new(Ipv4Addr::new(203, 0, 113, 5), SERVER).udp(4000, 7001, &[0; 32]));
    let mut later = first.clone();
    (first[20], later[21]) = (0x20, 5);
    for frame in [&mut first, &mut later] {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let delta = counted(&d, || sender.send(&[first, later]))?;
    ensure!(delta.reason("fragment-known").packets == 1, "{delta:#?}");
    let report = d.tollgate.json("shadow")?;
    let known = [("/in_force/reason", "fragment-known"), ("/candidate/reason", "fragment-orphan")];
    ensure!(rows(&report, "/newly_dropped/by_source", &known)?.len() == 1, "{report}");

    // What the server begins is answered under both policies: the candidate knows the live flows.
    let alike = number(&report, "/alike/packets")?;
    let remote = Ipv4Addr::new(203, 0, 113, 77);
    let out = Link { source: SERVER_MAC, destination: ROUTER_MAC };
    let question = out.ip(&Path::new(SERVER, remote).udp(5000, 53, b"who?"));
    Sender::as_host(&d.lab.ns(Host::Server), UPLINK)?.send(&[question])?;
    d.tollgate.settled_stats()?;
    let answer = LINK.ip(&Path::new(remote, SERVER).udp(53, 5000, b"me"));
    let delta = counted(&d, || sender.send(&vec![answer; 3]))?;
    ensure!(delta.reason("reply").packets == 3, "{delta:#?}");
    let report = d.tollgate.json("shadow")?;
    ensure!(number(&report, "/alike/packets")? == alike + 3, "{report}");
    Ok(())
}

#[test]
fn state_is_private_by_native_xdp() -> Result<()> {
    state_is_private(Hook::AsWritten)
}

#[test]
fn state_is_private_by_tc() -> Result<()> {
    state_is_private(Hook::Tc)
}

/// What is listed is exact, what has no room is counted, and a flood makes nothing grow.
fn a_flood_of_sources_is_bounded(hook: Hook) -> Result<()> {
    const SOURCES: u32 = 65_536;
    let d = Deployment::with_policy(POLICY, hook)?;
    d.lab.isolate_server()?;
    let sender = Sender::open(&d.lab.ns(Host::Router), SERVER_PORT)?;
    shadow(&d, &candidate(hook)?)?;
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    let frames: Vec<_> = (0..SOURCES)
        .map(|n| LINK.ip(&Path::new(Ipv4Addr::from(first + n), SERVER).udp(4000, 7001, b"flood")))
        .collect();
    let delta = counted(&d, || sender.flood(&frames, 20_000, 2 * u64::from(SOURCES)).map(drop))?;
    let seen = delta.outcome("web", "service-allowed").packets;
    ensure!(seen == 2 * u64::from(SOURCES), "{delta:#?}");
    let report = d.tollgate.json("shadow")?;
    ensure!(number(&report, "/newly_dropped/packets")? == seen, "{report:.300}");
    ensure!(number(&report, "/newly_dropped/sources")? == ROOM, "{report:.300}");
    ensure!(number(&report, "/newly_dropped/unlisted/packets")? == seen - 2 * ROOM, "{report:.300}");
    let ways = rows(&report, "/newly_dropped/by_rule", &[("/service", "web")])?;
    ensure!(ways.len() == 1 && number(ways[0], "/packets")? == seen, "{report:.300}");
    let all = rows(&report, "/newly_dropped/by_source", &[])?;
    ensure!(all.len() as u64 == ROOM, "{} rows", all.len());
    for row in all {
        ensure!(number(row, "/packets")? == 2, "{row}");
    }
    // The other direction has room of its own.
    sender.send(&[LINK.ip(&Path::new(LAN, SERVER).udp(4000, 7002, b"opened"))])?;
    d.tollgate.settled_stats()?;
    let report = d.tollgate.json("shadow")?;
    ensure!(number(&report, "/newly_passed/sources")? == 1, "{report:.300}");
    let said = d.tollgate.checked(&["shadow"])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.contains("65,536 packets of sources that the list has no room for"), "{said}");
    Ok(())
}

#[test]
fn a_flood_of_sources_is_bounded_by_native_xdp() -> Result<()> {
    a_flood_of_sources_is_bounded(Hook::AsWritten)
}

#[test]
fn a_flood_of_sources_is_bounded_by_tc() -> Result<()> {
    a_flood_of_sources_is_bounded(Hook::Tc)
}
