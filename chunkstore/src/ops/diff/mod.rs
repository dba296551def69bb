//! Diff: which bytes differ between two revisions, found out from their chunk lists alone.
//!
//! Spans to which both roots refer in the same way are skipped; only the pages of the others are read, and no data. So the
//! time is that of reading two roots and the pages that differ.
//!
//! Ranges are those of chunks: an upper bound of what differs. A chunk with one changed byte is reported whole; so is
//! one that is cut elsewhere although its bytes are the same, which happens where the two span lengths differ and
//! behind a change until the cuts meet again. Zero entries are compared by what they cover, wherever they begin. A zero entry
//! beside a data chunk counts as a difference as far as they overlap, although the chunk may have zeros there, too. Bytes that only
//! the longer image has are a difference, zeros or not.

mod segments;

use std::ops::Range;
use std::rc::Rc;

use self::segments::{Content, Segment, Segments};
use crate::chunk_reader::ChunkReader;
use crate::damage::chunk_of;
use crate::error::{Error, Result};
use crate::id::RevisionId;
use crate::ops::healing::mark_lost;
use crate::pinned::Pinned;
use crate::progress::{Phase, Progress};
use crate::revision::Revision;
use crate::store::Store;

/// What was compared, and what was found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffStats {
    /// Bytes of the first image.
    pub old_size: u64,
    /// Bytes of the second one.
    pub new_size: u64,
    /// Ranges that were returned.
    pub range_count: u64,
    /// Bytes in these ranges.
    pub changed_bytes: u64,
    /// Pages that were read, of both images.
    pub page_count: u64,
}

/// The ranges that may differ between two revisions: ascending, with equal bytes between any two of them.
///
/// They are found while this iterator is advanced; memory does not depend on how many there are. After an error there are no more.
/// Both revisions are kept from purges until it is dropped.
pub struct Diff<'a> {
    store: Store,
    progress: &'a dyn Progress,
    old: Side,
    new: Side,
    position: u64,
    /// Where the shorter image ends.
    common_end: u64,
    /// Where the longer one does.
    end: u64,
    is_over: bool,
    stats: DiffStats,
    _pinned: Pinned,
}

/// One of the images.
struct Side {
    segments: Segments,
    current: Segment,
}

/// Compares two revisions.
///
/// # Errors
///
/// - [`Error::NoSuchRevision`].
/// - [`Error::Damaged`] or [`Error::Missing`] with the id of the root or page that cannot be read. The iterator returns those of pages.
/// - [`Error::Storage`], [`Error::Cancelled`].
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use chunkstore::ops::{self, BackupOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let path = directory.path().join("disk.img");
/// let mut ids = Vec::new();
/// for content in [b"hello, disk", b"hello, disc"] {
///     std::fs::write(&path, content).unwrap();
///     let source = FileSource::open(&path)?;
///     ids.push(ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?.id);
/// }
/// let ranges = ops::diff(&store, &ids[0], &ids[1], &NoProgress)?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(ranges, [0..11]); // The whole chunk.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn diff<'a>(
    store: &Store,
    old: &RevisionId,
    new: &RevisionId,
    progress: &'a dyn Progress,
) -> Result<Diff<'a>> {
    let pinned = Pinned::new(store, &[*old, *new])?;
    let mut reader = ChunkReader::new(store);
    let mut read_root = |revision: &Revision| {
        let root = reader.read_root(&revision.record.root).map(Rc::new);
        root.or_else(|error| mark(store, error, progress))
    };
    let (old, new) = match &pinned.revisions[..] {
        [old, new] => (read_root(old)?, read_root(new)?),
        _ => return Err(Error::Bug { what: "other than two revisions were pinned".to_owned() }),
    };
    let (old_size, new_size) = (old.image_len, new.image_len);
    let common_end = old_size.min(new_size);
    progress.begin(Phase::Diff, Some(common_end));
    Ok(Diff {
        store: store.clone(),
        progress,
        old: Side::new(Segments::new(store, Rc::clone(&old), Rc::clone(&new))),
        new: Side::new(Segments::new(store, new, old)),
        position: 0,
        common_end,
        end: old_size.max(new_size),
        is_over: false,
        stats: DiffStats { old_size, new_size, ..DiffStats::default() },
        _pinned: pinned,
    })
}

impl Diff<'_> {
    /// Returns what was found so far; all once the iterator has ended.
    #[must_use]
    pub fn stats(&self) -> DiffStats {
        let page_count = self.old.segments.page_count + self.new.segments.page_count;
        DiffStats { page_count, ..self.stats }
    }

    /// Returns the next range that may differ, with its neighbours.
    fn find(&mut self) -> Result<Option<Range<u64>>> {
        let mut found: Option<Range<u64>> = None;
        while self.position < self.common_end {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (old, new) = (self.old.at(self.position)?, self.new.at(self.position)?);
            let end = old.range.end.min(new.range.end).min(self.common_end);
            let is_equal = match (&old.content, &new.content) {
                (Content::Zero, Content::Zero) | (Content::Shared, Content::Shared) => true,
                (Content::Chunk(_), Content::Chunk(_)) => old == new,
                _ => false,
            };
            if is_equal && found.is_some() {
                return Ok(found);
            }
            self.progress.advance(end - self.position);
            if !is_equal {
                found.get_or_insert(self.position..end).end = end;
            }
            self.position = end;
        }
        if self.position < self.end {
            found.get_or_insert(self.position..self.end).end = self.end;
            self.position = self.end;
        }
        Ok(found)
    }
}

/// Marks the revisions that a read error hits, and returns it.
fn mark<T>(store: &Store, error: Error, progress: &dyn Progress) -> Result<T> {
    mark_lost(store, &chunk_of(&error).into_iter().collect(), progress);
    Err(error)
}

impl Iterator for Diff<'_> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let found = self.find();
        if let Ok(Some(range)) = &found {
            self.stats.range_count += 1;
            self.stats.changed_bytes += range.end - range.start;
        } else {
            self.is_over = true;
            self.progress.end();
        }
        found.or_else(|error| mark(&self.store, error, self.progress)).transpose()
    }
}

impl std::fmt::Debug for Diff<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Diff").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Side {
    const fn new(segments: Segments) -> Self {
        Self { segments, current: Segment { range: 0..0, content: Content::Zero } }
    }

    /// Returns the segment with the byte at `position`, which never goes back and is before the end.
    fn at(&mut self, position: u64) -> Result<&Segment> {
        while self.current.range.end <= position {
            self.current = self
                .segments
                .next()?
                .ok_or_else(|| Error::Bug { what: "an image ends before its length".to_owned() })?;
        }
        Ok(&self.current)
    }
}
