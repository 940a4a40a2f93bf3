//! State that outlives policies and daemons: whose it is, the names of rules, and the kernel's clocks.

use std::fmt;
use std::fs::File;
use std::io::Read;

use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use aya::{Ebpf, Pod};
use nix::time::{ClockId, clock_getres, clock_gettime};
use proxy_common::abi::counter::{MAX_RULES, RULE_DEFAULT};
use proxy_common::abi::flow::{FlowKey, FlowValue};
use proxy_common::abi::{ABI_VERSION, IDENTITY_MAGIC, Identity, Probe, RuleName};

use super::error::{Context, DataplaneError, missing};
use super::instance::Kept;
use super::object::{self, Plan};
use super::pins::Pins;
use crate::policy::compile::{Clock, DEFAULT_NAME};

/// The longest tick with which the limiter is exact: policies may not have a burst below what their rate brings in so
/// long (docs/policy.md).
const LONGEST_TICK_NS: u64 = 10_000_000;

/// The maps that all instances share, opened and found to be ours.
pub struct Shared {
    /// Keys of the limiter's hash: one draw for as long as the pins live, so that limits survive a change of policy.
    pub hash_keys: [u64; 3],
    /// The clock that programs are to use.
    pub clock: Clock,
    rules: Array<MapData, RuleName>,
    ebpf: Ebpf,
    /// Instances that share these maps.
    pub(super) kept: Kept,
}

impl fmt::Debug for Shared {
    /// Without the keys: whoever knows them can make sources share a limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Shared {
    /// Opens the maps; makes and signs them if there are none.
    ///
    /// # Errors
    /// If they belong to another product or another version's layout, or the kernel refuses something.
    pub fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        check_identity(pins)?;
        pins.prepare()?;
        pins.make_shared()?;
        let mut ebpf = Plan::new().sharing(pins).load()?;
        let hash_keys = identify(&mut ebpf)?;
        let clock = clock(&mut ebpf)?;
        let rules = take(&mut ebpf, "RULES")?;
        let rules = Array::try_from(rules).context(|| "RULES")?;
        Ok(Self { hash_keys, clock, rules, ebpf, kept: Kept::default() })
    }

    /// The maps of this load, for the reader of the programs' log.
    pub const fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The flows that answers belong to, but for those in [`Shared::established`].
    ///
    /// # Errors
    /// If the map is not there.
    pub fn flows(&mut self) -> Result<HashMap<&mut MapData, FlowKey, FlowValue>, DataplaneError> {
        self.hash_map("FLOWS")
    }

    /// The flows that are established TCP connections.
    ///
    /// # Errors
    /// If the map is not there.
    pub fn established(&mut self) -> Result<HashMap<&mut MapData, FlowKey, FlowValue>, DataplaneError> {
        self.hash_map("ESTABLISHED")
    }

    /// Which interfaces are stacked on which.
    ///
    /// # Errors
    /// If the map is not there.
    pub fn stacked(&mut self) -> Result<HashMap<&mut MapData, [u32; 2], u32>, DataplaneError> {
        self.hash_map("STACKED")
    }

    fn hash_map<K: Pod, V: Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMap<&mut MapData, K, V>, DataplaneError> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        HashMap::try_from(map).context(|| name)
    }

    /// Names of the rules; index: id.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn rules(&self) -> Result<Vec<Option<String>>, DataplaneError> {
        names(&self.rules)
    }

    /// Names a rule; an empty name frees its id.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn name_rule(&mut self, id: u16, name: &str) -> Result<(), DataplaneError> {
        let mut bytes = [0; 64];
        // The policy's names have at most 48 bytes.
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        self.rules.set(u32::from(id), RuleName { bytes }, 0).context(|| format!("naming rule {name}"))
    }
}

/// Names of the rules without opening anything else: what reading commands need.
///
/// # Errors
/// If there are none, or they are not ours.
pub fn read_rules(pins: &Pins) -> Result<Vec<Option<String>>, DataplaneError> {
    check_identity(pins)?;
    let map = MapData::from_pin(pins.shared_map("RULES")).context(|| "RULES")?;
    names(&Array::try_from(Map::Array(map)).context(|| "RULES")?)
}

pub(super) fn names(rules: &Array<MapData, RuleName>) -> Result<Vec<Option<String>>, DataplaneError> {
    let mut names = Vec::with_capacity(MAX_RULES as usize);
    for id in 0..MAX_RULES {
        let name = rules.get(&id, 0).context(|| "reading RULES")?;
        let text = String::from_utf8_lossy(&name.bytes);
        let text = text.trim_end_matches('\0');
        names.push(match (id as u16, text) {
            (RULE_DEFAULT, _) => Some(DEFAULT_NAME.to_owned()),
            (_, "") => None,
            (_, name) => Some(name.to_owned()),
        });
    }
    Ok(names)
}

