//! Has every frame judged three times, compares, and counts.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proxy_common::abi::reason::{MAX_REASONS, Reason};
use proxy_common::engine::Outcome;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tollgate::dataplane::{Trial, TrialHook};
use tollgate::policy::compile::{Clock, Compiled, RuleIds, compile};
use tollgate::simulate::Simulation;

use super::policies::{self, Case};
use super::traffic::{Step, Traffic};
use crate::reference::Reference;

/// Keys of the kernel's limiter; the host has others, so that no accident of a hash hides in both.
const KEYS: [u64; 3] = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321, 0x5555_aaaa_3333_cccd];

/// How much to test.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Random policies.
    pub policies: u64,
    /// Frames a policy.
    pub packets: u64,
    /// Where everything random comes from.
    pub seed: u64,
    /// Every how many policies the kernel is asked too; 0: never.
    pub kernel_every: u64,
    /// How many policies are tested at a time.
    pub threads: usize,
}

/// A frame that is not judged alike.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// Seed of a run of one policy that shows it.
    pub seed: u64,
    /// The policy's file.
    pub policy: String,
    /// Where the frame arrives.
    pub interface: &'static str,
    /// Number of the frame, from 0.
    pub packet: u64,
    /// When it arrives, or leaves.
    pub step: Step,
    /// The frame.
    pub frame: Vec<u8>,
    /// Who says what.
    pub said: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.step.egress { "leaves" } else { "arrives" };
        writeln!(
            f,
            "seed {} (repeat: --seed {} --policies 1), packet {}, {way} on {} at {} ns\n{}",
            self.seed, self.seed, self.packet, self.interface, self.step.now_ns, self.said
        )?;
        for byte in &self.frame {
            write!(f, "{byte:02x}")?;
        }
        writeln!(f, "\n{}", self.policy)
    }
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Policies.
    pub policies: u64,
    /// Frames judged by the reference and the engine.
    pub packets: u64,
    /// Frames among them that the XDP program judged too.
    pub xdp: u64,
    /// Frames among them that the TC program judged too.
    pub tc: u64,
    /// Frames that this host sent, beside those.
    pub sent: u64,
    /// Arrived frames by number of the reason.
    pub reasons: Vec<u64>,
    /// The first disagreement of each policy that has one.
    pub disagreements: Vec<Disagreement>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Summary {
    /// Reasons that no frame ended with, besides the one that means a fault of the program.
    pub fn uncovered(&self) -> Vec<Reason> {
        let covered = |reason: &Reason| self.reasons.get(*reason as usize).is_some_and(|count| *count > 0);
        Reason::ALL.iter().copied().filter(|r| *r != Reason::TableFault && !covered(r)).collect()
    }

    fn add(&mut self, other: Self) {
        self.policies += other.policies;
        self.packets += other.packets;
        self.xdp += other.xdp;
        self.tc += other.tc;
        self.sent += other.sent;
        self.reasons.resize(MAX_REASONS as usize, 0);
        for (sum, count) in self.reasons.iter_mut().zip(other.reasons) {
            *sum += count;
        }
        self.disagreements.extend(other.disagreements);
    }
}

impl fmt::Display for Summary {
    /// The histogram of reasons, and one line of sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reason in Reason::ALL {
            let count = self.reasons.get(*reason as usize).copied().unwrap_or(0);
            writeln!(f, "{:<28} {count:>10}", reason.name())?;
        }
        write!(
            f,
            "{} policies, {} packets in, {} out; in the kernel {} by XDP and {} by TC; {} disagreements; {:.1} s",
            self.policies,
            self.packets,
            self.sent,
            self.xdp,
            self.tc,
            self.disagreements.len(),
            self.elapsed.as_secs_f64()
        )
    }
}

/// Tests as many policies as are asked for.
///
/// # Errors
/// If something can't be run at all: the kernel refuses a program, or a policy can't be compiled.
pub fn run(options: Options) -> Result<Summary> {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Ok(Summary::default()));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= options.policies {
                        return;
                    }
                    let kernel = options.kernel_every > 0 && nth.is_multiple_of(options.kernel_every);
                    let seed = options.seed.wrapping_add(nth);
                    let summary =
                        test_one(seed, options.packets, kernel).with_context(|| format!("seed {seed}"));
                    let Ok(mut total) = total.lock() else { return };
                    match (summary, total.as_mut()) {
                        (Ok(summary), Ok(total)) => total.add(summary),
                        (Err(error), Ok(_)) => {
                            *total = Err(error);
                            next.store(options.policies, Ordering::Relaxed);
                        }
                        (_, Err(_)) => return,
                    }
                }
            });
        }
    });
    let mut summary = total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// The three who judge.
struct Court<'a> {
    compiled: &'a Compiled,
    reference: Reference,
    host: Simulation<'a>,
    kernel: Vec<Witness>,
    /// The kernel's clock.
    kernel_ns: Option<u64>,
}

/// One of the kernel's programs.
struct Witness {
    hook: TrialHook,
    trial: Trial,
    /// Packets and bytes that it judged.
    judged: (u64, u64),
}

impl Witness {
    /// True if the kernel takes the frame for a test-run. What it does not take is broken, and changes nothing.
    fn takes(&self, frame: &[u8]) -> bool {
        takes(self.hook, frame)
    }
}

