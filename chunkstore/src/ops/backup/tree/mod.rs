//! Backup of a tree: one revision with many files, of which most have not changed.
//!
//! The walk and the list of the revision before are both in the order of paths and are merged as they come, so neither is held in
//! memory. Workers take a few files at a time: what has not changed keeps its entry, the rest is read, cut and stored. Finished files
//! are put into pages in order again. What becomes durable when is the same as for images (`docs/durability.md`, section "A backup").
//!
//! One file that cannot be read costs that file: the revision keeps what the one before had, and the statistics tell.

mod collect;
mod file_job;
mod merge;
mod sample;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use self::collect::Collector;
use self::file_job::{FileJob, Outcome};
use self::merge::Merge;
use super::chunk_writer::{ChunkWriter, Worker};
use super::memory::Memory;
use super::pack_pipeline::PackPipeline;
use super::parent::Parent;
use super::{
    BackupError, BackupOptions, NewRevision, Recheck, SampleStats, begin, commit, first_cause,
    mark_damage, recheck_and_warn,
};
use crate::compression::Compressor;
use crate::error::{Error, Result};
use crate::format::{BackupStatistics, ObjectKind, RevisionKind, SessionKind, TreeRoot};
use crate::id::{ChunkId, RevisionId};
use crate::limits::TREE_PAGE_LEN_MAX;
use crate::ops::page_bounds::PageBounds;
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::session::Session;
use crate::source::{FileError, SourceError, TreeSource};
use crate::store::Store;
use crate::time::Timestamp;

/// Files that are told by name when something is wrong with them.
const PROBLEM_COUNT_MAX: usize = 1000;

/// Chunks of sources are not longer than this as a rule; longer ones take what is left of the memory.
const CHUNK_LEN_USUAL: usize = 1 << 20;

/// What a source takes of a file that it reads: a window, and what its buffer may have grown to.
const FILE_MEMORY: usize = 2 << 20;

/// How often a tree is backed up until a sample of it finds no damage in the store.
const ATTEMPT_COUNT_MAX: usize = 3;

/// How to back up a tree.
#[derive(Clone, Debug)]
pub struct TreeBackupOptions {
    /// What trees have in common with images. [`BackupOptions::parent`] means nothing here.
    pub common: BackupOptions,
    /// Read every file, and do not believe length, times and inode that it has not changed.
    pub read_all: bool,
    /// Accept a tree without any file although the revision before has some.
    pub accept_empty: bool,
}

impl TreeBackupOptions {
    /// Returns the usual options for a source.
    #[must_use]
    pub fn new(common: BackupOptions) -> Self {
        Self { common, read_all: false, accept_empty: false }
    }
}

/// What a backup found of the files of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounts {
    /// Files in the revision.
    pub files: u64,
    /// Those of them that the revision before does not have.
    pub new: u64,
    /// Those with another content than in the revision before.
    pub changed: u64,
    /// Those that have the content of the revision before.
    pub unchanged: u64,
    /// Those that keep the content of the revision before because they could not be read, or are not included.
    pub carried: u64,
    /// Files of the revision before that are gone.
    pub gone: u64,
    /// Files that were read.
    pub read: u64,
    /// Files and directories with something wrong.
    pub problems: u64,
}

impl TreeCounts {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.new += other.new;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.carried += other.carried;
        self.gone += other.gone;
        self.read += other.read;
        self.problems += other.problems;
    }
}

/// A file, or a directory with all below it, that could not be read.
#[derive(Debug)]
pub struct FileProblem {
    /// Where it lies in the tree, for people.
    pub path: String,
    /// Why.
    pub error: FileError,
    /// Whether the revision has the content of the one before for it.
    pub is_carried: bool,
}

