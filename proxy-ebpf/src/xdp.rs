//! XDP: ingress where the driver runs programs before it makes an skb, and the floor for benchmarks.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use proxy_common::abi::reason::Verdict;
use proxy_common::engine;

use crate::diagnostics;
use crate::finish::{finish, is_fault};
use crate::tables::Maps;
use crate::view::Frame;

/// Judges a packet before the stack sees it. Declared for multi-buffer frames (Linux 5.18), so that jumbo MTUs can attach.
#[xdp(frags)]
pub fn xdp_ingress(ctx: XdpContext) -> u32 {
    // SAFETY: a helper on this program's own context (Linux 5.18).
    let len = unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) } as usize;
    judge(&ctx, len)
}

/// The same for kernels before 5.18, whose frames are all in one piece.
#[xdp]
pub fn xdp_linear(ctx: XdpContext) -> u32 {
    judge(&ctx, ctx.data_end() - ctx.data())
}

#[inline(always)]
fn judge(ctx: &XdpContext, len: usize) -> u32 {
    let frame = Frame { data: ctx.data(), data_end: ctx.data_end(), len, packets: 1 };
    let outcome = engine::ingress(&frame, &Maps);
    if is_fault(outcome) {
        diagnostics::fault(ctx);
    }
    match finish(&frame, outcome) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

/// The floor: what the hook itself costs.
#[xdp]
pub fn xdp_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
