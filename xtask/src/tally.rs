//! Counts what the test programs report. Called by `test` with each line that they print.

/// The sum over all test programs of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// The failed ones by name.
    pub failures: Vec<String>,
    /// Tests that their author has switched off, by name.
    pub ignored: Vec<String>,
}

impl Tally {
    /// Takes note of a line of output.
    pub fn note(&mut self, line: &str) {
        let line = without_colour(line);
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... "))
        {
            if outcome.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            } else if outcome.starts_with("ignored") {
                self.ignored.push(name.to_owned());
            }
        }
    }

    /// How many tests ran.
    pub fn ran(&self) -> usize {
        self.passed + self.failed
    }
}

/// The number before a word, in `ok. 5 passed; 0 failed; 1 ignored; …`.
fn count(counts: &str, word: &str) -> usize {
    counts
        .split(['.', ';'])
        .find_map(|part| part.trim().strip_suffix(word)?.trim_end().parse().ok())
        .unwrap_or(0)
}

/// The line without terminal escapes, which cargo may be configured to make.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.trim_end().chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            // A sequence ends with its first letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.note(line));
        tally
    }

    #[test]
    fn sums_over_test_programs() {
        let tally = tally(
            "running 2 tests\ntest a::works ... ok\ntest a::breaks ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             \n   Doc-tests tollgate\n\
             test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.50s\n",
        );
        assert_eq!((tally.passed, tally.failed, tally.ran()), (13, 1, 14));
        assert_eq!(tally.failures, ["a::breaks"]);
    }

    #[test]
    fn names_ignored_tests() {
        let tally = tally("test slow ... ignored\ntest other ... ignored, needs two machines\n");
        assert_eq!(tally.ignored, ["slow", "other"]);
    }

    #[test]
    fn reads_through_colour() {
        let tally = tally(
            "test a ... \u{1b}[31mFAILED\u{1b}[m\n\
             test result: \u{1b}[31mFAILED\u{1b}[m. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((tally.passed, tally.failed), (0, 1));
        assert_eq!(tally.failures, ["a"]);
    }

    #[test]
    fn passes_over_everything_else() {
        assert_eq!(tally("hello\n12 passed\ntest result: \ntest of patience\n"), Tally::default());
    }
}
