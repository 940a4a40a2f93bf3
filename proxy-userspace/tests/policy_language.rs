//! What a good policy means: defaults, names, lists, limits, the hash.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tollgate::policy;
use tollgate::policy::model::{
    Bucket, DefaultAction, HookChoice, Policy, Scope, TestTarget, Transport, Unit, ZoneId,
};

/// The example of the design, as it stands there.
const EXAMPLE: &str = r#"
version = 1

[interfaces.wlp2s0]                 # any number; "br-*" patterns; zones may be bound to them
hook = "auto"                       # auto | native | generic | tc
default = "drop"                    # what is neither a service, nor a reply, nor plumbing

[zones]
lan       = ["192.168.0.0/24", "fe80::/10"]
docker    = ["172.17.0.0/16", "172.18.0.0/16"]
bad       = { file = "blocklist.txt" }          # one prefix a line
internet  = "any"

[limits.web]
per-source  = { packets = "2000/s", burst = 4000, connections = "50/s" }
service     = { connections = "5000/s" }
exceed      = "drop"

[services.django]
ports = ["tcp/8000"]
allow = ["lan"]
limit = "web"

[services.https]
ports = ["tcp/80", "tcp/443"]
allow = ["internet"]
deny  = ["bad"]
limit = "web"

[[test]]                            # run on the real kernel program before any swap
from = "203.0.113.9"  
to = "tcp/5432"
expect = "drop"
"#;

const SECOND: u64 = 1_000_000_000;

fn parse(text: &str) -> Policy {
    policy::parse(text, Path::new("policy.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn small(rest: &str) -> Policy {
    parse(&format!("version = 1\n[interfaces.eth0]\n{rest}"))
}

fn buckets(limit: &str) -> Vec<Bucket> {
    small(&format!("[limits.x]\n{limit}\n")).limits.remove(0).buckets
}

#[test]
fn the_example_means_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.toml");
    fs::write(&path, EXAMPLE).expect("a policy");
    fs::write(folder.path().join("blocklist.txt"), "198.51.100.0/24\n2001:db8:bad::/48\n").expect("a list");
    let policy = policy::load(&path).unwrap_or_else(|error| panic!("{error}"));

    let zones: Vec<_> = policy.zones.iter().map(|z| (z.name.as_str(), z.any, z.prefixes.len())).collect();
    assert_eq!(zones, [("lan", false, 2), ("docker", false, 2), ("bad", false, 2), ("internet", true, 0)]);
    assert_eq!(policy.services[1].allow, [ZoneId(3)]);
    assert_eq!(policy.services[1].deny, [ZoneId(2)]);
    let web = &policy.limits[policy.services[0].limit.expect("a limit").0];
    let source = Scope::Source { v6_len: 64 };
    let bucket = |scope, unit, tokens, burst| Bucket { scope, unit, tokens, per_ns: SECOND, burst };
    assert_eq!(
        web.buckets,
        [
            bucket(source, Unit::Connections, 50, 50),
            bucket(source, Unit::Packets, 2000, 4000),
            bucket(Scope::Service, Unit::Connections, 5000, 5000),
        ]
    );
    assert_eq!(policy.tests.len(), 1);
    let test = &policy.tests[0];
    assert_eq!((test.line, test.to, test.expect_pass), (30, TestTarget::Port(Transport::Tcp, 5432), false));
    assert_eq!(policy.path, path);
}

#[test]
fn what_is_left_out_has_its_default() {
    let policy = small("");
    let eth0 = &policy.interfaces[0];
    assert_eq!(
        (eth0.name.as_str(), eth0.hook, eth0.default),
        ("eth0", HookChoice::Auto, DefaultAction::Drop)
    );
    assert!(eth0.deny.is_empty() && policy.zones.is_empty() && policy.services.is_empty());
    let p = &policy.plumbing;
    assert!(p.router_advertisements && p.dhcp && p.dhcpv6 && p.multicast_membership && p.ping && !p.mdns);
    let ping = &policy.limits[p.ping_limit.expect("a limit").0];
    assert_eq!(ping.name, "ping");
    let scope = Scope::Source { v6_len: 64 };
    assert_eq!(ping.buckets, [Bucket { scope, unit: Unit::Packets, tokens: 10, per_ns: SECOND, burst: 20 }]);
    let t = &policy.timeouts;
    assert_eq!(
        [t.tcp_opening_ns, t.tcp_established_ns, t.tcp_closing_ns, t.udp_ns, t.icmp_ns].map(|ns| ns / SECOND),
        [120, 432_000, 120, 180, 30]
    );
}

#[test]
fn any_and_none_need_no_zone() {
    let policy = small(
        "[services.a]\nports = [\"tcp/1\"]\nallow = \"any\"\n[services.b]\nports = [\"tcp/2\"]\nallow = \"none\"\n\
         [services.c]\nports = [\"tcp/3\"]\nallow = [\"any\"]\ndeny = \"lan\"\n[zones]\nlan = [\"10.0.0.0/8\"]\n",
    );
    let names: Vec<_> = policy.zones.iter().map(|z| (z.name.as_str(), z.any)).collect();
    assert_eq!(names, [("lan", false), ("any", true)]);
    let allows: Vec<_> = policy.services.iter().map(|s| s.allow.clone()).collect();
    assert_eq!(allows, [vec![ZoneId(1)], vec![], vec![ZoneId(1)]]);
    assert_eq!(policy.services[2].deny, [ZoneId(0)]);
}

#[test]
fn interfaces_may_be_patterns_and_deny_zones() {
    let policy = parse(
        "version = 1\n[interfaces.\"br-*\"]\nhook = \"tc\"\ndefault = \"accept\"\ndeny = [\"bad\"]\n[interfaces.\"eth0.100\"]\n\
         [zones]\nbad = { prefixes = [\"10.0.0.0/8\"], interfaces = [\"docker0\", \"br-*\"] }\n\
         [[test]]\nfrom = \"::1\"\nto = \"ping\"\ninterface = \"br-7\"\nexpect = \"pass\"\n",
    );
    let br = &policy.interfaces[0];
    assert_eq!((br.name.as_str(), br.hook, br.default), ("br-*", HookChoice::Tc, DefaultAction::Accept));
    assert_eq!(br.deny, [ZoneId(0)]);
    assert_eq!(policy.interfaces[1].name, "eth0.100");
    assert_eq!(policy.zones[0].interfaces, ["docker0", "br-*"]);
    assert_eq!(policy.tests[0].interface.as_deref(), Some("br-7"));
    assert_eq!(policy.tests[0].to, TestTarget::Ping);
}

#[test]
fn a_zone_may_have_prefixes_and_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("lists")).expect("a folder");
    fs::write(folder.path().join("lists/a.txt"), "198.51.100.9\n").expect("a list");
    let text =
        "version = 1\n[interfaces.eth0]\n[zones.z]\nprefixes = [\"10.0.0.0/8\"]\nfile = \"lists/a.txt\"\n";
    let policy = policy::parse(text, &folder.path().join("p.toml")).unwrap_or_else(|error| panic!("{error}"));
    let prefixes: Vec<_> = policy.zones[0].prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.0.0.0/8", "198.51.100.9/32"]);
}

