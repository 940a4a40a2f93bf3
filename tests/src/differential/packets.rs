//! The kinds of packets: what arrives and what this host sends.

use std::net::IpAddr;

use rand::RngExt;
use rand::seq::IndexedRandom;
use tollgate::policy::model::Transport;

use super::traffic::{Begun, Sent, Traffic};
use super::wire::{self, Header, Payload};

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Flags of TCP, good ones more often.
const FLAGS: [u8; 24] = [2, 2, 2, 2, 2, 2, 16, 16, 16, 24, 18, 18, 18, 17, 17, 4, 20, 194, 0, 1, 3, 6, 5, 21];
/// Extension headers and what looks like one.
const EXTENSIONS: [u8; 12] = [0, 0, 43, 44, 51, 51, 60, 60, 135, 139, 140, 50];

/// A frame of a link protocol, or of none.
pub fn link(it: &mut Traffic, frame: &mut Vec<u8>) {
    let ethertype = match it.rng.random_range(0..10) {
        0..6 => it.one(&[0x0806, 0x888e, 0x88cc, 0x8809, 0x88c7, 0x890d, 0x8035, 0x8847, 0x88e5, 0x22f3], 0),
        6..9 => it.one(&[38, 39, 3, 0, 46, 1500, 1501, 1535, 1536], 38),
        _ => it.rng.random(),
    };
    let llc: &[u8] = it.one(
        &[
            &[0x42, 0x42, 3, 0, 0],
            &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45],
            &[0x42, 0x42],
            &[0xfe, 0xfe, 3],
            &[],
        ],
        &[],
    );
    let tags: &[u16] = it.one(&[&[], &[], &[0x8100], &[0x88a8, 0x8100]], &[]);
    wire::frame(frame, tags, ethertype, llc);
    if it.rng.random_bool(0.6) {
        frame.resize(frame.len().max(60), 0);
    }
}

/// An IP packet that arrives.
pub fn incoming(it: &mut Traffic) -> Vec<u8> {
    let v6 = it.rng.random_bool(0.5);
    let (source, destination) = (it.remote(v6), it.local(v6));
    match it.rng.random_range(0..100) {
        0..22 => reply(it),
        22..34 => error(it, v6),
        34..44 => later(it, v6),
        44..52 => {
            let payload = plumbing(it, v6);
            let destination = if it.rng.random_bool(0.3) && payload.protocol == 17 {
                let group = if v6 { "ff02::fb" } else { "224.0.0.251" };
                group.parse().unwrap_or(destination)
            } else {
                destination
            };
            it.wrap(source, destination, &payload)
        }
        52..60 if v6 => discovery(it, source, destination),
        60 if !it.pools.limited.is_empty() && it.rng.random_bool(0.6) => flood(it, source, destination),
        _ => {
            let payload = transport(it, v6, true);
            it.wrap(source, destination, &payload)
        }
    }
}

/// An IP packet that this host sends: it begins flows, ends them, answers, or is anything.
pub fn outgoing(it: &mut Traffic) -> Vec<u8> {
    let known = it.sent.choose(&mut it.rng).cloned().filter(|_| it.rng.random_bool(0.3));
    if let Some(known) = known {
        let payload = match known.protocol {
            6 => {
                let flags = it.one(&[ACK, ACK | 1, ACK | 4, 4, SYN, SYN | ACK], ACK);
                wire::tcp(known.ports, flags, 5, 0, &[])
            }
            17 => wire::right_udp(known.ports, b"again"),
            _ => echo(known.local.is_ipv6(), true, known.ports.0),
        };
        return it.wrap(known.local, known.remote, &payload);
    }
    let v6 = it.rng.random_bool(0.5);
    let (local, remote) = (it.local(v6), it.remote(v6));
    let ports = if it.rng.random_bool(0.6) {
        (it.client_port(), it.port())
    } else {
        // An answer of a service, or what looks like one.
        (it.port(), it.client_port())
    };
    let payload = match it.rng.random_range(0..10) {
        0..4 => wire::tcp(ports, it.one(&[SYN, SYN, SYN, SYN | ACK, ACK], SYN), 5, 0, &[]),
        4..7 => wire::right_udp(ports, b"question"),
        7..9 => echo(v6, true, ports.0),
        _ => transport(it, v6, false),
    };
    let packet = it.wrap(local, remote, &payload);
    let ports = if matches!(payload.protocol, 1 | 58) { (ports.0, ports.0) } else { ports };
    it.note_sent(Sent { local, remote, ports, packet: packet.clone(), protocol: payload.protocol });
    if matches!(payload.protocol, 1 | 6 | 17 | 58) && it.rng.random_bool(0.15) {
        it.plan_life(payload.protocol);
    }
    packet
}