fn takes(hook: TrialHook, frame: &[u8]) -> bool {
    let least = match (hook, frame.get(12..14)) {
        (TrialHook::Xdp | TrialHook::XdpLinear, _) => 14,
        // A whole header of the protocol that the frame names (Linux 6.18), and something behind the link header.
        (TrialHook::Tc, Some([0x08, 0x00])) => 34,
        (TrialHook::Tc, Some([0x86, 0xdd])) => 54,
        (TrialHook::Tc, _) => 15,
    };
    frame.len() >= least
}

/// One policy and its frames, up to the first disagreement.
fn test_one(seed: u64, packets: u64, kernel: bool) -> Result<Summary> {
    let mut rng = StdRng::seed_from_u64(seed);
    let case = policies::case(&mut rng);
    let rules = RuleIds::assign(&[], &|_| false, &case.policy)?;
    let compiled = compile(&case.policy, &[case.interface.to_owned()], &rules)?;
    let mut court = Court::new(&case, &compiled, kernel)?;
    let mut traffic = Traffic::new(&case.policy, rng);
    let mut frame = Vec::with_capacity(4096);
    let mut summary = Summary { policies: 1, reasons: vec![0; MAX_REASONS as usize], ..Summary::default() };
    for packet in 0..packets {
        let step = traffic.next_into(&mut frame);
        if step.egress {
            court.send(&frame, step.now_ns)?;
            summary.sent += 1;
            continue;
        }
        match court.judge(&frame, step.now_ns)? {
            Ok(reason) => summary.reasons[reason as usize] += 1,
            Err(said) => {
                let interface = case.interface;
                let policy = case.text.clone();
                let frame = frame.clone();
                let found = Disagreement { seed, policy, interface, packet, step, frame, said };
                summary.disagreements.push(found);
                break;
            }
        }
        summary.packets += 1;
    }
    for Witness { hook, trial, judged } in &court.kernel {
        let total = trial.total()?;
        ensure!(
            (total.packets, total.bytes) == *judged,
            "{hook:?} counted {} packets and {} bytes, not {judged:?}",
            total.packets,
            total.bytes
        );
        match hook {
            TrialHook::Tc => summary.tc += judged.0,
            TrialHook::Xdp | TrialHook::XdpLinear => summary.xdp += judged.0,
        }
    }
    Ok(summary)
}

impl<'a> Court<'a> {
    fn new(case: &'a Case, compiled: &'a Compiled, kernel: bool) -> Result<Self> {
        let reference =
            Reference::new(&case.policy, case.interface).context("the policy means no interface")?;
        let mut trials = Vec::new();
        if kernel {
            for hook in [TrialHook::Xdp, TrialHook::Tc] {
                let trial = Trial::new(compiled, 0, hook, Clock::Given, KEYS)?;
                trials.push(Witness { hook, trial, judged: (0, 0) });
            }
        }
        let host = Simulation::new(compiled, 0);
        Ok(Self { compiled, reference, host, kernel: trials, kernel_ns: None })
    }

    fn send(&mut self, frame: &[u8], now_ns: u64) -> Result<()> {
        self.reference.egress(frame, now_ns);
        self.host.egress(frame, now_ns);
        if takes(TrialHook::Tc, frame) {
            self.set_kernel_clock(now_ns)?;
            for witness in &self.kernel {
                witness.trial.egress(frame)?;
            }
        }
        Ok(())
    }

    /// The reason, if all agree on it; else who says what.
    fn judge(&mut self, frame: &[u8], now_ns: u64) -> Result<Result<Reason, String>> {
        let (reason, rule) = self.reference.ingress(frame, now_ns);
        let host = self.host.ingress(frame, now_ns);
        let mut alike = reason == host.reason && rule.as_deref() == self.rule(host);
        let mut kernel = Vec::with_capacity(2);
        self.set_kernel_clock(now_ns)?;
        for witness in self.kernel.iter_mut().filter(|witness| witness.takes(frame)) {
            let outcome = witness
                .trial
                .ingress(frame, host)
                .with_context(|| format!("a frame of {} bytes: {frame:02x?}", frame.len()))?;
            alike &= outcome == host;
            witness.judged.0 += 1;
            witness.judged.1 += frame.len() as u64;
            kernel.push((witness.hook, outcome));
        }
        if alike {
            return Ok(Ok(reason));
        }
        let mut said = format!(
            "reference: {} {}\nhost:      {} {}",
            reason.name(),
            rule.as_deref().unwrap_or_default(),
            host.reason.name(),
            self.rule(host).unwrap_or_default()
        );
        for (hook, outcome) in kernel {
            let rule = self.rule(outcome).unwrap_or_default();
            said += &format!("\n{:<10} {} {rule}", format!("{hook:?}:"), outcome.reason.name());
        }
        Ok(Err(said))
    }

    fn rule(&self, outcome: Outcome) -> Option<&'a str> {
        if outcome.reason.has_rule() { self.compiled.rule_name(outcome.rule) } else { None }
    }

    fn set_kernel_clock(&mut self, now_ns: u64) -> Result<()> {
        if self.kernel_ns != Some(now_ns) {
            for witness in &self.kernel {
                witness.trial.set_now_ns(now_ns)?;
            }
            self.kernel_ns = Some(now_ns);
        }
        Ok(())
    }
}
