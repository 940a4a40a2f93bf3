//! Policies that one load of the program can enforce one after the other, because its constants are the same.
//!
//! To verify the programs takes the kernel a second, to fill their tables a few milliseconds. Of the constants, plumbing and
//! timeouts are drawn once for a family; the others are made the same here by moving things in the tables: the rows of
//! decisions are as long as the longest, and the buckets of pings and answers come first. The engine on the host has the
//! tables as they were compiled, so what goes wrong here is a disagreement.

use anyhow::{Context, Result};
use proxy_common::abi::decision::Decision;
use proxy_common::abi::limit::{Bucket, MAX_BUCKETS, MAX_DEPTH_NS, UNIT_CONNECTIONS};
use proxy_common::abi::settings::Settings;
use proxy_common::abi::trie::Node;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tollgate::dataplane::{Trial, TrialHook};
use tollgate::policy::compile::{Clock, Compiled, CompiledTables, RuleIds, compile};

use super::policies::{self, Case, Common};

/// Policies of a family: those whose seeds, divided by this, are the same.
pub const FAMILY: u64 = 40;
/// Keys of the kernel's limiter; the host has others, so that no accident of a hash hides in both.
const KEYS: [u64; 3] = [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321, 0x5555_aaaa_3333_cccd];
/// Room for the buckets of pings, and as much for those of answers.
const ROOM: usize = MAX_BUCKETS as usize;

/// A policy and its tables.
#[derive(Debug)]
pub struct Member {
    /// Its seed.
    pub seed: u64,
    /// The policy.
    pub case: Case,
    /// Its tables.
    pub compiled: Compiled,
}

/// Policies with the same plumbing and timeouts.
#[derive(Debug)]
pub struct Family {
    /// In the order of their seeds.
    pub members: Vec<Member>,
}

impl Family {
    /// The policies of some seeds, which must be of one family.
    ///
    /// # Errors
    /// If a policy can't be compiled.
    pub fn draw(seeds: impl Iterator<Item = u64>) -> Result<Self> {
        let member = |seed: u64| {
            let common = Common::draw(&mut StdRng::seed_from_u64(!(seed / FAMILY)));
            let case = policies::case(&mut StdRng::seed_from_u64(seed), &common);
            let rules = RuleIds::assign(&[], &|_| false, &case.policy)?;
            let compiled = compile(&case.policy, &[case.interface.to_owned()], &rules)
                .with_context(|| format!("seed {seed}"))?;
            Ok(Member { seed, case, compiled })
        };
        Ok(Self { members: seeds.map(member).collect::<Result<_>>()? })
    }

    /// The XDP program to ask: at times the one for kernels before 5.18.
    pub fn xdp(&self) -> TrialHook {
        let number = self.members.first().map_or(0, |member| member.seed / FAMILY);
        if number % 4 == 3 { TrialHook::XdpLinear } else { TrialHook::Xdp }
    }

    /// The program at a hook, with room for all members and the tables of none.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn load(&self, hook: TrialHook) -> Result<Trial> {
        let largest = self.members.iter().map(|member| self.tables(member)).reduce(|mut largest, tables| {
            let node = Node { starts: [1, 0, 0, 0], ranks: [0; 4], base: 0, inline: [0; 6] };
            grow(&mut largest.nodes, tables.nodes.len(), node);
            grow(&mut largest.entries, tables.entries.len(), 0);
            grow(&mut largest.decisions, tables.decisions.len(), Decision::default());
            grow(&mut largest.buckets, tables.buckets.len(), Bucket::default());
            largest
        });
        let rules = self.members.iter().flat_map(|member| &member.compiled.rules).map(|rule| rule.id);
        let rules = (0..=rules.max().unwrap_or(0)).collect();
        Ok(Trial::with_settings(&largest.context("an empty family")?, self.settings()?, rules, hook)?)
    }

    /// The constants of all.
    fn settings(&self) -> Result<Settings> {
        let each = || self.members.iter().map(|member| member.compiled.settings(0, Clock::Given, KEYS));
        Ok(Settings {
            first_row: 0,
            port_classes: self.port_classes(),
            ping_first_bucket: 0,
            ping_buckets: ROOM as u32,
            reject_first_bucket: ROOM as u32,
            reject_buckets: each().map(|settings| settings.reject_buckets).max().unwrap_or(0),
            max_depth_ns: MAX_DEPTH_NS,
            ..each().next().context("an empty family")?
        })
    }

    fn port_classes(&self) -> u32 {
        self.members.iter().map(|member| member.compiled.port_classes).max().unwrap_or(1)
    }

    /// A member's tables as the program of the family wants them.
    pub fn tables(&self, member: &Member) -> CompiledTables {
        let Compiled { tables, port_classes, .. } = &member.compiled;
        let settings = member.compiled.settings(0, Clock::Given, KEYS);
        let mut decisions = Vec::new();
        // One interface: its block of rows is the first and only one.
        for row in tables.decisions.chunks(*port_classes as usize) {
            decisions.extend(row.iter().map(|decision| Decision {
                first_bucket: decision.first_bucket + 2 * ROOM as u16,
                ..*decision
            }));
            let shorter = self.port_classes() - port_classes;
            decisions.extend(std::iter::repeat_n(Decision::default(), shorter as usize));
        }
        // What counts nothing but TCP's SYN counts no ping.
        let idle = Bucket { unit: UNIT_CONNECTIONS, ..Bucket::default() };
        let range = |first: u32, count: u32| {
            let range = tables.buckets.iter().skip(first as usize).take(count as usize).copied();
            range.chain(std::iter::repeat(idle)).take(ROOM)
        };
        let buckets = range(settings.ping_first_bucket, settings.ping_buckets)
            .chain(range(settings.reject_first_bucket, settings.reject_buckets))
            .chain(tables.buckets.iter().copied())
            .collect();
        CompiledTables { decisions, buckets, ..tables.clone() }
    }
}

fn grow<T: Clone>(table: &mut Vec<T>, least: usize, with: T) {
    if table.len() < least {
        table.resize(least, with);
    }
}
