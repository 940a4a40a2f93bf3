//! What this host began: replies, timeouts and ICMP errors.

use proxy_common::abi::reason::Reason;

use super::super::Reference;
use super::build::*;

fn reference() -> Reference {
    Reference::new(&policy(), "eth0").expect("enforced")
}

fn out(flags: u8) -> Vec<u8> {
    tcp(HOST, STRANGER, (40000, 443), flags)
}

fn back(flags: u8) -> Vec<u8> {
    tcp(STRANGER, HOST, (443, 40000), flags)
}

#[test]
fn tcp_answers_pass_and_openings_do_not() {
    let mut it = reference();
    assert_eq!(it.ingress(&back(SYN | ACK), 0).0, Reason::NoService);
    it.egress(&out(ACK), 0);
    assert_eq!(it.ingress(&back(ACK), 0).0, Reason::NoService);
    it.egress(&out(SYN), 0);
    assert_eq!(it.ingress(&back(SYN), 1).0, Reason::NoService);
    assert_eq!(it.ingress(&back(SYN | ACK), 1).0, Reason::Reply);
    assert_eq!(it.ingress(&tcp(STRANGER, HOST, (443, 40001), ACK), 1).0, Reason::NoService);
    assert_eq!(it.ingress(&tcp(OFFICE, HOST, (443, 40000), ACK), 1).0, Reason::NoService);
}

#[test]
fn each_state_has_its_timeout() {
    let mut it = reference();
    it.egress(&out(SYN), 0);
    assert_eq!(it.ingress(&back(SYN | ACK), 120 * SECOND + 1).0, Reason::NoService);

    it.egress(&out(SYN), 0);
    assert_eq!(it.ingress(&back(SYN | ACK), 120 * SECOND).0, Reason::Reply);
    let late = 400_000 * SECOND;
    assert_eq!(it.ingress(&back(ACK), late).0, Reason::Reply);

    assert_eq!(it.ingress(&back(RST), late).0, Reason::Reply);
    assert_eq!(it.ingress(&back(ACK), late + 120 * SECOND).0, Reason::Reply);
    assert_eq!(it.ingress(&back(ACK), late + 240 * SECOND + 1).0, Reason::NoService);
    // What timed out is woken by a new SYN alone.
    it.egress(&out(ACK), late + 241 * SECOND);
    assert_eq!(it.ingress(&back(ACK), late + 241 * SECOND).0, Reason::NoService);
}

#[test]
fn a_fin_of_this_host_closes_and_a_new_syn_reopens() {
    let mut it = reference();
    it.egress(&out(SYN), 0);
    it.ingress(&back(SYN | ACK), 0);
    it.egress(&out(FIN | ACK), 0);
    assert_eq!(it.ingress(&back(ACK), 121 * SECOND).0, Reason::NoService);
    it.egress(&out(SYN), 200 * SECOND);
    assert_eq!(it.ingress(&back(SYN | ACK), 200 * SECOND).0, Reason::Reply);
    assert_eq!(it.ingress(&back(ACK), 500 * SECOND).0, Reason::Reply);
}

#[test]
fn answers_of_a_service_begin_no_udp_flow() {
    let mut it = reference();
    it.egress(&udp(HOST, STRANGER, (8010, 9)), 0);
    assert_eq!(it.ingress(&udp(STRANGER, HOST, (9, 8010)), 0).0, Reason::ServiceAllowed);
    // The service does not allow the stranger: the datagram is not its answer, so it begins a flow.
    assert_eq!(it.ingress(&udp(STRANGER, HOST, (9, 53)), 0).0, Reason::ServiceRefused);
    it.egress(&udp(HOST, STRANGER, (53, 9)), 0);
    assert_eq!(it.ingress(&udp(STRANGER, HOST, (9, 53)), 180 * SECOND).0, Reason::Reply);
    assert_eq!(it.ingress(&udp(STRANGER, HOST, (9, 53)), 360 * SECOND + 1).0, Reason::ServiceRefused);
}

#[test]
fn echo_replies_answer_the_same_identifier() {
    for (host, peer, request, reply) in [(HOST, STRANGER, 8, 0), (HOST6, STRANGER6, 128, 129)] {
        let mut it = reference();
        it.egress(&icmp(host, peer, request, 77, &[]), 0);
        assert_eq!(it.ingress(&icmp(peer, host, reply, 77, &[]), 30 * SECOND).0, Reason::Reply);
        assert_eq!(it.ingress(&icmp(peer, host, reply, 78, &[]), 30 * SECOND).0, Reason::NoService);
        assert_eq!(it.ingress(&icmp(peer, host, reply, 77, &[]), 61 * SECOND).0, Reason::NoService);
    }
}

