//! What the programs say in words: once at load, and when a table turns out to be damaged. Never a line a
//! packet: a fault is said once in 65,536 times on a CPU, and counted each time.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_log_ebpf::{debug, error};
use proxy_common::abi::ABI_VERSION;

use crate::maps::{CONSTANTS, LABEL};

/// Faults seen by each CPU.
#[map]
static FAULTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Says that the object runs and which ABI it speaks.
#[inline(never)]
pub fn ready<C: EbpfContext>(ctx: &C) {
    debug!(ctx, "kernel programs ready, ABI {}", ABI_VERSION);
}

/// Says that a table is damaged.
#[inline(never)]
pub fn fault<C: EbpfContext>(ctx: &C) {
    let Some(count) = FAULTS.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own copy.
    let count = unsafe { &mut *count };
    if *count & 0xffff == 0 {
        // This is also what ties the label and the constants to the program, so that whoever finds the program finds them.
        let applied = LABEL.get(0).map_or(0, |label| label.applied_unix_ns);
        let row = CONSTANTS.get(0).map_or(0, |constants| constants.first_row);
        error!(
            ctx,
            "a table of the policy applied at {} ns since 1970 is damaged (row {}): packets are dropped as table-fault; \
             apply the policy again",
            applied,
            row
        );
    }
    *count += 1;
}
