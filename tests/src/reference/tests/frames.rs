//! Step 1: what is broken, and where.

use proxy_common::abi::reason::{Reason, Verdict};

use super::super::Reference;
use super::super::extensions::MAX_HEADERS;
use super::build::*;

fn reason(frame: &[u8]) -> Reason {
    Reference::new(&policy(), "eth0").expect("enforced").ingress(frame, 0).0
}

/// The frame of an IPv6 packet of these extension headers and what follows them.
fn chain(first: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    frame(STRANGER6, HOST6, first, 64, &parts.concat())
}

fn syn() -> Vec<u8> {
    tcp_header(1024, 80, SYN)
}

#[test]
fn link_protocols_pass_and_others_drop() {
    assert_eq!(reason(&ethernet(0x0806, &[])), Reason::Arp);
    for ethertype in [0x888e, 0x88cc, 0x8809] {
        assert_eq!(reason(&ethernet(ethertype, &[1; 46])), Reason::LinkControl);
    }
    assert_eq!(reason(&ethernet(38, &[0x42, 0x42, 3, 0, 0])), Reason::LinkControl);
    assert_eq!(reason(&ethernet(38, &[0xaa, 0xaa, 3, 0, 0])), Reason::UnknownEthertype);
    assert_eq!(reason(&ethernet(0x8847, &[0x42, 0x42, 3])), Reason::UnknownEthertype);
    assert_eq!(reason(&[0; 13]), Reason::MalformedEthernet);
    assert_eq!(reason(&[]), Reason::MalformedEthernet);
}

#[test]
fn two_tags_are_read_and_a_third_drops() {
    let packet = ipv4(STRANGER, HOST, 6, 64, 1, 0, &syn());
    let mut inner = 0x0800_u16.to_be_bytes().to_vec();
    inner.extend(&packet);
    let mut tagged = inner;
    for (depth, ethertype) in [0x8100_u16, 0x88a8, 0x9100].into_iter().enumerate() {
        tagged.splice(0..0, [0, 5]);
        let expected = if depth < 2 { Reason::ServiceAllowed } else { Reason::VlanDepth };
        assert_eq!(reason(&ethernet(ethertype, &tagged)), expected, "{depth}");
        tagged.splice(0..0, ethertype.to_be_bytes());
    }
    assert_eq!(reason(&ethernet(0x8100, &[0, 5, 8])), Reason::MalformedEthernet);
}

#[test]
fn ipv4_headers_that_contradict_themselves_drop() {
    let good = ethernet(0x0800, &ipv4(STRANGER, HOST, 6, 64, 1, 0, &syn()));
    assert_eq!(reason(&good), Reason::ServiceAllowed);
    for (at, value) in [(14, 0x44), (14, 0x65), (14, 0x4f), (16, 1), (17, 19), (17, 41)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(reason(&bad), Reason::MalformedIpv4, "byte {at} = {value:#x}");
    }
    assert_eq!(reason(&good[..33]), Reason::MalformedIpv4);
    assert_eq!(reason(&good[..53]), Reason::MalformedIpv4);
}

#[test]
fn options_move_the_ports_and_padding_is_nothing() {
    let mut packet = ipv4(STRANGER, HOST, 6, 64, 1, 0, &[vec![1; 40], syn()].concat());
    packet[0] = 0x4f;
    assert_eq!(reason(&ethernet(0x0800, &packet)), Reason::ServiceAllowed);

    // A header of 40 bytes that only the padding of the link could complete.
    let mut header = syn();
    header[12] = 0xa0;
    let mut padded = frame(STRANGER, HOST, 6, 64, &header);
    padded.extend([0; 40]);
    assert_eq!(reason(&padded), Reason::MalformedTcp);
}

#[test]
fn ipv6_headers_that_contradict_themselves_drop() {
    let good = tcp(STRANGER6, HOST6, (1024, 80), SYN);
    assert_eq!(reason(&good), Reason::ServiceAllowed);
    assert_eq!(reason(&[good.clone(), vec![0; 9]].concat()), Reason::ServiceAllowed);
    for (at, value) in [(14, 0x40), (19, 21)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(reason(&bad), Reason::MalformedIpv6);
    }
    assert_eq!(reason(&good[..53]), Reason::MalformedIpv6);
    // RFC 2675: a jumbogram's length is zero; here it is a packet without payload.
    let mut jumbo = good;
    jumbo[19] = 0;
    assert_eq!(reason(&jumbo), Reason::MalformedTcp);
    jumbo[20] = 0;
    assert_eq!(reason(&jumbo), Reason::MalformedIpv6);
}

#[test]
fn extension_headers_do_not_hide_the_ports() {
    let mut routing = extension(60);
    routing[3] = 0;
    let authentication = [vec![6, 4], vec![0; 22]].concat();
    let parts = [extension(43), routing, extension(60), extension(51), authentication, syn()];
    assert_eq!(reason(&chain(0, &parts)), Reason::ServiceAllowed);
}

#[test]
fn a_routing_header_with_segments_left_drops() {
    assert_eq!(reason(&chain(43, &[extension(6), syn()])), Reason::Ipv6RoutingHeader);
}