/// A reply to what was sent; with these flags, if it is TCP.
pub fn reply_to(sent: &Sent, flags: u8) -> Payload {
    let ports = (sent.ports.1, sent.ports.0);
    match sent.protocol {
        6 => wire::tcp(ports, flags, 5, 0, &[]),
        17 => wire::right_udp(ports, b"answer"),
        _ => echo(sent.local.is_ipv6(), false, ports.1),
    }
}

/// A reply to something that was sent, or nearly.
fn reply(it: &mut Traffic) -> Vec<u8> {
    let Some(sent) = it.sent.choose(&mut it.rng).cloned() else {
        let v6 = it.rng.random_bool(0.5);
        let (source, destination) = (it.remote(v6), it.local(v6));
        return it.wrap(source, destination, &echo(v6, false, 40_000));
    };
    let mut ports = (sent.ports.1, sent.ports.0);
    if it.rng.random_bool(0.08) {
        ports.1 = ports.1.wrapping_add(1);
    }
    let payload = match sent.protocol {
        6 => {
            let flags = it.one(&[SYN | ACK, SYN | ACK, ACK, ACK | 8, ACK | 1, 4, ACK | 4, SYN, 1], ACK);
            wire::tcp(ports, flags, 5, 0, &[])
        }
        17 => wire::right_udp(ports, b"answer"),
        _ => echo(sent.local.is_ipv6(), it.rng.random_bool(0.05), ports.1),
    };
    for timeout_ns in it.pools.timeouts {
        if it.rng.random_bool(0.1) {
            it.ends_after(timeout_ns);
        }
    }
    if it.rng.random_bool(0.9) {
        return it.wrap_with(&Header::default(), sent.remote, sent.local, &payload);
    }
    it.wrap(sent.remote, sent.local, &payload)
}

/// An ICMP error that quotes what was sent, what was not, or nothing that makes sense.
fn error(it: &mut Traffic, v6: bool) -> Vec<u8> {
    let sent = it.sent.choose(&mut it.rng).cloned().filter(|_| it.rng.random_bool(0.8));
    let (mut quote, destination) = match sent {
        Some(sent) => (sent.packet, sent.local),
        None => {
            // An answer of a service that was never sent, perhaps.
            let (local, remote) = (it.local(v6), it.remote(v6));
            let ports = (it.port(), it.client_port());
            let payload = if it.rng.random_bool(0.5) {
                wire::tcp(ports, ACK, 5, 0, &[])
            } else {
                wire::right_udp(ports, b"q")
            };
            let header = if it.rng.random_bool(0.7) { Header::default() } else { header(it, v6) };
            (wire::packet(&header, local, remote, &payload), local)
        }
    };
    match it.rng.random_range(0..20) {
        0..10 => {}
        10..13 => quote.truncate(if v6 { 48 } else { 28 }),
        13..16 => {
            let length = it.rng.random_range(0..=quote.len());
            quote.truncate(length);
        }
        16 => quote.resize(quote.len() + 20, 0),
        17 => super::mutate::damage(&mut it.rng, &mut quote),
        // The other family's.
        18 => {
            if let Some(first) = quote.first_mut() {
                *first ^= 0x20;
            }
        }
        _ => quote.clear(),
    }
    let v6 = destination.is_ipv6();
    let kind = if v6 { it.one(&[1, 2, 3, 4, 5, 0, 100], 1) } else { it.one(&[3, 11, 12, 3, 4, 5], 3) };
    let destination = if it.rng.random_bool(0.9) { destination } else { it.local(v6) };
    let payload = wire::icmp(v6, kind, it.rng.random_range(0..5), 0, &quote);
    let source = it.remote(v6);
    if v6 && it.rng.random_bool(0.06) {
        // The quote lies about where the last header may begin.
        let long = wire::extension(60, it.rng.random_range(111..117), 0);
        let header = Header { extensions: vec![long], ..Header::default() };
        return it.wrap_with(&header, source, destination, &payload);
    }
    if it.rng.random_bool(0.85) {
        return it.wrap_with(&Header::default(), source, destination, &payload);
    }
    it.wrap(source, destination, &payload)
}

