//! What all readers of a process keep together.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::page::SpanPage;
use crate::cache::Cache;
use crate::chunk_reader::ReadBuffers;
use crate::error::{Error, Result};
use crate::id::StoreId;

/// One part in this many of the bytes is for pages: 8 MiB keep those of 8 GiB with chunks of 64 KiB, at 64 bytes for each.
const PAGES_PART: usize = 4;

/// Buffers for reading that are kept, so that each thread finds one.
const BUFFERS_KEPT: usize = 8;

/// Longest record for which a buffer is kept.
const BUFFER_LEN_MAX: usize = 1 << 20;

/// Plain chunks and chunk lists that were read and checked, for any number of readers of one store and any number of threads.
///
/// Chunks are kept by id, so what revisions have in common is there once, and is read once even if several threads
/// need it at the same moment. A scan of a large image does not drive out what is used again and again.
pub struct ChunkCache {
    pub(super) chunks: Cache<Vec<u8>>,
    pub(super) pages: Cache<SpanPage>,
    buffers: Mutex<Vec<ReadBuffers>>,
    /// The store that it was first used for: locations in pages are of it.
    store: OnceLock<StoreId>,
}

impl ChunkCache {
    /// What a reader takes that shares its cache with no other, in bytes.
    pub const BYTE_LEN_DEFAULT: usize = 32 << 20;

    /// Returns an empty cache of at most `byte_len_max` bytes, tables and allocations included. A quarter of them is for chunk
    /// lists. Chunks that are being read, one for each thread, are not counted, nor are the buffers for reading.
    #[must_use]
    pub fn new(byte_len_max: usize) -> Self {
        let pages = byte_len_max / PAGES_PART;
        Self {
            chunks: Cache::new(byte_len_max - pages),
            pages: Cache::new(pages),
            buffers: Mutex::default(),
            store: OnceLock::new(),
        }
    }

    /// Returns the bytes that the cache holds now.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.chunks.byte_len() + self.pages.byte_len()
    }

    /// Returns the most bytes that it holds.
    #[must_use]
    pub const fn byte_len_max(&self) -> usize {
        self.chunks.byte_len_max() + self.pages.byte_len_max()
    }

    /// Refuses a second store.
    pub(super) fn belong_to(&self, store: &StoreId) -> Result<()> {
        if self.store.get_or_init(|| *store) == store {
            return Ok(());
        }
        Err(Error::InvalidOption { what: "a chunk cache is for one store".to_owned() })
    }

    pub(super) fn take_buffers(&self) -> ReadBuffers {
        let spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_default()
    }

    pub(super) fn give_back(&self, spare: ReadBuffers) {
        if spare.record_len() <= BUFFER_LEN_MAX {
            let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            if buffers.len() < BUFFERS_KEPT {
                buffers.push(spare);
            }
        }
    }
}

impl fmt::Debug for ChunkCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ChunkCache({} of {} bytes)", self.byte_len(), self.byte_len_max())
    }
}
