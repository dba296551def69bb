//! Reads any range of a revision: what NBD, restore and other programs build on.
//!
//! A read looks up the page of a span and in it the chunks; both come from a [`ChunkCache`], which all readers of a process may
//! share, or from the packs. Invariant: every byte that is given out was hashed after it was read from the store.

mod allocation;
mod changes;
mod chunk_cache;
mod lost;
mod page;
mod prefetch;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::allocation::Allocation;
pub use self::changes::Run;
pub use self::chunk_cache::ChunkCache;

use self::lost::Lost;
use self::page::{Piece, SpanPage};
use crate::cache::Entry;
use crate::chunk_reader::ChunkReader;
use crate::damage::chunk_of;
use crate::error::{Error, ObjectName, Result};
use crate::format::{FormatError, ObjectKind, PageEntry, RevisionKind, Root, SessionKind, SpanRef};
use crate::id::{ChunkId, RevisionId};
use crate::index::Location;
use crate::revision::Revision;
use crate::session::Session;
use crate::store::Store;

/// A part of an image as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A chunk, or the part of it that was asked for.
    Data {
        /// Bytes of the image.
        range: Range<u64>,
        /// The chunk.
        id: ChunkId,
    },
    /// Zeros that take no chunk.
    Zero {
        /// Bytes of the image.
        range: Range<u64>,
    },
}

/// An open revision. It pins what it reads: `forget` and `purge` may run, the reader reads on.
///
/// Reads may come from several threads. Every byte is checked against the id of its chunk.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::image_reader::ImageReader;
/// use chunkstore::ops::{self, BackupOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let options = BackupOptions::new("disk".parse()?);
/// let stats = ops::backup(&store, &source, &options, &NoProgress)?;
///
/// let reader = ImageReader::open(&store, &stats.id)?;
/// let mut bytes = [0; 4];
/// reader.read_exact_at(&mut bytes, 7)?;
/// assert_eq!(&bytes, b"disk");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ImageReader {
    store: Store,
    revision: Revision,
    root: Root,
    /// Keeps purge away from the chunks.
    _session: Option<Session>,
    cache: Arc<ChunkCache>,
    /// Whether a read has compared the index with the packs, because a chunk in quarantine has no place.
    has_compared: AtomicBool,
    lost: Lost,
}

impl ImageReader {
    /// Opens a revision with a cache of its own, of [`ChunkCache::BYTE_LEN_DEFAULT`]. Reads its root only.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchRevision`], also if it was forgotten at this moment.
    /// - [`Error::Damaged`] or [`Error::Missing`] if its record or root is.
    pub fn open(store: &Store, id: &RevisionId) -> Result<Self> {
        Self::open_as(store, id, SessionKind::Export)
    }

    /// Opens a revision, like [`Self::open`], with a cache that other readers of this store use, too.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; [`Error::InvalidOption`] if the cache was used for another store.
    pub fn open_with_cache(store: &Store, id: &RevisionId, cache: Arc<ChunkCache>) -> Result<Self> {
        Self::open_in(store, id, SessionKind::Export, cache)
    }

    pub(crate) fn open_as(store: &Store, id: &RevisionId, kind: SessionKind) -> Result<Self> {
        Self::open_in(store, id, kind, Arc::new(ChunkCache::new(ChunkCache::BYTE_LEN_DEFAULT)))
    }

    fn open_in(
        store: &Store,
        id: &RevisionId,
        kind: SessionKind,
        cache: Arc<ChunkCache>,
    ) -> Result<Self> {
        cache.belong_to(&store.id())?;
        let revision = store.revision(id)?;
        let session = store.begin_reading_session(kind, vec![revision.record.root])?;
        // Purge reads revisions first and pins second. If the record is still there now, one of the two
        // is seen by every purge; if not, a purge may be ahead of the pin.
        store.revision(id)?;
        if revision.record.kind != RevisionKind::Image {
            let what = format!("revision {id} is a tree of files, not an image");
            return Err(Error::InvalidOption { what });
        }
        let root = ChunkReader::new(store).read_root(&revision.record.root);
        let root = root.inspect_err(|error| {
            let lost = Lost::default();
            chunk_of(error).into_iter().for_each(|chunk| lost.note(chunk));
            lost.mark_all(store);
        })?;
        if root.image_len != revision.record.size {
            let object = ObjectName::Revision { source: revision.record.source, id: *id };
            let source = FormatError::Inconsistent { what: "its root is of another size" };
            return Err(Error::Damaged { object, source });
        }
        Ok(Self {
            store: store.clone(),
            revision,
            root,
            _session: session,
            cache,
            has_compared: AtomicBool::new(false),
            lost: Lost::default(),
        })
    }

