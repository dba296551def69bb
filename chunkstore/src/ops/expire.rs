//! Expire: drop the tags that a schedule does not keep, then the revisions without tags.
//!
//! What is dropped, and why, is decided by [`crate::retention`]; the order of writes is in `docs/durability.md`, section "Expire".

use jiff::tz::TimeZone;

use crate::ballast;
use crate::error::{Error, Result};
use crate::format::RevisionState;
use crate::id::{RevisionId, SourceName};
use crate::lock::HistoryLock;
use crate::retention::{self, Candidate, Refusal, Schedule, Verdict};
use crate::revision::{History, Revision};
use crate::store::Store;

/// How to expire.
#[derive(Clone, Debug)]
pub struct ExpireOptions {
    /// What is kept.
    pub schedule: Schedule,
    /// Where days, weeks, months and years begin.
    pub timezone: TimeZone,
    /// Do it although something speaks against it.
    pub force: bool,
}

impl Default for ExpireOptions {
    fn default() -> Self {
        Self { schedule: Schedule::default(), timezone: TimeZone::UTC, force: false }
    }
}

/// What an expiry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpireStats {
    /// What was decided, and done. It may have refusals, if they were overruled.
    pub verdict: Verdict,
    /// The revisions that are gone, oldest first.
    pub removed: Vec<RevisionId>,
}

/// Why revisions were not expired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpireError {
    /// Something speaks against it, and it was not forced. Nothing was changed.
    #[error("revisions of {source_name} do not expire: {}", list(refusals))]
    Refused {
        /// The source.
        source_name: SourceName,
        /// All that speaks against it; at least one.
        refusals: Vec<Refusal>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What would expire at the time of the plan.
#[derive(Debug)]
pub struct ExpirePlan<'a> {
    store: &'a Store,
    source: SourceName,
    options: ExpireOptions,
    verdict: Verdict,
    damaged: Vec<Error>,
}

impl ExpirePlan<'_> {
    /// Returns what would become of each revision, and what speaks against it.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns the records and states that cannot be read. Revisions without a record are left alone and keep nothing
    /// else from being kept.
    #[must_use]
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Expires what there is to expire now: the history is read and judged once more, when nobody can change it.
    ///
    /// A crash or an error does a part of it; the next expiry does the rest.
    ///
    /// # Errors
    ///
    /// - [`ExpireError::Refused`] if something speaks against it, unless the options force it.
    /// - [`Error::Locked`] if a backup of the source is running.
    /// - [`Error::Storage`] if something cannot be read, written or removed.
    pub fn execute(self) -> Result<ExpireStats, ExpireError> {
        let _source_lock = self.store.lock_source(&self.source)?;
        let lock = self.store.lock_history()?;
        let history = self.store.history(Some(&self.source))?;
        let verdict = judge(self.store, &history, &self.options);
        if !verdict.refusals.is_empty() && !self.options.force {
            let (source_name, refusals) = (self.source, verdict.refusals);
            return Err(ExpireError::Refused { source_name, refusals });
        }
        // What is done already is done once more without harm.
        ballast::with_ballast(self.store, || apply(self.store, &lock, &history, &verdict))?;
        Ok(ExpireStats { removed: verdict.removed().collect(), verdict })
    }
}

/// Finds out what of a source would expire now. Changes nothing and takes no locks.
///
/// # Errors
///
/// - [`Error::Storage`] if the history cannot be read. Damaged records are part of the plan.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions, expire};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::retention::{Schedule, TagRule};
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let options =
///     BackupOptions { tags: vec!["daily".to_owned()], ..BackupOptions::new("disk".parse()?) };
/// ops::backup(&store, &source, &options, &NoProgress)?;
///
/// let rule = TagRule::count("1d".parse()?, 7.try_into()?);
/// let schedule = Schedule::default().with_tag("daily", rule)?;
/// let options = expire::ExpireOptions { schedule, ..expire::ExpireOptions::default() };
/// let plan = expire::plan(&store, &"disk".parse()?, &options)?;
/// assert_eq!(plan.verdict().decisions[0].reasons[0].to_string(), "daily: newest of 7");
/// assert!(plan.execute()?.removed.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn plan<'a>(
    store: &'a Store,
    source: &SourceName,
    options: &ExpireOptions,
) -> Result<ExpirePlan<'a>> {
    let history = store.history(Some(source))?;
    let verdict = judge(store, &history, options);
    let (source, options) = (source.clone(), options.clone());
    Ok(ExpirePlan { store, source, options, verdict, damaged: history.damaged })
}

fn judge(store: &Store, history: &History, options: &ExpireOptions) -> Verdict {
    let candidate = |Revision { record, state }: &Revision| Candidate {
        id: record.id,
        time: record.time,
        tags: state.tags.clone(),
        trust: state.trust,
        protected: state.protected,
    };
    let candidates: Vec<Candidate> = history.revisions.iter().map(candidate).collect();
    let now = store.environment().clock.now();
    retention::decide(&candidates, &options.schedule, now, &options.timezone)
}

fn list(refusals: &[Refusal]) -> String {
    let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Carries decisions out, oldest revision first. A state that there is no space for comes last: what is removed before it gives
/// some back.
fn apply(store: &Store, lock: &HistoryLock, history: &History, verdict: &Verdict) -> Result<()> {
    let mut delayed = Vec::new();
    for (Revision { record, state }, decision) in history.revisions.iter().zip(&verdict.decisions) {
        if decision.is_removed {
            store.remove_revision(lock, &record.source, &record.id)?;
        } else if !decision.is_unchanged() {
            let mut state: RevisionState = state.clone();
            state.tags.retain(|tag| decision.tags_after.contains(tag));
            match store.write_state(lock, &record.source, &state) {
                Err(error) if error.is_out_of_space() => delayed.push((&record.source, state)),
                other => other?,
            }
        }
    }
    delayed.iter().try_for_each(|(source, state)| store.write_state(lock, source, state))
}
