//! From a checked policy to the tables that the engine reads: the trie of sources, the classes of ports, the
//! decisions and the buckets.
//!
//! Called by the loader before it fills an instance's maps, and by [`crate::simulate`]. Pure: no map, no clock, no
//! file. One set of tables serves all interfaces; what differs between them is [`CompiledInterface::first_row`].
//!
//! The way: prefixes of all zones → disjoint runs of addresses, each with its set of zones (`runs`) → source classes,
//! one for each different row of decisions (`classes`) → the trie (`trie`).

mod buckets;
mod classes;
mod contexts;
mod ports;
mod rules;
mod runs;
mod trie;
mod zoneset;

use std::net::IpAddr;

use proxy_common::abi::counter::RULE_DEFAULT;
use proxy_common::abi::decision::Decision;
use proxy_common::abi::limit::Bucket;
use proxy_common::abi::settings::{
    CLOCK_EXACT, CLOCK_GIVEN, CLOCK_TICKS, DEADLINE_NONE, PLUMBING_DHCP, PLUMBING_DHCPV6, PLUMBING_MDNS,
    PLUMBING_MEMBERSHIP, PLUMBING_PING, PLUMBING_RA, Settings,
};
use proxy_common::abi::trie::Node;

use super::model::Policy;
use buckets::{Buckets, Owner, Range};
use classes::{Classes, ServiceRule};
use runs::Runs;
use zoneset::{MOST_ZONES, Pool};

pub use contexts::entry_for;
pub use rules::{DEFAULT_NAME, RuleIds};

/// Most cells of the decision table: 128 MiB.
pub const MOST_DECISIONS: u64 = 1 << 24;
/// Most nodes of the trie: 1 GiB.
pub const MOST_NODES: usize = 1 << 24;
/// Most entries outside of nodes: 1 GiB.
pub const MOST_ENTRIES: usize = 1 << 28;

/// A policy as tables, for the interfaces that were asked for.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// One instance's tables, shared by all interfaces.
    pub tables: CompiledTables,
    /// One for each interface that was asked for, in the same order.
    pub interfaces: Vec<CompiledInterface>,
    /// The rules: the default first, then the services in the order of the file.
    pub rules: Vec<CompiledRule>,
    /// Source classes: rows of each interface's block of decisions.
    pub source_classes: u32,
    /// Port classes: the length of a row.
    pub port_classes: u32,
    /// The settings without what depends on interface, clock and keys.
    constants: Settings,
}

/// The contents of one instance's maps.
#[derive(Clone, Debug)]
pub struct CompiledTables {
    /// Root of the source trie; [`proxy_common::abi::trie::ROOT_LEN`] entries.
    pub root: Vec<u32>,
    /// Nodes of the source trie; may be empty.
    pub nodes: Vec<Node>,
    /// Runs of nodes that do not hold them; may be empty.
    pub entries: Vec<u32>,
    /// Port classes; [`proxy_common::abi::decision::PORTS_LEN`] of them.
    pub ports: Vec<u16>,
    /// Decisions: for each kind of interface a block of rows. Empty only if no interface was asked for.
    pub decisions: Vec<Decision>,
    /// Buckets; may be empty.
    pub buckets: Vec<Bucket>,
}

/// What the tables say of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledInterface {
    /// Its name.
    pub name: String,
    /// Index in [`Policy::interfaces`] of the entry that applies.
    pub entry: usize,
    /// First row of its block of decisions. Interfaces that are treated alike share a block.
    pub first_row: u32,
    /// True if some of what arrives is rejected: dropped, and answered.
    pub rejects: bool,
}

/// A rule of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledRule {
    /// Its id in the counters.
    pub id: u16,
    /// Its name: the service's, or [`DEFAULT_NAME`].
    pub name: String,
}

/// Which clock an instance reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `bpf_ktime_get_ns`: exact, and a call each time.
    Exact,
    /// Ticks of the kernel (`bpf_jiffies64`), which the verifier turns into a load.
    Ticks {
        /// Nanoseconds in a tick.
        tick_ns: u64,
        /// What to add (wrapping) to ticks × `tick_ns` so that both clocks agree to a tick.
        offset_ns: u64,
    },
    /// What it is told: for programs that are tried and never attached.
    Given,
}

