//! `explain` agrees with what really happens, for every frame of the evasion table and every honest one beside it: asked
//! first, sent afterwards on a live interface, and compared with what the counters say of it.
//!
//! What happened before a frame (a first fragment, a connection that the host begins) is really sent. The table's own clock is
//! not: nobody waits an hour here, so where a case needs time to pass, only the agreement of the two is looked at.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proxy_common::abi::reason::{Reason, Verdict};
use serde_json::Value;
use tollgate::dataplane::{Pins, read_counters, read_rules};
use tollgate_tests::evasion::{Case, Event, Interface, POLICY, cases};
use tollgate_tests::pcap::{ETHERNET, pcap};
use tollgate_tests::sender::Sender;
use tollgate_tests::{Hook, Host, Lab, Tollgate};

const OUTER: &str = "outer0";
const INSIDE: &str = "inside0";
/// A frame that was sent is counted within this time, or never: it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// A frame to be asked about and then sent.
struct Probe {
    name: String,
    interface: Interface,
    frame: Vec<u8>,
    /// What it has to end with, if no time has to pass for it.
    expected: Option<Vec<Reason>>,
}

/// What becomes of a frame: verdict, reason, rule.
type Fate = (String, String, Option<String>);

/// Packets by reason and rule. Read in this process: a command for each frame would take minutes.
type Counts = BTreeMap<(Reason, Option<u16>), u64>;

/// A lab with the table's two interfaces, enforced.
struct Live {
    tollgate: Tollgate,
    pins: Pins,
    /// Names of rules, by id.
    rules: BTreeMap<u16, String>,
    indices: [u32; 2],
    outer: Wire,
    inside: Wire,
    lab: Lab,
    folder: tempfile::TempDir,
}

/// One interface of the server and both ways to send on it.
struct Wire {
    arrives: Sender,
    leaves: Sender,
}

const fn name(interface: Interface) -> &'static str {
    match interface {
        Interface::Outer => OUTER,
        Interface::Inside => INSIDE,
    }
}

impl Live {
    fn start(hook: Hook) -> Result<Self> {
        let lab = Lab::new()?;
        let outer = wire(&lab, OUTER)?;
        let inside = wire(&lab, INSIDE)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("evasion.toml");
        std::fs::write(&path, hook.of(POLICY)?)?;
        let tollgate = Tollgate::start(&lab, &path, &[])?;
        let pins = Pins::new(tollgate.pins());
        let named = (0u16..).zip(read_rules(&pins)?).filter_map(|(id, name)| Some((id, name?)));
        let server = lab.ns(Host::Server);
        let indices = [server.ifindex(OUTER)?, server.ifindex(INSIDE)?];
        Ok(Self { rules: named.collect(), tollgate, pins, indices, outer, inside, lab, folder })
    }

    fn wire(&self, interface: Interface) -> &Wire {
        match interface {
            Interface::Outer => &self.outer,
            Interface::Inside => &self.inside,
        }
    }

    fn counted(&self, interface: Interface) -> Result<Counts> {
        let ids: Vec<u16> = self.rules.keys().copied().collect();
        let index = self.indices[usize::from(interface == Interface::Inside)];
        let counts = read_counters(&self.pins, index, &ids)?;
        Ok(counts.into_iter().map(|one| ((one.reason, one.rule), one.counter.packets)).collect())
    }

