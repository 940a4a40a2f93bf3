//! The maps. A map's name here, in the kernel and as a pin is the same word.
//!
//! Shared by all instances: `IDENTITY`, `RULES`, `FLOWS`, `ESTABLISHED`, `STACKED`, `FRAGMENTS`, `CELLS`, `BANS`,
//! `BAN_PREFIXES`, `BAN_FILTER`, `SWITCHES`, `EVENTS`, `OFFENCES`, `AYA_LOGS`; per interface: `COUNTERS`,
//! `ANSWERS`; owned by one instance, sized and filled by the loader before the program is attached: the others.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use proxy_common::abi::ban::{BAN_FILTER_LEN, BAN_PREFIXES_LEN, BANS_LEN, Ban, BanKey, BanPrefix};
use proxy_common::abi::counter::{Answers, COUNTERS_LEN, Counter, MAX_RULES};
use proxy_common::abi::decision::{Decision, PORTS_LEN};
use proxy_common::abi::event::{EVENTS_BYTES, OFFENCES_BYTES, Throttle};
use proxy_common::abi::flow::{
    ESTABLISHED_LEN, FLOWS_LEN, FRAGMENTS_LEN, FlowKey, FlowValue, FragmentKey, FragmentValue, STACKED_LEN,
};
use proxy_common::abi::label::Label;
use proxy_common::abi::limit::{Bucket, LINES, Line};
use proxy_common::abi::reason::MAX_REASONS;
use proxy_common::abi::settings::Settings;
use proxy_common::abi::shadow::{Carry, Compared, Pair, Place, Seen};
use proxy_common::abi::switches::Switches;
use proxy_common::abi::trie::{Node, ROOT_LEN};
use proxy_common::abi::{Identity, Probe, RuleName};
use proxy_common::engine::answer::{Buffer, Plan};

/// Mapped into the loader's memory to be filled at once (Linux 5.5); and, because the kernel puts a mappable
/// array on a page boundary, each 64-byte element is one cache line.
const MAPPED: u32 = BPF_F_MMAPABLE;

/// What the functions that answer a packet leave each other.
#[repr(C)]
pub struct Scratch {
    /// What is charged for the answer.
    pub charge: [u64; 3],
    /// What the answer is made of.
    pub plan: Plan,
    /// The answer.
    pub answer: Buffer,
}

/// Whose maps these are.
#[map]
pub static IDENTITY: Array<Identity> = Array::with_max_entries(1, 0);

/// Names of rules, for whoever reads counters.
#[map]
pub static RULES: Array<RuleName> = Array::with_max_entries(MAX_RULES, 0);

/// Flows that this host began.
#[map]
pub static FLOWS: LruHashMap<FlowKey, FlowValue> = LruHashMap::with_max_entries(FLOWS_LEN, 0);

/// Those of them that are established TCP connections: what is here is never evicted.
#[map]
pub static ESTABLISHED: HashMap<FlowKey, FlowValue> = HashMap::with_max_entries(ESTABLISHED_LEN, 0);

/// Pairs of interface indices, the second enforced and the first stacked on it (VLAN, bridge, bond): what came in by the
/// first has come in by the second.
#[map]
pub static STACKED: HashMap<[u32; 2], u32> = HashMap::with_max_entries(STACKED_LEN, 0);

/// Datagrams whose first fragment passed.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::with_max_entries(FRAGMENTS_LEN, 0);

/// Limiter state.
#[map]
pub static CELLS: Array<Line> = Array::with_max_entries(LINES, MAPPED);

/// Banned sources. Not allocated before they are needed: two million take 200 MB.
#[map]
pub static BANS: HashMap<BanKey, Ban> = HashMap::with_max_entries(BANS_LEN, BPF_F_NO_PREALLOC);

/// Banned prefixes of other lengths.
#[map]
pub static BAN_PREFIXES: LpmTrie<BanPrefix, Ban> = LpmTrie::with_max_entries(BAN_PREFIXES_LEN, 0);

/// Which sources are not in `BANS`.
#[map]
pub static BAN_FILTER: Array<u64> = Array::with_max_entries(BAN_FILTER_LEN, MAPPED);

/// What is looked at only while it is needed.
#[map]
pub static SWITCHES: Array<Switches> = Array::with_max_entries(1, MAPPED);

