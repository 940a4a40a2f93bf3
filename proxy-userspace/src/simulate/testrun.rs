//! A policy's own tests: which packets they are, and what the engine on the host says of them.
//!
//! [`check`] is all of it for `check`; the loader takes [`test_interfaces`] and [`test_packets`] and asks the kernel.

use super::testframe::{FrameError, frame};
use super::{Simulation, TestReport, TestResult};
use crate::policy::compile::{CompileError, Compiled, RuleIds, compile, entry_for};
use crate::policy::model::{Policy, PolicyTest};
use crate::policy::units::InterfacePattern;

/// One test, ready to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct TestPacket {
    /// The test.
    pub test: PolicyTest,
    /// Index in [`Compiled::interfaces`] of the interface that the frame arrives on.
    pub interface: usize,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Why a policy's tests can't be run.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The policy was compiled without the interface of a test ([`test_interfaces`]): a fault of the program.
    #[error("the test of line {line} is for an interface that the policy was not compiled for")]
    NotCompiled {
        /// Line of the test.
        line: usize,
    },
    /// A frame can't be built.
    #[error("the test of line {line} can't be run")]
    Frame {
        /// Line of the test.
        line: usize,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// The policy can't be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Compiles a policy for the interfaces of its tests alone, and runs them on the host.
///
/// # Errors
/// A policy that can't be compiled. Tests that fail are no error, but in the report.
pub fn check(policy: &Policy) -> Result<TestReport, TestError> {
    let rules = RuleIds::assign(&[], &|_| false, policy)?;
    let compiled = compile(policy, &test_interfaces(policy), &rules)?;
    let results = run_tests(policy, &compiled)?;
    Ok(TestReport { path: policy.path.clone(), results })
}

/// Names of the interfaces that a policy's tests need, each once: what to compile for besides the interfaces that
/// are there. A test without an interface is for the first entry of the policy; if that is a pattern, some name
/// that it means stands for it.
pub fn test_interfaces(policy: &Policy) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for test in &policy.tests {
        let name = test.interface.clone().or_else(|| name_for_first_entry(policy));
        if let Some(name) = name.filter(|name| !names.contains(name)) {
            names.push(name);
        }
    }
    names
}

/// The name of the first entry, or one that its pattern and no other entry's name means.
fn name_for_first_entry(policy: &Policy) -> Option<String> {
    let pattern = &policy.interfaces.first()?.name;
    let fillings = ["", "0", "1", "x", "eth0"].map(|filling| pattern.replace('*', filling));
    let valid = |name: &String| name.parse::<InterfacePattern>().is_ok_and(|name| !name.is_pattern());
    let names = fillings.into_iter().filter(valid).chain([pattern.clone()]);
    names.filter(|name| entry_for(policy, name) == Some(0)).min_by_key(|name| name.contains('*'))
}

/// The packets of a policy's tests, in the order of the file.
///
/// # Errors
/// A policy that was compiled without the interfaces of its tests.
pub fn test_packets(policy: &Policy, compiled: &Compiled) -> Result<Vec<TestPacket>, TestError> {
    let packet = |test: &PolicyTest| {
        let line = test.line;
        let interface = compiled.interfaces.iter().position(|interface| match &test.interface {
            Some(name) => interface.name == *name,
            None => interface.entry == 0,
        });
        Ok(TestPacket {
            test: test.clone(),
            interface: interface.ok_or(TestError::NotCompiled { line })?,
            frame: frame(test).map_err(|source| TestError::Frame { line, source })?,
        })
    };
    policy.tests.iter().map(packet).collect()
}

/// Runs a policy's tests on the host, each on one that has seen nothing yet.
///
/// # Errors
/// As [`test_packets`].
pub fn run_tests(policy: &Policy, compiled: &Compiled) -> Result<Vec<TestResult>, TestError> {
    let judge = |packet: TestPacket| {
        let outcome = Simulation::new(compiled, packet.interface).ingress(&packet.frame, 0);
        TestResult::new(packet.test, compiled, packet.interface, outcome)
    };
    Ok(test_packets(policy, compiled)?.into_iter().map(judge).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn policy(text: &str) -> Policy {
        crate::policy::parse(text, Path::new("policy.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_test_without_an_interface_is_for_the_first_entry() {
        let test = "[[test]]\nfrom = \"203.0.113.9\"\nto = \"tcp/22\"\nexpect = \"drop\"\n";
        for (entries, expected) in [
            ("[interfaces.eth0]\n", "eth0"),
            ("[interfaces.\"br-*\"]\n", "br-"),
            ("[interfaces.\"*\"]\n", "0"),
            ("[interfaces.\"br-*\"]\n[interfaces.br-]\n", "br-0"),
            ("[interfaces.\"fifteen-letters*\"]\n", "fifteen-letters"),
        ] {
            let policy = policy(&format!("version = 1\n{entries}{test}"));
            assert_eq!(test_interfaces(&policy), [expected], "{entries}");
            assert!(check(&policy).expect("a report").passed());
        }
    }

    #[test]
    fn a_policy_compiled_for_other_interfaces_can_not_be_tested() {
        let policy = policy(
            "version = 1\n[interfaces.\"eth*\"]\n\
             [[test]]\nfrom = \"203.0.113.9\"\nto = \"ping\"\nexpect = \"pass\"\ninterface = \"eth1\"\n",
        );
        let rules = RuleIds::assign(&[], &|_| false, &policy).expect("ids");
        let compiled = compile(&policy, &["eth0".to_owned()], &rules).expect("tables");
        assert!(matches!(test_packets(&policy, &compiled), Err(TestError::NotCompiled { line: 3 })));
    }
}
