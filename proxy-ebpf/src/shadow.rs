//! Shadow runs: a candidate judges what the policy in force has judged, and counts where the two differ.
//!
//! ```text
//! xdp_ingress ─ judges, counts, reports ─► CARRY ─ tail call ─► xdp_shadow ─ judges ─ compares ─► returns what was carried
//! tc_ingress  ─ the same ──────────────────────────────────────► tc_shadow ─ the same, or ─ tail call ─► tc_answer
//! ```
//!
//! The programs on the left are those of the policy in force, those on the right belong to an instance of the candidate with
//! tables, limits and fragments of its own; flows and bans are the live ones, which it reads (`Maps<false>`). A tail call that
//! does not come off leaves the verdict as it is, so no shadow can change one. A rejected packet is compared before it becomes
//! the answer to it: `tc_answer` is the rest of the program in force. Where no shadow runs, the constant `shadowed` is 0 and the
//! verifier removes all of this.

use core::cell::Cell;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST, TC_ACT_SHOT, xdp_action, xdp_md};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{TcContext, XdpContext};
use proxy_common::abi::counter::Counter;
use proxy_common::abi::reason::{Reason, Verdict};
use proxy_common::abi::shadow::{Carry, Compared, Pair, Place, Seen};
use proxy_common::engine::{self, Outcome, Tables as _};
use proxy_common::packet::{Fragment, PacketView as _, parse, protocol};

use crate::maps::{ANSWER_TC, CARRY, COMPARED, NEWLY_DROPPED, NEWLY_PASSED, PAIRS, SHADOW_TC, SHADOW_XDP};
use crate::reject;
use crate::tables::{IN_FORCE, IN_SHADOW};
use crate::tc::{frame, in_place};
use crate::view::Frame;

/// Hands a packet on to the shadow, if one runs; comes back if there is none.
#[inline(always)]
pub fn after_xdp(ctx: &XdpContext, outcome: Outcome, action: u32) {
    if is_shadowed() && carry(outcome, action, false) {
        // SAFETY: nothing here has a destructor. If it comes back, the caller returns what was carried.
        unsafe { SHADOW_XDP.tail_call(ctx, 0) };
    }
}

/// The same for TC.
#[inline(always)]
pub fn after_tc(ctx: &TcContext, outcome: Outcome, action: i32) {
    let may_be_answered = action == TC_ACT_SHOT && reject::may_be_answered(outcome);
    if is_shadowed() && carry(outcome, action as u32, may_be_answered) {
        // SAFETY: as above.
        unsafe { SHADOW_TC.tail_call(ctx, 0) };
    }
}

#[inline(always)]
fn is_shadowed() -> bool {
    IN_FORCE.setting(|s| &s.shadowed) != 0
}

#[inline(always)]
fn carry(outcome: Outcome, action: u32, may_be_answered: bool) -> bool {
    let Some(carry) = CARRY.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own copy; between here and the shadow no other packet is judged on it.
    let carry = unsafe { &mut *carry };
    carry.action = action;
    carry.rule = outcome.rule;
    carry.reason = outcome.reason as u8;
    carry.may_be_answered = may_be_answered as u8;
    true
}

/// What was carried. There is an element, so its absence need not be sensible, only safe.
#[inline(always)]
fn carried() -> Option<Carry> {
    // SAFETY: as in `carry`.
    CARRY.get_ptr(0).map(|carry| unsafe { carry.read() })
}

/// The candidate's judgement on a frame that `xdp_ingress` has judged.
#[xdp(frags)]
pub fn xdp_shadow(ctx: XdpContext) -> u32 {
    let buffers = Some(ctx.as_ptr().cast());
    beside_xdp(&ctx, buffers)
}

/// The same beside `xdp_linear`.
#[xdp]
pub fn xdp_shadow_linear(ctx: XdpContext) -> u32 {
    beside_xdp(&ctx, None)
}

#[inline(always)]
fn beside_xdp(ctx: &XdpContext, buffers: Option<*mut xdp_md>) -> u32 {
    let (data, data_end) = (ctx.data(), ctx.data_end());
    let frame = Frame { data, data_end, len: Cell::new(data_end - data), buffers, packets: 1 };
    let outcome = engine::ingress(&frame, &IN_SHADOW);
    let Some(carry) = carried() else { return xdp_action::XDP_DROP };
    if !is_alike(&frame, carry, outcome) {
        place_xdp(ctx.ctx, frame.len() as u32);
        note(&frame, carry, outcome);
    }
    carry.action
}

/// The candidate's judgement on a packet that `tc_ingress` has judged.
#[classifier]
pub fn tc_shadow(ctx: TcContext) -> i32 {
    let frame = frame(&ctx);
    let outcome = engine::ingress(&frame, &IN_SHADOW);
    let Some(carry) = carried() else { return TC_ACT_SHOT };
    if !is_alike(&frame, carry, outcome) {
        place_tc(ctx.skb.skb);
        note(&frame, carry, outcome);
    }
    if carry.may_be_answered != 0 {
        // SAFETY: as in `after_xdp`. If it comes back, the packet is dropped as it was to be, and not answered.
        unsafe { ANSWER_TC.tail_call(&ctx, 0) };
    }
    carry.action as i32
}

/// The end of `tc_ingress` for a dropped packet that may be answered, once its shadow has seen it.
#[classifier]
pub fn tc_answer(ctx: TcContext) -> i32 {
    reject::answer(&ctx)
}

