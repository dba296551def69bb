//! Restore: write a revision to a target.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::findings::{DamagedChunk, Findings};
use crate::chunk_reader::{ChunkReader, to_usize};
use crate::chunking::is_zero;
use crate::error::{Error, Result};
use crate::format::{ObjectKind, PageEntry, SessionKind, SpanRef};
use crate::id::{ChunkId, RevisionId};
use crate::image_reader::{ImageReader, check_len, locate_entries};
use crate::index::Location;
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::store::Store;
use crate::target::{Target, TargetError};

/// Bytes that are read back and compared at once.
const READ_BACK_LEN: usize = 1 << 20;

/// Bytes of neighbouring chunks that are written at once.
const WRITE_LEN: usize = 1 << 20;

/// Why a restore failed. Errors of the store and of the target stay apart.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The revision could not be read.
    #[error(transparent)]
    Store(#[from] Error),
    /// The target could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Reads the target back and compares it with the revision.
    pub read_back: bool,
    /// Writes zeros where a chunk is damaged, and goes on; the ranges are in the statistics.
    pub keep_going: bool,
    /// Reads what the target holds and writes only what differs. Running it again goes on where it was interrupted.
    pub delta: bool,
    /// Threads that read and expand; as many as there are processors if `None`.
    pub threads: Option<NonZero<usize>>,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreStats {
    /// Size of the image in bytes.
    pub size: u64,
    /// Bytes that were written from chunks.
    pub written_bytes: u64,
    /// Bytes that the target held already; only with `delta`.
    pub kept_bytes: u64,
    /// Bytes that are zero: holes, or written zeros, as the target does it.
    pub zero_bytes: u64,
    /// What could not be read; only with `keep_going`.
    pub damaged: Vec<DamagedChunk>,
    /// How long it took.
    pub duration_milliseconds: u64,
}

/// Writes revision `id` to `target`; complete and durable when the call returns.
///
/// Every chunk is checked against its id before it is written.
///
/// # Errors
///
/// - [`RestoreError::Store`] with [`Error::NoSuchRevision`], or with the first chunk that is damaged unless
///   `keep_going` is set.
/// - [`RestoreError::Target`] if the target cannot hold or take the image.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions, RestoreOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
/// use chunkstore::target::{FileTarget, FileTargetOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let id = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?.id;
///
/// let path = directory.path().join("restored.img");
/// let target = FileTarget::open(&path, &FileTargetOptions::default())?;
/// ops::restore(&store, &id, &target, &RestoreOptions::default(), &NoProgress)?;
/// assert_eq!(std::fs::read(&path)?, b"hello, disk");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn restore(
    store: &Store,
    id: &RevisionId,
    target: &dyn Target,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> std::result::Result<RestoreStats, RestoreError> {
    let clock = &store.environment().clock;
    let started = clock.monotonic();
    for damage in store.index().reconcile()? {
        progress.note(&damage.to_string());
    }
    let image = ImageReader::open_as(store, id, SessionKind::Restore)?;
    target.prepare(image.len())?;
    let run = Run { store, image: &image, target, options, progress };
    progress.begin(Phase::Restore, Some(image.len()));
    let mut stats = run.write_spans()?;
    progress.end();
    if options.read_back {
        run.read_back(&stats)?;
    }
    target.finish()?;
    let elapsed = clock.monotonic().saturating_sub(started);
    stats.size = image.len();
    stats.duration_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Ok(stats)
}

struct Run<'a> {
    store: &'a Store,
    image: &'a ImageReader,
    target: &'a dyn Target,
    options: &'a RestoreOptions,
    progress: &'a dyn Progress,
}

#[derive(Default)]
struct Totals {
    written_bytes: u64,
    kept_bytes: u64,
    zero_bytes: u64,
    findings: Findings,
}

