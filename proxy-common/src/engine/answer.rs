//! The bytes of an answer: link, IP and transport headers with their checksums.
//!
//! Called by [`super::reject`] once it is decided that a packet is answered; writes into a buffer of fixed size, since the
//! kernel's stack has no room for a packet. The transport header has one place there, whatever is in front of it, and the
//! headers in front end where it begins: so the verifier knows every place, and walks the loop that quotes once.

use super::reject::Answer;
use crate::packet::{PacketInfo, PacketView, ethernet, protocol};

/// Where an answer is written; a power of two, so that a mask keeps an index within.
pub type Buffer = [u8; 256];

/// Where an answer lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte; at most [`LAST_START`].
    pub start: usize,
    /// Length; at most [`LONGEST`].
    pub len: usize,
}

impl Extent {
    /// The answer.
    pub fn of<'a>(&self, buffer: &'a Buffer) -> &'a [u8] {
        buffer.get(self.start..).and_then(|rest| rest.get(..self.len)).unwrap_or_default()
    }
}

/// All that an answer is made of besides the packet's bytes. Numbers alone: whatever is in memory is a valid value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    source: [u64; 2],
    destination: [u64; 2],
    /// Ports of the packet.
    ports: [u16; 2],
    /// Of a reset: sequence and acknowledgement.
    numbers: [u32; 2],
    /// `V6` and `RESET`.
    kind: u32,
    /// Of a reset its flags, else the code.
    detail: u32,
    /// Where the packet's IP header begins.
    network_at: u32,
    /// Bytes of the packet to quote, from there on.
    quoted: u32,
}

/// [`Plan::kind`]: IPv6, else IPv4.
const V6: u32 = 1;
/// [`Plan::kind`]: a TCP reset, else an ICMP error.
const RESET: u32 = 2;

const ONE_TAG: usize = ethernet::HEADER + ethernet::TAG;
const TWO_TAGS: usize = ethernet::HEADER + 2 * ethernet::TAG;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
/// Where the transport header begins in the buffer: behind room for the longest headers before it.
const TRANSPORT: usize = 24 + IPV6_HEADER;
/// Bytes quoted behind an IPv4 header: all that RFC 792 asks for.
const QUOTE_V4: usize = 8;
/// Bytes quoted of an IPv6 packet: its header, and the transport header with its options or with a few extension headers.
/// RFC 4443 section 2.4 (c) allows up to 1,232 bytes. Receivers need no more than the ports to find their socket, what is
/// longer would make a forged source worth something, and the verifier walks the loop that copies them.
const QUOTE_V6: usize = IPV6_HEADER + 64;
/// Latest start of an answer: IPv4 without VLAN tags.
pub const LAST_START: usize = TRANSPORT - IPV4_HEADER - ethernet::HEADER;
/// Longest answer: two VLAN tags, and ICMPv6 with a full quote.
pub const LONGEST: usize = TWO_TAGS + IPV6_HEADER + ICMP_HEADER + QUOTE_V6;

const HOPS: u8 = 64;
/// ICMP, "destination unreachable".
const UNREACHABLE: u8 = 3;
/// The same of ICMPv6.
const UNREACHABLE_V6: u8 = 1;

const _: () = assert!(TRANSPORT >= TWO_TAGS + IPV6_HEADER);
const _: () = assert!(TRANSPORT + ICMP_HEADER + QUOTE_V6 <= size_of::<Buffer>());
const _: () = assert!(LAST_START + LONGEST <= size_of::<Buffer>());
// An IPv4 header has at most 60 bytes.
const _: () = assert!(60 + QUOTE_V4 <= QUOTE_V6);

impl Plan {
    /// For an answer to a packet; `None` for a frame that can't be read where it was read before.
    #[inline(always)]
    pub(super) fn new<V: PacketView>(view: &V, p: &PacketInfo, answer: Answer) -> Option<Self> {
        let network_at = ethernet::parse(view).ok()?.network_at;
        let there = p.end.wrapping_sub(network_at);
        let wanted =
            if p.v6 { QUOTE_V6 } else { p.transport_at.wrapping_sub(network_at).wrapping_add(QUOTE_V4) };
        Some(Self {
            source: [p.source.hi, p.source.lo],
            destination: [p.destination.hi, p.destination.lo],
            ports: [p.source_port, p.destination_port],
            numbers: answer.numbers,
            kind: (p.v6 as u32 * V6) | (answer.is_reset as u32 * RESET),
            detail: answer.detail as u32,
            network_at: network_at as u32,
            quoted: if wanted < there { wanted } else { there } as u32,
        })
    }

