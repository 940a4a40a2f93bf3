//! A candidate: a policy's tables and verified programs in the kernel, not yet on any hook.
//!
//! `apply` makes one, tests it and puts it to work. The tables exist once and are shared by the programs of all
//! interfaces; what differs between interfaces is the row of the decision table that they begin at, and their counters.

use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use aya::Ebpf;
use aya::maps::{Array, Map};
use proxy_common::abi::label::{Label, PATH_LEN, RULE_WORDS};
use proxy_common::abi::limit::Bucket;
use proxy_common::abi::settings::{DEADLINE_NONE, Settings};

use super::error::{Context, DataplaneError, missing};
use super::instance::{Instance, Programs, Room, Tried, pin_table};
use super::interfaces::HostInterface;
use super::memory::fill;
use super::object::Plan;
use super::pins::{ANSWERS, COUNTERS, Pins, Staging, TABLES};
use super::shared::Shared;
use super::trial::{Trial, TrialHook};
use super::unconfirmed;
use crate::policy::Policy;
use crate::policy::compile::{Compiled, CompiledTables};

/// Tables of a trial that hold little, and how much.
const SMALL: [&str; 5] = ["FLOWS", "ESTABLISHED", "FRAGMENTS", "BANS", "BAN_PREFIXES"];
const FEW: usize = 1024;

/// One policy's tables in the kernel.
pub struct Candidate<'a> {
    pins: &'a Pins,
    staging: Staging,
    /// Its tables; and of an instance before, what was not taken yet.
    instance: Instance,
    /// The interfaces that programs were asked for, and with which constants.
    loaded: Vec<(u32, Settings)>,
    compiled: &'a Compiled,
    hash_keys: [u64; 3],
    clock: crate::policy::compile::Clock,
}

impl<'a> Candidate<'a> {
    /// Makes and fills the tables; or fills those of an instance that is on no hook any more.
    ///
    /// # Errors
    /// If the kernel has no memory for them.
    pub(super) fn build(
        pins: &'a Pins,
        shared: &Shared,
        policy: &Policy,
        compiled: &'a Compiled,
        spare: Option<Instance>,
    ) -> Result<Self, DataplaneError> {
        let staging = pins.stage()?;
        let (hash_keys, clock) = (shared.hash_keys, shared.clock);
        // Tables find their way into programs by their pins.
        let instance = match spare {
            Some(spare) => {
                TABLES.iter().try_for_each(|name| pin_table(&spare.tables, name, &staging.table(name)))?;
                spare
            }
            None => {
                let room = Room::of(&compiled.tables);
                let tables = over_tables(&staging, room, Plan::new().sharing(pins)).load()?;
                Instance { tables, room, programs: Vec::new(), trials: Vec::new() }
            }
        };
        let loaded = Vec::new();
        let mut candidate = Self { pins, staging, instance, loaded, compiled, hash_keys, clock };
        fill_tables(&mut candidate.instance.tables, &compiled.tables)?;
        candidate.label(policy)?;
        Ok(candidate)
    }

    /// A load for the programs of an interface: `nth` of the compiled policy's. They share the state of those in force, and
    /// know what to do if the policy is not confirmed, if it is to be.
    ///
    /// # Errors
    /// If the kernel refuses a map.
    pub fn load(&mut self, nth: usize, interface: &HostInterface) -> Result<Ebpf, DataplaneError> {
        let folder = self.pins.make_interface(interface.index)?;
        let on_deadline = unconfirmed::on_deadline(self.pins, interface.index);
        let settings = Settings { on_deadline, ..self.settings(nth) };
        self.loaded.push((interface.index, settings));
        if on_deadline == DEADLINE_NONE
            && let Some(verified) = self.instance.take_programs(interface.index, &settings, &folder)
        {
            return Ok(verified);
        }
        let plan = Plan::new().sharing(self.pins);
        let plan = plan.pinned(COUNTERS, folder.join(COUNTERS)).pinned(ANSWERS, folder.join(ANSWERS));
        if on_deadline == DEADLINE_NONE {
            return loaded(&self.plan(plan), settings);
        }
        let plan = plan.pinned(unconfirmed::DEADLINE, self.pins.unconfirmed().join(unconfirmed::DEADLINE));
        let previous = |name| unconfirmed::previous(self.pins, interface.index, name);
        let plan = unconfirmed::PREVIOUS.iter().fold(plan, |plan, name| plan.pinned(name, previous(name)));
        let mut ebpf = loaded(&self.plan(plan), settings)?;
        unconfirmed::introduce(self.pins, interface.index, &mut ebpf)?;
        Ok(ebpf)
    }

