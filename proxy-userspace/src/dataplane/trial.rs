//! A program with tables and state of its own, run on frames in the kernel by test-run (`BPF_PROG_TEST_RUN`): never
//! attached, and without a trace in what is.
//!
//! Called by `selftest` for a policy's own tests, by the benchmark, and by the tests that compare the kernel with the host.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::{HashMap as KernelHashMap, Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, Pod};
use ipnet::IpNet;
use proxy_common::abi::ban::{Ban, FOR_EVER};
use proxy_common::abi::counter::{COUNTERS_LEN, Counter, index};
use proxy_common::abi::flow::{FlowKey, FlowValue, FragmentKey, FragmentValue};
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::abi::settings::Settings;
use proxy_common::engine::Outcome;

use super::bans::Bans;
use super::candidate;
use super::counters::sum;
use super::error::{Context, DataplaneError, missing};
use super::memory::Mapping;
use super::object::{self, Plan};
use crate::policy::compile::{Clock, Compiled, CompiledTables};

// Numbers of `linux/bpf.h` and `linux/pkt_cls.h`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// Which program judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialHook {
    /// The XDP program for this kernel.
    Xdp,
    /// The XDP program for kernels before 5.18.
    XdpLinear,
    /// `tc_ingress`.
    Tc,
}

impl TrialHook {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Xdp => object::xdp_for_kernel(),
            Self::XdpLinear => object::XDP_LINEAR,
            Self::Tc => object::TC_INGRESS,
        }
    }

    /// True if that is what the program returns for a verdict. A test-run redirects nothing: an answer goes nowhere.
    pub(super) const fn says(self, verdict: Verdict, returned: u32) -> bool {
        match (self, verdict) {
            (Self::Xdp | Self::XdpLinear, Verdict::Pass) => returned == XDP_PASS,
            (Self::Xdp | Self::XdpLinear, Verdict::Drop) => returned == XDP_DROP,
            (Self::Tc, Verdict::Pass) => returned == TC_ACT_UNSPEC,
            (Self::Tc, Verdict::Drop) => matches!(returned, TC_ACT_SHOT | TC_ACT_REDIRECT),
        }
    }
}

