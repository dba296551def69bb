//! Takes files out of the stream, a window at a time, and looks their chunks up.

use std::ops::Range;

use super::memory::Memory;
use crate::error::Result;
use crate::format::{PageEntry, TreeEntry};
use crate::id::ChunkId;
use crate::index::Location;
use crate::store::Store;
use crate::vfs::ALIGNMENT;

/// Chunks that are looked up at once.
const LOOKUP_COUNT: usize = 4096;

/// Files that are worked on together, by one thread.
pub(super) struct Window {
    pub(super) entries: Vec<TreeEntry>,
    /// One for each data entry of each file, in order.
    pub(super) locations: Vec<Option<Location>>,
    /// It is one file that memory has to be taken for, and was not looked up yet.
    pub(super) is_alone: bool,
}

impl Window {
    /// Returns each file and where its bytes are put in memory: each at the beginning of a block.
    pub(super) fn places(&self) -> impl Iterator<Item = (&TreeEntry, Range<usize>)> {
        self.entries.iter().scan(0, |start, entry| {
            let len = usize::try_from(entry.len()).expect("a window fits into memory");
            let range = *start..*start + len;
            *start = range.end.next_multiple_of(ALIGNMENT);
            Some((entry, range))
        })
    }
}

/// The stream of files.
pub(super) struct Feed<'a> {
    store: &'a Store,
    entries: &'a mut (dyn Iterator<Item = Result<TreeEntry>> + Send),
    /// Belongs to the next window.
    pending: Option<Result<TreeEntry>>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        store: &'a Store,
        entries: &'a mut (dyn Iterator<Item = Result<TreeEntry>> + Send),
    ) -> Self {
        Self { store, entries, pending: None }
    }

    /// Returns the next window, `None` at the end. After an error the rest can still be had.
    pub(super) fn next(&mut self) -> Result<Option<Window>> {
        let mut entries = Vec::new();
        let (mut end, mut chunk_count) = (0, 0);
        while let Some(next) = self.pending.take().or_else(|| self.entries.next()) {
            let entry = match next {
                Ok(entry) => entry,
                Err(error) if entries.is_empty() => return Err(error),
                Err(error) => {
                    self.pending = Some(Err(error));
                    break;
                }
            };
            let len = usize::try_from(entry.len()).unwrap_or(usize::MAX);
            let count = entry.content.len();
            let is_alone = Memory::FILE_LEN_MAX < len || Memory::WINDOW_CHUNKS_MAX < count;
            if is_alone && entries.is_empty() {
                return Ok(Some(Window { entries: vec![entry], locations: Vec::new(), is_alone }));
            }
            if is_alone
                || Memory::WINDOW_LEN < end + len
                || Memory::WINDOW_CHUNKS_MAX < chunk_count + count
                || Memory::WINDOW_FILES_MAX <= entries.len()
            {
                self.pending = Some(Ok(entry));
                break;
            }
            end = (end + len).next_multiple_of(ALIGNMENT);
            chunk_count += count;
            entries.push(entry);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let locations = self.locate(&entries)?;
        Ok(Some(Window { entries, locations, is_alone: false }))
    }

    /// Returns the window of one file.
    pub(super) fn window_of(&self, entry: TreeEntry) -> Result<Window> {
        let entries = vec![entry];
        let locations = self.locate(&entries)?;
        Ok(Window { entries, locations, is_alone: true })
    }

    /// Lookups take turns, as those who call hold the lock of the feed: each has a cache of its own.
    fn locate(&self, entries: &[TreeEntry]) -> Result<Vec<Option<Location>>> {
        let ids: Vec<ChunkId> = entries
            .iter()
            .flat_map(|entry| &entry.content)
            .filter_map(|part| match part {
                PageEntry::Data { id, .. } => Some(*id),
                PageEntry::Zero { .. } => None,
            })
            .collect();
        let mut locations = Vec::with_capacity(ids.len());
        for ids in ids.chunks(LOOKUP_COUNT) {
            locations.extend(self.store.index().view(|view| view.locate(ids))?);
        }
        Ok(locations)
    }
}
