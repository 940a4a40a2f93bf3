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
use proxy_common::abi::reason::Reason;
use serde_json::Value;
use tollgate_tests::deployment::with_hook;
use tollgate_tests::evasion::{Event, Interface, POLICY, cases};
use tollgate_tests::pcap::{ETHERNET, pcap};
use tollgate_tests::sender::Sender;
use tollgate_tests::{Hook, Host, Lab, Stats, Tollgate};

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

/// A lab with the table's two interfaces, enforced.
struct Live {
    tollgate: Tollgate,
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
        let text = match hook {
            Hook::AsWritten => POLICY.to_owned(),
            Hook::Tc => with_hook(POLICY, "tc")?,
        };
        std::fs::write(&path, text)?;
        let tollgate = Tollgate::start(&lab, &path, &[])?;
        Ok(Self { tollgate, outer, inside, lab, folder })
    }

    fn wire(&self, interface: Interface) -> &Wire {
        match interface {
            Interface::Outer => &self.outer,
            Interface::Inside => &self.inside,
        }
    }

    fn counted(&self, interface: Interface) -> Result<Stats> {
        let mut stats = self.tollgate.stats()?;
        stats.interfaces.remove(name(interface)).with_context(|| format!("no {}", name(interface)))
    }

    /// Sends a frame and gives what was counted then; `None`: the kernel has not shown it to the programs.
    fn send(&self, interface: Interface, frame: &[u8], before: &Stats) -> Result<Option<Stats>> {
        self.wire(interface).arrives.send(&[frame.to_vec()])?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let now = self.counted(interface)?;
            if now.seen.packets != before.seen.packets {
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
fn fate(before: &Stats, after: &Stats) -> Result<Fate> {
    let delta = after.since(before);
    ensure!(delta.seen.packets == 1, "{} packets were counted, not one", delta.seen.packets);
    let mut counted = delta.reasons.iter().filter(|(_, (_, count))| count.packets > 0);
    let (reason, (verdict, _)) = counted.next().context("no reason was counted")?;
    let rule =
        delta.rules.iter().find(|(_, rule)| rule.outcomes.get(reason).is_some_and(|count| count.packets > 0));
    Ok((format!("{verdict:?}").to_lowercase(), reason.clone(), rule.map(|(name, _)| name.clone())))
}

/// The kernel takes a tag off before TC, and gives up frames that end within one: no program and no host ever sees them.
fn ends_within_a_tag(frame: &[u8]) -> bool {
    frame.len() < 18 && frame.get(12..14) == Some(&[0x81, 0])
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
            let Some(after) = live.send(interface, &probe.frame, &before)? else {
                if hook == Hook::Tc && ends_within_a_tag(&probe.frame) {
                    *reasons.entry("given up by the kernel".to_owned()).or_default() += 1;
                    continue;
                }
                bail!("{}: the frame was not counted; explain said {said:?}", probe.name);
            };
            let real = fate(&before, &after).with_context(|| probe.name.clone())?;
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
    let mut cases = cases();
    // Those with a history first: what they need is forgotten after half a minute.
    cases.sort_by_key(|case| case.before.is_empty() && case.twin.before.is_empty());
    let at_once = |before: &[Event], at_ns| at_ns == 0 && before.iter().all(|event| event.at_ns == 0);

    let mut probes = Vec::new();
    for case in &cases {
        live.happen(Interface::Outer, &case.before)?;
        let expected = at_once(&case.before, case.at_ns).then(|| case.expected.clone());
        probes.extend(case.frame.iter().enumerate().map(|(nth, frame)| Probe {
            name: format!("{} [{nth}]", case.name),
            interface: Interface::Outer,
            frame: frame.clone(),
            expected: expected.clone(),
        }));
    }
    let evil = compare(&live, hook, &probes)?;

    let mut twins = Vec::new();
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
    let honest = compare(&live, hook, &twins)?;
    let line = format!(
        "{hook:?}: explain agreed for {} cases: {} frames {evil:?}, {} twins {honest:?}, in {:.1?}\n",
        cases.len(),
        probes.len(),
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