    /// Returns the revision that is read.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Returns the size of the image in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.root.image_len
    }

    /// Returns whether the image has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.image_len == 0
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Fills `buffer` with the bytes of the image at `offset`.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if the range does not lie in the image.
    /// - [`Error::Damaged`] or [`Error::Missing`], naming the chunk; `buffer` then holds nothing of use. The revisions that need the
    ///   chunk are marked before the call returns, or soon after by another one.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let range = self.check_range(offset, buffer.len() as u64)?;
        self.marking(|| {
            let mut rest = buffer;
            for (span, part) in self.parts_of(&range) {
                let SpanRef::Page(id) = &self.root.spans[span] else {
                    take(&mut rest, &part)?.fill(0);
                    continue;
                };
                let page = self.page(span, id)?;
                for piece in page.value.pieces(part) {
                    let target = take(&mut rest, &piece.part)?;
                    match &piece.chunk {
                        None => target.fill(0),
                        Some(id) => {
                            let chunk = self.chunk(&page.value, id, &piece)?;
                            target.copy_from_slice(part_of(&chunk, &piece)?);
                        }
                    }
                }
            }
            debug_assert!(rest.is_empty(), "pages cover their spans");
            Ok(())
        })
    }

    /// Fills `buffer` with the bytes of the image at `offset` and returns `true`, if that takes neither reading, nor expanding, nor
    /// waiting for another thread that does. Returns `false` otherwise, at once; `buffer` is then as it was.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if the range does not lie in the image.
    pub fn try_read_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        let range = self.check_range(offset, buffer.len() as u64)?;
        let mut found = Vec::new();
        for (span, part) in self.parts_of(&range) {
            let SpanRef::Page(id) = &self.root.spans[span] else {
                found.push((part, None));
                continue;
            };
            let Some(page) = self.cache.pages.get(id) else { return Ok(false) };
            if self.check_page(span, id, &page.value).is_err() {
                return Ok(false);
            }
            for piece in page.value.pieces(part) {
                let chunk = piece.chunk.as_ref().map(|id| self.cache.chunks.get(id));
                match chunk {
                    None => found.push((piece.part, None)),
                    Some(Some(chunk)) if part_of(&chunk, &piece).is_ok() => {
                        found.push((piece.part.clone(), Some((chunk, piece))));
                    }
                    Some(_) => return Ok(false),
                }
            }
        }
        let mut rest = buffer;
        for (part, chunk) in found {
            let target = take(&mut rest, &part)?;
            match chunk {
                None => target.fill(0),
                Some((chunk, piece)) => target.copy_from_slice(part_of(&chunk, &piece)?),
            }
        }
        Ok(true)
    }

    /// Returns what lies in `len` bytes at `offset`, in order; neighbouring zeros are one extent.
    ///
    /// # Errors
    ///
    /// As [`Self::read_exact_at`], but only pages are read.
    pub fn extents(&self, offset: u64, len: u64) -> Result<Vec<Extent>> {
        let range = self.check_range(offset, len)?;
        let mut extents: Vec<Extent> = Vec::new();
        let mut add = |range: Range<u64>, chunk: Option<ChunkId>| match (chunk, extents.last_mut())
        {
            (Some(id), _) => extents.push(Extent::Data { range, id }),
            (None, Some(Extent::Zero { range: last })) => last.end = range.end,
            (None, _) => extents.push(Extent::Zero { range }),
        };
        self.marking(|| {
            for (span, part) in self.parts_of(&range) {
                let start = self.root.span_range(span).start;
                match &self.root.spans[span] {
                    SpanRef::Zero => add(start + part.start..start + part.end, None),
                    SpanRef::Page(id) => {
                        for Piece { part, chunk, .. } in self.page(span, id)?.value.pieces(part) {
                            add(start + part.start..start + part.end, chunk);
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(extents)
    }

    fn check_range(&self, offset: u64, len: u64) -> Result<Range<u64>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(offset..end),
            _ => Err(Error::InvalidOption {
                what: format!("{len} bytes at byte {offset} of an image of {} bytes", self.len()),
            }),
        }
    }

    /// Returns the spans that a range of the image touches, with the parts of them, counted from their starts.
    fn parts_of(&self, range: &Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> {
        let spans = if range.is_empty() {
            0..0
        } else {
            self.span_index(range.start)..self.span_index(range.end - 1) + 1
        };
        let range = range.clone();
        spans.map(move |index| {
            let span = self.root.span_range(index);
            let part = span.start.max(range.start)..span.end.min(range.end);
            (index, part.start - span.start..part.end - span.start)
        })
    }

    /// Returns the span with a byte of the image.
    fn span_index(&self, offset: u64) -> usize {
        usize::try_from(offset / self.root.span_len).expect("a root has at most 2^18 spans")
    }

    /// Returns a page from the cache or the store.
    fn page(&self, span: usize, id: &ChunkId) -> Result<Arc<Entry<SpanPage>>> {
        let range = self.root.span_range(span);
        let page = self.cache.pages.get_or_load(id, || {
            let location = self.store.index().locate_often(&[*id])?.into_iter().next().flatten();
            let span_len = range.end - range.start;
            let read = |reader: &mut ChunkReader| reader.read_page(id, location, span_len);
            let page = SpanPage::new(&self.with_reader(read)?);
            let byte_len = page.byte_len();
            Ok((page, byte_len))
        })?;
        self.check_page(span, id, &page.value)?;
        Ok(page)
    }

    /// Refuses a page of another length: another image may have it in its place.
    fn check_page(&self, span: usize, id: &ChunkId, page: &SpanPage) -> Result<()> {
        let range = self.root.span_range(span);
        if page.len() == range.end - range.start {
            return Ok(());
        }
        let source = FormatError::Inconsistent { what: "the page covers another length" };
        Err(Error::Damaged { object: ObjectName::Chunk { id: *id, pack: None }, source })
    }

    /// Returns a chunk from the cache or the store.
    fn chunk(&self, page: &SpanPage, id: &ChunkId, piece: &Piece) -> Result<Arc<Entry<Vec<u8>>>> {
        self.cache.chunks.get_or_load(id, || self.load_chunk(page, id, piece.index))
    }

    fn load_chunk(&self, page: &SpanPage, id: &ChunkId, index: usize) -> Result<(Vec<u8>, usize)> {
        let location = page.location(&self.store, index)?;
        let mut plain = Vec::new();
        self.with_reader(|reader| {
            let result = reader.read(ObjectKind::Data, id, location, &mut plain);
            if reader.has_strayed() {
                page.forget_places(index);
            }
            result
        })?;
        let byte_len = plain.capacity();
        Ok((plain, byte_len))
    }

    fn with_reader<R>(&self, run: impl FnOnce(&mut ChunkReader) -> Result<R>) -> Result<R> {
        let has_compared = self.has_compared.load(Ordering::Relaxed);
        let buffers = self.cache.take_buffers();
        let mut reader = ChunkReader::with_buffers(&self.store, buffers, has_compared);
        let result = run(&mut reader);
        if let Some(chunk) = result.as_ref().err().and_then(chunk_of) {
            self.lost.note(chunk);
        }
        if reader.has_compared() {
            self.has_compared.store(true, Ordering::Relaxed);
        }
        self.cache.give_back(reader.into_buffers());
        result
    }

    /// Reads; if that fails, marks the revisions that need what could not be read.
    fn marking<R>(&self, read: impl FnOnce() -> Result<R>) -> Result<R> {
        read().inspect_err(|_| self.lost.mark(&self.store))
    }
}

impl Drop for ImageReader {
    fn drop(&mut self) {
        self.lost.mark_all(&self.store);
    }
}

/// Takes from a buffer what a part of the image fills.
fn take<'a>(rest: &mut &'a mut [u8], part: &Range<u64>) -> Result<&'a mut [u8]> {
    let len = memory_len(part.end - part.start)?;
    rest.split_off_mut(..len)
        .ok_or_else(|| Error::Bug { what: "pages cover more than their spans".to_owned() })
}

/// Returns the bytes of a piece.
fn part_of<'a>(chunk: &'a Entry<Vec<u8>>, piece: &Piece) -> Result<&'a [u8]> {
    let Piece { entry, part, chunk: id, .. } = piece;
    let plain = &chunk.value;
    if let Some(id) = id {
        check_len(id, plain.len(), entry.end - entry.start)?;
    }
    Ok(&plain[memory_len(part.start - entry.start)?..memory_len(part.end - entry.start)?])
}

