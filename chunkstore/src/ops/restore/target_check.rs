//! Finds out whether a target holds what an entry of a page says, by its digest: the store is not read for that.

use crate::chunk_reader::to_usize;
use crate::chunking::is_zero;
use crate::format::{ObjectKind, PageEntry};
use crate::target::{Target, TargetError};

/// Bytes of a zero entry that are read at once.
const READ_LEN: usize = 1 << 20;

/// Reads a target with a buffer of its own: one for each thread.
pub(super) struct TargetCheck<'a> {
    target: &'a dyn Target,
    buffer: Vec<u8>,
}

impl<'a> TargetCheck<'a> {
    pub(super) fn new(target: &'a dyn Target) -> Self {
        Self { target, buffer: Vec::new() }
    }

    /// Returns whether the target holds an entry at its place now, maybe in a cache.
    pub(super) fn holds_now(
        &mut self,
        entry: &PageEntry,
        offset: u64,
    ) -> Result<bool, TargetError> {
        self.agrees(entry, offset, |target, buffer, place| target.read_current_at(buffer, place))
    }

    /// Returns whether the target reads back an entry.
    pub(super) fn reads_back(
        &mut self,
        entry: &PageEntry,
        offset: u64,
    ) -> Result<bool, TargetError> {
        self.agrees(entry, offset, |target, buffer, place| {
            target.read_exact_at(buffer, place).map(|()| true)
        })
    }

    /// `read` fills a buffer, and returns whether there is anything.
    fn agrees(
        &mut self,
        entry: &PageEntry,
        offset: u64,
        read: impl Fn(&dyn Target, &mut [u8], u64) -> Result<bool, TargetError>,
    ) -> Result<bool, TargetError> {
        if let PageEntry::Data { len, id } = entry {
            self.buffer.resize(to_usize(*len), 0);
            let holds_something = read(self.target, &mut self.buffer, offset)?;
            return Ok(holds_something && ObjectKind::Data.chunk_id(&self.buffer) == *id);
        }
        let end = offset + entry.len();
        let mut place = offset;
        while place < end {
            let part = usize::try_from(end - place).unwrap_or(usize::MAX).min(READ_LEN);
            self.buffer.resize(part, 0);
            if !read(self.target, &mut self.buffer, place)? || !is_zero(&self.buffer) {
                return Ok(false);
            }
            place += part as u64;
        }
        Ok(true)
    }
}
