//! Thin: keep versions of files instead of whole revisions of a tree.
//!
//! What is kept of each file is decided in `judge`; what a revision then still needs stays in it: a *thinned* revision takes its place, with
//! its time and place in the history. The order of writes is in `docs/durability.md`, section "Thinning", the rules are in
//! `docs/retention.md`, section "Trees: versions of each file".
//!
//! Invariants: nothing is removed from the newest revision, and nothing on incomplete knowledge: where a list cannot be read, nothing
//! is thinned. Contents of files are neither read nor written.

mod judge;
mod replace;
mod rewrite;
mod scene;

use std::collections::BTreeSet;
use std::num::NonZero;
use std::time::Duration;

use self::replace::replace;
use self::rewrite::{Pass, Planned};
use self::scene::Scene;
use crate::error::Error;
use crate::id::{RevisionId, SourceName};
use crate::lock::SourceLock;
use crate::ops::MEMORY_DEFAULT;
use crate::ops::backup::write_lists;
use crate::progress::{NoProgress, Phase, Progress};
use crate::retention::{Refusal, is_manual};
use crate::revision::Revision;
use crate::store::Store;
use crate::time::Timestamp;
use crate::versions::PathFilter;

/// Which revisions may lose files. Never: the newest revision, the newest complete one that nothing speaks against, those that are
/// protected, distrusted or damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Candidates {
    /// Those without tags.
    #[default]
    Untagged,
    /// Those with none of these tags, and none that was put on by hand.
    WithoutTags(BTreeSet<String>),
    /// These.
    Chosen(BTreeSet<RevisionId>),
}

impl Candidates {
    fn contains(&self, revision: &Revision) -> bool {
        let mut tags = revision.state.tags.iter();
        match self {
            Self::Untagged => tags.len() == 0,
            Self::WithoutTags(names) => tags.all(|tag| !names.contains(tag) && !is_manual(tag)),
            Self::Chosen(ids) => ids.contains(&revision.record.id),
        }
    }
}

/// What is kept of the files of a tree.
#[derive(Clone, Debug)]
pub struct ThinOptions {
    /// How many different contents of each file are kept, the newest ones; all if `None`. Of each version one revision keeps it, the newest
    /// one that has it.
    pub versions: Option<NonZero<u32>>,
    /// When all that is left of a file goes that the newest revision does not have: when the newest one that has it is so old. Never if `None`,
    /// at once if zero.
    pub gone_after: Option<Duration>,
    /// Files that are judged. Of others everything is kept.
    pub filter: PathFilter,
    /// Revisions that files are removed from.
    pub candidates: Candidates,
    /// Do it although the clock looks wrong.
    pub force: bool,
    /// Bytes of memory that all buffers share, besides the trees themselves.
    pub memory: usize,
}

impl Default for ThinOptions {
    fn default() -> Self {
        Self {
            versions: None,
            gone_after: None,
            filter: PathFilter::all(),
            candidates: Candidates::default(),
            force: false,
            memory: MEMORY_DEFAULT,
        }
    }
}

/// What thinning does, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThinCounts {
    /// Files that are judged.
    pub files: u64,
    /// Revisions that may lose files.
    pub candidates: u64,
    /// Those of them that lose some.
    pub thinned_revisions: u64,
    /// Those that lose all, and so are gone.
    pub removed_revisions: u64,
    /// Revisions that were thinned before, but are still there because that was interrupted.
    pub superseded_revisions: u64,
    /// Places of a file in a revision that go.
    pub dropped_entries: u64,
    /// Versions of files that no revision has any more.
    pub dropped_versions: u64,
    /// Files of which something goes because they are gone from the source.
    pub gone_files: u64,
}

/// A revision that loses files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinnedRevision {
    /// The revision.
    pub id: RevisionId,
    /// When it was made.
    pub time: Timestamp,
    /// Files that it has.
    pub files_before: u64,
    /// Files that it keeps. If there are none, the revision goes.
    pub files_after: u64,
}

/// What was thinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThinStats {
    /// What was done.
    pub counts: ThinCounts,
    /// Revisions that another one has taken the place of, oldest first: which, and by which.
    pub replaced: Vec<(RevisionId, RevisionId)>,
    /// Revisions that are gone, because nothing was left or because another one had taken their place before; oldest first.
    pub removed: Vec<RevisionId>,
    /// Revisions that somebody changed meanwhile, and that are left as they are.
    pub skipped: Vec<RevisionId>,
    /// Bytes that new lists take in packs.
    pub stored_bytes: u64,
}

