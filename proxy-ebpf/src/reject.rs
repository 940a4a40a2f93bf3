//! Answers packets that a policy rejects: the dropped skb becomes the answer and leaves by the interface that it came by.
//!
//! Called by `tc_ingress` for packets that are already judged and counted as dropped. XDP has no part in this: whether
//! `XDP_TX` works depends on the driver and, for veth, on the peer. What the answer is and whether there is one is decided
//! and written by `proxy_common::engine::reject`; here is how an skb is made into it.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INVALIDATE_HASH, BPF_F_RECOMPUTE_CSUM, TC_ACT_REDIRECT, TC_ACT_SHOT,
};
use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use proxy_common::abi::counter::Answers;
use proxy_common::engine::answer::{Extent, LAST_START, LONGEST, write};
use proxy_common::engine::limiter::Charge;
use proxy_common::engine::reject::{consider, may_follow};
use proxy_common::engine::{Outcome, Tables as _};

use crate::maps::{ANSWERS, SCRATCH, Scratch};
use crate::tables::IN_FORCE;
use crate::tc::in_place;
use crate::view::opaque;

/// `skb->pkt_type`: for this host (`linux/if_packet.h`), by its link address.
const PACKET_HOST: u32 = 0;
/// Bytes that are put in front of the answer and taken away again: see [`become_answer`]. More than any transport header's
/// place in a packet that the parser takes.
const LEAD: u32 = 1024;

/// What a dropped packet's program returns: the packet is gone in any case, and its skb perhaps on its way back.
#[inline(always)]
pub fn dropped(ctx: &TcContext, outcome: Outcome) -> i32 {
    if !may_be_answered(outcome) {
        return TC_ACT_SHOT;
    }
    answer(ctx)
}

/// False if a dropped packet has no answer. Where nothing is rejected, the verifier knows this constant and removes all that
/// follows.
#[inline(always)]
pub fn may_be_answered(outcome: Outcome) -> bool {
    IN_FORCE.setting(|s| &s.reject_buckets) != 0 && may_follow(outcome.reason)
}

/// Answers a dropped packet, if its cell says so: what its program returns.
#[inline(always)]
pub fn answer(ctx: &TcContext) -> i32 {
    if consider_answer(ctx.skb.skb) == 0 {
        return TC_ACT_SHOT;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: this CPU's own copy; a program is not interrupted by another on the same CPU that answers.
    let charge = unsafe { (*scratch).charge };
    if IN_FORCE.charge(Charge::from_words(charge)).is_some() {
        count(|answers| &mut answers.throttled);
        return TC_ACT_SHOT;
    }
    if send_answer(ctx.skb.skb) == 0 {
        count(|answers| &mut answers.failed);
        return TC_ACT_SHOT;
    }
    count(|answers| &mut answers.sent);
    TC_ACT_REDIRECT as i32
}

/// 1 if a packet that was dropped is to be answered; what is to be charged for that is then in [`SCRATCH`]. A global function:
/// the verifier checks it once by itself, and what it costs is no part of the path that other packets take.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn consider_answer(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a read of this program's own context.
    let pkt_type = unsafe { (*skb).pkt_type };
    // To all, to a group, or to somebody else and seen by a promiscuous interface.
    if pkt_type != PACKET_HOST {
        return 0;
    }
    let Some((plan, charge)) = consider(&in_place(&TcContext::new(skb)), &IN_FORCE) else { return 0 };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: as in `dropped`.
    let scratch = unsafe { &mut *scratch };
    scratch.plan = plan;
    scratch.charge = charge.to_words();
    1
}

/// Makes the skb the answer to the packet in it, and names the interface that it leaves by; 0 if that fails. Global as
/// [`consider_answer`] is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_answer(skb: *mut __sk_buff) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: as in `dropped`.
    let Scratch { plan, answer, .. } = unsafe { &mut *scratch };
    let Some(extent) = write(&in_place(&TcContext::new(skb)), plan, answer) else { return 0 };
    if !become_answer(skb, extent, answer.as_ptr()) {
        return 0;
    }
    // SAFETY: a read of this program's own context.
    let interface = unsafe { (*skb).ifindex };
    // SAFETY: a helper without pointers.
    let action = unsafe { bpf_redirect(interface, 0) };
    (action == TC_ACT_REDIRECT.into()) as u32
}

/// Puts the answer in the place of the packet; false if the kernel refuses a step.
///
/// A packet that never was on a wire (from a container, a virtual machine) comes with an unfinished checksum, and the kernel
/// remembers where in the packet it is to be finished: it would finish the answer there and spoil it. No helper can tell, and
/// none takes that mark away, but one does it by the way: when the beginning of a packet is cut off up to behind the marked
/// place (`skb_postpull_rcsum`). So the skb is made longer than the answer by [`LEAD`] bytes, and they are cut off in front.
/// The first step also undoes what merged several packets into one (`skb_gso_reset`) and puts it into one piece.
#[inline(always)]
fn become_answer(skb: *mut __sk_buff, extent: Extent, buffer: *const u8) -> bool {
    let (start, len) = (opaque(extent.start), opaque(extent.len));
    if start > LAST_START || len == 0 || len > LONGEST {
        return false;
    }
    // SAFETY: a helper on this program's own context (Linux 4.9).
    let resized = unsafe { bpf_skb_change_tail(skb, len as u32 + LEAD, 0) };
    if resized != 0 {
        return false;
    }
    // SAFETY: as above (Linux 5.2). It refuses what is not IP behind the first link header: a second VLAN tag.
    let cut = unsafe { bpf_skb_adjust_room(skb, -(LEAD as i32), BPF_ADJ_ROOM_MAC, 0) };
    if cut != 0 {
        return false;
    }
    // SAFETY: at most `LAST_START`, within the buffer.
    let answer = unsafe { buffer.add(start) };
    let flags = (BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH).into();
    // SAFETY: `len` bytes from `answer` on are within the buffer, as checked above, which the verifier checks again.
    let written = unsafe { bpf_skb_store_bytes(skb, 0, answer.cast(), len as u32, flags) };
    written == 0
}

#[inline(always)]
fn count(which: impl FnOnce(&mut Answers) -> &mut u64) {
    if let Some(answers) = ANSWERS.get_ptr_mut(0) {
        // SAFETY: this CPU's own copy, as in `finish`.
        *which(unsafe { &mut *answers }) += 1;
    }
}