/// What the backup of a tree did.
#[derive(Debug)]
pub struct TreeBackupStats {
    /// The new revision.
    pub id: RevisionId,
    /// When it began.
    pub time: Timestamp,
    /// The revision that unchanged files were taken from.
    pub parent: Option<RevisionId>,
    /// Bytes of all files of the revision.
    pub size: u64,
    /// The files.
    pub counts: TreeCounts,
    /// What could not be read; of more than a thousand these are the first ones that were met.
    pub problems: Vec<FileProblem>,
    /// What was read, found and written.
    pub statistics: BackupStatistics,
    /// What a person should know although the revision is complete.
    pub warnings: Vec<String>,
    /// What was read back and compared.
    pub sample: SampleStats,
    /// Revisions of the store that were damaged and are not any more.
    pub healed: Vec<RevisionId>,
    /// What became of the newest distrusted revision of the source, if there was one.
    pub recheck: Option<Recheck>,
}

/// Makes one revision of a tree, or none: it is durable when the call returns.
///
/// Files that have not changed since the newest revision of the same name, as far as their metadata tell, cost looking at them. A file that
/// cannot be read is in [`TreeBackupStats::problems`], and the revision keeps what the one before has of it.
///
/// # Errors
///
/// - [`BackupError::Source`] if the tree cannot be listed, or if it has no file although it had some ([`SourceError::Empty`]).
/// - [`BackupError::Mismatch`] if what the store gives back is not what the source has now.
/// - [`BackupError::Store`] with [`Error::Locked`] if this source is being backed up already, with
///   [`Error::InvalidOption`] for tags that cannot be stored, or with any other error of the store.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # let tree = directory.path().join("whisper");
/// # std::fs::create_dir(&tree).unwrap();
/// use chunkstore::TreeReader;
/// use chunkstore::ops::{self, BackupOptions, TreeBackupOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::WhisperTree;
/// use chunkstore::store::{Store, StoreOptions};
/// use chunkstore::whisper::{Aggregation, Retention, WhisperFile};
///
/// let day = Retention { seconds_per_point: 60, points: 1440 };
/// let file = WhisperFile::create(Aggregation::Average, 0.5, &[day])?;
/// std::fs::write(tree.join("cpu.wsp"), file.bytes())?;
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = WhisperTree::open(&tree)?;
/// let options = TreeBackupOptions::new(BackupOptions::new("graphite".parse()?));
/// let stats = ops::backup_tree(&store, &source, &options, &NoProgress)?;
/// assert_eq!(stats.counts.new, 1);
///
/// let reader = TreeReader::open(&store, &stats.id)?;
/// let entry = reader.entries().next().unwrap()?;
/// assert_eq!(reader.read(&entry)?, file.bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn backup_tree(
    store: &Store,
    source: &dyn TreeSource,
    options: &TreeBackupOptions,
    progress: &dyn Progress,
) -> std::result::Result<TreeBackupStats, BackupError> {
    let mut warnings = Vec::new();
    let mut left = ATTEMPT_COUNT_MAX;
    let mut stats = loop {
        left -= 1;
        match make_revision(store, source, options, progress)? {
            Attempt::Made(stats) => break *stats,
            Attempt::Damaged(error) => {
                mark_damage(store, &error, progress);
                if left == 0 {
                    return Err(BackupError::Store(error));
                }
                warnings
                    .push(format!("{error}: the tree is backed up once more, which heals that"));
            }
        }
    };
    stats.warnings.splice(0..0, warnings);
    stats.recheck = recheck_and_warn(store, &options.common, progress, &mut stats.warnings);
    Ok(stats)
}

/// Finds out what [`backup_tree`] would do, and writes nothing: no chunk, no revision.
///
/// # Errors
///
/// As [`backup_tree`], as far as they concern reading.
pub fn preview_tree(
    store: &Store,
    source: &dyn TreeSource,
    options: &TreeBackupOptions,
    progress: &dyn Progress,
) -> std::result::Result<(TreeCounts, Vec<FileProblem>), BackupError> {
    let mut warnings = Vec::new();
    let kind = RevisionKind::Tree;
    let parent = Parent::choose(store, &options.common, kind, &mut warnings)?;
    let pins = parent.pins();
    let _session = store.begin_reading_session(SessionKind::Restore, pins)?;
    let time = store.environment().clock.now();
    let run = TreeRun { store, source, progress, parent: &parent, options, time };
    progress.begin(Phase::Backup, None);
    let shared = run.share()?;
    let mut job = FileJob::new(&run, None);
    run.work(&shared, &mut job)?;
    progress.end();
    let collected = shared.into_result()?;
    Ok((collected.counts, collected.problems))
}