/// Why nothing was thinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThinError {
    /// Files would go because of their age, and the clock looks wrong. Nothing was changed.
    #[error("files of {source_name} are not thinned: {}", list(refusals))]
    Refused {
        /// The source.
        source_name: SourceName,
        /// All that speaks against it; at least one.
        refusals: Vec<Refusal>,
    },
    /// Not all is known of what revisions have, because something cannot be read. Nothing was changed.
    #[error("files of {source_name} are not thinned, because not all lists can be read")]
    Incomplete {
        /// The source.
        source_name: SourceName,
        /// The first thing that cannot be read.
        #[source]
        cause: Box<Error>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What would be thinned at the time of the plan.
#[derive(Debug)]
pub struct ThinPlan<'a> {
    store: &'a Store,
    source: SourceName,
    options: ThinOptions,
    planned: Planned,
}

impl ThinPlan<'_> {
    /// Returns what would be done, in figures.
    #[must_use]
    pub const fn expected(&self) -> &ThinCounts {
        &self.planned.counts
    }

    /// Returns the revisions that would lose files, oldest first.
    #[must_use]
    pub fn revisions(&self) -> &[ThinnedRevision] {
        &self.planned.revisions
    }

    /// Returns what speaks against it.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.planned.refusals
    }

    /// Returns what cannot be read. As long as there is something, nothing is thinned.
    #[must_use]
    pub fn damaged(&self) -> &[Error] {
        &self.planned.damaged
    }

    /// Thins what there is to thin now: the trees are read and judged once more, when no backup can add to them.
    ///
    /// A crash or an error does a part of it; the next thinning does the rest.
    ///
    /// # Errors
    ///
    /// - [`ThinError::Refused`] if the clock looks wrong and files would go because of their age, unless the options force it.
    /// - [`ThinError::Incomplete`] if a record, root or page cannot be read.
    /// - [`Error::Locked`] if a backup of the source is running.
    /// - [`Error::Cancelled`] if `progress` asks to stop.
    /// - [`Error::Storage`] if something cannot be read, written or removed.
    pub fn execute(self, progress: &dyn Progress) -> Result<ThinStats, ThinError> {
        let lock = self.store.lock_source(&self.source)?;
        execute(self.store, &lock, &self.source, &self.options, progress)
    }
}

/// Finds out what of a source would be thinned now. Reads all of its trees, changes nothing and takes no locks.
///
/// # Errors
///
/// - [`Error::InvalidOption`] if the source has revisions of images, or too many that may lose files.
/// - [`Error::Storage`] if the store cannot be read. What is damaged is part of the plan.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use chunkstore::ops::thin::{self, ThinOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let options = ThinOptions { versions: 5.try_into().ok(), ..ThinOptions::default() };
/// let plan = thin::plan(&store, &"graphite".parse()?, &options)?;
/// assert_eq!(plan.expected().dropped_entries, 0);
/// plan.execute(&NoProgress)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn plan<'a>(
    store: &'a Store,
    source: &SourceName,
    options: &ThinOptions,
) -> Result<ThinPlan<'a>, Error> {
    let scene = Scene::read(store, source, options)?;
    let mut pass = Pass::open(store, &scene, options)?;
    if !scene.is_idle() {
        pass.run(&NoProgress, None)?;
    }
    let planned = pass.into_planned(scene);
    let (source, options) = (source.clone(), options.clone());
    Ok(ThinPlan { store, source, options, planned })
}

/// Thins under the lock of the source.
pub(super) fn execute(
    store: &Store,
    _lock: &SourceLock,
    source: &SourceName,
    options: &ThinOptions,
    progress: &dyn Progress,
) -> Result<ThinStats, ThinError> {
    let mut scene = Scene::read(store, source, options)?;
    if scene.is_idle() {
        return match scene.damaged.pop() {
            Some(cause) => Err(incomplete(source, cause)),
            None => Ok(ThinStats::default()),
        };
    }
    store.storage().remove_leftovers()?;
    store.index().reconcile()?;
    let (scene, session) = Scene::pinned(store, source, options)?;
    progress.begin(Phase::Thin, None);
    let mut pass = Pass::open(store, &scene, options)?;
    let ((), stored_bytes) = write_lists(store, &session, options.memory, |writer| {
        if pass.must_stop(&scene) { Ok(()) } else { pass.run(progress, Some(writer)) }
    })?;
    progress.end();
    if pass.must_stop(&scene) {
        let planned = pass.into_planned(scene);
        return Err(match planned.damaged.into_iter().next() {
            Some(cause) => incomplete(source, cause),
            None => {
                let (source_name, refusals) = (source.clone(), planned.refusals);
                ThinError::Refused { source_name, refusals }
            }
        });
    }
    let (trees, counts) = pass.into_trees();
    let stats = ThinStats { counts, stored_bytes, ..ThinStats::default() };
    // What makes the others dispensable may be of a process that died before its sync. It must not vanish after they are gone.
    store.storage().sync_source(source)?;
    Ok(replace(store, session, &scene, trees, stats)?)
}

fn incomplete(source: &SourceName, cause: Error) -> ThinError {
    ThinError::Incomplete { source_name: source.clone(), cause: Box::new(cause) }
}

fn list(refusals: &[Refusal]) -> String {
    let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