    /// Sends a frame and gives what was counted then; `None`: the kernel has not shown it to the programs.
    fn send(&self, interface: Interface, frame: &[u8], before: &Counts) -> Result<Option<Counts>> {
        self.wire(interface).arrives.send(&[frame.to_vec()])?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let now = self.counted(interface)?;
            if now != *before {
                return Ok(Some(now));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    fn happen(&self, interface: Interface, events: &[Event]) -> Result<()> {
        for event in events {
            if event.ingress {
                let before = self.counted(interface)?;
                self.send(interface, &event.frame, &before)?.context("what happens before did not arrive")?;
            } else {
                self.wire(interface).leaves.send(std::slice::from_ref(&event.frame))?;
            }
        }
        Ok(())
    }

    /// What `explain` says of all of them.
    fn explained(&self, interface: Interface, probes: &[&Probe]) -> Result<Vec<Fate>> {
        let file = self.folder.path().join("frames.pcap");
        let frames: Vec<_> = probes.iter().map(|probe| probe.frame.clone()).collect();
        std::fs::write(&file, pcap(ETHERNET, &frames))?;
        let file = file.display().to_string();
        let args = ["explain", "--json", "--interface", name(interface), "--pcap", &file];
        let output = self.tollgate.checked(&args)?;
        let text = String::from_utf8(output.stdout)?;
        let fate = |line: &str| {
            let row: Value = serde_json::from_str(line)?;
            let said = |key: &str| row[key].as_str().map(str::to_owned);
            let (verdict, reason) = (said("verdict"), said("reason"));
            let (verdict, reason) = verdict.zip(reason).with_context(|| format!("no answer: {row}"))?;
            Ok((verdict, reason, said("rule")))
        };
        text.lines().map(fate).collect()
    }
}

/// A pair of interfaces on which nothing moves but what is sent here. The server takes no frame of the table for itself: they
/// are addressed to another.
fn wire(lab: &Lab, interface: &str) -> Result<Wire> {
    let (server, router) = (lab.ns(Host::Server), lab.ns(Host::Router));
    let peer = format!("p-{interface}");
    server.run(&[
        "ip",
        "link",
        "add",
        interface,
        "mtu",
        "3000",
        "address",
        "02:00:00:00:00:77",
        "type",
        "veth",
        "peer",
        "name",
        &peer,
        "mtu",
        "3000",
        "netns",
        router.name(),
    ])?;
    for (ns, name) in [(&server, interface), (&router, peer.as_str())] {
        ns.sysctl(&[(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1")])?;
        ns.run(&["ip", "link", "set", name, "arp", "off", "up"])?;
    }
    Ok(Wire { arrives: Sender::open(&router, &peer)?, leaves: Sender::as_host(&server, interface)? })
}

/// The one packet between two readings.
fn fate(live: &Live, before: &Counts, after: &Counts) -> Result<Fate> {
    let grown =
        after.iter().map(|(place, count)| (*place, count - before.get(place).copied().unwrap_or_default()));
    let grown: Vec<_> = grown.filter(|(_, packets)| *packets > 0).collect();
    let [((reason, rule), 1)] = grown.as_slice() else { bail!("not one packet was counted, but {grown:?}") };
    let verdict = if reason.verdict() == Verdict::Pass { "pass" } else { "drop" };
    let rule = rule.and_then(|id| live.rules.get(&id).cloned());
    Ok((verdict.to_owned(), reason.name().to_owned(), rule))
}

/// The kernel takes a tag off before TC, and gives up frames that end within one or right behind it: no program and no host
/// ever sees them.
fn ends_within_a_tag(frame: &[u8]) -> bool {
    frame.len() < 20 && matches!(frame.get(12..14), Some([0x81, 0] | [0x88, 0xa8]))
}

fn compare(live: &Live, hook: Hook, probes: &[Probe]) -> Result<BTreeMap<String, u64>> {
    let mut wrong = Vec::new();
    let mut reasons = BTreeMap::new();
    for interface in [Interface::Outer, Interface::Inside] {
        let probes: Vec<_> = probes.iter().filter(|probe| probe.interface == interface).collect();
        let explained = live.explained(interface, &probes)?;
        ensure!(explained.len() == probes.len(), "{} answers to {} frames", explained.len(), probes.len());
        let mut before = live.counted(interface)?;
        for (probe, said) in probes.iter().zip(explained) {
            if hook == Hook::Tc && ends_within_a_tag(&probe.frame) {
                // Were it counted all the same, the next frame would not be the only one.
                live.wire(interface).arrives.send(std::slice::from_ref(&probe.frame))?;
                *reasons.entry("given up by the kernel".to_owned()).or_default() += 1;
                continue;
            }
            let after = live.send(interface, &probe.frame, &before)?;
            let after =
                after.with_context(|| format!("{}: not counted; explain said {said:?}", probe.name))?;
            let real = fate(live, &before, &after).with_context(|| probe.name.clone())?;
            if real != said {
                wrong.push(format!("{}: explain said {said:?}, and it was {real:?}", probe.name));
            }
            if let Some(expected) = &probe.expected
                && !expected.iter().any(|reason| reason.name() == real.1)
            {
                wrong.push(format!("{}: {real:?}, where {expected:?} was expected", probe.name));
            }
            *reasons.entry(real.1).or_default() += 1;
            before = after;
        }
    }
    ensure!(wrong.is_empty(), "{} frames:\n{}", wrong.len(), wrong.join("\n"));
    Ok(reasons)
}

fn explain_agrees(hook: Hook) -> Result<()> {
    let live = Live::start(hook)?;
    let begun = Instant::now();
    let cases = cases();
    let at_once = |before: &[Event], at_ns| at_ns == 0 && before.iter().all(|event| event.at_ns == 0);

    // Those without a history first: nothing has happened yet that they could be taken for an answer to.
    let (later, first): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| !case.before.is_empty());
    let (mut frames, mut fates) = (0, Vec::new());
    for round in [first, later] {
        let mut probes = Vec::new();
        for case in round {
            live.happen(Interface::Outer, &case.before)?;
            // By TC the kernel has taken one of three tags off: docs/operations.md says so.
            let one_less = hook == Hook::Tc && case.expected.contains(&Reason::VlanDepth);
            let expected = (at_once(&case.before, case.at_ns) && !one_less).then(|| case.expected.clone());
            probes.extend(case.frame.iter().enumerate().map(|(nth, frame)| Probe {
                name: format!("{} [{nth}]", case.name),
                interface: Interface::Outer,
                frame: frame.clone(),
                expected: expected.clone(),
            }));
        }
        frames += probes.len();
        fates.push(compare(&live, hook, &probes)?);
    }

    let (mut twins, mut reasons) = (Vec::new(), BTreeMap::<String, u64>::new());
    for case in &cases {
        let twin = &case.twin;
        live.happen(twin.interface, &twin.before)?;
        // What the case has left behind may let a twin pass by another way; without a history there is none.
        let alone = case.before.is_empty() && twin.before.is_empty();
        twins.push(Probe {
            name: format!("the twin of {}", case.name),
            interface: twin.interface,
            frame: twin.frame.clone(),
            expected: alone.then(|| vec![twin.passes_as]),
        });
    }
    fates.push(compare(&live, hook, &twins)?);
    for (reason, packets) in fates.into_iter().flatten() {
        *reasons.entry(reason).or_default() += packets;
    }
    let line = format!(
        "{hook:?}: explain agreed for {} cases of {frames} frames and {} twins in {:.1?}: {reasons:?}\n",
        cases.len(),
        twins.len(),
        begun.elapsed()
    );
    std::io::stderr().lock().write_all(line.as_bytes())?;
    let _ = &live.lab;
    Ok(())
}

#[test]
fn explain_agrees_with_what_happens_for_the_whole_evasion_table_by_native_xdp() -> Result<()> {
    explain_agrees(Hook::AsWritten)
}

#[test]
fn explain_agrees_with_what_happens_for_the_whole_evasion_table_by_tc() -> Result<()> {
    explain_agrees(Hook::Tc)
}
