//! IPv4's header: its length and options, the total length, where it is cut.

use proxy_common::abi::reason::Reason;

use super::build::{
    CLOSED, FROM, Family, Hosts, ICMP, LINK, OPEN, OPEN_UDP, TCP, UDP, cuts as cut, edit_ipv4, tcp_header,
    udp_header, with_options,
};
use super::{Suite, Twin};
use crate::frames::{IPV4, SYN};

pub(super) fn add(suite: &mut Suite) {
    header_lengths(suite);
    options(suite);
    total_lengths(suite);
    cuts(suite);
    flags(suite);
}

fn hosts(suite: &mut Suite) -> Hosts {
    suite.hosts(Family::V4)
}

fn frame(packet: &[u8]) -> Vec<u8> {
    LINK.frame(IPV4, packet)
}

/// Well-formed options that look like the first bytes of a transport header to a port: an experimental one of four bytes
/// (RFC 4727), which a naive parser takes for source and destination port.
fn port_in_options(length: usize, port: u16) -> Vec<u8> {
    let mut options = vec![1; length];
    options[..2].copy_from_slice(&[0x5e, 4]);
    options[2..4].copy_from_slice(&port.to_be_bytes());
    options
}

fn header_lengths(suite: &mut Suite) {
    for words in 0..5 {
        let hosts = hosts(suite);
        let packet =
            edit_ipv4(hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]), |header| header[0] = 0x40 | words);
        suite.add(
            format!("ipv4: header length {words}"),
            frame(&packet),
            &[Reason::MalformedIpv4],
            hosts.honest(),
        );
    }
    for words in 6..16u8 {
        let length = usize::from(words - 5) * 4;
        for (what, protocol, open) in [("TCP", TCP, OPEN), ("UDP", UDP, OPEN_UDP)] {
            let hosts = hosts(suite);
            let build = |shown, port| {
                let segment = if protocol == TCP { tcp_header(port, SYN) } else { udp_header(port, 0) };
                frame(&with_options(&hosts.inward(), protocol, &port_in_options(length, shown), &segment))
            };
            // The twin has it the other way round: the closed port in the options.
            suite.add(
                format!("ipv4: header length {words} with an open port in the options, {what}"),
                build(open, CLOSED),
                &[Reason::NoService],
                Twin::new(build(CLOSED, open), Reason::ServiceAllowed),
            );
        }
    }
    for words in 6..16u8 {
        let hosts = hosts(suite);
        let length = usize::from(words - 5) * 4;
        // No options at all: the header's length reaches into the segment, and past it the packet has nothing.
        let packet =
            edit_ipv4(hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]), |header| header[0] = 0x40 | words);
        let twin = with_options(&hosts.inward(), TCP, &vec![1; length], &tcp_header(OPEN, SYN));
        suite.add(
            format!("ipv4: header length {words} that reaches into the segment"),
            frame(&packet),
            &[Reason::MalformedIpv4, Reason::MalformedTcp],
            Twin::new(frame(&twin), Reason::ServiceAllowed),
        );
    }
}

/// Options that say where a packet goes make its addresses lies; hosts and routers have refused them for decades.
fn options(suite: &mut Suite) {
    for (what, kind) in [("loose", 131), ("strict", 137)] {
        for (port, expected) in
            [(OPEN, &[Reason::MalformedIpv4][..]), (CLOSED, &[Reason::MalformedIpv4, Reason::NoService])]
        {
            let hosts = hosts(suite);
            let options = [1, kind, 7, 4, 127, 0, 0, 1];
            let which = if port == OPEN { "an open" } else { "a closed" };
            suite.add(
                format!("ipv4: {what} source route to {which} port"),
                frame(&with_options(&hosts.inward(), TCP, &options, &tcp_header(port, SYN))),
                expected,
                Twin::new(
                    frame(&with_options(&hosts.inward(), TCP, &[1; 8], &tcp_header(port.max(OPEN), SYN))),
                    Reason::ServiceAllowed,
                ),
            );
        }
    }
}

fn with_total_length(packet: Vec<u8>, total: u16) -> Vec<u8> {
    frame(&edit_ipv4(packet, |header| header[2..4].copy_from_slice(&total.to_be_bytes())))
}

