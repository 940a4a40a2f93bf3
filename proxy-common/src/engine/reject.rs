//! Whether a packet that was dropped is answered, and by what: TCP's reset, or an ICMP error.
//!
//! Called by `proxy-ebpf` after the packet has been judged and counted, on the way that only rejected packets take; so it
//! parses and decides once more, and the way of all others carries nothing of it. What the answer looks like byte by byte is
//! in [`super::answer`].
//!
//! An answer goes to whoever the source address names, so it must never be worth forging a source for: it is not larger
//! than a quote needs, there is none to what could be an answer itself, and all of them together are limited.

use super::answer::Plan;
use super::limiter::Charge;
use super::{Tables, decide, flow, port_index};
use crate::abi::decision::REJECT;
use crate::abi::reason::Reason;
use crate::packet::transport::{ACK, FIN, RST, SYN};
use crate::packet::{Addr, Fragment, PacketInfo, PacketView, icmp, parse, protocol};

/// What a rejected packet is answered with: a TCP reset (RFC 9293 section 3.10.7.1), or "destination unreachable" of ICMP or
/// ICMPv6. Not an enum: the fields that one kind lacks would be undefined in the kernel's program, and the verifier refuses
/// to copy those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A reset, else an ICMP error.
    pub(super) is_reset: bool,
    /// The flags of a reset, else the code.
    pub(super) detail: u8,
    /// Of a reset: sequence and acknowledgement number, the latter 0 without its flag.
    pub(super) numbers: [u32; 2],
}

impl Answer {
    #[inline(always)]
    const fn reset(sequence: u32, acknowledgement: u32, flags: u8) -> Self {
        Self { is_reset: true, detail: flags, numbers: [sequence, acknowledgement] }
    }

    #[inline(always)]
    const fn unreachable(code: u8) -> Self {
        Self { is_reset: false, detail: code, numbers: [0; 2] }
    }
}

/// ICMP, "port unreachable": what a closed UDP port says.
const PORT: u8 = 3;
/// ICMP, "communication administratively prohibited" (RFC 1812 section 5.2.7.1).
const PROHIBITED: u8 = 13;
/// ICMPv6, "port unreachable" (RFC 4443 section 3.1).
const PORT_V6: u8 = 4;
/// ICMPv6, "communication with destination administratively prohibited".
const PROHIBITED_V6: u8 = 1;

/// True if packets that end with this reason may have been rejected.
#[inline(always)]
pub const fn may_follow(reason: Reason) -> bool {
    matches!(reason, Reason::ServiceRefused | Reason::ServiceDenied | Reason::NoService)
}

/// Whether a packet is to be answered that was dropped with a reason which [`may_follow`]; gives how, and what is to be
/// charged for it: one to the source's bucket, and one to the bucket of all. If that is granted, [`super::answer::write`]
/// makes the answer.
///
/// In three steps, because each is a function of its own in the kernel: one within another would need more stack than there
/// is.
#[inline(always)]
pub fn consider<V: PacketView, T: Tables>(view: &V, tables: &T) -> Option<(Plan, Charge)> {
    let p = parse(view).ok()?;
    if decide(tables, p.source, p.v6, port_index(&p))?.flags & REJECT == 0 {
        return None;
    }
    let answer = answer_to(view, &p)?;
    // A SYN amid a connection that this host began. The other side would find the answer's numbers wrong, but `tc_egress`
    // would take it for the connection's end.
    if p.protocol == protocol::TCP && flow::is_live(tables, &p) {
        return None;
    }
    let charge = Charge {
        first: tables.setting(|s| &s.reject_first_bucket) as u16,
        count: tables.setting(|s| &s.reject_buckets) as u8,
        v6: p.v6,
        opens: false,
        source_hi: p.source.hi,
        packets: 1,
        bytes: 0,
    };
    Some((Plan::new(view, &p, answer)?, charge))
}

/// The answer to a packet; `None` if it must not be answered (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
#[inline(always)]
pub fn answer_to<V: PacketView>(view: &V, p: &PacketInfo) -> Option<Answer> {
    // Only the first fragment could be, and the rest of its datagram may never come.
    if p.fragment != Fragment::Whole || !is_one_host(p.source, p.v6) || !is_one_host(p.destination, p.v6) {
        return None;
    }
    // The group bit of a link address (IEEE 802): whoever sends to all would hear from all.
    let link: &[u8; 12] = view.bytes(0)?;
    if (link[0] | link[6]) & 1 != 0 {
        return None;
    }
    if p.protocol == protocol::TCP {
        return reset(view, p);
    }
    // Never an error about an error, about discovery, or about what nobody waits for.
    if matches!(p.protocol, protocol::ICMP | protocol::ICMPV6) && !icmp::is_echo_request(p) {
        return None;
    }
    let code = match (p.protocol, p.v6) {
        (protocol::UDP, false) => PORT,
        (protocol::UDP, true) => PORT_V6,
        (_, false) => PROHIBITED,
        (_, true) => PROHIBITED_V6,
    };
    Some(Answer::unreachable(code))
}

