//! Restore: write a revision to a target.
//!
//! A target that takes bytes in any order gets them in the order in which the store has them: as many spans as fit into a
//! [`plan`] are surveyed, then their chunks are read pack by pack. A stream gets them in the order of the
//! image. In both cases several threads work, and every chunk is checked against its id before it is written.

mod by_plan;
mod in_order;
mod memory;
mod plan;
mod read_back;
mod run_buffer;
mod survey;
mod target_check;
mod tree;

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::memory::Threads;
use self::target_check::TargetCheck;
pub use self::tree::{
    TreeProblem, TreeProblemReason, TreeRestoreOptions, TreeRestoreStats, TreeSetAside,
    restore_tree,
};
use super::findings::{DamagedChunk, Findings};
use super::healing::mark_lost;
use crate::chunk_reader::ChunkReader;
use crate::damage::chunk_of;
use crate::error::{Error, Result};
use crate::format::{PageEntry, SessionKind, SpanRef};
use crate::id::{ChunkId, RevisionId};
use crate::image_reader::ImageReader;
use crate::limits::SPAN_LEN_MIN;
use crate::ops::MEMORY_DEFAULT;
use crate::ops::page_bounds::PageBounds;
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::store::Store;
use crate::target::{Target, TargetError};

/// Result of a part of a restore.
type RestoreResult<T> = std::result::Result<T, RestoreError>;

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

impl RestoreError {
    const CANCELLED: Self = Self::Store(Error::Cancelled);
}

/// How to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Reads the target back and compares it with the revision.
    pub read_back: bool,
    /// Writes zeros where a chunk is damaged, and goes on; the ranges are in the statistics.
    pub keep_going: bool,
    /// Reads what the target holds, writes only what differs, and reads back what was written. Running it again goes on
    /// where it was interrupted.
    pub delta: bool,
    /// Threads that read and expand. If `None`, as many as there are processors, and twice as many to write: half of
    /// them wait for the target.
    pub threads: Option<NonZero<usize>>,
    /// Bytes of memory that all buffers share. Of the threads, only as many are started as this suffices for. The program itself and
    /// the allocator take more.
    pub memory: usize,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            read_back: false,
            keep_going: false,
            delta: false,
            threads: None,
            memory: MEMORY_DEFAULT,
        }
    }
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
) -> RestoreResult<RestoreStats> {
    let result = write_image(store, id, target, options, progress);
    let lost: HashSet<ChunkId> = match &result {
        Ok(stats) => stats.damaged.iter().map(|damage| damage.chunk).collect(),
        Err(RestoreError::Store(error)) => chunk_of(error).into_iter().collect(),
        Err(RestoreError::Target(_)) => HashSet::new(),
    };
    mark_lost(store, &lost, progress);
    result
}