/// What has become of one attempt.
enum Attempt {
    Made(Box<TreeBackupStats>),
    /// The store has something damaged that the revision needs, which is set aside now.
    Damaged(Error),
}

fn make_revision(
    store: &Store,
    source: &dyn TreeSource,
    options: &TreeBackupOptions,
    progress: &dyn Progress,
) -> std::result::Result<Attempt, BackupError> {
    let common = &options.common;
    super::check_text(source.name(), common)?;
    let clock = &store.environment().clock;
    let (time, started) = (clock.now(), clock.monotonic());
    let _source_lock = store.lock_source(&common.source_name)?;
    store.storage().remove_leftovers()?;
    let mut warnings = Vec::new();
    for damage in store.index().reconcile()? {
        warnings.push(damage.to_string());
    }
    let (parent, session) = begin(store, common, RevisionKind::Tree, &mut warnings)?;
    progress.begin(Phase::Backup, None);
    let run = TreeRun { store, source, progress, parent: &parent, options, time };
    let stored = run.store_tree(&session)?;
    progress.end();
    let sample = match sample::compare(&run, &stored.root) {
        Err(BackupError::Store(error)) if error.is_damage() => return Ok(Attempt::Damaged(error)),
        other => other?,
    };
    let mut random = [0; RevisionId::LEN];
    store.environment().entropy.fill(&mut random);
    let elapsed = clock.monotonic().saturating_sub(started);
    let mut statistics = stored.statistics;
    statistics.duration_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let new = NewRevision {
        id: RevisionId::from_bytes(random),
        time,
        kind: RevisionKind::Tree,
        size: stored.root.content_len(),
        root: stored.root_id,
        origin: source.name().to_owned(),
        statistics,
    };
    let size = new.size;
    let id = new.id;
    let healed = commit(store, &parent, session, common, new, progress, &mut warnings)?;
    Ok(Attempt::Made(Box::new(TreeBackupStats {
        id,
        time,
        parent: parent.revision_id(),
        size,
        counts: stored.counts,
        problems: stored.problems,
        statistics,
        warnings,
        sample,
        healed,
        recheck: None,
    })))
}

/// What all workers of one backup share.
#[derive(Clone, Copy)]
struct TreeRun<'a> {
    store: &'a Store,
    source: &'a dyn TreeSource,
    progress: &'a dyn Progress,
    parent: &'a Parent,
    options: &'a TreeBackupOptions,
    /// The time of the revision.
    time: Timestamp,
}

/// What was stored.
struct StoredTree {
    root: TreeRoot,
    root_id: ChunkId,
    statistics: BackupStatistics,
    counts: TreeCounts,
    problems: Vec<FileProblem>,
}

/// What workers take from and give to.
struct Shared<'a> {
    merge: Mutex<Merge<'a>>,
    collector: Collector,
    is_over: AtomicBool,
}

/// What was collected when all workers have ended.
#[derive(Default)]
struct Collected {
    root: TreeRoot,
    counts: TreeCounts,
    problems: Vec<FileProblem>,
}

