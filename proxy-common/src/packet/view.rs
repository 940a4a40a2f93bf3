//! Checked reads of a frame: the one place where offsets meet bounds.
//!
//! Implemented by [`Slice`] on the host and by the contexts of `proxy-ebpf` over `data..data_end`.

/// Highest offset that a view must be able to read from. Headers never lie further in: two VLAN tags, an IPv6
/// header and a chain of extension headers that the walk bounds.
pub const MAX_OFFSET: usize = 1023;

/// How the verifier is made to forget.
pub trait Forget {
    /// `value`, unchanged. In the kernel it comes back without the history that the verifier keeps of it, so
    /// that paths which differ only in that history are checked once: where many paths meet, the number of
    /// states would otherwise multiply beyond the verifier's limit.
    fn forget(&self, value: u64) -> u64 {
        value
    }
}

/// For code that no verifier reads.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Forget for Plain {}

/// A frame.
pub trait PacketView: Forget {
    /// `N` bytes at `at`; `None` where the frame is shorter or `at` is above [`MAX_OFFSET`].
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;

    /// Length of the whole frame in bytes, link header included.
    fn len(&self) -> usize;

    /// True if the whole frame has at least `end` bytes, also where not all of them can be read in place.
    fn holds(&self, end: usize) -> bool {
        end <= self.len()
    }

    /// Packets on the wire that this one stands for: above 1 where the kernel has merged them (GRO).
    fn packets(&self) -> u32 {
        1
    }

    /// True for a frame without a byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame in memory.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(pub &'a [u8]);

impl Forget for Slice<'_> {}

impl PacketView for Slice<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        self.0.get(at..)?.first_chunk()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Two bytes of a header as a number. `at` is a constant at each call, so the bound folds away.
#[inline(always)]
pub(crate) const fn be16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}
