//! The meaning of a policy, the engine on the host and the program in the kernel say the same of random packets: see
//! `tollgate_tests::differential`. Here with overflow checks in the engine on the host; `cargo xtask differential` does more.

use std::path::Path;

use tollgate::policy;
use tollgate::policy::compile::{RuleIds, compile};
use tollgate_tests::differential::family::{Family, Member};
use tollgate_tests::differential::policies::Case;
use tollgate_tests::differential::witness::Witness;
use tollgate_tests::differential::{Options, Summary, run, test_one};
use tollgate_tests::lab::require_root;

const INTERFACE: &str = "eth0";

/// A policy in which every value shows.
const POLICY: &str = r#"
version = 1
[interfaces.eth0]
deny = ["bad"]
[zones]
bad = ["10.1.2.128/25", "2001:db8:0:1:8000::/65"]
lan = ["10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32"]
near = { prefixes = ["192.0.2.64/26"], interfaces = ["eth*"] }
[limits.few]
per-source = { packets = "10/s", burst = 5, connections = "2/s", connections-burst = 3, v6-prefix = 64 }
per-prefix = { packets = "100/s", burst = 12, v4-prefix = 24 }
[limits.small]
service = { bytes = "125kB/s", bytes-burst = 70000 }
[services.web]
ports = ["tcp/80-81"]
allow = "any"
limit = "few"
[services.dns]
ports = ["udp/53"]
allow = ["lan"]
limit = "small"
[services.shell]
ports = ["tcp/22"]
allow = ["lan"]
deny = ["near"]
[plumbing]
mdns = true
ping-limit = "few"
[timeouts]
tcp-opening = "5s"
tcp-established = "30s"
tcp-closing = "4s"
udp = "3s"
icmp = "2s"
"#;

/// Changes of it, each as small as can be noticed.
const CHANGES: [(&str, &str); 24] = [
    ("deny = [\"bad\"]", "deny = [\"near\"]"),
    ("deny = [\"bad\"]", "deny = [\"bad\"]\ndefault = \"accept\""),
    ("10.1.2.128/25", "10.1.2.128/26"),
    ("2001:db8:0:1:8000::/65", "2001:db8:0:1:c000::/66"),
    ("10.1.0.0/16", "10.0.0.0/15"),
    ("eth*", "br-*"),
    ("packets = \"10/s\"", "packets = \"8/s\""),
    ("burst = 5", "burst = 6"),
    ("connections = \"2/s\"", "connections = \"5/s\""),
    ("connections-burst = 3", "connections-burst = 4"),
    ("v6-prefix = 64", "v6-prefix = 60"),
    ("burst = 12", "burst = 13"),
    ("v4-prefix = 24", "v4-prefix = 23"),
    ("bytes-burst = 70000", "bytes-burst = 71000"),
    ("tcp/80-81", "tcp/80-82"),
    ("udp/53", "udp/54"),
    ("deny = [\"near\"]", "deny = []"),
    ("mdns = true", "mdns = false"),
    ("ping-limit = \"few\"", "ping-limit = \"none\""),
    ("tcp-opening = \"5s\"", "tcp-opening = \"5001ms\""),
    ("tcp-established = \"30s\"", "tcp-established = \"30001ms\""),
    ("tcp-closing = \"4s\"", "tcp-closing = \"4001ms\""),
    ("udp = \"3s\"", "udp = \"3001ms\""),
    ("icmp = \"2s\"", "icmp = \"2001ms\""),
];

fn agreed(options: Options) -> Summary {
    let summary = run(options, |_| {}).expect("a run");
    let found: Vec<String> = summary.disagreements.iter().take(3).map(ToString::to_string).collect();
    assert!(
        found.is_empty(),
        "{} policies are not judged alike:\n{}",
        summary.disagreements.len(),
        found.join("\n")
    );
    summary
}

#[test]
fn three_agree_on_a_million_packets_and_every_reason_occurs() {
    require_root().expect("root");
    let options = Options { policies: 1000, packets: 1300, seed: 1_000_000, kernel_every: 1, threads: 0 };
    let summary = agreed(options);
    println!("{summary}");
    assert_eq!((summary.policies, summary.packets + summary.sent), (1000, 1_300_000));
    assert!(summary.xdp >= 1_000_000 && summary.tc >= 1_000_000, "{summary}");
    assert!(summary.answers >= 10_000, "{summary}");
    assert!(summary.uncovered().is_empty(), "{summary}");
}

#[test]
fn a_seed_repeats_a_policy_and_its_packets() {
    let reasons = |policies, seed| {
        let options = Options { policies, packets: 200, seed, kernel_every: 0, threads: 1 };
        agreed(options).reasons
    };
    // 39 and 40 are of two families.
    let (both, first, second) = (reasons(2, 39), reasons(1, 39), reasons(1, 40));
    let sums: Vec<u64> = first.iter().zip(&second).map(|(first, second)| first + second).collect();
    assert_eq!(both, sums);
    assert_ne!(first, second);
}

/// A case whose reference has one text, and whose engine has the other.
fn member(means: &str, enforced: &str, seed: u64) -> Member {
    let parse = |text: &str| {
        policy::parse(text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{text}\n{error}"))
    };
    let enforced = parse(enforced);
    let rules = RuleIds::assign(&[], &|_| false, &enforced).expect("ids");
    let compiled = compile(&enforced, &[INTERFACE.to_owned()], &rules).expect("tables");
    Member {
        seed,
        case: Case { text: means.to_owned(), policy: parse(means), interface: INTERFACE },
        compiled,
    }
}

#[test]
fn an_engine_that_is_a_little_wrong_is_found_out() {
    let differs = |enforced: &str| {
        (0..30).any(|seed| {
            let family = Family { members: vec![member(POLICY, enforced, seed)] };
            let summary = test_one(&family, &family.members[0], &mut [], 3000).expect("a run");
            !summary.disagreements.is_empty()
        })
    };
    assert!(!differs(POLICY), "it differs from itself");
    let missed: Vec<_> = CHANGES
        .iter()
        .filter(|(from, to)| {
            let enforced = POLICY.replacen(from, to, 1);
            assert_ne!(enforced, POLICY, "{from} is not in it");
            !differs(&enforced)
        })
        .collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[test]
fn a_kernel_that_is_a_little_wrong_is_found_out() {
    require_root().expect("root");
    let right = Family { members: vec![member(POLICY, POLICY, 7)] };
    let wrong = POLICY.replace("udp = \"3s\"", "udp = \"3001ms\"");
    let wrong = Family { members: vec![member(&wrong, &wrong, 7)] };
    let said = |family: &Family| {
        let mut witnesses = Witness::both(family).expect("programs");
        let summary = test_one(&right, &right.members[0], &mut witnesses, 60_000).expect("a run");
        summary.disagreements.into_iter().next().map(|found| found.said)
    };
    assert_eq!(said(&right), None);
    let said = said(&wrong).expect("a disagreement");
    // The kernel's programs alone remember the flow for too long.
    let replies: Vec<_> = said.lines().filter(|line| line.ends_with(" reply ")).collect();
    assert!(matches!(replies[..], [xdp, tc] if xdp.starts_with("Xdp:") && tc.starts_with("Tc:")), "{said}");
}
