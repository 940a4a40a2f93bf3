//! From runs of source classes to the trie of [`proxy_common::abi::trie`].
//!
//! Called by [`super::compile`]. Memory follows the number of runs: a node has an entry for each run that begins in
//! it, and equal nodes are stored once. The last are many: of lists with single hosts, most nodes of the last byte
//! differ from others only by the place that they hang at.

use std::collections::HashMap;

use proxy_common::abi::trie::{BASE_INLINE, INLINE, NODE, Node, ROOT_LEN, ROOT_V6};

use super::runs::{Run, Runs};
use super::{CompileError, MOST_ENTRIES, MOST_NODES};

/// Address bits that the root stands for.
const ROOT_BITS: u32 = 16;
/// Address bits that a node stands for.
const NODE_BITS: u32 = 8;

/// The arrays of the trie.
pub(super) struct Trie {
    pub(super) root: Vec<u32>,
    pub(super) nodes: Vec<Node>,
    pub(super) entries: Vec<u32>,
}

/// Builds the trie. The values of the runs are source classes, and neighbours differ.
pub(super) fn build(runs: &Runs) -> Result<Trie, CompileError> {
    let mut builder = Builder { nodes: Vec::new(), entries: Vec::new(), known: HashMap::new() };
    let mut root = vec![0; ROOT_LEN as usize];
    let (v4, v6) = root.split_at_mut(ROOT_V6 as usize);
    builder.root(v4, &runs.v4)?;
    builder.root(v6, &runs.v6)?;
    Ok(Trie { root, nodes: builder.nodes, entries: builder.entries })
}

struct Builder {
    nodes: Vec<Node>,
    entries: Vec<u32>,
    /// Nodes that hold their runs, by content.
    known: HashMap<([u64; 4], [u32; INLINE]), u32>,
}

/// A run of slots that have one entry.
#[derive(Clone, Copy)]
struct SlotRun {
    first: usize,
    entry: u32,
}

impl Builder {
    fn root(&mut self, slots: &mut [u32], runs: &[Run]) -> Result<(), CompileError> {
        let mut last = slots.len();
        for run in self.level(0, 0, ROOT_BITS, runs)?.iter().rev() {
            slots[run.first..last].fill(run.entry);
            last = run.first;
        }
        Ok(())
    }

    /// The entry for the addresses from `base` on that share their first `depth` bits. `runs` are those that have
    /// one of them: the first may begin before.
    fn entry(&mut self, base: u128, depth: u32, runs: &[Run]) -> Result<u32, CompileError> {
        if let [only] = runs {
            return Ok(only.value);
        }
        let slots = self.level(base, depth, NODE_BITS, runs)?;
        let mut node = Node { starts: [0; 4], ranks: [0; 4], base: BASE_INLINE, inline: [0; INLINE] };
        for slot in &slots {
            node.starts[slot.first / 64] |= 1 << (slot.first % 64);
        }
        let mut begun = 0;
        for (rank, word) in node.ranks.iter_mut().zip(node.starts) {
            // At most 192 runs begin before the last word.
            *rank = begun as u8;
            begun += word.count_ones();
        }
        if slots.len() > INLINE {
            node.base = self.entries.len() as u32;
            if self.entries.len() + slots.len() > MOST_ENTRIES {
                return Err(CompileError::TooManyPrefixes);
            }
            self.entries.extend(slots.iter().map(|slot| slot.entry));
            return self.add(node);
        }
        for (place, slot) in node.inline.iter_mut().zip(&slots) {
            *place = slot.entry;
        }
        let content = (node.starts, node.inline);
        if let Some(same) = self.known.get(&content) {
            return Ok(*same);
        }
        let entry = self.add(node)?;
        self.known.insert(content, entry);
        Ok(entry)
    }

    fn add(&mut self, node: Node) -> Result<u32, CompileError> {
        if self.nodes.len() >= MOST_NODES {
            return Err(CompileError::TooManyPrefixes);
        }
        self.nodes.push(node);
        Ok(NODE | (self.nodes.len() - 1) as u32)
    }