/// Why a policy can't be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// No `[interfaces]` entry applies to an interface that was asked for.
    #[error("no entry of [interfaces] means the interface {interface}")]
    NoEntry {
        /// Its name.
        interface: String,
    },
    /// Too many combinations of zones, services and interfaces.
    #[error(
        "the policy tells {source_classes} or more kinds of sources apart, for {port_classes} kinds of ports and \
         {contexts} kinds of interfaces: more than {MOST_DECISIONS} decisions; put zones, services or interfaces \
         that are treated alike together"
    )]
    TooManyDecisions {
        /// Source classes seen until then.
        source_classes: u64,
        /// Services and what is none.
        port_classes: u64,
        /// Interfaces that differ in treatment.
        contexts: u64,
    },
    /// The prefixes need more trie than is sensible to load.
    #[error(
        "the prefixes of the zones need more than 1 GiB of tables; shorten the lists, or the prefixes in them"
    )]
    TooManyPrefixes,
    /// More zones than a policy may have.
    #[error("the policy has {zones} zones, more than can be compiled")]
    TooManyZones {
        /// How many.
        zones: usize,
    },
    /// More buckets than a decision can point to.
    #[error("the limits of the services need {buckets} buckets, more than there can be: use fewer limits")]
    TooManyBuckets {
        /// How many.
        buckets: usize,
    },
    /// More rules than the counters hold.
    #[error(
        "the policy has {missing} services more than there are free counters: those of the policy in force are not \
         free; apply a policy with fewer services first, and this one after it"
    )]
    TooManyRules {
        /// Services without an id.
        missing: usize,
    },
    /// The rule ids belong to another policy: a fault of the program, not of the policy.
    #[error("the service {service} has no rule id")]
    NoRuleId {
        /// Its name.
        service: String,
    },
}

/// Compiles a policy for some interfaces, by name.
///
/// # Errors
/// An interface that the policy does not mean, or a policy that needs larger tables than can be loaded.
pub fn compile(policy: &Policy, interfaces: &[String], rules: &RuleIds) -> Result<Compiled, CompileError> {
    compile_for_host(policy, interfaces, &[], rules)
}

/// The same for a host with addresses of its own: no packet from a network can have one of these as its source.
///
/// # Errors
/// As [`compile`].
pub fn compile_for_host(
    policy: &Policy,
    interfaces: &[String],
    own: &[IpAddr],
    rules: &RuleIds,
) -> Result<Compiled, CompileError> {
    if policy.zones.len() > MOST_ZONES {
        return Err(CompileError::TooManyZones { zones: policy.zones.len() });
    }
    let (contexts, subjects) = contexts::contexts(policy, interfaces)?;
    let mut buckets = Buckets::new(&policy.limits);
    let mut compiled_rules = vec![CompiledRule { id: RULE_DEFAULT, name: DEFAULT_NAME.to_owned() }];
    let mut service_rules = Vec::with_capacity(policy.services.len());
    for service in &policy.services {
        let name = &service.name;
        let id = rules.id(name).ok_or_else(|| CompileError::NoRuleId { service: name.clone() })?;
        let range = buckets.range(service.limit, Owner::Service(name))?;
        compiled_rules.push(CompiledRule { id, name: name.clone() });
        let (first_bucket, count) = (range.first, range.count);
        service_rules.push(ServiceRule {
            id,
            first_bucket,
            buckets: count,
            refuse: service.refuse,
            audit: service.audit,
        });
    }
    let ping = buckets.range(policy.plumbing.ping_limit, Owner::Ping)?;
    let rejects: Vec<bool> = subjects
        .iter()
        .map(|subject| policy.interfaces.get(subject.entry).is_some_and(|entry| policy.rejects(entry)))
        .collect();
    let answers = if rejects.contains(&true) { buckets.of_answers()? } else { Range::default() };
    let buckets = buckets.into_table();

    let mut pool = Pool::default();
    let sets = runs::runs(&policy.zones, own, &mut pool);
    let mut classes = Classes::new(&contexts, &policy.services);
    let sources = Runs { v4: classes.classify(&sets.v4, &pool)?, v6: classes.classify(&sets.v6, &pool)? };
    drop(sets);
    let trie = trie::build(&sources)?;

    let source_classes = classes.count();
    let port_classes = classes.port_classes();
    let interfaces =
        interfaces.iter().zip(subjects).zip(rejects).map(|((name, subject), rejects)| CompiledInterface {
            name: name.clone(),
            entry: subject.entry,
            first_row: subject.context as u32 * source_classes,
            rejects,
        });
    Ok(Compiled {
        interfaces: interfaces.collect(),
        rules: compiled_rules,
        source_classes,
        port_classes,
        constants: constants(policy, port_classes, [ping, answers], &buckets),
        tables: CompiledTables {
            root: trie.root,
            nodes: trie.nodes,
            entries: trie.entries,
            ports: ports::ports(&policy.services),
            decisions: classes.decisions(&service_rules),
            buckets,
        },
    })
}

