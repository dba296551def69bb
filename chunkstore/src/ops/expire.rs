//! Expire: drop the tags that a schedule does not keep, then the revisions without tags.
//!
//! What is dropped, and why, is decided by [`crate::retention`]; the order of writes is in `docs/durability.md`, section "Expire". Revisions of trees
//! can be thinned instead of being dropped: see [`ExpireOptions::thin`].

use jiff::tz::TimeZone;

use crate::ballast;
use crate::error::{Error, Result};
use crate::format::{RevisionKind, RevisionState};
use crate::id::{RevisionId, SourceName};
use crate::lock::HistoryLock;
use crate::ops::thin::{self, Candidates, ThinError, ThinOptions, ThinPlan, ThinStats};
use crate::progress::{NoProgress, Progress};
use crate::retention::{self, Candidate, Decision, Refusal, Schedule, Verdict};
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
    /// Revisions of trees that would be dropped lose their tags, and then the files that these options let go; they are
    /// the candidates, whatever the options say. Without meaning for images.
    pub thin: Option<ThinOptions>,
}

impl Default for ExpireOptions {
    fn default() -> Self {
        Self { schedule: Schedule::default(), timezone: TimeZone::UTC, force: false, thin: None }
    }
}

/// What an expiry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpireStats {
    /// What was decided, and done. It may have refusals, if they were overruled.
    pub verdict: Verdict,
    /// The revisions that are gone, oldest first. Those that a thinned one has taken the place of are not among them.
    pub removed: Vec<RevisionId>,
    /// What was thinned, if that was wanted.
    pub thinned: Option<ThinStats>,
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
    /// Tags were dropped, but nothing was thinned: no revision has lost anything. The next expiry does it.
    #[error(transparent)]
    Thin(Box<ThinError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<ThinError> for ExpireError {
    fn from(error: ThinError) -> Self {
        match error {
            ThinError::Store(error) => Self::Store(error),
            other => Self::Thin(Box::new(other)),
        }
    }
}

/// What would expire at the time of the plan.
#[derive(Debug)]
pub struct ExpirePlan<'a> {
    store: &'a Store,
    source: SourceName,
    options: ExpireOptions,
    verdict: Verdict,
    thinning: Option<ThinPlan<'a>>,
    damaged: Vec<Error>,
}

impl ExpirePlan<'_> {
    /// Returns what would become of each revision, and what speaks against it. Those that are dropped are thinned, if there is
    /// [`Self::thinning`].
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns what would be thinned, if that is wanted and the source is a tree.
    #[must_use]
    pub const fn thinning(&self) -> Option<&ThinPlan<'_>> {
        self.thinning.as_ref()
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
    /// - [`ExpireError::Thin`] if revisions were to be thinned, and could not be.
    /// - [`Error::Locked`] if a backup of the source is running.
    /// - [`Error::Storage`] if something cannot be read, written or removed.
    pub fn execute(self) -> Result<ExpireStats, ExpireError> {
        self.execute_with(&NoProgress)
    }

    /// As [`Self::execute`]. Only thinning takes long enough to tell how far it is, and to be stopped.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`], and [`Error::Cancelled`].
    pub fn execute_with(self, progress: &dyn Progress) -> Result<ExpireStats, ExpireError> {
        let source_lock = self.store.lock_source(&self.source)?;
        let (verdict, thin) = self.drop_tags_and_revisions()?;
        let Some(thin) = thin else {
            return Ok(ExpireStats {
                removed: verdict.removed().collect(),
                verdict,
                thinned: None,
            });
        };
        let thinned = thin::execute(self.store, &source_lock, &self.source, &thin, progress)?;
        Ok(ExpireStats { removed: thinned.removed.clone(), verdict, thinned: Some(thinned) })
    }

    /// Carries out what the schedule decides, and returns what is to be thinned after that, which takes locks of its own.
    fn drop_tags_and_revisions(&self) -> Result<(Verdict, Option<ThinOptions>), ExpireError> {
        let lock = self.store.lock_history()?;
        let history = self.store.history(Some(&self.source))?;
        let verdict = judge(self.store, &history, &self.options);
        if !verdict.refusals.is_empty() && !self.options.force {
            let (source_name, refusals) = (self.source.clone(), verdict.refusals);
            return Err(ExpireError::Refused { source_name, refusals });
        }
        // What makes the others dispensable must not vanish in a crash after they are gone.
        if verdict.removed().next().is_some() {
            self.store.storage().sync_source(&self.source)?;
        }
        // What is done already is done once more without harm.
        let thin = thin_options(&self.options, &history, &verdict);
        let apply = || apply(self.store, &lock, &history, &verdict, thin.is_some());
        ballast::with_ballast(self.store, apply)?;
        Ok((verdict, thin))
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
    let thin = thin_options(&options, &history, &verdict);
    let thinning = thin.map(|thin| thin::plan(store, &source, &thin)).transpose()?;
    Ok(ExpirePlan { store, source, options, verdict, thinning, damaged: history.damaged })
}

/// Returns whether the revisions of a source are thinned and not dropped.
fn is_thinned(history: &History, options: &ExpireOptions) -> bool {
    options.thin.is_some()
        && history.revisions.iter().all(|revision| revision.record.kind == RevisionKind::Tree)
}

/// Returns how the revisions are thinned that the schedule drops; `None` if they are removed.
fn thin_options(
    options: &ExpireOptions,
    history: &History,
    verdict: &Verdict,
) -> Option<ThinOptions> {
    let thin = options.thin.clone().filter(|_| is_thinned(history, options))?;
    let candidates = Candidates::Chosen(verdict.removed().collect());
    Some(ThinOptions { candidates, force: thin.force || options.force, ..thin })
}

fn judge(store: &Store, history: &History, options: &ExpireOptions) -> Verdict {
    let candidates: Vec<Candidate> = history.revisions.iter().map(Into::into).collect();
    let now = store.environment().clock.now();
    let mut verdict = retention::decide(&candidates, &options.schedule, now, &options.timezone);
    if is_thinned(history, options) {
        // No revision goes because of the schedule. What thinning removes is kept elsewhere, or gone for long; it judges the clock itself.
        let drops_tags = verdict.decisions.iter().any(loses_tags);
        verdict.refusals.retain(|refusal| match refusal {
            Refusal::MoreThanHalf { .. } | Refusal::LastGood { .. } => false,
            Refusal::Pause { .. } => drops_tags,
            Refusal::FromTheFuture { .. } => true,
        });
    }
    verdict
}

const fn loses_tags(decision: &Decision) -> bool {
    decision.tags_after.len() < decision.tags_before.len()
}

fn list(refusals: &[Refusal]) -> String {
    let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Carries decisions out, oldest revision first. A state that there is no space for comes last: what is removed before it gives
/// some back. `is_thinned`: what is dropped only loses its tags.
fn apply(
    store: &Store,
    lock: &HistoryLock,
    history: &History,
    verdict: &Verdict,
    is_thinned: bool,
) -> Result<()> {
    let mut delayed = Vec::new();
    for (Revision { record, state }, decision) in history.revisions.iter().zip(&verdict.decisions) {
        if decision.is_removed && !is_thinned {
            store.remove_revision(lock, &record.source, &record.id)?;
        } else if loses_tags(decision) {
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
