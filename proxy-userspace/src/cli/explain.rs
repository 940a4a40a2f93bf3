//! `tollgate explain`: what would become of a packet, and why.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::table::print;
use super::{Failure, Global, Outcome, explain_pcap, require_root};
use crate::control::history::History;
use crate::control::lock;
use crate::dataplane::{self, Enforced, Explainer};
use crate::observe::drops::{Called, Dropped};
use crate::observe::recorded::{self, Recorded};
use crate::observe::stats::word;
use crate::policy::Policy;
use crate::simulate::{Probe, ProbeKind, probe};
use proxy_common::engine::Outcome as Judged;

/// Ask the policy in force what would become of a packet, and why
///
/// The question goes to the programs in the kernel, over the live tables and with copies of counters, limits and flows: the
/// answer is what would really happen now, and leaves no trace.
///
/// A packet is described in words, or given as it would be on the wire (--hex, from the Ethernet header on). A capture
/// (--pcap, of tcpdump, Wireshark or `tollgate monitor`) is gone through packet by packet, as if they arrived now one after
/// the other: what one of them uses up of a limit, or begins, the next ones find.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Words: tcp|udp from ADDRESS[:PORT] to [ADDRESS]:PORT [in INTERFACE], or: ping from ADDRESS [to ADDRESS] [in INTERFACE]
  tollgate explain tcp from 203.0.113.9 to :5432
  tollgate explain udp from [2001:db8::9]:53 to :40000 in eth0
  tollgate explain --ack tcp from 203.0.113.9:443 to :40000     a packet amid a connection, not its first
  tollgate explain --hex '02005e005302 02005e005301 0800 4500…'
  tollgate explain --pcap trace.pcapng --interface eth0         one row a packet of a capture")]
pub struct Args {
    /// The packet, in words
    #[arg(value_name = "PACKET", required_unless_present_any = ["hex", "pcap"])]
    words: Vec<String>,
    /// The packet, as a frame in hexadecimal; spaces and colons are passed over
    #[arg(long, value_name = "FRAME", conflicts_with = "words")]
    hex: Option<String>,
    /// The packets of a capture (pcap or pcapng, Ethernet), a row each
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "hex", "ack"])]
    pcap: Option<PathBuf>,
    /// The interface that they arrive by, for --hex and --pcap [default: the first that is enforced]
    #[arg(long, value_name = "NAME", conflicts_with = "words")]
    interface: Option<String>,
    /// TCP: a packet amid a connection (ACK) instead of the first (SYN)
    #[arg(long)]
    ack: bool,
    /// Print JSON; of a capture, one object a line
    #[arg(long)]
    json: bool,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    interface: String,
    hook: &'static str,
    packet: String,
    zones: Option<Vec<String>>,
    service: Option<String>,
    rule: Option<String>,
    rule_line: Option<usize>,
    limit: Option<String>,
    policy: PathBuf,
    reason: &'static str,
    sentence: &'static str,
    verdict: &'static str,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    require_root("tollgate explain")?;
    let question = match &args.hex {
        Some(hex) => Question { interface: args.interface.clone(), what: What::Frame(bytes(hex)?) },
        None => match &args.pcap {
            // Before the kernel is asked anything: a bad file is a bad file everywhere.
            Some(path) => Question {
                interface: args.interface.clone(),
                what: What::Capture(recorded::read(path).map_err(Failure::Input)?),
            },
            None => words(&args.words, args.ack).map_err(Failure::Input)?,
        },
    };
    let pins = global.pins();
    let enforced = dataplane::enforced(&pins)?;
    let names = || enforced.iter().map(|one| one.interface.name.clone()).collect::<Vec<_>>().join(", ");
    let enforced = match &question.interface {
        Some(name) => enforced
            .iter()
            .find(|one| one.interface.name == *name)
            .ok_or_else(|| Failure::Input(format!("nothing is enforced on {name}; there is: {}", names())))?,
        None => enforced.first().ok_or_else(|| anyhow!("nothing is enforced"))?,
    };
    let frame = match question.what {
        What::Frame(frame) => frame,
        What::Capture(packets) => return explain_pcap::run(global, enforced, &packets, args.json),
        What::Probe(mut wanted) => {
            wanted.to = wanted.to.or_else(|| own_address(enforced, wanted.from.ip()));
            probe(&wanted).context("building the packet")?
        }
    };
    Explainer::takes(frame.len()).map_err(Failure::Input)?;
    let judged = explainer(global, enforced)?.judge(&frame)?;
    let rules = dataplane::read_rules(&pins)?;
    let history = History::new(&global.state_dir);
    let source = history.with_hash(&enforced.hash()).and_then(|one| history.load(one.revision).ok());
    let policy = source.as_ref().map(|(policy, text, _)| (policy, text.as_str()));
    let answer = answer(enforced, &frame, judged, &rules, policy);
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&answer).context("JSON")?));
    } else {
        print(&for_people(&answer, policy.is_some()));
    }
    Ok(())
}

