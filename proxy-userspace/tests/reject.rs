//! Answers to rejected packets, byte by byte: each is read back by a parser that shares no code with the writer, and every
//! checksum is made once more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders,
    PayloadSlice, TransportHeader, icmpv4, icmpv6,
};
use proptest::prelude::*;
use proxy_common::abi::reason::Reason;
use tollgate::policy::compile::{Compiled, RuleIds, compile};
use tollgate::simulate::Simulation;

const POLICY: &str = "version = 1\n[interfaces.eth0]\ndefault = \"reject\"\n[interfaces.eth1]\n[plumbing]\nping = false\n\
                      [zones]\nlan = [\"192.0.2.0/24\"]\n[services.web]\nports = [\"tcp/80\"]\nallow = [\"lan\"]\n";
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(192, 0, 2, 1)];
const V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)];

fn compiled(text: &str, interfaces: &[&str]) -> Compiled {
    let policy = tollgate::policy::parse(text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<String> = interfaces.iter().map(|name| (*name).to_owned()).collect();
    let rules = RuleIds::assign(&[], &|_| false, &policy).expect("ids");
    compile(&policy, &names, &rules).expect("tables")
}

/// What goes into a frame.
#[derive(Clone, Debug)]
struct Packet {
    v6: bool,
    tags: usize,
    ports: (u16, u16),
    payload: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp {
        sequence: u32,
        acknowledgement: u32,
        syn: bool,
        ack: bool,
        fin: bool,
    },
    Udp,
    Echo,
    /// Some other protocol, with a payload of any length.
    Other,
}

impl Packet {
    fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(PEER, HOST);
        let network = |step: etherparse::PacketBuilderStep<etherparse::IpHeaders>| step;
        let ip = if self.v6 {
            let header = etherparse::Ipv6Header {
                hop_limit: 55,
                source: V6[0].octets(),
                destination: V6[1].octets(),
                ..Default::default()
            };
            etherparse::IpHeaders::Ipv6(header, Default::default())
        } else {
            let mut header = etherparse::Ipv4Header::new(0, 55, 0.into(), V4[0].octets(), V4[1].octets())
                .expect("a header");
            header.options = [1; 8].into();
            etherparse::IpHeaders::Ipv4(header, Default::default())
        };
        let vlan = |number: u16| number.try_into().expect("a VLAN");
        let step = match self.tags {
            0 => network(link.ip(ip)),
            1 => network(link.single_vlan(vlan(7)).ip(ip)),
            _ => network(link.double_vlan(vlan(7), vlan(9)).ip(ip)),
        };
        let (mut frame, payload) = (Vec::new(), self.payload.as_slice());
        let (from, to) = self.ports;
        match self.kind {
            Kind::Tcp { sequence, acknowledgement, syn, ack, fin } => {
                let mut tcp = etherparse::TcpHeader::new(from, to, sequence, 1000);
                (tcp.acknowledgment_number, tcp.syn, tcp.ack, tcp.fin) = (acknowledgement, syn, ack, fin);
                step.tcp_header(tcp).write(&mut frame, payload)
            }
            Kind::Udp => step.udp(from, to).write(&mut frame, payload),
            Kind::Echo if self.v6 => step.icmpv6_echo_request(from, to).write(&mut frame, payload),
            Kind::Echo => step.icmpv4_echo_request(from, to).write(&mut frame, payload),
            Kind::Other => step.write(&mut frame, 253.into(), payload),
        }
        .expect("a frame");
        frame
    }
}

fn packets() -> impl Strategy<Value = Packet> {
    let tcp = (any::<u32>(), any::<u32>(), any::<[bool; 2]>()).prop_map(
        |(sequence, acknowledgement, [ack, other])| {
            // A SYN, a SYN-ACK, an ACK, a FIN with ACK: what passes as sane.
            let (syn, fin) = (!ack || other, ack && !other && sequence % 2 == 0);
            Kind::Tcp { sequence, acknowledgement, syn, ack, fin }
        },
    );
    let kind = prop_oneof![4 => tcp, 3 => Just(Kind::Udp), 1 => Just(Kind::Echo), 1 => Just(Kind::Other)];
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    (any::<bool>(), 0..3usize, (1024..u16::MAX, 1024..u16::MAX), payload, kind)
        .prop_map(|(v6, tags, ports, payload, kind)| Packet { v6, tags, ports, payload, kind })
}

fn addresses(ip: &NetHeaders) -> [IpAddr; 2] {
    match ip {
        NetHeaders::Ipv4(ip, _) => [ip.source.into(), ip.destination.into()],
        NetHeaders::Ipv6(ip, _) => [ip.source.into(), ip.destination.into()],
        NetHeaders::Arp(_) => panic!("ARP"),
    }
}

