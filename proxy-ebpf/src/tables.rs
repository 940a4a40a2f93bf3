//! The engine's tables over BPF maps and the kernel's clocks.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::maps::lpm_trie::Key;
use proxy_common::abi::ban::{BanKey, BanPrefix};
use proxy_common::abi::decision::Decision;
use proxy_common::abi::flow::{FlowKey, FlowValue, FragmentKey, FragmentValue, STATE_ESTABLISHED};
use proxy_common::abi::limit::Bucket;
use proxy_common::abi::reason::Reason;
use proxy_common::abi::settings::{CLOCK_GIVEN, CLOCK_TICKS, Settings};
use proxy_common::abi::trie::Node;
use proxy_common::engine::limiter::{self, CellLine, Charge};
use proxy_common::engine::{self, Tables};
use proxy_common::packet::{Addr, protocol};

use crate::maps::{
    BAN_FILTER, BAN_PREFIXES, BANS, BUCKETS, CELLS, DECISIONS, ENTRIES, ESTABLISHED, FLOWS, FRAGMENTS,
    GIVEN_TIME, NODES, PORTS, ROOT, SETTINGS, SWITCHES,
};
use crate::view::Unknown;

/// The maps of this instance. `WRITES_FLOWS`: what a packet says of the state of its flow is written down.
pub struct Maps<const WRITES_FLOWS: bool>;

/// As the policy in force sees them.
pub const IN_FORCE: Maps<true> = Maps;
/// As a candidate in the shadow of the policy in force sees them: `FLOWS` and `ESTABLISHED` are those of the policy in force.
pub const IN_SHADOW: Maps<false> = Maps;

/// What [`charge_buckets`] gives for a packet within its limits; no reason has this number.
const WITHIN: u32 = 255;

/// Charges a packet to its buckets. A global function: the verifier checks it once by itself, whatever its arguments.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn charge_buckets(kind: u64, source: u64, amount: u64) -> u32 {
    let charge = Charge::from_words([kind, source, amount]);
    limiter::charge(&Unknown(amount), &IN_FORCE, charge).map_or(WITHIN, |over| over as u32)
}

/// What [`is_destination_isolated`] gives where a table is damaged.
const DAMAGED: u32 = 2;

/// Whether a destination is isolated; global as [`charge_buckets`] is, or the verifier would walk the trie twice for each way
/// that a packet can take.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_destination_isolated(hi: u64, lo: u64, v6: u64) -> u32 {
    engine::is_isolated(&IN_FORCE, Addr { hi, lo }, v6 != 0).map_or(DAMAGED, u32::from)
}

/// A line of limiter cells in the kernel.
pub struct KernelLine(*mut u64);

impl CellLine for KernelLine {
    #[inline(always)]
    fn load(&self, way: u32) -> u64 {
        // SAFETY: `way & 7` is within the eight cells of the line that the map lookup gave.
        let cell = unsafe { self.0.add(way as usize & 7) };
        // SAFETY: the cell is live map memory; volatile, because other CPUs write it (aligned 64-bit loads are
        // single on every 64-bit machine).
        unsafe { cell.read_volatile() }
    }

    #[inline(always)]
    fn replace(&self, way: u32, old: u64, new: u64) -> bool {
        // SAFETY: as in `load`.
        let cell = unsafe { self.0.add(way as usize & 7) };
        // SAFETY: `cell` is aligned live map memory. BPF_CMPXCHG (Linux 5.12) is fully ordered.
        unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(cell, old, new) }
            .1
    }
}

impl<const WRITES_FLOWS: bool> Tables for Maps<WRITES_FLOWS> {
    type Line = KernelLine;

    #[inline(always)]
    fn setting<R: Copy>(&self, field: impl FnOnce(&Settings) -> &R) -> R {
        // SAFETY: a reference into this object's read-only data; volatile, because the loader has changed it
        // after the compiler saw it.
        unsafe { core::ptr::read_volatile(field(&SETTINGS)) }
    }

    #[inline(always)]
    fn root(&self, index: u32) -> Option<u32> {
        half(ROOT.get(index >> 1), index)
    }

    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        NODES.get(index)
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> Option<u32> {
        half(ENTRIES.get(index >> 1), index)
    }

    #[inline(always)]
    fn port_class(&self, index: u32) -> Option<u32> {
        let four = *PORTS.get(index >> 2)?;
        Some((four >> ((index & 3) << 4)) as u32 & 0xffff)
    }

