//! Connections of containers behind this host, as the kernel's connection tracking (ctnetlink) lists them, with addresses
//! as they are on the wire: where masquerading has translated them, the translated ones.
//!
//! Connections of this host are listed too, also those without a connected socket.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use proxy_common::packet::protocol;

use super::flow::{End, Flow, Stage};
use crate::dataplane::netlink::dump;

/// How many connections are tracked in this network namespace. It is there only where the kernel tracks: asking for the
/// table would load the module elsewhere.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

// `CTA_PROTO_*` of linux/netfilter/nfnetlink_conntrack.h that the crate does not name.
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMPV6_ID: u16 = 7;
const ICMPV6_TYPE: u16 = 8;
/// Types of echo replies: ICMP, ICMPv6.
const ECHO_REPLY: [(u8, u8); 2] = [(protocol::ICMP, 0), (protocol::ICMPV6, 129)];

// `TCP_CONNTRACK_*` of linux/netfilter/nf_conntrack_tcp.h.
const SYN_SENT: u8 = 1;
const SYN_RECV: u8 = 2;
const ESTABLISHED: u8 = 3;
const FIN_WAIT: u8 = 4;
const CLOSE_WAIT: u8 = 5;
const LAST_ACK: u8 = 6;

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Packets of the side that began it, if they are to be let through.
    pub from_originator: Option<Flow>,
    /// Packets of the other side.
    pub from_responder: Option<Flow>,
    /// The address of the side that began it.
    pub originator: IpAddr,
    /// The address of the other side.
    pub responder: IpAddr,
}

/// Hands on each connection that is tracked; gives how many records could not be decoded. No table is fine.
pub fn read(each: impl FnMut(Connection)) -> io::Result<usize> {
    if !is_in_use(Path::new(COUNT)) {
        log::debug!("no connections are tracked in this network namespace");
        return Ok(0);
    }
    match list(each) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EPROTONOSUPPORT | libc::ENOENT | libc::EOPNOTSUPP)
            ) =>
        {
            log::debug!("connections are tracked, but the kernel does not list them: {error}");
            Ok(0)
        }
        other => other,
    }
}

fn is_in_use(count: &Path) -> bool {
    std::fs::read_to_string(count).is_ok_and(|text| text.trim().parse() != Ok(0u64))
}

fn list(mut each: impl FnMut(Connection)) -> io::Result<usize> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let request = NetfilterMessage::new(header, ConntrackMessage::Get(Vec::new()));
    dump(NETLINK_NETFILTER, request, |message| {
        if let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner
            && let Some(connection) = connection_of(&attributes)
        {
            each(connection);
        }
    })
}

/// A record of the table; `None` if it is of another protocol, over, or not what the kernel writes.
pub fn connection_of(attributes: &[ConntrackAttribute]) -> Option<Connection> {
    let (mut original, mut reply, mut tcp_state, mut status) = (None, None, None, Status::empty());
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = way_of(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = way_of(tuple),
            ConntrackAttribute::CtaProtoInfo(infos) => tcp_state = tcp_state_of(infos),
            ConntrackAttribute::CtaStatus(bits) => status = *bits,
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    if original.protocol != reply.protocol || status.contains(Status::Dying) {
        return None;
    }
    let (from_originator, from_responder) = match original.protocol {
        protocol::TCP => {
            let (one, other) = stages_of_tcp(tcp_state?)?;
            (one.and_then(|stage| original.ports(stage)), reply.ports(other))
        }
        // Datagrams of a stranger are a connection only once they have been answered.
        protocol::UDP => {
            let answered = status.contains(Status::SeenReply);
            let from_originator = if answered { original.ports(Stage::Datagram) } else { None };
            (from_originator, reply.ports(Stage::Datagram))
        }
        protocol::ICMP | protocol::ICMPV6 => (None, reply.echo_reply()),
        _ => return None,
    };
    if from_originator.is_none() && from_responder.is_none() {
        return None;
    }
    Some(Connection { from_originator, from_responder, originator: original.source, responder: reply.source })
}

/// How far a TCP connection is, as seen by what its originator sends and what its responder sends. A connection that has
/// not been opened from both sides is nothing that the originator may rely on: a scan is that far too.
const fn stages_of_tcp(state: u8) -> Option<(Option<Stage>, Stage)> {
    match state {
        SYN_SENT => Some((None, Stage::Opening)),
        SYN_RECV => Some((None, Stage::Established)),
        ESTABLISHED => Some((Some(Stage::Established), Stage::Established)),
        FIN_WAIT | CLOSE_WAIT | LAST_ACK => Some((Some(Stage::Closing), Stage::Closing)),
        _ => None,
    }
}

fn tcp_state_of(infos: &[ProtoInfo]) -> Option<u8> {
    infos.iter().find_map(|info| match info {
        ProtoInfo::TCP(of_tcp) => of_tcp.iter().find_map(|one| match one {
            ProtoInfoTCP::State(state) => Some(*state),
            _ => None,
        }),
        _ => None,
    })
}

/// One direction of a connection: how its packets look on their arrival.
#[derive(Clone, Copy, Debug)]
struct Way {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    icmp_type: Option<u8>,
    icmp_id: Option<u16>,
}

impl Way {
    fn ports(&self, stage: Stage) -> Option<Flow> {
        Some(Flow {
            protocol: self.protocol,
            remote: End::new(self.source, self.source_port?),
            local: End::new(self.destination, self.destination_port?),
            stage,
        })
    }

    /// An echo has one identifier, which stands in the place of this host's port.
    fn echo_reply(&self) -> Option<Flow> {
        if !ECHO_REPLY.contains(&(self.protocol, self.icmp_type?)) {
            return None;
        }
        Some(Flow {
            protocol: self.protocol,
            remote: End::new(self.source, 0),
            local: End::new(self.destination, self.icmp_id?),
            stage: Stage::Datagram,
        })
    }
}

fn way_of(tuple: &[Tuple]) -> Option<Way> {
    let (mut source, mut destination, mut number) = (None, None, None);
    let (mut source_port, mut destination_port, mut icmp_type, mut icmp_id) = (None, None, None, None);
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(of) => number = Some(u8::from(*of)),
                        ProtoTuple::SourcePort(port) => source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => destination_port = Some(*port),
                        ProtoTuple::Other(other) => match other.kind() {
                            ICMP_ID | ICMPV6_ID => icmp_id = bytes_of(other).map(u16::from_be_bytes),
                            ICMP_TYPE | ICMPV6_TYPE => icmp_type = bytes_of(other).map(u8::from_be_bytes),
                            _ => {}
                        },
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Way {
        source: source?,
        destination: destination?,
        protocol: number?,
        source_port,
        destination_port,
        icmp_type,
        icmp_id,
    })
}

