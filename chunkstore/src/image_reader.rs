//! Reads any range of a revision: what NBD, restore and other programs build on.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::chunk_reader::ChunkReader;
use crate::damage::chunk_of;
use crate::error::{Error, ObjectName, Result};
use crate::format::{FormatError, ObjectKind, PageEntry, Root, SessionKind, SpanRef};
use crate::id::{ChunkId, RevisionId};
use crate::index::Location;
use crate::revision::Revision;
use crate::session::Session;
use crate::store::Store;

/// Pages of the chunk list that a reader keeps decoded.
const PAGES_KEPT: usize = 8;

/// Entries of these pages, beyond the page at hand: pages of a store with small chunks are long.
const ENTRIES_KEPT: usize = 1 << 18;

/// Neighbouring entries whose places are looked up together.
const LOCATED_TOGETHER: usize = 64;

/// Plain bytes of chunks that a reader keeps.
const CHUNK_BYTES_KEPT: usize = 32 << 20;

/// Chunks that a reader keeps, however short they are.
const CHUNKS_KEPT: usize = 4096;

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

/// Entries of one span. Their places are looked up when they are needed: a read of one block does not wait until all
/// chunks of 64 MiB are found.
#[derive(Debug)]
struct PlacedPage {
    /// Start in the image and entry, ascending.
    entries: Vec<(u64, PageEntry)>,
    /// Where the data entries are, for [`LOCATED_TOGETHER`] entries each.
    locations: Vec<OnceLock<Vec<Option<Location>>>>,
}

impl PlacedPage {
    fn new(start: u64, entries: Vec<PageEntry>) -> Self {
        let mut start = start;
        let placed = entries.into_iter().map(|entry| {
            let placed = (start, entry);
            start += entry.len();
            placed
        });
        let entries: Vec<(u64, PageEntry)> = placed.collect();
        let groups = entries.len().div_ceil(LOCATED_TOGETHER);
        Self { entries, locations: (0..groups).map(|_| OnceLock::new()).collect() }
    }

    /// Returns where the chunk of an entry is, with what was found out before.
    fn location(&self, store: &Store, index: usize) -> Result<Option<Location>> {
        let (group, place) = (index / LOCATED_TOGETHER, index % LOCATED_TOGETHER);
        let known = &self.locations[group];
        if known.get().is_none() {
            let first = group * LOCATED_TOGETHER;
            let last = (first + LOCATED_TOGETHER).min(self.entries.len());
            let entries: Vec<PageEntry> =
                self.entries[first..last].iter().map(|(_, entry)| *entry).collect();
            // Another thread may have been faster; its answer is as good.
            let _was_first = known.set(locate_entries(store, &entries)?);
        }
        Ok(known.get().and_then(|locations| locations[place]))
    }
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
    readers: Mutex<Vec<ChunkReader>>,
    pages: Mutex<VecDeque<(usize, Arc<PlacedPage>)>>,
    chunks: Mutex<ChunkCache>,
    /// What could not be read. The revisions that need it are marked at the end: a client does not wait for that.
    lost: Mutex<HashSet<ChunkId>>,
}

impl ImageReader {
    /// Opens a revision. Reads its root only.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchRevision`], also if it was forgotten at this moment.
    /// - [`Error::Damaged`] or [`Error::Missing`] if its record or root is.
    pub fn open(store: &Store, id: &RevisionId) -> Result<Self> {
        Self::open_as(store, id, SessionKind::Export)
    }

