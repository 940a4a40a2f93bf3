//! The bytes of the state file: a head, then frames of records. A frame is whole or it is nothing: its checksum covers all
//! of it, and a reader that meets a damaged one goes on at the next.
//!
//! ```text
//! head   magic 8 │ version 4 │ 0 4 │ length when it was last written anew 8 │ checksum 8
//! frame  magic 4 │ records 4 │ bytes of them 4 │ 0 4 │ boot 16 │ its clock 8 │ wall clock 8 │ records │ SHA-256 32
//! record what 1 │ family 1 │ length 1 │ address 4 or 16 │ since (wall) 8 │ until (boot's clock) 8 │ bytes of why 1 │ why
//! ```
//!
//! Numbers are little-endian. Of a record that ends a ban there is nothing behind the address; of one that ends all, nothing
//! behind the first byte.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::clock::Clock;
use super::{Entry, LONGEST_WHY};

/// Version of the file. A file of another one is left alone.
const VERSION: u32 = 1;
const HEAD_MAGIC: [u8; 8] = *b"TGBANS\r\n";
const FRAME_MAGIC: [u8; 4] = *b"\xb5BAN";
/// Bytes of the head.
pub const HEAD: usize = 32;
/// Bytes of a frame before its records.
const FRAME_HEAD: usize = 48;
const CHECKSUM: usize = 32;
/// Records of a frame: what a damaged byte can cost.
const MOST_RECORDS: usize = 1024;
/// More than the longest frame has.
const MOST_BYTES: usize = 1 << 20;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A ban began, or was changed.
    Ban(IpNet, Entry),
    /// A ban was ended.
    Unban(IpNet),
    /// All bans were ended.
    Clear,
}

/// What the head of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is ours, and was so long when it was last written anew.
    Ours(u64),
    /// It is ours, of another version.
    Other(u32),
    /// It can't be read.
    Damaged,
}

/// The head of a file.
pub fn head(written: u64) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..8].copy_from_slice(&HEAD_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&written.to_le_bytes());
    let sum = Sha256::digest(&bytes[..24]);
    bytes[24..].copy_from_slice(&sum[..8]);
    bytes
}

/// Reads the head of a file.
pub fn read_head(bytes: &[u8]) -> Head {
    let Some(head) = bytes.get(..HEAD) else { return Head::Damaged };
    if head[..8] != HEAD_MAGIC || Sha256::digest(&head[..24])[..8] != head[24..] {
        return Head::Damaged;
    }
    match (number(head, 8, 4) as u32, number(head, 16, 8)) {
        (VERSION, written) => Head::Ours(written),
        (other, _) => Head::Other(other),
    }
}

/// Frames of these records.
pub fn encode<'a>(records: impl Iterator<Item = &'a Record>, clock: &Clock) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut records = records.peekable();
    while records.peek().is_some() {
        let start = bytes.len();
        bytes.extend([0; FRAME_HEAD]);
        let mut count = 0u32;
        for record in records.by_ref().take(MOST_RECORDS) {
            put(&mut bytes, record);
            count += 1;
        }
        let length = (bytes.len() - start - FRAME_HEAD) as u32;
        let head = &mut bytes[start..start + FRAME_HEAD];
        head[..4].copy_from_slice(&FRAME_MAGIC);
        head[4..8].copy_from_slice(&count.to_le_bytes());
        head[8..12].copy_from_slice(&length.to_le_bytes());
        head[16..32].copy_from_slice(&clock.boot);
        head[32..40].copy_from_slice(&clock.mono_ns.to_le_bytes());
        head[40..48].copy_from_slice(&clock.unix_ns.to_le_bytes());
        let sum = Sha256::digest(&bytes[start..]);
        bytes.extend(sum);
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, record: &Record) {
    let put_net = |bytes: &mut Vec<u8>, what, net: &IpNet| {
        bytes.extend([what, if net.addr().is_ipv4() { 4 } else { 6 }, net.prefix_len()]);
        match net.addr() {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    };
    match record {
        Record::Ban(net, entry) => {
            put_net(bytes, 1, net);
            bytes.extend(entry.since_unix_ns.to_le_bytes());
            bytes.extend(entry.until_ns.to_le_bytes());
            let why = &entry.why.as_bytes()[..entry.why.len().min(LONGEST_WHY)];
            bytes.push(why.len() as u8);
            bytes.extend(why);
        }
        Record::Unban(net) => put_net(bytes, 2, net),
        Record::Clear => bytes.push(3),
    }
}

/// Hands on every record of every whole frame, with ends as `now` counts them. Gives how many bytes belong to none.
pub fn decode(bytes: &[u8], now: &Clock, mut each: impl FnMut(Record)) -> usize {
    let mut damaged = 0;
    let mut at = if read_head(bytes) == Head::Damaged { 0 } else { HEAD };
    let mut last_why: Arc<str> = Arc::default();
    while at < bytes.len() {
        if let Some((records, length)) = frame(&bytes[at..], now, &mut last_why) {
            records.into_iter().for_each(&mut each);
            at += length;
            continue;
        }
        let rest = &bytes[at + 1..];
        let next = rest.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC);
        let skipped = next.map_or(bytes.len() - at, |next| next + 1);
        damaged += skipped;
        at += skipped;
    }
    damaged
}