/// Fails if what is pinned is not ours. Nothing pinned is fine.
///
/// # Errors
/// [`DataplaneError::Foreign`].
pub fn check_identity(pins: &Pins) -> Result<(), DataplaneError> {
    let path = pins.shared_map("IDENTITY");
    let foreign = |what: String, remedy: &str| DataplaneError::Foreign {
        path: pins.root().to_owned(),
        what,
        remedy: remedy.to_owned(),
    };
    let remove = format!("rm -r {}", pins.root().display());
    if !path.exists() {
        // A folder that somebody else uses has things in it, but no identity.
        let entries = std::fs::read_dir(pins.root()).into_iter().flatten().flatten();
        let strange = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let strange: Vec<_> = strange.filter(|name| name != "shared").collect();
        return match strange.first() {
            Some(name) => Err(foreign(format!("something that is not Tollgate's ({name})"), &remove)),
            None => Ok(()),
        };
    }
    let map = MapData::from_pin(&path).context(|| path.display().to_string())?;
    let info = map.info().context(|| "IDENTITY")?;
    if info.value_size() as usize != size_of::<Identity>() {
        return Err(foreign("an IDENTITY that is not Tollgate's".to_owned(), &remove));
    }
    let identity: Array<_, Identity> = Array::try_from(Map::Array(map)).context(|| "IDENTITY")?;
    let identity = identity.get(&0, 0).context(|| "reading IDENTITY")?;
    match (identity.magic, identity.abi_version) {
        // Made, and not signed yet: a first start that was cut short.
        (0, 0) | (IDENTITY_MAGIC, ABI_VERSION) => Ok(()),
        (IDENTITY_MAGIC, other) => Err(foreign(
            format!("the state of another version of Tollgate (layout {other}, this one has {ABI_VERSION})"),
            "run `tollgate detach` of that version, which ends its enforcement",
        )),
        _ => Err(foreign("an IDENTITY that is not Tollgate's".to_owned(), &remove)),
    }
}

/// Signs the maps if they are new; gives the keys.
fn identify(ebpf: &mut Ebpf) -> Result<[u64; 3], DataplaneError> {
    let map = ebpf.map_mut("IDENTITY").ok_or_else(|| missing("IDENTITY"))?;
    let mut map: Array<_, Identity> = Array::try_from(map).context(|| "IDENTITY")?;
    let present = map.get(&0, 0).context(|| "reading IDENTITY")?;
    if present.magic == IDENTITY_MAGIC {
        return Ok(present.hash_keys);
    }
    let mut random = [0; 24];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .context(|| "/dev/urandom")?;
    let mut hash_keys = [0; 3];
    for (key, bytes) in hash_keys.iter_mut().zip(random.as_chunks::<8>().0) {
        *key = u64::from_ne_bytes(*bytes);
    }
    let identity = Identity { magic: IDENTITY_MAGIC, abi_version: ABI_VERSION, _pad: 0, hash_keys };
    map.set(0, identity, 0).context(|| "writing IDENTITY")?;
    Ok(hash_keys)
}

/// Decides which clock programs use: ticks, if they are fine enough, which cost a load where the exact clock costs a
/// call. Ticks advance by exactly the coarse clocks' resolution (`TICK_NSEC`), so one look at both clocks aligns them.
fn clock(ebpf: &mut Ebpf) -> Result<Clock, DataplaneError> {
    let program = object::classifier(ebpf, object::PROBE)?;
    let frame = [0; 64];
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
    program.test_run(options).context(|| "running the clock probe")?;
    let map = ebpf.map("PROBE").ok_or_else(|| missing("PROBE"))?;
    let map: Array<_, Probe> = Array::try_from(map).context(|| "PROBE")?;
    let seen = map.get(&0, 0).context(|| "reading PROBE")?;
    let resolution =
        clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).context(|| "the resolution of the clock")?;
    let tick_ns = resolution.tv_sec() as u64 * 1_000_000_000 + resolution.tv_nsec() as u64;
    Ok(choose_clock(seen, tick_ns))
}

fn choose_clock(seen: Probe, tick_ns: u64) -> Clock {
    if seen.jiffies == 0 || !(1..=LONGEST_TICK_NS).contains(&tick_ns) {
        return Clock::Exact;
    }
    Clock::Ticks { tick_ns, offset_ns: seen.ktime_ns.wrapping_sub(seen.jiffies.wrapping_mul(tick_ns)) }
}

/// The time on the clock of `bpf_ktime_get_ns`, with which ticks agree to a tick.
///
/// # Errors
/// If the kernel does not tell.
pub fn now_ns() -> Result<u64, DataplaneError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context(|| "the clock")?;
    Ok((now.tv_sec() as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec() as u64))
}

/// Takes a map out of a load.
pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, DataplaneError> {
    ebpf.take_map(name).ok_or_else(|| missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_agree_with_the_exact_clock_when_they_were_read() {
        let seen = Probe { ktime_ns: 5_000_000_123, jiffies: 4_294_667_296 };
        let Clock::Ticks { tick_ns, offset_ns } = choose_clock(seen, 4_000_000) else { panic!("no ticks") };
        assert_eq!(seen.jiffies.wrapping_mul(tick_ns).wrapping_add(offset_ns), seen.ktime_ns);
    }

    #[test]
    fn a_tick_that_is_too_long_or_unknown_is_not_used() {
        let seen = Probe { ktime_ns: 1, jiffies: 1 };
        assert_eq!(choose_clock(seen, 0), Clock::Exact);
        assert_eq!(choose_clock(seen, 41_666_666), Clock::Exact);
        assert_eq!(choose_clock(Probe { ktime_ns: 1, jiffies: 0 }, 1_000_000), Clock::Exact);
    }
}