/// The first of many packets to where there is a limit: large ones, if it counts bytes.
fn flood(it: &mut Traffic, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let Some(limited) = it.pools.limited.choose(&mut it.rng).copied() else { return Vec::new() };
    let large = limited.bytes && it.rng.random_bool(0.5);
    let data = vec![0x55; if large { it.rng.random_range(2500..2700) } else { 0 }];
    let flags = if large { ACK } else { SYN };
    let payload = match limited.port {
        Some((Transport::Tcp, port)) => wire::tcp((40_000, port), flags, 5, 0, &data),
        Some((Transport::Udp, port)) => wire::right_udp((40_000, port), &data),
        None => wire::icmp(source.is_ipv6(), if source.is_ipv6() { 128 } else { 8 }, 0, 7, &data),
    };
    it.burst(if large { 30 } else { 16 });
    it.wrap_with(&Header::default(), source, destination, &payload)
}

/// A later fragment, mostly of a datagram whose first one arrived.
fn later(it: &mut Traffic, v6: bool) -> Vec<u8> {
    let length = it.one(&[0, 8, 16, 13, 64, 1400], 8);
    let offset = it.one(&[8, 16, 24, 32, 1480, 2960, 65_520, 65_528], 8);
    let header = Header {
        offset,
        more: it.rng.random_bool(0.5),
        id: it.one(&[1, 2, 0xffff, 0x0001_0001], 1),
        ..Header::default()
    };
    let Some(begun) = it.begun.choose(&mut it.rng).copied().filter(|_| it.rng.random_bool(0.85)) else {
        let (source, destination) = (it.remote(v6), it.local(v6));
        let payload = Payload { protocol: it.one(&[6, 17, 1, 58, 47], 17), bytes: vec![7; length] };
        return it.wrap_with(&header, source, destination, &payload);
    };
    let mut protocol = begun.protocol;
    if it.rng.random_bool(0.1) {
        protocol = it.one(&[6, 17, 1, 58, 60], 17);
    }
    let id = if it.rng.random_bool(0.95) { begun.id } else { begun.id ^ 0x8000 };
    let payload = Payload { protocol, bytes: vec![7; length] };
    let header = Header { id, ..header };
    it.wrap_with(&header, begun.source, begun.destination, &payload)
}

/// A plain part of a datagram: its first, to any port, or one that follows.
pub fn part(it: &mut Traffic, of: Begun, first: bool) -> Vec<u8> {
    let offset = if first { 0 } else { 24 };
    let header = Header { id: of.id, offset, more: first, ..Header::default() };
    let ports = (it.client_port(), it.port());
    let payload = match of.protocol {
        6 if first => wire::tcp(ports, SYN, 5, 4, &[]),
        17 if first => wire::udp(ports, 400, &[0; 16]),
        protocol => Payload { protocol, bytes: vec![8; 24] },
    };
    // Not noted as a beginning: it is one already.
    wire::packet(&header, of.source, of.destination, &payload)
}

/// What a host needs besides its services.
fn plumbing(it: &mut Traffic, v6: bool) -> Payload {
    match it.rng.random_range(0..6) {
        0 => wire::right_udp(it.one(&[(67, 68), (67, 68), (68, 67), (67, 67)], (67, 68)), &[1; 40]),
        1 => wire::right_udp(it.one(&[(547, 546), (40_000, 546), (546, 547)], (547, 546)), &[1; 20]),
        2 => wire::right_udp(it.one(&[(5353, 5353), (5353, 5353), (40_000, 5353)], (5353, 5353)), &[0; 12]),
        3 => Payload { protocol: 2, bytes: vec![0x16; it.one(&[8, 12, 0], 8)] },
        _ => echo(v6, true, 7),
    }
}

/// Neighbour discovery and listener reports.
fn discovery(it: &mut Traffic, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let kind = it.one(&[133, 134, 134, 135, 136, 137, 130, 131, 132, 143, 138, 151], 135);
    let payload = wire::icmp(true, kind, 0, 0, &[0; 16]);
    let mut header = if it.rng.random_bool(0.6) { Header::default() } else { header(it, true) };
    header.hops = it.one(&[255, 255, 1, 1, 254, 2], 255);
    if it.rng.random_bool(0.15) {
        header.extensions = vec![(0, vec![0, 5, 2, 0, 0, 1, 0])];
    }
    let source = if it.rng.random_bool(0.4) { it.one(&["fe80::1", "::", "febf::9"], "::") } else { "" }
        .parse()
        .unwrap_or(source);
    it.wrap_with(&header, source, destination, &payload)
}

fn echo(v6: bool, request: bool, identifier: u16) -> Payload {
    let kind = match (v6, request) {
        (false, true) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (true, false) => 129,
    };
    wire::icmp(v6, kind, 0, identifier, &[0xab; 8])
}

