//! Backup: one revision of one source.
//!
//! Spans are the unit of parallel work: each worker takes the next one, cuts it, and hands chunks that the
//! store does not have to the pack writer. The order of what becomes durable is `docs/durability.md`, section
//! "A backup"; the revision record is the only commit point.

mod batch;
mod change_list;
mod chunk_writer;
mod list_writer;
mod memory;
mod pack_pipeline;
mod parent;
mod recheck;
mod sample;
mod span;
mod tree;

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use self::chunk_writer::{ChunkWriter, Worker};
pub(in crate::ops) use self::list_writer::{ListWriter, write_lists};
use self::memory::Memory;
use self::pack_pipeline::PackPipeline;
use self::parent::Parent;
pub use self::recheck::Recheck;
use self::recheck::recheck;
use self::sample::has_reports;
pub use self::sample::{SampleMismatch, SampleSize, SampleStats};
use self::span::SpanJob;
pub use self::tree::{
    FileProblem, TreeBackupOptions, TreeBackupStats, TreeCounts, backup_tree, preview_tree,
};
use crate::chunking::Cutter;
use crate::compression::CompressionError;
use crate::error::{Error, ObjectName, Result};
use crate::format::{
    BackupStatistics, ObjectKind, RevisionKind, RevisionRecord, Root, SessionKind, SpanRef, is_tag,
};
use crate::id::{ChunkId, RevisionId, SourceName};
use crate::limits::{IMAGE_LEN_MAX, ROOT_SPAN_COUNT_MAX};
use crate::ops::MEMORY_DEFAULT;
use crate::ops::healing::mark_lost;
use crate::ops::page_bounds::PageBounds;
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::revision::Revision;
use crate::session::Session;
use crate::source::{Source, SourceError};
use crate::store::Store;
use crate::time::Timestamp;

/// How often an image is backed up until a sample of it finds no damage in the store.
const ATTEMPT_COUNT_MAX: usize = 3;

/// Most bytes of tags and name that go into a record: it stays below the limit of a document however they are escaped.
const RECORD_TEXT_LEN_MAX: usize = 64 << 10;

/// Why there is no revision. Errors of the source and of the store stay apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The source could not be read completely.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] Error),
    /// What was read back from the store is not what the source has.
    #[error("{0}")]
    Mismatch(Box<SampleMismatch>),
}

/// How to back up.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Which source the revision is of; its history is where unchanged data is predicted from.
    pub source_name: SourceName,
    /// Tags of the revision.
    pub tags: Vec<String>,
    /// The revision of this source that unchanged data is predicted from, and that the source is asked about for changes: the newest one
    /// if `None`, or if it is gone.
    pub parent: Option<RevisionId>,
    /// Threads that cut and compress; as many as there are processors if `None`.
    pub threads: Option<NonZero<usize>>,
    /// Bytes of memory that all buffers share. Of the threads, only as many are started as this suffices for. The program itself and
    /// the allocator take more.
    pub memory: usize,
    /// How much is read back from the store and compared with the source before there is a revision.
    pub sample: SampleSize,
}

impl BackupOptions {
    /// Returns the usual options for a source.
    #[must_use]
    pub fn new(source_name: SourceName) -> Self {
        Self {
            source_name,
            tags: Vec::new(),
            parent: None,
            threads: None,
            memory: MEMORY_DEFAULT,
            sample: SampleSize::default(),
        }
    }
}

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupStats {
    /// The new revision.
    pub id: RevisionId,
    /// The revision that unchanged data was predicted from.
    pub parent: Option<RevisionId>,
    /// Size of the image in bytes.
    pub size: u64,
    /// What was read, found and written.
    pub statistics: BackupStatistics,
    /// What a person should know although the revision is complete.
    pub warnings: Vec<String>,
    /// Most bytes of [`BackupOptions::memory`] that were set aside at once.
    pub memory_peak: usize,
    /// What was read back from the store and compared with the source.
    pub sample: SampleStats,
    /// Revisions of the store, of any source, that were damaged and are not any more: this backup wrote again what they need.
    pub healed: Vec<RevisionId>,
    /// What became of the newest distrusted revision of the source, if there was one.
    pub recheck: Option<Recheck>,
}

