//! Many elements of a hash map by one system call (`BPF_MAP_UPDATE_BATCH`, `BPF_MAP_LOOKUP_BATCH`, Linux 5.6), which aya does
//! not have; by one call each where the kernel can't.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::Pod;
use aya::maps::{HashMap, MapData, MapError};

use crate::dataplane::error::{Context, DataplaneError};

// Numbers of `enum bpf_cmd` in `linux/bpf.h`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
/// `ENOTSUPP` of the kernel, which has no name outside: this kind of map can't.
const NOT_SUPPORTED: i32 = 524;
/// Elements of one call. A bucket of the hash must fit, else the kernel refuses to read it.
const MOST: usize = 1 << 16;

/// The part of `union bpf_attr` that these commands read.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Attributes>() == 56);

/// Makes a call; what the kernel says of `count` is in the attributes, also if it fails.
fn call(command: libc::c_long, attributes: &mut Attributes) -> io::Result<()> {
    let size = size_of::<Attributes>();
    // SAFETY: the attributes are as long as is said and hold the addresses of buffers that the callers below borrow for as
    // long as this call takes; the kernel writes no more than `count` elements into them.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// True if it is not the elements that are refused but the call.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | NOT_SUPPORTED))
}

/// Adds or overwrites elements. What is written when it fails stays.
///
/// # Errors
/// If there is no room for them.
pub fn update<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    fd: &MapData,
    keys: &[K],
    values: &[V],
) -> Result<(), MapError> {
    for (keys, values) in keys.chunks(MOST).zip(values.chunks(MOST)) {
        let mut attributes = Attributes {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len().min(values.len()) as u32,
            map_fd: fd.fd().as_fd().as_raw_fd() as u32,
            ..Attributes::default()
        };
        match call(BPF_MAP_UPDATE_BATCH, &mut attributes) {
            Ok(()) => {}
            // Whatever of them is written already is written again.
            Err(error) if is_unknown(&error) => {
                keys.iter().zip(values).try_for_each(|(key, value)| map.insert(key, value, 0))?;
            }
            Err(error) => return Err(MapError::IoError(error)),
        }
    }
    Ok(())
}

/// All elements; of those that are written meanwhile, some.
///
/// # Errors
/// If the map can't be read.
pub fn read<K: Pod + Default, V: Pod + Default>(
    map: &HashMap<MapData, K, V>,
    fd: &MapData,
    name: &str,
) -> Result<Vec<(K, V)>, DataplaneError> {
    let mut found = Vec::new();
    let (mut keys, mut values) = (vec![K::default(); MOST], vec![V::default(); MOST]);
    // Where to go on: the kernel's own notion, a bucket.
    let (mut from, mut to) = (0u64, 0u64);
    let mut begun = false;
    loop {
        let mut attributes = Attributes {
            in_batch: if begun { &raw const from as u64 } else { 0 },
            out_batch: &raw mut to as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: MOST as u32,
            map_fd: fd.fd().as_fd().as_raw_fd() as u32,
            ..Attributes::default()
        };
        let ended = match call(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if is_unknown(&error) && !begun => {
                return map.iter().collect::<Result<_, _>>().context(|| format!("reading {name}"));
            }
            Err(error) => return Err(error).context(|| format!("reading {name}")),
        };
        let count = (attributes.count as usize).min(MOST);
        found.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
        if ended {
            return Ok(found);
        }
        (from, begun) = (to, true);
    }
}