impl Run<'_> {
    fn write_spans(&self) -> std::result::Result<RestoreStats, RestoreError> {
        let span_count = self.image.root().spans.len();
        // What must come in order is written by one thread.
        let in_order = self.target.is_sequential().then_some(NonZero::<usize>::MIN);
        let threads = in_order.or(self.options.threads);
        let next = AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        let totals = Mutex::new(Totals::default());
        let work = || -> std::result::Result<(), RestoreError> {
            let mut worker = Worker::new(self);
            while !is_over.load(Ordering::Relaxed) {
                let span = next.fetch_add(1, Ordering::Relaxed);
                if span_count <= span {
                    break;
                }
                worker.write_span(span)?;
            }
            let mut totals = totals.lock().expect("no holder of this lock panics");
            totals.written_bytes += worker.totals.written_bytes;
            totals.kept_bytes += worker.totals.kept_bytes;
            totals.zero_bytes += worker.totals.zero_bytes;
            totals.findings.merge(worker.totals.findings);
            Ok(())
        };
        let work = || work().inspect_err(|_| is_over.store(true, Ordering::Relaxed));
        on_threads(threads, span_count, work)
            .into_iter()
            .collect::<std::result::Result<(), _>>()?;
        let totals = totals.into_inner().expect("no holder of this lock panics");
        Ok(RestoreStats {
            written_bytes: totals.written_bytes,
            kept_bytes: totals.kept_bytes,
            zero_bytes: totals.zero_bytes,
            damaged: totals.findings.into_damaged(),
            ..RestoreStats::default()
        })
    }

    /// Compares what the target holds now with the revision, except where it could not be read.
    fn read_back(&self, stats: &RestoreStats) -> std::result::Result<(), RestoreError> {
        self.progress.begin(Phase::ReadBack, Some(self.image.len()));
        let (mut expected, mut found) = (vec![0; READ_BACK_LEN], vec![0; READ_BACK_LEN]);
        let mut lost: Vec<(u64, u64)> = stats
            .damaged
            .iter()
            .flat_map(|chunk| &chunk.revisions)
            .flat_map(|revision| revision.ranges.iter().copied())
            .collect();
        lost.sort_unstable();
        let mut lost = lost.into_iter().peekable();
        let mut offset = 0;
        while offset < self.image.len() {
            if self.progress.is_cancelled() {
                return Err(RestoreError::Store(Error::Cancelled));
            }
            let len = (self.image.len() - offset).min(READ_BACK_LEN as u64);
            let window = usize::try_from(len).expect("a window fits into memory");
            while lost.next_if(|(start, len)| start.saturating_add(*len) <= offset).is_some() {}
            let is_lost = lost.peek().is_some_and(|(start, _)| *start < offset + len);
            if !is_lost {
                self.image.read_exact_at(&mut expected[..window], offset)?;
                self.target.read_exact_at(&mut found[..window], offset)?;
                if expected[..window] != found[..window] {
                    let name = self.target.name().to_owned();
                    return Err(RestoreError::Target(TargetError::ReadBack { name, offset }));
                }
            }
            self.progress.advance(len);
            offset += len;
        }
        self.progress.end();
        Ok(())
    }
}

