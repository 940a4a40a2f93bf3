//! Fills arrays of an instance at once, through shared memory instead of one system call an element.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::{NonNull, copy_nonoverlapping, write_bytes};

use aya::Pod;
use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::error::{Context, DataplaneError, missing};

/// Writes `elements` to the beginning of an array map that was made with `BPF_F_MMAPABLE` (Linux 5.5). The size of an
/// element must be a multiple of eight bytes, as it is in the kernel's memory.
///
/// # Errors
/// If they do not fit, or the kernel refuses the mapping.
pub fn fill<T: Pod>(map: &MapData, name: &str, elements: &[T]) -> Result<(), DataplaneError> {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let info = map.info().context(|| name.to_owned())?;
    let room = info.value_size() as usize * info.max_entries() as usize;
    let bytes = size_of_val(elements);
    let Some(length) = NonZeroUsize::new(room).filter(|_| bytes <= room) else {
        return Err(missing(format!("room for {bytes} bytes in {name}, which has {room}")));
    };
    if bytes == 0 {
        return Ok(());
    }
    with_mapping(map, name, length, |memory| {
        // SAFETY: `bytes` are readable at `elements`, and writable in the mapping, as checked above; the two do not
        // overlap.
        unsafe { copy_nonoverlapping(elements.as_ptr().cast::<u8>(), memory, bytes) };
    })
}

/// Maps the values of an array, `length` bytes of them, for as long as `work` takes.
pub(super) fn with_mapping(
    map: &MapData,
    name: &str,
    length: NonZeroUsize,
    work: impl FnOnce(*mut u8),
) -> Result<(), DataplaneError> {
    let mapping = Mapping::new(map, name, length)?;
    work(mapping.as_ptr());
    Ok(())
}

/// The values of an array in this process's memory, where the kernel's programs read and write them too.
#[derive(Debug)]
pub(super) struct Mapping {
    memory: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    /// Maps `length` bytes of an array that was made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// If there are not as many, or the kernel refuses.
    pub(super) fn new(map: &MapData, name: &str, length: NonZeroUsize) -> Result<Self, DataplaneError> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice, as long as the map's values; nothing else in
        // this process refers to it.
        let memory = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
            .context(|| format!("mapping {name}"))?;
        Ok(Self { memory, length })
    }

    /// All values of such an array.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn of_all(map: &MapData, name: &str) -> Result<Self, DataplaneError> {
        let info = map.info().context(|| name.to_owned())?;
        let length = NonZeroUsize::new(info.value_size() as usize * info.max_entries() as usize);
        Self::new(map, name, length.ok_or_else(|| missing(format!("the size of {name}")))?)
    }

    /// Sets all of it to zero.
    pub(super) fn clear(&self) {
        // SAFETY: the mapping is that long and writable, and zero bytes are a value of every map.
        unsafe { write_bytes(self.as_ptr(), 0, self.length.get()) };
    }

    /// Where it begins: at the beginning of a page. Valid as long as `self` lives.
    pub(super) const fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr().cast()
    }
}

// SAFETY: the address is good in every thread of this process until it is unmapped, which `drop` does once.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; whoever has asked for the address knows that it ends with this value.
        let unmapped = unsafe { munmap(self.memory, self.length.get()) };
        // It fails for nothing but a range that is none.
        debug_assert_eq!(unmapped, Ok(()));
    }
}
