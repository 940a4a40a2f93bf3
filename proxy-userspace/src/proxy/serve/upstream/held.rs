//! Bodies that are read ahead, and the memory that all of them may take together. Used by [`super::body`].
//!
//! What is held is one copy without gaps: a slice of what was read from a socket keeps all of that alive, and a client that sends a
//! byte at a time would have a hundred times the memory that is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Room that a body gets at first, bytes.
const FIRST: u64 = 4 << 10;

/// Memory for bodies, of all requests together.
#[derive(Debug, Default)]
pub(in crate::proxy::serve) struct Memory {
    used: AtomicU64,
    most: AtomicU64,
}

impl Memory {
    /// From now on there is so much, bytes. What is held already stays.
    pub(in crate::proxy::serve) fn allow(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// The beginning of a body, or all of it. What it takes is given back when the last of it was dropped.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    taken: u64,
    memory: Arc<Memory>,
}

impl Held {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { bytes: Vec::new(), taken: 0, memory }
    }

    /// Adds a part. False, and nothing is added, if it would be more than `most` bytes then, or there is no memory.
    pub(super) fn add(&mut self, data: &[u8], most: u64) -> bool {
        let length = self.len() + data.len() as u64;
        if length > most {
            return false;
        }
        if length > self.taken {
            let room = length.max(self.taken * 2).max(FIRST).min(most);
            if !self.memory.take(room - self.taken) {
                return false;
            }
            self.taken = room;
            self.bytes.reserve_exact(usize::try_from(room).unwrap_or(usize::MAX) - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        true
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes, if there are any.
    pub(super) fn into_bytes(self) -> Option<Bytes> {
        (!self.bytes.is_empty()).then(|| Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(most: u64) -> Arc<Memory> {
        let memory = Arc::<Memory>::default();
        memory.allow(most);
        memory
    }

    #[test]
    fn what_is_held_is_counted_until_the_last_of_it_is_gone() {
        let memory = memory(10_000);
        let used = || memory.used.load(Ordering::Relaxed);
        let mut held = Held::new(Arc::clone(&memory));
        assert_eq!(used(), 0);
        for _ in 0..6_000 {
            assert!(held.add(b"x", 7_000));
            assert!(held.bytes.capacity() as u64 <= used());
        }
        assert_eq!(used(), 7_000);
        // Another finds too little left.
        let mut other = Held::new(Arc::clone(&memory));
        assert!(!other.add(b"x", 7_000) && other.add(b"x", 3_000));
        let bytes = held.into_bytes().expect("bytes");
        let last = bytes.slice(5_999..);
        drop((other, bytes));
        assert_eq!(used(), 7_000);
        drop(last);
        assert_eq!(used(), 0);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let memory = memory(1 << 20);
        let mut held = Held::new(memory);
        assert!(held.add(b"abc", 5) && !held.add(b"def", 5) && held.add(b"de", 5));
        assert_eq!(held.into_bytes().as_deref(), Some(&b"abcde"[..]));
        assert!(Held::new(Arc::default()).into_bytes().is_none());
        assert!(!Held::new(Arc::default()).add(b"x", 5), "there is no memory at all");
    }
}
