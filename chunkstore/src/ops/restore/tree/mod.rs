//! Restore of a tree: files of revisions are written to a directory, or their points into files that are there.
//!
//! Files come as a stream. Each thread takes a few at a time, a window, reads the chunks of all of them in the order in which
//! packs have them, neighbours at once, each chunk once for all its places in the window, and writes the files from memory.
//! What is durable when: `docs/durability.md`, section "A restore of a tree".
//!
//! One file that cannot be had or cannot be written costs that file: the statistics tell. What would go wrong with all of them, such as
//! a full target, ends the restore.

mod fill;
mod memory;
mod stats;
mod window;

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::fill::Filler;
use self::memory::{BACKFILL_FACTOR, Buffers, Memory};
use self::stats::Totals;
pub use self::stats::{TreeProblem, TreeProblemReason, TreeRestoreStats, TreeSetAside};
use self::window::{Feed, Window};
use super::{RestoreError, RestoreResult, milliseconds_since};
use crate::error::{Error, Result};
use crate::format::TreeEntry;
use crate::id::ChunkId;
use crate::ops::MEMORY_DEFAULT;
use crate::ops::healing::mark_lost;
use crate::parallel::on_threads;
use crate::progress::{Phase, Progress};
use crate::store::Store;
use crate::target::{
    Content, Existing, Fault, FileWriter, Outcome, Rules, TargetFileError, TreeWriter,
    WhisperTarget,
};
use crate::time::Timestamp;
use crate::whisper::Backfill;

/// How to restore a tree.
#[derive(Clone, Debug)]
pub struct TreeRestoreOptions {
    /// What to do with files that exist and differ.
    pub existing: Existing,
    /// How long a file is waited for that somebody else has locked. Graphite holds the lock for milliseconds.
    pub lock_timeout: Duration,
    /// The present: of what is older than the retention of an archive nothing is filled in. If `None`, what the clock says.
    pub now: Option<Timestamp>,
    /// Reads and checks everything, tells what would be done, and writes nothing.
    pub is_dry_run: bool,
    /// Bytes of all files together, for the progress, where they are known.
    pub size: Option<u64>,
    /// Threads that read and write. If `None`, as many as there are processors.
    pub threads: Option<NonZero<usize>>,
    /// Bytes of memory that all buffers share. Of the threads, only as many are started as this suffices for. A file that does not fit,
    /// together with the one that exists, is not restored. The program itself and the allocator take more.
    pub memory: usize,
}

impl Default for TreeRestoreOptions {
    fn default() -> Self {
        Self {
            existing: Existing::default(),
            lock_timeout: Duration::from_secs(10),
            now: None,
            is_dry_run: false,
            size: None,
            threads: None,
            memory: MEMORY_DEFAULT,
        }
    }
}

/// Writes files of a tree to a directory; they are durable when the call returns.
///
/// The entries may be of several revisions. Whoever reads them keeps these revisions from being purged until the call returns:
/// an open [`TreeReader`](crate::TreeReader) does. Files are worked on by several threads, about in the order of the entries;
/// many of one directory in a row are cheapest. Every chunk is checked against its id before anything of its file is written.
///
/// # Errors
///
/// - [`RestoreError::Store`] if the store cannot be read. Damage is not a reason: it costs the files that need it.
/// - [`RestoreError::Store`] with [`Error::Cancelled`] if the caller wants to stop, and with [`Error::InvalidOption`] if the memory
///   is too little.
/// - [`RestoreError::Target`] if the target is full, or cannot be written for another reason that all files share.
///
/// What was written until then is complete, file by file, but nobody has made it durable.
pub fn restore_tree(
    store: &Store,
    entries: &mut (dyn Iterator<Item = Result<TreeEntry>> + Send),
    target: &WhisperTarget,
    options: &TreeRestoreOptions,
    progress: &dyn Progress,
) -> RestoreResult<TreeRestoreStats> {
    let totals = Totals::default();
    let result = write_files(store, entries, target, options, progress, &totals);
    let (mut stats, lost) = totals.into_parts();
    mark_lost(store, &lost, progress);
    stats.duration_milliseconds = result?;
    Ok(stats)
}

