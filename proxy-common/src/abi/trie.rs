//! The source trie: from an address to its class, in array nodes.
//!
//! Built by the policy compiler, walked by [`crate::engine::classify`]. The first 16 bits of an address index
//! the `ROOT` map; each following byte is one compressed [`Node`]. A node stores where in its 256 slots a run
//! of equal entries begins (a bitmap, after Degermark et al., SIGCOMM 1997, and Poptrie, Asai and Ohara,
//! SIGCOMM 2015), so that its size follows the number of prefixes in it: up to [`INLINE`] runs lie in the
//! node's own cache line, more of them side by side in the `ENTRIES` map.

/// Entries of the `ROOT` map: 65,536 of IPv4, then as many of IPv6.
pub const ROOT_LEN: u32 = 2 * 65536;
/// Where IPv6 begins in `ROOT`.
pub const ROOT_V6: u32 = 65536;
/// Set in an entry that leads to a node; the rest is the node's index. Else the entry is a class.
pub const NODE: u32 = 1 << 31;
/// Runs that fit in a node.
pub const INLINE: usize = 6;
/// [`Node::base`] of a node whose runs are all in [`Node::inline`].
pub const BASE_INLINE: u32 = u32::MAX;
/// Bytes of an IPv6 address that follow the root's 16 bits: the most nodes on a walk.
pub const MAX_DEPTH: usize = 14;

/// 256 slots of a trie level, run-length compressed: one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Bit *b* is set if slot *b* begins a run; slot 0 always does.
    pub starts: [u64; 4],
    /// Byte *w*: how many runs begin in the words before word *w*.
    pub ranks: [u8; 4],
    /// Where this node's runs begin in `ENTRIES`, or [`BASE_INLINE`].
    pub base: u32,
    /// The entries of the runs, if there are no more than these.
    pub inline: [u32; INLINE],
}

const _: () = assert!(size_of::<Node>() == 64);
