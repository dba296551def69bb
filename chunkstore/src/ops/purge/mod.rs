//! Purge: give back the space that no revision and no session needs.
//!
//! Mark, condemn, repack, sweep, as `docs/concurrency.md`, section "Purge", has it. Nothing here waits for a backup, a restore or
//! a reader, and nothing makes them wait but short transactions on the index.
//!
//! Invariants: a pack leaves only if it is in a durable condemned list, no session that began before that list is
//! running, and no revision or pinned root that was there afterwards needs it. The list with the highest
//! generation is never removed: it is the counter.

mod copy;
mod execute;
mod lists;
mod needs;
mod repack;
mod survey;
mod sweep;
mod waiting;

use std::num::NonZero;
use std::time::Duration;

pub use self::execute::PurgeStats;
use self::needs::Purpose;
use self::survey::Survey;
pub use self::waiting::{WaitReason, Waiting};
use crate::ballast::{self, BALLAST_LEN_DEFAULT, Share};
use crate::error::Result;
use crate::lock::PurgeLock;
use crate::ops::MEMORY_DEFAULT;
use crate::progress::Progress;
use crate::store::Store;

/// Time that a condemned pack, and a pack of a session that did not finish, is kept by default.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// How to purge.
#[derive(Clone, Copy, Debug)]
pub struct PurgeOptions {
    /// How long a pack is kept after it was condemned, and after the death of the session that wrote it.
    pub grace: Duration,
    /// Bytes of memory that repacking may use for its buffers.
    pub memory: usize,
    /// How many bytes are read in a second to repack them; as many as can be if `None`.
    pub bytes_per_second: Option<NonZero<u64>>,
    /// Length in bytes of the file that keeps space for a purge on a full disk. It is made, if it is not there, and shorter
    /// where little is free; 0 for none.
    pub ballast_len: u64,
}

impl Default for PurgeOptions {
    fn default() -> Self {
        Self {
            grace: GRACE_DEFAULT,
            memory: MEMORY_DEFAULT,
            bytes_per_second: None,
            ballast_len: BALLAST_LEN_DEFAULT,
        }
    }
}

/// What a purge would do, in bytes of packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeSummary {
    /// Can be removed: condemned, grace over, no session in the way. With no grace, what would be
    /// condemned now counts too, repacked ones included, unless a session is in the way.
    pub free_bytes: u64,
    /// Would be written to new packs, to get rid of packs that are mostly dead, or small.
    pub repack_bytes: u64,
    /// Packs that revisions or sessions need, new ones included.
    pub keep_bytes: u64,
    /// Not needed, but not yet to be removed.
    pub defer_bytes: u64,
    /// What the deferred packs wait for, and who keeps what no revision needs.
    pub waiting: Vec<Waiting>,
}

/// A purge that is ready to run. It holds the purge lock.
#[derive(Debug)]
pub struct PurgePlan<'a> {
    store: &'a Store,
    options: PurgeOptions,
    survey: Survey,
    had_ballast: bool,
    _lock: PurgeLock,
}

impl PurgePlan<'_> {
    /// Returns what the purge would do. Reads the tables of packs that would be repacked.
    ///
    /// # Errors
    ///
    /// - [`crate::error::Error::Storage`].
    pub fn summary(&self) -> Result<PurgeSummary> {
        self.survey.summary(self.store, &self.options)
    }

    /// Runs the purge.
    ///
    /// A crash or an error at any step loses nothing that is needed; the next purge goes on from there. Where there is no
    /// space it goes on with that of the ballast, or of the index.
    ///
    /// # Errors
    ///
    /// - [`crate::error::Error::Storage`], [`crate::error::Error::Cancelled`].
    /// - [`crate::error::Error::Damaged`] or [`crate::error::Error::Missing`] if something that came
    ///   after the plan was made cannot be read.
    /// - [`crate::error::Error::InvalidOption`] if there is too little memory to repack.
    pub fn execute(self, progress: &dyn Progress) -> Result<PurgeStats> {
        let Self { store, options, survey, had_ballast, _lock } = self;
        let mut survey = Some(survey);
        let mut stats = PurgeStats::default();
        ballast::with_room(store, || {
            let survey = match survey.take() {
                Some(survey) => survey,
                None => Survey::take(store, &options, Purpose::Purge, progress)?,
            };
            stats.kept_bytes = 0;
            execute::execute(store, &options, survey, &mut stats, progress)
        })?;
        let share = if had_ballast { Share::Large } else { Share::Small };
        match ballast::restore(store, options.ballast_len, share) {
            Err(error) if error.is_out_of_space() => {
                progress.note(&format!("there is no ballast for the next full disk: {error}"));
            }
            other => drop(other?),
        }
        Ok(stats)
    }
}

/// Returns what a purge would do. Writes nothing but an index that has to be made anew, works also where nothing can be
/// written, and takes no lock: what others do meanwhile may change the result.
///
/// # Errors
///
/// As [`plan`], but for [`crate::error::Error::Locked`].
pub fn preview(
    store: &Store,
    options: &PurgeOptions,
    progress: &dyn Progress,
) -> Result<PurgeSummary> {
    Survey::take(store, options, Purpose::Preview, progress)?.summary(store, options)
}

/// Makes the file that keeps space for a purge on a full disk, if there is none. Every purge does that at its end. Returns whether it was made.
///
/// # Errors
///
/// - [`crate::error::Error::Storage`].
pub fn restore_ballast(store: &Store) -> Result<bool> {
    ballast::restore(store, BALLAST_LEN_DEFAULT, Share::Small)
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
/// let options = purge::PurgeOptions { grace: Duration::ZERO, ..Default::default() };
/// let plan = purge::plan(&store, &options, &NoProgress)?;
/// assert!(0 < plan.summary()?.free_bytes);
/// plan.execute(&NoProgress)?;
/// assert_eq!(ops::info(&store)?.stored_bytes, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn plan<'a>(
    store: &'a Store,
    options: &PurgeOptions,
    progress: &dyn Progress,
) -> Result<PurgePlan<'a>> {
    let had_ballast = ballast::exists(store)?;
    let (lock, survey) = ballast::with_room(store, || {
        let lock = store.lock_purge()?;
        Ok((lock, Survey::take(store, options, Purpose::Purge, progress)?))
    })?;
    Ok(PurgePlan { store, options: *options, survey, had_ballast, _lock: lock })
}
