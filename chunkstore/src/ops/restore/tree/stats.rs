//! What the restore of a tree did, and what went wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Lost, LostChunks};
use crate::damage::chunk_of;
use crate::error::Error;
use crate::format::TreeEntry;
use crate::id::ChunkId;
use crate::ops::findings::with_causes;
use crate::target::{Outcome, Restored, TargetFileError};

/// Files that are told by name, of each kind.
const NAMED_COUNT_MAX: usize = 1000;

/// Why a file was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeProblemReason {
    /// A chunk of it, or the list that tells which files there are, is damaged or missing in the store.
    #[error("{reason}")]
    Damaged {
        /// The chunk.
        chunk: Option<ChunkId>,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not fit into the memory that the restore may use.
    #[error("it has {len} bytes, for which there is not enough memory")]
    TooLong {
        /// Its length in bytes, or that of the file that exists if that is longer.
        len: u64,
    },
    /// The target does not take it.
    #[error(transparent)]
    Target(TargetFileError),
}

impl TreeProblemReason {
    /// Returns whether the store is damaged.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// A file that was not restored.
#[derive(Debug)]
pub struct TreeProblem {
    /// Where it lies in the tree, for people. `None`: nobody knows which files are meant, because the list of them is damaged.
    pub path: Option<String>,
    /// Why.
    pub reason: TreeProblemReason,
}

/// A file of the target that was no whisper file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeSetAside {
    /// Where it was, and where its successor is.
    pub path: String,
    /// The name that it has now, in the same directory.
    pub name: String,
}

/// What the restore of a tree did; in a dry run, what it would have done.
#[derive(Debug, Default)]
pub struct TreeRestoreStats {
    /// Files that were to be restored.
    pub files: u64,
    /// Those that were absent, or set aside, and were written whole.
    pub written: u64,
    /// Those that had another content, which was replaced.
    pub replaced: u64,
    /// Those that had gaps, which were filled.
    pub backfilled: u64,
    /// Those that had everything already.
    pub unchanged: u64,
    /// Those that existed and were left alone.
    pub skipped: u64,
    /// Points that files have now and had not before, over all archives; of those that were backfilled.
    pub filled_points: u64,
    /// Points that have another value now; of those that were backfilled.
    pub replaced_points: u64,
    /// Bytes of files that were written whole.
    pub written_bytes: u64,
    /// Bytes that were written into files.
    pub filled_bytes: u64,
    /// Files that belong to whoever runs this, because their owner could not be set.
    pub owner_kept: u64,
    /// How many files of the target were no whisper files and have another name now.
    pub set_aside_count: u64,
    /// The first thousand of these.
    pub set_aside: Vec<TreeSetAside>,
    /// How many problems there were.
    pub problem_count: u64,
    /// How many of them are damage of the store.
    pub damage_count: u64,
    /// The first thousand of them.
    pub problems: Vec<TreeProblem>,
    /// How long it took.
    pub duration_milliseconds: u64,
}

/// Adds up what all threads do.
#[derive(Debug, Default)]
pub(super) struct Totals {
    state: Mutex<(TreeRestoreStats, LostChunks)>,
}

impl Totals {
    fn state(&self) -> MutexGuard<'_, (TreeRestoreStats, LostChunks)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_parts(self) -> (TreeRestoreStats, LostChunks) {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a file that the target has taken, or has already.
    pub(super) fn add(&self, entry: &TreeEntry, restored: &Restored) {
        let (stats, _) = &mut *self.state();
        stats.files += 1;
        match restored.outcome {
            Outcome::Written { keeps_owner } => {
                stats.written += 1;
                stats.written_bytes += entry.len();
                stats.owner_kept += u64::from(keeps_owner);
            }
            Outcome::Replaced { keeps_owner } => {
                stats.replaced += 1;
                stats.written_bytes += entry.len();
                stats.owner_kept += u64::from(keeps_owner);
            }
            Outcome::Backfilled { stats: filled, len } => {
                stats.backfilled += 1;
                stats.filled_points += filled.filled_points;
                stats.replaced_points += filled.replaced_points;
                stats.filled_bytes += len;
            }
            Outcome::Unchanged => stats.unchanged += 1,
            Outcome::Skipped | Outcome::NeedsRoom { .. } => stats.skipped += 1,
        }
        if let Some(name) = &restored.set_aside {
            stats.set_aside_count += 1;
            if stats.set_aside.len() < NAMED_COUNT_MAX {
                let (path, name) = (entry.path.to_string(), name.display().to_string());
                stats.set_aside.push(TreeSetAside { path, name });
            }
        }
    }

    /// Counts a file that was not restored.
    pub(super) fn fail(&self, entry: &TreeEntry, reason: TreeProblemReason) {
        let (stats, _) = &mut *self.state();
        stats.files += 1;
        add_problem(stats, Some(entry.path.to_string()), reason);
    }

    /// Counts a file of which a chunk cannot be had.
    pub(super) fn lose(&self, entry: &TreeEntry, lost: Lost) {
        let (stats, chunks) = &mut *self.state();
        stats.files += 1;
        chunks.insert(lost.chunk);
        let reason = TreeProblemReason::Damaged { chunk: Some(lost.chunk), reason: lost.reason };
        add_problem(stats, Some(entry.path.to_string()), reason);
    }

    /// Counts files of which not even the names can be had.
    pub(super) fn lose_list(&self, error: &Error) {
        let (stats, chunks) = &mut *self.state();
        let chunk = chunk_of(error);
        chunks.extend(chunk);
        add_problem(stats, None, TreeProblemReason::Damaged { chunk, reason: with_causes(error) });
    }
}

fn add_problem(stats: &mut TreeRestoreStats, path: Option<String>, reason: TreeProblemReason) {
    stats.problem_count += 1;
    stats.damage_count += u64::from(reason.is_damage());
    if stats.problems.len() < NAMED_COUNT_MAX {
        stats.problems.push(TreeProblem { path, reason });
    }
}
