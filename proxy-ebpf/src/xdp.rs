//! XDP: ingress where the driver runs programs before it makes an skb, and the floor for benchmarks.

use core::cell::Cell;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::engine::{self, Outcome};

use crate::deadline::{Overdue, overdue};
use crate::diagnostics;
use crate::finish::{finish, is_fault};
use crate::maps::PREVIOUS_XDP;
use crate::tables::IN_FORCE;
use crate::view::Frame;
use crate::{report, shadow};

/// Judges a packet before the stack sees it. Declared for multi-buffer frames (Linux 5.18), so that jumbo MTUs can attach.
#[xdp(frags)]
pub fn xdp_ingress(ctx: XdpContext) -> u32 {
    let buffers = Some(ctx.as_ptr().cast());
    judge(&ctx, buffers)
}

/// The same for kernels before 5.18, whose frames are all in one piece.
#[xdp]
pub fn xdp_linear(ctx: XdpContext) -> u32 {
    judge(&ctx, None)
}

#[inline(always)]
fn judge(ctx: &XdpContext, buffers: Option<*mut xdp_md>) -> u32 {
    let (data, data_end) = (ctx.data(), ctx.data_end());
    let frame = Frame { data, data_end, len: Cell::new(data_end - data), buffers, packets: 1 };
    let outcome = match overdue() {
        Overdue::Open => Outcome::plain(Reason::Unconfirmed),
        state => {
            if state == Overdue::Previous {
                // SAFETY: nothing here has a destructor. It comes back only if there is no program, which can't be: the
                // array is pinned with it. Then this one judges on, which is better than nobody.
                unsafe { PREVIOUS_XDP.tail_call(ctx, 0) };
            }
            engine::ingress(&frame, &IN_FORCE)
        }
    };
    if is_fault(outcome) {
        diagnostics::fault(ctx);
    }
    let action = match finish(&frame, outcome) {
        Verdict::Pass => {
            if outcome.reason.is_audit() {
                report::by_xdp(ctx, &frame, outcome);
            }
            xdp_action::XDP_PASS
        }
        Verdict::Drop => {
            report::by_xdp(ctx, &frame, outcome);
            xdp_action::XDP_DROP
        }
    };
    shadow::after_xdp(ctx, outcome, action);
    action
}

/// The floor: what the hook itself costs.
#[xdp]
pub fn xdp_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
