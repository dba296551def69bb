//! Scrub: read whole packs again, those first that were not read for the longest time.
//!
//! What was read is entered in the ledger now and then, so a scrub that is stopped or killed loses little, and the next one goes on
//! where it was: what it did not read is the stalest. A pack that is found damaged is not entered; it is due again.
//!
//! Every record is read, also those that nothing needs. A damaged one is set aside, and costs something only if no other pack has its
//! chunk. What is in quarantine already is not read again: it is reported as long as a revision needs it and nothing has healed it.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::findings::{DamagedChunk, Findings};
use super::healing::{add_known, heal, replaced, set_aside};
use super::rate_limit::RateLimit;
use super::verify::VerifyOptions;
use super::verify::check::{Checked, Run};
use super::verify::memory::Memory;
use super::verify::pack_check::Worker;
use super::verify::{Outcome, note_result};
use crate::error::{Error, Result};
use crate::id::{PackId, RevisionId};
use crate::index::PackRow;
use crate::ledger::PackRead;
use crate::limits::PACK_RECORD_COUNT_MAX;
use crate::mark::Proof;
use crate::ops::MEMORY_DEFAULT;
use crate::parallel::on_threads;
use crate::pinned::Pinned;
use crate::progress::{Phase, Progress};
use crate::quarantine::Copy;
use crate::storage::Storage;
use crate::store::Store;
use crate::time::Timestamp;

/// How to scrub.
#[derive(Clone, Debug)]
pub struct ScrubOptions {
    /// Only packs that were not read for this long; all if `None`.
    pub older_than: Option<Duration>,
    /// Most bytes of packs that are read in a second.
    pub bytes_per_second: Option<NonZero<u64>>,
    /// Time after which what was read is entered in the ledger.
    pub save_interval: Duration,
    /// Threads that read and expand; as many as there are processors if `None`.
    pub threads: Option<NonZero<usize>>,
    /// Bytes of memory that all buffers share, as for [`VerifyOptions`].
    pub memory: usize,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            older_than: None,
            bytes_per_second: None,
            save_interval: Duration::from_secs(10),
            threads: None,
            memory: MEMORY_DEFAULT,
        }
    }
}

/// What a scrub found.
#[derive(Clone, Debug, Default)]
pub struct ScrubStats {
    /// Packs that were read.
    pub checked_packs: u64,
    /// Records that were read.
    pub checked_chunks: u64,
    /// Plain bytes of these.
    pub checked_bytes: u64,
    /// Chunks that cannot be had, or a copy of which is damaged, and which bytes of which revisions that costs.
    pub damaged: Vec<DamagedChunk>,
    /// Packs with damage in their header, their table, or in a record's header, and those that are other packs than their names say.
    pub damaged_packs: Vec<(PackId, String)>,
    /// Revisions that are marked as damaged now.
    pub damaged_revisions: Vec<RevisionId>,
    /// Revisions that were damaged and are not any more, because the store has again what they need.
    pub healed: Vec<RevisionId>,
    /// How long it took.
    pub duration_milliseconds: u64,
}

impl ScrubStats {
    /// Returns whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.damaged_packs.is_empty()
    }
}

/// Reads packs and hashes every record in them, the stalest first; enters them in the ledger, and marks the revisions as damaged that
/// need what cannot be read.
///
/// Damage does not end the scrub; it is in the statistics.
///
/// # Errors
///
/// - [`Error::Storage`] if the store cannot be read.
/// - [`Error::UnsupportedFormat`] if a newer program wrote the ledger: it cannot be continued.
/// - [`Error::Cancelled`]. What was read is entered, and what was found is noted, all the same.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions, ScrubOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?;
///
/// let stats = ops::scrub(&store, &ScrubOptions::default(), &NoProgress)?;
/// assert!(stats.is_sound());
/// assert_eq!(stats.checked_packs, ops::coverage(&store)?.read_packs);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn scrub(store: &Store, options: &ScrubOptions, progress: &dyn Progress) -> Result<ScrubStats> {
    let clock = &store.environment().clock;
    let started = clock.monotonic();
    for damage in store.index().reconcile()? {
        progress.note(&damage.to_string());
    }
    let packs = store.index().view(|view| view.packs())?;
    let rows: HashMap<PackId, PackRow> = packs.into_iter().map(|(_, row)| (row.id, row)).collect();
    let due = find_due(store, options, progress)?;
    let verify = VerifyOptions { threads: options.threads, memory: options.memory, all_data: true };
    let memory = Memory::divide(&verify, store.chunking())?;
    let limit = options.bytes_per_second.map(|limit| RateLimit::new(limit, clock.as_ref()));
    let run = Run { store, progress, memory, limit, proof: Proof::default() };
    let total = due.iter().filter_map(|pack| rows.get(pack)).map(|row| row.file_len).sum();
    progress.begin(Phase::Verify, Some(total));
    let (checked, result) = read_packs(&run, &due, &rows, options);
    progress.end();
    let is_cancelled = matches!(result, Err(Error::Cancelled));
    if !is_cancelled {
        result?;
    }
    let mut stats = ScrubStats {
        checked_packs: checked.reads.len() as u64,
        checked_chunks: checked.chunks,
        checked_bytes: checked.bytes,
        damaged_packs: checked.damaged_packs,
        ..ScrubStats::default()
    };
    stats.damaged_packs.sort();
    let copies = &checked.damaged_copies;
    (stats.damaged, stats.damaged_revisions) = conclude(&run, checked.findings, copies, &rows)?;
    if is_cancelled {
        return Err(Error::Cancelled);
    }
    stats.healed = heal(store, progress)?;
    let elapsed = clock.monotonic().saturating_sub(started);
    stats.duration_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Ok(stats)
}

