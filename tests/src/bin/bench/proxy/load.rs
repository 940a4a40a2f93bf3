//! Loads that h2load makes, and what it says of them. Called by `mod.rs`.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What was asked for, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// HTTP/2, else HTTP/1.1.
    pub http2: bool,
    /// 1 MiB, else 1 KiB.
    pub large: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    /// Answers that were complete.
    pub count: u64,
    /// In a second.
    pub rate: f64,
}

impl Requests {
    fn arguments(self) -> Vec<&'static str> {
        match (self.http2, self.large) {
            (false, false) => vec!["--h1", "-c", "32"],
            (true, false) => vec!["-c", "8", "-m", "8"],
            (false, true) => vec!["--h1", "-c", "8"],
            (true, true) => vec!["-c", "4", "-m", "2"],
        }
    }

    /// Asks for so long.
    pub fn run(self, to: SocketAddr, time: Duration) -> Result<Done> {
        let path = if self.large { "1m" } else { "1k" };
        let output = Command::new("h2load")
            .args(self.arguments())
            .args(["-D", &format!("{}", time.as_secs_f64()), &format!("https://{to}/{path}")])
            .output()
            .context("starting h2load")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "h2load: {}: {text}", output.status);
        read(&text).with_context(|| format!("h2load said:\n{text}"))
    }
}

/// `finished in 3.00s, 12345.67 req/s, …`, `requests: … 37037 done, 37037 succeeded, 0 failed, 0 errored, 0 timeout`.
fn read(text: &str) -> Result<Done> {
    let line = |begin: &str| {
        let found = text.lines().find(|line| line.starts_with(begin));
        found.with_context(|| format!("no line {begin}…"))
    };
    let number = |line: &str, unit: &str| -> Result<f64> {
        let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
        let mut last = "";
        let found = words.find_map(|word| {
            let found = (word == unit).then_some(last);
            last = word;
            found
        });
        Ok(found.with_context(|| format!("nothing before {unit} in {line}"))?.parse()?)
    };
    let (finished, requests) = (line("finished in ")?, line("requests: ")?);
    for bad in ["failed", "errored", "timeout"] {
        ensure!(number(requests, bad)? == 0.0, "requests failed");
    }
    let (done, succeeded) = (number(requests, "done")?, number(requests, "succeeded")?);
    ensure!(done > 0.0 && done == succeeded, "not all were answered as they should be");
    Ok(Done { count: done as u64, rate: number(finished, "req/s")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "finished in 3.00s, 12345.67 req/s, 13.45MB/s\n\
                        requests: 37037 total, 37069 started, 37037 done, 37037 succeeded, 0 failed, 0 errored, 0 timeout\n";

    #[test]
    fn reads_what_h2load_says() {
        assert_eq!(read(GOOD).ok(), Some(Done { count: 37037, rate: 12345.67 }));
    }

    #[test]
    fn takes_no_run_with_failures() {
        for (from, to) in [
            ("0 failed", "1 failed"),
            ("0 errored", "2 errored"),
            ("37037 succeeded", "37036 succeeded"),
            ("finished", "started"),
            ("37037 done, 37037 succeeded", "0 done, 0 succeeded"),
        ] {
            assert!(read(&GOOD.replace(from, to)).is_err(), "{to}");
        }
    }
}
