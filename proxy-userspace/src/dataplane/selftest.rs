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

/// Runs all tests; gives how many there were.
///
/// # Errors
/// If a test fails, or can't be run.
pub fn run(candidate: &Candidate<'_>, policy: &Policy, compiled: &Compiled) -> Result<usize, DataplaneError> {
    let packets = test_packets(policy, compiled).context(|| "the policy's own tests")?;
    let expected = run_tests(policy, compiled).context(|| "the policy's own tests")?;
    let mut trials: Vec<Option<Trial>> = compiled.interfaces.iter().map(|_| None).collect();
    let mut results = Vec::with_capacity(packets.len());
    for (packet, expected) in packets.into_iter().zip(expected) {
        let Some(place) = trials.get_mut(packet.interface) else { continue };
        let trial = match place {
            Some(trial) => trial,
            None => place.insert(load(candidate, policy, compiled, packet.interface)?),
        };
        let outcome = trial.ingress(&packet.frame, expected.outcome)?;
        // Each test starts with full buckets, as on the host.
        trial.forget_limits()?;
        results.push(TestResult::new(packet.test, compiled, packet.interface, outcome));
    }
    let report = TestReport { path: policy.path.clone(), results };
    if report.passed() {
        return Ok(report.results.len());
    }
    let failed = report.to_string().lines().map(str::to_owned).collect();
    Err(DataplaneError::TestsFailed { failed })
}

fn load(
    candidate: &Candidate<'_>,
    policy: &Policy,
    compiled: &Compiled,
    interface: usize,
) -> Result<Trial, DataplaneError> {
    let one = compiled.interfaces.get(interface);
    let entry = one.and_then(|one| policy.interfaces.get(one.entry));
    let rejects = one.is_some_and(|one| one.rejects);
    let hook = match entry.map(|entry| entry.hook) {
        Some(HookChoice::Tc | HookChoice::Clsact) => TrialHook::Tc,
        Some(HookChoice::Auto) if rejects => TrialHook::Tc,
        _ => TrialHook::Xdp,
    };
    Trial::of(candidate.load_private(interface)?, compiled, hook)
}
