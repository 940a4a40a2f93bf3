//! Two policies that take turns, and packets that tell which of them, or whether a mixture, has judged: for the tests that swap
//! policies under load and that kill the daemon in the middle.
//!
//! What is open in both arrives always, what is shut in both never, and the rest as the policy in force has it. Rows, classes
//! and order differ between the two, so that tables of the one with constants of the other would show. nft counts what got
//! past the filter, and ends it there: the host has nothing to say to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Tollgate;
use crate::counters::Stats;
use crate::frames::{Link, Path, SYN};
use crate::lab::{Host, Lab, Ns, ROUTER_MAC, SERVER_MAC, SERVER_PORT, SERVER_V4};
use crate::sender::Sender;
use crate::witness::{counters_of, install};

/// A port that is open in both, for connections that live on.
pub const SESSION: u16 = 7020;
/// A client of the outside has so many sources.
const SOURCES: u8 = 32;
/// Services that make up the number of twenty.
const MORE: u16 = 11;
/// The counters must come to rest within this time.
const REST: Duration = Duration::from_secs(30);
/// Frames of a flood between two looks at whether it shall end.
const ROUNDS: u64 = 100;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// `a-only` is open.
    A,
    /// `b-only` is open.
    B,
}

impl Turn {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A service that packets are sent to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, in the policies and in nft.
    pub name: &'static str,
    protocol: &'static str,
    port: u16,
    in_a: bool,
    in_b: bool,
}

impl Target {
    const fn new(name: &'static str, protocol: &'static str, port: u16, in_a: bool, in_b: bool) -> Self {
        Self { name, protocol, port, in_a, in_b }
    }

    /// True if a policy lets its packets pass.
    pub const fn is_open(&self, turn: Turn) -> bool {
        match turn {
            Turn::A => self.in_a,
            Turn::B => self.in_b,
        }
    }

    fn frame(&self, link: Link, source: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
        let path = Path::new(source, server);
        link.ip(&match self.protocol {
            "tcp" => path.tcp(40_000, self.port, SYN, 1, &[]),
            _ => path.udp(40_000, self.port, b"which of the two?"),
        })
    }
}

/// Datagrams and connections that begin, to each kind of service.
pub const TARGETS: [Target; 8] = [
    Target::new("both-udp", "udp", 7000, true, true),
    Target::new("a-only-udp", "udp", 7001, true, false),
    Target::new("b-only-udp", "udp", 7002, false, true),
    Target::new("shut-udp", "udp", 7003, false, false),
    Target::new("both-tcp", "tcp", 7010, true, true),
    Target::new("a-only-tcp", "tcp", 7011, true, false),
    Target::new("b-only-tcp", "tcp", 7012, false, true),
    Target::new("shut-tcp", "tcp", 7013, false, false),
];

/// A policy of twenty services with tests of its own; `more` goes into the section of the interface.
pub fn policy(turn: Turn, more: &str) -> String {
    let mut zones = String::from("everyone = \"any\"\nlan = [\"192.168.0.0/24\"]\n");
    let mut services =
        vec![format!("[services.session]\nports = [\"tcp/{SESSION}\"]\nallow = [\"everyone\"]\n")];
    let mut tests = String::new();
    for target in TARGETS {
        let Target { name, protocol, port, .. } = target;
        let (allow, expect) =
            if target.is_open(turn) { ("[\"everyone\"]", "pass") } else { ("\"none\"", "drop") };
        services.push(format!("[services.{name}]\nports = [\"{protocol}/{port}\"]\nallow = {allow}\n"));
        let _ = writeln!(
            tests,
            "[[test]]\nfrom = \"203.0.113.9\"\nto = \"{protocol}/{port}\"\nexpect = \"{expect}\"\n"
        );
    }
    for n in 0..MORE {
        // Zones of their own in one of the two: its source classes have other numbers.
        let zone = if turn == Turn::B && n < 5 {
            let _ = writeln!(zones, "zone-{n} = [\"198.51.100.{}/28\", \"10.{n}.0.0/16\"]", n * 16);
            format!("zone-{n}")
        } else {
            "lan".to_owned()
        };
        services.push(format!("[services.more-{n}]\nports = [\"tcp/{}\"]\nallow = [\"{zone}\"]\n", 7100 + n));
    }
    if turn == Turn::B {
        services.reverse();
    }
    let services = services.join("\n");
    format!("version = 1\n\n[interfaces.wlp2s0]\n{more}\n\n[zones]\n{zones}\n{services}\n{tests}")
}

/// What became of the packets to one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// That the program let through.
    pub passed: u64,
    /// That it dropped.
    pub dropped: u64,
    /// That nft has seen behind it.
    pub arrived: u64,
}

/// What both counters said at a moment at which no packet to a target was on its way.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The program's.
    pub stats: Stats,
    /// nft's, by target.
    pub arrived: BTreeMap<String, u64>,
}

/// Who sends, and who counts behind the filter.
#[derive(Debug)]
pub struct Judge {
    server: Ns,
    sender: Sender,
    frames: Vec<Vec<u8>>,
}

