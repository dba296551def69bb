//! Purge: give back the space that no revision and no session needs.
//!
//! Mark, condemn, sweep, as `docs/concurrency.md`, section "Purge", has it. Nothing here waits for a backup, a restore or
//! a reader, and nothing makes them wait but short transactions on the index.
//!
//! Invariants: a pack leaves only if it is in a durable condemned list, no session that began before that list is
//! running, and no revision or pinned root that was there afterwards needs it. The list with the highest
//! generation is never removed: it is the counter.

mod execute;
mod survey;

use std::time::Duration;

pub use self::execute::PurgeStats;
use self::survey::Survey;
use crate::error::Result;
use crate::lock::PurgeLock;
use crate::progress::Progress;
use crate::store::Store;

/// Time that a condemned pack, and a pack of a session that did not finish, is kept by default.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// How to purge.
#[derive(Clone, Copy, Debug)]
pub struct PurgeOptions {
    /// How long a pack is kept after it was condemned, and after the death of the session that wrote it.
    pub grace: Duration,
}

impl Default for PurgeOptions {
    fn default() -> Self {
        Self { grace: GRACE_DEFAULT }
    }
}

/// What a purge would do, in bytes of packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeSummary {
    /// Can be removed: condemned, grace over, no session in the way. With no grace, what would be
    /// condemned now counts too, unless a session is in the way.
    pub free_bytes: u64,
    /// Would be rewritten to get rid of dead chunks in packs that are partly needed. Always 0: packs are kept whole.
    pub repack_bytes: u64,
    /// Packs that revisions or sessions need.
    pub keep_bytes: u64,
    /// Not needed, but not yet to be removed.
    pub defer_bytes: u64,
    /// What the deferred packs wait for.
    pub waiting: Vec<String>,
}

/// A purge that is ready to run. It holds the purge lock.
#[derive(Debug)]
pub struct PurgePlan<'a> {
    store: &'a Store,
    options: PurgeOptions,
    survey: Survey,
    _lock: PurgeLock,
}

impl PurgePlan<'_> {
    /// Returns what the purge would do.
    #[must_use]
    pub fn summary(&self) -> PurgeSummary {
        self.survey.summary(&self.options)
    }

    /// Runs the purge.
    ///
    /// A crash or an error at any step loses nothing that is needed; the next purge goes on from there.
    ///
    /// # Errors
    ///
    /// - [`crate::error::Error::Storage`].
    /// - [`crate::error::Error::Damaged`] or [`crate::error::Error::Missing`] if something that came
    ///   after the plan was made cannot be read.
    pub fn execute(self, progress: &dyn Progress) -> Result<PurgeStats> {
        execute::execute(self.store, &self.options, self.survey, progress)
    }
}

/// Finds out what revisions and sessions need, and what not. Changes nothing that can be needed.
///
/// # Errors
///
/// - [`crate::error::Error::Locked`] if another purge is running.
/// - [`crate::error::Error::Damaged`] or [`crate::error::Error::Missing`] if a revision record, a page
///   or a root cannot be read: what it needs is then unknown, and nothing may be removed until it is forgotten.
/// - [`crate::error::Error::Storage`], [`crate::error::Error::Cancelled`].
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use std::time::Duration;
///
/// use chunkstore::ops::{self, BackupOptions, purge};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let id = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?.id;
/// ops::forget(&store, &[id])?;
///
/// let options = purge::PurgeOptions { grace: Duration::ZERO };
/// let plan = purge::plan(&store, &options, &NoProgress)?;
/// assert!(0 < plan.summary().free_bytes);
/// plan.execute(&NoProgress)?;
/// assert_eq!(ops::info(&store)?.stored_bytes, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn plan<'a>(
    store: &'a Store,
    options: &PurgeOptions,
    progress: &dyn Progress,
) -> Result<PurgePlan<'a>> {
    let lock = store.lock_purge()?;
    let survey = Survey::take(store, options, progress)?;
    Ok(PurgePlan { store, options: *options, survey, _lock: lock })
}
