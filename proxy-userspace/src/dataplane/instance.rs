//! Instances that the daemon keeps, so that most changes of a policy verify nothing: the one that is live, and the one before
//! it, which is on no hook any more and whose tables the next policy may have.
//!
//! Verifying the programs is by far the longest step of an apply. What they were verified with are constants ([`Settings`])
//! and the sizes of tables, and both differ little from one policy to the next. Called by `apply` and by [`Candidate`].
//!
//! [`Candidate`]: super::candidate::Candidate

use std::path::Path;

use aya::Ebpf;
use aya::maps::{Map, MapInfo};
use aya::programs::loaded_links;
use proxy_common::abi::decision::Decision;
use proxy_common::abi::limit::Bucket;
use proxy_common::abi::settings::Settings;
use proxy_common::abi::trie::Node;

use super::error::{Context, DataplaneError, at, missing};
use super::hook::{Attachment, Direction};
use super::live;
use super::object::Plan;
use super::pins::{ANSWERS, COUNTERS, Pins};
use super::trial::{Trial, TrialHook};
use crate::policy::compile::CompiledTables;

/// Tables that take more memory than this are not kept twice.
const MOST_KEPT: usize = 32 << 20;

/// Nor instances of more loads than this: each holds some 35 descriptors, of the 1,024 that a process usually may have, and
/// there are three instances during an apply.
const MOST_LOADS: usize = 6;

/// Elements of the tables whose sizes differ between policies: at least so many are made, that small policies fit into each
/// other's tables (below half a MiB in all).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    nodes: usize,
    entries: usize,
    decisions: usize,
    buckets: usize,
}

impl Room {
    /// For a policy and others like it.
    pub(super) fn of(tables: &CompiledTables) -> Self {
        let exact = Self::exactly(tables);
        Self {
            nodes: exact.nodes.max(1 << 10),
            entries: exact.entries.max(1 << 12),
            decisions: exact.decisions.max(1 << 14),
            buckets: exact.buckets.max(1 << 8),
        }
    }

    fn exactly(tables: &CompiledTables) -> Self {
        Self {
            nodes: tables.nodes.len(),
            entries: tables.entries.len().div_ceil(2),
            decisions: tables.decisions.len(),
            buckets: tables.buckets.len(),
        }
    }

    /// True if a policy's tables fit.
    fn is_enough_for(&self, tables: &CompiledTables) -> bool {
        let Self { nodes, entries, decisions, buckets } = Self::exactly(tables);
        self.nodes >= nodes
            && self.entries >= entries
            && self.decisions >= decisions
            && self.buckets >= buckets
    }

    const fn bytes(&self) -> usize {
        self.nodes * size_of::<Node>()
            + self.entries * size_of::<u64>()
            + self.decisions * size_of::<Decision>()
            + self.buckets * size_of::<Bucket>()
    }

    /// Makes the tables so large.
    pub(super) fn sized(&self, plan: Plan) -> Plan {
        plan.sized("NODES", self.nodes)
            .sized("ENTRIES", self.entries)
            .sized("DECISIONS", self.decisions)
            .sized("BUCKETS", self.buckets)
    }
}

/// The programs of an interface, verified.
pub(super) struct Programs {
    pub(super) interface: u32,
    pub(super) settings: Settings,
    pub(super) ebpf: Ebpf,
}

/// The programs that a policy's own tests run on.
pub(super) struct Tried {
    pub(super) settings: Settings,
    pub(super) hook: TrialHook,
    pub(super) trial: Trial,
}

/// Tables, and every program that reads them.
pub(super) struct Instance {
    /// The load that has made the tables.
    pub(super) tables: Ebpf,
    pub(super) room: Room,
    pub(super) programs: Vec<Programs>,
    pub(super) trials: Vec<Tried>,
}

impl Instance {
    /// Takes the programs that can serve an interface as they are: verified with these constants, and counting where its
    /// counters are pinned now.
    pub(super) fn take_programs(
        &mut self,
        interface: u32,
        settings: &Settings,
        folder: &Path,
    ) -> Option<Ebpf> {
        let fits = |one: &Programs| {
            one.interface == interface
                && one.settings == *settings
                && [COUNTERS, ANSWERS].iter().all(|name| is_pinned_at(&one.ebpf, name, &folder.join(name)))
        };
        let nth = self.programs.iter().position(fits)?;
        Some(self.programs.swap_remove(nth).ebpf)
    }

    /// Takes the programs that tests can run on as they are.
    pub(super) fn take_trial(&mut self, settings: &Settings, hook: TrialHook) -> Option<Trial> {
        let fits = |one: &Tried| one.settings == *settings && one.hook == hook;
        let nth = self.trials.iter().position(fits)?;
        Some(self.trials.swap_remove(nth).trial)
    }