    /// The same with state of its own: what is tried on it leaves no trace in counters, limits and flows. Those that were
    /// verified for the policy before, with the same constants, serve this one too.
    ///
    /// # Errors
    /// If the kernel refuses a map or the program.
    pub(super) fn trial(&mut self, nth: usize, hook: TrialHook) -> Result<Trial, DataplaneError> {
        let settings = self.settings(nth);
        if let Some(mut trial) = self.instance.take_trial(&settings, hook) {
            trial.begin_with(self.compiled)?;
            return Ok(trial);
        }
        // A frame after the other, without bans: there is little to be remembered.
        let plan = SMALL.iter().fold(Plan::new(), |plan, name| plan.sized(name, FEW));
        Trial::of(self.plan(plan).settings(settings).load()?, self.compiled, hook)
    }

    /// What has gone live, to be kept: the tables, the programs that were loaded, in their order, and the trials by interface.
    pub(super) fn live(self, programs: Vec<Ebpf>, trials: Vec<(usize, TrialHook, Trial)>) -> Instance {
        let trials =
            trials.into_iter().map(|(nth, hook, trial)| Tried { settings: self.settings(nth), hook, trial });
        let trials = trials.collect();
        let programs = self.loaded.into_iter().zip(programs);
        let programs =
            programs.map(|((interface, settings), ebpf)| Programs { interface, settings, ebpf }).collect();
        let Instance { tables, room, .. } = self.instance;
        Instance { tables, room, programs, trials }
    }

    /// A load for the programs of a shadow on an interface: the tables, and what `plan` says of everything else.
    ///
    /// # Errors
    /// If the kernel refuses a map.
    pub(super) fn load_shadow(&self, nth: usize, plan: Plan) -> Result<Ebpf, DataplaneError> {
        self.plan(plan).settings(self.settings(nth)).load()
    }

    /// Where its tables are pinned meanwhile.
    pub(super) const fn staging(&self) -> &Staging {
        &self.staging
    }

    fn settings(&self, nth: usize) -> Settings {
        self.compiled.settings(nth, self.clock, self.hash_keys)
    }

    fn plan(&self, plan: Plan) -> Plan {
        over_tables(&self.staging, self.instance.room, plan)
    }

    fn label(&mut self, policy: &Policy) -> Result<(), DataplaneError> {
        let label = self.describe(policy);
        let map = self.instance.tables.map_mut("LABEL").ok_or_else(|| missing("LABEL"))?;
        let mut map: Array<_, Label> = Array::try_from(map).context(|| "LABEL")?;
        map.set(0, label, 0).context(|| "writing LABEL")
    }

    fn describe(&self, policy: &Policy) -> Label {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = std::path::absolute(&policy.path).unwrap_or_else(|_| policy.path.clone());
        let path = path.as_os_str().as_bytes();
        let mut label = Label {
            applied_unix_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            tcp_established_ns: policy.timeouts.tcp_established_ns,
            plumbing: self.settings(0).plumbing,
            path_len: path.len().min(PATH_LEN) as u32,
            hash: bytes_of_hash(&policy.hash),
            rules: [0; RULE_WORDS],
            path: [0; PATH_LEN],
        };
        for (to, from) in label.path.iter_mut().zip(path) {
            *to = *from;
        }
        for rule in &self.compiled.rules {
            label.add_rule(rule.id);
        }
        label
    }
}

