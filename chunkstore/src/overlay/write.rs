//! Writing, zeroing and trimming.
//!
//! Invariants: a block becomes "data" after all its bytes are in the file; what is missing of a block that is written in part comes from the
//! revision, checked, or is zero. Blocks of a neighbourhood change under the lock of that neighbourhood, so that two writes to parts of
//! the same block do not undo each other.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::Overlay;
use super::geometry::{block_start, indexes, memory_len, page_of, pieces};
use super::map::MapPage;
use crate::error::{Error, Result};
use crate::format::BlockState;

/// Length in bytes of a neighbourhood; a request is worked on in such pieces.
const STRIPE_LEN: u64 = 1 << 20;

/// Pages of the map that may wait to be written: more make a write flush first.
const DIRTY_COUNT_MAX: usize = 2048;

/// Bytes of the revision for the blocks that a request touches in part: the first and the last one.
struct Edges(Vec<(u64, Vec<u8>)>);

impl Overlay {
    /// Writes `bytes` at `offset`. Durable after the next [`Self::flush`].
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if the range does not lie in the image.
    /// - [`Error::Damaged`] or [`Error::Missing`] if a block is written in part and the revision cannot give the rest of it. Nothing
    ///   is written then.
    /// - [`Error::Storage`]; any part may then be written. For want of space, see [`Error::is_out_of_space`], nothing else is lost.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = self.check_range(offset, bytes.len() as u64)?;
        self.begin_change()?;
        let edges = self.read_edges(&range)?;
        let mut rest = bytes;
        for piece in pieces(range, STRIPE_LEN) {
            let len = memory_len(&piece);
            let (part, behind) = rest.split_at(len);
            rest = behind;
            let page = self.map.for_writing(&self.file, page_of(piece.start))?;
            let _stripe = self.lock_stripe(piece.start);
            page.ensure_slots(&self.file)?;
            self.write_piece(&page, piece, part, &edges)?;
        }
        Ok(())
    }

    /// Makes a range zero. Without `may_make_hole` space is set aside for it, as far as the file system can, so that writing there later does not fail
    /// for want of it. Durable after the next [`Self::flush`].
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn write_zeroes(&self, offset: u64, len: u64, may_make_hole: bool) -> Result<()> {
        let range = self.check_range(offset, len)?;
        self.begin_change()?;
        let edges = self.read_edges(&range)?;
        for piece in pieces(range, STRIPE_LEN) {
            self.relieve()?;
            let page = self.map.for_writing(&self.file, page_of(piece.start))?;
            let _stripe = self.lock_stripe(piece.start);
            page.ensure_slots(&self.file)?;
            let whole = self.file.geometry.whole_blocks(&piece);
            for part in [piece.start..whole.start, whole.end..piece.end] {
                self.zero_part(&page, part, &edges, may_make_hole)?;
            }
            self.zero_blocks(&page, whole, may_make_hole)?;
        }
        Ok(())
    }

    /// Gives the space of the whole blocks in a range back, which read as zeros from then on. The rest of the range stays as it
    /// is. Durable after the next [`Self::flush`].
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if the range does not lie in the image.
    /// - [`Error::Storage`].
    pub fn trim(&self, offset: u64, len: u64) -> Result<()> {
        let range = self.check_range(offset, len)?;
        self.begin_change()?;
        for piece in pieces(self.file.geometry.whole_blocks(&range), STRIPE_LEN) {
            self.relieve()?;
            let page = self.map.for_writing(&self.file, page_of(piece.start))?;
            let _stripe = self.lock_stripe(piece.start);
            page.ensure_slots(&self.file)?;
            self.zero_blocks(&page, piece, true)?;
        }
        Ok(())
    }

    fn lock_stripe(&self, offset: u64) -> MutexGuard<'_, ()> {
        let count = self.stripes.len() as u64;
        let stripe = usize::try_from(offset / STRIPE_LEN % count).expect("below a usize");
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_change(&self) -> Result<()> {
        self.file.check_writable()?;
        self.relieve()
    }

    /// Bounds the memory of the map.
    fn relieve(&self) -> Result<()> {
        if self.map.dirty_count() < DIRTY_COUNT_MAX { Ok(()) } else { self.flush() }
    }

    /// Reads what the revision has in the blocks that are written in part, before anything is written, and without a lock. A block that is not
    /// that of the revision now never is again.
    fn read_edges(&self, range: &Range<u64>) -> Result<Edges> {
        let mut edges = Vec::new();
        let geometry = &self.file.geometry;
        let (first, last) = (block_start(range.start), block_start(range.end));
        let is_partial = |start: u64| {
            let block = start..geometry.block_end(start + 1);
            !range.is_empty()
                && (block.start < range.start || range.end < block.end)
                && block.start < range.end
        };
        let mut starts = vec![first, last];
        starts.dedup();
        for start in starts.into_iter().filter(|start| is_partial(*start)) {
            if self.state_of(start)? == BlockState::Base {
                let mut bytes = vec![0; memory_len(&(start..geometry.block_end(start + 1)))];
                self.base.read_exact_at(&mut bytes, start)?;
                edges.push((start, bytes));
            }
        }
        Ok(Edges(edges))
    }

    fn state_of(&self, offset: u64) -> Result<BlockState> {
        let page = self.map.for_reading(&self.file, page_of(offset))?;
        Ok(page.map_or(BlockState::Base, |page| state_in(&page, offset)))
    }

    /// Writes bytes that lie in one neighbourhood, and completes the blocks at their ends.
    fn write_piece(
        &self,
        page: &MapPage,
        piece: Range<u64>,
        bytes: &[u8],
        edges: &Edges,
    ) -> Result<()> {
        let (head, tail) = (block_start(piece.start), block_start(piece.end - 1));
        let tail_end = self.file.geometry.block_end(piece.end);
        let lacks_head = head < piece.start && state_in(page, head) != BlockState::Data;
        let lacks_tail = piece.end < tail_end && state_in(page, tail) != BlockState::Data;
        if !lacks_head && !lacks_tail {
            self.write_data(bytes, piece.start)?;
        } else {
            let mut whole = Vec::with_capacity(bytes.len() + 2 * 4096);
            let mut start = piece.start;
            if lacks_head {
                start = head;
                whole.extend_from_slice(&edges.bytes_of(page, head..piece.start)?);
            }
            whole.extend_from_slice(bytes);
            if lacks_tail {
                whole.extend_from_slice(&edges.bytes_of(page, piece.end..tail_end)?);
            }
            self.write_data(&whole, start)?;
        }
        self.map.set(page, indexes(&piece), BlockState::Data);
        Ok(())
    }

    fn write_data(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let result = self.file.write_data(bytes, offset);
        // After the write: a flush that begins now covers it. Also after one that failed half-way.
        self.is_unsynced.store(true, Ordering::SeqCst);
        result
    }

    /// Makes a part of one block zero.
    fn zero_part(
        &self,
        page: &MapPage,
        part: Range<u64>,
        edges: &Edges,
        may_make_hole: bool,
    ) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        if state_in(page, part.start) != BlockState::Zero {
            let zeros = vec![0; memory_len(&part)];
            return self.write_piece(page, part, &zeros, edges);
        }
        if may_make_hole { Ok(()) } else { self.reserve(page, part) }
    }

    /// Makes whole blocks zero.
    fn zero_blocks(&self, page: &MapPage, blocks: Range<u64>, may_make_hole: bool) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        if !may_make_hole {
            return self.reserve(page, blocks);
        }
        let indexes = indexes(&blocks);
        let has_space =
            page.lock().states.run(indexes.start, indexes.end) != (BlockState::Base, indexes.end);
        self.map.set(page, indexes, BlockState::Zero);
        // Zeros are one of the two things that these blocks may be until the next flush, also if the map that is durable says
        // "data": the hole need not wait for that.
        if has_space {
            self.file.punch_data(blocks.start, blocks.end - blocks.start);
        }
        Ok(())
    }

    /// Makes blocks zero that keep their space, of which the range is a part.
    fn reserve(&self, page: &MapPage, range: Range<u64>) -> Result<()> {
        let blocks = block_start(range.start)..self.file.geometry.block_end(range.end);
        let result = self.file.reserve_data(blocks.start, blocks.end - blocks.start);
        self.is_unsynced.store(true, Ordering::SeqCst);
        result?;
        self.map.set(page, indexes(&blocks), BlockState::Zero);
        Ok(())
    }
}

impl Edges {
    /// Returns the bytes of a part of one block that is not data.
    fn bytes_of(&self, page: &MapPage, part: Range<u64>) -> Result<Vec<u8>> {
        let start = block_start(part.start);
        let len = memory_len(&part);
        if state_in(page, start) == BlockState::Zero {
            return Ok(vec![0; len]);
        }
        let from = memory_len(&(start..part.start));
        let found = self.0.iter().find(|(known, _)| *known == start);
        let bytes = found.and_then(|(_, bytes)| bytes.get(from..from + len));
        let what = || format!("block at byte {start} of an overlay became that of its revision");
        bytes.map(<[u8]>::to_vec).ok_or_else(|| Error::Bug { what: what() })
    }
}

fn state_in(page: &MapPage, offset: u64) -> BlockState {
    page.lock().states.get(indexes(&(offset..offset + 1)).start)
}