/// One interface's programs with private state.
pub struct Trial {
    pub(super) ebpf: Ebpf,
    pub(super) hook: TrialHook,
    counters: PerCpuArray<MapData, Counter>,
    /// `GIVEN_TIME`.
    clock: Mapping,
    /// `CELLS`: emptied between tests, and to map its 8 MiB each time would take longer than all of them.
    cells: Mapping,
    rules: Vec<u16>,
    /// What the counters said after the last frame.
    seen: HashMap<u32, u64>,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial").field("hook", &self.hook).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Trial {
    /// A policy's programs for one of the interfaces that it was compiled for, with everything of their own.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn new(
        compiled: &Compiled,
        interface: usize,
        hook: TrialHook,
        clock: Clock,
        hash_keys: [u64; 3],
    ) -> Result<Self, DataplaneError> {
        let settings = compiled.settings(interface, clock, hash_keys);
        Self::with_settings(&compiled.tables, settings, ids(compiled), hook)
    }

    /// The programs for given tables and constants, with everything of their own. `rules` are the ids that may be counted.
    /// The maps are as large as the tables.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn with_settings(
        tables: &CompiledTables,
        settings: Settings,
        rules: Vec<u16>,
        hook: TrialHook,
    ) -> Result<Self, DataplaneError> {
        let mut ebpf = candidate::sized(Plan::new(), tables).settings(settings).load()?;
        candidate::fill_tables(&mut ebpf, tables)?;
        Self::verified(ebpf, rules, hook)
    }

    /// Goes over to other tables for the same constants, and forgets everything but the counters: much cheaper than
    /// programs that have to be verified.
    ///
    /// # Errors
    /// If they are larger than the first, or the kernel refuses the access.
    pub fn begin_anew(&mut self, tables: &CompiledTables) -> Result<(), DataplaneError> {
        candidate::fill_tables(&mut self.ebpf, tables)?;
        self.forget()
    }

    /// Goes over to what is in its tables now, which somebody else has filled.
    pub(super) fn begin_with(&mut self, compiled: &Compiled) -> Result<(), DataplaneError> {
        self.rules = ids(compiled);
        self.forget()
    }

    /// Forgets everything but the counters.
    fn forget(&mut self) -> Result<(), DataplaneError> {
        self.forget_limits();
        for (name, map) in self.ebpf.maps_mut() {
            if !matches!(map, Map::HashMap(_) | Map::LruHashMap(_)) {
                continue;
            }
            match name {
                "FLOWS" | "ESTABLISHED" => forget::<FlowKey, FlowValue>(map, name)?,
                "FRAGMENTS" => forget::<FragmentKey, FragmentValue>(map, name)?,
                // No packet writes to these.
                "BANS" | "STACKED" | "PAIRS" | "NEWLY_DROPPED" | "NEWLY_PASSED" => {}
                // Packets write to it, and nobody has said what.
                _ => return Err(missing(format!("what {name} holds"))),
            }
        }
        Ok(())
    }

    /// The ingress program of a load that somebody else has prepared.
    pub(super) fn of(ebpf: Ebpf, compiled: &Compiled, hook: TrialHook) -> Result<Self, DataplaneError> {
        Self::with_ingress(ebpf, ids(compiled), hook)
    }

    /// Both programs of such a load.
    pub(super) fn verified(mut ebpf: Ebpf, rules: Vec<u16>, hook: TrialHook) -> Result<Self, DataplaneError> {
        object::classifier(&mut ebpf, object::TC_EGRESS)?;
        Self::with_ingress(ebpf, rules, hook)
    }

    fn with_ingress(mut ebpf: Ebpf, rules: Vec<u16>, hook: TrialHook) -> Result<Self, DataplaneError> {
        match hook {
            TrialHook::Xdp | TrialHook::XdpLinear => drop(object::xdp(&mut ebpf, hook.program())?),
            TrialHook::Tc => drop(object::classifier(&mut ebpf, hook.program())?),
        }
        let counters = ebpf.take_map("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let counters = PerCpuArray::try_from(counters).context(|| "COUNTERS")?;
        let length = NonZeroUsize::new(size_of::<AtomicU64>()).ok_or_else(|| missing("a clock"))?;
        let clock = Mapping::new(array(&ebpf, "GIVEN_TIME")?, "GIVEN_TIME", length)?;
        let cells = Mapping::of_all(array(&ebpf, "CELLS")?, "CELLS")?;
        Ok(Self { ebpf, hook, counters, clock, cells, rules, seen: HashMap::new() })
    }

    /// Judges a frame that arrives. `guess` is where the count is looked for first; all other places follow.
    ///
    /// # Errors
    /// If the kernel does not run it (frames have at least 14 bytes and at most a page), counted it nowhere, or did not do
    /// what it counted.
    pub fn ingress(&mut self, frame: &[u8], guess: Outcome) -> Result<Outcome, DataplaneError> {
        self.ingress_into(frame, guess, &mut []).map(|(outcome, _)| outcome)
    }

    /// The same for any frame of at least 14 bytes: TC does not test-run frames that end within the header of their IP packet
    /// (Linux 6.18). Of those XDP has the same to say, over the same tables, and its program is verified when the first comes.
    ///
    /// # Errors
    /// As above.
    pub fn ingress_of_any_length(&mut self, frame: &[u8], guess: Outcome) -> Result<Outcome, DataplaneError> {
        if self.hook != TrialHook::Tc || !ends_within_ip_header(frame) {
            return self.ingress(frame, guess);
        }
        object::xdp(&mut self.ebpf, TrialHook::Xdp.program())?;
        self.hook = TrialHook::Xdp;
        let outcome = self.ingress(frame, guess);
        self.hook = TrialHook::Tc;
        outcome
    }

    /// The same; if the packet is rejected and answered, the answer is put into `buffer`, which has room for the frame too,
    /// and its length is given. A frame is not answered unless it was sent to the link address of the loopback interface,
    /// which is all zeros: it is what a test-run takes for its interface.
    ///
    /// # Errors
    /// As above, or if the buffer is too small.
    pub fn ingress_into(
        &mut self,
        frame: &[u8],
        guess: Outcome,
        buffer: &mut [u8],
    ) -> Result<(Outcome, Option<usize>), DataplaneError> {
        let into = Some(buffer).filter(|buffer| !buffer.is_empty());
        let result = self.run(TestRunOptions { data_out: into, ..options(frame, 1) })?;
        let outcome = if self.has_moved(guess)? { guess } else { self.moved()? };
        if !self.hook.says(outcome.verdict(), result.return_value) {
            let (name, returned) = (outcome.reason.name(), result.return_value);
            return Err(missing(format!("the verdict of {name}, but {returned:#x}")));
        }
        let answered = self.hook == TrialHook::Tc && result.return_value == TC_ACT_REDIRECT;
        Ok((outcome, answered.then_some(result.data_size_out as usize)))
    }

    /// Takes note of a frame that this host sends.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn egress(&self, frame: &[u8]) -> Result<(), DataplaneError> {
        self.classifier(object::TC_EGRESS, options(frame, 1)).map(drop)
    }

    /// The sum of all counters, of the policy's rules and all others.
    ///
    /// # Errors
    /// If the kernel refuses the access.
    pub fn total(&self) -> Result<Counter, DataplaneError> {
        (0..COUNTERS_LEN).try_fold(Counter::default(), |mut total, place| {
            let values = self.counters.get(&place, 0).context(|| "reading COUNTERS")?;
            let counter = sum(values.iter());
            total.packets += counter.packets;
            total.bytes += counter.bytes;
            Ok(total)
        })
    }

    /// What the program costs for this frame: the mean over `repeat` runs in a row, the hook's own cost included.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn time(&self, frame: &[u8], repeat: u32) -> Result<Duration, DataplaneError> {
        self.run(options(frame, repeat)).map(|result| result.duration)
    }

    /// Instructions that the verifier looked at for the ingress program, of the million that it allows (Linux 5.16).
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn verified_instructions(&self) -> Result<Option<u32>, DataplaneError> {
        let name = self.hook.program();
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        Ok(program.info().context(|| name)?.verified_instruction_count())
    }

    /// Fills every bucket.
    pub fn forget_limits(&self) {
        self.cells.clear();
    }

    /// Sets the clock of programs that were made with [`Clock::Given`], nanoseconds.
    pub fn set_now_ns(&self, now_ns: u64) {
        // SAFETY: a mapping begins at the beginning of a page and holds one number, and lives as long as `self`. The programs
        // run when they are told to, by this process alone.
        let clock = unsafe { &*self.clock.as_ptr().cast::<AtomicU64>() };
        clock.store(now_ns, Ordering::Relaxed);
    }

    /// Bans single addresses and IPv6 prefixes of 64 bits for ever.
    ///
    /// # Errors
    /// If there is no room for them, or the kernel refuses the access.
    pub fn ban(&self, nets: &[IpNet]) -> Result<(), DataplaneError> {
        let mut bans = Bans::with(|name| {
            let data = match self.ebpf.map(name) {
                Some(Map::Array(data) | Map::HashMap(data) | Map::LpmTrie(data)) => data,
                _ => return Err(missing(name)),
            };
            MapData::from_id(data.info().context(|| name)?.id()).context(|| name)
        })?;
        let ban = Ban { until_ns: FOR_EVER, since_ns: 0 };
        bans.add_singles(&nets.iter().map(|net| (*net, ban)).collect::<Vec<_>>())
    }

    fn run(&self, options: TestRunOptions<'_>) -> Result<TestRunResult, DataplaneError> {
        let name = self.hook.program();
        if self.hook == TrialHook::Tc {
            return self.classifier(name, options);
        }
        let what = || format!("running {name} in the kernel");
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        let program: &Xdp = program.try_into().context(what)?;
        program.test_run(options).context(what)
    }

    fn classifier(&self, name: &str, options: TestRunOptions<'_>) -> Result<TestRunResult, DataplaneError> {
        let what = || format!("running {name} in the kernel");
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        let program: &SchedClassifier = program.try_into().context(what)?;
        program.test_run(options).context(what)
    }

    /// Where a frame was counted, wherever that is.
    fn moved(&mut self) -> Result<Outcome, DataplaneError> {
        for reason in Reason::ALL {
            let places = if reason.has_rule() { self.rules.len() } else { 1 };
            for nth in 0..places {
                let rule = self.rules.get(nth).copied().unwrap_or_default();
                let outcome = Outcome { reason: *reason, rule };
                if self.has_moved(outcome)? {
                    return Ok(outcome);
                }
            }
        }
        Err(missing("a count of the frame"))
    }

    fn has_moved(&mut self, outcome: Outcome) -> Result<bool, DataplaneError> {
        let place = index(outcome.reason, outcome.rule);
        let values = self.counters.get(&place, 0).context(|| "reading COUNTERS")?;
        let now = sum(values.iter()).packets;
        let seen = self.seen.entry(place).or_default();
        let moved = now > *seen;
        *seen = now;
        Ok(moved)
    }
}