/// What is asked.
struct Question {
    interface: Option<String>,
    what: What,
}

enum What {
    Frame(Vec<u8>),
    Capture(Vec<Recorded>),
    Probe(Probe),
}

fn bytes(hex: &str) -> Result<Vec<u8>, Failure> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b':').collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let read: Option<Vec<u8>> =
        if digits.len().is_multiple_of(2) { digits.chunks(2).map(pair).collect() } else { None };
    read.ok_or_else(|| {
        Failure::Input("this is no frame in hexadecimal: write pairs of digits 0-9 and a-f".to_owned())
    })
}

fn words(words: &[String], ack: bool) -> Result<Question, String> {
    const SYNTAX: &str =
        "write `tcp|udp from ADDRESS[:PORT] to [ADDRESS]:PORT [in INTERFACE]` or `ping from ADDRESS`";
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
    let (kind, rest) = words.split_first().ok_or(SYNTAX)?;
    let kind = match (*kind, ack) {
        ("tcp", false) => ProbeKind::TcpSyn,
        ("tcp", true) => ProbeKind::TcpAck,
        ("udp", false) => ProbeKind::Udp,
        ("ping", false) => ProbeKind::Ping,
        (_, true) => return Err("--ack is for tcp".to_owned()),
        (other, _) => return Err(format!("{other:?} is not a kind of packet: {SYNTAX}")),
    };
    let (mut from, mut to, mut interface) = (None, None, None);
    for pair in rest.chunks(2) {
        match pair {
            ["from", end] => from = Some(self::end(end)?),
            ["to", end] => to = Some(self::end(end)?),
            ["in", name] => interface = Some((*name).to_owned()),
            _ => return Err(format!("{:?} is not understood: {SYNTAX}", pair.join(" "))),
        }
    }
    let (Some(from_address), from_port) = from.ok_or(SYNTAX)? else { return Err(SYNTAX.to_owned()) };
    let (to_address, to_port) = to.unwrap_or_default();
    if to_address.is_some_and(|to| to.is_ipv6() != from_address.is_ipv6()) {
        return Err("both addresses must be of one family".to_owned());
    }
    let to_port = match (kind, to_port) {
        (ProbeKind::Ping, _) => 0,
        (_, Some(port)) => port,
        _ => return Err(format!("the packet goes to no port: {SYNTAX}")),
    };
    let from = SocketAddr::new(from_address, from_port.unwrap_or(49_152));
    Ok(Question { interface, what: What::Probe(Probe { kind, from, to: to_address, to_port }) })
}

/// An address, a port, or both: `192.0.2.1`, `:80`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn end(text: &str) -> Result<(Option<IpAddr>, Option<u16>), String> {
    let no =
        || format!("{text:?} is not an address with or without a port: 192.0.2.1:80, [2001:db8::1]:80, :80");
    if let Some(port) = text.strip_prefix(':').filter(|rest| !rest.contains(':')) {
        return Ok((None, Some(port.parse().map_err(|_| no())?)));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Some(address), None));
    }
    let both: SocketAddr = text.parse().map_err(|_| no())?;
    Ok((Some(both.ip()), Some(both.port())))
}

/// An address of the interface that a packet from there could be sent to.
fn own_address(enforced: &Enforced, from: IpAddr) -> Option<IpAddr> {
    let addresses = dataplane::host_addresses().ok()?;
    let fits = |(name, address): &&(String, IpAddr)| {
        *name == enforced.interface.name && address.is_ipv6() == from.is_ipv6() && *address != from
    };
    addresses.iter().find(fits).map(|(_, address)| *address)
}

/// The policy in force on an interface, ready to be asked.
pub fn explainer(global: &Global, enforced: &Enforced) -> Result<Explainer, Failure> {
    let _change = lock::change(&global.run_dir).context("waiting for another change to end")?;
    Ok(Explainer::open(&global.pins(), enforced)?)
}

