//! Runs cases by the programs in the kernel, on a policy of their own and by a clock of their own.

use std::fmt;
use std::path::Path as FilePath;

use anyhow::{Context, Result};
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::engine::Outcome;
use tollgate::dataplane::{Trial, TrialHook};
use tollgate::policy::compile::{Clock, RuleIds, compile};
use tollgate::policy::parse;

use super::{Case, Event, Interface, KNOWN_GAPS, SECOND};
use crate::frames::{ETHERNET_LEN, IPV4, IPV6};

/// What each case is run by.
pub const HOOKS: [TrialHook; 2] = [TrialHook::Xdp, TrialHook::Tc];
const KEYS: [u64; 3] = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321, 0x5555_aaaa_3333_cccd];
/// Between cases: longer than any timeout of the policy.
const DAY: u64 = 24 * 3600 * SECOND;

/// What cases are judged by.
pub const POLICY: &str = r#"
version = 1

[interfaces.outer0]
deny = ["denied"]

[interfaces.inside0]
deny = ["denied"]

[zones]
lan = ["192.168.0.0/16", "2001:db8:1::/48"]
denied = ["100.66.0.0/16", "2001:db8:bad::/48"]
containers = { prefixes = ["172.17.0.0/16", "2001:db8:d0::/48"], interfaces = ["inside0"] }

[services.web]
ports = ["tcp/80"]
allow = "any"

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]

[services.tunnel]
ports = ["udp/5300"]
allow = "any"

[services.database]
ports = ["tcp/5432"]
allow = "none"

[plumbing]
ping-limit = "none"

[timeouts]
tcp-established = "1h"
"#;

/// What became of a case, or of its twin.
#[derive(Clone, Debug)]
pub struct Row {
    /// The case's.
    pub name: String,
    /// What it may end with.
    pub expected: Vec<Reason>,
    /// What it ended with: of a sweep, the first that was not expected.
    pub got: Reason,
    /// The frame that ended so.
    pub frame: Vec<u8>,
    /// What the twin passed as, or the reason that it did not pass for.
    pub twin: Reason,
    /// What the twin must pass as.
    pub twin_expected: Reason,
    /// Which program judged.
    pub hook: TrialHook,
}

impl Row {
    /// The case ended as expected, and in a drop.
    pub fn is_good(&self) -> bool {
        self.expected.contains(&self.got) && self.got.verdict() == Verdict::Drop
    }

    /// The twin passed, and as what it must.
    pub fn twin_is_good(&self) -> bool {
        self.twin == self.twin_expected && self.twin.verdict() == Verdict::Pass
    }

    /// What is known to be wrong with it.
    pub fn known_gap(&self) -> Option<&'static str> {
        KNOWN_GAPS.iter().find(|(name, _)| *name == self.name).map(|(_, what)| *what)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (self.is_good(), self.known_gap()) {
            (true, _) if self.twin_is_good() => "ok ",
            (false, Some(_)) => "GAP",
            _ => "BAD",
        };
        let hook = if self.hook == TrialHook::Tc { "tc" } else { "xdp" };
        let expected: Vec<_> = self.expected.iter().map(|reason| reason.name()).collect();
        write!(f, "{mark} {hook:<3} {:<76} got {:<26} ", self.name, self.got.name())?;
        write!(f, "expected {:<26} twin {}", expected.join(" or "), self.twin.name())?;
        if !self.twin_is_good() {
            write!(f, ", expected {}", self.twin_expected.name())?;
        }
        if !self.is_good() {
            write!(f, "; frame {}", hex(&self.frame))?;
        }
        Ok(())
    }
}

/// Since Linux 6.18 test-run by TC wants a whole IP header behind such an EtherType. Behind a tag it does not, so sweeps of
/// cuts have every cut behind a tag too.
fn is_refused_for_tc(frame: &[u8]) -> bool {
    match frame.get(12..ETHERNET_LEN).map(|kind| u16::from(kind[0]) << 8 | u16::from(kind[1])) {
        Some(IPV4) => frame.len() < ETHERNET_LEN + 20,
        Some(IPV6) => frame.len() < ETHERNET_LEN + 40,
        _ => false,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One hook's programs on both interfaces.
#[derive(Debug)]
pub struct Trials {
    hook: TrialHook,
    outer: Trial,
    inside: Trial,
    begin_ns: u64,
}

impl Trials {
    /// Loads the programs.
    ///
    /// # Errors
    /// If the kernel refuses them.
    pub fn new(hook: TrialHook) -> Result<Self> {
        let policy = parse(POLICY, FilePath::new("evasion.toml"))?;
        let rules = RuleIds::assign(&[], &|_| false, &policy)?;
        let interfaces = ["outer0", "inside0"].map(str::to_owned);
        let compiled = compile(&policy, &interfaces, &rules)?;
        let trial = |interface| Trial::new(&compiled, interface, hook, Clock::Given, KEYS);
        Ok(Self { hook, outer: trial(0)?, inside: trial(1)?, begin_ns: DAY })
    }

    /// Runs a case and its twin.
    ///
    /// # Errors
    /// If the kernel does not run a frame.
    pub fn run(&mut self, case: &Case) -> Result<Row> {
        let guess = case.expected.first().copied().context("a case that expects nothing")?;
        self.prepare(&case.before, case.at_ns, Interface::Outer)?;
        let mut worst = None;
        let is_tc = self.hook == TrialHook::Tc;
        for frame in case.frame.iter().filter(|frame| !is_tc || !is_refused_for_tc(frame)) {
            let got = self.judge(frame, guess, Interface::Outer)?;
            if worst.is_none() || !case.expected.contains(&got) {
                worst = Some((got, frame));
                if !case.expected.contains(&got) {
                    break;
                }
            }
        }
        let (got, frame) = worst.with_context(|| format!("no frame in {}", case.name))?;

        let twin = &case.twin;
        self.prepare(&twin.before, twin.at_ns, twin.interface)?;
        Ok(Row {
            name: case.name.clone(),
            expected: case.expected.clone(),
            got,
            frame: frame.clone(),
            twin: self.judge(&twin.frame, twin.passes_as, twin.interface)?,
            twin_expected: twin.passes_as,
            hook: self.hook,
        })
    }

    /// Begins a new day, in which nothing of the one before counts.
    fn prepare(&mut self, before: &[Event], at_ns: u64, interface: Interface) -> Result<()> {
        self.begin_ns += DAY;
        let begin_ns = self.begin_ns;
        for event in before {
            self.trial(interface).set_now_ns(begin_ns + event.at_ns);
            if event.ingress {
                self.judge(&event.frame, Reason::ServiceAllowed, interface)?;
            } else {
                self.trial(interface).egress(&event.frame)?;
            }
        }
        self.trial(interface).set_now_ns(begin_ns + at_ns);
        Ok(())
    }

    fn judge(&mut self, frame: &[u8], guess: Reason, interface: Interface) -> Result<Reason> {
        let outcome = self.trial(interface).ingress(frame, Outcome { reason: guess, rule: 0 });
        Ok(outcome.with_context(|| format!("frame {}", hex(frame)))?.reason)
    }

    fn trial(&mut self, interface: Interface) -> &mut Trial {
        match interface {
            Interface::Outer => &mut self.outer,
            Interface::Inside => &mut self.inside,
        }
    }
}
