//! Packets of random sources one after another, for the benchmark alone: it verifies these programs, and nobody attaches them.
//!
//! A test-run repeats over one frame without a system call or a clock between, as a driver's poll loop runs. These programs
//! give that frame another IPv4 source each time and hand it to the ingress program, which the benchmark has put into the
//! `PREVIOUS_*` array of its own maps: there is no deadline, so nothing else looks there. With an empty array they cost what
//! the scattering itself costs.

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use proxy_common::abi::scatter::next;

use crate::maps::{PREVIOUS_TC, PREVIOUS_XDP};

/// Where an IPv4 header behind an Ethernet header has its source.
const SOURCE: usize = 14 + 12;

/// Another source, then `xdp_ingress`.
#[xdp(frags)]
pub fn xdp_scatter(ctx: XdpContext) -> u32 {
    before_xdp(&ctx)
}

/// Another source, then `xdp_linear`.
#[xdp]
pub fn xdp_scatter_linear(ctx: XdpContext) -> u32 {
    before_xdp(&ctx)
}

#[inline(always)]
fn before_xdp(ctx: &XdpContext) -> u32 {
    scatter(ctx.data(), ctx.data_end());
    // SAFETY: nothing here has a destructor. It comes back if the array is empty.
    unsafe { PREVIOUS_XDP.tail_call(ctx, 0) };
    xdp_action::XDP_PASS
}

/// Another source, then `tc_ingress`.
#[classifier]
pub fn tc_scatter(ctx: TcContext) -> i32 {
    scatter(ctx.data(), ctx.data_end());
    // SAFETY: as above.
    unsafe { PREVIOUS_TC.tail_call(&ctx, 0) };
    TC_ACT_UNSPEC
}

/// Written in one piece, as it is read: the processor hands on a store that a later load covers, and makes others wait until
/// all before them is done, which would undo what is measured.
#[inline(always)]
fn scatter(data: usize, data_end: usize) {
    let source = data + SOURCE;
    if source + size_of::<u32>() > data_end {
        return;
    }
    let source = source as *mut u32;
    // SAFETY: within data..data_end, which the verifier checks again.
    let before = unsafe { source.read_unaligned() };
    // SAFETY: as above.
    unsafe { source.write_unaligned(next(u32::from_be(before)).to_be()) };
}
