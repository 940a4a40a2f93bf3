//! Writes captures byte by byte, without the crate that the program under test reads them by. Called by the tests of
//! `explain --pcap`.

/// LINKTYPE_ETHERNET.
pub const ETHERNET: u32 = 1;

/// A pcap file of whole frames.
pub fn pcap(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::from(0xa1b2_c3d4u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    for field in [0, 0, 0xffff, link] {
        file.extend(u32::to_le_bytes(field));
    }
    for (nth, frame) in (0u32..).zip(frames) {
        for field in [nth, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(field.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// A pcapng file of frames of which only the first `snap` bytes were recorded.
pub fn pcapng(link: u16, frames: &[Vec<u8>], snap: usize) -> Vec<u8> {
    let mut file = Vec::new();
    block(&mut file, 0x0a0d_0d0a, &[&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    block(&mut file, 1, &[&link.to_le_bytes()[..], &[0, 0], &0xffffu32.to_le_bytes()].concat());
    for frame in frames {
        let data = &frame[..frame.len().min(snap)];
        let mut body = Vec::new();
        for field in [0, 0, 0, data.len() as u32, frame.len() as u32] {
            body.extend(field.to_le_bytes());
        }
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        block(&mut file, 6, &body);
    }
    file
}

fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = (12 + body.len() as u32).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(length);
    file.extend(body);
    file.extend(length);
}
