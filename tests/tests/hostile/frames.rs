//! HTTP/2 frames, written byte by byte, so that they can be wrong (RFC 9113 4 and 6, RFC 7541), and as much of a reader as the
//! answers to them need.

use std::collections::BTreeMap;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// END_STREAM, and ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// Both.
pub const WHOLE: u8 = 5;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client begins with: no dynamic table for the answers, so that the reader needs none.
pub fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])].concat()
}

/// A block of literal fields without indexing and without Huffman codes.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Seven bits, then seven a byte (RFC 7541 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// What came back on a connection.
#[derive(Debug, Default)]
pub struct Answers {
    /// Of each stream the status, or the code of its reset.
    pub streams: BTreeMap<u32, String>,
    /// The code by which the connection was given up, but for none.
    pub goaway: Option<u32>,
    /// Frames to send back: acknowledgements.
    pub owed: Vec<u8>,
    buffer: Vec<u8>,
}

impl Answers {
    /// Reads what has come; true if it was more than farewells and courtesies.
    pub fn read(&mut self, bytes: &[u8]) -> bool {
        let before = (self.streams.len(), self.goaway);
        self.take(bytes);
        before != (self.streams.len(), self.goaway)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(header) = self.buffer.first_chunk::<9>().copied() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            if self.buffer.len() < 9 + length {
                return;
            }
            let payload: Vec<u8> = self.buffer.drain(..9 + length).skip(9).collect();
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            self.frame(header[3], header[4], stream, &payload);
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let code =
            |at: usize| payload.get(at..at + 4).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
        match kind {
            HEADERS => {
                let status = status(payload).unwrap_or_else(|| format!("status?{payload:02x?}"));
                self.streams.entry(stream).or_insert(status);
            }
            RST_STREAM => {
                let code = code(0).unwrap_or(u32::MAX);
                self.streams.entry(stream).or_insert(format!("rst{code}"));
            }
            GOAWAY => self.goaway = code(4).filter(|code| *code != 0).or(self.goaway),
            SETTINGS | PING if flags & END_STREAM == 0 => {
                let payload = if kind == PING { payload } else { &[] };
                self.owed.extend(frame(kind, END_STREAM, 0, payload));
            }
            _ => {}
        }
    }
}

/// `:status` is the first field; the static table has some values (RFC 7541, appendix A), others are digits, plain or in
/// Huffman's codes.
fn status(mut block: &[u8]) -> Option<String> {
    // A change of the table's size.
    while let [first, rest @ ..] = block
        && first & 0xe0 == 0x20
    {
        block = rest;
    }
    let (first, rest) = block.split_first()?;
    if first & 0x80 != 0 {
        let known = ["200", "204", "206", "304", "400", "404", "500"];
        return known.get(usize::from(first & 0x7f).checked_sub(8)?).map(|status| (*status).to_owned());
    }
    if !(8..=14).contains(&(first & if first & 0x40 != 0 { 0x3f } else { 0x0f })) {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let value = rest.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return String::from_utf8(value.to_vec()).ok();
    }
    let mut bits = value.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    let mut digits = String::new();
    while digits.len() < 3 {
        let mut take = |count: u32| (0..count).try_fold(0, |code, _| Some(code << 1 | bits.next()?));
        let five = take(5)?;
        let digit = if five < 3 { five } else { (five << 1 | take(1)?).checked_sub(0x19)? + 3 };
        digits.push(char::from_digit(digit, 10)?);
    }
    Some(digits)
}

#[test]
fn statuses_are_read_in_each_form() {
    for (block, expected) in [
        (&[0x88][..], "200"),
        (&[0x20, 0x8c], "400"),
        (&[0x48, 3, b'4', b'1', b'3'], "413"),
        (&[0x08, 3, b'4', b'2', b'9'], "429"),
        // 101: 00001 00000 00001.
        (&[0x48, 0x82, 0b0000_1000, 0b0000_0011], "101"),
        // 431: 011010 011001 00001.
        (&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111], "431"),
    ] {
        assert_eq!(status(block).as_deref(), Some(expected), "{block:02x?}");
    }
}
