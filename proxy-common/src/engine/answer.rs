//! The bytes of an answer: link, IP and transport headers with their checksums.
//!
//! Called by [`super::reject`] once it is decided that a packet is answered; writes into a buffer of fixed size, since the
//! kernel's stack has no room for a packet. What differs in length, the link header, ends where the IP header begins, so
//! every other header has a place that the verifier knows.

use super::reject::Answer;
use crate::packet::ethernet;
use crate::packet::{Addr, PacketInfo, PacketView, protocol};

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

/// Where the IP header begins in the buffer: behind room for the longest link header.
const NETWORK: usize = 24;
const ONE_TAG: usize = ethernet::HEADER + ethernet::TAG;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
/// Bytes quoted behind an IPv4 header: all that RFC 792 asks for.
const QUOTE_V4: usize = 8;
/// Bytes quoted of an IPv6 packet: its header, and the transport header with its options or with a few extension headers.
/// RFC 4443 section 2.4 (c) allows up to 1,232 bytes. Receivers need no more than the ports to find their socket, what is
/// longer would make a forged source worth something, and the verifier walks the loop that copies them.
const QUOTE_V6: usize = IPV6_HEADER + 64;
const LONGEST_QUOTE: usize = QUOTE_V6;
/// Latest start of an answer: one without VLAN tags.
pub const LAST_START: usize = NETWORK - ethernet::HEADER;
/// Longest answer: two VLAN tags, and ICMPv6 with a full quote.
pub const LONGEST: usize = ethernet::HEADER + 2 * ethernet::TAG + IPV6_HEADER + ICMP_HEADER + QUOTE_V6;

const HOPS: u8 = 64;
/// ICMP, "destination unreachable".
const UNREACHABLE: u8 = 3;
/// The same of ICMPv6.
const UNREACHABLE_V6: u8 = 1;

const _: () = assert!(NETWORK >= ethernet::HEADER + 2 * ethernet::TAG);
const _: () = assert!(NETWORK + IPV6_HEADER + ICMP_HEADER + LONGEST_QUOTE <= size_of::<Buffer>());
// An IPv4 header has at most 60 bytes.
const _: () = assert!(60 + QUOTE_V4 <= LONGEST_QUOTE);

/// Writes the answer to a packet; `None` if the frame can't be read where it was read before.
#[inline(always)]
pub fn write<V: PacketView>(view: &V, p: &PacketInfo, answer: Answer, buffer: &mut Buffer) -> Option<Extent> {
    let network_at = ethernet::parse(view).ok()?.network_at;
    let start = match network_at {
        ethernet::HEADER => link::<_, { ethernet::HEADER }>(view, buffer)?,
        ONE_TAG => link::<_, ONE_TAG>(view, buffer)?,
        _ => link::<_, { ethernet::HEADER + 2 * ethernet::TAG }>(view, buffer)?,
    };
    let network_at = view.forget(network_at as u64) as usize;
    let start = view.forget(start as u64) as usize;
    let header_len = if p.v6 { IPV6_HEADER } else { IPV4_HEADER };
    let payload_len = match (answer, p.v6) {
        (Answer::Reset { sequence, acknowledgement, flags }, v6) => {
            let at = if v6 { NETWORK + IPV6_HEADER } else { NETWORK + IPV4_HEADER };
            reset(p, [sequence, acknowledgement], flags, buffer, at);
            TCP_HEADER
        }
        (Answer::Unreachable { code }, false) => {
            let wanted = p.transport_at - network_at + QUOTE_V4;
            unreachable::<_, { NETWORK + IPV4_HEADER }>(
                view,
                p,
                network_at,
                wanted,
                [UNREACHABLE, code],
                buffer,
            )
        }
        (Answer::Unreachable { code }, true) => unreachable::<_, { NETWORK + IPV6_HEADER }>(
            view,
            p,
            network_at,
            QUOTE_V6,
            [UNREACHABLE_V6, code],
            buffer,
        ),
    };
    let transport = match (answer, p.v6) {
        (Answer::Reset { .. }, _) => protocol::TCP,
        (Answer::Unreachable { .. }, false) => protocol::ICMP,
        (Answer::Unreachable { .. }, true) => protocol::ICMPV6,
    };
    if p.v6 {
        ipv6(p, transport, payload_len, buffer);
    } else {
        ipv4(p, transport, payload_len, buffer);
    }
    Some(Extent { start, len: NETWORK - start + header_len + payload_len })
}