#[inline(always)]
fn reset<V: PacketView>(view: &V, p: &PacketInfo) -> Option<Answer> {
    if p.tcp_flags & RST != 0 {
        return None;
    }
    let h: &[u8; 20] = view.bytes(p.transport_at)?;
    if p.tcp_flags & ACK != 0 {
        let sequence = u32::from_be_bytes([h[8], h[9], h[10], h[11]]);
        return Some(Answer::reset(sequence, 0, RST));
    }
    // SYN and FIN have a sequence number each.
    let header_len = (h[12] >> 4) as usize * 4;
    let data = p.end.wrapping_sub(p.transport_at).wrapping_sub(header_len) as u32;
    let marks = (p.tcp_flags & SYN != 0) as u32 + (p.tcp_flags & FIN != 0) as u32;
    let sequence = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    let acknowledgement = sequence.wrapping_add(data).wrapping_add(marks);
    Some(Answer::reset(0, acknowledgement, RST | ACK))
}

/// True if an address names one host, as far as it can be told without knowing its network: no unspecified, loopback,
/// multicast, limited broadcast or reserved address.
#[inline(always)]
const fn is_one_host(address: Addr, v6: bool) -> bool {
    let many = if v6 { address.hi >> 56 == 0xff } else { address.hi >> 61 == 0b111 || address.hi >> 56 == 0 };
    !many && !address.is_never_on_a_network(v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Slice;

    /// A TCP header with options of 4 bytes, behind Ethernet and IPv4.
    fn segment(flags: u8, sequence: u32, acknowledgement: u32, data: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 44 + data as u8];
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x9c, 0x40, 0, 22]);
        frame.extend(sequence.to_be_bytes());
        frame.extend(acknowledgement.to_be_bytes());
        frame.extend([6 << 4, flags, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
        frame.resize(frame.len() + data, b'x');
        frame
    }

    fn answer(frame: &[u8]) -> Option<Answer> {
        let view = Slice(frame);
        answer_to(&view, &parse(&view).expect("a packet"))
    }

    #[test]
    fn resets_have_the_numbers_of_rfc_9293() {
        let without_ack = |acknowledgement| Answer::reset(0, acknowledgement, RST | ACK);
        assert_eq!(answer(&segment(SYN, 7, 0, 0)), Some(without_ack(8)));
        assert_eq!(answer(&segment(SYN, u32::MAX, 0, 5)), Some(without_ack(5)));
        let with_ack = Answer::reset(9, 0, RST);
        for flags in [ACK, ACK | FIN, ACK | SYN] {
            assert_eq!(answer(&segment(flags, 7, 9, 3)), Some(with_ack));
        }
    }

    #[test]
    fn padding_of_the_frame_is_no_data() {
        let mut padded = segment(SYN, 7, 0, 0);
        padded.resize(padded.len() + 6, 0);
        assert_eq!(answer(&padded), answer(&segment(SYN, 7, 0, 0)));
    }

    #[test]
    fn a_reset_is_not_answered() {
        assert_eq!(answer(&segment(RST, 7, 0, 0)), None);
        assert_eq!(answer(&segment(RST | ACK, 7, 9, 0)), None);
    }

    #[test]
    fn groups_are_not_answered_and_answer_nothing() {
        for (at, byte) in
            [(0, 0xff), (0, 1), (6, 1), (26, 224), (26, 255), (30, 239), (30, 255), (26, 127), (26, 0)]
        {
            let mut frame = segment(SYN, 7, 0, 0);
            frame[at] = byte;
            assert_eq!(answer(&frame), None, "byte {at}: {byte}");
        }
        for (address, one) in [
            ([0xfe80 << 48, 1], true),
            ([0x2001_0db8 << 32, 9], true),
            ([0xff02 << 48, 1], false),
            ([0, 0], false),
            ([0, 1], false),
        ] {
            assert_eq!(is_one_host(Addr { hi: address[0], lo: address[1] }, true), one, "{address:x?}");
        }
    }

    #[test]
    fn codes_follow_the_protocol() {
        let of = |protocol: u8, payload: [u8; 8]| {
            let mut frame = segment(SYN, 0, 0, 0);
            frame.truncate(34);
            (frame[17], frame[23]) = (28, protocol);
            frame.extend(payload);
            answer(&frame)
        };
        let unreachable = |code| Some(Answer::unreachable(code));
        assert_eq!(of(protocol::UDP, [0, 53, 0, 99, 0, 8, 0, 0]), unreachable(3));
        assert_eq!(of(protocol::ICMP, [8, 0, 0, 0, 0, 1, 0, 1]), unreachable(13));
        assert_eq!(of(47, [0; 8]), unreachable(13));
        // An error, an echo reply, a timestamp, and ICMPv6 where it does not belong.
        for kind in [3, 11, 0, 13] {
            assert_eq!(of(protocol::ICMP, [kind, 0, 0, 0, 0, 1, 0, 1]), None, "{kind}");
        }
        assert_eq!(of(protocol::ICMPV6, [128, 0, 0, 0, 0, 1, 0, 1]), None);
    }

    #[test]
    fn fragments_are_not_answered() {
        let mut first = segment(SYN, 7, 0, 0);
        first[20] = 0x20;
        assert_eq!(answer(&first), None);
        let mut later = segment(SYN, 7, 0, 4);
        later[21] = 4;
        assert_eq!(answer(&later), None);
    }
}
