//! The versions of each file of a source: all revisions of a tree at once, path by path.
//!
//! A *version* of a file is a content together with the time since when the file had it. The trees of the revisions are in the order of paths
//! and are merged as they are read, so one page of each is in memory: 64 KiB on average, 8 MiB at most. Revisions that have a page in
//! common, as most do, share it there too. Some hundred revisions are no burden.
//!
//! Invariants: whoever reads on has the revisions pinned, whatever is forgotten and purged meanwhile. A page that cannot be read is told of
//! as an error, once, and as a problem of each revision that has it; its files are unknown there, and the others go on.

mod file_versions;
mod merge;
mod path_filter;

use std::sync::Arc;

pub use self::file_versions::{FileVersions, Occurrence, Version};
use self::merge::Merge;
pub use self::path_filter::PathFilter;
use crate::error::{Error, ObjectName, Result};
use crate::format::{RevisionKind, TreeEntry};
use crate::id::{RevisionId, SourceName};
use crate::pinned::Pinned;
use crate::revision::Revision;
use crate::store::Store;
use crate::time::Timestamp;

/// A record, root or page that cannot be read, so that files of a revision are unknown.
#[derive(Debug)]
pub struct ListProblem {
    /// The revision.
    pub revision: RevisionId,
    /// What cannot be read, and why.
    pub error: Error,
}

/// The files of all revisions of a source, in the order of their paths: an iterator.
#[derive(Debug)]
pub struct Versions {
    pinned: Pinned,
    merge: Merge,
    times: Arc<[Timestamp]>,
    filter: PathFilter,
}

impl Versions {
    /// Opens all revisions of a source. Reads records and roots; pages follow as the iterator comes to them.
    ///
    /// Records that cannot be read are the first errors of the iterator.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if the source has revisions of images.
    /// - [`Error::Storage`] if the history cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// use chunkstore::store::{Store, StoreOptions};
    /// use chunkstore::versions::{PathFilter, Versions};
    ///
    /// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
    /// let mut versions = Versions::open(&store, &"graphite".parse()?, PathFilter::all())?;
    /// assert!(versions.next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(store: &Store, source: &SourceName, filter: PathFilter) -> Result<Self> {
        let history = store.history(Some(source))?;
        if let Some(Revision { record, .. }) =
            history.revisions.iter().find(|revision| revision.record.kind != RevisionKind::Tree)
        {
            let id = record.id;
            let what = format!("revision {id} of {source} is an image, not a tree of files");
            return Err(Error::InvalidOption { what });
        }
        let ids: Vec<RevisionId> =
            history.revisions.iter().map(|revision| revision.record.id).collect();
        let mut versions = Self::of(store, &ids, filter)?;
        for error in history.damaged {
            // A revision whose state is damaged is there, with all of its files.
            if let Error::Damaged { object: ObjectName::Revision { id, .. }, .. }
            | Error::UnsupportedFormat { object: ObjectName::Revision { id, .. }, .. } = error
            {
                versions.merge.add_problem(id, error);
            }
        }
        Ok(versions)
    }

    /// As [`Self::open`], of these revisions only, oldest first. Those that are forgotten meanwhile are left out.
    pub(crate) fn of(store: &Store, ids: &[RevisionId], filter: PathFilter) -> Result<Self> {
        let pinned = Pinned::of_those_left(store, ids)?;
        let merge = Merge::open(store, &pinned.revisions)?;
        let times = pinned.revisions.iter().map(|revision| revision.record.time).collect();
        Ok(Self { pinned, merge, times, filter })
    }

    /// Returns the revisions, oldest first. [`Occurrence::revision`] counts in them.
    #[must_use]
    pub fn revisions(&self) -> &[Revision] {
        &self.pinned.revisions
    }

    /// Returns what could not be read so far.
    #[must_use]
    pub fn problems(&self) -> &[ListProblem] {
        &self.merge.problems
    }

    /// Goes on with one version of each file: the newest one that it had before `date`, or the newest one if `None`.
    ///
    /// A version has its date, [`TreeEntry::since`], from the revision that has it first, so it may come from a revision after `date`. Files that are
    /// gone from later revisions are among them.
    #[must_use]
    pub fn select(self, date: Option<Timestamp>) -> Selection {
        Selection { versions: self, date, without_version_count: 0 }
    }
}

impl Iterator for Versions {
    type Item = Result<FileVersions>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.merge.next(&self.times)? {
                Ok(file) if !self.filter.matches(&file.path) => {}
                other => return Some(other),
            }
        }
    }
}

/// One version of each file, in the order of their paths: an iterator. Made by [`Versions::select`].
///
/// After an error it goes on: what a page that cannot be read has is told from other revisions, if they have it.
#[derive(Debug)]
pub struct Selection {
    versions: Versions,
    date: Option<Timestamp>,
    without_version_count: u64,
}

impl Selection {
    /// Returns how many files there were so far that have no version of before the date.
    #[must_use]
    pub const fn without_version_count(&self) -> u64 {
        self.without_version_count
    }

    /// Returns what could not be read so far.
    #[must_use]
    pub fn problems(&self) -> &[ListProblem] {
        self.versions.problems()
    }

    /// Returns the revisions, oldest first.
    #[must_use]
    pub fn revisions(&self) -> &[Revision] {
        self.versions.revisions()
    }
}

impl Iterator for Selection {
    type Item = Result<TreeEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let file = match self.versions.next()? {
                Ok(file) => file,
                Err(error) => return Some(Err(error)),
            };
            match file.before(self.date) {
                Some(entry) => return Some(Ok(TreeEntry::clone(entry))),
                None => self.without_version_count += 1,
            }
        }
    }
}
