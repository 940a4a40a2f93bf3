//! What an event says of a dropped packet, in words: decoded by the parser that the programs run, for people and for programs.
//! Called by `feed`, and by `explain` for frames of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use jiff::Timestamp;
use proxy_common::abi::event::{Event, SNAP_LEN};
use proxy_common::abi::reason::Reason;
use proxy_common::engine::Outcome;
use proxy_common::packet::view::Forget;
use proxy_common::packet::{self, Addr, Fragment, PacketInfo, PacketView, Slice, protocol};
use serde::{Serialize, Serializer};

/// Names of TCP's flags, from the lowest bit.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// A dropped packet. What could not be read of it is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// When.
    #[serde(serialize_with = "text")]
    pub time: Timestamp,
    /// The interface's name.
    pub interface: String,
    /// Why.
    #[serde(serialize_with = "name")]
    pub reason: Reason,
    /// Under which rule, if the reason belongs to rules.
    pub rule: Option<String>,
    /// Numbers of its VLANs, the outermost first. Without the outermost where the kernel takes it off before TC.
    pub vlans: Vec<u16>,
    /// EtherType behind them.
    pub ethertype: Option<u16>,
    /// Protocol of its IP packet, by name or as `ip/<number>`.
    pub protocol: Option<String>,
    /// From which address.
    pub source: Option<IpAddr>,
    /// From which port.
    pub source_port: Option<u16>,
    /// To which address.
    pub destination: Option<IpAddr>,
    /// To which port.
    pub destination_port: Option<u16>,
    /// TCP's flags, type and code of ICMP, or that it is a later fragment.
    pub detail: Option<String>,
    /// Bytes of the frame.
    pub length: u32,
    /// Packets of the same reason that were dropped before it, since the last event, and have none of their own.
    pub skipped: u64,
}

/// What an event's numbers are called.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// The interface.
    pub interface: &'a str,
    /// The rule.
    pub rule: Option<&'a str>,
    /// What is added to the engine's clock for nanoseconds since 1970.
    pub to_unix_ns: i128,
}

/// The packet of an event as the engine read it; `None` if an event does not carry all that it takes to read it.
pub fn packet_of(event: &Event) -> Option<PacketInfo> {
    packet::parse(&Snap(event)).ok()
}

impl Dropped {
    /// Decodes an event.
    pub fn decode(event: &Event, called: Called<'_>) -> Self {
        let reason = Reason::from_number(event.reason);
        let time = Timestamp::from_nanosecond(i128::from(event.time_ns) + called.to_unix_ns);
        let rule =
            reason.has_rule().then(|| called.rule.map_or_else(|| event.rule.to_string(), str::to_owned));
        let mut drop = Self {
            time: time.unwrap_or_default(),
            interface: called.interface.to_owned(),
            reason,
            rule,
            vlans: Vec::new(),
            ethertype: None,
            protocol: None,
            source: None,
            source_port: None,
            destination: None,
            destination_port: None,
            detail: None,
            length: event.frame_len,
            skipped: event.skipped,
        };
        let lax = LaxSlicedPacket::from_ethernet(snap(event)).ok();
        if let Some(lax) = &lax {
            drop.vlans = lax.vlan_ids().iter().map(|id| id.value()).collect();
            drop.ethertype = lax.ether_payload().map(|payload| payload.ether_type.0);
        }
        match packet_of(event) {
            Some(packet) => drop.note(&packet),
            None => lax.iter().for_each(|lax| drop.guess(lax)),
        }
        drop
    }

    /// A frame of which it is known what becomes of it, dropped or not.
    pub fn of_frame(frame: &[u8], outcome: Outcome, called: Called<'_>) -> Self {
        let mut bytes = [0; SNAP_LEN];
        let snap_len = frame.len().min(SNAP_LEN);
        bytes.iter_mut().zip(frame).for_each(|(to, from)| *to = *from);
        let event = Event {
            time_ns: 0,
            skipped: 0,
            interface: 0,
            frame_len: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            rule: outcome.rule,
            reason: outcome.reason as u8,
            snap_len: snap_len as u8,
            _pad: 0,
            bytes,
        };
        Self::decode(&event, called)
    }

