//! A million prefixes: right, and in memory that follows their number.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proxy_common::abi::reason::Reason;
use tollgate::policy::compile::Compiled;
use tollgate::policy::model::Zone;
use tollgate::simulate::Simulation;

use crate::fixture::{compiled, edges, empty, frame, service, tcp, zone};

const COUNT: usize = 1_000_000;

/// Numbers that look random and are the same in each run (SplitMix64, Steele et al., OOPSLA 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A block list for a service that is open to all others.
fn with_list(prefixes: Vec<IpNet>) -> Compiled {
    let mut policy = empty();
    policy.zones = vec![Zone { any: true, ..zone("any", Vec::new()) }, zone("bad", prefixes)];
    policy.services = vec![service("web", 80, &[0], &[1])];
    let start = Instant::now();
    let compiled = compiled(&policy, &["eth0"]);
    let tables = &compiled.tables;
    println!(
        "{:?}: {} nodes, {} entries, {} MiB",
        start.elapsed(),
        tables.nodes.len(),
        tables.entries.len(),
        trie_bytes(&compiled) >> 20
    );
    compiled
}

/// Bytes of the trie besides its root.
fn trie_bytes(compiled: &Compiled) -> usize {
    size_of_val(&compiled.tables.nodes[..]) + size_of_val(&compiled.tables.entries[..])
}

/// Prefixes by first address and length; asked once for each length that is there.
struct Listed(HashMap<u8, std::collections::HashSet<IpAddr>>);

impl Listed {
    fn new(prefixes: &[IpNet]) -> Self {
        let mut lengths = HashMap::<u8, std::collections::HashSet<IpAddr>>::new();
        for net in prefixes {
            lengths.entry(net.prefix_len()).or_default().insert(net.network());
        }
        Self(lengths)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(length, firsts)| {
            IpNet::new(address, *length).is_ok_and(|net| firsts.contains(&net.network()))
        })
    }
}

fn assert_right(compiled: &Compiled, prefixes: &[IpNet], numbers: &mut Numbers) {
    let listed = Listed::new(prefixes);
    let mut host = Simulation::new(compiled, 0);
    let mut sources: Vec<IpAddr> =
        (0..2_000).flat_map(|_| edges(&prefixes[numbers.next() as usize % prefixes.len()])).collect();
    sources.extend((0..2_000).map(|_| IpAddr::from(Ipv4Addr::from(numbers.next() as u32))));
    for from in sources {
        let reason = host.ingress(&frame(from, tcp(80)), 1).reason;
        if reason != Reason::SourceInvalid {
            assert_eq!(reason == Reason::ServiceDenied, listed.has(from), "{from}: {reason:?}");
        }
    }
}

#[test]
fn a_million_ipv4_prefixes() {
    let mut numbers = Numbers(1);
    let prefix = |_| {
        let bits = numbers.next();
        let length = 24 + (bits >> 32) as u8 % 9;
        IpNet::from(Ipv4Net::new(Ipv4Addr::from(bits as u32), length).expect("a length").trunc())
    };
    let prefixes: Vec<IpNet> = (0..COUNT).map(prefix).collect();
    let compiled = with_list(prefixes.clone());
    assert_eq!(compiled.source_classes, 3);
    assert!(trie_bytes(&compiled) < 40 << 20, "{} bytes", trie_bytes(&compiled));
    assert_right(&compiled, &prefixes, &mut numbers);
}

#[test]
fn a_million_ipv6_networks() {
    // As they are handed out: /48s of some thousand providers' /32s.
    let mut numbers = Numbers(2);
    let prefix = |_| {
        let bits = numbers.next();
        let provider = 0x2a00_0000 | (bits % 4096) as u128;
        let site = (bits >> 32 & 0xffff) as u128;
        let first = provider << 96 | site << 80;
        IpNet::from(Ipv6Net::new(Ipv6Addr::from(first), 48).expect("a length"))
    };
    let prefixes: Vec<IpNet> = (0..COUNT).map(prefix).collect();
    let compiled = with_list(prefixes.clone());
    assert!(trie_bytes(&compiled) < 128 << 20, "{} bytes", trie_bytes(&compiled));
    assert_right(&compiled, &prefixes, &mut numbers);
}

#[test]
fn few_prefixes_take_little() {
    let single = |text: &str| vec![text.parse::<IpNet>().expect(text)];
    // The longest walk: 14 nodes to one host, and those to the invalid sources.
    let compiled = with_list(single("2001:db8:1:2:3:4:5:6/128"));
    assert!(compiled.tables.nodes.len() < 64, "{}", compiled.tables.nodes.len());
    let shallow = with_list(single("10.0.0.0/8"));
    assert!(shallow.tables.nodes.len() < compiled.tables.nodes.len());
}