/// The part of a packet that an error must quote.
fn quoted(packet: &Packet, frame: &[u8]) -> Vec<u8> {
    let at = 14 + 4 * packet.tags;
    let longest = if packet.v6 { 104 } else { 28 + 8 };
    frame[at..].iter().copied().take(longest).collect()
}

/// Reads an answer back and finds every field as it must be.
fn inspect(packet: &Packet, frame: &[u8], answer: &[u8]) {
    let link_len = 14 + 4 * packet.tags;
    assert_eq!(answer[..6], PEER);
    assert_eq!(answer[6..12], HOST);
    assert_eq!(answer[12..link_len], frame[12..link_len], "tags and type");
    let read = PacketHeaders::from_ethernet_slice(answer).expect("headers");
    let network = read.net.as_ref().expect("an IP header");
    let [source, destination]: [IpAddr; 2] =
        if packet.v6 { V6.map(IpAddr::from) } else { V4.map(IpAddr::from) };
    assert_eq!(addresses(network), [destination, source]);
    let len = match network {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!((ip.time_to_live, ip.dont_fragment, ip.more_fragments), (64, true, false));
            usize::from(ip.total_len)
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!(ip.hop_limit, 64);
            40 + usize::from(ip.payload_length)
        }
        NetHeaders::Arp(_) => unreachable!("an IP header"),
    };
    assert_eq!(answer.len(), link_len + len, "nothing behind the packet");
    match (read.transport.expect("a transport header"), packet.kind) {
        (TransportHeader::Tcp(tcp), Kind::Tcp { sequence, acknowledgement, syn, ack, fin }) => {
            let sum = match network {
                NetHeaders::Ipv4(ip, _) => tcp.calc_checksum_ipv4(ip, &[]),
                NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(ip, &[]),
                NetHeaders::Arp(_) => unreachable!("an IP header"),
            };
            assert_eq!(Ok(tcp.checksum), sum.map_err(|_| ()));
            assert_eq!((tcp.source_port, tcp.destination_port), (packet.ports.1, packet.ports.0));
            let marks = u32::from(syn) + u32::from(fin);
            let after = sequence.wrapping_add(packet.payload.len() as u32).wrapping_add(marks);
            let numbers = if ack { (acknowledgement, 0, false) } else { (0, after, true) };
            assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.ack), numbers);
            assert!(tcp.rst && !tcp.syn && !tcp.fin && !tcp.psh && !tcp.urg);
        }
        (TransportHeader::Icmpv4(Icmpv4Header { icmp_type, checksum }), kind) => {
            let PayloadSlice::Icmpv4(quote) = read.payload else { panic!("no quote") };
            assert_eq!(quote, quoted(packet, frame));
            assert_eq!(checksum, icmp_type.calc_checksum(quote));
            let code = match kind {
                Kind::Udp => icmpv4::DestUnreachableHeader::Port,
                _ => icmpv4::DestUnreachableHeader::FilterProhibited,
            };
            assert_eq!(icmp_type, Icmpv4Type::DestinationUnreachable(code));
        }
        (TransportHeader::Icmpv6(Icmpv6Header { icmp_type, checksum }), kind) => {
            let PayloadSlice::Icmpv6(quote) = read.payload else { panic!("no quote") };
            assert_eq!(quote, quoted(packet, frame));
            let sum = icmp_type.calc_checksum(V6[1].octets(), V6[0].octets(), quote);
            assert_eq!(Ok(checksum), sum.map_err(|_| ()));
            let code = match kind {
                Kind::Udp => icmpv6::DestUnreachableCode::Port,
                _ => icmpv6::DestUnreachableCode::Prohibited,
            };
            assert_eq!(icmp_type, Icmpv6Type::DestinationUnreachable(code));
        }
        (other, _) => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn answers_read_back_as_they_must(packet in packets()) {
        let compiled = compiled(POLICY, &["eth0"]);
        let frame = packet.frame();
        let (outcome, answer) = Simulation::new(&compiled, 0).answer(&frame, 0);
        prop_assert_eq!(outcome.reason, Reason::NoService);
        inspect(&packet, &frame, &answer.expect("an answer"));
    }

    #[test]
    fn no_bytes_break_the_writer(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..60usize) {
        let compiled = compiled(POLICY, &["eth0"]);
        let mut frame = Packet { v6: at % 2 == 0, tags: at % 3, ports: (1, 2), payload: bytes.clone(), kind: Kind::Udp }.frame();
        for (place, byte) in frame.iter_mut().skip(at).zip(bytes.iter().take(12)) {
            *place = *byte;
        }
        let (outcome, answer) = Simulation::new(&compiled, 0).answer(&frame, 0);
        prop_assert!(answer.is_none() || outcome.reason == Reason::NoService);
    }
}

fn syn(from: u16, to: u16) -> Vec<u8> {
    let kind = Kind::Tcp { sequence: 7, acknowledgement: 0, syn: true, ack: false, fin: false };
    Packet { v6: false, tags: 0, ports: (from, to), payload: Vec::new(), kind }.frame()
}