/// A page says how long each of its chunks is; one of another length would shift all that follows.
pub(crate) fn check_len(id: &ChunkId, found: usize, expected: u64) -> Result<()> {
    if found as u64 == expected {
        return Ok(());
    }
    let source = FormatError::Inconsistent { what: "its page says another length" };
    Err(Error::Damaged { object: ObjectName::Chunk { id: *id, pack: None }, source })
}

/// Looks up the data entries of a page at once.
pub(crate) fn locate_entries(
    store: &Store,
    entries: &[PageEntry],
) -> Result<Vec<Option<Location>>> {
    let ids: Vec<ChunkId> = entries
        .iter()
        .filter_map(|entry| match entry {
            PageEntry::Data { id, .. } => Some(*id),
            PageEntry::Zero { .. } => None,
        })
        .collect();
    let found =
        if ids.is_empty() { Vec::new() } else { store.index().view(|view| view.locate(&ids))? };
    let mut found = found.into_iter();
    let place = |entry: &PageEntry| match entry {
        PageEntry::Data { .. } => found.next().flatten(),
        PageEntry::Zero { .. } => None,
    };
    Ok(entries.iter().map(place).collect())
}

fn memory_len(len: u64) -> Result<usize> {
    usize::try_from(len).map_err(|_| Error::Bug { what: format!("{len} bytes at once") })
}
