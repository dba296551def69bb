//! Chunks of an older revision, taken as a guess at what is next.
//!
//! Document: `docs/format.md`, section "Chunking". A guess saves the search for the cut, which costs more
//! than twice what hashing does; it never decides anything. The entries must come from a chunk list that a
//! cutter with the same parameters has made, of whatever bytes: then a chunk of the same id at its start is the same
//! bytes, and [`Cutter::cuts_again`] is exact.

use super::Cutter;
use crate::format::{ObjectKind, PageEntry};
use crate::id::ChunkId;

/// Chunk that was found at the start of a run.
pub(super) struct NextChunk {
    pub(super) len: usize,
    pub(super) id: ChunkId,
    /// Whether the older revision has the same chunk at this place.
    pub(super) predicted: bool,
}

/// Walks along the entries of an older revision of a span.
pub(super) struct Prediction<'a> {
    entries: &'a [PageEntry],
    /// Offset in the span of the first of `entries`.
    offset: u64,
}

impl<'a> Prediction<'a> {
    pub(super) const fn new(entries: &'a [PageEntry]) -> Self {
        Self { entries, offset: 0 }
    }

    /// Returns the first chunk of `run`, which starts at `offset` in the span and ends where the data run does
    /// or behind the longest chunk. Offsets must ascend from call to call.
    pub(super) fn next_chunk(&mut self, cutter: &Cutter, run: &[u8], offset: u64) -> NextChunk {
        let hash = |len: usize| ObjectKind::Data.chunk_id(&run[..len]);
        let fits = 1..=run.len().min(cutter.len_max());
        let Some((old_len, old_id)) = self.chunk_at(offset).filter(|(len, _)| fits.contains(len))
        else {
            let len = cutter.cut(run);
            return NextChunk { len, id: hash(len), predicted: false };
        };
        let id = hash(old_len);
        if id == old_id && cutter.cuts_again(run, old_len) {
            return NextChunk { len: old_len, id, predicted: true };
        }
        let len = cutter.cut(run);
        if len == old_len {
            return NextChunk { len, id, predicted: id == old_id };
        }
        NextChunk { len, id: hash(len), predicted: false }
    }

    /// Returns length and id of the old chunk that starts at `offset`, if one does.
    fn chunk_at(&mut self, offset: u64) -> Option<(usize, ChunkId)> {
        while self.offset < offset {
            let (passed, rest) = self.entries.split_first()?;
            self.entries = rest;
            self.offset = self.offset.saturating_add(passed.len());
        }
        match self.entries.first() {
            Some(PageEntry::Data { len, id }) if self.offset == offset => {
                Some((usize::try_from(*len).ok()?, *id))
            }
            _ => None,
        }
    }
}
