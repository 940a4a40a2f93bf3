//! What a run left in its log: libFuzzer's counts, and the crash if there was one. Called when a target has ended.

use std::path::Path;

/// What libFuzzer counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inputs that were tried.
    pub runs: u64,
    pub per_second: u64,
    /// Edges of the code that were reached.
    pub cov: u64,
    /// Features: edges by how often, and comparisons.
    pub ft: u64,
    /// Inputs that were kept.
    pub corpus: u64,
}

impl Stats {
    /// From lines such as `#4096 NEW    cov: 88 ft: 120 corp: 33/1kb lim: 43 exec/s: 2048 rss: 50Mb`.
    pub fn read(log: &str) -> Self {
        let mut stats = Self::default();
        for line in log.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |label| {
                let value = words.iter().skip_while(|word| **word != label).nth(1)?;
                value.split('/').next()?.parse::<u64>().ok()
            };
            if let Some(runs) = words.first().and_then(|word| word.strip_prefix('#')?.parse().ok()) {
                stats.runs = runs;
                for (label, field) in
                    [("cov:", &mut stats.cov), ("ft:", &mut stats.ft), ("corp:", &mut stats.corpus)]
                {
                    *field = after(label).unwrap_or(*field);
                }
            }
            stats.runs = after("stat::number_of_executed_units:").unwrap_or(stats.runs);
            stats.per_second = after("stat::average_exec_per_sec:").unwrap_or(stats.per_second);
        }
        stats
    }
}

/// An input that a target did not survive.
#[derive(Debug, PartialEq, Eq)]
pub struct Crash {
    pub why: String,
    /// What shows it again.
    pub command: String,
    /// The input, if it is small enough to be printed: the machine that found it may be gone tomorrow.
    pub base64: Option<String>,
}

impl Crash {
    pub fn read(log: &str, program: &Path, log_file: &Path) -> Self {
        let lines = || log.lines().map(str::trim);
        // A panic says where on one line and why on the next.
        let panic = lines()
            .skip_while(|line| !line.contains("panicked at"))
            .take(4)
            .take_while(|line| !line.starts_with("stack backtrace") && !line.starts_with("note: "))
            .collect::<Vec<_>>()
            .join(" ");
        let summary = || lines().find(|line| line.starts_with("SUMMARY:") || line.contains("ERROR:"));
        let why =
            if panic.is_empty() { summary().unwrap_or("it ended without a word").to_owned() } else { panic };
        let input = lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, file)| file));
        let command = match input {
            Some(input) => format!("{} {input}", program.display()),
            None => format!("see {}", log_file.display()),
        };
        let base64 = lines().find_map(|line| line.strip_prefix("Base64: ")).map(str::to_owned);
        Self { why, command, base64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #4096\tpulse  cov: 88 ft: 120 corp: 33/1024b lim: 43 exec/s: 2048 rss: 50Mb\n";

    #[test]
    fn reads_what_libfuzzer_counts() {
        let stats = Stats::read(LOG);
        assert_eq!(stats, Stats { runs: 4096, per_second: 0, cov: 88, ft: 120, corpus: 33 });
        let ended =
            format!("{LOG}stat::number_of_executed_units: 5000\nstat::average_exec_per_sec:     2500\n");
        let stats = Stats::read(&ended);
        assert_eq!((stats.runs, stats.per_second, stats.cov), (5000, 2500, 88));
        assert_eq!(Stats::read("nothing"), Stats::default());
    }

    #[test]
    fn a_crash_names_its_reason_and_input() {
        let log = "thread '<unnamed>' (7) panicked at src/list.rs:9:5:\na list is another list\n\
            stack backtrace:\n0: begin\n\
            artifact_prefix='/t/'; Test unit written to /t/crash-1\nBase64: AAE=\n";
        let crash = Crash::read(log, Path::new("/b/list"), Path::new("/t/list.log"));
        assert!(crash.why.ends_with("another list"), "{crash:?}");
        assert_eq!((crash.command.as_str(), crash.base64.as_deref()), ("/b/list /t/crash-1", Some("AAE=")));
        let crash = Crash::read("", Path::new("/b/list"), Path::new("/t/list.log"));
        assert_eq!(crash.command, "see /t/list.log");
    }
}
