//! The engine: a host that sends and receives for a while, under a policy with something of everything.
//!
//! Asked of each packet that arrives: the sentences of [`crate::rules`], what the reference interpreter of the tests, which
//! was written from docs/policy.md alone, says of the same packet, and whether its sender is told ([`crate::reject`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use proxy_common::abi::counter::{COUNTERS_LEN, index, reason_of};
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::engine::Outcome;
use proxy_common::packet::{Fragment, Slice, parse};
use tollgate::policy::Policy;
use tollgate::policy::compile::{Compiled, RuleIds, compile, entry_for};
use tollgate::simulate::Simulation;

use crate::frame;
use crate::reference::Reference;
use crate::reject::{Answers, Rejected};
use crate::rules::{self, Past};

/// The interfaces of the policy, one of them by a pattern.
pub const INTERFACES: [&str; 4] = ["eth0", "wan0", "br-7", "dmz0"];
/// Packets of a run.
const MOST_PACKETS: usize = 128;
/// The limiter forgets nothing within this time, and says nothing of more.
const LONGEST_NS: u64 = 4 * 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// What may pass between two packets: around rates, timeouts and the life of a fragment.
const STEPS_NS: [u64; 16] = [
    0,
    1,
    1_000,
    10_000_000,
    99_999_999,
    100_000_000,
    500_000_000,
    SECOND - 1,
    SECOND,
    2 * SECOND + 1,
    5 * SECOND,
    10 * SECOND + 1,
    30 * SECOND,
    30 * SECOND + 1,
    600 * SECOND,
    1800 * SECOND,
];

/// Runs the history that the bytes stand for.
///
/// # Panics
/// If a packet is decided otherwise than the policy says.
pub fn run(data: &[u8]) {
    let mut counters = Counters::default();
    // Running out of bytes ends the history.
    let _ = history(&mut Unstructured::new(data), &mut counters);
    counters.check();
}

struct World {
    policy: Policy,
    compiled: Compiled,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let text = include_str!("../engine.toml");
        let policy = tollgate::policy::parse(text, Path::new("engine.toml")).expect("a good policy");
        let rules = RuleIds::assign(&[], &|_| false, &policy).expect("rule ids");
        let compiled = compile(&policy, &INTERFACES.map(str::to_owned), &rules).expect("tables");
        World { policy, compiled }
    })
}

fn history(u: &mut Unstructured<'_>, counters: &mut Counters) -> Result<()> {
    let World { policy, compiled } = world();
    let at = usize::from(u.arbitrary::<u8>()?) % INTERFACES.len();
    let entry = entry_for(policy, INTERFACES[at]).expect("an entry");
    let entry = &policy.interfaces[entry];
    let mut simulation = Simulation::new(compiled, at);
    let mut reference = Reference::new(policy, INTERFACES[at]).expect("an entry");
    let mut now_ns = SECOND;
    let mut past = Past::default();
    let mut answers = Answers::new(now_ns);
    let mut last = Vec::new();

    for _ in 0..MOST_PACKETS {
        if u.is_empty() {
            break;
        }
        let what: u8 = u.arbitrary()?;
        now_ns += STEPS_NS[usize::from(what >> 4)];
        if now_ns > LONGEST_NS {
            break;
        }
        let frame = match what & 7 {
            0..=3 => frame::built(u, &last)?,
            4 => {
                let len = u.arbitrary::<u8>()?;
                u.bytes(usize::from(len).min(u.len()))?.to_vec()
            }
            5 => last.clone(),
            _ => frame::answer(u, &last)?,
        };
        let packet = parse(&Slice(&frame));
        if what & 8 != 0 {
            if let Ok(p) = packet {
                past.sends(&p, now_ns);
            }
            simulation.egress(&frame, now_ns);
            reference.egress(&frame, now_ns);
        } else {
            let (outcome, answer) = simulation.answer(&frame, now_ns);
            counters.note(outcome, frame.len());
            agree(compiled, outcome, reference.ingress(&frame, now_ns), || {
                format!("at {now_ns} ns: {packet:?}")
            });
            match packet {
                Ok(p) => {
                    rules::check(policy, entry, &past, &p, outcome.reason);
                    let rejected = Rejected { frame: &frame, p: &p, reason: outcome.reason, now_ns };
                    answers.check(policy, entry, &past, &rejected, answer.as_deref());
                    past.first_fragment |= p.fragment == Fragment::First && passes(outcome);
                }
                Err(reason) => {
                    assert_eq!(outcome, Outcome::plain(reason), "no packet, and yet decided on");
                    assert_eq!(answer, None, "an answer to what is no packet");
                }
            }
            // It leaves by the interface that the packet came by.
            if let Some(answer) = answer {
                simulation.egress(&answer, now_ns);
                reference.egress(&answer, now_ns);
            }
        }
        last = frame;
    }
    Ok(())
}

fn passes(outcome: Outcome) -> bool {
    matches!(outcome.verdict(), Verdict::Pass)
}

/// Decides on a frame alone, by a host that has seen no other.
///
/// # Panics
/// If engine and reference differ.
pub fn alone(frame: &[u8]) {
    let World { policy, compiled } = world();
    let outcome = Simulation::new(compiled, 0).ingress(frame, SECOND);
    let mut reference = Reference::new(policy, INTERFACES[0]).expect("an entry");
    agree(compiled, outcome, reference.ingress(frame, SECOND), || format!("{:?}", parse(&Slice(frame))));
}

/// The reference says the same of a packet, and counts it under the same rule.
fn agree(
    compiled: &Compiled,
    outcome: Outcome,
    (reason, expected): (Reason, Option<String>),
    of: impl FnOnce() -> String,
) {
    let rule = if outcome.reason.has_rule() { compiled.rule_name(outcome.rule) } else { None };
    assert_eq!(rule.is_some(), outcome.reason.has_rule(), "{outcome:?} counts under no rule");
    let (engine, reference) = ((outcome.reason, rule), (reason, expected.as_deref()));
    assert!(engine == reference, "engine {engine:?}, reference {reference:?} {}", of());
}

/// The counters as the kernel program keeps them: packets and bytes by index.
#[derive(Default)]
struct Counters {
    cells: BTreeMap<u32, (u64, u64)>,
    seen: (u64, u64),
    passed: u64,
}

impl Counters {
    fn note(&mut self, outcome: Outcome, bytes: usize) {
        for sum in [self.cells.entry(index(outcome.reason, outcome.rule)).or_default(), &mut self.seen] {
            sum.0 += 1;
            sum.1 += bytes as u64;
        }
        self.passed += u64::from(passes(outcome));
    }

    /// The sum over reasons is what was seen, and what passed is the sum over reasons that pass.
    fn check(&self) {
        let (mut sum, mut passed) = ((0, 0), 0);
        for (index, (packets, bytes)) in &self.cells {
            assert!(*index < COUNTERS_LEN, "there is no counter {index}");
            let reason = reason_of(*index).unwrap_or_else(|| panic!("counter {index} is of no reason"));
            sum = (sum.0 + packets, sum.1 + bytes);
            passed += if matches!(reason.verdict(), Verdict::Pass) { *packets } else { 0 };
        }
        assert_eq!(
            (sum, passed),
            (self.seen, self.passed),
            "the counters of all reasons are not what was seen"
        );
    }
}