    /// What TCP's and ICMPv6's checksums cover besides the message (RFC 9293 section 3.1, RFC 8200 section 8.1). Which of
    /// the addresses is the source makes no difference.
    #[inline(always)]
    const fn pseudo_header(&self, transport: u8, len: usize) -> u64 {
        self.sum_of_addresses() + transport as u64 + len as u64
    }

    #[inline(always)]
    const fn sum_of_addresses(&self) -> u64 {
        let ([a, b], [c, d]) = (self.source, self.destination);
        words(a) + words(b) + words(c) + words(d)
    }
}

/// Writes an answer to the packet that it was planned for; `None` if the frame can't be read any more.
#[inline(always)]
pub fn write<V: PacketView>(view: &V, plan: &Plan, buffer: &mut Buffer) -> Option<Extent> {
    let (v6, is_reset) = (plan.kind & V6 != 0, plan.kind & RESET != 0);
    let payload_len = if is_reset {
        reset(plan, buffer);
        TCP_HEADER
    } else {
        unreachable(view, plan, v6, buffer)
    };
    let transport = match (is_reset, v6) {
        (true, _) => protocol::TCP,
        (false, false) => protocol::ICMP,
        (false, true) => protocol::ICMPV6,
    };
    let (transport, payload_len) =
        (view.forget(transport as u64) as u8, view.forget(payload_len as u64) as usize);
    let start = if v6 {
        ipv6(plan, transport, payload_len, buffer);
        link::<_, { TRANSPORT - IPV6_HEADER }>(view, plan, buffer)?
    } else {
        ipv4(plan, transport, payload_len, buffer);
        link::<_, { TRANSPORT - IPV4_HEADER }>(view, plan, buffer)?
    };
    Some(Extent { start, len: TRANSPORT - start + payload_len })
}

/// The link header up to `END`; gives where it begins.
#[inline(always)]
fn link<V: PacketView, const END: usize>(view: &V, plan: &Plan, buffer: &mut Buffer) -> Option<usize> {
    Some(match plan.network_at as usize {
        ethernet::HEADER => turned::<_, { ethernet::HEADER }>(view, END, buffer)?,
        ONE_TAG => turned::<_, ONE_TAG>(view, END, buffer)?,
        _ => turned::<_, TWO_TAGS>(view, END, buffer)?,
    })
}

/// A link header of `N` bytes turned round, tags and all.
#[inline(always)]
fn turned<V: PacketView, const N: usize>(view: &V, end: usize, buffer: &mut Buffer) -> Option<usize> {
    let header: &[u8; N] = view.bytes(0)?;
    let start = end - N;
    for (nth, byte) in header.iter().enumerate() {
        let to = match nth {
            0..6 => nth + 6,
            6..12 => nth - 6,
            _ => nth,
        };
        put(buffer, start + to, [*byte]);
    }
    Some(start)
}

/// From the packet's destination to its source. "Do not fragment" and identification 0 (RFC 6864 section 4).
#[inline(always)]
fn ipv4(plan: &Plan, transport: u8, payload_len: usize, buffer: &mut Buffer) {
    const AT: usize = TRANSPORT - IPV4_HEADER;
    let total = (IPV4_HEADER + payload_len) as u16;
    let (source, destination) = ((plan.destination[0] >> 32) as u32, (plan.source[0] >> 32) as u32);
    let fixed = 0x4500 + 0x4000 + ((HOPS as u64) << 8);
    let sum = checksum(fixed + total as u64 + transport as u64 + plan.sum_of_addresses());
    put(buffer, AT, [0x45, 0]);
    put(buffer, AT + 2, total.to_be_bytes());
    put(buffer, AT + 4, [0, 0, 0x40, 0, HOPS, transport]);
    put(buffer, AT + 10, sum.to_be_bytes());
    put(buffer, AT + 12, source.to_be_bytes());
    put(buffer, AT + 16, destination.to_be_bytes());
}

#[inline(always)]
fn ipv6(plan: &Plan, transport: u8, payload_len: usize, buffer: &mut Buffer) {
    const AT: usize = TRANSPORT - IPV6_HEADER;
    put(buffer, AT, [0x60, 0, 0, 0]);
    put(buffer, AT + 4, (payload_len as u16).to_be_bytes());
    put(buffer, AT + 6, [transport, HOPS]);
    let ([a, b], [c, d]) = (plan.destination, plan.source);
    for (nth, half) in [a, b, c, d].into_iter().enumerate() {
        put(buffer, AT + 8 + 8 * nth, half.to_be_bytes());
    }
}

