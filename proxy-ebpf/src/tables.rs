//! The engine's tables over BPF maps and the kernel's clocks.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use proxy_common::abi::decision::Decision;
use proxy_common::abi::flow::{FlowKey, FlowValue, FragmentKey, FragmentValue};
use proxy_common::abi::limit::Bucket;
use proxy_common::abi::reason::Reason;
use proxy_common::abi::settings::{CLOCK_GIVEN, CLOCK_TICKS, Settings};
use proxy_common::abi::trie::Node;
use proxy_common::engine::Tables;
use proxy_common::engine::limiter::{self, CellLine, Charge};

use crate::maps::{
    BUCKETS, CELLS, DECISIONS, ENTRIES, FLOWS, FRAGMENTS, GIVEN_TIME, NODES, PORTS, ROOT, SETTINGS,
};
use crate::view::Unknown;

/// The maps of this instance.
pub struct Maps;

/// What [`charge_buckets`] gives for a packet within its limits; no reason has this number.
const WITHIN: u32 = 255;

/// Charges a packet to its buckets. A global function: the verifier checks it once by itself, whatever its arguments.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn charge_buckets(kind: u64, source: u64, amount: u64) -> u32 {
    let charge = Charge::from_words([kind, source, amount]);
    limiter::charge(&Unknown(amount), &Maps, charge).map_or(WITHIN, |over| over as u32)
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

impl Tables for Maps {
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
        let flow = FLOWS.get_ptr_mut(key)?;
        // SAFETY: a live map value. Other CPUs may write it too: both fields are single aligned stores, and any
        // mix of two updates is a state that one of them could have left.
        Some(f(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn put_flow(&self, key: &FlowKey, value: &FlowValue) {
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

#[inline(always)]
fn half(pair: Option<&u64>, index: u32) -> Option<u32> {
    Some((*pair? >> ((index & 1) << 5)) as u32)
}
