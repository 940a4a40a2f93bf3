//! Fragments: the first is decided, the rest follows it.

use proxy_common::abi::reason::Reason;

use super::super::Reference;
use super::build::*;

const MORE: u16 = 0x2000;

fn reference() -> Reference {
    Reference::new(&policy(), "eth0").expect("enforced")
}

/// An IPv4 part of a UDP datagram; `offset` in units of 8 bytes.
fn part(source: &str, id: u16, flags_and_offset: u16, data: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &ipv4(source, HOST, 17, 64, id, flags_and_offset, data))
}

fn part6(next: u8, offset: u16, more: bool, id: u32, data: &[u8]) -> Vec<u8> {
    frame(STRANGER6, HOST6, 44, 64, &[fragment_header(next, offset, more, id), data.to_vec()].concat())
}

/// The first 16 bytes of a longer datagram.
fn first(port: u16) -> Vec<u8> {
    let mut datagram = udp_datagram(1024, port, &[0; 8]);
    datagram[4] = 4;
    datagram
}

#[test]
fn the_rest_follows_a_first_fragment_that_passed() {
    let mut it = reference();
    let rest = part(STRANGER, 7, 2, &[0; 100]);
    assert_eq!(it.ingress(&rest, 0).0, Reason::FragmentOrphan);
    assert_eq!(it.ingress(&part(STRANGER, 7, MORE, &first(8010)), 0).0, Reason::ServiceAllowed);
    assert_eq!(it.ingress(&rest, 30 * SECOND).0, Reason::FragmentKnown);
    assert_eq!(it.ingress(&rest, 30 * SECOND + 1).0, Reason::FragmentOrphan);
    for other in [part(OFFICE, 7, 2, &[0; 8]), part(STRANGER, 8, 2, &[0; 8])] {
        assert_eq!(it.ingress(&other, 1).0, Reason::FragmentOrphan);
    }
    let other_protocol = ethernet(0x0800, &ipv4(STRANGER, HOST, 6, 64, 7, 3, &[0; 8]));
    assert_eq!(it.ingress(&other_protocol, 1).0, Reason::FragmentOrphan);
    // One that would overlap the TCP header (RFC 3128).
    let overlap = ethernet(0x0800, &ipv4(STRANGER, HOST, 6, 64, 7, 1, &[0; 8]));
    assert_eq!(it.ingress(&overlap, 1).0, Reason::FragmentMalformed);
}

#[test]
fn the_rest_of_a_refused_datagram_drops() {
    let mut it = reference();
    assert_eq!(it.ingress(&part(STRANGER, 7, MORE, &first(53)), 0).0, Reason::ServiceRefused);
    assert_eq!(it.ingress(&part(STRANGER, 7, 2, &[0; 100]), 0).0, Reason::FragmentOrphan);
    // It takes back what an earlier one of the same datagram has brought.
    assert_eq!(it.ingress(&part(STRANGER, 7, MORE, &first(8010)), 0).0, Reason::ServiceAllowed);
    assert_eq!(it.ingress(&part(STRANGER, 7, MORE, &first(53)), 0).0, Reason::ServiceRefused);
    assert_eq!(it.ingress(&part(STRANGER, 7, 2, &[0; 100]), 0).0, Reason::FragmentOrphan);
}

#[test]
fn ports_are_never_read_from_a_later_fragment() {
    let later = part(STRANGER, 7, 1, &udp_datagram(1024, 8010, &[]));
    assert_eq!(reference().ingress(&later, 0).0, Reason::FragmentOrphan);
}

#[test]
fn a_first_fragment_holds_the_whole_transport_header() {
    let mut it = reference();
    assert_eq!(it.ingress(&part(STRANGER, 7, MORE, &[]), 0).0, Reason::FragmentMalformed);
    let mut cut = tcp_header(1024, 80, SYN);
    cut.truncate(16);
    let tiny = ethernet(0x0800, &ipv4(STRANGER, HOST, 6, 64, 7, MORE, &cut));
    assert_eq!(it.ingress(&tiny, 0).0, Reason::FragmentMalformed);
    // RFC 7112: and the whole header chain.
    assert_eq!(it.ingress(&part6(60, 0, true, 7, &[6, 1, 0, 0, 0, 0, 0, 0]), 0).0, Reason::FragmentMalformed);
}

