//! The table of hostile requests: each is played to the proxy and to nginx; what must come of it is checked, and what upstreams saw.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use tollgate_tests::lab::Host;
use tollgate_tests::recorder::Seen;

use crate::case::{Case, Over, Why};
use crate::client::{Client, Outcome, Ports};
use crate::stand::{OURS, Stand, THEIRS};
use crate::{framing, heads, streams};

/// At a time, with each proxy: most of them wait for the end of a connection that is idle.
const CLIENTS: usize = 120;

/// A case, played to one proxy.
struct Played {
    outcome: Outcome,
    seen: Vec<Seen>,
}

#[test]
fn nothing_is_smuggled_and_each_difference_from_nginx_has_a_reason() -> Result<()> {
    let cases = [framing::cases(), heads::cases(), streams::cases()].concat();
    let stand = Stand::start()?;
    let client = Client::trusting(&stand.proxied.chain)?;
    let play = |ports| stand.lab.ns(Host::Server).in_ns(|| all(&client, &cases, ports));
    let (ours, theirs) = thread::scope(|scope| {
        let theirs = scope.spawn(|| play(THEIRS));
        (play(OURS), theirs.join())
    });
    let theirs = theirs.map_err(|_| anyhow::anyhow!("a client of nginx panicked"))?;
    let (ours, theirs) = (joined(ours?, stand.ours.by_client()), joined(theirs?, stand.theirs.by_client()));

    let mut wrong = Vec::new();
    if !stand.ours.strange().is_empty() {
        wrong.push(format!("the upstream got what is no HTTP: {:#?}", stand.ours.strange()));
    }
    let nobody = stand.ours.by_client().remove("").unwrap_or_default();
    if !nobody.is_empty() {
        wrong.push(format!("requests that the proxy has not sent: {nobody:#?}"));
    }
    let shown = std::env::var_os("TOLLGATE_TABLE").is_some();
    for ((case, ours), theirs) in cases.iter().zip(&ours).zip(&theirs) {
        if shown {
            println!("{}", row(case, ours, theirs));
        }
        wrong.extend(judged(case, ours, theirs).map(|why| format!("{why}\n    {}", row(case, ours, theirs))));
    }
    // After all of that it serves as before.
    let good = framing::cases().swap_remove(0);
    let play = || client.play(&good, Ipv4Addr::LOCALHOST, OURS);
    let after = stand.lab.ns(Host::Server).in_ns(play)?.to_string();
    if after != good.wanted {
        wrong.push(format!("afterwards a good request gets {after}, not {}", good.wanted));
    }
    let documented = include_str!("../../../docs/proxy.md");
    for why in Why::ALL {
        if !documented.contains(&format!("| `{}` |", why.name())) {
            wrong.push(format!("docs/proxy.md does not explain `{}`", why.name()));
        }
        if cases.iter().all(|case| case.why != Some(*why)) {
            wrong.push(format!("no case has the reason `{}`", why.name()));
        }
    }
    println!(
        "{} cases, {} of them unlike nginx",
        cases.len(),
        cases.iter().filter(|case| case.why.is_some()).count()
    );
    ensure!(
        wrong.is_empty(),
        "{} are wrong:\n{}\n{}",
        wrong.len(),
        wrong.join("\n"),
        stand.proxied.tollgate.log()
    );
    Ok(())
}

/// Plays all cases, each from an address of its own; the order of what comes back is that of the cases.
fn all(client: &Client, cases: &[Case], ports: Ports) -> Result<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(HashMap::new());
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { return };
                    let outcome = client.play(case, address(index), ports);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.insert(index, outcome);
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().map_err(|_| anyhow::anyhow!("a client panicked"))?;
    let mut ordered = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let outcome = outcomes.remove(&index).with_context(|| format!("{} was not played", case.name))?;
        ordered.push(outcome.with_context(|| format!("{} at port {}", case.name, ports.https))?);
    }
    Ok(ordered)
}

fn address(index: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(index + 1).expect("not so many cases").to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

fn joined(outcomes: Vec<Outcome>, mut seen: HashMap<String, Vec<Seen>>) -> Vec<Played> {
    let seen_by = |index| seen.remove(&address(index).to_string()).unwrap_or_default();
    let played = |(index, outcome)| (index, outcome);
    let mut seen_by = seen_by;
    outcomes
        .into_iter()
        .enumerate()
        .map(played)
        .map(|(index, outcome)| Played { outcome, seen: seen_by(index) })
        .collect()
}

fn row(case: &Case, ours: &Played, theirs: &Played) -> String {
    let over = match case.over {
        Over::Http1 => "1",
        Over::Http2 => "2",
        Over::Plain => "80",
        Over::PlainToTls => "443",
    };
    let why = case.why.map_or("", Why::name);
    let of = |played: &Played| format!("{}, {} arrive", played.outcome, played.seen.len());
    format!("{:3} {:64} {:26} {:26} {why}", over, case.name, of(ours), of(theirs))
}

/// What is wrong with a case.
fn judged<'a>(
    case: &'a Case,
    ours: &'a Played,
    theirs: &'a Played,
) -> impl Iterator<Item = String> + use<'a> {
    let came = ours.outcome.to_string();
    let mut wrong = Vec::new();
    if !case.wanted.split('|').any(|wanted| wanted == came) {
        wrong.push(format!("{}: {came}, not {}", case.name, case.wanted));
    }
    if !case.arrives.contains(&ours.seen.len()) {
        let seen: Vec<_> = ours.seen.iter().map(Seen::essence).collect();
        wrong.push(format!("{}: {:?} may arrive, but {seen:?} did", case.name, case.arrives));
    }
    for seen in &ours.seen {
        // No client says who it is, none hides a request in a header, and none says what the upstream should not believe.
        let head = seen.head.to_ascii_lowercase();
        for never in [
            "192.0.2.66",
            ": b.example",
            "/hidden",
            "\r\nexpect:",
            "\r\nte:",
            "\r\ntrailer",
            "h2c",
            "http2-settings",
        ] {
            if head.contains(never) {
                wrong.push(format!("{}: {never} in {:?}", case.name, seen.head));
            }
        }
    }
    let differs = class(ours) != class(theirs);
    match (differs, case.why) {
        _ if case.floods => {}
        (true, None) => wrong.push(format!(
            "{}: nginx does otherwise, for no reason that is named:\n    {:?}\n    {:?}",
            case.name,
            class(ours),
            class(theirs)
        )),
        (false, Some(why)) => {
            wrong.push(format!("{}: nginx does the same in spite of {}", case.name, why.name()))
        }
        _ => {}
    }
    wrong.into_iter()
}

/// What two proxies must agree on: classes of statuses, whether the connection goes on, and what the upstream saw.
fn class(played: &Played) -> (Vec<char>, bool, Vec<String>) {
    let statuses = played.outcome.replies.iter().filter_map(|reply| reply.chars().next()).collect();
    let mut seen: Vec<_> = played.seen.iter().map(Seen::essence).collect();
    // Streams have no order.
    seen.sort();
    (statuses, played.outcome.closed, seen)
}