/// Makes one revision of `source`, or none: it is durable when the call returns.
///
/// Data that has not changed since the newest trusted revision of the same name costs reading and hashing. If a
/// revision of this source is distrusted, or damaged where nothing could be set aside, every chunk is written again; of a damaged one
/// whose chunks are in quarantine, these. When the new revision is there, the newest
/// distrusted one is verified; what comes of that does not change the result of the backup.
///
/// # Errors
///
/// - [`BackupError::Source`] if the source cannot be read completely.
/// - [`BackupError::Mismatch`] if what the store gives back is not what the source has now.
/// - [`BackupError::Store`] with [`Error::Locked`] if this source is being backed up already, with
///   [`Error::InvalidOption`] for tags that cannot be stored, or with any other error of the store.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let options = BackupOptions::new("disk".parse()?);
/// let first = ops::backup(&store, &source, &options, &NoProgress)?;
/// let second = ops::backup(&store, &source, &options, &NoProgress)?;
/// assert_eq!(second.parent, Some(first.id));
/// assert_eq!(second.statistics.new_chunks, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn backup(
    store: &Store,
    source: &dyn Source,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> std::result::Result<BackupStats, BackupError> {
    let mut stats = attempt(store, source, options, progress)?;
    stats.recheck = recheck_and_warn(store, options, progress, &mut stats.warnings);
    Ok(stats)
}

/// Verifies the newest revision that is still distrusted. What comes of that does not change the result of the backup.
fn recheck_and_warn(
    store: &Store,
    options: &BackupOptions,
    progress: &dyn Progress,
    warnings: &mut Vec<String>,
) -> Option<Recheck> {
    match recheck(store, options, progress) {
        Ok(result) => {
            if let Some(Recheck { id, is_sound: false }) = result {
                let consequence = "a backup that meets the same bytes again heals it";
                warnings.push(format!("distrusted revision {id} is damaged: {consequence}"));
            }
            result
        }
        Err(error) => {
            warnings.push(format!("a distrusted revision could not be verified: {error}"));
            None
        }
    }
}

/// What has become of one attempt.
enum Attempt {
    Made(BackupStats),
    /// The store has something damaged that the revision needs, which is set aside now.
    Damaged(Error),
}

