//! `tollgate bans`: who is banned, how long still, and why.

use std::io::{BufWriter, Write, stdout};

use anyhow::Context;

use super::table::{print, rendered, table};
use super::{Global, Outcome, reading};
use crate::observe::bans::{BanStatus, BansStatus};

/// Show who is banned, how long still, and why
///
/// Read from the kernel; why is in the state directory. Bans that are over are not shown. Who is not root asks
/// the daemon (`run --read-group`).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print how many there are, and nothing else
    #[arg(long, conflicts_with = "json")]
    count: bool,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    let list = reading::bans(global)?;
    if args.count {
        print(&format!("{}\n", list.bans.len()));
    } else if args.json {
        let mut out = BufWriter::new(stdout().lock());
        let written = serde_json::to_writer(&mut out, &list).map_err(std::io::Error::from);
        // A reader that has gone away is no error.
        match written.and_then(|()| writeln!(out)).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(error).context("JSON")?;
            }
            _ => {}
        }
    } else {
        print(&for_people(&list));
    }
    Ok(())
}

fn for_people(list: &BansStatus) -> String {
    let waiting = if list.enforced { "" } else { "no policy is enforced: these bans wait for one\n\n" };
    if list.bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut rows = table(&["prefix", "#ends in", "since", "why"]);
    for one in &list.bans {
        rows.add_row([one.prefix.as_str(), &left(one), &one.since, &one.why]);
    }
    format!("{waiting}{}", rendered(&rows))
}

/// What is left, in its two largest units.
fn left(one: &BanStatus) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];

    let Some(seconds) = one.seconds_left else { return "never".to_owned() };
    let largest = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let mut text = String::new();
    let mut rest = seconds;
    for (unit, name) in UNITS.iter().skip(largest).take(2) {
        if rest >= *unit || text.is_empty() {
            text.push_str(&format!("{}{name}", rest / unit));
        }
        rest %= unit;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_readable() {
        for (seconds, text) in [
            (Some(1), "1s"),
            (Some(59), "59s"),
            (Some(60), "1m"),
            (Some(599), "9m59s"),
            (Some(3600), "1h"),
            (Some(90_061), "1d1h"),
            (Some(86_459), "1d"),
            (None, "never"),
        ] {
            let one = BanStatus {
                prefix: "192.0.2.1/32".to_owned(),
                since: String::new(),
                until: None,
                seconds_left: seconds,
                why: String::new(),
            };
            assert_eq!(left(&one), text);
        }
    }
}