/// An EtherType of IP, and less behind it than such a header has.
fn ends_within_ip_header(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.len() < 14 + 20,
        Some([0x86, 0xdd]) => frame.len() < 14 + 40,
        _ => false,
    }
}

fn ids(compiled: &Compiled) -> Vec<u16> {
    compiled.rules.iter().map(|rule| rule.id).collect()
}

/// Empties a hash map.
fn forget<K: Pod, V: Pod>(map: &mut Map, name: &str) -> Result<(), DataplaneError> {
    let what = || format!("emptying {name}");
    let mut map: KernelHashMap<_, K, V> = KernelHashMap::try_from(map).context(what)?;
    let keys = map.keys().collect::<Result<Vec<_>, _>>().context(what)?;
    keys.iter().try_for_each(|key| map.remove(key)).context(what)
}

fn array<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData, DataplaneError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map),
        _ => Err(missing(name)),
    }
}

pub(super) fn options(frame: &[u8], repeat: u32) -> TestRunOptions<'_> {
    TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() }
}

/// What an empty program costs at a hook for this frame: the floor of every comparison.
///
/// # Errors
/// If the kernel does not run it.
pub fn time_of_empty_program(hook: TrialHook, frame: &[u8], repeat: u32) -> Result<Duration, DataplaneError> {
    let mut ebpf = Plan::new().load()?;
    let what = || "running the empty program";
    let result = match hook {
        TrialHook::Xdp | TrialHook::XdpLinear => {
            object::xdp(&mut ebpf, object::XDP_EMPTY)?.test_run(options(frame, repeat))
        }
        TrialHook::Tc => object::classifier(&mut ebpf, object::TC_EMPTY)?.test_run(options(frame, repeat)),
    };
    result.context(what).map(|result| result.duration)
}
