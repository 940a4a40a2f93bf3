//! Reads captures of others, pcap and pcapng: which bytes came, in which order. Called by `explain --pcap`.
//!
//! A capture may be anything: its size, the number of its packets and its kind of link are checked before a packet of it is
//! shown to anybody, and what is wrong is said with the number of the packet.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, PcapError};

use crate::dataplane::Explainer;

/// Longest file that is read.
pub const MOST_BYTES: u64 = 64 << 20;
/// Most packets of a file.
pub const MOST_PACKETS: usize = 100_000;
/// Longer frames can't be judged; they are kept as far as they can be shown.
const LONGEST_FRAME: usize = Explainer::LONGEST;
/// What a pcapng file begins with, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its first bytes; those that were not recorded are zeros.
    pub frame: Vec<u8>,
    /// Bytes that it had on the wire.
    pub length: usize,
}

/// Reads a file.
///
/// # Errors
/// A sentence with the file's name: it can't be read, is too long, is no capture or a damaged one, or was not recorded on
/// Ethernet.
pub fn read(path: &Path) -> Result<Vec<Recorded>, String> {
    let named = |why: String| format!("{}: {why}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| named(error.to_string()))?;
    // One byte more tells a longer file, whatever kind of file it is.
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| named(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(named(format!(
            "longer than {} MiB; `tcpdump -r FILE -c {MOST_PACKETS} -w SHORTER` cuts it",
            MOST_BYTES >> 20
        )));
    }
    packets(&bytes).map_err(named)
}

/// The packets of a whole file.
///
/// # Errors
/// A sentence of what is wrong with it.
pub fn packets(bytes: &[u8]) -> Result<Vec<Recorded>, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if bytes.starts_with(&PCAPNG) { of_pcapng(bytes) } else { of_pcap(bytes) }
}

fn of_pcap(bytes: &[u8]) -> Result<Vec<Recorded>, String> {
    let (mut rest, parser) =
        PcapParser::new(bytes).map_err(|_| "neither a pcap nor a pcapng file".to_owned())?;
    is_ethernet(parser.header().datalink)?;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let number = packets.len() + 1;
        let (after, packet) = parser.next_raw_packet(rest).map_err(|error| damaged(number, &error))?;
        push(&mut packets, &packet.data, packet.orig_len)?;
        rest = after;
    }
    Ok(packets)
}

fn of_pcapng(bytes: &[u8]) -> Result<Vec<Recorded>, String> {
    let (mut rest, mut parser) = PcapNgParser::new(bytes).map_err(|error| damaged(1, &error))?;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let number = packets.len() + 1;
        let (after, block) = parser.next_block(rest).map_err(|error| damaged(number, &error))?;
        let link = |nth: usize| parser.interfaces().get(nth).map(|interface| interface.linktype);
        let (nth, data, length) = match &block {
            Block::EnhancedPacket(packet) => {
                (packet.interface_id as usize, &packet.data, packet.original_len)
            }
            Block::Packet(packet) => (usize::from(packet.interface_id), &packet.data, packet.original_len),
            Block::SimplePacket(packet) => (0, &packet.data, packet.original_len),
            // Names, statistics and what others have added.
            _ => {
                rest = after;
                continue;
            }
        };
        let link = link(nth)
            .ok_or_else(|| format!("packet {number} is of interface {nth}, which is not described"))?;
        is_ethernet(link).map_err(|why| format!("packet {number}: {why}"))?;
        push(&mut packets, data, length)?;
        rest = after;
    }
    Ok(packets)
}

/// Fails unless frames begin with an Ethernet header.
fn is_ethernet(link: DataLink) -> Result<(), String> {
    if link == DataLink::ETHERNET {
        return Ok(());
    }
    Err(format!(
        "recorded on a link of the kind {link:?} ({}), not on Ethernet; record on one interface (`tcpdump -i eth0`), not on \\
         `any`",
        u32::from(link)
    ))
}

fn push(packets: &mut Vec<Recorded>, data: &[u8], length: u32) -> Result<(), String> {
    if packets.len() == MOST_PACKETS {
        return Err(format!(
            "more than {MOST_PACKETS} packets; `tcpdump -r FILE -c {MOST_PACKETS} -w SHORTER` cuts it"
        ));
    }
    let length = (length as usize).max(data.len());
    let mut frame = data[..data.len().min(LONGEST_FRAME)].to_vec();
    frame.resize(length.min(LONGEST_FRAME), 0);
    packets.push(Recorded { frame, length });
    Ok(())
}

fn damaged(number: usize, error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => format!("cut off within packet {number}, or before it"),
        other => format!("damaged at packet {number}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;

    use super::*;

    fn pcap(link: DataLink) -> Vec<u8> {
        let header = PcapHeader { datalink: link, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).expect("a header");
        for (length, byte) in [(60, 1), (100, 2)] {
            writer
                .write_packet(&PcapPacket::new(Duration::from_secs(1), length, &[byte; 60]))
                .expect("a packet");
        }
        writer.into_writer()
    }

    fn pcapng(link: DataLink) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).expect("a section");
        writer.write_pcapng_block(InterfaceDescriptionBlock::new(link, 0xffff)).expect("an interface");
        for (original_len, byte) in [(60, 1), (100, 2)] {
            let data = Cow::Owned(vec![byte; 60]);
            let timestamp = Duration::from_secs(1);
            let packet =
                EnhancedPacketBlock { interface_id: 0, timestamp, original_len, data, options: vec![] };
            writer.write_pcapng_block(packet).expect("a packet");
        }
        writer.into_inner()
    }

    #[test]
    fn both_formats_are_read_and_what_was_not_recorded_is_zeros() {
        for file in [pcap(DataLink::ETHERNET), pcapng(DataLink::ETHERNET)] {
            let packets = packets(&file).expect("packets");
            assert_eq!(packets[0], Recorded { frame: vec![1; 60], length: 60 });
            assert_eq!(packets[1], Recorded { frame: [vec![2; 60], vec![0; 40]].concat(), length: 100 });
            assert_eq!(packets.len(), 2);
        }
    }

    #[test]
    fn other_links_and_other_files_are_refused_by_name() {
        for file in [pcap(DataLink::LINUX_SLL), pcapng(DataLink::RAW)] {
            let why = packets(&file).expect_err("refused");
            assert!(why.contains("not on Ethernet"), "{why}");
        }
        for (file, wanted) in [
            (&b""[..], "empty"),
            (b"version = 1\n[interfaces.eth0]\n", "neither"),
            (&pcap(DataLink::ETHERNET)[..150], "packet 2"),
            (&pcapng(DataLink::ETHERNET)[..150], "packet"),
            (&PCAPNG, "cut off"),
        ] {
            let why = packets(file).expect_err("refused");
            assert!(why.contains(wanted), "{why}");
        }
        let why = read(Path::new("/nowhere/at/all.pcap")).expect_err("no file");
        assert!(why.starts_with("/nowhere/at/all.pcap: "), "{why}");
        // A device never ends.
        assert!(read(Path::new("/dev/zero")).expect_err("endless").contains("longer than 64 MiB"));
    }

    #[test]
    fn any_byte_may_be_wrong_and_any_cut_may_come() {
        for file in [pcap(DataLink::ETHERNET), pcapng(DataLink::ETHERNET)] {
            for at in 0..file.len() {
                let _ = packets(&file[..at]);
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut wrong = file.clone();
                    wrong[at] = value;
                    let _ = packets(&wrong);
                }
            }
        }
    }
}
