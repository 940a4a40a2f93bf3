//! What each path through the filter costs: nanoseconds a packet by test-run, beside an empty program in the same run.
//!
//! Machines differ and are noisy; the differences and ratios of one run are what counts. Rounds alternate between the
//! paths, and the median of the rounds is shown.

mod bans;
mod proxy;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path as FilePath;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use proxy_common::abi::reason::Reason;
use proxy_common::engine::Outcome;
use tollgate::dataplane::{Trial, TrialHook, time_of_empty_program};
use tollgate::policy::compile::{Clock, Compiled, RuleIds, compile};
use tollgate::policy::parse;
use tollgate_tests::frames::{self, ACK, FIN, Link, Path, SYN};
use tollgate_tests::lab::require_root;

/// Runs in a row whose mean is one sample.
const REPEAT: u32 = 200_000;
/// Samples of each path.
const ROUNDS: usize = 11;
/// Answers to a source before they are withheld (docs/policy.md).
const BURST_OF_ANSWERS: u32 = 20;
/// Prefixes of the long block list.
const LISTED: u32 = 100_000;
/// A tick of a kernel with HZ=250; what the programs do with it costs the same for any.
const TICKS: Clock = Clock::Ticks { tick_ns: 4_000_000, offset_ns: 0 };
const KEYS: [u64; 3] = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321, 0x5555_aaaa_3333_cccd];

const LINK: Link = Link { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 9);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x104);

const POLICY: &str = r#"
version = 1

[interfaces.bench0]

[zones]
lan = ["192.168.0.0/24", "fe80::/10"]
listed = { prefixes = ["100.64.0.0/32"LIST] }

[limits.roomy]
per-source = { packets = "100000000/s", burst = 100000000 }

[limits.tight]
per-source = { packets = "1/h", burst = 1 }

[limits.three]
per-source = { packets = "100000000/s", burst = 100000000, bytes = "900GB/s", bytes-burst = "900GB" }
service = { packets = "100000000/s", burst = 100000000 }

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]

[services.web]
ports = ["tcp/80", "tcp/443"]
allow = "any"
deny = ["listed"]
limit = "roomy"

[services.open]
ports = ["tcp/83"]
allow = "any"

[services.slow]
ports = ["tcp/81"]
allow = "any"
limit = "tight"

[services.thorough]
ports = ["tcp/82"]
allow = "any"
limit = "three"
"#;

/// A path through the filter.
struct Row<'a> {
    name: String,
    trial: &'a Trial,
    frame: Vec<u8>,
    samples: Vec<f64>,
}

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    require_root()?;
    let short = compiled("")?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        None => {
            every_path(&short)?;
            bans::what_they_cost(&short)
        }
        Some("bans") if args.len() == 1 => bans::what_they_cost(&short),
        Some("proxy") => proxy::bench(&args[1..]),
        Some(other) => bail!("there is no benchmark `{other}`: leave it out, or write `bans` or `proxy`"),
    }
}

/// Every path, at every hook.
fn every_path(short: &Compiled) -> Result<()> {
    let list: String = (0..LISTED).map(|n| format!(", \"{}\"", listed(n))).collect();
    let long = compiled(&list)?;
    println!(
        "What one packet costs by test-run, in nanoseconds: the median of {ROUNDS} alternating rounds of {REPEAT} runs. The\n\
         empty program is the floor, what the hook itself costs; \"over empty\" is what the filter adds."
    );
    for (hook, name) in
        [(TrialHook::Xdp, "XDP"), (TrialHook::XdpLinear, "XDP before Linux 5.18"), (TrialHook::Tc, "TC")]
    {
        println!("\n{}", section(hook, name, short, &long)?.trim_end());
    }
    Ok(())
}

/// The table of one hook.
fn section(hook: TrialHook, name: &str, short: &Compiled, long: &Compiled) -> Result<String> {
    let mut ticking = Trial::new(short, 0, hook, TICKS, KEYS)?;
    let mut exact = Trial::new(short, 0, hook, Clock::Exact, KEYS)?;
    let mut listing = Trial::new(long, 0, hook, TICKS, KEYS)?;
    for trial in [&ticking, &exact] {
        trial.egress(&LINK.ip(&Path::new(SERVER, OUTSIDE).tcp(40_000, 443, SYN, 1, &[])))?;
    }
    for (_, frame, expected) in paths() {
        leads_to(&mut ticking, &frame, expected)?;
        leads_to(&mut exact, &frame, expected)?;
    }
    for (_, frame, expected) in listed_paths() {
        leads_to(&mut listing, &frame, expected)?;
    }

    let mut rows = Vec::new();
    for (name, frame, _) in paths() {
        rows.push(Row { name: name.to_owned(), trial: &ticking, frame: frame.clone(), samples: Vec::new() });
        if name.contains("limit") || name.contains("reply") {
            let name = format!("{name}, exact clock");
            rows.push(Row { name, trial: &exact, frame, samples: Vec::new() });
        }
    }
    for (name, frame, _) in listed_paths() {
        rows.push(Row { name: name.to_owned(), trial: &listing, frame, samples: Vec::new() });
    }
    let rejecting = (hook == TrialHook::Tc).then(|| exhausted(hook)).transpose()?;
    if let Some((trial, frame)) = &rejecting {
        let name = "reject, no service, answer withheld".to_owned();
        rows.push(Row { name, trial, frame: frame.clone(), samples: Vec::new() });
    }
    let empty = rows.first().context("no path")?.frame.clone();
    let mut floor = Vec::new();
    for _ in 0..ROUNDS {
        floor.push(time_of_empty_program(hook, &empty, REPEAT)?.as_nanos() as f64);
        for row in &mut rows {
            row.samples.push(row.trial.time(&row.frame, REPEAT)?.as_nanos() as f64);
        }
    }
    let floor = median(floor);
    let mut table = String::new();
    writeln!(table, "{name:<52} {:>6} {:>11} {:>6}", "total", "over empty", "ratio")?;
    writeln!(table, "{:<52} {floor:>6.0} {:>11} {:>6.1}", "empty program", "", 1.0)?;
    for row in rows {
        let total = median(row.samples);
        writeln!(table, "{:<52} {total:>6.0} {:>11.0} {:>6.1}", row.name, total - floor, total / floor)?;
    }
    if let Some(count) = ticking.verified_instructions()? {
        writeln!(table, "instructions that the verifier looked at, of 1,000,000: {count}")?;
    }
    if let Some((trial, _)) = rejecting
        && let Some(count) = trial.verified_instructions()?
    {
        writeln!(table, "the same for a policy that rejects: {count}")?;
    }
    Ok(table)
}

