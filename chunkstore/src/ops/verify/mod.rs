//! Verify: re-hash every chunk that revisions need, each one once, in the order in which packs hold them.

pub(in crate::ops) mod check;
pub(in crate::ops) mod memory;
pub(in crate::ops) mod pack_check;
mod proof;

use std::collections::HashSet;
use std::num::NonZero;

use self::check::Run;
use self::memory::Memory;
use super::findings::{DamagedChunk, Findings};
use super::healing::{heal, replaced, set_aside};
use crate::error::{Error, Result};
use crate::format::{RevisionState, Trust};
use crate::id::{PackId, RevisionId};
use crate::mark::Proof;
use crate::ops::MEMORY_DEFAULT;
use crate::pinned::Pinned;
use crate::progress::Progress;
use crate::revision::Revision;
use crate::store::Store;
use crate::time::Timestamp;

/// How to verify.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Threads that read and expand; as many as there are processors if `None`.
    pub threads: Option<NonZero<usize>>,
    /// Bytes of memory that all buffers share. Of the threads, only as many are started as this suffices for. The program itself and
    /// the allocator take more.
    pub memory: usize,
    /// Read also what was proven when another revision, or the same one, was verified. A medium can rot after a proof.
    pub all_data: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { threads: None, memory: MEMORY_DEFAULT, all_data: false }
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct VerifyStats {
    /// Chunks that were read, those of chunk lists included.
    pub checked_chunks: u64,
    /// Plain bytes of these chunks.
    pub checked_bytes: u64,
    /// Chunks that were not read, because verified revisions need them and they were read then.
    pub proven_chunks: u64,
    /// Chunks that cannot be had, and which bytes of which revisions that costs.
    pub damaged: Vec<DamagedChunk>,
    /// Packs with damage outside of needed chunks: in their header, their table, or in a record's header. What revisions
    /// need can still be read from them.
    pub damaged_packs: Vec<(PackId, String)>,
    /// Revisions that are verified now.
    pub verified: Vec<RevisionId>,
    /// Revisions that were damaged and are not any more, because the store has again what they need; without the verified ones.
    pub healed: Vec<RevisionId>,
    /// How long it took.
    pub duration_milliseconds: u64,
}

impl VerifyStats {
    /// Returns whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.damaged_packs.is_empty()
    }
}

/// Re-hashes every chunk that one of the revisions needs, and notes the result in their state: `verified`,
/// or `damaged`. Damaged chunks are set aside (`docs/trust.md`, section "Damage"). Packs that were read as a whole, because all of
/// their records are needed, are entered in the ledger.
///
/// What verified revisions of the store need was read when they were verified, and is not read again unless
/// [`VerifyOptions::all_data`] says so. Which proof counts: `docs/trust.md`, section "Proofs".
///
/// Damage does not end the verification; it is in the statistics.
///
/// # Errors
///
/// - [`Error::NoSuchRevision`].
/// - [`Error::Storage`] if the store cannot be read, or a state not written.
/// - [`Error::Cancelled`].
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions, VerifyOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let id = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?.id;
///
/// let stats = ops::verify(&store, &[id], &VerifyOptions::default(), &NoProgress)?;
/// assert!(stats.is_sound());
/// assert_eq!(stats.checked_chunks, 3); // The data, its page and the root.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify(
    store: &Store,
    ids: &[RevisionId],
    options: &VerifyOptions,
    progress: &dyn Progress,
) -> Result<VerifyStats> {
    let clock = &store.environment().clock;
    let started = clock.monotonic();
    // Before anything is looked up: a pack that is begun later was not read.
    let time = proof::time(store)?;
    for damage in store.index().reconcile()? {
        progress.note(&damage.to_string());
    }
    let pinned = Pinned::new(store, ids)?;
    let revisions = &pinned.revisions;
    let memory = Memory::divide(options, store.chunking())?;
    let mut run = Run { store, progress, memory, limit: None, proof: Proof::default() };
    if !options.all_data {
        run.proof = proof::collect(store, progress)?;
    }
    let checked = match run.check(revisions, false)? {
        Some(checked) => checked,
        None => {
            // The index lacks chunks, or names records that their packs do not have in these places.
            progress.note("the index does not fit to the packs and was rebuilt");
            store.index().renew()?;
            run.proof = Proof::default();
            run.check(revisions, true)?.ok_or_else(|| Error::Bug {
                what: "a new index contradicts the packs that it was built from".to_owned(),
            })?
        }
    };
    store.enter_reads(&checked.reads, progress)?;
    let mut findings = checked.findings;
    set_aside(store, &checked.damaged_copies, progress)?;
    let harmless = findings.take(&replaced(store, &findings, &checked.damaged_copies)?);
    let affected = run.attribute(revisions, &mut findings)?;
    let others = others(store, ids, &findings)?;
    let also_affected = run.attribute(&others.revisions, &mut findings)?;
    let is_aside = store.are_aside(findings.chunks())?;
    findings.merge(harmless);
    let mut stats = VerifyStats {
        checked_chunks: checked.chunks,
        checked_bytes: checked.bytes,
        proven_chunks: checked.proven,
        damaged: findings.into_damaged(),
        damaged_packs: checked.damaged_packs,
        ..VerifyStats::default()
    };
    for revision in revisions {
        let is_sound = !affected.contains(&revision.record.id);
        let result = match (is_sound, revision.state.trust) {
            (false, _) => Outcome::Damaged { is_aside },
            // Nobody has looked at all of it again, so its proof becomes no younger.
            (true, Trust::Verified) if !options.all_data => Outcome::Verified,
            (true, _) => Outcome::Proven(time),
        };
        if note_result(store, revision, result, progress)? && is_sound {
            stats.verified.push(revision.record.id);
        }
    }
    for revision in others.revisions.iter().filter(|it| also_affected.contains(&it.record.id)) {
        note_result(store, revision, Outcome::Damaged { is_aside }, progress)?;
    }
    stats.healed = heal(store, progress)?;
    let elapsed = clock.monotonic().saturating_sub(started);
    stats.duration_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Ok(stats)
}

