//! Repair: make anew what can be made anew, and move aside what nobody can read, so that purges go on.
//!
//! Order of the steps: `docs/durability.md`, section "Repair"; beside whom: `docs/concurrency.md`, section "Repair".
//!
//! Invariants: nothing is deleted. Bytes that cannot be decoded are in `quarantine/` before anything takes their place. A list is
//! given up only if an index that was just made has no place for it, or if it is in quarantine. What a newer program wrote
//! is left alone, and ends the repair before it has changed anything.

mod lists;
mod records;

use std::collections::BTreeSet;
use std::path::PathBuf;

use self::lists::Lists;
use super::findings::DamagedChunk;
use crate::error::{Error, Result};
use crate::id::{ChunkId, RevisionId, SourceName};
use crate::index::Condemned;
use crate::pinned::Pinned;
use crate::progress::{NoProgress, Progress};
use crate::store::Store;

/// What a repair did, or would do.
#[derive(Debug, Default)]
pub struct RepairStats {
    /// Packs in the index.
    pub packs: u64,
    /// Packs that are damaged as a whole, or whose tables are.
    pub damaged_packs: Vec<Error>,
    /// Revision records that cannot be decoded. They and their states are in quarantine now.
    pub moved_records: Vec<AsideFile>,
    /// Damaged states that were replaced. What they were is in quarantine; the revisions are distrusted and protected.
    pub replaced_states: Vec<AsideFile>,
    /// Roots and pages with a damaged copy that was set aside. In a plan: unless another reading finds it sound.
    pub set_aside: Vec<ChunkId>,
    /// Revisions that are marked as damaged now and were not before.
    pub marked: Vec<RevisionId>,
    /// Revisions that were damaged and are not any more, because the store has again what they need.
    pub healed: Vec<RevisionId>,
    /// Roots and pages that nobody can serve and that no longer stop a purge. In a plan: unless another copy is found.
    pub given_up: Vec<ChunkId>,
    /// Generations of condemned lists that cannot be read. The next purge moves them aside.
    pub condemned_lists: Vec<u64>,
    /// Chunks, pages and roots that cannot be had, as far as that is known, and which bytes of which revisions that costs.
    pub damaged: Vec<DamagedChunk>,
}

/// A file of a revision that is in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsideFile {
    /// The source.
    pub source: SourceName,
    /// The revision.
    pub id: RevisionId,
    /// Where the file is now; in a plan, where it would be if no other file is there already.
    pub path: PathBuf,
}

impl RepairStats {
    /// Returns whether all revisions that there were can be read, as far as that is known.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.moved_records.is_empty() && self.damaged.is_empty()
    }
}

/// A repair that is ready to run.
#[derive(Debug)]
pub struct RepairPlan<'a> {
    store: &'a Store,
    expected: RepairStats,
}

impl RepairPlan<'_> {
    /// Returns what the repair would do.
    #[must_use]
    pub const fn expected(&self) -> &RepairStats {
        &self.expected
    }

    /// Runs the repair. It looks again: what is damaged is read twice before anything follows from it.
    ///
    /// A crash or an error at any step loses nothing; the next repair goes on from there. A second repair finds nothing to do.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`] if the store cannot be read or written.
    /// - [`Error::UnsupportedFormat`] if a newer program wrote something that came after the plan was made.
    /// - [`Error::Cancelled`].
    pub fn execute(self, progress: &dyn Progress) -> Result<RepairStats> {
        let store = self.store;
        let mut stats = RepairStats::default();
        let ids = records::settle(store, &mut stats)?;
        let mut rebuilt = store.index().rebuild(progress)?;
        refuse_newer(&rebuilt.damaged)?;
        let pinned = Pinned::of_those_left(store, &ids)?;
        // Readers set aside at most a few copies by themselves, so all are collected first.
        let passive = store.passive()?;
        let mut lists = Lists::read(&passive, &pinned.revisions, progress)?;
        if lists.has_lost() && !rebuilt.damaged.is_empty() {
            // It may be that a pack was read wrongly.
            rebuilt = store.index().rebuild(&NoProgress)?;
            lists = Lists::read(&passive, &pinned.revisions, progress)?;
        }
        if !lists.damaged_copies.is_empty() {
            store.set_aside(&lists.damaged_copies)?;
            let quarantine = store.index().quarantine()?;
            let aside =
                lists.damaged_copies.iter().filter(|(pack, id)| quarantine.contains(pack, id));
            stats.set_aside = unique(aside.map(|(_, id)| *id));
            lists = Lists::read(&passive, &pinned.revisions, progress)?;
        }
        let (affected, is_aside) = lists.attribute(&passive, &pinned.revisions)?;
        for revision in lists::to_mark(&affected, is_aside) {
            if store.mark_damaged(revision, is_aside)? {
                stats.marked.push(revision.record.id);
            }
        }
        stats.healed = store.heal(progress)?;
        let given_up: BTreeSet<ChunkId> =
            lists.unserved.difference(&store.given_up()?).copied().collect();
        store.give_up(&given_up)?;
        stats.given_up = given_up.into_iter().collect();
        stats.packs = rebuilt.packs;
        stats.damaged_packs = rebuilt.damaged;
        stats.condemned_lists = damaged_condemned_lists(store)?;
        stats.damaged = lists.findings.into_damaged();
        Ok(stats)
    }
}

