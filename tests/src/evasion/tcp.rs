//! TCP: flags that no TCP sends, headers that lie, packets of connections that do not exist, ports.

use proxy_common::abi::reason::Reason;

use super::build::{
    CLOSED, FAMILIES, FROM, Family, Hosts, LAN_ONLY, LINK, NOBODY, OPEN, OPEN_UDP, TCP, UDP, tcp_header,
};
use super::{Suite, Twin};
use crate::frames::{ACK, FIN, RST, SYN};

const PSH: u8 = 8;
const URG: u8 = 32;
const ECE: u8 = 64;
const CWR: u8 = 128;

/// Those that decide whether a set makes sense; the others may come with any.
const NAMED: [(u8, &str); 5] = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (URG, "URG"), (ACK, "ACK")];

/// Sets that a TCP sends, but for PSH, ECE and CWR.
const SENT: [u8; 9] = [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];

pub(super) fn add(suite: &mut Suite) {
    impossible_flags(suite);
    for family in FAMILIES {
        scans(suite, family);
        without_connection(suite, family);
        headers(suite, family);
        ports(suite, family);
    }
}

fn name_of(flags: u8) -> String {
    let names: Vec<_> = NAMED.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join("|") }
}

/// Any set with any of PSH, ECE and CWR, which say nothing of connections.
fn variants(set: u8) -> [u8; 8] {
    [0, PSH, ECE, CWR, PSH | ECE, PSH | CWR, ECE | CWR, PSH | ECE | CWR].map(|more| set | more)
}

fn impossible_flags(suite: &mut Suite) {
    for set in (0..64u8).filter(|set| set & PSH == 0 && !SENT.contains(set)) {
        let families = FAMILIES.map(|family| suite.hosts(family));
        let frame = |hosts: &Hosts, flags| LINK.ip(&hosts.inward().tcp(FROM, OPEN, flags, 1, &[]));
        let sweep =
            families.iter().flat_map(|hosts| variants(set).map(|flags| frame(hosts, flags))).collect();
        // Twins take turns, so that both families and all sets that a TCP sends are among them.
        let hosts = &families[usize::from(set) % 2];
        let twin = Twin::new(frame(hosts, SENT[usize::from(set) % SENT.len()]), Reason::ServiceAllowed);
        suite.sweep(format!("tcp: flags {} to an open port", name_of(set)), sweep, &[Reason::TcpFlags], twin);
    }
}

fn scans(suite: &mut Suite, family: Family) {
    for (what, set) in [("NULL", 0), ("FIN", FIN), ("Xmas", FIN | PSH | URG), ("SYN and FIN", SYN | FIN)] {
        let hosts = suite.hosts(family);
        let frame = |port| LINK.ip(&hosts.inward().tcp(FROM, port, set, 1, &[]));
        let name = format!("tcp: {what} scan of closed and refused ports, {family}");
        let sweep = [CLOSED, NOBODY, LAN_ONLY, 0, 65535].map(frame).to_vec();
        suite.sweep(name, sweep, &[Reason::TcpFlags], hosts.honest());
    }
}

/// Packets that look as if there was a connection.
fn without_connection(suite: &mut Suite, family: Family) {
    for set in [SYN, ACK, RST, RST | ACK, FIN | ACK, SYN | ACK, ACK | URG] {
        for (what, port, expected) in [
            ("a closed", CLOSED, Reason::NoService),
            ("a refused", NOBODY, Reason::ServiceRefused),
            ("the LAN's", LAN_ONLY, Reason::ServiceRefused),
        ] {
            let hosts = suite.hosts(family);
            let sweep =
                variants(set).map(|flags| LINK.ip(&hosts.inward().tcp(FROM, port, flags, 1, b"data")));
            let (source, port) =
                if port == LAN_ONLY { (hosts.lan(), LAN_ONLY) } else { (hosts.stranger(), OPEN) };
            let twin = LINK.ip(&hosts.from(source).tcp(FROM, port, set, 1, b"data"));
            let name = format!("tcp: flags {} to {what} port, {family}", name_of(set));
            suite.sweep(name, sweep.to_vec(), &[expected], Twin::new(twin, Reason::ServiceAllowed));
        }
    }
}