/// A load that finds the tables where they are pinned, or makes and pins them.
fn over_tables(staging: &Staging, room: Room, plan: Plan) -> Plan {
    room.sized(TABLES.iter().fold(plan, |plan, name| plan.pinned(name, staging.table(name))))
}

/// Loads an instance with these constants, and leaves them for whoever looks at its programs.
pub(super) fn loaded(plan: &Plan, settings: Settings) -> Result<Ebpf, DataplaneError> {
    let mut ebpf = plan.clone().settings(settings).load()?;
    let map = ebpf.map_mut("CONSTANTS").ok_or_else(|| missing("CONSTANTS"))?;
    let mut map: Array<_, Settings> = Array::try_from(map).context(|| "CONSTANTS")?;
    map.set(0, settings, 0).context(|| "writing CONSTANTS")?;
    Ok(ebpf)
}

/// Makes the tables as large as they are.
pub(super) fn sized(plan: Plan, tables: &CompiledTables) -> Plan {
    plan.sized("NODES", tables.nodes.len())
        .sized("ENTRIES", tables.entries.len().div_ceil(2))
        .sized("DECISIONS", tables.decisions.len())
        .sized("BUCKETS", tables.buckets.len())
}

/// Fills the tables of a load.
pub(super) fn fill_tables(ebpf: &mut Ebpf, tables: &CompiledTables) -> Result<(), DataplaneError> {
    let CompiledTables { root, nodes, entries, ports, decisions, buckets } = tables;
    array(ebpf, "ROOT", &packed(root, 32))?;
    array(ebpf, "NODES", nodes)?;
    array(ebpf, "ENTRIES", &packed(entries, 32))?;
    array(ebpf, "PORTS", &packed(ports, 16))?;
    array(ebpf, "DECISIONS", decisions)?;
    // Not mappable: a few dozen elements, one by one.
    let map = ebpf.map_mut("BUCKETS").ok_or_else(|| missing("BUCKETS"))?;
    let mut map: Array<_, Bucket> = Array::try_from(map).context(|| "BUCKETS")?;
    for (index, bucket) in (0..).zip(buckets) {
        map.set(index, bucket, 0).context(|| "writing BUCKETS")?;
    }
    Ok(())
}

/// Fills a table that is made for it.
fn array<T: aya::Pod>(ebpf: &Ebpf, name: &str, elements: &[T]) -> Result<(), DataplaneError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => fill(map, name, elements),
        _ => Err(missing(name)),
    }
}

/// Numbers of `bits` bits side by side in words of 64, the first lowest: how the programs read them.
fn packed<T: Copy + Into<u64>>(numbers: &[T], bits: usize) -> Vec<u64> {
    let words = numbers.chunks(64 / bits);
    words.map(|chunk| chunk.iter().rev().fold(0, |word, number| (word << bits) | (*number).into())).collect()
}

/// The bytes of a hexadecimal number; what is no digit counts as zero.
fn bytes_of_hash(hash: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digits = hash.bytes().map(|digit| char::from(digit).to_digit(16).unwrap_or(0) as u8);
    for (nth, digit) in digits.take(64).enumerate() {
        bytes[nth / 2] = bytes[nth / 2] << 4 | digit;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_packed_lowest_first() {
        assert_eq!(packed(&[1u16, 2, 3, 4, 5], 16), [0x0004_0003_0002_0001, 5]);
        assert_eq!(packed(&[1u32, 2, 3], 32), [0x2_0000_0001, 3]);
        assert!(packed::<u32>(&[], 32).is_empty());
    }

    #[test]
    fn a_hash_keeps_its_digits() {
        let bytes = bytes_of_hash("0aff10");
        assert_eq!(bytes[..4], [0x0a, 0xff, 0x10, 0]);
    }
}
