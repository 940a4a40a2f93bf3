//! Random policies, as text, so that the reader and the validator are part of the test.
//!
//! Made so that much of each policy matters to the few addresses and ports that [`super::traffic`] uses: zones nest and
//! touch, ports lie side by side. Rates divide a second, so that no token costs a fraction of a nanosecond and the
//! limiter, which counts whole ones, has to agree to the nanosecond.
//!
//! They come in families with the same constants: the kernel verifies the program once for all of them ([`super::family`]).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tollgate::policy::{self, Policy};

/// What the tested interface may be called.
const INTERFACES: [&str; 4] = ["eth0", "br-a", "wlp2s0", "docker0"];
/// Entries that means one or more of them.
const ENTRIES: [&str; 10] =
    ["eth0", "br-a", "wlp2s0", "docker0", "br-*", "*0", "w*s*", "*", "e*h*0", "docker*"];
/// Prefixes that zones take theirs from: nested, side by side, of one host, of a whole family.
const PREFIXES: [&str; 26] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/23",
    "10.1.2.0/24",
    "10.1.3.0/25",
    "10.1.2.128/25",
    "10.1.2.77",
    "10.1.2.78/31",
    "127.0.0.0/8",
    "192.0.2.0/24",
    "192.0.2.64/26",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "128.0.0.0/1",
    "::/0",
    "fe80::/10",
    "fe80::/64",
    "2001:db8::/32",
    "2001:db8:0:1::/64",
    "2001:db8:0:1:8000::/65",
    "2001:db8:0:1::7",
    "2001:db8:0:1::8/127",
    "2001:db8:1::/47",
    "ff00::/8",
    "8000::/1",
];
/// Packets and connections: each token takes whole nanoseconds.
const COUNTS: [&str; 10] = ["1/s", "2/s", "5/s", "8/s", "10/s", "100/s", "1/m", "6/m", "1/h", "1000/s"];
/// Bytes: likewise.
const BYTES: [&str; 6] = ["100kB/h", "500kB/m", "10kB/s", "125kB/s", "1MB/s", "50kB/h"];
const TIMEOUTS: [&str; 5] = ["tcp-opening", "tcp-established", "tcp-closing", "udp", "icmp"];
const DURATIONS: [&str; 8] = ["1s", "2s", "5s", "30s", "120s", "10m", "5d", "30d"];
const SWITCHES: [&str; 5] = ["router-advertisements", "dhcp", "dhcpv6", "multicast-membership", "mdns"];
const PORTS: [u16; 16] = [1, 22, 53, 67, 68, 80, 81, 443, 546, 547, 5353, 8000, 8001, 8010, 40_000, 65_535];

/// What the policies of a family have in common: that which becomes constants of the program.
#[derive(Clone, Debug)]
pub struct Common {
    plumbing: String,
    ping: bool,
    timeouts: String,
}

impl Common {
    /// Draws it.
    pub fn draw(rng: &mut StdRng) -> Self {
        let mut plumbing = String::from("[plumbing]\n");
        for key in SWITCHES {
            if rng.random_bool(0.5) {
                line(&mut plumbing, format_args!("{key} = {}", rng.random_bool(0.6)));
            }
        }
        let mut timeouts = String::from("[timeouts]\n");
        for key in TIMEOUTS {
            if rng.random_bool(0.6) {
                let duration = DURATIONS.choose(rng).copied().unwrap_or("1s");
                line(&mut timeouts, format_args!("{key} = \"{duration}\""));
            }
        }
        Self { plumbing, ping: rng.random_bool(0.85), timeouts }
    }
}

/// A policy, its text, and the interface that it is asked about.
#[derive(Debug)]
pub struct Case {
    /// The file.
    pub text: String,
    /// What it says.
    pub policy: Policy,
    /// An interface that it means.
    pub interface: &'static str,
}