/// The value of an attribute that must have this length.
fn bytes_of<const LENGTH: usize>(attribute: &DefaultNla) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    if attribute.value_len() != LENGTH {
        return None;
    }
    attribute.emit_value(&mut bytes);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::conntrack::Protocol;

    use super::*;

    fn tuple(protocol: u8, from: (&str, u16), to: (&str, u16)) -> Vec<Tuple> {
        let ip = |text: &str| text.parse().expect("an address");
        vec![
            Tuple::Ip(vec![IPTuple::SourceAddress(ip(from.0)), IPTuple::DestinationAddress(ip(to.0))]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(Protocol::from(protocol)),
                ProtoTuple::SourcePort(from.1),
                ProtoTuple::DestinationPort(to.1),
            ]),
        ]
    }

    fn echo(protocol: u8, from: &str, to: &str, numbers: [u16; 2], kind: u8, id: u16) -> Vec<Tuple> {
        let mut echo = tuple(protocol, (from, 0), (to, 0));
        let [of_id, of_type] = numbers;
        echo[1] = Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::from(protocol)),
            ProtoTuple::Other(DefaultNla::new(of_id, id.to_be_bytes().to_vec())),
            ProtoTuple::Other(DefaultNla::new(of_type, vec![kind])),
        ]);
        echo
    }

    fn record(original: Vec<Tuple>, reply: Vec<Tuple>) -> Vec<ConntrackAttribute> {
        vec![ConntrackAttribute::CtaTupleOrig(original), ConntrackAttribute::CtaTupleReply(reply)]
    }

    fn tcp(state: u8, mut record: Vec<ConntrackAttribute>) -> Option<Connection> {
        record.push(ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(vec![ProtoInfoTCP::State(state)])]));
        connection_of(&record)
    }

    /// A container's connection to an outside host, under the server's address and another port.
    fn masqueraded(protocol: u8) -> Vec<ConntrackAttribute> {
        record(
            tuple(protocol, ("172.17.0.2", 41000), ("203.0.113.9", 80)),
            tuple(protocol, ("203.0.113.9", 80), ("192.168.0.104", 61000)),
        )
    }

    fn ends(flow: Option<Flow>) -> Option<(String, u16, String, u16)> {
        flow.map(|Flow { remote, local, .. }| {
            (remote.address.to_string(), remote.port, local.address.to_string(), local.port)
        })
    }

    #[test]
    fn a_masqueraded_connection_arrives_at_the_translated_address_and_port() {
        let found = tcp(ESTABLISHED, masqueraded(protocol::TCP)).expect("a connection");
        let expected = ("203.0.113.9".to_owned(), 80, "192.168.0.104".to_owned(), 61000);
        assert_eq!(ends(found.from_responder), Some(expected));
        assert_eq!(found.originator.to_string(), "172.17.0.2");
        // On the bridge it is the container that sends.
        let expected = ("172.17.0.2".to_owned(), 41000, "203.0.113.9".to_owned(), 80);
        assert_eq!(ends(found.from_originator), Some(expected));
    }

    #[test]
    fn a_published_port_arrives_at_the_address_that_was_asked() {
        let published = record(
            tuple(protocol::TCP, ("203.0.113.9", 50000), ("192.168.0.104", 9000)),
            tuple(protocol::TCP, ("172.17.0.2", 80), ("203.0.113.9", 50000)),
        );
        let found = tcp(ESTABLISHED, published).expect("a connection");
        let expected = ("203.0.113.9".to_owned(), 50000, "192.168.0.104".to_owned(), 9000);
        assert_eq!(ends(found.from_originator), Some(expected));
    }

    #[test]
    fn states_of_tcp_are_told_apart() {
        let stages = |state| {
            let found = tcp(state, masqueraded(protocol::TCP))?;
            Some((found.from_originator.map(|flow| flow.stage), found.from_responder.map(|flow| flow.stage)))
        };
        assert_eq!(stages(SYN_SENT), Some((None, Some(Stage::Opening))));
        assert_eq!(stages(SYN_RECV), Some((None, Some(Stage::Established))));
        assert_eq!(stages(ESTABLISHED), Some((Some(Stage::Established), Some(Stage::Established))));
        for closing in [FIN_WAIT, CLOSE_WAIT, LAST_ACK] {
            assert_eq!(stages(closing), Some((Some(Stage::Closing), Some(Stage::Closing))));
        }
        // None, TIME_WAIT, CLOSE, SYN_SENT2, and what is to come.
        for none in [0, 7, 8, 9, 10, 255] {
            assert_eq!(stages(none), None);
        }
        assert_eq!(connection_of(&masqueraded(protocol::TCP)), None, "without a state");
    }

    #[test]
    fn datagrams_of_a_stranger_count_once_they_are_answered() {
        let mut asked = masqueraded(protocol::UDP);
        let found = connection_of(&asked).expect("a connection");
        assert_eq!(
            (found.from_originator, found.from_responder.map(|flow| flow.stage)),
            (None, Some(Stage::Datagram))
        );
        asked.push(ConntrackAttribute::CtaStatus(Status::SeenReply | Status::Confirmed));
        let found = connection_of(&asked).expect("a connection");
        assert_eq!(found.from_originator.map(|flow| flow.stage), Some(Stage::Datagram));
    }

    #[test]
    fn an_echo_goes_by_the_identifier_of_its_reply() {
        let v4 = record(
            echo(protocol::ICMP, "172.17.0.2", "203.0.113.9", [ICMP_ID, ICMP_TYPE], 8, 7),
            echo(protocol::ICMP, "203.0.113.9", "192.168.0.104", [ICMP_ID, ICMP_TYPE], 0, 61007),
        );
        let expected = ("203.0.113.9".to_owned(), 0, "192.168.0.104".to_owned(), 61007);
        let found = connection_of(&v4).expect("a connection");
        assert_eq!((ends(found.from_responder), found.from_originator), (Some(expected), None));
        let v6 = record(
            echo(protocol::ICMPV6, "2001:db8::1", "2001:db8::9", [ICMPV6_ID, ICMPV6_TYPE], 128, 7),
            echo(protocol::ICMPV6, "2001:db8::9", "2001:db8::1", [ICMPV6_ID, ICMPV6_TYPE], 129, 7),
        );
        assert!(connection_of(&v6).is_some());
        let timestamps = record(
            echo(protocol::ICMP, "172.17.0.2", "203.0.113.9", [ICMP_ID, ICMP_TYPE], 13, 7),
            echo(protocol::ICMP, "203.0.113.9", "192.168.0.104", [ICMP_ID, ICMP_TYPE], 14, 7),
        );
        assert_eq!(connection_of(&timestamps), None);
    }

    #[test]
    fn what_is_not_whole_is_left_out() {
        let whole = masqueraded(protocol::UDP);
        assert!(connection_of(&whole).is_some());
        assert_eq!(connection_of(&whole[..1]), None);
        assert_eq!(connection_of(&[]), None);
        let sctp = masqueraded(132);
        assert_eq!(connection_of(&sctp), None);
        let dying = [whole, vec![ConntrackAttribute::CtaStatus(Status::Dying)]].concat();
        assert_eq!(connection_of(&dying), None);
        assert_eq!(bytes_of::<2>(&DefaultNla::new(ICMP_ID, vec![1])), None);
        assert_eq!(bytes_of::<2>(&DefaultNla::new(ICMP_ID, vec![1, 2, 3])), None);
    }

    #[test]
    fn a_table_is_asked_for_only_where_connections_are_tracked() {
        let folder = tempfile::tempdir().expect("a folder");
        let count = folder.path().join("count");
        assert!(!is_in_use(&count));
        for (text, in_use) in [("0\n", false), ("12\n", true)] {
            std::fs::write(&count, text).expect("a file");
            assert_eq!(is_in_use(&count), in_use);
        }
    }
}