/// A program that rejects, and a frame that is not answered any more. An answer can't be measured by test-run: the frame
/// becomes the answer, and each further run would judge that.
fn exhausted(hook: TrialHook) -> Result<(Trial, Vec<u8>)> {
    let text = POLICY.replace("[interfaces.bench0]", "[interfaces.bench0]\ndefault = \"reject\"");
    let compiled = compiled_from(&text.replace("LIST", ""))?;
    // A clock that stands still gives nothing back.
    let mut trial = Trial::new(&compiled, 0, hook, Clock::Given, KEYS)?;
    // Test-run takes the loopback interface for the one that the frame came by: its address is all zeros.
    let link = Link { destination: [0; 6], ..LINK };
    let frame = link.ip(&Path::new(OUTSIDE, SERVER).tcp(40_000, 22, SYN, 1, &[]));
    for _ in 0..=BURST_OF_ANSWERS {
        leads_to(&mut trial, &frame, Reason::NoService)?;
    }
    Ok((trial, frame))
}

/// Fails unless a frame takes the path that it is here for: any other would measure something else.
fn leads_to(trial: &mut Trial, frame: &[u8], expected: Reason) -> Result<()> {
    // A bucket of one is empty after the first packet.
    let guess = Outcome { reason: expected, rule: 0 };
    let mut outcome = trial.ingress(frame, guess)?;
    if expected == Reason::OverLimitPackets {
        outcome = trial.ingress(frame, guess)?;
    }
    ensure!(outcome.reason == expected, "a frame for {} ended as {}", expected.name(), outcome.reason.name());
    Ok(())
}

/// Name, frame and reason of each path of the short policy.
fn paths() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let tcp =
        |from: Ipv4Addr, port, flags| LINK.ip(&Path::new(from, SERVER).tcp(40_000, port, flags, 1, &[]));
    let mut malformed = tcp(OUTSIDE, 80, SYN);
    malformed[frames::ETHERNET_LEN] = 0x44;
    let v6 = LINK.ip(&Path::new(OUTSIDE_V6, SERVER_V6).tcp(40_000, 8000, SYN, 1, &[]));
    let arp = LINK.frame(frames::ARP, &frames::arp_request(LINK.source, LAN, SERVER));
    let reply = LINK.ip(&Path::new(OUTSIDE, SERVER).tcp(443, 40_000, ACK, 1, b"data"));
    vec![
        ("not ours (ARP)", arp, Reason::Arp),
        ("malformed", malformed, Reason::MalformedIpv4),
        ("malformed TCP (the whole parse)", tcp(OUTSIDE, 80, SYN | FIN), Reason::TcpFlags),
        ("drop, impossible source", tcp(Ipv4Addr::LOCALHOST, 80, SYN), Reason::SourceInvalid),
        ("drop by zone", tcp(OUTSIDE, 8000, SYN), Reason::ServiceRefused),
        ("drop by zone, IPv6", v6, Reason::ServiceRefused),
        ("drop, no service, pure SYN", tcp(OUTSIDE, 22, SYN), Reason::NoService),
        ("drop, no service, no flow", tcp(OUTSIDE, 22, ACK), Reason::NoService),
        ("allow", tcp(LAN, 8000, ACK), Reason::ServiceAllowed),
        ("allow with limit", tcp(OUTSIDE, 80, ACK), Reason::ServiceAllowed),
        ("allow with limit of packets, bytes and in total", tcp(OUTSIDE, 82, ACK), Reason::ServiceAllowed),
        ("over limit", tcp(OUTSIDE, 81, ACK), Reason::OverLimitPackets),
        ("reply of a flow", reply, Reason::Reply),
    ]
}

/// The same of the policy with the long list.
fn listed_paths() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let tcp = |from: Ipv4Addr, port| LINK.ip(&Path::new(from, SERVER).tcp(40_000, port, SYN, 1, &[]));
    vec![
        ("drop by a list of 100,000 prefixes", tcp(listed(LISTED / 2), 80), Reason::ServiceDenied),
        ("allow beside such a list, with limit", tcp(OUTSIDE, 80), Reason::ServiceAllowed),
    ]
}

/// The nth address of the long list: spread over a /10, so that the trie has many nodes.
fn listed(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + 1 + n * 41)
}

fn compiled(list: &str) -> Result<Compiled> {
    compiled_from(&POLICY.replace("LIST", list))
}

fn compiled_from(text: &str) -> Result<Compiled> {
    let policy = parse(text, FilePath::new("bench.toml"))?;
    let rules = RuleIds::assign(&[], &|_| false, &policy)?;
    Ok(compile(&policy, &["bench0".to_owned()], &rules)?)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