/// What a verification says of a revision.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) enum Outcome {
    /// All that it needs was read, now or before; the time of the proof.
    Proven(Timestamp),
    /// It is verified already, and nothing speaks against it.
    Verified,
    /// It needs something that is damaged. Whether all of that is out of the index.
    Damaged { is_aside: bool },
}

/// Returns the other revisions of the store whose records can be read: what was found may hit them too. None if nothing was.
fn others(store: &Store, ids: &[RevisionId], findings: &Findings) -> Result<Pinned> {
    let mut others = Vec::new();
    if !findings.is_empty() {
        let named: HashSet<&RevisionId> = ids.iter().collect();
        let revisions = store.history(None)?.revisions.into_iter();
        others
            .extend(revisions.map(|revision| revision.record.id).filter(|id| !named.contains(id)));
    }
    Pinned::of_those_left(store, &others)
}

/// Writes the new trust of a revision, if the store can be written and the revision is still there; returns whether it did.
/// A doubt that came meanwhile stays.
///
/// The state is read again: tags and protection may have been edited while the chunks were read, and a distrust that came
/// meanwhile is not answered by what was read before.
pub(in crate::ops) fn note_result(
    store: &Store,
    revision: &Revision,
    outcome: Outcome,
    progress: &dyn Progress,
) -> Result<bool> {
    let record = &revision.record;
    let note =
        |error: &Error| progress.note(&format!("the result is not noted in the store: {error}"));
    if let Outcome::Damaged { is_aside } = outcome {
        return match store.mark_damaged(revision, is_aside) {
            Err(error @ Error::Storage { .. }) => {
                note(&error);
                Ok(false)
            }
            other => other,
        };
    }
    let lock = match store.lock_history() {
        Err(error @ Error::Storage { .. }) => {
            note(&error);
            return Ok(false);
        }
        other => other?,
    };
    let current = match store.read_revision(&record.source, &record.id)? {
        Some(current) => current.state,
        None => return Ok(false),
    };
    let doubt = |state: &RevisionState| (state.trust, state.doubted, state.rewritten);
    let is_answered = !current.is_doubted() || doubt(&current) == doubt(&revision.state);
    let state = match outcome {
        _ if !is_answered => return Ok(false),
        Outcome::Proven(time) => RevisionState {
            trust: Trust::Verified,
            verified: Some(time),
            doubted: None,
            heals_to: None,
            ..current
        },
        Outcome::Verified | Outcome::Damaged { .. } => return Ok(true),
    };
    match store.write_state(&lock, &record.source, &state) {
        Err(error @ Error::Storage { .. }) => {
            // The finding itself is not lost: it is what this operation returns.
            note(&error);
            Ok(false)
        }
        other => other.map(|()| true),
    }
}