    /// True if there is room for two of it.
    fn is_small(&self) -> bool {
        self.room.bytes() <= MOST_KEPT && self.programs.len() + self.trials.len() <= MOST_LOADS
    }

    /// Id of one of its tables, which every program that judges by them has.
    fn decisions(&self) -> Option<u32> {
        let Some(Map::Array(map)) = self.tables.map("DECISIONS") else { return None };
        map.info().ok().map(|info| info.id())
    }

    /// True if a link in the kernel holds one of its programs: one that was let go is detached a little later.
    fn is_linked(&self) -> bool {
        let ids = self.ids();
        loaded_links().any(|link| link.map_or(true, |link| ids.contains(&link.program_id())))
    }

    /// Ids of its programs in the kernel.
    fn ids(&self) -> Vec<u32> {
        let programs = self.programs.iter().flat_map(|one| one.ebpf.programs());
        // One that was not needed is not in the kernel, and has no information.
        programs.filter_map(|(_, program)| program.info().ok()).map(|info| info.id()).collect()
    }
}

/// The two that are kept.
#[derive(Default)]
pub(super) struct Kept {
    live: Option<Instance>,
    spare: Option<Instance>,
}

impl Kept {
    /// The instance before the live one, if a policy's tables fit into its own and no packet can be judged by it any more.
    pub(super) fn take_spare(&mut self, pins: &Pins, tables: &CompiledTables) -> Option<Instance> {
        if !self.spare.as_ref()?.room.is_enough_for(tables) || pins.unconfirmed().exists() {
            return None;
        }
        let spare = self.spare.take()?;
        let tables = spare.decisions()?;
        match attached(pins) {
            // Somebody has put it back without us, or a copy of its programs reads its tables.
            Ok(attached) if attached.contains(&tables) => None,
            Ok(_) if !spare.is_linked() && all_have_let_go() => Some(spare),
            Ok(_) => None,
            Err(error) => {
                log::debug!("the programs before are not used again: {error}");
                None
            }
        }
    }

    /// Notes that an instance has gone live. `None`: one that can't be used again, since it may be gone back from.
    pub(super) fn went_live(&mut self, instance: Option<Instance>) {
        let before = self.live.take();
        match instance {
            Some(instance) => {
                self.spare = before;
                self.live = Some(instance).filter(Instance::is_small);
            }
            // What was live is pinned aside now, and may come back at any time.
            None => drop(before),
        }
    }
}

/// Ids of all maps of programs on a hook.
fn attached(pins: &Pins) -> Result<Vec<u32>, DataplaneError> {
    let mut ids = Vec::new();
    for index in pins.interfaces() {
        let folder = pins.interface(index);
        for direction in [Direction::Ingress, Direction::Egress] {
            for attachment in Attachment::present(&folder, direction) {
                let program = live::program(&folder, attachment, direction)?;
                ids.extend(program.map_ids().context(at(&folder))?.into_iter().flatten());
            }
        }
    }
    Ok(ids)
}

/// Waits until every processor has ended what it was doing in the kernel: a packet that came before the last replacement may
/// still be in the hands of the program before. False if the kernel does not offer that (`nohz_full`).
fn all_have_let_go() -> bool {
    // SAFETY: membarrier(2) takes no pointers; this command (Linux 4.3) waits for an RCU grace period and changes nothing.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 }
}

/// True if a map of a load is the one that is pinned at a path.
fn is_pinned_at(ebpf: &Ebpf, name: &str, path: &Path) -> bool {
    let Some(Map::PerCpuArray(map)) = ebpf.map(name) else { return false };
    match (map.info(), MapInfo::from_pin(path)) {
        (Ok(own), Ok(pinned)) => own.id() == pinned.id(),
        _ => false,
    }
}

/// Pins the tables of an instance once more, for programs that are to find them.
pub(super) fn pin_table(tables: &Ebpf, name: &str, path: &Path) -> Result<(), DataplaneError> {
    let map = tables.map(name).ok_or_else(|| missing(name))?;
    map.pin(path).context(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_entries(entries: usize) -> CompiledTables {
        let (root, nodes, ports) = (Vec::new(), Vec::new(), Vec::new());
        let entries = vec![0; entries];
        CompiledTables { root, nodes, entries, ports, decisions: Vec::new(), buckets: Vec::new() }
    }

    #[test]
    fn small_policies_fit_into_each_others_tables_and_a_large_one_does_not() {
        let room = Room::of(&with_entries(9));
        assert!(room.is_enough_for(&with_entries(0)) && room.is_enough_for(&with_entries(8192)));
        assert!(!room.is_enough_for(&with_entries(8193)));
        assert!(room.bytes() < 512 << 10, "{}", room.bytes());
        assert!(Room::of(&with_entries(1_000_000)).is_enough_for(&with_entries(1_000_000)));
    }
}