/// The records of the frame that bytes begin with, and its length; `None` unless it is whole.
fn frame(bytes: &[u8], now: &Clock, last_why: &mut Arc<str>) -> Option<(Vec<Record>, usize)> {
    let head = bytes.get(..FRAME_HEAD)?;
    if head[..4] != FRAME_MAGIC {
        return None;
    }
    let (count, length) = (number(head, 4, 4) as usize, number(head, 8, 4) as usize);
    if count > MOST_RECORDS || length > MOST_BYTES {
        return None;
    }
    let covered = bytes.get(..FRAME_HEAD + length)?;
    let sum = bytes.get(FRAME_HEAD + length..FRAME_HEAD + length + CHECKSUM)?;
    if Sha256::digest(covered)[..] != *sum {
        return None;
    }
    let boot = head[16..32].try_into().ok()?;
    let noted = Clock { boot, mono_ns: number(head, 32, 8), unix_ns: number(head, 40, 8) };
    let mut rest = &covered[FRAME_HEAD..];
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let mut record = take_record(&mut rest)?;
        if let Record::Ban(_, entry) = &mut record {
            entry.until_ns = now.here(&noted, entry.until_ns);
            // Lists have one reason for all.
            if entry.why == *last_why {
                entry.why = Arc::clone(last_why);
            } else {
                *last_why = Arc::clone(&entry.why);
            }
        }
        records.push(record);
    }
    rest.is_empty().then_some((records, FRAME_HEAD + length + CHECKSUM))
}

fn take_record(rest: &mut &[u8]) -> Option<Record> {
    match take(rest, 1)?[0] {
        1 => {
            let net = take_net(rest)?;
            let since_unix_ns = number(take(rest, 8)?, 0, 8);
            let until_ns = number(take(rest, 8)?, 0, 8);
            let length = usize::from(take(rest, 1)?[0]);
            let why = str::from_utf8(take(rest, length)?).ok()?;
            Some(Record::Ban(net, Entry { since_unix_ns, until_ns, why: why.into() }))
        }
        2 => Some(Record::Unban(take_net(rest)?)),
        3 => Some(Record::Clear),
        _ => None,
    }
}

fn take_net(rest: &mut &[u8]) -> Option<IpNet> {
    let &[family, length] = take(rest, 2)? else { return None };
    let address = match family {
        4 => IpAddr::from(<[u8; 4]>::try_from(take(rest, 4)?).ok()?),
        6 => IpAddr::from(<[u8; 16]>::try_from(take(rest, 16)?).ok()?),
        _ => return None,
    };
    IpNet::new(address, length).ok().map(|net| net.trunc())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// A little-endian number of up to eight bytes; what is not there counts as zero.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes.iter().skip(at).take(length)) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock { boot: [7; 16], mono_ns: 1_000, unix_ns: 1_700_000_000_000_000_000 };

    fn ban(net: &str, until_ns: u64, why: &str) -> Record {
        let entry = Entry { since_unix_ns: CLOCK.unix_ns - 5, until_ns, why: why.into() };
        Record::Ban(net.parse().expect(net), entry)
    }

    fn records() -> Vec<Record> {
        vec![
            ban("192.0.2.1/32", 5_000, "scans"),
            ban("2001:db8::/64", u64::MAX, ""),
            Record::Unban("192.0.2.1/32".parse().expect("a net")),
            ban("198.51.100.0/24", 9_000, "ünïcödé"),
            Record::Clear,
            ban("0.0.0.0/0", 9_000, &"x".repeat(LONGEST_WHY)),
        ]
    }

    /// A file of one frame a record.
    fn file() -> Vec<u8> {
        let frames = records().iter().flat_map(|one| encode([one].into_iter(), &CLOCK)).collect::<Vec<_>>();
        [&head(0)[..], &frames].concat()
    }

    /// The records, and how many bytes were damaged.
    fn read(bytes: &[u8]) -> (Vec<Record>, usize) {
        let mut found = Vec::new();
        let damaged = decode(bytes, &CLOCK, |record| found.push(record));
        (found, damaged)
    }

    #[test]
    fn what_is_written_is_read() {
        let many: Vec<Record> = records().into_iter().cycle().take(MOST_RECORDS * 2 + 3).collect();
        let bytes = [&head(77)[..], &encode(many.iter(), &CLOCK)].concat();
        assert_eq!(read(&bytes), (many, 0));
        assert_eq!(read_head(&bytes), Head::Ours(77));
    }

    #[test]
    fn a_file_that_is_cut_keeps_every_frame_before_the_cut() {
        let whole = file();
        // Where each frame ends.
        let ends: Vec<usize> = records()
            .iter()
            .scan(HEAD, |at, one| {
                *at += encode([one].into_iter(), &CLOCK).len();
                Some(*at)
            })
            .collect();
        for cut in HEAD..=whole.len() {
            let (found, damaged) = read(&whole[..cut]);
            let kept = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(found, records()[..kept], "cut at {cut}");
            assert_eq!(damaged, cut - ends[..kept].last().unwrap_or(&HEAD), "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_byte_costs_one_frame_and_is_noticed() {
        let whole = file();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let (found, damaged) = read(&bytes);
            assert!(damaged > 0, "byte {at}");
            let all = records();
            assert!(found.len() >= all.len() - 1, "byte {at}: {found:?}");
            assert!(found.iter().all(|record| all.contains(record)), "byte {at}: {found:?}");
        }
    }

    #[test]
    fn no_bytes_stop_the_process() {
        for seed in 0..2_000u32 {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let mut bytes: Vec<u8> = (0..seed % 300).map(|_| next()).collect();
            if seed % 2 == 0 {
                bytes.splice(0..0, head(0).into_iter().chain(FRAME_MAGIC));
            }
            read(&bytes);
        }
        assert_eq!(read_head(&[]), Head::Damaged);
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = head(0);
        bytes[8] = 9;
        let sum = Sha256::digest(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum[..8]);
        assert_eq!(read_head(&bytes), Head::Other(9));
        bytes[9] = 1;
        assert_eq!(read_head(&bytes), Head::Damaged);
    }
}