    #[inline(always)]
    fn decision(&self, index: u32) -> Option<Decision> {
        DECISIONS.get(index).copied()
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        BUCKETS.get(index)
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<KernelLine> {
        CELLS.get_ptr_mut(index).map(|line| KernelLine(line.cast()))
    }

    #[inline(always)]
    fn charge(&self, charge: Charge) -> Option<Reason> {
        let [kind, source, amount] = charge.to_words();
        let over = charge_buckets(kind, source, amount);
        if over == WITHIN { None } else { Some(Reason::from_number(over as u8)) }
    }

    #[inline(always)]
    fn isolates(&self, destination: Addr, v6: bool) -> Option<bool> {
        match is_destination_isolated(destination.hi, destination.lo, u64::from(v6)) {
            DAMAGED => None,
            isolated => Some(isolated != 0),
        }
    }

    #[inline(always)]
    fn bans(&self) -> u32 {
        SWITCHES.get(0).map_or(0, |switches| switches.bans)
    }

    #[inline(always)]
    fn ban_filter(&self, index: u32) -> Option<u64> {
        BAN_FILTER.get(index).copied()
    }

    #[inline(always)]
    fn ban(&self, key: &BanKey) -> Option<u64> {
        // SAFETY: copied at once; one aligned 64-bit field.
        unsafe { BANS.get(key) }.map(|ban| ban.until_ns)
    }

    #[inline(always)]
    fn prefix_ban(&self, source: &BanPrefix) -> Option<u64> {
        /// The verifier wants whole words of the stack written to where they would be aligned; a packed key alone is not.
        #[repr(C, align(8))]
        struct Aligned(Key<BanPrefix>);

        let bits = size_of::<BanPrefix>() as u32 * 8;
        let key = Aligned(Key::new(bits, *source));
        BAN_PREFIXES.get(&key.0).map(|ban| ban.until_ns)
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // The verifier knows the constant and keeps one of these.
        match self.setting(|s| &s.clock) {
            CLOCK_TICKS => {
                // SAFETY: a helper without arguments (Linux 5.5).
                let ticks = unsafe { bpf_jiffies64() };
                let tick_ns = self.setting(|s| &s.tick_ns);
                ticks.wrapping_mul(tick_ns).wrapping_add(self.setting(|s| &s.tick_offset_ns))
            }
            CLOCK_GIVEN => GIVEN_TIME.get(0).copied().unwrap_or_default(),
            // SAFETY: a helper without arguments.
            _ => unsafe { bpf_ktime_get_ns() },
        }
    }

    #[inline(always)]
    fn with_flow<R>(&self, key: &FlowKey, f: impl FnOnce(&mut FlowValue) -> R) -> Option<R> {
        let tcp = key.protocol == protocol::TCP;
        let kept = if tcp { ESTABLISHED.get_ptr_mut(key) } else { None };
        let (flow, is_kept) = match kept {
            Some(flow) => (flow, true),
            None => (FLOWS.get_ptr_mut(key)?, false),
        };
        if !WRITES_FLOWS {
            // SAFETY: a live map value, copied as it is: any mix of two updates is a state that one of them could have left.
            let mut copy = unsafe { flow.read() };
            return Some(f(&mut copy));
        }
        // SAFETY: a live map value. Other CPUs may write it too: both fields are single aligned stores, and any
        // mix of two updates is a state that one of them could have left.
        let flow = unsafe { &mut *flow };
        let result = f(flow);
        if tcp && (flow.state == STATE_ESTABLISHED) != is_kept {
            move_flow(key, *flow, is_kept);
        }
        Some(result)
    }

    #[inline(always)]
    fn put_flow(&self, key: &FlowKey, value: &FlowValue) {
        if !WRITES_FLOWS {
            return;
        }
        if key.protocol == protocol::TCP {
            // The same ports once more: the connection before is over. What fails is that there was none.
            let _ = ESTABLISHED.remove(key);
        }
        // An LRU map makes room by itself; what fails is a flow that is recorded by its next packet.
        let _ = FLOWS.insert(key, value, 0);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        // SAFETY: copied at once; one aligned 64-bit field.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        // A failure makes the rest of the datagram orphans: closed, and counted as such.
        let _ = FRAGMENTS.insert(key, value, 0);
    }

    #[inline(always)]
    fn drop_fragment(&self, key: &FragmentKey) {
        // What fails is that there is none.
        let _ = FRAGMENTS.remove(key);
    }
}

/// Moves a flow to the other table, and leaves it where it is if there is no room. First in, then out: it is known at any
/// time, and whoever finds it twice finds the established one.
#[inline(always)]
fn move_flow(key: &FlowKey, flow: FlowValue, was_kept: bool) {
    if was_kept {
        if FLOWS.insert(key, &flow, 0).is_ok() {
            let _ = ESTABLISHED.remove(key);
        }
    } else if ESTABLISHED.insert(key, &flow, 0).is_ok() {
        let _ = FLOWS.remove(key);
    }
}

#[inline(always)]
fn half(pair: Option<&u64>, index: u32) -> Option<u32> {
    Some((*pair? >> ((index & 1) << 5)) as u32)
}
