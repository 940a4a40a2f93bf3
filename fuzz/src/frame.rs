//! Frames from a few bytes: mostly well-formed, from sources and to ports that the policy of [`crate::engine`] tells apart,
//! so that the fuzzer finds ways through the engine and not only through the parser.

use arbitrary::{Result, Unstructured};

/// Sources and destinations that are treated differently, and their neighbours.
const V4: [[u8; 4]; 16] = [
    [192, 0, 2, 1],
    [192, 0, 2, 255],
    [192, 0, 3, 0],
    [198, 51, 100, 7],
    [203, 0, 113, 9],
    [203, 0, 113, 128],
    [203, 0, 113, 200],
    [10, 0, 0, 1],
    [10, 255, 255, 255],
    [172, 17, 0, 2],
    [127, 0, 0, 1],
    [224, 0, 0, 251],
    [255, 255, 255, 255],
    [0, 0, 0, 0],
    [240, 0, 0, 1],
    [8, 8, 8, 8],
];
/// The same of IPv6, upper and lower half.
const V6: [[u64; 2]; 16] = [
    [0x2001_0db8_0001_0000, 1],
    [0x2001_0db8_0001_ffff, u64::MAX],
    [0x2001_0db8_0002_0000, 1],
    [0x2001_0db8_0bad_0000, 0],
    [0x2001_0db8_0bad_0001, 0x99],
    [0x2001_0db8_0000_0000, 1],
    [0xfe80_0000_0000_0000, 2],
    [0xfebf_0000_0000_0000, 2],
    [0xfec0_0000_0000_0000, 2],
    [0, 1],
    [0, 0],
    [0xff02_0000_0000_0000, 0xfb],
    [0xff02_0000_0000_0000, 1],
    [0, 0xffff_c000_0201],
    [0xfd00_0000_0000_0000, 1],
    [0x2606_4700_0000_0000, 0x1111],
];
/// Ports of services, of plumbing, their neighbours and others.
const PORTS: [u16; 16] = [22, 23, 53, 67, 68, 80, 443, 546, 547, 5353, 5432, 8009, 8010, 8019, 8020, 49152];
const PROTOCOLS: [u8; 8] = [6, 6, 17, 17, 1, 58, 2, 47];
const HOPS: [u8; 4] = [255, 1, 64, 0];
const ICMP: [u8; 16] = [0, 3, 8, 11, 12, 5, 1, 2, 128, 129, 130, 133, 134, 135, 137, 143];
const FLAGS: [u8; 8] = [0x02, 0x12, 0x10, 0x11, 0x04, 0x14, 0x18, 0x29];

/// A frame, or the remains of one, for a host that has seen `before` as the last one.
pub fn built(u: &mut Unstructured<'_>, before: &[u8]) -> Result<Vec<u8>> {
    let shape: u8 = u.arbitrary()?;
    let v6 = shape & 1 == 1;
    let addresses: u8 = u.arbitrary()?;
    let kind: u8 = u.arbitrary()?;
    let protocol = PROTOCOLS[usize::from(kind & 7)];
    let transport = transport(u, protocol, before)?;

    let mut next = protocol;
    let mut payload = Vec::new();
    // An extension header or IP options, a fragment's fields.
    let extended = shape & 2 != 0;
    let fragment = if shape & 4 != 0 { Some(u.arbitrary::<[u8; 3]>()?) } else { None };
    if v6 {
        if let Some([id, offset, more]) = fragment {
            payload.extend([next, 0, offset >> 5, offset << 3 | more & 7, 0, 0, 0, id]);
            next = 44;
        }
        if extended {
            let which = [0, 60, 43, 51, 135, 139, 140, 60][usize::from(kind >> 5)];
            payload.splice(0..0, [next, 0, 0, 0, 0, 0, 0, 0]);
            next = which;
        }
    }
    payload.extend(transport);

    let (source, destination) = (usize::from(addresses & 15), usize::from(addresses >> 4));
    let hops = HOPS[usize::from(kind >> 3 & 3)];
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for _ in 0..(shape >> 6).saturating_sub(1) {
        frame.extend([0x81, 0, 0, 7]);
    }
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([next, hops]);
        [V6[source], V6[destination]].as_flattened().iter().for_each(|half| frame.extend(half.to_be_bytes()));
    } else {
        let options: &[u8] = if extended { &[1, 1, 1, 0] } else { &[] };
        let header = 20 + options.len();
        frame.extend([0x08, 0x00, 0x40 | (header / 4) as u8, 0]);
        frame.extend(((header + payload.len()) as u16).to_be_bytes());
        let [id, offset, more] = fragment.unwrap_or_default();
        frame.extend([0, id, more << 5, offset, hops, protocol, 0, 0]);
        frame.extend(V4[source]);
        frame.extend(V4[destination]);
        frame.extend(options);
    }
    frame.extend(payload);
    if shape & 8 != 0 {
        frame.extend([0; 6]);
    }
    if shape & 0x30 == 0x30 {
        let cut = usize::from(u.arbitrary::<u8>()?).min(frame.len());
        frame.truncate(frame.len() - cut);
    }
    Ok(frame)
}

