//! The policies that ship pass their own tests on the host.

use std::path::Path;

use tollgate::policy;
use tollgate::simulate;

#[test]
fn shipped_policies_pass_their_own_tests() {
    for (name, tests) in [("platform", 34), ("platform-strict", 34), ("minimal", 2)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../policies/{name}.toml"));
        let policy = policy::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let report = simulate::check(&policy).unwrap_or_else(|error| panic!("{error}"));
        assert!(report.passed(), "{report}");
        assert_eq!(report.results.len(), tests, "{name}");
    }
}