/// Returns the packs that are to be read, the stalest first.
fn find_due(store: &Store, options: &ScrubOptions, progress: &dyn Progress) -> Result<Vec<PackId>> {
    let (ledger, damage) = store.ledger()?;
    if let Some(damage) = damage {
        progress.note(&format!("{damage}: all packs count as never read"));
    }
    let now = store.environment().clock.now();
    // What was read in the future was read by a clock that was wrong: nobody knows when.
    let reads: HashMap<PackId, Timestamp> = ledger
        .entries
        .iter()
        .filter(|entry| entry.read <= now)
        .map(|entry| (entry.pack, entry.read))
        .collect();
    let least =
        options.older_than.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let packs = store.storage().list_packs()?.into_iter();
    let mut due: Vec<(Option<Timestamp>, PackId)> = packs
        .map(|pack| (reads.get(&pack).copied(), pack))
        .filter(|(read, _)| read.is_none_or(|read| least <= now.milliseconds_since(read)))
        .collect();
    due.sort_unstable();
    Ok(due.into_iter().map(|(_, pack)| pack).collect())
}

/// What all threads have read and not yet entered in the ledger.
struct Unsaved {
    reads: Vec<PackRead>,
    saved: Duration,
}

/// Reads packs one after another, and enters them in the ledger. Returns what was found, also if something ended it early.
fn read_packs(
    run: &Run<'_>,
    due: &[PackId],
    rows: &HashMap<PackId, PackRow>,
    options: &ScrubOptions,
) -> (Checked, Result<()>) {
    let store = run.store;
    let next = AtomicUsize::new(0);
    let saved = store.environment().clock.monotonic();
    let unsaved = Mutex::new(Unsaved { reads: Vec::new(), saved });
    let work = || {
        let mut worker = Worker::new(run);
        let mut read = || -> Result<()> {
            while let Some(pack) = due.get(next.fetch_add(1, Ordering::Relaxed)) {
                if run.progress.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let record_count =
                    rows.get(pack).map_or(PACK_RECORD_COUNT_MAX, |row| row.record_count);
                let _table_memory = run.memory.take_table(record_count);
                let before = worker.checked.reads.len();
                worker.check_whole_pack(pack)?;
                let now = store.environment().clock.monotonic();
                let mut unsaved = unsaved.lock().unwrap_or_else(PoisonError::into_inner);
                unsaved.reads.extend_from_slice(&worker.checked.reads[before..]);
                if options.save_interval <= now.saturating_sub(unsaved.saved) {
                    unsaved.saved = now;
                    let reads = std::mem::take(&mut unsaved.reads);
                    drop(unsaved);
                    store.enter_reads(&reads, run.progress)?;
                }
            }
            Ok(())
        };
        let result = read();
        (worker.checked, result)
    };
    let mut all = Checked::default();
    let mut results = Vec::new();
    for (checked, result) in on_threads(Some(run.memory.threads), due.len(), work) {
        all.add(checked);
        results.push(result);
    }
    let unsaved = unsaved.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.push(store.enter_reads(&unsaved.reads, run.progress));
    (all, results.into_iter().collect())
}

/// Finds out what the findings cost, and marks the revisions that are hit.
fn conclude(
    run: &Run<'_>,
    mut findings: Findings,
    damaged_copies: &BTreeSet<Copy>,
    rows: &HashMap<PackId, PackRow>,
) -> Result<(Vec<DamagedChunk>, Vec<RevisionId>)> {
    let store = run.store;
    set_aside(store, damaged_copies, run.progress)?;
    let harmless = findings.take(&replaced(store, &findings, damaged_copies)?);
    let missing: BTreeSet<PackId> =
        rows.values().filter(|row| row.is_missing).map(|row| row.id).collect();
    let known = add_known(store, &missing, &mut findings)?;
    if findings.is_empty() {
        return Ok((harmless.into_damaged(), Vec::new()));
    }
    let history = store.history(None)?;
    for damage in &history.damaged {
        run.progress.note(&damage.to_string());
    }
    let ids: Vec<RevisionId> =
        history.revisions.iter().map(|revision| revision.record.id).collect();
    let pinned = Pinned::of_those_left(store, &ids)?;
    let affected = run.attribute(&pinned.revisions, &mut findings)?;
    let is_aside = store.are_aside(findings.chunks())?;
    let hit = |id: &RevisionId| affected.contains(id);
    for revision in pinned.revisions.iter().filter(|revision| hit(&revision.record.id)) {
        note_result(store, revision, Outcome::Damaged { is_aside }, run.progress)?;
    }
    let mut damaged = findings.into_damaged();
    // Nobody needs what was lost before: its pack may have been purged a moment ago.
    damaged.retain(|damage| !damage.revisions.is_empty() || !known.contains(&damage.chunk));
    damaged.extend(harmless.into_damaged());
    damaged.sort_by_key(|damage| damage.chunk);
    Ok((damaged, affected))
}
