//! Writes dropped packets as pcapng, which Wireshark reads: their first bytes, with reason and rule as a comment. Called by
//! `monitor`.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, PcapError};
use proxy_common::abi::event::{Event, SNAP_LEN};

use super::drops::{Dropped, snap};

/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;

/// A capture file. Interfaces are described when the first packet of each comes.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: Vec<String>,
}

impl<W: Write> fmt::Debug for Capture<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

impl<W: Write> Capture<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn begin(out: W) -> io::Result<Self> {
        let application = concat!("tollgate ", env!("CARGO_PKG_VERSION"));
        let options = vec![SectionHeaderOption::UserApplication(application.into())];
        let section = SectionHeaderBlock { options, ..SectionHeaderBlock::default() };
        let writer = PcapNgWriter::with_section_header(out, section).map_err(io_error)?;
        Ok(Self { writer, interfaces: Vec::new() })
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn add(&mut self, event: &Event, drop: &Dropped) -> io::Result<()> {
        let known = self.interfaces.iter().position(|name| *name == drop.interface);
        let interface = known.map_or_else(|| self.describe(&drop.interface), Ok)?;
        let rule = drop.rule.as_ref().map_or_else(String::new, |rule| format!(" (rule {rule})"));
        let skipped = match drop.skipped {
            0 => String::new(),
            skipped => format!("; {skipped} more of this reason were dropped before"),
        };
        let comment = format!("dropped: {}{rule}{skipped}", drop.reason.name());
        let packet = EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: Duration::from_nanos(u64::try_from(drop.time.as_nanosecond()).unwrap_or_default()),
            original_len: event.frame_len,
            data: Cow::Borrowed(snap(event)),
            options: vec![EnhancedPacketOption::Comment(comment.into())],
        };
        self.write(&packet.into_block())
    }

    /// Hands what is written on to whoever reads.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    fn describe(&mut self, name: &str) -> io::Result<usize> {
        let options = vec![
            InterfaceDescriptionOption::IfName(name.to_owned().into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        let snaplen = SNAP_LEN as u32;
        let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen, options };
        self.write(&block.into_block())?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() - 1)
    }

    fn write(&mut self, block: &Block<'_>) -> io::Result<()> {
        self.writer.write_block(block).map(drop).map_err(io_error)
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
