//! Blocks of which only a part was written: the rest belongs to neighbours that come later, maybe from other threads.
//!
//! Writing such parts one by one would make each of them wait for all others that write the same file, and would
//! read blocks back to complete them. So they are kept until they are complete. Memory is bounded: when too many are waiting, they
//! are given out as they are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::BLOCK_LEN;
use crate::vfs::AlignedBuffer;

/// Blocks that wait for their rest.
const EDGE_COUNT_MAX: usize = 2048;

#[derive(Debug)]
struct Edge {
    bytes: Box<[u8; BLOCK_LEN]>,
    /// What was written of it; no two overlap.
    ranges: Vec<Range<usize>>,
}

impl Edge {
    fn new() -> Self {
        Self { bytes: Box::new([0; BLOCK_LEN]), ranges: Vec::new() }
    }

    fn is_complete(&self) -> bool {
        self.ranges.iter().map(ExactSizeIterator::len).sum::<usize>() == BLOCK_LEN
    }
}

/// Incomplete blocks by their numbers.
#[derive(Debug, Default)]
pub(super) struct Edges {
    edges: BTreeMap<u64, Edge>,
}

impl Edges {
    /// Takes `bytes`, which lie within one block at `offset` of the file; returns the block if it is complete now.
    pub(super) fn add(&mut self, bytes: &[u8], offset: u64) -> Option<AlignedBuffer> {
        let block = offset / BLOCK_LEN as u64;
        let start = usize::try_from(offset % BLOCK_LEN as u64).expect("it is less than a block");
        let range = start..start + bytes.len();
        let edge = self.edges.entry(block).or_insert_with(Edge::new);
        edge.bytes[range.clone()].copy_from_slice(bytes);
        edge.ranges.push(range);
        if !edge.is_complete() {
            return None;
        }
        let edge = self.edges.remove(&block)?;
        let mut complete = AlignedBuffer::new(BLOCK_LEN);
        complete.fill(edge.bytes.as_slice());
        Some(complete)
    }

    /// Returns whether so many blocks wait that they should be taken.
    pub(super) fn is_full(&self) -> bool {
        EDGE_COUNT_MAX <= self.edges.len()
    }

    /// Returns all bytes that were not given out, with their offsets in the file, ascending, and forgets them.
    pub(super) fn take(&mut self) -> Vec<(u64, Vec<u8>)> {
        let parts = |(block, edge): (u64, Edge)| {
            edge.ranges.into_iter().map(move |range| {
                (block * BLOCK_LEN as u64 + range.start as u64, edge.bytes[range].to_vec())
            })
        };
        std::mem::take(&mut self.edges).into_iter().flat_map(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_is_given_out_once_all_of_it_is_there() {
        let mut edges = Edges::default();
        assert!(edges.add(&[1; 100], 8192).is_none());
        assert!(edges.add(&[3; 96], 12288 - 96).is_none());
        assert!(edges.add(&[9; 5], 0).is_none());
        let block = edges.add(&[2; 3900], 8192 + 100).unwrap();
        let bytes = block.as_slice();
        assert_eq!(bytes.as_ptr().addr() % 4096, 0);
        assert!(
            bytes[..100] == [1; 100] && bytes[100..4000] == [2; 3900] && bytes[4000..] == [3; 96]
        );
        assert_eq!(edges.take(), [(0, vec![9; 5])]);
        assert!(edges.take().is_empty());
    }

    #[test]
    fn parts_of_incomplete_blocks_are_taken_as_they_are() {
        let mut edges = Edges::default();
        for block in 0..EDGE_COUNT_MAX as u64 {
            assert!(!edges.is_full());
            assert!(edges.add(&[7], block * 4096 + 3).is_none());
        }
        assert!(edges.is_full());
        assert!(edges.add(&[8, 9], 4096).is_none());
        let taken = edges.take();
        assert_eq!(taken.len(), EDGE_COUNT_MAX + 1);
        assert_eq!(taken[..3], [(3, vec![7]), (4099, vec![7]), (4096, vec![8, 9])]);
        assert!(!edges.is_full());
    }
}
