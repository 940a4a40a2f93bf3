//! The class of a source address: the walk of the trie described in [`crate::abi::trie`].

use super::Tables;
use crate::abi::trie::{BASE_INLINE, INLINE, MAX_DEPTH, NODE, Node, ROOT_V6};
use crate::packet::Addr;

/// The class of an address; `None` if the trie is damaged.
#[inline(always)]
pub fn class_of<T: Tables>(tables: &T, addr: Addr, v6: bool) -> Option<u32> {
    let root = if v6 { ROOT_V6 } else { 0 };
    let mut entry = tables.root(root + (addr.hi >> 48) as u32)?;
    if entry & NODE == 0 {
        return Some(entry);
    }
    let mut hi = (addr.hi << 16) | (addr.lo >> 48);
    let mut lo = addr.lo << 16;
    for _ in 0..MAX_DEPTH {
        let node = tables.node(entry & !NODE)?;
        let run = run_of(node, (hi >> 56) as u32);
        entry = if node.base == BASE_INLINE {
            if run as usize >= INLINE {
                return None;
            }
            node.inline[run as usize]
        } else {
            tables.entry(node.base.wrapping_add(run))?
        };
        if entry & NODE == 0 {
            return Some(entry);
        }
        hi = (hi << 8) | (lo >> 56);
        lo <<= 8;
    }
    None
}

/// Which run slot `slot` (below 256) belongs to.
#[inline(always)]
fn run_of(node: &Node, slot: u32) -> u32 {
    let word = (slot >> 6) as usize & 3;
    // All bits up to and including the slot's; the shift is split because 2 << 63 would not fit.
    let upto = (1u64 << (slot & 63)).wrapping_shl(1).wrapping_sub(1);
    let begun = (node.starts[word] & upto).count_ones();
    (node.ranks[word] as u32 + begun).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_belongs_to_the_last_run_begun() {
        let mut node =
            Node { starts: [1, 0, 1 << 63, 1], ranks: [0, 1, 1, 2], base: BASE_INLINE, inline: [0; 6] };
        assert_eq!(run_of(&node, 0), 0);
        assert_eq!(run_of(&node, 63), 0);
        assert_eq!(run_of(&node, 190), 0);
        assert_eq!(run_of(&node, 191), 1);
        assert_eq!(run_of(&node, 192), 2);
        assert_eq!(run_of(&node, 255), 2);
        node.starts = [u64::MAX; 4];
        node.ranks = [0, 64, 128, 192];
        for slot in 0..256 {
            assert_eq!(run_of(&node, slot), slot);
        }
    }
}