/// Returns how long it took.
fn write_files(
    store: &Store,
    entries: &mut (dyn Iterator<Item = Result<TreeEntry>> + Send),
    target: &WhisperTarget,
    options: &TreeRestoreOptions,
    progress: &dyn Progress,
    totals: &Totals,
) -> RestoreResult<u64> {
    let started = store.environment().clock.monotonic();
    for damage in store.index().reconcile()? {
        progress.note(&damage.to_string());
    }
    let memory = Memory::divide(options.memory, options.threads, store.chunking())?;
    let tree = target.begin(rules(store, options)?)?;
    let threads = memory.threads();
    let run = TreeRun {
        store,
        progress,
        tree: &tree,
        existing: options.existing,
        memory,
        feed: Mutex::new(Feed::new(store, entries)),
        is_over: AtomicBool::new(false),
        totals,
    };
    progress.begin(Phase::Restore, options.size);
    let work = || run.work().inspect_err(|_| run.is_over.store(true, Ordering::Relaxed));
    on_threads(Some(threads), usize::MAX, work).into_iter().collect::<RestoreResult<()>>()?;
    tree.finish()?;
    progress.end();
    Ok(milliseconds_since(store, started))
}

fn rules(store: &Store, options: &TreeRestoreOptions) -> Result<Rules> {
    let environment = store.environment();
    let now = options.now.unwrap_or_else(|| environment.clock.now());
    let outside = || Error::InvalidOption { what: format!("{now} is no time for whisper files") };
    let mut token = [0; 8];
    environment.entropy.fill(&mut token);
    Ok(Rules {
        existing: options.existing,
        lock_timeout: options.lock_timeout,
        now: u32::try_from(now.0.div_euclid(1000)).map_err(|_| outside())?,
        stamp: stamp_of(now),
        is_dry_run: options.is_dry_run,
        token: u64::from_le_bytes(token),
    })
}

/// Returns `YYYYMMDDTHHMMSSZ`.
fn stamp_of(now: Timestamp) -> String {
    let text = now.to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    let digits: String = seconds.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    format!("{digits}Z")
}

/// What all threads of a restore share.
struct TreeRun<'a> {
    store: &'a Store,
    progress: &'a dyn Progress,
    tree: &'a TreeWriter,
    existing: Existing,
    memory: Memory,
    feed: Mutex<Feed<'a>>,
    /// One of the threads has failed: the others may stop.
    is_over: AtomicBool,
    totals: &'a Totals,
}

impl<'a> TreeRun<'a> {
    fn feed(&self) -> MutexGuard<'_, Feed<'a>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the thread that asks may go on, or an error if the caller wants it to stop.
    fn goes_on(&self) -> RestoreResult<bool> {
        if self.progress.is_cancelled() {
            return Err(RestoreError::CANCELLED);
        }
        Ok(!self.is_over.load(Ordering::Relaxed))
    }

    /// The work of one thread: windows, one after another.
    fn work(&self) -> RestoreResult<()> {
        let is_ended = || self.progress.is_cancelled() || self.is_over.load(Ordering::Relaxed);
        let mut filler = Filler::new(self.store);
        let mut writer = self.tree.file_writer(&is_ended);
        while self.goes_on()? {
            let mut buffers = self.memory.take();
            let Some(window) = self.next_window()? else { break };
            let mut alone = Vec::new();
            if window.is_alone {
                alone = window.entries;
            } else {
                self.write_window(&window, &mut filler, &mut writer, &mut buffers, &mut alone)?;
            }
            drop(buffers);
            for entry in alone {
                if !self.goes_on()? {
                    break;
                }
                self.write_alone(entry, &mut filler, &mut writer)?;
            }
        }
        Ok(())
    }

