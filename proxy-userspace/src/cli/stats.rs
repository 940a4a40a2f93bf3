//! `tollgate stats`: what was let through, what was dropped, and why.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use comfy_table::Cell;
use proxy_common::abi::reason::Reason;

use super::table::{bytes, count, is_terminal, print, rendered, table};
use super::{Global, Outcome, require_root};
use crate::observe::stats::{self, AnswerStats, Counters, Flows, ReasonStats, Stats, Total};

/// Clears the terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show the counters: what was let through, what was dropped, and why
///
/// Every packet that reached an interface's hook is in exactly one reason, so the reasons add up to what was seen. Reasons
/// that belong to a rule (a service, or `default`) are shown for each rule too. Counters go on when a policy is applied,
/// and when the daemon is restarted or dead.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate stats --watch             what happens now, with packets a second
  tollgate stats --interface eth0    one interface alone
  tollgate stats --json | jq '.reasons[] | select(.verdict == \"drop\" and .packets > 0)'")]
pub struct Args {
    /// Print JSON, all reasons included; with --watch a line a second
    #[arg(long)]
    json: bool,
    /// Show the counters again and again, with rates, until interrupted
    #[arg(long, short)]
    watch: bool,
    /// Seconds between two readings of --watch
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// One interface alone, not all together
    #[arg(long, short, value_name = "NAME")]
    interface: Option<String>,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    require_root("tollgate stats")?;
    let mut earlier: Option<(Counters, Instant)> = None;
    loop {
        let reading = stats::read(&global.pins())?;
        let now = Instant::now();
        let chosen = choose(&reading, args.interface.as_deref())?;
        if args.json {
            let json = match &args.interface {
                Some(_) => serde_json::to_string(chosen),
                None => serde_json::to_string(&reading),
            };
            print(&format!("{}\n", json.context("JSON")?));
        } else {
            let since = earlier.as_ref().map(|(counters, at)| (counters, now - *at));
            let clear = if args.watch && is_terminal() { CLEAR } else { "" };
            // The table of flows is not an interface's.
            let flows = args.interface.is_none().then_some(reading.flows);
            print(&format!("{clear}{}", for_people(chosen, flows, since)));
        }
        if !args.watch {
            return Ok(());
        }
        earlier = Some((chosen.clone(), now));
        thread::sleep(Duration::from_secs(args.interval));
    }
}

fn choose<'a>(stats: &'a Stats, interface: Option<&str>) -> Result<&'a Counters, super::Failure> {
    let Some(wanted) = interface else { return Ok(&stats.all) };
    let found = stats.interfaces.iter().find(|one| one.name == wanted);
    found.map(|one| &one.counters).ok_or_else(|| {
        let names: Vec<_> = stats.interfaces.iter().map(|one| one.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        super::Failure::Input(format!("the interface {wanted} is not enforced; enforced: {names}"))
    })
}

/// The counters as tables; with rates, if there is an earlier reading.
fn for_people(counters: &Counters, flows: Option<Flows>, earlier: Option<(&Counters, Duration)>) -> String {
    if counters.seen == Total::default() && counters.rules.is_empty() {
        return "nothing is enforced, or nothing has been counted yet (`tollgate status`)\n".to_owned();
    }
    let rate = |now: Total, before: Option<Total>| match (earlier, before) {
        (Some((_, time)), before) => {
            let packets = now.since(before.unwrap_or_default()).packets;
            Cell::new(format!("{:.0}", packets as f64 / time.as_secs_f64()))
        }
        (None, _) => Cell::new(""),
    };
    let rates = if earlier.is_some() { "#packets/s" } else { "" };
    let reason_before = |name: &str| {
        let (before, _) = earlier?;
        before.reasons.iter().find(|one| one.name == name).map(|one| one.total)
    };
    let rule_before = |rule: &str, reason: &str| {
        let (before, _) = earlier?;
        let rule = before.rules.iter().find(|one| one.name == rule)?;
        rule.outcomes.iter().find(|one| one.name == reason).map(|one| one.total)
    };

    let mut reasons = table(&["reason", "verdict", "#packets", "#bytes", rates, "meaning"]);
    for ReasonStats { name, verdict, total } in &counters.reasons {
        if *total == Total::default() {
            continue;
        }
        let rate = rate(*total, reason_before(name));
        let cells = [(*name).into(), (*verdict).into(), count(total.packets), bytes(total.bytes), rate];
        reasons.add_row(cells.into_iter().chain([Cell::new(sentence(name))]));
    }
    let seen = rate(counters.seen, earlier.map(|(before, _)| before.seen));
    let total =
        [Cell::new("seen"), Cell::new(""), count(counters.seen.packets), bytes(counters.seen.bytes), seen];
    reasons.add_row(total.into_iter().chain([Cell::new("Everything that reached the hook.")]));

    let mut rules = table(&["rule", "reason", "verdict", "#packets", "#bytes", rates]);
    for rule in &counters.rules {
        let name =
            if rule.active { rule.name.clone() } else { format!("{} (not in the policy now)", rule.name) };
        if rule.outcomes.is_empty() {
            rules.add_row([name.as_str(), "", "", "0", "0 B", ""]);
        }
        for ReasonStats { name: reason, verdict, total } in &rule.outcomes {
            let rate = rate(*total, rule_before(&rule.name, reason));
            let cells = [name.as_str().into(), (*reason).into(), (*verdict).into(), count(total.packets)];
            rules.add_row(cells.into_iter().chain([bytes(total.bytes), rate]));
        }
    }
    let flows = flows.map_or_else(String::new, |Flows { known, most }| {
        format!("\n{known} of at most {most} connections that this host has begun are remembered.\n")
    });
    let answers = answers(counters.answers);
    format!("{}\n{}{answers}{flows}", rendered(&reasons), rendered(&rules))
}

/// What became of answers to rejected packets, if there was any.
fn answers(answers: AnswerStats) -> String {
    if answers == AnswerStats::default() {
        return String::new();
    }
    let AnswerStats { sent, throttled, failed } = answers;
    format!(
        "\nanswers to rejected packets: {sent} sent, {throttled} withheld by their limit, {failed} failed\n"
    )
}

fn sentence(name: &str) -> &'static str {
    Reason::ALL.iter().find(|reason| reason.name() == name).map_or("", |reason| reason.sentence())
}