    pub(crate) fn open_as(store: &Store, id: &RevisionId, kind: SessionKind) -> Result<Self> {
        let revision = store.revision(id)?;
        let session = store.begin_reading_session(kind, vec![revision.record.root])?;
        // Purge reads revisions first and pins second. If the record is still there now, one of the two
        // is seen by every purge; if not, a purge may be ahead of the pin.
        store.revision(id)?;
        let mut reader = ChunkReader::new(store);
        let root = reader.read_root(&revision.record.root).inspect_err(|error| {
            mark_lost(store, &chunk_of(error).into_iter().collect());
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
            readers: Mutex::new(vec![reader]),
            pages: Mutex::default(),
            chunks: Mutex::default(),
            lost: Mutex::default(),
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
    /// - [`Error::Damaged`] or [`Error::Missing`], naming the chunk; `buffer` then holds nothing of use.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let range = self.check_range(offset, buffer.len() as u64)?;
        let mut filled = 0;
        for span in self.spans_of(&range) {
            let page = self.page(span)?;
            let first =
                page.entries.partition_point(|(start, entry)| start + entry.len() <= range.start);
            for (index, (start, entry)) in page.entries.iter().enumerate().skip(first) {
                let part = (*start).max(range.start)..(start + entry.len()).min(range.end);
                if part.end <= part.start {
                    break;
                }
                let len = memory_len(part.end - part.start)?;
                let target = &mut buffer[filled..filled + len];
                match entry {
                    PageEntry::Zero { .. } => target.fill(0),
                    PageEntry::Data { id, .. } => {
                        let chunk = self.chunk(id, || page.location(&self.store, index))?;
                        check_len(id, chunk.len(), entry.len())?;
                        let from = memory_len(part.start - start)?;
                        target.copy_from_slice(&chunk[from..from + len]);
                    }
                }
                filled += len;
            }
        }
        debug_assert_eq!(filled, buffer.len(), "pages cover their spans");
        Ok(())
    }

    /// Returns what lies in `len` bytes at `offset`, in order; neighbouring zeros are one extent.
    ///
    /// # Errors
    ///
    /// As [`Self::read_exact_at`], but only pages are read.
    pub fn extents(&self, offset: u64, len: u64) -> Result<Vec<Extent>> {
        let range = self.check_range(offset, len)?;
        let mut extents: Vec<Extent> = Vec::new();
        for span in self.spans_of(&range) {
            for (start, entry) in &self.page(span)?.entries {
                let part = (*start).max(range.start)..(start + entry.len()).min(range.end);
                if part.end <= part.start {
                    continue;
                }
                match (entry, extents.last_mut()) {
                    (PageEntry::Data { id, .. }, _) => {
                        extents.push(Extent::Data { range: part, id: *id });
                    }
                    (PageEntry::Zero { .. }, Some(Extent::Zero { range: last })) => {
                        last.end = part.end;
                    }
                    (PageEntry::Zero { .. }, _) => extents.push(Extent::Zero { range: part }),
                }
            }
        }
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

    fn spans_of(&self, range: &Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let span = |offset: u64| {
            usize::try_from(offset / self.root.span_len).expect("a root has at most 2^18 spans")
        };
        span(range.start)..span(range.end - 1) + 1
    }

    /// Returns a page from the cache or the store.
    fn page(&self, span: usize) -> Result<Arc<PlacedPage>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = pages.iter().position(|(known, _)| *known == span) {
            let page = pages.remove(found).expect("the position was just found");
            pages.push_back(page.clone());
            return Ok(page.1);
        }
        drop(pages);
        let page = Arc::new(self.load_page(span)?);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = |pages: &VecDeque<(usize, Arc<PlacedPage>)>| {
            pages.iter().map(|(_, page)| page.entries.len()).sum::<usize>()
        };
        while PAGES_KEPT <= pages.len()
            || (!pages.is_empty() && ENTRIES_KEPT < entries(&pages) + page.entries.len())
        {
            pages.pop_front();
        }
        pages.push_back((span, Arc::clone(&page)));
        Ok(page)
    }

    fn load_page(&self, span: usize) -> Result<PlacedPage> {
        let range = self.root.span_range(span);
        let entries = match &self.root.spans[span] {
            SpanRef::Zero => vec![PageEntry::Zero { len: range.end - range.start }],
            SpanRef::Page(id) => {
                self.with_reader(|reader| reader.read_page(id, None, range.end - range.start))?
                    .entries
            }
        };
        Ok(PlacedPage::new(range.start, entries))
    }

    fn chunk(
        &self,
        id: &ChunkId,
        locate: impl FnOnce() -> Result<Option<Location>>,
    ) -> Result<Arc<Vec<u8>>> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = chunks.get(id) {
            return Ok(chunk);
        }
        drop(chunks);
        let location = locate()?;
        let mut plain = Vec::new();
        self.with_reader(|reader| reader.read(ObjectKind::Data, id, location, &mut plain))?;
        let chunk = Arc::new(plain);
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.insert(*id, Arc::clone(&chunk));
        Ok(chunk)
    }

    fn with_reader<R>(&self, run: impl FnOnce(&mut ChunkReader) -> Result<R>) -> Result<R> {
        let spare = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = spare.unwrap_or_else(|| ChunkReader::new(&self.store));
        let result = run(&mut reader);
        if let Some(chunk) = result.as_ref().err().and_then(chunk_of) {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk);
        }
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        result
    }
}

impl Drop for ImageReader {
    fn drop(&mut self) {
        mark_lost(&self.store, self.lost.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Marks the revisions that need what could not be read. Best effort: who reads has the error, and a verification finds out
/// again what could not be noted.
fn mark_lost(store: &Store, lost: &HashSet<ChunkId>) {
    if !lost.is_empty() {
        let _noted_if_possible = store.mark_hit(lost);
    }
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

/// Chunks that were read last, at most [`CHUNK_BYTES_KEPT`] bytes of them.
#[derive(Debug, Default)]
struct ChunkCache {
    chunks: VecDeque<(ChunkId, Arc<Vec<u8>>)>,
    len: usize,
}

impl ChunkCache {
    fn get(&mut self, id: &ChunkId) -> Option<Arc<Vec<u8>>> {
        let found = self.chunks.iter().position(|(known, _)| known == id)?;
        let entry = self.chunks.remove(found)?;
        let chunk = Arc::clone(&entry.1);
        self.chunks.push_back(entry);
        Some(chunk)
    }

    fn insert(&mut self, id: ChunkId, chunk: Arc<Vec<u8>>) {
        self.len += chunk.len();
        self.chunks.push_back((id, chunk));
        while (CHUNK_BYTES_KEPT < self.len || CHUNKS_KEPT < self.chunks.len())
            && let Some((_, oldest)) = self.chunks.pop_front()
        {
            self.len -= oldest.len();
        }
    }
}

fn memory_len(len: u64) -> Result<usize> {
    usize::try_from(len).map_err(|_| Error::Bug { what: format!("{len} bytes at once") })
}
