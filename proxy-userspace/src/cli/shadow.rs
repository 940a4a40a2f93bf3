//! `tollgate shadow`: what a candidate beside the policy in force would do otherwise, and the end of that.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use comfy_table::Cell;
use serde::Serialize;

use super::explain::line_of;
use super::table::{bytes, count, grouped, print, rendered, table};
use super::{Failure, Global, Outcome, require_root};
use crate::control::history::History;
use crate::dataplane::{self, Begun, Shared};
use crate::observe::shadow::{DifferencesReport, Lines, Row, ShadowReport, SideReport};
use crate::policy::{self, Policy};

/// Rows of sources that are printed, unless all are asked for.
const MOST_ROWS: usize = 20;

/// Show what a candidate would do otherwise than the policy in force, on the packets that really come
///
/// `tollgate apply --shadow FILE` begins a shadow run: the candidate judges every packet beside the policy in force and changes
/// nothing. Here is what the two treat differently: packets that the candidate alone would drop, and those that it alone would
/// let pass, by service and by source, since the run began.
///
/// A shadow run ends by --stop, and when another policy is applied, rolled back to, or detached. What it has counted is gone
/// then. Works with or without a daemon. The exit code is 1 if no shadow runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate apply --shadow new.toml     begin
  tollgate shadow                      what would be newly dropped, what would newly pass
  tollgate shadow --json | jq -r '.newly_dropped.by_source[].source'
  tollgate shadow --stop               end, and forget")]
pub struct Args {
    /// End the shadow run
    #[arg(long, conflicts_with_all = ["json", "all"])]
    stop: bool,
    /// Print JSON, all sources included
    #[arg(long)]
    json: bool,
    /// Print all sources that are listed, not only those with the most packets
    #[arg(long)]
    all: bool,
}

/// What `apply --shadow --json` writes.
#[derive(Serialize)]
struct Json<'a> {
    file: &'a Path,
    hash: &'a str,
    interfaces: &'a [String],
    tests: usize,
    notes: &'a [String],
    warnings: Vec<String>,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    require_root("tollgate shadow")?;
    let pins = global.pins();
    let none = || Failure::Refused("no shadow runs (`tollgate apply --shadow FILE` begins one)".to_owned());
    if args.stop {
        let _change = global.change()?;
        let file = dataplane::stop_shadow(&pins)?.ok_or_else(none)?;
        println!("ended: the shadow run of {}", file.display());
        return Ok(());
    }
    let run = dataplane::read_shadow(&pins)?.ok_or_else(none)?;
    let in_force = in_force(global)?;
    let candidate = policy::load(&run.shadow.file).ok().filter(|policy| policy.hash == run.shadow.hash);
    let candidate = candidate.and_then(|policy| Some(lines(&policy, &policy::read(&policy.path).ok()?)));
    let lines = [&in_force, &candidate.unwrap_or_default()];
    let report = ShadowReport::new(&run, lines, dataplane::engine_to_unix_ns()?);
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&report).context("JSON")?));
    } else {
        print(&for_people(&report, if args.all { usize::MAX } else { MOST_ROWS }));
    }
    Ok(())
}

/// `tollgate apply --shadow`: needs no daemon, since nothing of what is enforced changes.
pub(super) fn begin(global: &Global, policy: &Policy, json: bool) -> Outcome {
    require_root("tollgate apply --shadow")?;
    let pins = global.pins();
    let _change = global.change()?;
    // Nothing is made where nothing is.
    if !pins.shared().exists() {
        return Err(Failure::Refused(
            "no shadow run: nothing is enforced that the candidate could be compared with".to_owned(),
        ));
    }
    let Begun { interfaces, tests, notes } = dataplane::start_shadow(&pins, &Shared::open(&pins)?, policy)?;
    if json {
        let warnings = policy.warnings.iter().map(ToString::to_string).collect();
        let (file, hash) = (&policy.path, &policy.hash);
        let json = Json { file, hash, interfaces: &interfaces, tests, notes: &notes, warnings };
        println!("{}", serde_json::to_string(&json).context("JSON")?);
        return Ok(());
    }
    policy.warnings.iter().for_each(|warning| eprint!("{warning}"));
    let interfaces = interfaces.join(", ");
    println!(
        "{} runs in the shadow of what is enforced, on {interfaces}; `tollgate shadow` shows the difference",
        policy.path.display()
    );
    notes.iter().for_each(|note| println!("note: {note}"));
    Ok(())
}

