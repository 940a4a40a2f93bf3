//! Answers that answer nothing: each differs in one thing from the reply of a flow that this host began.

use proxy_common::abi::reason::Reason;

use super::build::{CLOSED, FAMILIES, FROM, Family, Hosts, LINK, OPEN, icmp};
use super::{Event, SECOND, Suite, Twin};
use crate::frames::{ACK, FIN, Path, RST, SYN};

/// A port of the stranger that the host asks.
const ASKED: u16 = 9000;
const NO_SERVICE: &[Reason] = &[Reason::NoService];
const HOUR: u64 = 3600 * SECOND;

pub(super) fn add(suite: &mut Suite) {
    for family in FAMILIES {
        wrong_tuples(suite, family);
        tcp_times(suite, family);
        udp_times(suite, family);
        never_begun(suite, family);
        echo(suite, family);
    }
}

fn tcp(path: Path, from: u16, to: u16, flags: u8) -> Vec<u8> {
    LINK.ip(&path.tcp(from, to, flags, 1, &[]))
}

fn udp(path: Path, from: u16, to: u16) -> Vec<u8> {
    LINK.ip(&path.udp(from, to, b"data"))
}

/// The host opens a connection.
fn opening(hosts: &Hosts) -> Event {
    Event::sent(tcp(hosts.outward(), FROM, ASKED, SYN))
}

/// It is answered, and so established.
fn established(hosts: &Hosts) -> Vec<Event> {
    let answer = tcp(hosts.inward(), ASKED, FROM, SYN | ACK);
    let acknowledgement = tcp(hosts.outward(), FROM, ASKED, ACK);
    vec![opening(hosts), Event::arrived(answer), Event::sent(acknowledgement)]
}

/// The host asks over UDP.
fn asking(hosts: &Hosts) -> Event {
    Event::sent(udp(hosts.outward(), FROM, ASKED))
}

fn wrong_tuples(suite: &mut Suite, family: Family) {
    for over_tcp in [true, false] {
        let what = if over_tcp { "TCP" } else { "UDP" };
        let hosts = suite.hosts(family);
        let (inward, other) = (hosts.inward(), hosts.from(hosts.other()));
        let answer = |path, from, to| if over_tcp { tcp(path, from, to, ACK) } else { udp(path, from, to) };
        let before = || if over_tcp { established(&hosts) } else { vec![asking(&hosts)] };
        let twin = Twin::after(before(), SECOND, answer(inward, ASKED, FROM), Reason::Reply);
        let elsewhere = Path::new(hosts.stranger(), hosts.other());
        let crossed = if over_tcp { udp(inward, ASKED, FROM) } else { tcp(inward, ASKED, FROM, ACK) };
        for (difference, frame) in [
            ("another host", answer(other, ASKED, FROM)),
            ("the LAN", answer(hosts.from(hosts.lan()), ASKED, FROM)),
            ("another port", answer(inward, ASKED + 1, FROM)),
            ("port 0", answer(inward, 0, FROM)),
            ("port 53", answer(inward, 53, FROM)),
            ("the right host to another port", answer(inward, ASKED, FROM + 1)),
            ("the right host to another host", answer(elsewhere, ASKED, FROM)),
            ("the right host over the other protocol", crossed),
            ("the right host with ports exchanged", answer(inward, FROM, ASKED)),
        ] {
            let name = format!("state: an answer over {what} from {difference}, {family}");
            suite.after(name, (before(), SECOND), frame, NO_SERVICE, twin.clone());
        }
    }
}

fn tcp_times(suite: &mut Suite, family: Family) {
    let hosts = suite.hosts(family);
    let answer = |flags| tcp(hosts.inward(), ASKED, FROM, flags);
    for flags in [SYN, SYN | 8, SYN | 0xc0] {
        let twin = Twin::after(established(&hosts), SECOND, answer(ACK), Reason::Reply);
        let name = format!("state: SYN (flags {flags:#x}) in an established connection, {family}");
        suite.after(name, (established(&hosts), SECOND), answer(flags), NO_SERVICE, twin);
    }
    let twin = |before, at_ns| Twin::after(before, at_ns, answer(ACK), Reason::Reply);
    let close = |by_host: bool, flags| {
        let path = if by_host { hosts.outward() } else { hosts.inward() };
        let (from, to) = if by_host { (FROM, ASKED) } else { (ASKED, FROM) };
        let event = Event { at_ns: SECOND, ingress: !by_host, frame: tcp(path, from, to, flags) };
        [established(&hosts), vec![event]].concat()
    };
    let opened = vec![opening(&hosts)];
    for (what, before, good, bad) in [
        ("a SYN-ACK after 120 seconds", opened, 119 * SECOND, 121 * SECOND),
        ("data after an hour of silence", established(&hosts), HOUR - SECOND, HOUR + SECOND),
        ("data 120 seconds after the host's FIN", close(true, FIN | ACK), 120 * SECOND, 122 * SECOND),
        ("data 120 seconds after the other's FIN", close(false, FIN | ACK), 120 * SECOND, 122 * SECOND),
        ("data 120 seconds after the host's RST", close(true, RST), 120 * SECOND, 122 * SECOND),
        ("data 120 seconds after the other's RST", close(false, RST), 120 * SECOND, 122 * SECOND),
    ] {
        let name = format!("state: {what}, {family}");
        suite.after(name, (before.clone(), bad), answer(ACK), NO_SERVICE, twin(before, good));
    }
    // What was dropped does not count as a sign of life.
    let syn = |at_ns| Event::arrived(answer(SYN)).at(at_ns);
    let before = vec![opening(&hosts), syn(60 * SECOND), syn(119 * SECOND)];
    let name = format!("state: a SYN-ACK after 120 seconds, kept alive by SYNs, {family}");
    suite.after(
        name,
        (before.clone(), 121 * SECOND),
        answer(SYN | ACK),
        NO_SERVICE,
        twin(before, 119 * SECOND),
    );
}