impl Judge {
    /// Starts to count in a lab's server.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (mut counters, mut rules) = (String::new(), String::new());
        for Target { name, protocol, port, .. } in TARGETS {
            let _ = writeln!(counters, "counter {name} {{}}");
            let _ = writeln!(rules, "{protocol} dport {port} counter name {name} drop");
        }
        let text = format!(
            "table inet judge {{\n{counters}chain arrived {{ type filter hook prerouting priority raw\n{rules} }}\n}}\n"
        );
        let server = lab.ns(Host::Server);
        install(&server, &text)?;
        let link = Link { source: ROUTER_MAC, destination: SERVER_MAC };
        let to: Ipv4Addr = SERVER_V4.parse()?;
        let frames = (1..=SOURCES).flat_map(|host| {
            let source = Ipv4Addr::new(203, 0, 113, 100 + host);
            TARGETS.map(|target| target.frame(link, source, to))
        });
        let sender = Sender::open(&lab.ns(Host::Router), SERVER_PORT)?;
        Ok(Self { server, sender, frames: frames.collect() })
    }

    /// A packet of each source to each target; gives how many went to each target.
    pub fn ask(&self) -> Result<u64> {
        let count = self.frames.len() as u64;
        self.sender.flood(&self.frames, 1_000_000, count)?;
        Ok(u64::from(SOURCES))
    }

    /// As many as the machine carries, until the end; gives how many went to each target.
    pub fn flood(&self, end: &AtomicBool) -> Result<u64> {
        let mut sent = 0;
        while !end.load(Ordering::Relaxed) {
            let count = ROUNDS * self.frames.len() as u64;
            self.sender.flood(&self.frames, 10_000_000, count)?;
            sent += ROUNDS * u64::from(SOURCES);
        }
        Ok(sent)
    }

    /// Reads both counters once those of the targets are at rest; others may go on.
    pub fn reading(&self, tollgate: &Tollgate) -> Result<Reading> {
        let start = Instant::now();
        loop {
            let (stats, arrived) = (tollgate.stats()?, self.arrived()?);
            thread::sleep(Duration::from_millis(30));
            let again = tollgate.stats()?;
            let rests = |target: &Target| stats.rule(target.name) == again.rule(target.name);
            if TARGETS.iter().all(rests) && arrived == self.arrived()? {
                return Ok(Reading { stats, arrived });
            }
            ensure!(start.elapsed() < REST, "the counters did not come to rest within {REST:?}");
        }
    }

    /// Fails unless packets fare as this policy has it; gives how many were sent to each target.
    pub fn finds(&self, tollgate: &Tollgate, turn: Turn) -> Result<u64> {
        let before = self.reading(tollgate)?;
        let sent = self.ask()?;
        let fates = fates(&before, &self.reading(tollgate)?);
        ensure!(fates.values().all(|fate| fate.passed + fate.dropped == sent), "{sent} sent: {fates:?}");
        each_had_the_verdict_of(turn, &fates)?;
        Ok(sent)
    }

    /// What has arrived behind the filter since the start, by target.
    pub fn arrived(&self) -> Result<BTreeMap<String, u64>> {
        let counts = counters_of(&self.server, "judge")?;
        ensure!(counts.len() == TARGETS.len(), "counters of nft: {counts:?}");
        Ok(counts)
    }
}

/// What both counters have seen between two readings, by target.
pub fn fates(before: &Reading, after: &Reading) -> BTreeMap<&'static str, Fate> {
    let delta = after.stats.since(&before.stats);
    let of = |Target { name, .. }: Target| {
        let passed = delta.outcome(name, "service-allowed").packets;
        let all = delta.rule(name).packets;
        let seen = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or_default();
        (name, Fate { passed, dropped: all - passed, arrived: seen(&after.arrived) - seen(&before.arrived) })
    };
    TARGETS.into_iter().map(of).collect()
}

/// Fails unless each packet had a verdict that one of the two policies gives, the same that nft has seen.
pub fn each_had_a_verdict_of_one(fates: &BTreeMap<&'static str, Fate>) -> Result<()> {
    for target in TARGETS {
        let fate = fates.get(target.name).copied().unwrap_or_default();
        let Fate { passed, dropped, arrived } = fate;
        ensure!(passed == arrived, "{} passed, but not all arrived: {fate:?}", target.name);
        ensure!(passed + dropped > 0, "no packet to {} was judged", target.name);
        match (target.in_a, target.in_b) {
            (true, true) => ensure!(dropped == 0, "{} is open in both: {fate:?}", target.name),
            (false, false) => ensure!(passed == 0, "{} is shut in both: {fate:?}", target.name),
            _ => {}
        }
    }
    Ok(())
}

/// Fails unless each packet had the verdict of this policy.
pub fn each_had_the_verdict_of(turn: Turn, fates: &BTreeMap<&'static str, Fate>) -> Result<()> {
    each_had_a_verdict_of_one(fates)?;
    for target in TARGETS {
        let fate = fates.get(target.name).copied().unwrap_or_default();
        let against = if target.is_open(turn) { fate.dropped } else { fate.passed };
        ensure!(against == 0, "policy {turn:?} is in force, and of the packets to {}: {fate:?}", target.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_that_neither_gives_is_noticed() {
        let fair = |target: &Target| Fate {
            passed: 3 * u64::from(target.in_a),
            dropped: 3 * u64::from(!target.in_a),
            arrived: 3 * u64::from(target.in_a),
        };
        let good: BTreeMap<_, _> = TARGETS.iter().map(|target| (target.name, fair(target))).collect();
        assert!(each_had_the_verdict_of(Turn::A, &good).is_ok());
        assert!(each_had_a_verdict_of_one(&good).is_ok());
        assert!(each_had_the_verdict_of(Turn::B, &good).is_err());
        for (name, wrong) in [
            ("both-udp", Fate { passed: 3, dropped: 1, arrived: 3 }),
            ("shut-tcp", Fate { passed: 1, dropped: 3, arrived: 1 }),
            ("a-only-udp", Fate { passed: 3, dropped: 0, arrived: 2 }),
            ("b-only-tcp", Fate::default()),
        ] {
            let mut bad = good.clone();
            bad.insert(name, wrong);
            assert!(each_had_a_verdict_of_one(&bad).is_err(), "{name}: {wrong:?}");
        }
    }
}
