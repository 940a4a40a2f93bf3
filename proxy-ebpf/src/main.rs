//! Tollgate's kernel programs: entry points over the engine of `proxy-common`.
//!
//! `xdp_ingress` or `tc_ingress` judges what arrives, `tc_egress` takes note of what leaves, `xdp_shadow` and `tc_shadow`
//! judge once more by a candidate, `probe` reads the
//! clocks for the loader, `xdp_empty` and `tc_empty` are the floor that benchmarks
//! compare with, `xdp_scatter` and `tc_scatter` give their packets random sources. The loader is
//! `proxy-userspace/src/dataplane`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "this target has atomics only as compiler intrinsics")]

mod deadline;
mod diagnostics;
mod finish;
mod maps;
mod reject;
mod report;
mod scatter;
mod shadow;
mod tables;
mod tc;
mod view;
mod xdp;

/// The verifier refuses any program in which this can be reached: it never ends.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