fn constants(policy: &Policy, port_classes: u32, ranges: [Range; 2], buckets: &[Bucket]) -> Settings {
    let [ping, answers] = ranges;
    let plumbing = &policy.plumbing;
    let kinds = [
        (plumbing.router_advertisements, PLUMBING_RA),
        (plumbing.dhcp, PLUMBING_DHCP),
        (plumbing.dhcpv6, PLUMBING_DHCPV6),
        (plumbing.multicast_membership, PLUMBING_MEMBERSHIP),
        (plumbing.mdns, PLUMBING_MDNS),
        (plumbing.ping, PLUMBING_PING),
    ];
    Settings {
        first_row: 0,
        port_classes,
        plumbing: kinds.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(),
        ping_first_bucket: u32::from(ping.first),
        ping_buckets: u32::from(ping.count),
        clock: CLOCK_EXACT,
        reject_first_bucket: u32::from(answers.first),
        reject_buckets: u32::from(answers.count),
        tick_ns: 0,
        tick_offset_ns: 0,
        hash_keys: [0; 3],
        max_depth_ns: buckets.iter().map(|bucket| bucket.depth_ns).max().unwrap_or(0),
        tcp_opening_ns: policy.timeouts.tcp_opening_ns,
        tcp_established_ns: policy.timeouts.tcp_established_ns,
        tcp_closing_ns: policy.timeouts.tcp_closing_ns,
        udp_ns: policy.timeouts.udp_ns,
        icmp_ns: policy.timeouts.icmp_ns,
        on_deadline: DEADLINE_NONE,
        escalates: u32::from(policy.services.iter().any(|service| policy.escalation(service).is_some())),
        shadowed: 0,
        _pad: 0,
    }
}

impl Compiled {
    /// The constants of the instance for one interface.
    ///
    /// # Panics
    /// If `interface` is not an index in [`Compiled::interfaces`].
    pub fn settings(&self, interface: usize, clock: Clock, hash_keys: [u64; 3]) -> Settings {
        let (clock, tick_ns, tick_offset_ns) = match clock {
            Clock::Exact => (CLOCK_EXACT, 0, 0),
            Clock::Ticks { tick_ns, offset_ns } => (CLOCK_TICKS, tick_ns, offset_ns),
            Clock::Given => (CLOCK_GIVEN, 0, 0),
        };
        let CompiledInterface { first_row, rejects, .. } = self.interfaces[interface];
        // The programs of an interface that rejects nothing are to have none of it.
        let reject_buckets = if rejects { self.constants.reject_buckets } else { 0 };
        Settings { first_row, clock, tick_ns, tick_offset_ns, hash_keys, reject_buckets, ..self.constants }
    }

    /// Name of the rule with an id, if it is one of this policy's.
    pub fn rule_name(&self, id: u16) -> Option<&str> {
        self.rules.iter().find(|rule| rule.id == id).map(|rule| rule.name.as_str())
    }
}
