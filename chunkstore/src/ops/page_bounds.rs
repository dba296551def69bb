//! How long a page can be: bounds the memory of whoever reads or makes one.

use crate::chunking::ChunkingParams;
use crate::format::PageEntry;
use crate::id::ChunkId;
use crate::limits::{CHUNK_LEN_MAX, ZERO_RUN_LEN_MIN};

/// Memory for an entry of a page; encoded it takes less.
pub(crate) const ENTRY_LEN: usize = size_of::<PageEntry>();

/// The longest page that describes one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageBounds {
    pub(crate) entry_count_max: usize,
    /// Length in bytes of the encoded form.
    pub(crate) len_max: usize,
}

impl PageBounds {
    /// Returns the bounds for a span of `span_len` bytes.
    pub(crate) fn new(chunking: &ChunkingParams, span_len: u64) -> Self {
        // A chunk is shorter than the minimum only where a zero run or the span ends it, and a page is a chunk itself:
        // it has no more entries with ids than ids fit into it.
        let zero_runs = span_len / ZERO_RUN_LEN_MIN + 1;
        let chunks = span_len / u64::from(chunking.min()) + zero_runs;
        let chunks = chunks.min(u64::from(CHUNK_LEN_MAX) / ChunkId::LEN as u64);
        let entry_count_max = usize::try_from(chunks + zero_runs).unwrap_or(usize::MAX);
        let len_max = (entry_count_max * ENTRY_LEN).min(CHUNK_LEN_MAX as usize);
        Self { entry_count_max, len_max }
    }
}