/// Dropped packets, while somebody listens.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Packets over a limit that bans who exceeds it.
#[map]
pub static OFFENCES: RingBuf = RingBuf::with_byte_size(OFFENCES_BYTES, 0);

/// How often both come; index: reason, and for offences as much more as there can be reasons.
#[map]
pub static THROTTLES: PerCpuArray<Throttle> = PerCpuArray::with_max_entries(2 * MAX_REASONS, 0);

/// When this instance is to be confirmed by; the engine's clock, 0: it is.
#[map]
pub static DEADLINE: Array<u64> = Array::with_max_entries(1, MAPPED);

/// The XDP program that judges again if that time passes.
#[map]
pub static PREVIOUS_XDP: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The TC program for ingress. A map of its own: an array of programs takes one kind alone.
#[map]
pub static PREVIOUS_TC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The TC program for egress.
#[map]
pub static PREVIOUS_EGRESS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The program of the candidate in this one's shadow, XDP; see `shadow.rs`.
#[map]
pub static SHADOW_XDP: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for TC.
#[map]
pub static SHADOW_TC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// `tc_answer` of the policy in force, for its shadow.
#[map]
pub static ANSWER_TC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// What the program in force hands over to its shadow.
#[map]
pub static CARRY: PerCpuArray<Carry> = PerCpuArray::with_max_entries(1, 0);

/// What a shadow has compared.
#[map]
pub static COMPARED: PerCpuArray<Compared> = PerCpuArray::with_max_entries(1, 0);

/// Differences by what both policies say. This one and the next two have room only in the instance of a shadow.
#[map]
pub static PAIRS: HashMap<Pair, Seen> = HashMap::with_max_entries(1, 0);

/// Sources of packets that the candidate alone would drop.
#[map]
pub static NEWLY_DROPPED: HashMap<Place, Seen> = HashMap::with_max_entries(1, 0);

/// Sources of packets that the candidate alone would let pass.
#[map]
pub static NEWLY_PASSED: HashMap<Place, Seen> = HashMap::with_max_entries(1, 0);

/// Packets and bytes by reason and rule.
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTERS_LEN, 0);

/// Root of the source trie: two entries of 32 bits an element.
#[map]
pub static ROOT: Array<u64> = Array::with_max_entries(ROOT_LEN / 2, MAPPED);

/// Answers to rejected packets.
#[map]
pub static ANSWERS: PerCpuArray<Answers> = PerCpuArray::with_max_entries(1, 0);

/// Where an answer is made: the stack has no room for it.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Nodes of the source trie.
#[map]
pub static NODES: Array<Node> = Array::with_max_entries(1, MAPPED);

/// Runs of nodes that do not hold them: two entries of 32 bits an element.
#[map]
pub static ENTRIES: Array<u64> = Array::with_max_entries(1, MAPPED);

/// Port classes: four of 16 bits an element.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(PORTS_LEN / 4, MAPPED);

/// Source class × port class → decision.
#[map]
pub static DECISIONS: Array<Decision> = Array::with_max_entries(1, MAPPED);

/// Buckets of the limits.
#[map]
pub static BUCKETS: Array<Bucket> = Array::with_max_entries(1, 0);

/// What this instance says of itself, for whoever looks at the live program.
#[map]
pub static LABEL: Array<Label> = Array::with_max_entries(1, 0);

/// The constants of this instance once more, for whoever looks at the live program.
#[map]
pub static CONSTANTS: Array<Settings> = Array::with_max_entries(1, 0);

/// The time, where it is given: see `CLOCK_GIVEN`.
#[map]
pub static GIVEN_TIME: Array<u64> = Array::with_max_entries(1, MAPPED);

/// What `probe` saw.
#[map]
pub static PROBE: Array<Probe> = Array::with_max_entries(1, 0);

/// Constants of this instance, overwritten by the loader.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    first_row: 0,
    port_classes: 0,
    plumbing: 0,
    ping_first_bucket: 0,
    ping_buckets: 0,
    clock: 0,
    reject_first_bucket: 0,
    reject_buckets: 0,
    tick_ns: 0,
    tick_offset_ns: 0,
    hash_keys: [0; 3],
    max_depth_ns: 0,
    tcp_opening_ns: 0,
    tcp_established_ns: 0,
    tcp_closing_ns: 0,
    udp_ns: 0,
    icmp_ns: 0,
    on_deadline: 0,
    escalates: 0,
    shadowed: 0,
    _pad: 0,
};