#[test]
fn buckets_stand_in_the_order_they_are_charged() {
    let all = "{ bytes = \"10MB/s\", packets = \"9/s\", connections = \"3/h\", bytes-burst = \"1MiB\", burst = 5, connections-burst = 2";
    let found = buckets(&format!(
        "service = {all} }}\nper-prefix = {all}, v4-prefix = 16, v6-prefix = 32 }}\nper-source = {all}, v6-prefix = 56 }}"
    ));
    let scopes = [Scope::Source { v6_len: 56 }, Scope::Prefix { v4_len: 16, v6_len: 32 }, Scope::Service];
    let expected: Vec<_> = scopes
        .into_iter()
        .flat_map(|scope| {
            [
                Bucket { scope, unit: Unit::Connections, tokens: 3, per_ns: 3600 * SECOND, burst: 2 },
                Bucket { scope, unit: Unit::Packets, tokens: 9, per_ns: SECOND, burst: 5 },
                Bucket { scope, unit: Unit::Bytes, tokens: 10_000_000, per_ns: SECOND, burst: 1 << 20 },
            ]
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn bursts_default_to_a_second() {
    for (rate, burst) in [
        ("packets = \"2000/s\"", 2000),
        ("packets = \"90/m\"", 2),
        ("connections = \"3/h\"", 1),
        ("bytes = \"10MB/s\"", 10_000_000),
        ("bytes = \"20KiB/h\"", 65_536),
        ("connections = \"5/s\", burst = 7", 7),
        ("bytes = \"1MB/s\", burst = \"128KiB\"", 131_072),
        ("bytes = \"1MB/s\", burst = 70000", 70_000),
    ] {
        assert_eq!(buckets(&format!("per-source = {{ {rate} }}"))[0].burst, burst, "{rate}");
    }
    let prefix = buckets("per-prefix = { packets = \"1/s\" }")[0].scope;
    assert_eq!(prefix, Scope::Prefix { v4_len: 24, v6_len: 48 });
}

#[test]
fn ping_keeps_the_limit_that_is_meant() {
    let ping_limit = |rest: &str| {
        let policy = small(rest);
        policy
            .plumbing
            .ping_limit
            .map(|id| (policy.limits[id.0].name.clone(), policy.limits[id.0].buckets[0].tokens))
    };
    let own = "[limits.ping]\nper-source = { packets = \"7/s\" }\n";
    let other = "[limits.other]\nservice = { packets = \"8/s\" }\n";
    assert_eq!(ping_limit(""), Some(("ping".to_owned(), 10)));
    assert_eq!(ping_limit(own), Some(("ping".to_owned(), 7)));
    assert_eq!(
        ping_limit(&format!("{other}[plumbing]\nping-limit = \"other\"\n")),
        Some(("other".to_owned(), 8))
    );
    assert_eq!(ping_limit("[plumbing]\nping-limit = \"ping\"\n"), Some(("ping".to_owned(), 10)));
    assert_eq!(ping_limit("[plumbing]\nping-limit = \"none\"\n"), None);
    assert_eq!(ping_limit("[plumbing]\nping = false\n"), None);
    assert!(small("[plumbing]\nping = false\n").limits.is_empty());
}

#[test]
fn the_hash_covers_the_policy_and_its_lists() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.toml");
    let list = folder.path().join("l.txt");
    let hash = |policy: &str, entries: &str| {
        fs::write(&path, policy).expect("a policy");
        fs::write(&list, entries).expect("a list");
        policy::load(&path).unwrap_or_else(|error| panic!("{error}")).hash
    };
    let plain = "version = 1\n[interfaces.eth0]\n";
    // What sha256sum prints for the file.
    assert_eq!(hash(plain, ""), "3a5507142dd7894109f806d1963f150d6914cdc594c0dfcf79a8f87865d7a182");
    let with_list = format!("{plain}[zones]\nz = {{ file = \"l.txt\" }}\n");
    let first = hash(&with_list, "10.0.0.0/8\n");
    assert_eq!(first, hash(&with_list, "10.0.0.0/8\n"));
    assert_ne!(first, hash(&with_list, "10.0.0.0/8 \n"));
    assert_ne!(first, hash(&format!("{with_list}#"), "10.0.0.0/8\n"));
}

#[test]
fn a_list_of_a_million_lines_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("p.toml");
    let lines: String =
        (0..1_000_000u32).map(|i| format!("{}\n", std::net::Ipv4Addr::from(0x0100_0000 + i))).collect();
    fs::write(folder.path().join("l.txt"), lines).expect("a list");
    fs::write(&path, "version = 1\n[interfaces.eth0]\n[zones]\nz = { file = \"l.txt\" }\n")
        .expect("a policy");
    let policy = policy::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(policy.zones[0].prefixes.len(), 1_000_000);
}

#[test]
fn the_examples_of_the_manual_are_good() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    let manual = fs::read_to_string(manual).expect("the manual");
    let blocks: Vec<&str> =
        manual.split("```toml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("blocklist.txt"), "198.51.100.0/24\n").expect("a list");
    // The first is a policy; the others, one a section, are another with what they leave to the reader.
    let rest = "[zones.vpn]\nprefixes = [\"10.0.0.0/8\"]\n[zones.balancers]\nprefixes = [\"192.0.2.8/29\"]\n[limits.slow]\nservice = { packets = \"9/s\" }\n";
    for text in [blocks[0].to_owned(), format!("{}{rest}", blocks[1..].concat())] {
        if let Err(error) = policy::parse(&text, &folder.path().join("p.toml")) {
            panic!("{error}");
        }
    }
    let (_, shown) = manual.split_once("exit code is 2.\n\n```\n").expect("an error");
    let (shown, _) = shown.split_once("```").expect("its end");
    let text = "version = 1\n[interfaces.eth0]\n[zones]\nlan = [\"10.0.0.0/8\"]\n\n\n\n\n\n[services.x]\n\
                ports = [\"tcp/1\"]\nallow = [\"lann\"]\n";
    let error = policy::parse(text, Path::new("policy.toml")).expect_err("an unknown zone");
    assert_eq!(error.to_string(), shown);
}

/// Pieces that policies are made of, so that random ones get far.
fn piece() -> impl Strategy<Value = String> {
    let lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
    prop_oneof![prop::sample::select(lines), "[a-z\\[\\]{}=\",.#/0-9 -]{0,20}", "\\PC{0,10}",]
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|[\\x00-\\x1f])*") {
        if let Err(error) = policy::parse(&text, Path::new("p.toml")) {
            prop_assert!(!error.0.is_empty() && !error.to_string().is_empty());
        }
    }

    #[test]
    fn no_shuffled_policy_panics(pieces in prop::collection::vec(piece(), 0..40)) {
        if let Err(error) = policy::parse(&pieces.join("\n"), Path::new("p.toml")) {
            prop_assert!(!error.0.is_empty() && !error.to_string().is_empty());
        }
    }

    #[test]
    fn no_damaged_policy_panics(at in 0..EXAMPLE.len(), gone in 0..20usize, put in "\\PC{0,8}") {
        let end = (at + gone).min(EXAMPLE.len());
        prop_assume!(EXAMPLE.is_char_boundary(at) && EXAMPLE.is_char_boundary(end));
        let text = format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
        if let Err(error) = policy::parse(&text, Path::new("p.toml")) {
            prop_assert!(error.0.iter().all(|d| !d.message.is_empty() && !d.help.is_empty()));
        }
    }
}