    /// The slots of a level of `bits` bits below an entry, run-length compressed.
    fn level(
        &mut self,
        base: u128,
        depth: u32,
        bits: u32,
        runs: &[Run],
    ) -> Result<Vec<SlotRun>, CompileError> {
        let shift = u128::BITS - depth - bits;
        let slot_of = |address: u128| ((address - base) >> shift) as usize;
        let mut slots: Vec<SlotRun> = Vec::new();
        let mut put = |first: usize, entry: u32| {
            if slots.last().is_none_or(|before| before.entry != entry) {
                slots.push(SlotRun { first, entry });
            }
        };
        // `at`: the run of the first address of `slot`.
        let (mut slot, mut at) = (0, 0);
        loop {
            let Some(next) = runs.get(at + 1) else {
                put(slot, runs[at].value);
                return Ok(slots);
            };
            let turn = slot_of(next.start);
            if turn > slot {
                put(slot, runs[at].value);
                slot = turn;
            }
            let slot_start = base + ((slot as u128) << shift);
            if next.start == slot_start {
                at += 1;
                // The run may also end in its first slot; that is for the next round to see.
                if runs.get(at + 1).is_none_or(|after| slot_of(after.start) > slot) {
                    continue;
                }
            }
            let end = runs[at + 1..].partition_point(|run| slot_of(run.start) <= slot) + at + 1;
            let entry = self.entry(slot_start, depth + bits, &runs[at..end])?;
            put(slot, entry);
            slot += 1;
            if slot == 1 << bits {
                return Ok(slots);
            }
            let slot_start = base + ((slot as u128) << shift);
            at = if runs.get(end).is_some_and(|run| run.start == slot_start) { end } else { end - 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie over IPv4 runs: first address and class.
    fn v4(runs: &[(u32, u32)]) -> Trie {
        let run = |(start, value): &(u32, u32)| Run { start: u128::from(*start) << 96, value: *value };
        build(&Runs { v4: runs.iter().map(run).collect(), v6: vec![Run { start: 0, value: 9 }] })
            .expect("a trie")
    }

    #[test]
    fn what_the_root_can_tell_needs_no_node() {
        let trie = v4(&[(0, 0), (0x0a00_0000, 1), (0x0a01_0000, 2)]);
        assert!(trie.nodes.is_empty() && trie.entries.is_empty());
        assert_eq!(trie.root[0x09ff..=0x0a01], [0, 1, 2]);
        assert_eq!(trie.root[0xffff..=0x1_0000], [2, 9]);
        assert!(trie.root[ROOT_V6 as usize..].iter().all(|entry| *entry == 9));
    }

    #[test]
    fn a_host_takes_a_node_a_byte_and_equal_nodes_are_one() {
        let host = |address: u32| [(address, 1), (address + 1, 0)];
        let hosts = [host(0x0a00_0007), host(0x0a00_0107), host(0x0b00_0007)];
        let trie = v4(&[&[(0, 0)], hosts.as_flattened()].concat());
        // The last byte is the same node three times; the byte before differs.
        assert_eq!(trie.nodes.len(), 3);
        assert_eq!(trie.nodes[0].starts, [0b1_1000_0001, 0, 0, 0]);
        assert_eq!(trie.nodes[0].inline[..3], [0, 1, 0]);
        // Both of its first slots lead to the same node: one run.
        assert_eq!(trie.nodes[1].starts, [0b101, 0, 0, 0]);
        assert_eq!(trie.nodes[1].inline[..2], [NODE, 0]);
        assert_eq!(trie.root[0x0a00], NODE | 1);
        assert_eq!(trie.root[0x0b00], NODE | 2);
    }

    #[test]
    fn many_runs_lie_outside_of_their_node() {
        let runs: Vec<(u32, u32)> = (0..=255).map(|slot| (0x0a00_0000 + (slot << 8), slot % 2)).collect();
        let trie = v4(&[&[(0, 7)], runs.as_slice(), &[(0x0a01_0000, 7)]].concat());
        assert_eq!((trie.nodes.len(), trie.entries.len()), (1, 256));
        assert_eq!(trie.nodes[0].starts, [u64::MAX; 4]);
        assert_eq!(trie.nodes[0].ranks, [0, 64, 128, 192]);
        assert_eq!((trie.nodes[0].base, trie.entries[255]), (0, 1));
    }
}