#[test]
fn a_fragment_beyond_the_longest_datagram_drops() {
    let mut it = reference();
    // 20 + 65,512 + 3 = 65,535.
    assert_eq!(it.ingress(&part(STRANGER, 7, 8189, &[0; 3]), 0).0, Reason::FragmentOrphan);
    assert_eq!(it.ingress(&part(STRANGER, 7, 8189, &[0; 4]), 0).0, Reason::FragmentMalformed);
    assert_eq!(it.ingress(&part6(17, 65_528, false, 7, &[0; 7]), 0).0, Reason::FragmentOrphan);
    assert_eq!(it.ingress(&part6(17, 65_528, false, 7, &[0; 8]), 0).0, Reason::FragmentMalformed);
}

#[test]
fn a_part_before_others_is_a_multiple_of_8_bytes() {
    let mut it = reference();
    assert_eq!(it.ingress(&part6(17, 16, true, 7, &[0; 9]), 0).0, Reason::FragmentMalformed);
    assert_eq!(it.ingress(&part(STRANGER, 7, MORE | 2, &[0; 9]), 0).0, Reason::FragmentMalformed);
}

#[test]
fn ipv6_fragments_are_told_apart_by_addresses_and_id() {
    let mut it = reference();
    assert_eq!(it.ingress(&part6(17, 0, true, 7, &first(8010)), 0).0, Reason::ServiceAllowed);
    assert_eq!(it.ingress(&part6(17, 16, false, 7, &[0; 9]), 0).0, Reason::FragmentKnown);
    // RFC 8200 section 4.5: the next header of later fragments says nothing.
    assert_eq!(it.ingress(&part6(60, 16, false, 7, &[0; 9]), 0).0, Reason::FragmentKnown);
    assert_eq!(it.ingress(&part6(17, 16, false, 8, &[0; 9]), 0).0, Reason::FragmentOrphan);
}

#[test]
fn an_atomic_fragment_is_decided_like_a_whole_packet() {
    let mut it = reference();
    assert_eq!(
        it.ingress(&part6(17, 0, false, 7, &udp_datagram(1, 8010, b"odd")), 0).0,
        Reason::ServiceAllowed
    );
    assert_eq!(it.ingress(&part6(17, 0, false, 7, &[0; 7]), 0).0, Reason::MalformedUdp);
    // RFC 6946: it is no first fragment of others.
    assert_eq!(it.ingress(&part6(17, 16, false, 7, &[0; 7]), 0).0, Reason::FragmentOrphan);
    // RFC 6980: neighbour discovery has no fragment header.
    let solicitation = [fragment_header(58, 0, false, 7), icmp_message(135, 0, &[0; 16])].concat();
    assert_eq!(
        it.ingress(&frame(LINK, HOST6, 44, 255, &solicitation), 0).0,
        Reason::NeighbourDiscoveryForged
    );
}

#[test]
fn the_reserved_bits_are_no_offset() {
    let mut it = reference();
    let mut header = fragment_header(17, 0, false, 7);
    header[1] = 0xff;
    header[3] = 0x06;
    let packet = [header, udp_datagram(1024, 8010, &[])].concat();
    assert_eq!(it.ingress(&frame(STRANGER6, HOST6, 44, 64, &packet), 0).0, Reason::ServiceAllowed);
    // "Do not fragment" and the reserved bit make no fragment.
    assert_eq!(
        it.ingress(&part(STRANGER, 7, 0xc000, &udp_datagram(1, 8010, &[])), 0).0,
        Reason::ServiceAllowed
    );
}

#[test]
fn source_steps_come_before_the_memory_of_fragments() {
    let mut policy = policy();
    policy.interfaces[0].deny = vec![tollgate::policy::model::ZoneId(2)];
    let mut it = Reference::new(&policy, "eth0").expect("enforced");
    assert_eq!(it.ingress(&part("203.0.113.200", 7, 2, &[0; 8]), 0).0, Reason::SourceDenied);
    assert_eq!(it.ingress(&part("127.0.0.1", 7, 2, &[0; 8]), 0).0, Reason::SourceInvalid);
}