fn transport(u: &mut Unstructured<'_>, protocol: u8, before: &[u8]) -> Result<Vec<u8>> {
    let choice: u8 = u.arbitrary()?;
    let port = |choice: u8| PORTS[usize::from(choice & 15)].to_be_bytes();
    let ports = [port(choice), port(choice >> 4)].concat();
    let detail: u8 = u.arbitrary()?;
    // Payloads differ for limits of bytes, and fragments must be multiples of eight bytes.
    let filler = usize::from(detail >> 3) * 8;
    Ok(match protocol {
        6 => [
            &ports[..],
            &[0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, FLAGS[usize::from(detail & 7)]],
            &[0; 6],
            &vec![0; filler],
        ]
        .concat(),
        17 => [&ports[..], &((8 + filler) as u16).to_be_bytes(), &[0, 0], &vec![0; filler]].concat(),
        1 | 58 => {
            let header = [ICMP[usize::from(choice & 15)], detail & 3, 0, 0, 0, detail >> 4, 0, 1];
            let quoted = if choice & 0x10 != 0 { ip(before) } else { &[] };
            [&header[..], &quoted[..quoted.len().min(usize::from(choice >> 5) * 16 + 16)]].concat()
        }
        _ => vec![0x11; 8 + usize::from(detail & 7)],
    })
}

/// The IP packet of a frame without tags.
fn ip(frame: &[u8]) -> &[u8] {
    frame.get(14..).unwrap_or_default()
}

/// A frame that answers another: addresses and ports turned round, TCP flags replaced.
pub fn answer(u: &mut Unstructured<'_>, frame: &[u8]) -> Result<Vec<u8>> {
    let detail: u8 = u.arbitrary()?;
    let mut answer = frame.to_vec();
    let v6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
    let (addresses, len, transport) = if v6 {
        (22, 16, 54)
    } else {
        (26, 4, 14 + usize::from(frame.get(14).copied().unwrap_or(0x45) & 15) * 4)
    };
    swap(&mut answer, addresses, len);
    let protocol = frame.get(if v6 { 20 } else { 23 }).copied();
    match protocol {
        Some(6 | 17) => swap(&mut answer, transport, 2),
        // An echo request becomes its reply.
        Some(1) => set(&mut answer, transport, 0),
        Some(58) => set(&mut answer, transport, 129),
        _ => {}
    }
    if protocol == Some(6) {
        set(&mut answer, transport + 13, FLAGS[usize::from(detail & 7)]);
    }
    Ok(answer)
}

fn swap(frame: &mut [u8], at: usize, len: usize) {
    if let Some((first, second)) = frame.get_mut(at..at + 2 * len).map(|both| both.split_at_mut(len)) {
        first.swap_with_slice(second);
    }
}

fn set(frame: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = value;
    }
}