/// Draws texts until one is a policy: which names go together is the validator's business.
///
/// # Panics
/// If a thousand texts in a row are none: the generator is broken, and the last text's errors say how.
pub fn case(rng: &mut StdRng, common: &Common) -> Case {
    let mut refusal = String::new();
    for _ in 0..1000 {
        let interface = INTERFACES.choose(rng).copied().unwrap_or("eth0");
        let text = Writer { rng, common, zones: Vec::new(), limits: Vec::new() }.policy();
        match policy::parse(&text, Path::new("random.toml")) {
            Ok(policy) if policy::compile::entry_for(&policy, interface).is_some() => {
                return Case { text, policy, interface };
            }
            Ok(_) => {}
            Err(error) => refusal = format!("{text}\n{error}"),
        }
    }
    panic!("no policy came out: {refusal}")
}

struct Writer<'a> {
    rng: &'a mut StdRng,
    common: &'a Common,
    zones: Vec<String>,
    limits: Vec<String>,
}

impl Writer<'_> {
    fn policy(mut self) -> String {
        let mut zones = String::new();
        for n in 0..self.rng.random_range(0..7) {
            let zone = self.zone();
            line(&mut zones, format_args!("z{n} = {zone}"));
            self.zones.push(format!("z{n}"));
        }
        let limits: String = (0..self.rng.random_range(0..4)).map(|n| self.limit(&format!("l{n}"))).collect();
        let mut text = String::from("version = 1\n");
        for entry in ENTRIES.sample(self.rng, 3).copied().collect::<Vec<_>>() {
            text += &self.interface(entry);
        }
        line(&mut text, format_args!("[zones]\n{zones}{limits}"));
        text += &self.services();
        text += &self.plumbing();
        text + &self.common.timeouts
    }

    fn one<'t>(&mut self, words: &[&'t str]) -> &'t str {
        words.choose(self.rng).copied().unwrap_or_default()
    }

    fn interface(&mut self, entry: &str) -> String {
        let mut text = format!("[interfaces.\"{entry}\"]\n");
        if self.rng.random_bool(0.4) {
            text += "default = \"accept\"\n";
        } else if self.rng.random_bool(0.3) {
            text += "default = \"reject\"\n";
        }
        if self.rng.random_bool(0.3) && !self.zones.is_empty() {
            line(&mut text, format_args!("deny = {}", self.some_zones()));
        }
        if self.rng.random_bool(0.25) && !self.zones.is_empty() {
            line(&mut text, format_args!("isolate = {}", self.some_zones()));
        }
        text
    }

    fn zone(&mut self) -> String {
        if self.rng.random_bool(0.1) {
            return "\"any\"".to_owned();
        }
        let mut prefixes = Vec::new();
        for _ in 0..self.rng.random_range(1..6) {
            let prefix =
                if self.rng.random_bool(0.8) { self.one(&PREFIXES).to_owned() } else { self.prefix() };
            prefixes.push(format!("\"{prefix}\""));
        }
        prefixes.sort();
        prefixes.dedup();
        let prefixes = prefixes.join(", ");
        if self.rng.random_bool(0.8) {
            return format!("[{prefixes}]");
        }
        let interfaces: Vec<_> = ENTRIES.sample(self.rng, 3).map(|name| format!("\"{name}\"")).collect();
        format!("{{ prefixes = [{prefixes}], interfaces = [{}] }}", interfaces.join(", "))
    }

    /// A prefix of any length, around the addresses that are in use anyway.
    fn prefix(&mut self) -> String {
        if self.rng.random_bool(0.5) {
            let length = self.rng.random_range(1..=32u32);
            let address = 0x0a01_0200 | self.rng.random::<u32>() & 0x1ff;
            format!("{}/{length}", Ipv4Addr::from(address >> (32 - length) << (32 - length)))
        } else {
            let length = self.rng.random_range(1..=128u32);
            let address = 0x2001_0db8_0000_0001_u128 << 64 | self.rng.random::<u128>() & 0xffff;
            format!("{}/{length}", Ipv6Addr::from(address >> (128 - length) << (128 - length)))
        }
    }

    /// A few zones as a list; each once.
    fn some_zones(&mut self) -> String {
        let count = self.rng.random_range(1..=3.min(self.zones.len().max(1)));
        let names: Vec<_> = self.zones.sample(self.rng, count).map(|name| format!("\"{name}\"")).collect();
        format!("[{}]", names.join(", "))
    }

    fn limit(&mut self, name: &str) -> String {
        let mut text = format!("[limits.{name}]\n");
        let scopes = ["per-source", "per-prefix", "service"];
        let chosen = self.rng.random_range(1..8u8);
        for (bit, scope) in scopes.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1) {
            let rates = self.rates();
            let mut keys = rates;
            if bit < 2 && self.rng.random_bool(0.4) {
                keys += &format!(", v6-prefix = {}", self.rng.random_range(1..=64));
            }
            if bit == 1 && self.rng.random_bool(0.4) {
                keys += &format!(", v4-prefix = {}", self.rng.random_range(1..=32));
            }
            line(&mut text, format_args!("{scope} = {{ {keys} }}"));
        }
        self.limits.push(name.to_owned());
        text
    }

    /// One to three rates. Bursts are short, so that they are used up.
    fn rates(&mut self) -> String {
        let mut keys = Vec::new();
        let units = self.rng.random_range(1..8u8);
        if units & 1 == 1 {
            keys.push(format!("packets = \"{}\"", self.one(&COUNTS)));
            keys.push(format!("burst = {}", self.rng.random_range(1..=15)));
        }
        if units & 2 == 2 {
            keys.push(format!("connections = \"{}\"", self.one(&COUNTS)));
            keys.push(format!("connections-burst = {}", self.rng.random_range(1..=10)));
        }
        if units & 4 == 4 {
            keys.push(format!("bytes = \"{}\"", self.one(&BYTES)));
            if self.rng.random_bool(0.3) {
                keys.push(format!("bytes-burst = {}", self.rng.random_range(65_536..=80_000)));
            }
        }
        keys.shuffle(self.rng);
        keys.join(", ")
    }

    fn services(&mut self) -> String {
        let mut text = String::new();
        let mut taken: Vec<(&str, u16, u16)> = Vec::new();
        for n in 0..self.rng.random_range(0..8) {
            let mut ports = Vec::new();
            for _ in 0..self.rng.random_range(1..4) {
                let protocol = self.one(&["tcp", "udp"]);
                let first = PORTS.choose(self.rng).copied().unwrap_or(80);
                let longest = [0, 0, 1, 9, 1000].choose(self.rng).copied().unwrap_or(0);
                let last = first.saturating_add(longest);
                if taken.iter().any(|(p, f, l)| *p == protocol && *f <= last && first <= *l) {
                    continue;
                }
                taken.push((protocol, first, last));
                let range = if first == last { String::new() } else { format!("-{last}") };
                ports.push(format!("\"{protocol}/{first}{range}\""));
            }
            if ports.is_empty() {
                continue;
            }
            line(&mut text, format_args!("[services.s{n}]\nports = [{}]", ports.join(", ")));
            match self.rng.random_range(0..10) {
                0 => text += "allow = \"none\"\n",
                1..4 => text += "allow = \"any\"\n",
                _ if self.zones.is_empty() => text += "allow = \"any\"\n",
                _ => line(&mut text, format_args!("allow = {}", self.some_zones())),
            }
            if self.rng.random_bool(0.4) && !self.zones.is_empty() {
                line(&mut text, format_args!("deny = {}", self.some_zones()));
            }
            if self.rng.random_bool(0.2) {
                text += "refuse = \"reject\"\n";
            }
            if self.rng.random_bool(0.15) {
                text += "audit = true\n";
            }
            if self.rng.random_bool(0.6) && !self.limits.is_empty() {
                let limit = self.limits.choose(self.rng).cloned().unwrap_or_default();
                line(&mut text, format_args!("limit = \"{limit}\""));
            }
        }
        text
    }

    fn plumbing(&mut self) -> String {
        let mut text = self.common.plumbing.clone();
        if !self.common.ping {
            return text + "ping = false\n";
        }
        match self.rng.random_range(0..5) {
            1 => text += "ping-limit = \"none\"\n",
            2 | 3 if !self.limits.is_empty() => {
                let limit = self.limits.choose(self.rng).cloned().unwrap_or_default();
                line(&mut text, format_args!("ping-limit = \"{limit}\""));
            }
            _ => {}
        }
        text
    }
}

/// Adds a line; writing to a string can't fail.
fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}
