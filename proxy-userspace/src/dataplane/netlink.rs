//! One dump by netlink: a request, and every record that the kernel answers with.
//!
//! Called by `stacked` and `adopt`. Bounded in time, and no answer can make it panic: what can't be decoded is counted
//! and left out.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::{TimeVal, TimeValLike};

/// The kernel answers while it is asked; an apply must not hang if it does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// Twice the most that the kernel puts into one answer of a dump (`netlink_dump`, 32 KiB).
const BUFFER: usize = 64 * 1024;
/// Messages begin at multiples of this (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// Asks for a dump and hands on each record; gives how many could not be decoded.
pub(super) fn dump<M>(protocol: isize, request: M, mut each: impl FnMut(M)) -> io::Result<usize>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    // Connected: the kernel delivers no message of another process.
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE.as_secs() as i64))?;
    socket.send(&question(request), 0)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut unreadable = 0;
    loop {
        buffer.clear();
        // With this flag the length is that of the message, not of what fitted.
        match socket.recv(&mut buffer, libc::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => return Err(damaged()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if read(&buffer, &mut each, &mut unreadable)? {
            return Ok(unreadable);
        }
    }
}

fn question<M: NetlinkSerializable>(request: M) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads the messages of one answer; true if the dump has ended.
fn read<M: NetlinkDeserializable>(
    mut bytes: &[u8],
    each: &mut impl FnMut(M),
    unreadable: &mut usize,
) -> io::Result<bool> {
    if bytes.is_empty() {
        return Err(damaged());
    }
    while !bytes.is_empty() {
        let length = NetlinkBuffer::new_checked(bytes).map_err(|_| damaged())?.length() as usize;
        let message = bytes.get(..length).ok_or_else(damaged)?;
        match NetlinkMessage::<M>::deserialize(message).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(record)) => each(record),
            Ok(NetlinkPayload::Done(done)) if done.code == 0 => return Ok(true),
            Ok(NetlinkPayload::Done(done)) => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_abs()));
            }
            Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
            Ok(_) => {}
            Err(error) => {
                log::debug!("a record of a netlink dump: {error}");
                *unreadable += 1;
            }
        }
        let next = length.next_multiple_of(ALIGNMENT);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    Ok(false)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer of the kernel that is cut short")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_sock_diag::SockDiagMessage;
    use netlink_packet_sock_diag::constants::AF_INET;

    use super::*;

    /// A message with its header, padded.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn socket(address: Ipv4Addr) -> Vec<u8> {
        let mut record = vec![0; 72];
        record[0] = AF_INET;
        record[8..12].copy_from_slice(&address.octets());
        message(20, &record)
    }

    fn read_all(bytes: &[u8]) -> io::Result<(bool, usize, usize)> {
        let (mut found, mut unreadable) = (0, 0);
        let ended = read(bytes, &mut |_: SockDiagMessage| found += 1, &mut unreadable)?;
        Ok((ended, found, unreadable))
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let two = [socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::BROADCAST)].concat();
        assert_eq!(read_all(&two).expect("two records"), (false, 2, 0));
        let ended = [two, message(3, &0i32.to_ne_bytes())].concat();
        assert_eq!(read_all(&ended).expect("the end"), (true, 2, 0));
    }

    #[test]
    fn an_error_is_passed_on() {
        let refused = [&(-libc::ENOENT).to_ne_bytes()[..], &[0; 16]].concat();
        for kind in [2, 3] {
            let error = read_all(&message(kind, &refused)).expect_err("an error");
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        }
    }

    #[test]
    fn a_record_that_is_none_is_counted_and_the_next_is_read() {
        let bytes = [message(20, &[AF_INET, 1, 2]), socket(Ipv4Addr::LOCALHOST)].concat();
        assert_eq!(read_all(&bytes).expect("a record"), (false, 1, 1));
    }

    #[test]
    fn no_cut_of_an_answer_stops_the_process() {
        let whole = [socket(Ipv4Addr::LOCALHOST), message(3, &0i32.to_ne_bytes())].concat();
        for length in 0..whole.len() {
            let read = read_all(&whole[..length]);
            assert!(!matches!(read, Ok((true, ..))), "{length}: {read:?}");
        }
        let mut endless = whole;
        endless[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert!(read_all(&endless).is_err());
    }
}