    /// The packet alone: what it is, from where to where.
    pub fn packet(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| {
            for vlan in &self.vlans {
                write!(f, "vlan {vlan} ")?;
            }
            match (&self.protocol, self.ethertype) {
                (Some(protocol), _) => write!(f, "{protocol} ")?,
                (None, Some(ethertype)) => write!(f, "ethertype {ethertype:#06x} ")?,
                (None, None) => {}
            }
            if let (Some(source), Some(destination)) = (self.source, self.destination) {
                end(f, source, self.source_port)?;
                f.write_str(" → ")?;
                end(f, destination, self.destination_port)?;
                f.write_str(" ")?;
            }
            if let Some(detail) = &self.detail {
                write!(f, "{detail} ")?;
            }
            write!(f, "{} B", self.length)
        })
    }

    /// Packets that it stands for.
    pub const fn weight(&self) -> u64 {
        self.skipped.saturating_add(1)
    }

    /// A packet that the engine could read.
    fn note(&mut self, packet: &PacketInfo) {
        let address = |of| ip(of, packet.v6);
        self.protocol = Some(protocol_name(packet.protocol));
        (self.source, self.destination) = (Some(address(packet.source)), Some(address(packet.destination)));
        if packet.fragment == Fragment::Later {
            self.detail = Some("later fragment".to_owned());
            return;
        }
        match packet.protocol {
            protocol::TCP | protocol::UDP => self.note_ports(packet.source_port, packet.destination_port),
            _ => {}
        }
        self.detail = match packet.protocol {
            protocol::TCP => Some(flags(packet.tcp_flags)),
            icmp if icmp == if packet.v6 { protocol::ICMPV6 } else { protocol::ICMP } => {
                Some(format!("type {} code {}", packet.icmp_type, packet.icmp_code))
            }
            _ => None,
        };
    }

    /// A broken one: what stands where it should stand.
    fn guess(&mut self, packet: &LaxSlicedPacket<'_>) {
        match &packet.net {
            Some(LaxNetSlice::Ipv4(found)) => {
                let header = found.header();
                self.protocol = Some(protocol_name(header.protocol().0));
                self.source = Some(header.source_addr().into());
                self.destination = Some(header.destination_addr().into());
            }
            Some(LaxNetSlice::Ipv6(found)) => {
                let header = found.header();
                self.protocol = Some(protocol_name(found.payload().ip_number.0));
                self.source = Some(header.source_addr().into());
                self.destination = Some(header.destination_addr().into());
            }
            Some(LaxNetSlice::Arp(_)) | None => {}
        }
        match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                self.note_ports(tcp.source_port(), tcp.destination_port());
                self.detail = tcp.slice().get(13).map(|set| flags(*set));
            }
            Some(TransportSlice::Udp(udp)) => self.note_ports(udp.source_port(), udp.destination_port()),
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) | None => {}
        }
    }

    const fn note_ports(&mut self, source: u16, destination: u16) {
        (self.source_port, self.destination_port) = (Some(source), Some(destination));
    }
}

impl fmt::Display for Dropped {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule.as_deref().unwrap_or("-");
        write!(f, "{:.3} {} {:<22} {rule:<10} ", self.time, self.interface, self.reason.name())?;
        write!(f, "{}", self.packet())?;
        if self.skipped > 0 { write!(f, " (+{})", self.skipped) } else { Ok(()) }
    }
}

fn end(f: &mut fmt::Formatter<'_>, address: IpAddr, port: Option<u16>) -> fmt::Result {
    match port {
        Some(port) => write!(f, "{}", SocketAddr::new(address, port)),
        None => write!(f, "{address}"),
    }
}

/// The bytes of the frame that an event carries.
pub fn snap(event: &Event) -> &[u8] {
    event.bytes.get(..usize::from(event.snap_len)).unwrap_or(&event.bytes)
}

/// The whole frame as far as an event carries it: its length is the frame's.
struct Snap<'a>(&'a Event);

impl Forget for Snap<'_> {}

impl PacketView for Snap<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // The lifetime is the event's, not the slice's.
        snap(self.0).get(at..)?.first_chunk()
    }

    fn len(&self) -> usize {
        Slice(snap(self.0)).len().max(self.0.frame_len as usize)
    }
}

/// An address of a packet.
pub fn ip(address: Addr, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from(u128::from(address.hi) << 64 | u128::from(address.lo)).into()
    } else {
        Ipv4Addr::from((address.hi >> 32) as u32).into()
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp",
        protocol::IGMP => "igmp",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::ICMPV6 => "icmpv6",
        other => return format!("ip/{other}"),
    }
    .to_owned()
}