fn write_image(
    store: &Store,
    id: &RevisionId,
    target: &dyn Target,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> RestoreResult<RestoreStats> {
    let clock = &store.environment().clock;
    let started = clock.monotonic();
    for damage in store.index().reconcile()? {
        progress.note(&damage.to_string());
    }
    let image = match ImageReader::open_as(store, id, SessionKind::Restore) {
        Err(error) if options.keep_going && error.is_damage() => {
            let mut stats = write_zeros(store, id, target, progress, &error)?;
            stats.duration_milliseconds = milliseconds_since(store, started);
            return Ok(stats);
        }
        other => other?,
    };
    let page = PageBounds::new(store.chunking(), image.root().span_len);
    let divide = if target.is_sequential() { Threads::for_stream } else { Threads::by_plan };
    let threads = divide(options.memory, options.threads, store.chunking(), page)?;
    target.prepare(image.len())?;
    let run = Run {
        store,
        image: &image,
        target,
        options,
        progress,
        threads,
        is_over: AtomicBool::new(false),
        totals: Totals::default(),
    };
    progress.begin(Phase::Restore, Some(image.len()));
    if target.is_sequential() {
        in_order::write(&run)?;
    } else {
        by_plan::write(&run)?;
    }
    progress.end();
    if options.read_back {
        run.read_back()?;
    }
    target.finish()?;
    let Totals { written_bytes, kept_bytes, zero_bytes, findings } = run.totals;
    Ok(RestoreStats {
        size: image.len(),
        written_bytes: written_bytes.into_inner(),
        kept_bytes: kept_bytes.into_inner(),
        zero_bytes: zero_bytes.into_inner(),
        damaged: findings.into_inner().unwrap_or_else(PoisonError::into_inner).into_damaged(),
        duration_milliseconds: milliseconds_since(store, started),
    })
}

fn milliseconds_since(store: &Store, started: Duration) -> u64 {
    let elapsed = store.environment().clock.monotonic().saturating_sub(started);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Writes an image of zeros, because the root cannot be read: then nobody knows what lies where.
fn write_zeros(
    store: &Store,
    id: &RevisionId,
    target: &dyn Target,
    progress: &dyn Progress,
    error: &Error,
) -> RestoreResult<RestoreStats> {
    // If the record is what is damaged, not even the size is known.
    let record = store.revision(id)?.record;
    target.prepare(record.size)?;
    progress.begin(Phase::Restore, Some(record.size));
    let mut place = 0;
    while place < record.size {
        if progress.is_cancelled() {
            return Err(RestoreError::CANCELLED);
        }
        let part = SPAN_LEN_MIN.min(record.size - place);
        target.zero_at(place, part)?;
        place += part;
        progress.advance(part);
    }
    progress.end();
    target.finish()?;
    let mut findings = Findings::default();
    findings.add(record.root, error);
    findings.add_range(&record.root, *id, 0, record.size);
    Ok(RestoreStats {
        size: record.size,
        zero_bytes: record.size,
        damaged: findings.into_damaged(),
        ..RestoreStats::default()
    })
}

/// What all threads of a restore share.
struct Run<'a> {
    store: &'a Store,
    image: &'a ImageReader,
    target: &'a dyn Target,
    options: &'a RestoreOptions,
    progress: &'a dyn Progress,
    threads: Threads,
    /// One of the threads has failed: the others may stop.
    is_over: AtomicBool,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    written_bytes: AtomicU64,
    kept_bytes: AtomicU64,
    zero_bytes: AtomicU64,
    findings: Mutex<Findings>,
}

impl Run<'_> {
    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.totals.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the thread that asks may go on, or an error if the caller wants it to stop.
    fn goes_on(&self) -> RestoreResult<bool> {
        if self.progress.is_cancelled() {
            return Err(RestoreError::CANCELLED);
        }
        Ok(!self.is_over.load(Ordering::Relaxed))
    }

    /// Runs the same work on `threads`, and returns the first error. When one of them has failed, the others stop.
    fn on_threads(
        &self,
        threads: NonZero<usize>,
        items: usize,
        work: impl Fn() -> RestoreResult<()> + Sync,
    ) -> RestoreResult<()> {
        let work = || work().inspect_err(|_| self.is_over.store(true, Ordering::Relaxed));
        on_threads(Some(threads), items, work).into_iter().collect()
    }

    /// Returns the entries of a span; zeros if its page cannot be read and that is no reason to stop.
    fn entries(&self, reader: &mut ChunkReader, span: usize) -> RestoreResult<Vec<PageEntry>> {
        let root = self.image.root();
        let range = root.span_range(span);
        let len = range.end - range.start;
        match &root.spans[span] {
            SpanRef::Zero => Ok(vec![PageEntry::Zero { len }]),
            SpanRef::Page(id) => match reader.read_page(id, None, len) {
                Ok(page) => Ok(page.entries),
                Err(error) => {
                    self.note_lost(*id, error, range.start, len)?;
                    Ok(vec![PageEntry::Zero { len }])
                }
            },
        }
    }

    /// Notes a range that cannot be had, or ends the restore with the reason.
    fn note_lost(&self, chunk: ChunkId, error: Error, offset: u64, len: u64) -> Result<()> {
        if !self.options.keep_going || matches!(error, Error::Cancelled) {
            return Err(error);
        }
        let revision = self.image.revision().record.id;
        let mut findings = self.findings();
        findings.add(chunk, &error);
        findings.add_range(&chunk, revision, offset, len);
        Ok(())
    }

    /// Compares what the target holds now with the revision, except where that could not be read.
    fn read_back(&self) -> RestoreResult<()> {
        self.progress.begin(Phase::ReadBack, Some(self.image.len()));
        let lost = self.findings().clone();
        let spans = &self.image.root().spans;
        let next = AtomicUsize::new(0);
        self.on_threads(self.threads.survey, spans.len(), || {
            let mut reader = ChunkReader::new(self.store);
            let mut check = TargetCheck::new(self.target);
            loop {
                let span = next.fetch_add(1, Ordering::Relaxed);
                let Some(reference) = spans.get(span) else { return Ok(()) };
                let is_lost = matches!(reference, SpanRef::Page(id) if lost.contains(id));
                let entries = if is_lost { Vec::new() } else { self.entries(&mut reader, span)? };
                let mut offset = self.image.root().span_range(span).start;
                for entry in entries {
                    if !self.goes_on()? {
                        return Ok(());
                    }
                    let is_lost = matches!(&entry, PageEntry::Data { id, .. } if lost.contains(id));
                    if !is_lost && !check.reads_back(&entry, offset)? {
                        return Err(self.differs_at(offset));
                    }
                    offset += entry.len();
                    self.progress.advance(entry.len());
                }
            }
        })?;
        self.progress.end();
        Ok(())
    }

    fn differs_at(&self, offset: u64) -> RestoreError {
        let name = self.target.name().to_owned();
        RestoreError::Target(TargetError::ReadBack { name, offset })
    }
}
