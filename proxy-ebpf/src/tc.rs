//! TC: ingress where there is no native XDP, egress always, and the clock probe.

use core::cell::Cell;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use proxy_common::abi::Probe;
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::engine::{self, Outcome};

use crate::deadline::{Overdue, overdue};
use crate::diagnostics;
use crate::finish::{finish, is_fault};
use crate::maps::{PREVIOUS_EGRESS, PREVIOUS_TC, PROBE, STACKED};
use crate::tables::IN_FORCE;
use crate::view::Frame;
use crate::{reject, report, shadow};

/// Bytes that the engine may want to read; drivers that leave less in the linear part are asked to pull.
const HEADERS: u32 = 256;

#[inline(always)]
pub fn frame(ctx: &TcContext) -> Frame {
    let len = ctx.len();
    let wanted = if len < HEADERS { len } else { HEADERS };
    if ctx.data() + (wanted as usize) > ctx.data_end() {
        // A failure leaves the packet as it is; what can't be read is dropped as malformed.
        let _ = ctx.pull_data(wanted);
    }
    // SAFETY: a read of this program's own context (Linux 5.1).
    let segments = unsafe { (*ctx.skb.skb).gso_segs };
    Frame { packets: if segments > 1 { segments } else { 1 }, ..in_place(ctx) }
}

/// What can be read as it is: of a packet that `frame` has seen before, all that the engine wants.
#[inline(always)]
pub fn in_place(ctx: &TcContext) -> Frame {
    Frame {
        data: ctx.data(),
        data_end: ctx.data_end(),
        len: Cell::new(ctx.len() as usize),
        buffers: None,
        packets: 1,
    }
}

/// Judges a packet before the rest of the stack sees it. Passing leaves room for other TC programs.
#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let frame = frame(&ctx);
    let outcome = match overdue() {
        Overdue::Open => Outcome::plain(Reason::Unconfirmed),
        state => {
            if state == Overdue::Previous {
                // SAFETY: as in `xdp.rs`.
                unsafe { PREVIOUS_TC.tail_call(&ctx, 0) };
            }
            engine::ingress(&frame, &IN_FORCE)
        }
    };
    if is_fault(outcome) {
        diagnostics::fault(&ctx);
    }
    match finish(&frame, outcome) {
        Verdict::Pass => {
            if outcome.reason.is_audit() {
                report::by_tc(&ctx, &frame, outcome);
            }
            shadow::after_tc(&ctx, outcome, TC_ACT_UNSPEC);
            TC_ACT_UNSPEC
        }
        Verdict::Drop => {
            report::by_tc(&ctx, &frame, outcome);
            // Before the packet becomes the answer to it.
            shadow::after_tc(&ctx, outcome, TC_ACT_SHOT);
            reject::dropped(&ctx, outcome)
        }
    }
}

/// Takes note of flows that this host begins. Never drops.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    if overdue() == Overdue::Previous {
        // SAFETY: as in `xdp.rs`.
        unsafe { PREVIOUS_EGRESS.tail_call(&ctx, 0) };
    }
    engine::egress(&frame(&ctx), &IN_FORCE, || is_turned_back(&ctx));
    TC_ACT_UNSPEC
}

/// True if the packet came in by the interface that it leaves by, or by one on top of it. What this host sends itself has come
/// in nowhere, and what it passes on from another interface (containers, a network behind it) begins flows as its own does.
#[inline(always)]
fn is_turned_back(ctx: &TcContext) -> bool {
    // SAFETY: a read of this program's own context (Linux 4.5).
    let came_in_by = unsafe { (*ctx.skb.skb).ingress_ifindex };
    // SAFETY: as above.
    let leaves_by = unsafe { (*ctx.skb.skb).ifindex };
    if came_in_by == 0 || came_in_by == leaves_by {
        return came_in_by != 0;
    }
    // SAFETY: looked at, not kept.
    unsafe { STACKED.get(&[came_in_by, leaves_by]) }.is_some()
}

/// The floor: what the hook itself costs.
#[classifier]
pub fn tc_empty(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Reads both clocks for the loader, by test-run; never attached.
#[classifier]
pub fn probe(ctx: TcContext) -> i32 {
    if let Some(seen) = PROBE.get_ptr_mut(0) {
        // SAFETY: helpers without arguments.
        let ktime_ns = unsafe { bpf_ktime_get_ns() };
        // SAFETY: as above.
        let jiffies = unsafe { bpf_jiffies64() };
        // SAFETY: live map memory of this instance alone; test runs come one at a time.
        unsafe { seen.write(Probe { ktime_ns, jiffies }) };
    }
    diagnostics::ready(&ctx);
    TC_ACT_UNSPEC
}
