//! Runs a policy's own tests on the candidate, in the kernel: nothing goes live that fails one.
//!
//! Called by `apply`. The programs run with the candidate's tables and with counters, limits and flows of their own, so
//! that a test leaves no trace. The engine on the host says which counter to look at first; the kernel has the last word.

use super::candidate::Candidate;
use super::error::{Context, DataplaneError};
use super::trial::{Trial, TrialHook};
use crate::policy::Policy;
use crate::policy::compile::Compiled;
use crate::policy::model::HookChoice;
use crate::simulate::{TestReport, TestResult, run_tests, test_packets};

/// What has passed: how many tests, and the programs that they ran on, by interface of the compiled policy.
pub(super) struct Passed {
    pub(super) tests: usize,
    pub(super) trials: Vec<(usize, TrialHook, Trial)>,
}

/// Runs all tests.
///
/// # Errors
/// If a test fails, or can't be run.
pub(super) fn run(
    candidate: &mut Candidate<'_>,
    policy: &Policy,
    compiled: &Compiled,
) -> Result<Passed, DataplaneError> {
    let packets = test_packets(policy, compiled).context(|| "the policy's own tests")?;
    let expected = run_tests(policy, compiled).context(|| "the policy's own tests")?;
    let mut trials: Vec<(usize, TrialHook, Trial)> = Vec::new();
    let mut results = Vec::with_capacity(packets.len());
    for (packet, expected) in packets.into_iter().zip(expected) {
        let nth = match trials.iter().position(|(interface, ..)| *interface == packet.interface) {
            Some(nth) => nth,
            None => {
                let hook = hook(policy, compiled, packet.interface);
                trials.push((packet.interface, hook, candidate.trial(packet.interface, hook)?));
                trials.len() - 1
            }
        };
        let Some((.., trial)) = trials.get_mut(nth) else { continue };
        let outcome = trial.ingress(&packet.frame, expected.outcome)?;
        // Each test starts with full buckets, as on the host.
        trial.forget_limits();
        results.push(TestResult::new(packet.test, compiled, packet.interface, outcome));
    }
    let report = TestReport { path: policy.path.clone(), results };
    if report.passed() {
        return Ok(Passed { tests: report.results.len(), trials });
    }
    let failed = report.to_string().lines().map(str::to_owned).collect();
    Err(DataplaneError::TestsFailed { failed })
}

/// Which program is to judge on an interface.
fn hook(policy: &Policy, compiled: &Compiled, interface: usize) -> TrialHook {
    let one = compiled.interfaces.get(interface);
    let entry = one.and_then(|one| policy.interfaces.get(one.entry));
    let rejects = one.is_some_and(|one| one.rejects);
    match entry.map(|entry| entry.hook) {
        Some(HookChoice::Tc | HookChoice::Clsact) => TrialHook::Tc,
        Some(HookChoice::Auto) if rejects => TrialHook::Tc,
        _ => TrialHook::Xdp,
    }
}