fn flags(set: u8) -> String {
    let named = FLAGS.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| *name);
    let named: Vec<_> = named.collect();
    if named.is_empty() { "no flags".to_owned() } else { named.join("+") }
}

fn name<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.name())
}

fn text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proxy_common::abi::event::SNAP_LEN;

    use super::*;

    fn event(reason: Reason, rule: u16, frame: &[u8]) -> Event {
        let mut bytes = [0; SNAP_LEN];
        let snap_len = frame.len().min(SNAP_LEN);
        bytes[..snap_len].copy_from_slice(&frame[..snap_len]);
        Event {
            time_ns: 1_500_000_000,
            skipped: 0,
            interface: 3,
            frame_len: frame.len() as u32,
            rule,
            reason: reason as u8,
            snap_len: snap_len as u8,
            _pad: 0,
            bytes,
        }
    }

    fn decoded(event: &Event) -> Dropped {
        let called = Called { interface: "eth0", rule: Some("web"), to_unix_ns: 1_700_000_000_000_000_000 };
        Dropped::decode(event, called)
    }

    fn frame(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        builder.write(&mut frame, &vec![7; payload]).expect("a frame");
        frame
    }

    #[test]
    fn a_frame_longer_than_the_snap_is_read_all_the_same() {
        let v6 = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([0x20; 16], [0x30; 16], 64).udp(4000, 53);
        let mut event = event(Reason::ServiceRefused, 4, &frame(v6, 1000));
        event.skipped = 12;
        assert_eq!(
            decoded(&event).to_string(),
            "2023-11-14T22:13:21.500Z eth0 service-refused        web        udp \
             [2020:2020:2020:2020:2020:2020:2020:2020]:4000 → [3030:3030:3030:3030:3030:3030:3030:3030]:53 1062 B (+12)"
        );
        assert_eq!(decoded(&event).weight(), 13);
    }

    #[test]
    fn tags_flags_and_absent_rules_are_told() {
        let mut syn = Vec::new();
        let tagged = PacketBuilder::ethernet2([2; 6], [4; 6])
            .double_vlan(7.try_into().expect("a number"), 8.try_into().expect("a number"))
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(4000, 22, 1, 1024)
            .syn();
        tagged.write(&mut syn, &[]).expect("a frame");
        let drop = decoded(&event(Reason::SourceInvalid, 0, &syn));
        assert_eq!((drop.rule, drop.vlans), (None, vec![7, 8]));
        assert_eq!(drop.detail.as_deref(), Some("SYN"));
        assert_eq!((drop.source_port, drop.destination_port), (Some(4000), Some(22)));
    }

    #[test]
    fn a_broken_packet_shows_what_can_be_read() {
        let v4 = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
        let mut broken = frame(v4.udp(4000, 53), 9);
        // The length of the datagram: more than there is.
        broken[14 + 20 + 4] = 0x7f;
        let drop = decoded(&event(Reason::MalformedUdp, 0, &broken));
        assert_eq!(drop.source, Some([192, 0, 2, 1].into()));
        assert_eq!(drop.protocol.as_deref(), Some("udp"));
        // Nothing but a link header, not even that, and noise: told without an address, and without a panic.
        let garbage =
            decoded(&event(Reason::UnknownEthertype, 0, &[&[2; 12][..], &[0x12, 0x34, 1]].concat()));
        assert_eq!((garbage.source, garbage.ethertype), (None, Some(0x1234)));
        assert!(garbage.to_string().ends_with(" ethertype 0x1234 15 B"), "{garbage}");
        assert_eq!(decoded(&event(Reason::MalformedEthernet, 0, &[2; 5])).ethertype, None);
        let mut overlong = event(Reason::MalformedIpv4, 0, &broken);
        overlong.snap_len = 255;
        assert_eq!(decoded(&overlong).length, 51);
    }

    #[test]
    fn json_has_names() {
        let v4 = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
        let drop = decoded(&event(Reason::NoService, 0, &frame(v4.udp(4000, 53), 9)));
        let json = serde_json::to_value(&drop).expect("JSON");
        for (key, value) in [
            ("time", "2023-11-14T22:13:21.5Z".into()),
            ("reason", "no-service".into()),
            ("source", "192.0.2.1".into()),
            ("destination_port", 53.into()),
            ("detail", serde_json::Value::Null),
        ] {
            assert_eq!(json.get(key), Some(&value), "{json}");
        }
    }
}