#[test]
fn hop_by_hop_options_come_first_or_drop() {
    assert_eq!(reason(&chain(0, &[extension(6), syn()])), Reason::ServiceAllowed);
    assert_eq!(reason(&chain(60, &[extension(0), extension(6), syn()])), Reason::MalformedIpv6);
    assert_eq!(reason(&chain(0, &[extension(0), extension(6), syn()])), Reason::MalformedIpv6);
}

#[test]
fn too_many_extension_headers_drop() {
    let headers = |count: usize| {
        let mut parts = vec![extension(60); count - 1];
        parts.extend([extension(6), syn()]);
        parts
    };
    assert_eq!(reason(&chain(60, &headers(MAX_HEADERS))), Reason::ServiceAllowed);
    assert_eq!(reason(&chain(60, &headers(MAX_HEADERS + 1))), Reason::Ipv6HeaderChain);
}

#[test]
fn extension_headers_longer_than_the_packet_drop() {
    let mut long = extension(6);
    long[1] = 4;
    assert_eq!(reason(&chain(60, &[long, syn()])), Reason::MalformedIpv6);
    assert_eq!(reason(&chain(60, &[vec![6]])), Reason::MalformedIpv6);
    // RFC 4302: the fixed part alone is three units of 4 bytes.
    assert_eq!(reason(&chain(51, &[extension(6), syn()])), Reason::MalformedIpv6);
}

#[test]
fn no_next_header_and_unknown_protocols_have_no_ports() {
    assert_eq!(reason(&chain(59, &[syn()])), Reason::NoService);
    assert_eq!(reason(&chain(50, &[syn()])), Reason::NoService);
    assert_eq!(reason(&chain(1, &[icmp_message(8, 1, &[])])), Reason::NoService);
    assert_eq!(reason(&frame(STRANGER, HOST, 58, 64, &icmp_message(128, 1, &[]))), Reason::NoService);
    assert_eq!(reason(&frame(STRANGER, HOST, 47, 64, &[])), Reason::NoService);
}

#[test]
fn transport_headers_that_are_cut_drop() {
    for (protocol, len, expected) in
        [(6, 19, Reason::MalformedTcp), (17, 7, Reason::MalformedUdp), (1, 7, Reason::MalformedIcmp)]
    {
        assert_eq!(reason(&frame(STRANGER, HOST, protocol, 64, &vec![0; len])), expected);
    }
    assert_eq!(reason(&frame(STRANGER6, HOST6, 58, 64, &[128; 7])), Reason::MalformedIcmp);
}

#[test]
fn tcp_data_offset_must_fit() {
    for (offset, expected) in
        [(0x40, Reason::MalformedTcp), (0x50, Reason::ServiceAllowed), (0x60, Reason::MalformedTcp)]
    {
        let mut header = syn();
        header[12] = offset;
        assert_eq!(reason(&frame(STRANGER, HOST, 6, 64, &header)), expected);
    }
}

#[test]
fn tcp_flags_that_no_tcp_sends_drop() {
    let odd =
        [0, PSH, FIN, FIN | PSH | 32, SYN | FIN, SYN | RST, SYN | ACK | FIN, FIN | RST, RST | FIN | ACK];
    for flags in odd {
        assert_eq!(reason(&tcp(STRANGER, HOST, (1024, 80), flags)), Reason::TcpFlags, "{flags:#x}");
    }
    let known = [SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN | 0xc0, ACK | 32];
    for flags in known {
        assert_eq!(reason(&tcp(STRANGER, HOST, (1024, 80), flags)), Reason::ServiceAllowed, "{flags:#x}");
    }
}

#[test]
fn udp_length_must_fit_the_packet() {
    let verdict = |len: u8| {
        let mut datagram = udp_datagram(1024, 8010, b"data");
        datagram[5] = len;
        reason(&frame(STRANGER, HOST, 17, 64, &datagram))
    };
    assert_eq!(verdict(0), Reason::MalformedUdp);
    assert_eq!(verdict(7), Reason::MalformedUdp);
    assert_eq!(verdict(8), Reason::ServiceAllowed);
    assert_eq!(verdict(12), Reason::ServiceAllowed);
    assert_eq!(verdict(13), Reason::MalformedUdp);
}

#[test]
fn damaged_frames_get_a_reason() {
    let quote = icmp(STRANGER, HOST, 3, 0, &tcp(HOST, STRANGER, (80, 1), ACK)[14..]);
    let extended = chain(0, &[extension(44), fragment_header(60, 0, false, 1), extension(6), syn()]);
    let whole = [tcp(STRANGER, HOST, (1, 80), SYN), udp(STRANGER6, HOST6, (1, 8010)), quote, extended];
    for frame in whole {
        for len in 0..frame.len() {
            // All that is cut is broken: no length of an IP packet fits any more.
            assert_eq!(reason(&frame[..len]).verdict(), Verdict::Drop);
        }
        for at in 14..frame.len() {
            for value in [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xff] {
                let mut damaged = frame.clone();
                damaged[at] = value;
                let mut it = Reference::new(&policy(), "eth0").expect("enforced");
                let (reason, rule) = it.ingress(&damaged, 0);
                assert_eq!(rule.is_some(), reason.has_rule());
                it.egress(&damaged, 0);
            }
        }
    }
}