/// Makes the revision. Where the sample meets damage in the store, the image is backed up once more, which writes the damaged
/// chunks anew.
fn attempt(
    store: &Store,
    source: &dyn Source,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> std::result::Result<BackupStats, BackupError> {
    let mut warnings = Vec::new();
    let mut left = ATTEMPT_COUNT_MAX;
    loop {
        left -= 1;
        match make_revision(store, source, options, progress)? {
            Attempt::Made(mut stats) => {
                warnings.append(&mut stats.warnings);
                return Ok(BackupStats { warnings, ..stats });
            }
            Attempt::Damaged(error) => {
                mark_damage(store, &error, progress);
                if left == 0 {
                    return Err(BackupError::Store(error));
                }
                warnings
                    .push(format!("{error}: the image is backed up once more, which heals that"));
            }
        }
    }
}

/// Marks the revisions that need the chunk which an error names.
fn mark_damage(store: &Store, error: &Error, progress: &dyn Progress) {
    if let Error::Damaged { object: ObjectName::Chunk { id, .. }, .. } = error {
        mark_lost(store, &HashSet::from([*id]), progress);
    }
}

/// Makes the revision, under the lock of its source.
fn make_revision(
    store: &Store,
    source: &dyn Source,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> std::result::Result<Attempt, BackupError> {
    check(source, options)?;
    let clock = &store.environment().clock;
    let (time, started) = (clock.now(), clock.monotonic());
    let _source_lock = store.lock_source(&options.source_name)?;
    store.storage().remove_leftovers()?;
    let mut warnings = Vec::new();
    for damage in store.index().reconcile()? {
        warnings.push(damage.to_string());
    }
    let (parent, session) = begin(store, options, RevisionKind::Image, &mut warnings)?;

    progress.begin(Phase::Backup, Some(source.len()));
    let run = Run { store, source, progress, parent: &parent, session: &session, options };
    let Chunked { root, root_id, mut statistics, memory_peak } = run.write_chunks(&mut warnings)?;
    progress.end();
    let mut random = [0; RevisionId::LEN];
    store.environment().entropy.fill(&mut random);
    let id = RevisionId::from_bytes(random);
    let chunk_count = statistics.new_chunks + statistics.reused_chunks;
    let sample = match sample::compare(&run, id, &root, chunk_count) {
        Err(BackupError::Store(error)) if error.is_damage() => return Ok(Attempt::Damaged(error)),
        other => other?,
    };
    warnings.extend(source.finish()?);

    let elapsed = clock.monotonic().saturating_sub(started);
    statistics.duration_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let new = NewRevision {
        id,
        time,
        kind: RevisionKind::Image,
        size: source.len(),
        root: root_id,
        origin: source.name().to_owned(),
        statistics,
    };
    let (size, parent_id) = (new.size, parent.revision_id());
    let healed = commit(store, &parent, session, options, new, progress, &mut warnings)?;
    Ok(Attempt::Made(BackupStats {
        id,
        parent: parent_id,
        size,
        statistics,
        warnings,
        memory_peak,
        sample,
        healed,
        recheck: None,
    }))
}

/// What a revision is to be, besides what its parent and the options say.
struct NewRevision {
    id: RevisionId,
    time: Timestamp,
    kind: RevisionKind,
    size: u64,
    root: ChunkId,
    origin: String,
    statistics: BackupStatistics,
}

/// Writes the record: the commit. Then ends the session, and returns the revisions that the backup has healed.
fn commit(
    store: &Store,
    parent: &Parent,
    session: Session,
    options: &BackupOptions,
    new: NewRevision,
    progress: &dyn Progress,
    warnings: &mut Vec<String>,
) -> Result<Vec<RevisionId>> {
    let record = RevisionRecord {
        id: new.id,
        source: options.source_name.clone(),
        sequence: parent.next_sequence,
        session: session.record.id,
        time: new.time,
        kind: new.kind,
        size: new.size,
        root: new.root,
        parent: parent.revision_id(),
        host: store.environment().identity.host.clone(),
        origin: new.origin,
        tags: options.tags.clone(),
        statistics: new.statistics,
        thinned: None,
    };
    store.commit_record(&record)?;
    if parent.begins_complete {
        // If this fails the next backup looks every chunk up, as this one did.
        let _costs_time_only = store
            .index()
            .change(|change| change.set_complete_since(&record.source, record.sequence));
    }
    if let Err(error) = parent.settle_doubt(store, record.id) {
        warnings.push(format!("the next backup writes every chunk again too: {error}"));
    }
    session.finish();
    Ok(conclude(store, parent, progress, warnings))
}

/// Sets revisions right that are healed. What was set aside while this backup ran may hit its own revision, which whoever did it
/// did not see: here it is found out. The revision is there whatever comes of this.
fn conclude(
    store: &Store,
    parent: &Parent,
    progress: &dyn Progress,
    warnings: &mut Vec<String>,
) -> Vec<RevisionId> {
    let mark = || -> Result<()> {
        if store.index().quarantine()?.names != parent.quarantine {
            let lost = store.unhealed_chunks()?;
            if !lost.is_empty() {
                store.mark_hit(&lost)?;
            }
        }
        Ok(())
    };
    if let Err(error) = mark() {
        warnings.push(format!("new damage is not noted: {error}"));
    }
    let healed = if parent.may_heal { store.heal(progress) } else { Ok(Vec::new()) };
    healed.unwrap_or_else(|error| {
        warnings.push(format!("revisions that are healed are not set right: {error}"));
        Vec::new()
    })
}

/// Refuses what could not be stored, before anything is read.
fn check(source: &dyn Source, options: &BackupOptions) -> std::result::Result<(), BackupError> {
    if IMAGE_LEN_MAX < source.len() {
        return Err(BackupError::Source(SourceError::TooLarge {
            name: source.name().to_owned(),
            len: source.len(),
            len_max: IMAGE_LEN_MAX,
        }));
    }
    check_text(source.name(), options).map_err(BackupError::Store)
}

/// Refuses names and tags that a record cannot hold.
fn check_text(name: &str, options: &BackupOptions) -> Result<()> {
    if let Some(tag) = options.tags.iter().find(|tag| !is_tag(tag)) {
        let what = format!("{tag:?} cannot be a tag");
        return Err(Error::InvalidOption { what });
    }
    let text_len = name.len() + options.tags.iter().map(|tag| tag.len() + 1).sum::<usize>();
    if RECORD_TEXT_LEN_MAX < text_len {
        let what = format!("tags and name of the source have {text_len} bytes, at most 64 KiB fit");
        return Err(Error::InvalidOption { what });
    }
    Ok(())
}

/// Chooses the parent and registers the session that pins it.
fn begin(
    store: &Store,
    options: &BackupOptions,
    kind: RevisionKind,
    warnings: &mut Vec<String>,
) -> Result<(Parent, Session)> {
    loop {
        let mut warnings_of_choice = Vec::new();
        let parent = Parent::choose(store, options, kind, &mut warnings_of_choice)?;
        let session = store.begin_session(SessionKind::Backup, parent.pins())?;
        // Purge reads revisions first and pins second: a parent that is still there now is seen by every purge,
        // as a revision or as a pin. One that was forgotten meanwhile must not be relied on.
        let is_there = |revision: &Revision| {
            let found = store.read_revision(&options.source_name, &revision.record.id);
            found.map(|found| found.is_some())
        };
        let is_still_there =
            parent.pinned().map(is_there).transpose()?.is_none_or(|is_there| is_there);
        // From here on the sweep waits for this session before it takes what a list that is given up led to.
        let is_still_complete = store.storage().list_given_up()? == parent.given_up;
        if is_still_there && is_still_complete {
            warnings.append(&mut warnings_of_choice);
            return Ok((parent, session));
        }
    }
}

/// What all chunks of an image have become.
struct Chunked {
    root: Root,
    root_id: ChunkId,
    statistics: BackupStatistics,
    memory_peak: usize,
}

/// What all workers of one backup share.
#[derive(Clone, Copy)]
struct Run<'a> {
    store: &'a Store,
    source: &'a dyn Source,
    progress: &'a dyn Progress,
    parent: &'a Parent,
    session: &'a Session,
    options: &'a BackupOptions,
}

impl Run<'_> {
    /// Stores all chunks, pages and the root; all of them are durable and indexed when the call returns.
    fn write_chunks(
        &self,
        warnings: &mut Vec<String>,
    ) -> std::result::Result<Chunked, BackupError> {
        let span_len = Root::span_len_for(self.source.len());
        let span_count = usize::try_from(self.source.len().div_ceil(span_len))
            .expect("a root has at most 2^18 spans");
        debug_assert!(span_count <= ROOT_SPAN_COUNT_MAX as usize);
        let plan = change_list::plan(self, span_len, span_count, warnings)?;
        let page = PageBounds::new(self.store.chunking(), span_len);
        let memory = Memory::divide(
            self.options.memory,
            self.options.threads,
            self.store.chunking(),
            self.store.config().compression_level,
            page,
            0,
        )?;
        let pipeline = PackPipeline::new(
            self.store,
            self.session,
            self.parent.rewrites_all,
            memory.budget.clone(),
        );
        thread::scope(|scope| {
            let (writer, pack_threads) = pipeline.start(scope);
            let worked = self.cut_spans(&writer, memory.worker_count, page, span_len, plan);
            let worked = worked.and_then(|(spans, mut statistics)| {
                let root = Root { image_len: self.source.len(), span_len, spans };
                let id = Worker::new(self.store, &writer)
                    .and_then(|mut worker| {
                        let id = worker.store_list(ObjectKind::Root, &root.encode())?;
                        worker.finish(&mut statistics).map(|()| id)
                    })
                    .map_err(BackupError::Store)?;
                Ok((root, id, statistics))
            });
            // The pack threads end when the last writer is gone.
            drop(writer);
            let written = pack_threads.join();
            // An error of the pack threads is the cause of the workers' failing to hand over.
            let written = written.map_err(BackupError::Store)?;
            let (root, root_id, mut statistics) = worked?;
            statistics.new_bytes = written.new_bytes;
            statistics.new_chunks = written.new_chunks;
            statistics.stored_bytes = written.stored_bytes;
            Ok(Chunked { root, root_id, statistics, memory_peak: memory.budget.peak() })
        })
    }

    /// Cuts all spans that must be read, in parallel.
    fn cut_spans(
        &self,
        writer: &ChunkWriter,
        worker_count: NonZero<usize>,
        page: PageBounds,
        span_len: u64,
        plan: Vec<Option<SpanRef>>,
    ) -> std::result::Result<(Vec<SpanRef>, BackupStatistics), BackupError> {
        let to_read: Vec<usize> = plan
            .iter()
            .enumerate()
            .filter(|(_, kept)| kept.is_none())
            .map(|(span, _)| span)
            .collect();
        let kept_len = self.source.len()
            - to_read.iter().map(|span| self.span_range(*span, span_len)).map(len_of).sum::<u64>();
        self.progress.advance(kept_len);
        let results = Mutex::new((plan, BackupStatistics::default()));
        let next = AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        let cutter = Cutter::new(self.store.chunking());
        let work = || -> std::result::Result<(), BackupError> {
            let cutting = writer.helpers.cutting();
            let mut job = SpanJob::new(self, &cutter, writer, &is_over, page)?;
            while !is_over.load(Ordering::Relaxed)
                && let Some(span) = to_read.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let reference = job.run(*span, self.span_range(*span, span_len))?;
                let mut results = results.lock().expect("no holder of this lock panics");
                results.0[*span] = Some(reference);
            }
            drop(cutting);
            job.help()?;
            let mut own = BackupStatistics::default();
            job.finish(&mut own)?;
            let total = &mut results.lock().expect("no holder of this lock panics").1;
            total.read_bytes += own.read_bytes;
            total.hole_bytes += own.hole_bytes;
            total.reused_bytes += own.reused_bytes;
            total.reused_chunks += own.reused_chunks;
            Ok(())
        };
        let work = || work().inspect_err(|_| is_over.store(true, Ordering::Relaxed));
        // Also an image of one span has work for several: see `batch`.
        let work_count = if to_read.is_empty() { 0 } else { worker_count.get() };
        on_threads(Some(worker_count), work_count, work).into_iter().fold(Ok(()), first_cause)?;
        let (spans, statistics) = results.into_inner().expect("no holder of this lock panics");
        let spans = spans.into_iter().collect::<Option<Vec<_>>>();
        let spans = spans.ok_or_else(|| Error::Bug { what: "a span was left out".to_owned() })?;
        Ok((spans, statistics))
    }

    /// Returns a random number below `count`, which is at least 1.
    fn random_below(&self, count: usize) -> usize {
        let mut random = [0; 8];
        self.store.environment().entropy.fill(&mut random);
        let random = u64::from_le_bytes(random) % (count.max(1) as u64);
        usize::try_from(random).expect("it is below a usize")
    }

    fn span_range(&self, span: usize, span_len: u64) -> std::ops::Range<u64> {
        let start = span as u64 * span_len;
        start..(start + span_len).min(self.source.len())
    }
}

fn len_of(range: std::ops::Range<u64>) -> u64 {
    range.end - range.start
}

/// Keeps the error that says why: a worker that was told to stop has none of its own.
fn first_cause(
    left: std::result::Result<(), BackupError>,
    right: std::result::Result<(), BackupError>,
) -> std::result::Result<(), BackupError> {
    match (left, right) {
        (Err(BackupError::Store(Error::Cancelled)), Err(cause)) => Err(cause),
        (Ok(()), other) => other,
        (left, _) => left,
    }
}

/// Turns an error of the compressor into one of the store.
fn compression_failed(error: CompressionError) -> Error {
    match error {
        CompressionError::Mismatch { id, .. } => Error::CompressionMismatch { id },
        CompressionError::Level { .. } => Error::InvalidOption { what: error.to_string() },
        other => Error::Bug { what: other.to_string() },
    }
}
