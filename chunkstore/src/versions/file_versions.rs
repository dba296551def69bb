//! One file in all revisions: where it occurs, and which versions of it that are.

use std::sync::Arc;

use crate::format::{TreeEntry, TreePath};
use crate::time::Timestamp;

/// A file in one revision.
#[derive(Clone, Debug)]
pub struct Occurrence {
    /// Place of the revision among those that are looked at, counted from the oldest.
    pub revision: usize,
    /// The file there.
    pub entry: Arc<TreeEntry>,
}

impl Occurrence {
    /// Returns whether two occurrences are of the same version: the same content, since the same time.
    #[must_use]
    pub fn is_same_version(&self, other: &Self) -> bool {
        let (one, two) = (&self.entry, &other.entry);
        Arc::ptr_eq(one, two) || (one.since == two.since && one.content == two.content)
    }
}

/// A content that a file had for some time.
#[derive(Clone, Debug)]
pub struct Version {
    /// Since when the file had it: the date of the version.
    pub since: Timestamp,
    /// Length of the file in bytes.
    pub len: u64,
    /// Places of the revisions that have it, newest first.
    pub revisions: Vec<usize>,
    /// Whether the newest revision has it.
    pub is_current: bool,
    /// The time of the newest revision that has it.
    pub last_seen: Timestamp,
    /// The file in that revision.
    pub entry: Arc<TreeEntry>,
}

/// One file in all revisions.
#[derive(Clone, Debug)]
pub struct FileVersions {
    /// Where it lies in the tree.
    pub path: TreePath,
    /// Where it is, newest revision first; at least one.
    pub occurrences: Vec<Occurrence>,
    /// Times of all revisions that are looked at.
    pub(super) times: Arc<[Timestamp]>,
}

impl FileVersions {
    /// Returns the versions, newest first. A content that the file had twice, with another one or nothing between, is two versions.
    #[must_use]
    pub fn versions(&self) -> Vec<Version> {
        self.runs().map(|run| self.version(run)).collect()
    }

    /// Returns the occurrences of each version, newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &[Occurrence]> {
        self.occurrences.chunk_by(Occurrence::is_same_version)
    }

    /// Returns whether the newest revision has the file.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.occurrences.first().is_some_and(|newest| newest.revision + 1 == self.times.len())
    }

    /// Returns the time of the newest revision that has the file.
    #[must_use]
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.occurrences.first().map(|newest| self.times[newest.revision])
    }

    /// Returns the file in its newest version of before `date`, or in its newest one if `None`.
    #[must_use]
    pub fn before(&self, date: Option<Timestamp>) -> Option<&TreeEntry> {
        let is_before = |found: &&Occurrence| date.is_none_or(|date| found.entry.since < date);
        self.occurrences.iter().find(is_before).map(|found| found.entry.as_ref())
    }

    fn version(&self, run: &[Occurrence]) -> Version {
        let Occurrence { revision, entry } = run.first().expect("a run has occurrences");
        Version {
            since: entry.since,
            len: entry.len(),
            revisions: run.iter().map(|found| found.revision).collect(),
            is_current: revision + 1 == self.times.len(),
            last_seen: self.times[*revision],
            entry: Arc::clone(entry),
        }
    }
}
