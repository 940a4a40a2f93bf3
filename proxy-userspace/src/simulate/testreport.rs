//! What came out of a policy's own tests, in sentences.
//!
//! Made by [`super::run_tests`] on the host and by the loader in the kernel; printed by `check` and `apply`.

use std::fmt;
use std::path::PathBuf;

use proxy_common::abi::reason::Verdict;
use proxy_common::engine::Outcome;

use crate::policy::compile::Compiled;
use crate::policy::model::{PolicyTest, PortRange, TestTarget};
use crate::policy::units::Ports;

/// What came out of one test.
#[derive(Clone, Debug, PartialEq)]
pub struct TestResult {
    /// The test.
    pub test: PolicyTest,
    /// Name of the interface that the packet arrived on.
    pub interface: String,
    /// What was decided.
    pub outcome: Outcome,
    /// Name of the rule that it counts under, if its reason has one.
    pub rule: Option<String>,
}

impl TestResult {
    /// The result of a test on one of the policy's interfaces.
    ///
    /// # Panics
    /// If `interface` is not an index in [`Compiled::interfaces`].
    pub fn new(test: PolicyTest, compiled: &Compiled, interface: usize, outcome: Outcome) -> Self {
        let rule = if outcome.reason.has_rule() { compiled.rule_name(outcome.rule) } else { None };
        Self {
            test,
            interface: compiled.interfaces[interface].name.clone(),
            outcome,
            rule: rule.map(str::to_owned),
        }
    }

    /// True if the packet fared as the test expects.
    pub fn passed(&self) -> bool {
        self.test.expect_pass == matches!(self.outcome.verdict(), Verdict::Pass)
    }
}

impl fmt::Display for TestResult {
    /// `tcp/5432 from 203.0.113.9 on wlp2s0 should be dropped, but passes: service-allowed (rule postgres)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.test.to {
            TestTarget::Ping => f.write_str("ping")?,
            TestTarget::Port(transport, port) => {
                write!(f, "{}", Ports(PortRange { transport, first: port, last: port }))?;
            }
        }
        write!(f, " from {} on {} ", self.test.from, self.interface)?;
        f.write_str(match (self.test.expect_pass, self.outcome.verdict()) {
            (true, Verdict::Pass) => "passes",
            (true, Verdict::Drop) => "should pass, but is dropped",
            (false, Verdict::Pass) => "should be dropped, but passes",
            (false, Verdict::Drop) => "is dropped",
        })?;
        write!(f, ": {}", self.outcome.reason.name())?;
        match &self.rule {
            Some(rule) => write!(f, " (rule {rule})"),
            None => Ok(()),
        }
    }
}

/// What came out of all tests of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct TestReport {
    /// The policy's file.
    pub path: PathBuf,
    /// Results in the order of the file.
    pub results: Vec<TestResult>,
}

impl TestReport {
    /// True if all packets fared as expected.
    pub fn passed(&self) -> bool {
        self.results.iter().all(TestResult::passed)
    }

    /// Those that did not.
    pub fn failures(&self) -> impl Iterator<Item = &TestResult> {
        self.results.iter().filter(|result| !result.passed())
    }
}

impl fmt::Display for TestReport {
    /// A line for each test that failed; nothing if none did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failures().try_for_each(|result| {
            writeln!(f, "{}:{}: test failed: {result}", self.path.display(), result.test.line)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::policy::parse;
    use crate::simulate::check;

    #[test]
    fn a_failure_says_where_and_why() {
        let text = "version = 1\n[interfaces.wlp2s0]\n[services.postgres]\nports = [\"tcp/5432\"]\nallow = \"any\"\n\
                    [[test]]\nfrom = \"203.0.113.9\"\nto = \"tcp/5432\"\nexpect = \"drop\"\n\
                    [[test]]\nfrom = \"203.0.113.9\"\nto = \"ping\"\nexpect = \"pass\"\n\
                    [[test]]\nfrom = \"::1\"\nto = \"udp/53\"\nexpect = \"pass\"\n";
        let report = check(&parse(text, Path::new("policy.toml")).expect("a policy")).expect("a report");
        assert!(!report.passed());
        assert_eq!(
            report.to_string(),
            "policy.toml:6: test failed: tcp/5432 from 203.0.113.9 on wlp2s0 should be dropped, but passes: \
             service-allowed (rule postgres)\n\
             policy.toml:14: test failed: udp/53 from ::1 on wlp2s0 should pass, but is dropped: source-invalid\n"
        );
        assert_eq!(report.results[1].to_string(), "ping from 203.0.113.9 on wlp2s0 passes: ping");
    }
}