#[test]
fn a_source_is_answered_twenty_times_and_ten_times_a_second() {
    let compiled = compiled(POLICY, &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    let mut answers = |now_ns| (0..50).filter(|_| host.answer(&syn(4000, 22), now_ns).1.is_some()).count();
    assert_eq!(answers(0), 20);
    assert_eq!(answers(1_000_000_000), 10);
    assert_eq!(answers(60_000_000_000), 20);
}

#[test]
fn all_sources_together_are_answered_a_thousand_times() {
    let compiled = compiled(POLICY, &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    let answered = (0..2000u32).filter(|n| {
        let mut frame = syn(4000, 22);
        frame[26..30].copy_from_slice(&(0x0a00_0000 + n).to_be_bytes());
        host.answer(&frame, 0).1.is_some()
    });
    assert_eq!(answered.count(), 1000);
}

#[test]
fn interfaces_and_services_that_drop_stay_silent() {
    let compiled = compiled(POLICY, &["eth0", "eth1"]);
    // The service keeps its own `refuse`, whatever the interface's default is.
    let (outcome, answer) = Simulation::new(&compiled, 0).answer(&syn(4000, 80), 0);
    assert_eq!((outcome.reason, answer), (Reason::ServiceRefused, None));
    let (outcome, answer) = Simulation::new(&compiled, 1).answer(&syn(4000, 22), 0);
    assert_eq!((outcome.reason, answer), (Reason::NoService, None));
}

#[test]
fn a_service_answers_whom_it_refuses_or_denies() {
    let text = POLICY.replace("default = \"reject\"\n", "") + "deny = [\"bad\"]\nrefuse = \"reject\"\n";
    let text = text.replace("[zones]\n", "[zones]\nbad = [\"203.0.113.9\"]\n");
    for (text, reason) in [
        (text.clone(), Reason::ServiceDenied),
        (text.replace("203.0.113.9", "203.0.113.8"), Reason::ServiceRefused),
    ] {
        let compiled = compiled(&text, &["eth0"]);
        let (outcome, answer) = Simulation::new(&compiled, 0).answer(&syn(4000, 80), 0);
        assert_eq!((outcome.reason, answer.is_some()), (reason, true));
        let (outcome, answer) = Simulation::new(&compiled, 0).answer(&syn(4000, 22), 0);
        assert_eq!((outcome.reason, answer), (Reason::NoService, None));
    }
}

#[test]
fn a_connection_that_the_host_began_is_not_cut_by_a_forged_syn() {
    let compiled = compiled(POLICY, &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    let mut own = syn(22, 4000);
    let (source, destination) = (V4[1].octets(), V4[0].octets());
    own[26..30].copy_from_slice(&source);
    own[30..34].copy_from_slice(&destination);
    host.egress(&own, 0);
    assert_eq!(host.answer(&syn(4000, 22), 0), (host.ingress(&syn(4000, 22), 0), None));
    assert!(host.answer(&syn(4001, 22), 0).1.is_some());
}

#[test]
fn a_policy_that_rejects_nothing_has_no_buckets_for_it() {
    let text = POLICY.replace("reject", "drop");
    assert!(compiled(&text, &["eth0"]).tables.buckets.is_empty());
    // A service that refuses nobody can't reject.
    let open = text.replace("allow = [\"lan\"]", "allow = \"any\"\nrefuse = \"reject\"");
    let compiled_open = compiled(&open, &["eth0"]);
    assert!(compiled_open.tables.buckets.is_empty() && !compiled_open.interfaces[0].rejects);
    let both = compiled(POLICY, &["eth0", "eth1"]);
    assert_eq!(both.tables.buckets.len(), 2);
    assert_eq!([both.interfaces[0].rejects, both.interfaces[1].rejects], [true, false]);
}

#[test]
fn an_answer_begins_no_flow() {
    let compiled = compiled(POLICY, &["eth0"]);
    let mut host = Simulation::new(&compiled, 0);
    for kind in [Kind::Udp, Kind::Echo, Kind::Other] {
        let packet = Packet { v6: false, tags: 0, ports: (4000, 9), payload: Vec::new(), kind };
        let (outcome, answer) = host.answer(&packet.frame(), 0);
        host.egress(&answer.expect("an answer"), 0);
        // What comes back from the same ports is no reply to it.
        assert_eq!(host.ingress(&packet.frame(), 1), outcome);
    }
    let (_, answer) = host.answer(&syn(4000, 22), 0);
    host.egress(&answer.expect("an answer"), 0);
    let kind = Kind::Tcp { sequence: 8, acknowledgement: 1, syn: false, ack: true, fin: false };
    let packet = Packet { v6: false, tags: 0, ports: (4000, 22), payload: Vec::new(), kind };
    assert_eq!(host.ingress(&packet.frame(), 1).reason, Reason::NoService);
}