impl<'a> TreeRun<'a> {
    fn share(&self) -> std::result::Result<Shared<'a>, BackupError> {
        Ok(Shared {
            merge: Mutex::new(Merge::new(self)?),
            collector: Collector::default(),
            is_over: AtomicBool::new(false),
        })
    }

    /// Stores all files, pages and the root; all of them are durable and indexed when the call returns.
    fn store_tree(&self, session: &Session) -> std::result::Result<StoredTree, BackupError> {
        let common = &self.options.common;
        let bounds = PageBounds::new(self.store.chunking(), TREE_PAGE_LEN_MAX as u64);
        let bounds = PageBounds { len_max: TREE_PAGE_LEN_MAX, ..bounds };
        let memory = Memory::divide(
            common.memory,
            common.threads,
            self.store.chunking(),
            self.store.config().compression_level,
            bounds,
            Compressor::points_memory(CHUNK_LEN_USUAL) + FILE_MEMORY,
        )?;
        let shared = self.share()?;
        let pipeline =
            PackPipeline::new(self.store, session, self.parent.rewrites_all, memory.budget.clone());
        thread::scope(|scope| {
            let (writer, pack_threads) = pipeline.start(scope);
            let worked = self.store_files(&writer, memory.worker_count, shared);
            let worked = worked.and_then(|(shared, mut statistics)| {
                let last_page = shared.collector.last_page()?;
                let collected = shared.into_result()?;
                let root_id = Worker::new(self.store, &writer)
                    .and_then(|mut worker| {
                        if let Some((id, encoded)) = &last_page {
                            worker.store_chunk(ObjectKind::Page, *id, encoded)?;
                        }
                        let encoded = collected.root.encode();
                        let id = worker.store_list(ObjectKind::Root, &encoded)?;
                        worker.finish(&mut statistics).map(|()| id)
                    })
                    .map_err(BackupError::Store)?;
                Ok((collected, root_id, statistics))
            });
            // The pack threads end when the last writer is gone.
            drop(writer);
            // An error of the pack threads is the cause of the workers' failing to hand over.
            let written = pack_threads.join().map_err(BackupError::Store)?;
            let (collected, root_id, mut statistics) = worked?;
            statistics.new_bytes = written.new_bytes;
            statistics.new_chunks = written.new_chunks;
            statistics.stored_bytes = written.stored_bytes;
            let Collected { root, counts, problems } = collected;
            Ok(StoredTree { root, root_id, statistics, counts, problems })
        })
    }

    fn store_files(
        &self,
        writer: &ChunkWriter,
        worker_count: std::num::NonZero<usize>,
        shared: Shared<'a>,
    ) -> std::result::Result<(Shared<'a>, BackupStatistics), BackupError> {
        let total = Mutex::new(BackupStatistics::default());
        let work = || -> std::result::Result<(), BackupError> {
            let mut job = FileJob::new(self, Some(Worker::new(self.store, writer)?));
            self.work(&shared, &mut job)?;
            let mut own = BackupStatistics::default();
            job.finish(&mut own)?;
            let mut total = total.lock().expect("no holder of this lock panics");
            total.read_bytes += own.read_bytes;
            total.hole_bytes += own.hole_bytes;
            total.reused_bytes += own.reused_bytes;
            total.reused_chunks += own.reused_chunks;
            Ok(())
        };
        let work = || work().inspect_err(|_| shared.stop());
        on_threads(Some(worker_count), worker_count.get(), work)
            .into_iter()
            .fold(Ok(()), first_cause)?;
        let statistics = total.into_inner().expect("no holder of this lock panics");
        Ok((shared, statistics))
    }

    /// Takes tasks until none is left.
    fn work(
        &self,
        shared: &Shared<'_>,
        job: &mut FileJob<'_>,
    ) -> std::result::Result<(), BackupError> {
        loop {
            if self.progress.is_cancelled() || shared.is_over.load(Ordering::Relaxed) {
                return Err(BackupError::Store(Error::Cancelled));
            }
            let batch = shared.merge.lock().expect("no holder of this lock panics").next_batch()?;
            let Some((number, tasks)) = batch else { return Ok(()) };
            let outcomes =
                tasks.into_iter().map(|task| job.run(task)).collect::<Result<Vec<Outcome>, _>>()?;
            for page in shared.collector.add(number, outcomes, &shared.is_over)? {
                job.store_page(page.0, &page.1)?;
            }
        }
    }
}

impl Shared<'_> {
    fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.collector.wake();
    }

    fn into_result(self) -> std::result::Result<Collected, BackupError> {
        let merge = self.merge.into_inner().expect("no holder of this lock panics");
        Ok(self.collector.into_collected(merge)?)
    }
}
