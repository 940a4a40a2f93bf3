//! A program with tables and state of its own, run on frames in the kernel by test-run (`BPF_PROG_TEST_RUN`): never
//! attached, and without a trace in what is.
//!
//! Called by `selftest` for a policy's own tests, by the benchmark, and by the tests that compare the kernel with the host.

use std::collections::HashMap;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use ipnet::IpNet;
use proxy_common::abi::ban::{Ban, FOR_EVER};
use proxy_common::abi::counter::{COUNTERS_LEN, Counter, index};
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::engine::Outcome;

use super::bans::Bans;
use super::candidate;
use super::counters::sum;
use super::error::{Context, DataplaneError, missing};
use super::memory::{clear, fill};
use super::object::{self, Plan};
use crate::policy::compile::{Clock, Compiled};

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
    fn program(self) -> &'static str {
        match self {
            Self::Xdp => object::xdp_for_kernel(),
            Self::XdpLinear => object::XDP_LINEAR,
            Self::Tc => object::TC_INGRESS,
        }
    }

    /// True if that is what the program returns for a verdict. A test-run redirects nothing: an answer goes nowhere.
    const fn says(self, verdict: Verdict, returned: u32) -> bool {
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
    ebpf: Ebpf,
    hook: TrialHook,
    counters: PerCpuArray<MapData, Counter>,
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
        let plan = candidate::sized(Plan::new(), &compiled.tables);
        let mut ebpf = plan.settings(compiled.settings(interface, clock, hash_keys)).load()?;
        candidate::fill_tables(&mut ebpf, &compiled.tables)?;
        Self::of(ebpf, compiled, hook)
    }

    /// The programs of a load that somebody else has prepared.
    pub(super) fn of(mut ebpf: Ebpf, compiled: &Compiled, hook: TrialHook) -> Result<Self, DataplaneError> {
        match hook {
            TrialHook::Xdp | TrialHook::XdpLinear => drop(object::xdp(&mut ebpf, hook.program())?),
            TrialHook::Tc => drop(object::classifier(&mut ebpf, hook.program())?),
        }
        object::classifier(&mut ebpf, object::TC_EGRESS)?;
        let counters = ebpf.take_map("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let counters = PerCpuArray::try_from(counters).context(|| "COUNTERS")?;
        let rules = compiled.rules.iter().map(|rule| rule.id).collect();
        Ok(Self { ebpf, hook, counters, rules, seen: HashMap::new() })
    }

    /// Judges a frame that arrives. `guess` is where the count is looked for first; all other places follow.
    ///
    /// # Errors
    /// If the kernel does not run it (frames have at least 14 bytes and at most a page), counted it nowhere, or did not do
    /// what it counted.
    pub fn ingress(&mut self, frame: &[u8], guess: Outcome) -> Result<Outcome, DataplaneError> {
        let verdict = self.judge(frame, 1)?.return_value;
        let rules = self.rules.clone();
        let of_reason = |reason: &'static Reason| {
            let rules = if reason.has_rule() { rules.as_slice() } else { &rules[..rules.len().min(1)] };
            rules.iter().map(|rule| Outcome { reason: *reason, rule: *rule })
        };
        for outcome in [guess].into_iter().chain(Reason::ALL.iter().flat_map(of_reason)) {
            if self.has_moved(outcome)? {
                return if self.hook.says(outcome.verdict(), verdict) {
                    Ok(outcome)
                } else {
                    Err(missing(format!("the verdict of {}, but {verdict:#x}", outcome.reason.name())))
                };
            }
        }
        Err(missing("a count of the frame"))
    }

    /// Takes note of a frame that this host sends.
    ///
    /// # Errors
    /// If the kernel does not run it.
    pub fn egress(&self, frame: &[u8]) -> Result<(), DataplaneError> {
        self.classifier(object::TC_EGRESS, frame, 1).map(drop)
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
        self.judge(frame, repeat).map(|result| result.duration)
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
    ///
    /// # Errors
    /// If the kernel refuses the access.
    pub fn forget_limits(&self) -> Result<(), DataplaneError> {
        clear(self.array("CELLS")?, "CELLS")
    }

    /// Sets the clock of programs that were made with [`Clock::Given`], nanoseconds.
    ///
    /// # Errors
    /// If the kernel refuses the access.
    pub fn set_now_ns(&self, now_ns: u64) -> Result<(), DataplaneError> {
        fill(self.array("GIVEN_TIME")?, "GIVEN_TIME", &[now_ns])
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

    fn array(&self, name: &str) -> Result<&MapData, DataplaneError> {
        match self.ebpf.map(name) {
            Some(Map::Array(map)) => Ok(map),
            _ => Err(missing(name)),
        }
    }

    fn judge(&self, frame: &[u8], repeat: u32) -> Result<TestRunResult, DataplaneError> {
        let name = self.hook.program();
        if self.hook == TrialHook::Tc {
            return self.classifier(name, frame, repeat);
        }
        let what = || format!("running {name} in the kernel");
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        let program: &Xdp = program.try_into().context(what)?;
        program.test_run(options(frame, repeat)).context(what)
    }

    fn classifier(&self, name: &str, frame: &[u8], repeat: u32) -> Result<TestRunResult, DataplaneError> {
        let what = || format!("running {name} in the kernel");
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        let program: &SchedClassifier = program.try_into().context(what)?;
        program.test_run(options(frame, repeat)).context(what)
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

fn options(frame: &[u8], repeat: u32) -> TestRunOptions<'_> {
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
