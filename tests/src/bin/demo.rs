//! The main job, shown: the platform's policy against real clients in a lab, one row for each attempt.
//!
//! Ends with 0 if every attempt went as the policy says, with 1 if not.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{SigHandler, Signal, signal};
use tollgate_tests::counters::{Stats, Verdict};
use tollgate_tests::frames::{Link, Path, SYN};
use tollgate_tests::lab::{
    LAN2_MAC, OUTSIDE_V4, OUTSIDE_V6, PUBLISHED, SERVER_LINK_LOCAL, SERVER_MAC, SERVER_V4, SERVER_V6, UPLINK,
};
use tollgate_tests::sender::Sender;
use tollgate_tests::terminal::{Align, Cell, Colour, Screen, Table};
use tollgate_tests::traffic::{http_get, ping, psql_select_1, tcp_connect, udp_round_trip};
use tollgate_tests::{Deployment, Hook, Host, Outcome};

const PATIENCE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(700);
/// The flood: SYNs a second, and for how long.
const FLOOD_RATE: u64 = 3_000;
const FLOOD: Duration = Duration::from_secs(3);
/// What no attempt is about.
const BACKGROUND: [&str; 3] = ["arp", "neighbour-discovery", "multicast-membership"];

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What a client tries.
#[derive(Clone, Copy)]
enum Attempt {
    /// A web page.
    Page(&'static str, u16),
    /// A web page by the LAN's link-local address.
    LocalPage(u16),
    /// A TCP connection.
    Connect(&'static str, u16),
    /// A query of the database.
    Query,
    /// A datagram and its answer.
    Datagram(&'static str, u16),
    /// An echo request.
    Ping(&'static str),
}

use Attempt::{Connect, Datagram, LocalPage, Page, Query};
use Host::{Container, Lan, Outside, Server};

/// Who tries what, in words and in deed, and whether it must get through.
const SCRIPT: &[(Host, &str, Attempt, bool)] = &[
    (Lan, "platform, tcp/8000", Page(SERVER_V4, 8000), true),
    (Lan, "platform by link-local IPv6", LocalPage(8000), true),
    (Lan, "CRM (development), tcp/8082", Page(SERVER_V4, 8082), true),
    (Lan, "CRM, tcp/8083", Page(SERVER_V4, 8083), true),
    (Lan, "PostgreSQL: SELECT 1", Query, true),
    (Lan, "proxy, tcp/80", Page(SERVER_V4, 80), true),
    (Lan, "Stripe dashboard, tcp/8081", Connect(SERVER_V4, 8081), false),
    (Lan, "ping", Attempt::Ping(SERVER_V4), true),
    (Outside, "proxy, tcp/80", Page(SERVER_V4, 80), true),
    (Outside, "proxy, tcp/443", Page(SERVER_V4, 443), true),
    (Outside, "proxy over IPv6, tcp/443", Page(SERVER_V6, 443), true),
    (Outside, "platform, tcp/8000", Connect(SERVER_V4, 8000), false),
    (Outside, "platform over IPv6, tcp/8000", Connect(SERVER_V6, 8000), false),
    (Outside, "CRM, tcp/8083", Connect(SERVER_V4, 8083), false),
    (Outside, "PostgreSQL: SELECT 1", Query, false),
    (Outside, "SSH, tcp/22, no service of ours", Connect(SERVER_V4, 22), false),
    (Outside, "a port that Docker publishes", Connect(SERVER_V4, PUBLISHED), false),
    (Server, "Stripe dashboard on 127.0.0.1", Page("127.0.0.1", 8081), true),
    (Container, "platform, by docker0", Page("172.17.0.1", 8000), true),
    (Container, "a web page outside", Page(OUTSIDE_V4, 80), true),
    (Server, "a web page outside", Page(OUTSIDE_V4, 80), true),
    (Server, "DNS outside, over IPv6", Datagram(OUTSIDE_V6, 53), true),
    (Server, "ping outside", Attempt::Ping(OUTSIDE_V4), true),
];

fn main() -> ExitCode {
    let screen = Screen::new();
    match demo(&screen) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the script; gives how many attempts were not as expected.
fn demo(screen: &Screen) -> Result<usize> {
    let start = Instant::now();
    stop_on_signals()?;
    screen.line(&Cell::plain(
        "This builds a server, its LAN and an outside network as namespaces of this machine, and enforces \
         policies/platform.toml on the server's wlp2s0. Then real clients try real services: each row says what the \
         policy wants and what came of it, and at the end everything is taken away again.\n",
    ));
    let d = Deployment::platform(Hook::AsWritten)?;
    let (hook, mode) = d.tollgate.hook_and_mode()?;
    let ready = format!("Lab and services are up after {:.1} s.", start.elapsed().as_secs_f64());
    screen.line(&Cell::new(ready, Colour::Dim));
    screen.line(&Cell::new(format!("tollgate: {}", d.tollgate.announcement()), Colour::Bold));
    screen.line(&Cell::new(format!("{UPLINK}: hook {hook}, mode {mode}\n"), Colour::Dim));

    let first = d.tollgate.settled_stats()?;
    let table = screen.table(&[
        ("", 2, Align::Left),
        ("who", 13, Align::Left),
        ("what", 35, Align::Left),
        ("expected", 8, Align::Left),
        ("came", 7, Align::Left),
        ("counted as", 36, Align::Left),
    ]);
    let mut wrong = 0;
    for (host, what, attempt, through) in SCRIPT {
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let before = d.tollgate.stats()?;
        let outcome = attempt.make(&d, *host)?;
        let delta = d.tollgate.settled_stats()?.since(&before);
        let what = format!("{} {what}", screen.arrow());
        wrong += usize::from(!show(screen, &table, &host.to_string(), &what, *through, &outcome, &delta));
    }
    wrong += flood(screen, &table, &d)?;
    table.end();
    counters(screen, &d.tollgate.settled_stats()?.since(&first));
    drop(d);

    let took = start.elapsed().as_secs_f64();
    let all = SCRIPT.len() + 2;
    screen.line(&if wrong == 0 {
        Cell::new(
            format!("All {all} attempts went as the policy says; cleaned up after {took:.1} s."),
            Colour::Green,
        )
    } else {
        Cell::new(
            format!("{wrong} of {all} attempts did NOT go as the policy says ({took:.1} s)."),
            Colour::Red,
        )
    });
    Ok(wrong)
}

impl Attempt {
    fn make(self, d: &Deployment, host: Host) -> Result<Outcome> {
        let ns = d.lab.ns(host);
        match self {
            Page(address, port) => http_get(&ns, at(address, port)?, "/", PATIENCE),
            LocalPage(port) => {
                http_get(&ns, ns.link_local(SERVER_LINK_LOCAL, host.interface(), port)?, "/", PATIENCE)
            }
            Connect(address, port) => tcp_connect(&ns, at(address, port)?, SILENCE),
            Query => psql_select_1(&ns, SERVER_V4),
            Datagram(address, port) => udp_round_trip(&ns, at(address, port)?, PATIENCE),
            Self::Ping(address) => ping(&ns, address.parse()?),
        }
    }
}

/// Writes a row; true if it was as expected.
fn show(
    screen: &Screen,
    table: &Table,
    who: &str,
    what: &str,
    through: bool,
    outcome: &Outcome,
    delta: &Stats,
) -> bool {
    let (passed, dropped) = (counted_as(delta, Verdict::Pass), counted_as(delta, Verdict::Drop));
    let (as_expected, came, reasons) = match outcome {
        Outcome::Answered(_) if passed.is_empty() => {
            (through, Cell::new("through", Colour::Green), format!("does not cross {UPLINK}"))
        }
        Outcome::Answered(_) => (through, Cell::new("through", Colour::Green), passed),
        // A silence that no counter explains is not the filter's.
        Outcome::TimedOut if !dropped.is_empty() => (!through, Cell::new("dropped", Colour::Yellow), dropped),
        other => (false, Cell::new(other, Colour::Red), String::new()),
    };
    table.row(&[
        screen.mark(as_expected),
        Cell::plain(who),
        Cell::plain(what),
        Cell::new(if through { "through" } else { "dropped" }, Colour::Dim),
        came,
        Cell::new(reasons, Colour::Dim),
    ]);
    as_expected
}

/// What packets of a verdict were counted as, without the background.
fn counted_as(delta: &Stats, verdict: Verdict) -> String {
    let named = delta.named(verdict).into_iter().map(|(name, _)| name);
    named.filter(|name| !BACKGROUND.contains(&name.as_str())).collect::<Vec<_>>().join(", ")
}

/// One host opens connections far faster than its limit, and another asks for a page meanwhile; gives how many of
/// the two rows were not as expected.
fn flood(screen: &Screen, table: &Table, d: &Deployment) -> Result<usize> {
    let source = Ipv4Addr::new(192, 168, 0, 51);
    let link = Link { source: LAN2_MAC, destination: SERVER_MAC };
    let path = Path::new(source, SERVER_V4.parse::<Ipv4Addr>()?);
    let frames: Vec<_> =
        (1024..=u16::MAX).map(|port| link.ip(&path.tcp(port, 80, SYN, u32::from(port), &[]))).collect();
    let sender = Sender::open(&d.lab.ns(Host::Lan2), Host::Lan2.interface())?;
    let before = d.tollgate.settled_stats()?;
    let count = FLOOD_RATE * FLOOD.as_secs();
    let (sent, page) = std::thread::scope(|scope| -> Result<_> {
        let flooding = scope.spawn(|| sender.flood(&frames, FLOOD_RATE, count));
        std::thread::sleep(FLOOD / 2);
        let page = http_get(&d.lab.ns(Lan), at(SERVER_V4, 80)?, "/", PATIENCE)?;
        let sent = flooding.join().map_err(|_| anyhow!("the flood panicked"))??;
        Ok((sent, page))
    })?;
    let delta = d.tollgate.settled_stats()?.since(&before);
    let dropped = delta.outcome("web", "over-limit-connections").packets;
    let held = dropped > sent.frames / 2;
    table.row(&[
        screen.mark(held),
        Cell::plain("flooding host"),
        Cell::plain(format!(
            "{} {} SYNs in {:.0} s, tcp/80",
            screen.arrow(),
            sent.frames,
            sent.took.as_secs_f64()
        )),
        Cell::new("limited", Colour::Dim),
        if held { Cell::new("limited", Colour::Yellow) } else { Cell::new("through", Colour::Red) },
        Cell::new(format!("over-limit-connections (web): {dropped}"), Colour::Dim),
    ]);
    // The counters of this attempt and of the flood are the same ones: the page itself has to tell.
    let good = page.is_answered_by_port(80);
    table.row(&[
        screen.mark(good),
        Cell::plain(Lan),
        Cell::plain(format!("{} proxy, tcp/80, during the flood", screen.arrow())),
        Cell::new("through", Colour::Dim),
        if good { Cell::new("through", Colour::Green) } else { Cell::new(page, Colour::Red) },
        Cell::new("service-allowed (web)", Colour::Dim),
    ]);
    Ok(usize::from(!held) + usize::from(!good))
}

/// The counters of the whole demo as a table.
fn counters(screen: &Screen, delta: &Stats) {
    screen.line(&Cell::new(
        format!("\nCounters of {UPLINK}: every packet that arrived is in one row"),
        Colour::Bold,
    ));
    let table = screen.table(&[
        ("reason", 26, Align::Left),
        ("rule", 18, Align::Left),
        ("verdict", 7, Align::Left),
        ("packets", 9, Align::Right),
        ("bytes", 11, Align::Right),
    ]);
    for (name, (verdict, count)) in &delta.reasons {
        if count.packets == 0 {
            continue;
        }
        let (word, colour) = match verdict {
            Verdict::Pass => ("pass", Colour::Green),
            Verdict::Drop => ("drop", Colour::Yellow),
        };
        let mut rows: Vec<_> = delta
            .rules
            .keys()
            .map(|rule| (rule.as_str(), delta.outcome(rule, name)))
            .filter(|(_, count)| count.packets > 0)
            .collect();
        if rows.is_empty() {
            rows.push(("", *count));
        }
        for (rule, count) in rows {
            table.row(&[
                Cell::plain(name),
                Cell::plain(rule),
                Cell::new(word, colour),
                Cell::plain(count.packets),
                Cell::plain(count.bytes),
            ]);
        }
    }
    let all = [Cell::new("seen", Colour::Bold), Cell::plain(""), Cell::plain("")];
    let sums = [delta.seen.packets, delta.seen.bytes].map(|sum| Cell::new(sum, Colour::Bold));
    table.row(&[&all[..], &sums[..]].concat());
    table.end();
}

fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse().context("an address")?, port))
}

/// Ctrl-C ends the demo after the row, with the lab taken away.
fn stop_on_signals() -> Result<()> {
    extern "C" fn stop(_: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for kind in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler stores to an atomic, which is allowed at any point of a program.
        unsafe { signal(kind, SigHandler::Handler(stop)) }?;
    }
    Ok(())
}