/// Where the policy in force defines its services, as the history has it.
fn in_force(global: &Global) -> Result<Lines, Failure> {
    let enforced = dataplane::enforced(&global.pins())?;
    let history = History::new(&global.state_dir);
    let source = enforced.first().and_then(|one| history.with_hash(&one.hash()));
    let source = source.and_then(|one| history.load(one.revision).ok());
    Ok(source.map(|(policy, text, _)| lines(&policy, &text)).unwrap_or_default())
}

fn lines(policy: &Policy, text: &str) -> Lines {
    let line = |name: &String| Some((name.clone(), line_of(text, name)?));
    policy.services.iter().filter_map(|service| line(&service.name)).collect()
}

fn for_people(report: &ShadowReport, most: usize) -> String {
    let shadow = &report.shadow;
    let mut text = format!(
        "{} runs in the shadow of what is enforced since {}, on {}\n{} packets were compared, {} of them treated alike\n",
        shadow.file.display(),
        shadow.since,
        if shadow.interfaces.is_empty() { "no interface".to_owned() } else { shadow.interfaces.join(", ") },
        grouped(report.compared.packets),
        grouped(report.alike.packets),
    );
    for (would, differences) in
        [("newly drop", &report.newly_dropped), ("newly let pass", &report.newly_passed)]
    {
        let _ = write!(text, "\n{}", direction(would, differences, most));
    }
    text
}

fn direction(would: &str, found: &DifferencesReport, most: usize) -> String {
    if found.total.packets == 0 {
        return format!("would {would} nothing\n");
    }
    let sources = |number: usize| match number {
        1 => "this source".to_owned(),
        many => format!("these {} sources", grouped(many as u64)),
    };
    // Writing to a string can't fail.
    let mut text =
        format!("would {would} {} ({} packets)\n", sources(found.sources), grouped(found.total.packets));
    let mut rules = table(&["service", "now", "then", "#packets", "#bytes", "#sources"]);
    for row in &found.by_rule {
        let cells = [service(row), said(&row.in_force), said(&row.candidate)].map(Cell::new);
        let numbers = [count(row.total.packets), bytes(row.total.bytes), count(row.sources as u64)];
        rules.add_row(cells.into_iter().chain(numbers));
    }
    let mut list = table(&["source", "service", "to", "then", "#packets", "#bytes", "last"]);
    for row in found.by_source.iter().take(most) {
        let source = row.source.map_or_else(|| "no IP".to_owned(), |source| source.to_string());
        let cells = [source, service(row), row.to.clone(), row.candidate.reason.to_owned()].map(Cell::new);
        let rest = [count(row.total.packets), bytes(row.total.bytes), Cell::new(&row.last)];
        list.add_row(cells.into_iter().chain(rest));
    }
    let _ = write!(text, "{}\n{}", rendered(&rules), rendered(&list));
    let more = found.by_source.len().saturating_sub(most);
    if more > 0 {
        let _ = writeln!(text, "and {} more rows (--all)", grouped(more as u64));
    }
    if found.unlisted.packets > 0 {
        let packets = grouped(found.unlisted.packets);
        let _ = writeln!(text, "and {packets} packets of sources that the list has no room for");
    }
    text
}

fn service(row: &Row) -> String {
    row.service.clone().unwrap_or_else(|| "-".to_owned())
}

/// A reason, and the line of the rule's definition.
fn said(side: &SideReport) -> String {
    match (&side.rule, side.line) {
        (Some(_), Some(line)) => format!("{} (line {line})", side.reason),
        _ => side.reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::shadow::tests::run;

    fn report() -> ShadowReport {
        let lines = Lines::from([("ssh".to_owned(), 7)]);
        ShadowReport::new(&run(), [&lines, &Lines::new()], 0)
    }

    #[test]
    fn both_directions_are_said() {
        let text = for_people(&report(), MOST_ROWS);
        for said in [
            "/etc/new.toml runs in the shadow of what is enforced since 2023-11-14T22:13:20Z, on eth0",
            "110 packets were compared, 100 of them treated alike",
            "would newly drop these 2 sources (10 packets)",
            "service-allowed (line 7)",
            "192.0.2.7",
            "2001:db8::9",
            "and 2 packets of sources that the list has no room for",
            "would newly let pass nothing",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains("--all"), "{text}");
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let text = for_people(&report(), 1);
        assert!(text.contains("and 2 more rows (--all)") && !text.contains("192.0.2.7"), "{text}");
    }
}
