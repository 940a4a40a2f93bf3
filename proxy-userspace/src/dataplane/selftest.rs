//! Runs a policy's own tests on the candidate, in the kernel, by test-run: nothing goes live that fails one.
//!
//! Called by `apply`. The programs run with the candidate's tables and with counters, limits and flows of their own, so
//! that a test leaves no trace. The engine on the host says which counter to look at first; the kernel has the last word.

use std::collections::HashMap;

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use proxy_common::abi::counter::{Counter, index};
use proxy_common::abi::reason::Reason;
use proxy_common::engine::Outcome;

use super::candidate::Candidate;
use super::counters::sum;
use super::error::{Context, DataplaneError, missing};
use super::memory::clear;
use super::object;
use crate::policy::Policy;
use crate::policy::compile::Compiled;
use crate::policy::model::HookChoice;
use crate::simulate::{TestPacket, TestReport, TestResult, run_tests, test_packets};

/// Runs all tests; gives how many there were.
///
/// # Errors
/// If a test fails, or can't be run.
pub fn run(candidate: &Candidate<'_>, policy: &Policy, compiled: &Compiled) -> Result<usize, DataplaneError> {
    let packets = test_packets(policy, compiled).context(|| "the policy's own tests")?;
    let expected = run_tests(policy, compiled).context(|| "the policy's own tests")?;
    let mut benches: Vec<Option<Bench>> = compiled.interfaces.iter().map(|_| None).collect();
    let mut results = Vec::with_capacity(packets.len());
    for (packet, expected) in packets.into_iter().zip(expected) {
        let Some(place) = benches.get_mut(packet.interface) else { continue };
        let bench = match place {
            Some(bench) => bench,
            None => place.insert(Bench::new(candidate, policy, compiled, packet.interface)?),
        };
        results.push(bench.run(packet, &expected, compiled)?);
    }
    let report = TestReport { path: policy.path.clone(), results };
    if report.passed() {
        return Ok(report.results.len());
    }
    let failed = report.to_string().lines().map(str::to_owned).collect();
    Err(DataplaneError::TestsFailed { failed })
}

/// An interface's program with private state.
struct Bench {
    ebpf: Ebpf,
    counters: PerCpuArray<MapData, Counter>,
    by_xdp: bool,
    /// What the counters said after the last test.
    seen: HashMap<u32, u64>,
}

impl Bench {
    fn new(
        candidate: &Candidate<'_>,
        policy: &Policy,
        compiled: &Compiled,
        interface: usize,
    ) -> Result<Self, DataplaneError> {
        let mut ebpf = candidate.load_private(interface)?;
        let entry = compiled.interfaces.get(interface).and_then(|one| policy.interfaces.get(one.entry));
        let by_xdp = !entry.is_some_and(|entry| matches!(entry.hook, HookChoice::Tc | HookChoice::Clsact));
        if by_xdp {
            object::xdp(&mut ebpf, object::XDP_INGRESS)?;
        } else {
            object::classifier(&mut ebpf, object::TC_INGRESS)?;
        }
        let counters = ebpf.take_map("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let counters = PerCpuArray::try_from(counters).context(|| "COUNTERS")?;
        Ok(Self { ebpf, counters, by_xdp, seen: HashMap::new() })
    }

    fn run(
        &mut self,
        packet: TestPacket,
        expected: &TestResult,
        compiled: &Compiled,
    ) -> Result<TestResult, DataplaneError> {
        let what = || format!("running the test of line {} in the kernel", packet.test.line);
        let options = TestRunOptions { data_in: Some(&packet.frame), ..TestRunOptions::default() };
        if self.by_xdp {
            let program =
                self.ebpf.program(object::XDP_INGRESS).ok_or_else(|| missing(object::XDP_INGRESS))?;
            let program: &Xdp = program.try_into().context(what)?;
            program.test_run(options).context(what)?;
        } else {
            let program = self.ebpf.program(object::TC_INGRESS).ok_or_else(|| missing(object::TC_INGRESS))?;
            let program: &SchedClassifier = program.try_into().context(what)?;
            program.test_run(options).context(what)?;
        }
        // Each test starts with full buckets, as on the host.
        match self.ebpf.map("CELLS") {
            Some(Map::Array(map)) => clear(map, "CELLS")?,
            _ => return Err(missing("CELLS")),
        }
        let outcome = self.find(expected.outcome, compiled)?;
        Ok(TestResult::new(packet.test, compiled, packet.interface, outcome))
    }

    /// The outcome whose counter has moved: the guess, or one of all the others.
    fn find(&mut self, guess: Outcome, compiled: &Compiled) -> Result<Outcome, DataplaneError> {
        let of_reason = |reason: &'static Reason| {
            let rules = if reason.has_rule() { compiled.rules.as_slice() } else { &compiled.rules[..1] };
            rules.iter().map(|rule| Outcome { reason: *reason, rule: rule.id })
        };
        for outcome in [guess].into_iter().chain(Reason::ALL.iter().flat_map(of_reason)) {
            let place = index(outcome.reason, outcome.rule);
            let values = self.counters.get(&place, 0).context(|| "reading COUNTERS")?;
            let (now, seen) = (sum(values.iter()).packets, self.seen.entry(place).or_default());
            if now > *seen {
                *seen = now;
                return Ok(outcome);
            }
        }
        Err(missing("a count of the test's packet"))
    }
}
