//! Headers with every field in the hands of the caller, right or wrong: from the transport up to the link.

use std::net::IpAddr;

/// A transport header and what follows, or any other payload of IP.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// The protocol that IP says it is.
    pub protocol: u8,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A TCP segment; `words` is what the header says of its own length, `options` how many bytes of options there are.
pub fn tcp(ports: (u16, u16), flags: u8, words: u8, options: usize, data: &[u8]) -> Payload {
    let mut bytes = Vec::with_capacity(20 + options + data.len());
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.resize(20 + options, 1);
    bytes.extend(data);
    Payload { protocol: 6, bytes }
}

/// A UDP datagram; `length` is what the header says.
pub fn udp(ports: (u16, u16), length: u16, data: &[u8]) -> Payload {
    let mut bytes = Vec::with_capacity(8 + data.len());
    for word in [ports.0, ports.1, length, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    Payload { protocol: 17, bytes }
}

/// A UDP datagram whose length is right.
pub fn right_udp(ports: (u16, u16), data: &[u8]) -> Payload {
    udp(ports, 8 + data.len() as u16, data)
}

/// An ICMP or ICMPv6 message.
pub fn icmp(v6: bool, kind: u8, code: u8, identifier: u16, data: &[u8]) -> Payload {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(identifier.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(data);
    Payload { protocol: if v6 { 58 } else { 1 }, bytes }
}

/// What an IP header says besides addresses and payload.
#[derive(Clone, Debug)]
pub struct Header {
    /// TTL or hop limit.
    pub hops: u8,
    /// Identification of the datagram.
    pub id: u32,
    /// Bytes before this part; IPv6: only with `part`.
    pub offset: u16,
    /// More parts follow.
    pub more: bool,
    /// IPv6: a fragment header even if it is in one piece.
    pub part: bool,
    /// IPv4: options, as they stand in the header; cut to a multiple of four.
    pub options: Vec<u8>,
    /// IPv6: extension headers before the fragment header: number and bytes, without the first, which says what follows.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv6: the same after the fragment header.
    pub inner: Vec<(u8, Vec<u8>)>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            hops: 64,
            id: 0,
            offset: 0,
            more: false,
            part: false,
            options: Vec::new(),
            extensions: Vec::new(),
            inner: Vec::new(),
        }
    }
}

/// An IP packet. Both addresses must be of one family; if not, the destination is taken for zero.
pub fn packet(header: &Header, source: IpAddr, destination: IpAddr, payload: &Payload) -> Vec<u8> {
    match source {
        IpAddr::V4(from) => {
            let to = if let IpAddr::V4(to) = destination { to.octets() } else { [0; 4] };
            let options = header.options.len().min(40) & !3;
            let total = (20 + options + payload.bytes.len()) as u16;
            let mut bytes = vec![0x45 + (options / 4) as u8, 0];
            bytes.extend(total.to_be_bytes());
            bytes.extend((header.id as u16).to_be_bytes());
            bytes.extend((header.offset >> 3 | u16::from(header.more) << 13).to_be_bytes());
            bytes.extend([header.hops, payload.protocol, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to);
            bytes.extend(&header.options[..options]);
            bytes.extend(&payload.bytes);
            bytes
        }
        IpAddr::V6(from) => {
            let to = if let IpAddr::V6(to) = destination { to.octets() } else { [0; 16] };
            let mut chain: Vec<(u8, Vec<u8>)> = header.extensions.clone();
            if header.part || header.more || header.offset > 0 {
                let mut fragment = vec![0];
                fragment.extend((header.offset & 0xfff8 | u16::from(header.more)).to_be_bytes());
                fragment.extend(header.id.to_be_bytes());
                chain.push((44, fragment));
            }
            chain.extend(header.inner.iter().cloned());
            let length: usize = chain.iter().map(|(_, rest)| 1 + rest.len()).sum();
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend(((length + payload.bytes.len()) as u16).to_be_bytes());
            bytes.extend([chain.first().map_or(payload.protocol, |(number, _)| *number), header.hops]);
            bytes.extend(from.octets());
            bytes.extend(to);
            for (nth, (_, rest)) in chain.iter().enumerate() {
                bytes.push(chain.get(nth + 1).map_or(payload.protocol, |(number, _)| *number));
                bytes.extend(rest);
            }
            bytes.extend(&payload.bytes);
            bytes
        }
    }
}

/// An extension header of `units` times eight bytes past the first eight; the rest filled with `fill`.
pub fn extension(number: u8, units: u8, fill: u8) -> (u8, Vec<u8>) {
    let length = if number == 51 { (usize::from(units) + 2) * 4 } else { (usize::from(units) + 1) * 8 };
    let mut rest = vec![fill; length.max(8) - 1];
    rest[0] = units;
    (number, rest)
}

/// The link address that frames are sent to: that of the loopback interface, by which the kernel says that a test-run's frames
/// came.
pub const HERE: [u8; 6] = [0; 6];

/// True if a VLAN tag follows the link addresses.
pub fn is_tagged(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]))
}

/// Changes the source of an IP packet without tags to one close by: of the same network, or of the one beside. Done a second
/// time, it is the first again.
pub fn change_source(frame: &mut [u8], nth: usize) {
    let bits: [(usize, u8); 4] = match frame.get(12..14) {
        Some([0x08, 0x00]) => [(29, 1), (29, 2), (29, 3), (28, 1)],
        // Within its /64, the /64s beside, the /48 beside.
        Some([0x86, 0xdd]) => [(37, 1), (29, 1), (29, 2), (27, 1)],
        _ => return,
    };
    if let Some((at, bit)) = bits.get(nth)
        && let Some(byte) = frame.get_mut(*at)
    {
        *byte ^= bit;
    }
}

/// Puts a link header in front: tags from the outermost in, then the type.
pub fn frame(out: &mut Vec<u8>, tags: &[u16], ethertype: u16, payload: &[u8]) {
    out.clear();
    out.extend(HERE);
    out.extend([2, 0, 0, 0, 0, 1]);
    for (nth, tag) in tags.iter().enumerate() {
        out.extend(tag.to_be_bytes());
        out.extend((nth as u16 + 100).to_be_bytes());
    }
    out.extend(ethertype.to_be_bytes());
    out.extend(payload);
}