    /// Returns the next files, after noting what could not be listed.
    fn next_window(&self) -> RestoreResult<Option<Window>> {
        loop {
            match self.feed().next() {
                Ok(window) => return Ok(window),
                Err(error) if error.is_damage() => self.totals.lose_list(&error),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes the files of a window; those that need more memory are left in `alone`.
    fn write_window(
        &self,
        window: &Window,
        filler: &mut Filler,
        writer: &mut FileWriter<'_>,
        buffers: &mut Buffers<'_>,
        alone: &mut Vec<TreeEntry>,
    ) -> RestoreResult<()> {
        let lost = filler.fill(window, buffers, &|| self.goes_on())?;
        let Some(lost) = lost else { return Ok(()) };
        for ((entry, range), lost) in window.places().zip(lost) {
            if !self.goes_on()? {
                return Ok(());
            }
            if let Some(lost) = lost {
                self.totals.lose(entry, lost);
                self.progress.advance(entry.len());
                continue;
            }
            let mut content = Content::Part(&buffers.arena[range]);
            if !self.write_file(entry, &mut content, writer, Memory::FILE_LEN_MAX as u64)? {
                alone.push(entry.clone());
            }
        }
        Ok(())
    }

    /// Writes a file that memory has to be taken for.
    fn write_alone(
        &self,
        entry: TreeEntry,
        filler: &mut Filler,
        writer: &mut FileWriter<'_>,
    ) -> RestoreResult<()> {
        let existing = match writer.existing_len(&entry) {
            Ok(len) => len,
            Err(fault) => return self.fail(&entry, fault),
        };
        let Some(mut buffers) =
            self.memory.take_for(entry.len(), self.existing_cost(existing), entry.content.len())
        else {
            let len = entry.len().max(existing);
            self.totals.fail(&entry, TreeProblemReason::TooLong { len });
            self.progress.advance(entry.len());
            return Ok(());
        };
        let window = self.feed().window_of(entry)?;
        let lost = filler.fill(&window, &mut buffers, &|| self.goes_on())?;
        let (Some(lost), [entry]) = (lost, &*window.entries) else { return Ok(()) };
        if let Some(lost) = lost.into_iter().flatten().next() {
            self.totals.lose(entry, lost);
            self.progress.advance(entry.len());
            return Ok(());
        }
        let mut content = Content::Whole(&mut buffers.arena);
        if !self.write_file(entry, &mut content, writer, existing)? {
            // It has grown since.
            self.totals.fail(entry, TreeProblemReason::Target(TargetFileError::Unsteady));
        }
        writer.shrink(Memory::FILE_LEN_MAX);
        Ok(())
    }

    /// Returns the memory that an existing file of this length takes.
    const fn existing_cost(&self, len: u64) -> u64 {
        match self.existing {
            // One byte for each slot.
            Existing::Backfill(Backfill::Safe) => len.saturating_add(len / 12),
            Existing::Backfill(Backfill::Compat) => len.saturating_mul(BACKFILL_FACTOR as u64),
            Existing::Replace | Existing::Refuse => len,
            Existing::Skip => 0,
        }
    }

    /// Writes one file. Returns `false` if what exists has more than `room` bytes.
    fn write_file(
        &self,
        entry: &TreeEntry,
        content: &mut Content<'_>,
        writer: &mut FileWriter<'_>,
        room: u64,
    ) -> RestoreResult<bool> {
        match writer.write(entry, content, room) {
            Ok(restored) if matches!(restored.outcome, Outcome::NeedsRoom { .. }) => {
                return Ok(false);
            }
            Ok(restored) => {
                self.totals.add(entry, &restored);
                self.progress.advance(entry.len());
            }
            Err(fault) => self.fail(entry, fault)?,
        }
        Ok(true)
    }

    /// Notes what is wrong with one file, or ends the restore with what is wrong with all.
    fn fail(&self, entry: &TreeEntry, fault: Fault) -> RestoreResult<()> {
        match fault {
            Fault::Target(error) => Err(error.into()),
            Fault::File(TargetFileError::Ended) => self.goes_on().map(|_| ()),
            Fault::File(error) => {
                self.totals.fail(entry, TreeProblemReason::Target(error));
                self.progress.advance(entry.len());
                Ok(())
            }
        }
    }
}

/// Why a chunk of a file cannot be had.
#[derive(Clone, Debug)]
struct Lost {
    chunk: ChunkId,
    reason: String,
}

/// Chunks that could not be read.
type LostChunks = HashSet<ChunkId>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_has_no_character_that_a_shell_minds() {
        assert_eq!(stamp_of(Timestamp(1_700_000_000_123)), "20231114T221320Z");
        assert_eq!(stamp_of(Timestamp(0)), "19700101T000000Z");
    }
}