#[inline(always)]
fn reset(plan: &Plan, buffer: &mut Buffer) {
    let ([to, from], [sequence, acknowledgement]) = (plan.ports, plan.numbers);
    let offset_and_flags = [(TCP_HEADER as u8 / 4) << 4, plan.detail as u8];
    let sum = plan.pseudo_header(protocol::TCP, TCP_HEADER)
        + to as u64
        + from as u64
        + words(sequence as u64)
        + words(acknowledgement as u64)
        + u16::from_be_bytes(offset_and_flags) as u64;
    put(buffer, TRANSPORT, from.to_be_bytes());
    put(buffer, TRANSPORT + 2, to.to_be_bytes());
    put(buffer, TRANSPORT + 4, sequence.to_be_bytes());
    put(buffer, TRANSPORT + 8, acknowledgement.to_be_bytes());
    put(buffer, TRANSPORT + 12, offset_and_flags);
    put(buffer, TRANSPORT + 14, [0, 0]);
    put(buffer, TRANSPORT + 16, checksum(sum).to_be_bytes());
    put(buffer, TRANSPORT + 18, [0, 0]);
}

/// The ICMP message; gives its length.
#[inline(always)]
fn unreachable<V: PacketView>(view: &V, plan: &Plan, v6: bool, buffer: &mut Buffer) -> usize {
    let (quoted, sum) = quote(view, plan, buffer);
    let len = ICMP_HEADER + quoted;
    let kind = [if v6 { UNREACHABLE_V6 } else { UNREACHABLE }, plan.detail as u8];
    // ICMP of IPv4 covers no addresses.
    let pseudo_header = if v6 { plan.pseudo_header(protocol::ICMPV6, len) } else { 0 };
    let sum = checksum(view.forget(pseudo_header) + sum + u16::from_be_bytes(kind) as u64);
    put(buffer, TRANSPORT, kind);
    put(buffer, TRANSPORT + 2, sum.to_be_bytes());
    put(buffer, TRANSPORT + 4, [0; 4]);
    len
}

/// Copies what is to be quoted; gives how many bytes, and their sum.
#[inline(always)]
fn quote<V: PacketView>(view: &V, plan: &Plan, buffer: &mut Buffer) -> (usize, u64) {
    const TO: usize = TRANSPORT + ICMP_HEADER;
    let mask = buffer.len() - 1;
    let (from, wanted) = (plan.network_at as usize, plan.quoted as usize);
    let (mut quoted, mut sum) = (0, 0);
    for _ in 0..QUOTE_V6 / 2 {
        if quoted + 2 > wanted {
            break;
        }
        let Some([a, b]) = view.bytes::<2>(from + quoted).copied() else { break };
        buffer[(TO + quoted) & mask] = a;
        buffer[(TO + quoted + 1) & mask] = b;
        sum += u16::from_be_bytes([a, b]) as u64;
        quoted += 2;
    }
    let (mut quoted, mut sum) = (view.forget(quoted as u64) as usize, view.forget(sum));
    if wanted == quoted + 1
        // With the byte before it: the verifier does not follow a check of one byte alone.
        && let Some([_, last]) = view.bytes::<2>((from + quoted).wrapping_sub(1))
    {
        buffer[(TO + quoted) & mask] = *last;
        sum += (*last as u64) << 8;
        quoted += 1;
    }
    (view.forget(quoted as u64) as usize, view.forget(sum))
}

/// The sum of the four 16-bit words of a number.
#[inline(always)]
const fn words(n: u64) -> u64 {
    (n >> 48) + (n >> 32 & 0xffff) + (n >> 16 & 0xffff) + (n & 0xffff)
}

/// The Internet checksum (RFC 1071) of a sum of 16-bit words.
#[inline(always)]
const fn checksum(sum: u64) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + (sum & 0xffff)) as u16
}

/// Writes bytes at a place that is a constant at each call, so that the bound folds away.
#[inline(always)]
fn put<const K: usize>(buffer: &mut Buffer, at: usize, bytes: [u8; K]) {
    if let Some(place) = buffer.get_mut(at..at + K) {
        place.copy_from_slice(&bytes);
    }
}
