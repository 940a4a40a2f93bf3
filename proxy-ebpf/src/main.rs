//! Tollgate's kernel programs.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "the BPF target has atomics only as intrinsics")]
use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Passes everything (the floor).
#[xdp]
pub fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // An endless loop: the verifier refuses any program in which a panic is reachable.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