fn headers(suite: &mut Suite, family: Family) {
    for words in (0..5).chain(6..16) {
        let hosts = suite.hosts(family);
        let with = |words: u8, payload: &[u8]| {
            let mut header = tcp_header(OPEN, SYN);
            header[12] = words << 4;
            header.extend(payload);
            LINK.ip(&hosts.inward().packet(TCP, &header))
        };
        // Short of the header's own length by all, or by one byte; lengths below 5 are wrong with any payload.
        let short = usize::from(words.max(5) - 5) * 4;
        let sweep = vec![with(words, &[]), with(words, &vec![0; short.max(1) - usize::from(words > 5)])];
        let twin = Twin::new(with(words.max(5), &vec![1; short]), Reason::ServiceAllowed);
        let name = format!("tcp: data offset {words} of a shorter segment, {family}");
        suite.sweep(name, sweep, &[Reason::MalformedTcp], twin);
    }
    let hosts = suite.hosts(family);
    let header = tcp_header(OPEN, SYN);
    let sweep = (0..20).map(|length| LINK.ip(&hosts.inward().packet(TCP, &header[..length])));
    let name = format!("tcp: a header cut at each byte, {family}");
    suite.sweep(name, sweep.collect(), &[Reason::MalformedTcp], hosts.honest());

    let hosts = suite.hosts(family);
    let datagram = hosts.inward().udp(FROM, OPEN, &[0; 12]);
    let sweep = LINK.ip(&hosts.inward().packet(TCP, &datagram[family.header_len()..]));
    let name = format!("tcp: a UDP datagram under TCP's number, {family}");
    suite.add(name, sweep, &[Reason::MalformedTcp, Reason::TcpFlags], hosts.honest());
}

fn ports(suite: &mut Suite, family: Family) {
    for source in [0, 20, 53, 80, 443] {
        let hosts = suite.hosts(family);
        let frame = |port, flags| LINK.ip(&hosts.inward().tcp(source, port, flags, 1, &[]));
        let sweep = [SYN, SYN | ACK, ACK, RST, FIN | ACK].map(|flags| frame(CLOSED, flags)).to_vec();
        let twin =
            Twin::new(LINK.ip(&hosts.inward().tcp(source.max(1), OPEN, SYN, 1, &[])), Reason::ServiceAllowed);
        let name = format!("tcp: source port {source} to a closed port, {family}");
        suite.sweep(name, sweep, &[Reason::NoService], twin);
    }
    let near = [OPEN - 1, OPEN + 1, LAN_ONLY - 1, LAN_ONLY + 1, NOBODY - 1, NOBODY + 1];
    for (what, ports) in [
        ("port 0", &[0][..]),
        ("ports beside the services", &near),
        ("the services' ports, bytes swapped", &[OPEN, LAN_ONLY, NOBODY].map(u16::swap_bytes)),
        ("the UDP service's port", &[OPEN_UDP]),
        ("the last ports", &[32767, 32768, 65534, 65535]),
    ] {
        let hosts = suite.hosts(family);
        let sweep = ports.iter().flat_map(|port| {
            [SYN, ACK].map(|flags| LINK.ip(&hosts.inward().tcp(FROM, *port, flags, 1, &[])))
        });
        let name = format!("tcp: {what}, {family}");
        suite.sweep(name, sweep.collect(), &[Reason::NoService], hosts.honest());
    }
    let hosts = suite.hosts(family);
    let services = [OPEN, LAN_ONLY, NOBODY];
    let sweep = (0..=u16::MAX).step_by(7).filter(|port| !services.contains(port)).map(|port| hosts.syn(port));
    let name = format!("tcp: every seventh port from 0, {family}");
    suite.sweep(name, sweep.collect(), &[Reason::NoService], hosts.honest());

    let hosts = suite.hosts(family);
    let segment = hosts.inward().tcp(FROM, OPEN_UDP, SYN, 1, &[]);
    let header = family.header_len();
    let name = format!("tcp: a segment under UDP's number, {family}");
    // Bytes 4 to 8 of a segment are its sequence number: 1 is no length of a datagram.
    let frame = LINK.ip(&hosts.inward().packet(UDP, &segment[header..]));
    suite.add(name, frame, &[Reason::MalformedUdp], hosts.honest());
}