fn total_lengths(suite: &mut Suite) {
    for words in [5u8, 6, 15] {
        let hosts = hosts(suite);
        let options = vec![1; usize::from(words - 5) * 4];
        let packet = with_options(&hosts.inward(), TCP, &options, &tcp_header(OPEN, SYN));
        let sweep = (0..u16::from(words) * 4).map(|total| with_total_length(packet.clone(), total)).collect();
        let twin = Twin::new(frame(&packet), Reason::ServiceAllowed);
        let name = format!("ipv4: total length shorter than a header of {words} words");
        suite.sweep(name, sweep, &[Reason::MalformedIpv4], twin);
    }
    let hosts = hosts(suite);
    let packet = hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]);
    let sweep = [41, 42, 47, 48, 60, 296, 0x2800, 0x8028, 0xffff]
        .map(|total| with_total_length(packet.clone(), total));
    suite.sweep(
        "ipv4: total length beyond the frame",
        sweep.to_vec(),
        &[Reason::MalformedIpv4],
        hosts.honest(),
    );

    // What the total length leaves out is padding of the link, whatever it looks like.
    for (what, protocol, header, expected, passes) in [
        ("TCP", TCP, tcp_header(OPEN, SYN), Reason::MalformedTcp, Reason::ServiceAllowed),
        ("UDP", UDP, udp_header(OPEN_UDP, 0), Reason::MalformedUdp, Reason::ServiceAllowed),
        ("ICMP", ICMP, vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0], Reason::MalformedIcmp, Reason::Ping),
    ] {
        let hosts = self::hosts(suite);
        let packet = hosts.inward().packet(protocol, &header);
        let whole = packet.len() as u16;
        let sweep = (20..whole).map(|total| with_total_length(packet.clone(), total)).collect();
        let padded = frame(&[&packet[..], &[0; 26]].concat());
        let name = format!("ipv4: the {what} header stands in the link's padding");
        suite.sweep(name, sweep, &[expected], Twin::new(padded, passes));
    }
}

fn cuts(suite: &mut Suite) {
    for (what, protocol, segment) in
        [("TCP", TCP, tcp_header(OPEN, SYN)), ("UDP", UDP, udp_header(OPEN_UDP, 0))]
    {
        for options in [0, 4, 40] {
            let hosts = hosts(suite);
            let whole = with_options(&hosts.inward(), protocol, &vec![1; options], &segment);
            let twin = Twin::new(frame(&whole), Reason::ServiceAllowed);
            let name = format!("ipv4: {what} after {options} bytes of options, cut at each byte");
            suite.sweep(name, cut(&whole, 0), &[Reason::MalformedIpv4], twin);
        }
    }
}

fn flags(suite: &mut Suite) {
    let hosts = hosts(suite);
    let with = |port, field: u16| {
        frame(&edit_ipv4(hosts.inward().tcp(FROM, port, SYN, 1, &[]), |header| {
            header[6..8].copy_from_slice(&field.to_be_bytes());
        }))
    };
    let twin = Twin::new(with(OPEN, 0x4000), Reason::ServiceAllowed);
    let sweep = vec![with(CLOSED, 0x8000), with(CLOSED, 0xc000)];
    suite.sweep("ipv4: the reserved flag to a closed port", sweep, &[Reason::NoService], twin.clone());

    let sweep = [0x8003, 0x4003, 0xc003, 0xe003, 0x6003].map(|field| with(OPEN, field)).to_vec();
    suite.sweep(
        "ipv4: an offset beside other flags",
        sweep,
        &[Reason::FragmentOrphan, Reason::FragmentMalformed],
        twin,
    );

    let hosts = self::hosts(suite);
    let sweep = (0..=255u8).map(|service| {
        frame(&edit_ipv4(hosts.inward().tcp(FROM, CLOSED, SYN, 1, &[]), |header| header[1] = service))
    });
    let twin = edit_ipv4(hosts.inward().tcp(FROM, OPEN, SYN, 1, &[]), |header| header[1] = 0xff);
    let twin = Twin::new(frame(&twin), Reason::ServiceAllowed);
    suite.sweep("ipv4: every type of service to a closed port", sweep.collect(), &[Reason::NoService], twin);
}