/// Any transport header, right or wrong.
fn transport(it: &mut Traffic, v6: bool, arriving: bool) -> Payload {
    let ports = if arriving { (it.client_port(), it.port()) } else { (it.port(), it.client_port()) };
    let data = vec![0x55; it.one(&[0, 0, 1, 8, 32, 600, 1300], 0)];
    match it.rng.random_range(0..20) {
        0..10 => {
            let options = it.one(&[0, 0, 0, 0, 4, 12, 20, 40], 0);
            let right = 5 + (options / 4) as u8;
            let words = if it.rng.random_bool(0.95) { right } else { it.rng.random_range(0..16) };
            let flags = if it.rng.random_bool(0.97) { it.one(&FLAGS, SYN) } else { it.rng.random() };
            wire::tcp(ports, flags, words, options, &data)
        }
        10..15 => {
            let right = 8 + data.len() as u16;
            let wrong = it.one(&[0, 7, 8, right + 1, right.saturating_sub(1), 65_535], right);
            wire::udp(ports, if it.rng.random_bool(0.85) { right } else { wrong }, &data)
        }
        15..17 => echo(v6, it.rng.random_bool(0.8), it.one(&[7, 40_000], 7)),
        17 => wire::icmp(v6, it.rng.random(), it.rng.random_range(0..3), 0, &data),
        18 => {
            // The other family's ICMP, and headers that are cut off.
            let protocol = it.one(&[1, 58, 6, 17, 2], 58);
            Payload { protocol, bytes: vec![8; it.rng.random_range(0..24)] }
        }
        _ => {
            let any = it.rng.random();
            Payload {
                protocol: it.one(&[47, 50, 51, 59, 132, 136, 0, 43, 44, 60, any], 47),
                bytes: vec![1; 24],
            }
        }
    }
}

/// An IP header: mostly plain, at times a fragment or one with options or extensions.
pub fn header(it: &mut Traffic, v6: bool) -> Header {
    let mut header = Header { hops: it.one(&[64, 64, 64, 255, 1, 2, 0], 64), ..Header::default() };
    match it.rng.random_range(0..10) {
        0 => {
            header.more = true;
            header.id = it.one(&[1, 2, 0xffff, 0x0001_0001], 1);
        }
        1 => {
            header.id = it.one(&[1, 2], 1);
            header.offset = it.one(&[0, 0, 8, 16, 24, 1400, 65_528], 0);
            header.more = it.rng.random_bool(0.5);
            header.part = it.rng.random_bool(0.7);
        }
        _ => {}
    }
    if it.rng.random_bool(0.15) {
        if v6 {
            header.extensions = extensions(it);
        } else {
            header.options = options(it);
        }
    }
    if v6 && (header.part || header.more) && it.rng.random_bool(0.15) {
        header.inner = extensions(it);
    }
    header
}

fn extensions(it: &mut Traffic) -> Vec<(u8, Vec<u8>)> {
    let count = it.one(&[1, 1, 1, 2, 2, 3, 7, 8, 9, 10], 1);
    let mut chain = Vec::with_capacity(count);
    for nth in 0..count {
        let number = match nth {
            _ if count > 6 => it.one(&[60, 60, 60, 60, 60, 60, 43, 51, 0], 60),
            0 => it.one(&EXTENSIONS, 60),
            _ => it.one(&EXTENSIONS[2..], 60),
        };
        let units =
            if it.rng.random_bool(0.06) { it.one(&[20, 100, 120], 20) } else { it.one(&[0, 0, 1, 2], 0) };
        if number == 44 {
            chain.push((44, vec![0, 0, it.one(&[0, 0, 0, 1, 8], 0), 0, 0, 0, 1]));
        } else {
            chain.push(wire::extension(number, units, it.one(&[0, 0, 0, 0, 1], 0)));
        }
    }
    chain
}

fn options(it: &mut Traffic) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..it.rng.random_range(1..4) {
        let option: &[u8] = it.one(
            &[
                &[1],
                &[1, 1, 1, 1],
                &[0],
                &[148, 4, 0, 0],
                &[131, 7, 4, 10, 1, 2, 77],
                &[137, 7, 8, 10, 1, 2, 77],
                &[7, 7, 4, 0, 0, 0, 0],
                &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[148, 0],
                &[148, 1],
                &[148, 41],
                &[200, 2],
            ],
            &[1],
        );
        options.extend(option);
    }
    let end = it.one(&[0, 1, 148, 131], 0);
    options.resize(options.len().next_multiple_of(4), end);
    options
}