struct Worker<'a> {
    run: &'a Run<'a>,
    reader: ChunkReader,
    plain: Vec<u8>,
    /// What the target holds at the place of the chunk at hand.
    current: Vec<u8>,
    /// Bytes of neighbouring chunks that are not written yet, and where they belong.
    pending: Vec<u8>,
    pending_offset: u64,
    totals: Totals,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        Self {
            run,
            reader: ChunkReader::new(run.store),
            plain: Vec::new(),
            current: Vec::new(),
            pending: Vec::new(),
            pending_offset: 0,
            totals: Totals::default(),
        }
    }

    fn write_span(&mut self, span: usize) -> std::result::Result<(), RestoreError> {
        let root = self.run.image.root();
        let range = root.span_range(span);
        let len = range.end - range.start;
        let entries = match &root.spans[span] {
            SpanRef::Zero => vec![PageEntry::Zero { len }],
            SpanRef::Page(id) => match self.reader.read_page(id, None, len) {
                Ok(page) => page.entries,
                Err(error) => {
                    self.note_lost(*id, error, range.start, len)?;
                    vec![PageEntry::Zero { len }]
                }
            },
        };
        let locations = locate_entries(self.run.store, &entries)?;
        let mut offset = range.start;
        for (entry, location) in entries.iter().zip(locations) {
            if self.run.progress.is_cancelled() {
                return Err(RestoreError::Store(Error::Cancelled));
            }
            self.write_entry(entry, location, offset)?;
            offset += entry.len();
            self.run.progress.advance(entry.len());
        }
        self.flush()
    }

    fn write_entry(
        &mut self,
        entry: &PageEntry,
        location: Option<Location>,
        offset: u64,
    ) -> std::result::Result<(), RestoreError> {
        let len = entry.len();
        if let PageEntry::Data { id, len: chunk_len } = entry {
            if self.run.options.delta && self.target_holds(id, to_usize(*chunk_len), offset)? {
                self.totals.kept_bytes += len;
                return Ok(());
            }
            let read = self.reader.read(ObjectKind::Data, id, location, &mut self.plain);
            let read = read.and_then(|()| check_len(id, self.plain.len(), len));
            match read {
                Ok(()) => {
                    self.totals.written_bytes += len;
                    return self.write_plain(offset);
                }
                Err(error) => self.note_lost(*id, error, offset, len)?,
            }
        }
        self.flush()?;
        self.totals.zero_bytes += len;
        if self.run.options.delta && !self.run.target.makes_holes() {
            return self.zero_what_is_not(offset, len);
        }
        Ok(self.run.target.zero_at(offset, len)?)
    }

    /// Returns whether the target holds a chunk at its place already.
    fn target_holds(
        &mut self,
        id: &ChunkId,
        len: usize,
        offset: u64,
    ) -> std::result::Result<bool, RestoreError> {
        self.current.resize(len, 0);
        let holds_something = self.run.target.read_current_at(&mut self.current, offset)?;
        Ok(holds_something && ObjectKind::Data.chunk_id(&self.current) == *id)
    }

    /// Writes zeros where the target holds anything else.
    fn zero_what_is_not(&mut self, offset: u64, len: u64) -> std::result::Result<(), RestoreError> {
        let end = offset + len;
        let mut place = offset;
        while place < end {
            if self.run.progress.is_cancelled() {
                return Err(RestoreError::Store(Error::Cancelled));
            }
            let part = (end - place).min(WRITE_LEN as u64);
            self.current.resize(usize::try_from(part).expect("it is at most a window"), 0);
            let holds_something = self.run.target.read_current_at(&mut self.current, place)?;
            if !holds_something || !is_zero(&self.current) {
                self.run.target.zero_at(place, part)?;
            }
            place += part;
        }
        Ok(())
    }

    /// Takes the chunk that was just read; writes it together with its neighbours.
    fn write_plain(&mut self, offset: u64) -> std::result::Result<(), RestoreError> {
        let is_neighbour = self.pending_offset + self.pending.len() as u64 == offset;
        if !is_neighbour || WRITE_LEN < self.pending.len() + self.plain.len() {
            self.flush()?;
        }
        if WRITE_LEN <= self.plain.len() {
            return Ok(self.run.target.write_all_at(&self.plain, offset)?);
        }
        if self.pending.is_empty() {
            self.pending_offset = offset;
        }
        self.pending.extend_from_slice(&self.plain);
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), RestoreError> {
        if !self.pending.is_empty() {
            self.run.target.write_all_at(&self.pending, self.pending_offset)?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Notes a range that cannot be had, or ends the restore with the reason.
    fn note_lost(&mut self, chunk: ChunkId, error: Error, offset: u64, len: u64) -> Result<()> {
        if !self.run.options.keep_going || matches!(error, Error::Cancelled) {
            return Err(error);
        }
        let revision = self.run.image.revision().record.id;
        self.totals.findings.add(chunk, &error);
        self.totals.findings.add_range(&chunk, revision, offset, len);
        Ok(())
    }
}