fn answer(
    enforced: &Enforced,
    frame: &[u8],
    judged: Judged,
    rules: &[Option<String>],
    policy: Option<(&Policy, &str)>,
) -> Answer {
    let called = Called { interface: &enforced.interface.name, rule: None, to_unix_ns: 0 };
    let packet = Dropped::of_frame(frame, judged, called);
    let rule =
        if judged.reason.has_rule() { rules.get(usize::from(judged.rule)).cloned().flatten() } else { None };
    let zones = packet.source.and_then(|source| Some(zones(policy?.0, source)));
    let service =
        policy.and_then(|(policy, _)| policy.services.iter().find(|one| Some(&one.name) == rule.as_ref()));
    let limit = service.and_then(|one| policy?.0.limit_of(one));
    Answer {
        interface: enforced.interface.name.clone(),
        hook: enforced.attachment.hook(),
        packet: packet.packet().to_string(),
        zones,
        service: service.map(|one| one.name.clone()),
        rule_line: rule.as_ref().and_then(|name| line_of(policy?.1, name)),
        rule,
        limit: limit.map(|limit| limit.name.clone()),
        policy: enforced.policy(),
        reason: judged.reason.name(),
        sentence: judged.reason.sentence(),
        verdict: word(judged.verdict()),
    }
}

/// The zones that a packet's source is in.
fn zones(policy: &Policy, source: IpAddr) -> Vec<String> {
    let inside =
        policy.zones.iter().filter(|zone| zone.any || zone.prefixes.iter().any(|net| net.contains(&source)));
    inside.map(|zone| zone.name.clone()).collect()
}

/// The line at which the policy defines a service.
pub(super) fn line_of(text: &str, service: &str) -> Option<usize> {
    let headers = [format!("[services.{service}]"), format!("[services.\"{service}\"]")];
    let is_header = |line: &str| {
        let bare: String = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        headers.contains(&bare)
    };
    text.lines().position(is_header).map(|at| at + 1)
}

fn for_people(answer: &Answer, policy_known: bool) -> String {
    let mut lines = vec![format!("{}, arriving by {} ({})", answer.packet, answer.interface, answer.hook)];
    match &answer.zones {
        Some(zones) if zones.is_empty() => lines.push("its source is in no zone of the policy".to_owned()),
        Some(zones) => lines.push(format!("its source is in {}", zones.join(", "))),
        None if policy_known => {}
        None => lines
            .push("the text of the policy in force is not in the history: zones can't be named".to_owned()),
    }
    if let Some(rule) = &answer.rule {
        let place = match answer.rule_line {
            Some(line) => format!(" ({}:{line})", answer.policy.display()),
            None => String::new(),
        };
        let limit = answer.limit.as_ref().map(|limit| format!(", limited by {limit}")).unwrap_or_default();
        lines.push(format!("the rule is {rule}{place}{limit}"));
    }
    lines.push(format!("{}: {} ({})", answer.verdict, answer.sentence, answer.reason));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Question, String> {
        words(&text.split(' ').map(str::to_owned).collect::<Vec<_>>(), false)
    }

    #[test]
    fn words_are_understood() {
        let question = asked("tcp from 203.0.113.9 to :5432 in wlp2s0").unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(question.interface.as_deref(), Some("wlp2s0"));
        let What::Probe(probe) = question.what else { panic!("no probe") };
        assert_eq!(
            (probe.from.to_string().as_str(), probe.to, probe.to_port),
            ("203.0.113.9:49152", None, 5432)
        );
        for good in [
            "udp from [2001:db8::9]:53 to [2001:db8::1]:9",
            "ping from 192.0.2.9",
            "ping from fe80::9 to fe80::1",
        ] {
            assert!(asked(good).is_ok(), "{good}");
        }
        for bad in [
            "tcp",
            "tcp from x to :1",
            "tcp from 192.0.2.1 to :70000",
            "tcp from 192.0.2.1",
            "icmp from 192.0.2.1",
            "tcp from 192.0.2.1 to [2001:db8::1]:1",
            "tcp to :1",
            "tcp from 192.0.2.1 to :1 in",
        ] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn frames_in_hexadecimal_are_understood() {
        assert_eq!(bytes("02:00 5e\nFF").ok(), Some(vec![2, 0, 0x5e, 0xff]));
        assert!(bytes("0").is_err() && bytes("0g").is_err());
    }

    #[test]
    fn a_service_is_found_in_the_text() {
        let text = "version = 1\n[services.web2]\n[ services . web ] # the site\n[services.\"a b\"]\n";
        assert_eq!(
            (line_of(text, "web"), line_of(text, "web2"), line_of(text, "ssh")),
            (Some(3), Some(2), None)
        );
    }
}