/// True if both let the packet pass or both drop it: then it is counted already.
#[inline(always)]
fn is_alike(frame: &Frame, carry: Carry, outcome: Outcome) -> bool {
    let alike = (Reason::from_number(carry.reason).verdict() as u8) == (outcome.verdict() as u8);
    if alike {
        count(frame.packets as u64, frame.len() as u64, |compared| &mut compared.alike);
    }
    alike
}

#[inline(always)]
fn count(packets: u64, bytes: u64, which: impl FnOnce(&mut Compared) -> &mut Counter) {
    if let Some(compared) = COMPARED.get_ptr_mut(0) {
        // SAFETY: this CPU's own copy, as in `finish`.
        let counter = which(unsafe { &mut *compared });
        counter.packets += packets;
        counter.bytes += bytes;
    }
}

#[inline(always)]
fn note(frame: &Frame, carry: Carry, outcome: Outcome) {
    let (said, shadow_said) = (pack(carry.reason, carry.rule), pack(outcome.reason as u8, outcome.rule));
    count_difference(said, shadow_said, (frame.packets as u64) << 32 | frame.len() as u64);
}

/// A reason and its rule in one number.
#[inline(always)]
fn pack(reason: u8, rule: u16) -> u32 {
    (rule as u32) << 8 | reason as u32
}

/// Notes whose packet it is that the two treat differently, at XDP. Global functions, this one and the next two, one after another:
/// the verifier checks each once by itself, and not what the last does for each way through the parser.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn place_xdp(ctx: *mut xdp_md, frame_len: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (data, data_end) = (ctx.data(), ctx.data_end());
    // Its length is known by now: to ask for it once more is what kernels before 5.18 can't.
    place(&Frame { data, data_end, len: Cell::new(frame_len as usize), buffers: None, packets: 1 });
    0
}

/// The same for TC.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn place_tc(skb: *mut __sk_buff) -> u32 {
    place(&in_place(&TcContext::new(skb)));
    0
}

#[inline(always)]
fn place(frame: &Frame) {
    let Some(carry) = CARRY.get_ptr_mut(0) else { return };
    // SAFETY: as in `carry`.
    let carry = unsafe { &mut *carry };
    (carry.source, carry.port, carry.protocol, carry.family) = ([0; 2], 0, 0, 0);
    // What one of the two lets pass and the other does not is IP.
    let Ok(p) = parse(frame) else { return };
    carry.source = [p.source.hi, p.source.lo];
    carry.protocol = p.protocol;
    carry.family = if p.v6 { 6 } else { 4 };
    if p.fragment != Fragment::Later && matches!(p.protocol, protocol::TCP | protocol::UDP) {
        carry.port = p.destination_port;
    }
}

/// Counts a packet that the two treat differently and whose place is noted. `amount`: packets, then bytes, 32 bits each.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_difference(said: u32, shadow_said: u32, amount: u64) -> u32 {
    let (packets, bytes) = (amount >> 32, amount & 0xffff_ffff);
    let (reason, shadow_reason) = (Reason::from_number(said as u8), Reason::from_number(shadow_said as u8));
    let mut pair = Pair {
        rule: if reason.has_rule() { (said >> 8) as u16 } else { 0 },
        shadow_rule: if shadow_reason.has_rule() { (shadow_said >> 8) as u16 } else { 0 },
        reason: said as u8,
        shadow_reason: shadow_said as u8,
        family: 0,
        _pad: 0,
    };
    let Some(Carry { source, port, protocol, family, .. }) = carried() else { return 0 };
    let seen = Seen { packets, bytes, last_ns: IN_SHADOW.now_ns(), port, protocol, _pad: [0; 5] };
    add(&PAIRS, &pair, &seen);
    pair.family = family;
    let place = Place { source, pair };
    match reason.verdict() {
        Verdict::Pass => {
            count(packets, bytes, |compared| &mut compared.newly_dropped);
            if !add(&NEWLY_DROPPED, &place, &seen) {
                count(packets, bytes, |compared| &mut compared.dropped_unlisted);
            }
        }
        Verdict::Drop => {
            count(packets, bytes, |compared| &mut compared.newly_passed);
            if !add(&NEWLY_PASSED, &place, &seen) {
                count(packets, bytes, |compared| &mut compared.passed_unlisted);
            }
        }
    }
    0
}

/// Adds to an entry, or makes it; false if there is no room. Nothing is evicted: what is listed is exact.
#[inline(always)]
fn add<K>(map: &HashMap<K, Seen>, key: &K, seen: &Seen) -> bool {
    if let Some(known) = map.get_ptr_mut(key) {
        add_to(known, seen);
        return true;
    }
    if map.insert(key, seen, BPF_NOEXIST.into()).is_ok() {
        return true;
    }
    // Another CPU was faster, or the map is full.
    let Some(known) = map.get_ptr_mut(key) else { return false };
    add_to(known, seen);
    true
}

#[inline(always)]
fn add_to(known: *mut Seen, seen: &Seen) {
    // SAFETY: aligned live map memory; what another CPU adds meanwhile is not lost.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*known).packets, seen.packets) };
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*known).bytes, seen.bytes) };
    // SAFETY: as above; of several CPUs any may be the last.
    unsafe { (&raw mut (*known).last_ns).write_volatile(seen.last_ns) };
    // SAFETY: as above.
    unsafe { (&raw mut (*known).port).write_volatile(seen.port) };
    // SAFETY: as above.
    unsafe { (&raw mut (*known).protocol).write_volatile(seen.protocol) };
}
