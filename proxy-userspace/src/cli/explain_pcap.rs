//! `tollgate explain --pcap`: what would become of the packets of a capture, a row each. Called by `explain`.

use anyhow::Context;
use serde::Serialize;

use super::explain::explainer;
use super::table::{print, rendered, table};
use super::{Global, Outcome};
use crate::dataplane::{Enforced, Explainer, read_rules};
use crate::observe::drops::{Called, Dropped};
use crate::observe::recorded::Recorded;
use crate::observe::stats::word;
use proxy_common::abi::reason::Reason;
use proxy_common::engine::Outcome as Judged;

/// What is said of one packet.
#[derive(Debug, Serialize)]
struct Row<'a> {
    number: usize,
    interface: &'a str,
    hook: &'static str,
    packet: String,
    verdict: Option<&'static str>,
    reason: Option<&'static str>,
    rule: Option<&'a str>,
    /// Why nothing can be said.
    error: Option<String>,
}

/// Judges all packets, in their order.
pub fn run(global: &Global, enforced: &Enforced, packets: &[Recorded], json: bool) -> Outcome {
    let rules = read_rules(&global.pins())?;
    let mut explainer = explainer(global, enforced)?;
    let mut rows = Vec::with_capacity(packets.len());
    for (nth, packet) in packets.iter().enumerate() {
        let judged = Explainer::takes(packet.length)
            .and_then(|()| explainer.judge(&packet.frame).map_err(|error| error.to_string()));
        rows.push(row(enforced, nth + 1, packet, judged, &rules));
    }
    if json {
        let lines = rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n"));
        print(&lines.collect::<serde_json::Result<String>>().context("JSON")?);
    } else {
        print(&for_people(&rows));
    }
    Ok(())
}

fn row<'a>(
    enforced: &'a Enforced,
    number: usize,
    packet: &Recorded,
    judged: Result<Judged, String>,
    rules: &'a [Option<String>],
) -> Row<'a> {
    let interface = enforced.interface.name.as_str();
    let called = Called { interface, rule: None, to_unix_ns: 0 };
    let outcome = judged.as_ref().ok().copied();
    let shown = outcome.unwrap_or(Judged::plain(Reason::TableFault));
    let mut told = Dropped::of_frame(&packet.frame, shown, called);
    told.length = u32::try_from(packet.length).unwrap_or(u32::MAX);
    let rule = outcome.filter(|outcome| outcome.reason.has_rule());
    Row {
        number,
        interface,
        hook: enforced.attachment.hook(),
        packet: told.packet().to_string(),
        verdict: outcome.map(|outcome| word(outcome.verdict())),
        reason: outcome.map(|outcome| outcome.reason.name()),
        rule: rule.and_then(|outcome| rules.get(usize::from(outcome.rule))?.as_deref()),
        error: judged.err(),
    }
}

fn for_people(rows: &[Row<'_>]) -> String {
    let mut shown = table(&["#number", "verdict", "reason", "rule", "packet"]);
    for row in rows {
        let number = row.number.to_string();
        match &row.error {
            Some(why) => shown.add_row([&number, "?", why, "-", &row.packet]),
            None => shown.add_row([
                &number,
                row.verdict.unwrap_or("?"),
                row.reason.unwrap_or("?"),
                row.rule.unwrap_or("-"),
                &row.packet,
            ]),
        };
    }
    rendered(&shown)
}