/// The link header turned round, tags and all, up to [`NETWORK`]; gives where it begins.
#[inline(always)]
fn link<V: PacketView, const N: usize>(view: &V, buffer: &mut Buffer) -> Option<usize> {
    let header: &[u8; N] = view.bytes(0)?;
    let start = NETWORK - N;
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
fn ipv4(p: &PacketInfo, transport: u8, payload_len: usize, buffer: &mut Buffer) {
    let total = (IPV4_HEADER + payload_len) as u16;
    let (source, destination) = ((p.destination.hi >> 32) as u32, (p.source.hi >> 32) as u32);
    let sum = 0x4500 + 0x4000 + total as u64 + ((HOPS as u64) << 8 | transport as u64);
    let sum = checksum(sum + sum_of(p.source) + sum_of(p.destination));
    put(buffer, NETWORK, [0x45, 0]);
    put(buffer, NETWORK + 2, total.to_be_bytes());
    put(buffer, NETWORK + 4, [0, 0, 0x40, 0, HOPS, transport]);
    put(buffer, NETWORK + 10, sum.to_be_bytes());
    put(buffer, NETWORK + 12, source.to_be_bytes());
    put(buffer, NETWORK + 16, destination.to_be_bytes());
}

#[inline(always)]
fn ipv6(p: &PacketInfo, transport: u8, payload_len: usize, buffer: &mut Buffer) {
    put(buffer, NETWORK, [0x60, 0, 0, 0]);
    put(buffer, NETWORK + 4, (payload_len as u16).to_be_bytes());
    put(buffer, NETWORK + 6, [transport, HOPS]);
    for (at, half) in [p.destination.hi, p.destination.lo, p.source.hi, p.source.lo].into_iter().enumerate() {
        put(buffer, NETWORK + 8 + 8 * at, half.to_be_bytes());
    }
}

#[inline(always)]
fn reset(p: &PacketInfo, numbers: [u32; 2], flags: u8, buffer: &mut Buffer, at: usize) {
    let [sequence, acknowledgement] = numbers;
    let offset_and_flags = [(TCP_HEADER as u8 / 4) << 4, flags];
    let halves = |number: u32| (number >> 16) as u64 + (number & 0xffff) as u64;
    let sum = pseudo_header(p, protocol::TCP, TCP_HEADER)
        + p.source_port as u64
        + p.destination_port as u64
        + halves(sequence)
        + halves(acknowledgement)
        + u16::from_be_bytes(offset_and_flags) as u64;
    put(buffer, at, p.destination_port.to_be_bytes());
    put(buffer, at + 2, p.source_port.to_be_bytes());
    put(buffer, at + 4, sequence.to_be_bytes());
    put(buffer, at + 8, acknowledgement.to_be_bytes());
    put(buffer, at + 12, offset_and_flags);
    put(buffer, at + 14, [0, 0]);
    put(buffer, at + 16, checksum(sum).to_be_bytes());
    put(buffer, at + 18, [0, 0]);
}

/// The message at `AT`, with up to `wanted` bytes of the packet at `network_at`; gives its length.
#[inline(always)]
fn unreachable<V: PacketView, const AT: usize>(
    view: &V,
    p: &PacketInfo,
    network_at: usize,
    wanted: usize,
    kind: [u8; 2],
    buffer: &mut Buffer,
) -> usize {
    let there = p.end.wrapping_sub(network_at);
    let wanted = if wanted < there { wanted } else { there };
    let (quoted, sum) = quote::<V, { LONGEST_QUOTE / 2 }>(view, network_at, wanted, buffer, AT + ICMP_HEADER);
    let len = ICMP_HEADER + quoted;
    let pseudo = if p.v6 { pseudo_header(p, protocol::ICMPV6, len) } else { 0 };
    let sum = checksum(view.forget(pseudo + sum + u16::from_be_bytes(kind) as u64));
    put(buffer, AT, kind);
    put(buffer, AT + 2, sum.to_be_bytes());
    put(buffer, AT + 4, [0; 4]);
    len
}

/// Copies up to `wanted` bytes of the packet, at most `PAIRS` pairs; gives how many, and their sum.
#[inline(always)]
fn quote<V: PacketView, const PAIRS: usize>(
    view: &V,
    from: usize,
    wanted: usize,
    buffer: &mut Buffer,
    to: usize,
) -> (usize, u64) {
    let mask = buffer.len() - 1;
    let (mut quoted, mut sum) = (0, 0);
    for _ in 0..PAIRS {
        if quoted + 2 > wanted {
            break;
        }
        let Some([a, b]) = view.bytes::<2>(from + quoted).copied() else { break };
        buffer[(to + quoted) & mask] = a;
        buffer[(to + quoted + 1) & mask] = b;
        sum += u16::from_be_bytes([a, b]) as u64;
        quoted += 2;
    }
    if wanted == quoted + 1
        // With the byte before it: the verifier does not follow a check of one byte alone.
        && let Some([_, last]) = view.bytes::<2>((from + quoted).wrapping_sub(1))
    {
        buffer[(to + quoted) & mask] = *last;
        sum += (*last as u64) << 8;
        quoted += 1;
    }
    (view.forget(quoted as u64) as usize, view.forget(sum))
}

/// What TCP's and ICMPv6's checksums cover besides the message (RFC 9293 section 3.1, RFC 8200 section 8.1). Which of the
/// addresses is the source makes no difference.
#[inline(always)]
const fn pseudo_header(p: &PacketInfo, transport: u8, len: usize) -> u64 {
    sum_of(p.source) + sum_of(p.destination) + transport as u64 + len as u64
}

#[inline(always)]
const fn sum_of(address: Addr) -> u64 {
    words(address.hi) + words(address.lo)
}

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
