//! Tells whoever listens of a packet that was dropped, or would have been if its service did not audit, and the daemon of one
//! over a limit that bans: reason, rule and the frame's first bytes. Behind the exit; while nobody listens it costs one read.
//!
//! Throttled here and not by the reader: a flood must not be paid for a second time.

use core::cell::Cell;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::{TcContext, XdpContext};
use proxy_common::abi::event::{Event, SNAP_LEN};
use proxy_common::abi::reason::{MAX_REASONS, Reason};
use proxy_common::engine::{Outcome, Tables as _};
use proxy_common::packet::PacketView as _;

use crate::maps::{EVENTS, OFFENCES, SWITCHES, THROTTLES};
use crate::tables::IN_FORCE;
use crate::tc::in_place;
use crate::view::{Frame, opaque};

/// True if the packet is an offence that the daemon counts. Where no limit bans, the verifier knows and removes this.
#[inline(always)]
fn is_offence(outcome: Outcome) -> bool {
    IN_FORCE.setting(|s| &s.escalates) != 0 && outcome.reason.is_over_limit()
}

/// True if somebody listens, or did lately.
#[inline(always)]
fn is_wanted() -> bool {
    SWITCHES.get(0).is_some_and(|switches| switches.listening_until_ns != 0)
}

/// Tells of a packet at XDP.
#[inline(always)]
pub fn by_xdp(ctx: &XdpContext, frame: &Frame, outcome: Outcome) {
    if is_wanted() || is_offence(outcome) {
        report_xdp(ctx.ctx, outcome.reason as u32, outcome.rule.into(), frame.len() as u32);
    }
}

/// Tells of a packet at TC.
#[inline(always)]
pub fn by_tc(ctx: &TcContext, frame: &Frame, outcome: Outcome) {
    if is_wanted() || is_offence(outcome) {
        report_tc(ctx.skb.skb, outcome.reason as u32, outcome.rule.into(), frame.len() as u32);
    }
}

/// A global function: the verifier checks it once by itself, and what it costs is no part of the path that passes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_xdp(ctx: *mut xdp_md, reason: u32, rule: u32, frame_len: u32) -> u32 {
    // SAFETY: a read of this program's own context (Linux 4.16).
    let interface = unsafe { (*ctx).ingress_ifindex };
    let ctx = XdpContext::new(ctx);
    let (data, data_end) = (ctx.data(), ctx.data_end());
    let frame = Frame { data, data_end, len: Cell::new(data_end - data), buffers: None, packets: 1 };
    tell(
        &frame,
        interface,
        frame_len,
        Outcome { reason: Reason::from_number(reason as u8), rule: rule as u16 },
    );
    0
}

/// The same for TC.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_tc(skb: *mut __sk_buff, reason: u32, rule: u32, frame_len: u32) -> u32 {
    // SAFETY: a read of this program's own context.
    let interface = unsafe { (*skb).ifindex };
    let frame = in_place(&TcContext::new(skb));
    tell(
        &frame,
        interface,
        frame_len,
        Outcome { reason: Reason::from_number(reason as u8), rule: rule as u16 },
    );
    0
}

/// Tells who wants to hear of a packet.
#[inline(always)]
fn tell(frame: &Frame, interface: u32, frame_len: u32, outcome: Outcome) {
    let now_ns = IN_FORCE.now_ns();
    // A listener that died without a word is forgotten.
    if SWITCHES.get(0).is_some_and(|switches| now_ns < switches.listening_until_ns) {
        write(&EVENTS, 0, frame, interface, frame_len, outcome, now_ns);
    }
    if is_offence(outcome) {
        write(&OFFENCES, MAX_REASONS, frame, interface, frame_len, outcome, now_ns);
    }
}

/// Writes an event of a packet, if there were not too many of its kind; `throttles` is where those of the ring begin.
#[inline(always)]
fn write(
    ring: &RingBuf,
    throttles: u32,
    frame: &Frame,
    interface: u32,
    frame_len: u32,
    outcome: Outcome,
    now_ns: u64,
) {
    let Some(throttle) = THROTTLES.get_ptr_mut(throttles + outcome.reason as u32) else { return };
    // SAFETY: this CPU's own copy; a program is not interrupted by another on the same CPU that reports.
    let Some(skipped) = (unsafe { &mut *throttle }).admit(now_ns) else { return };
    // Full: the reader is slow, and the count of what was skipped is short by this one.
    let Some(mut entry) = ring.reserve::<Event>(0) else { return };
    fill(&mut entry, frame, interface, frame_len, outcome, now_ns, skipped);
    entry.submit(0);
}

#[inline(always)]
fn fill(
    entry: &mut MaybeUninit<Event>,
    frame: &Frame,
    interface: u32,
    frame_len: u32,
    outcome: Outcome,
    time_ns: u64,
    skipped: u64,
) {
    // SAFETY: all zeros is a value of this type, and the record is that long.
    let event = unsafe {
        entry.as_mut_ptr().write_bytes(0, 1);
        &mut *entry.as_mut_ptr()
    };
    event.time_ns = time_ns;
    event.skipped = skipped;
    event.interface = interface;
    event.frame_len = frame_len;
    event.rule = outcome.rule;
    event.reason = outcome.reason as u8;
    // Eight bytes at a time: what of a frame can be read in place, without a helper that old kernels lack.
    let mut snap = 0;
    for word in 0..SNAP_LEN / 8 {
        let Some(bytes) = frame.bytes::<8>(word * 8) else { break };
        event.bytes[word * 8..word * 8 + 8].copy_from_slice(bytes);
        snap = word * 8 + 8;
    }
    // The last eight overlap those before.
    let last = opaque((frame.data_end - frame.data).wrapping_sub(8));
    if last < SNAP_LEN - 8
        && let Some(bytes) = frame.bytes::<8>(last)
    {
        event.bytes[last..last + 8].copy_from_slice(bytes);
        snap = last + 8;
    }
    event.snap_len = snap as u8;
}