#[test]
fn icmp_errors_about_own_flows_pass() {
    let mut it = reference();
    let quote = |packet: &[u8]| icmp("192.0.2.77", HOST, 3, 0, packet);
    let sent = &out(SYN)[14..42];
    assert_eq!(it.ingress(&quote(sent), 0).0, Reason::IcmpErrorUnknown);
    it.egress(&out(SYN), 0);
    assert_eq!(it.ingress(&quote(sent), 120 * SECOND).0, Reason::IcmpError);
    assert_eq!(it.ingress(&quote(sent), 120 * SECOND + 1).0, Reason::IcmpErrorUnknown);
    assert_eq!(it.ingress(&quote(&sent[..27]), 0).0, Reason::IcmpErrorUnknown);
    // Source quench is no error of the page's list.
    assert_eq!(it.ingress(&icmp(STRANGER, HOST, 4, 0, sent), 0).0, Reason::NoService);
}

#[test]
fn icmp_errors_about_answers_of_a_service_pass() {
    let mut it = reference();
    let about = |source: &str, ports: (u16, u16)| {
        icmp("192.0.2.77", HOST, 3, 0, &tcp(source, STRANGER, ports, ACK)[14..])
    };
    assert_eq!(it.ingress(&about(HOST, (80, 5555)), 0).0, Reason::IcmpError);
    assert_eq!(it.ingress(&about(HOST, (5432, 5555)), 0).0, Reason::IcmpErrorUnknown);
    assert_eq!(it.ingress(&about("192.0.2.2", (80, 5555)), 0).0, Reason::IcmpErrorUnknown);
    assert_eq!(it.ingress(&about(HOST, (81, 5555)), 0).0, Reason::IcmpErrorUnknown);
    // The service denies the receiver: what it sent there was no answer.
    let denied = icmp(STRANGER, HOST, 3, 0, &tcp(HOST, "203.0.113.200", (80, 5555), ACK)[14..]);
    assert_eq!(it.ingress(&denied, 0).0, Reason::IcmpErrorUnknown);
}

#[test]
fn quotes_have_options_extensions_and_fragments() {
    let mut it = reference();
    it.egress(&out(SYN), 0);
    let mut optioned = ipv4(HOST, STRANGER, 6, 64, 1, 0, &[vec![1; 4], tcp_header(40000, 443, SYN)].concat());
    optioned[0] = 0x46;
    assert_eq!(it.ingress(&icmp(STRANGER, HOST, 11, 0, &optioned), 0).0, Reason::IcmpError);
    let later = ipv4(HOST, STRANGER, 6, 64, 1, 1, &tcp_header(40000, 443, SYN));
    assert_eq!(it.ingress(&icmp(STRANGER, HOST, 11, 0, &later), 0).0, Reason::IcmpErrorUnknown);

    it.egress(&tcp(HOST6, STRANGER6, (40000, 443), SYN), 0);
    let data = [fragment_header(6, 0, true, 9), tcp_header(40000, 443, ACK)[..11].to_vec()].concat();
    let quote = ipv6(HOST6, STRANGER6, 44, 64, &data);
    assert_eq!(it.ingress(&icmp("2001:db8:5::5", HOST6, 2, 0, &quote), 0).0, Reason::IcmpError);
    assert_eq!(it.ingress(&icmp("2001:db8:5::5", HOST6, 5, 0, &quote), 0).0, Reason::NoService);
    let data = [fragment_header(6, 8, true, 9), tcp_header(40000, 443, ACK)].concat();
    let later = ipv6(HOST6, STRANGER6, 44, 64, &data);
    assert_eq!(it.ingress(&icmp("2001:db8:5::5", HOST6, 2, 0, &later), 0).0, Reason::IcmpErrorUnknown);
}

#[test]
fn quoted_pings_of_this_host_are_known_and_its_echo_replies_are_not() {
    let mut it = reference();
    it.egress(&icmp(HOST, STRANGER, 8, 7, &[]), 0);
    for (kind, identifier, expected) in
        [(8, 7, Reason::IcmpError), (8, 8, Reason::IcmpErrorUnknown), (0, 7, Reason::IcmpErrorUnknown)]
    {
        let quote = ipv4(HOST, STRANGER, 1, 64, 1, 0, &icmp_message(kind, identifier, &[]));
        assert_eq!(it.ingress(&icmp(STRANGER, HOST, 3, 0, &quote), 0).0, expected);
    }
}
