//! Packets that other filters let through die here, and the honest ones beside them pass: by both programs, in the kernel.

mod evasion {
    use std::collections::BTreeSet;
    use std::io::Write;

    use anyhow::{Result, ensure};
    use tollgate::dataplane::TrialHook;
    use tollgate_tests::evasion::{HOOKS, KNOWN_GAPS, Row, Trials, cases};
    use tollgate_tests::lab::require_root;

    fn rows(hook: TrialHook) -> Result<Vec<Row>> {
        require_root()?;
        let mut trials = Trials::new(hook)?;
        cases().iter().map(|case| trials.run(case)).collect()
    }

    fn every_case_ends_as_expected(hook: TrialHook) -> Result<()> {
        let rows = rows(hook)?;
        if std::env::var_os("TOLLGATE_TABLE").is_some() {
            // Around libtest, which keeps what a passing test prints.
            let table: String = rows.iter().map(|row| format!("{row}\n")).collect();
            std::io::stderr().lock().write_all(table.as_bytes())?;
        }
        let is_wrong = |row: &&Row| row.is_good() == row.known_gap().is_some();
        let wrong: Vec<_> = rows.iter().filter(is_wrong).map(ToString::to_string).collect();
        ensure!(
            wrong.is_empty(),
            "not as expected, or a known gap that is closed and must be taken off the list:\n{}",
            wrong.join("\n")
        );
        Ok(())
    }

    #[test]
    fn every_case_ends_as_expected_by_xdp() -> Result<()> {
        every_case_ends_as_expected(TrialHook::Xdp)
    }

    #[test]
    fn every_case_ends_as_expected_by_tc() -> Result<()> {
        every_case_ends_as_expected(TrialHook::Tc)
    }

    #[test]
    fn every_twin_passes() -> Result<()> {
        for hook in HOOKS {
            let rows = rows(hook)?;
            let wrong: Vec<_> =
                rows.iter().filter(|row| !row.twin_is_good()).map(ToString::to_string).collect();
            ensure!(wrong.is_empty(), "twins that do not pass:\n{}", wrong.join("\n"));
        }
        Ok(())
    }

    #[test]
    fn there_are_at_least_150_cases_with_unique_names() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len(), "two cases have one name");
        assert!(cases.len() >= 150, "{} cases", cases.len());
        for (gap, _) in KNOWN_GAPS {
            assert!(names.contains(gap), "no case is named {gap:?}");
        }
    }
}
