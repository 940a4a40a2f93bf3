//! `tollgate stats`: what was let through, what was dropped, and why.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use comfy_table::Cell;
use proxy_common::abi::reason::Reason;
use serde::Serialize;

use super::table::{bytes, count, is_terminal, print, rendered, table};
use super::{Global, Outcome, reading};
use crate::observe::rates::{Rate, Rates};
use crate::observe::stats::{AnswerStats, Counters, Flows, ReasonStats, Stats, Total};

/// Clears the terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show the counters: what was let through, what was dropped, and why
///
/// Every packet that reached an interface's hook is in exactly one reason, so the reasons add up to what was seen. Reasons
/// that belong to a rule (a service, or `default`) are shown for each rule too. Counters go on when a policy is applied,
/// and when the daemon is restarted or dead. Who is not root asks the daemon (`run --read-group`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate stats --watch             what happens now, with packets a second
  tollgate stats --interface eth0    one interface alone
  tollgate stats --json | jq '.reasons[] | select(.verdict == \"drop\" and .packets > 0)'")]
pub struct Args {
    /// Print JSON, all reasons included; with --watch a line for each reading, from the second on with `rates`
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

/// What `--json` writes.
#[derive(Serialize)]
struct Json<'a, T> {
    #[serde(flatten)]
    counters: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<&'a Rates>,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    let wanted = args.interface.as_deref();
    let mut earlier: Option<(Stats, Instant)> = None;
    loop {
        let reading = reading::stats(global)?;
        let now = Instant::now();
        let chosen = choose(&reading, wanted)?;
        let rates = earlier.as_ref().map(|(before, at)| match wanted {
            // An interface that was not there has counted nothing.
            Some(_) => Rates::of(chosen, choose(before, wanted).unwrap_or(&Counters::default()), now - *at),
            None => Rates::of_all(&reading, before, now - *at),
        });
        if args.json {
            let rates = rates.as_ref();
            let json = match wanted {
                Some(_) => serde_json::to_string(&Json { counters: chosen, rates }),
                None => serde_json::to_string(&Json { counters: &reading, rates }),
            };
            print(&format!("{}\n", json.context("JSON")?));
        } else {
            let clear = if args.watch && is_terminal() { CLEAR } else { "" };
            // The table of flows is not an interface's, and an interface by itself needs no table of interfaces.
            let all = wanted.is_none().then_some(&reading);
            print(&format!("{clear}{}", for_people(chosen, all, rates.as_ref())));
        }
        if !args.watch {
            return Ok(());
        }
        earlier = Some((reading, now));
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
fn for_people(counters: &Counters, all: Option<&Stats>, rates: Option<&Rates>) -> String {
    if counters.seen == Total::default() && counters.rules.is_empty() {
        return "nothing is enforced, or nothing has been counted yet (`tollgate status`)\n".to_owned();
    }
    let rate = |of: &dyn Fn(&Rates) -> f64| {
        rates.map_or_else(|| Cell::new(""), |rates| Cell::new(format!("{:.0}", of(rates))))
    };
    let titled = |title| if rates.is_some() { title } else { "" };
    let per_second = titled("#packets/s");

    let mut reasons = table(&["reason", "verdict", "#packets", "#bytes", per_second, "meaning"]);
    for ReasonStats { name, verdict, total } in &counters.reasons {
        if *total == Total::default() {
            continue;
        }
        let rate = rate(&|rates| rates.reason(name));
        let cells = [(*name).into(), (*verdict).into(), count(total.packets), bytes(total.bytes), rate];
        reasons.add_row(cells.into_iter().chain([Cell::new(sentence(name))]));
    }
    let seen = rate(&|rates| rates.seen.packets);
    let total =
        [Cell::new("seen"), Cell::new(""), count(counters.seen.packets), bytes(counters.seen.bytes), seen];
    reasons.add_row(total.into_iter().chain([Cell::new("Everything that reached the hook.")]));

    let mut rules = table(&["rule", "reason", "verdict", "#packets", "#bytes", per_second]);
    for rule in &counters.rules {
        let name =
            if rule.active { rule.name.clone() } else { format!("{} (not in the policy now)", rule.name) };
        if rule.outcomes.is_empty() {
            rules.add_row([name.as_str(), "", "", "0", "0 B", ""]);
        }
        for ReasonStats { name: reason, verdict, total } in &rule.outcomes {
            let rate = rate(&|rates| rates.outcome(&rule.name, reason));
            let cells = [name.as_str().into(), (*reason).into(), (*verdict).into(), count(total.packets)];
            rules.add_row(cells.into_iter().chain([bytes(total.bytes), rate]));
        }
    }

    let mut interfaces =
        table(&["interface", "#passed", "#dropped", titled("#passed/s"), titled("#dropped/s")]);
    for one in all.iter().flat_map(|all| &all.interfaces) {
        let side = |of: &dyn Fn(&Rates) -> Option<Rate>| rate(&|rates| of(rates).unwrap_or_default().packets);
        interfaces.add_row([
            one.name.as_str().into(),
            count(one.counters.sum("pass").packets),
            count(one.counters.sum("drop").packets),
            side(&|rates| Some(rates.interfaces.get(&one.name)?.passed)),
            side(&|rates| Some(rates.interfaces.get(&one.name)?.dropped)),
        ]);
    }
    let interfaces = all.map_or_else(String::new, |_| format!("\n{}", rendered(&interfaces)));
    let flows = all.map_or_else(String::new, |Stats { flows: Flows { known, most }, .. }| {
        format!("\n{known} of at most {most} connections that this host has begun are remembered.\n")
    });
    let answers = answers(counters.answers);
    format!("{}\n{}{interfaces}{answers}{flows}", rendered(&reasons), rendered(&rules))
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
