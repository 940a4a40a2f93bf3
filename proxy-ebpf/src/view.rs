//! The engine's packet view over `data..data_end`: the one place where packet memory is touched.

use core::cell::Cell;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use proxy_common::packet::view::MAX_OFFSET;
use proxy_common::packet::{Forget, PacketView};

/// A frame in the kernel.
pub struct Frame {
    /// First byte.
    pub data: usize,
    /// One past the last byte that can be read in place.
    pub data_end: usize,
    /// Length of the whole frame, as far as it is known: see [`Frame::holds`].
    pub len: Cell<usize>,
    /// Who knows the length of an XDP frame in several buffers.
    pub buffers: Option<*mut xdp_md>,
    /// Wire packets merged into this one.
    pub packets: u32,
}

/// A number that the verifier knows nothing about: mixed in and out again, it leaves a value as it was and the verifier
/// without a word on it.
pub struct Unknown(pub u64);

impl Forget for Unknown {
    #[inline(always)]
    fn forget(&self, mut value: u64) -> u64 {
        // Not `pure`: it stays in its place among the loads. Eight cells that are loaded first and compared later would not
        // fit on the stack.
        // SAFETY: two exclusive-ors with the same register.
        unsafe {
            core::arch::asm!("{v} ^= {n}", "{v} ^= {n}", v = inout(reg) value, n = in(reg) self.0,
                options(nomem, nostack));
        }
        value
    }
}

impl Forget for Frame {
    #[inline(always)]
    fn forget(&self, mut value: u64) -> u64 {
        // As `Unknown`, but free to go where nobody needs the value.
        // SAFETY: two exclusive-ors with the same register.
        unsafe {
            core::arch::asm!("{v} ^= {n}", "{v} ^= {n}", v = inout(reg) value, n = in(reg) self.len.get(),
                options(pure, nomem, nostack));
        }
        value
    }
}

impl PacketView for Frame {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        let at = opaque(at);
        if at > MAX_OFFSET {
            return None;
        }
        let start = self.data + at;
        if start + N > self.data_end {
            return None;
        }
        // SAFETY: `start..start + N` lies within data..data_end, which the verifier checks again; the kernel
        // keeps the packet in place while the program runs. A byte array has no alignment to keep.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len.get()
    }

    /// Asks for the length of a frame in several buffers only when its IP packet is longer than its first one: the question
    /// costs a quarter of all that a packet costs.
    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        if end <= self.len.get() {
            return true;
        }
        let Some(ctx) = self.buffers else { return false };
        // SAFETY: a helper on this program's own context (Linux 5.18).
        let whole = unsafe { bpf_xdp_get_buff_len(ctx) } as usize;
        self.len.set(whole);
        end <= whole
    }

    #[inline(always)]
    fn packets(&self) -> u32 {
        self.packets
    }
}

/// Hides a value's origin from the compiler. Without it a bound that the compiler can prove, but the verifier
/// can't, is optimised away and the program refused.
#[inline(always)]
pub fn opaque(mut value: usize) -> usize {
    // SAFETY: a register is copied to itself. (An empty template would leave two line records for one
    // instruction, which the kernel refuses.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}