fn udp_times(suite: &mut Suite, family: Family) {
    let hosts = suite.hosts(family);
    let answer = udp(hosts.inward(), ASKED, FROM);
    let twin = Twin::after(vec![asking(&hosts)], 179 * SECOND, answer.clone(), Reason::Reply);
    let name = format!("state: an answer over UDP after 180 seconds, {family}");
    suite.after(name, (vec![asking(&hosts)], 181 * SECOND), answer.clone(), NO_SERVICE, twin.clone());

    let near = Event::arrived(udp(hosts.inward(), ASKED + 1, FROM)).at(100 * SECOND);
    let before = vec![asking(&hosts), near];
    let name = format!("state: an answer over UDP after 180 seconds, kept alive from another port, {family}");
    suite.after(name, (before, 181 * SECOND), answer, NO_SERVICE, twin);
}

/// Packets of the host that begin no flow.
fn never_begun(suite: &mut Suite, family: Family) {
    for (what, flags) in [("SYN-ACK", SYN | ACK), ("ACK", ACK), ("FIN", FIN | ACK), ("RST", RST)] {
        let hosts = suite.hosts(family);
        let answer = tcp(hosts.inward(), ASKED, FROM, flags);
        let before = vec![opening(&hosts)];
        let twin = Twin::after(before, SECOND, answer.clone(), Reason::Reply);
        let name = format!("state: {what} without a SYN, {family}");
        suite.add(name, answer, NO_SERVICE, twin);

        let hosts = suite.hosts(family);
        let answer = tcp(hosts.inward(), ASKED, FROM, ACK);
        let before = vec![Event::sent(tcp(hosts.outward(), FROM, ASKED, flags))];
        let twin = Twin::after(vec![opening(&hosts)], SECOND, answer.clone(), Reason::Reply);
        let name = format!("state: an answer to the host's {what}, {family}");
        suite.after(name, (before, SECOND), answer, NO_SERVICE, twin);
    }
    // A stranger's knock opens nothing, not even if it is refused politely.
    let hosts = suite.hosts(family);
    let knock = Event::arrived(tcp(hosts.inward(), FROM, CLOSED, SYN));
    let refusal = Event::sent(tcp(hosts.outward(), CLOSED, FROM, RST | ACK));
    let name = format!("state: after a refused connection, {family}");
    let frame = tcp(hosts.inward(), FROM, CLOSED, ACK);
    suite.after(name, (vec![knock, refusal], SECOND), frame, NO_SERVICE, hosts.honest());
    let knock = Event::arrived(tcp(hosts.inward(), FROM, OPEN, SYN));
    let welcome = Event::sent(tcp(hosts.outward(), OPEN, FROM, SYN | ACK));
    let name = format!("state: from an open service's client to a closed port, {family}");
    let frame = tcp(hosts.inward(), FROM, CLOSED, ACK);
    suite.after(name, (vec![knock, welcome], SECOND), frame, NO_SERVICE, hosts.honest());
}

fn echo(suite: &mut Suite, family: Family) {
    let hosts = suite.hosts(family);
    let request = LINK.ip(&hosts.outward().echo_request(7, 1));
    let before = || vec![Event::sent(request.clone())];
    let reply = |path: Path, id: u8| LINK.ip(&icmp(&path, family.echo_reply(), 0, &[0, id, 0, 1]));
    let twin = Twin::after(before(), 29 * SECOND, reply(hosts.inward(), 7), Reason::Reply);
    let asked_by_stranger = Event::arrived(LINK.ip(&hosts.inward().echo_request(7, 1)));
    let same_number = Event::sent(udp(hosts.outward(), 7, 7));
    for (what, before, at_ns, frame) in [
        ("nobody asked for", vec![], SECOND, reply(hosts.inward(), 7)),
        ("with another identifier", before(), SECOND, reply(hosts.inward(), 8)),
        ("with the identifier's bytes swapped", before(), SECOND, {
            LINK.ip(&icmp(&hosts.inward(), family.echo_reply(), 0, &[7, 0, 0, 1]))
        }),
        ("from another host", before(), SECOND, reply(hosts.from(hosts.other()), 7)),
        ("after 30 seconds", before(), 31 * SECOND, reply(hosts.inward(), 7)),
        ("after a request of the other side", vec![asked_by_stranger], SECOND, reply(hosts.inward(), 7)),
        ("with the number of a flow over UDP", vec![same_number], SECOND, reply(hosts.inward(), 7)),
    ] {
        let name = format!("state: an echo reply {what}, {family}");
        suite.after(name, (before, at_ns), frame, NO_SERVICE, twin.clone());
    }
}