/// Finds out what a repair would do. Writes nothing but an index that has to be made anew, and works also where nothing can be
/// written.
///
/// Roots and pages of all revisions are read, chunks are not: that a chunk is damaged is known here only if somebody has read it.
/// `verify` with all data finds out the rest.
///
/// # Errors
///
/// - [`Error::UnsupportedFormat`] if a newer program wrote something in the store.
/// - [`Error::Storage`] if the store cannot be read.
/// - [`Error::Cancelled`].
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use chunkstore::ops::repair;
/// use chunkstore::progress::NoProgress;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let plan = repair::plan(&store, &NoProgress)?;
/// assert!(plan.expected().is_sound());
/// assert!(plan.execute(&NoProgress)?.is_sound());
/// # Ok::<(), chunkstore::error::Error>(())
/// ```
pub fn plan<'a>(store: &'a Store, progress: &dyn Progress) -> Result<RepairPlan<'a>> {
    let store_of_caller = store;
    let store = &store.passive()?;
    let mut expected = RepairStats::default();
    let ids = records::expect(store, &mut expected)?;
    expected.condemned_lists = damaged_condemned_lists(store)?;
    expected.damaged_packs = store.index().reconcile()?;
    refuse_newer(&expected.damaged_packs)?;
    let pinned = Pinned::of_those_left(store, &ids)?;
    let mut lists = Lists::read(store, &pinned.revisions, progress)?;
    if lists.lacks_a_place {
        progress.note("the index lacks something and was made anew");
        store.index().renew()?;
        lists = Lists::read(store, &pinned.revisions, progress)?;
    }
    let (affected, is_aside) = lists.attribute(store, &pinned.revisions)?;
    expected.set_aside = unique(lists.damaged_copies.iter().map(|(_, id)| *id));
    // What is damaged now is aside when the repair has run.
    let is_aside = is_aside || lists.damaged_copies.len() == lists.findings.chunks().count();
    expected.marked = lists::to_mark(&affected, is_aside).map(|it| it.record.id).collect();
    expected.healed = store.healable(progress)?.iter().map(|it| it.record.id).collect();
    let mut given_up = std::mem::take(&mut lists.unserved);
    given_up.extend(&expected.set_aside);
    given_up.extend(&lists.in_missing_packs);
    expected.given_up = given_up.difference(&store.given_up()?).copied().collect();
    expected.packs = store.index().view(|view| view.packs())?.len() as u64;
    expected.damaged = lists.findings.into_damaged();
    Ok(RepairPlan { store: store_of_caller, expected })
}

/// Returns the generations of condemned lists that cannot be read.
fn damaged_condemned_lists(store: &Store) -> Result<Vec<u64>> {
    let condemned = Condemned::read(store.storage())?;
    condemned.refuse_newer_format()?;
    Ok(condemned.damaged.into_iter().map(|(generation, _)| generation).collect())
}

/// Returns the first of these errors that is about a newer format.
fn refuse_newer(errors: &[Error]) -> Result<()> {
    match errors.iter().find_map(lists::as_newer_format) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn unique(ids: impl Iterator<Item = ChunkId>) -> Vec<ChunkId> {
    ids.collect::<BTreeSet<ChunkId>>().into_iter().collect()
}
