//! The revisions of a source, and which of them may lose files.

use std::collections::BTreeSet;

use super::ThinOptions;
use super::judge::{is_complete, is_good};
use crate::chunk_reader::ChunkReader;
use crate::error::{Error, ObjectName, Result};
use crate::format::{RevisionKind, SessionKind};
use crate::id::{ChunkId, RevisionId, SourceName};
use crate::retention::{Refusal, clock_refusals};
use crate::revision::Revision;
use crate::session::Session;
use crate::store::Store;
use crate::time::Timestamp;

/// Roots that one session pins: its record must stay below the limit of a document.
const CANDIDATE_COUNT_MAX: usize = 8192;

/// What is looked at.
#[derive(Debug)]
pub(super) struct Scene {
    /// The revisions, oldest first, but for the superseded ones.
    pub(super) revisions: Vec<Revision>,
    /// Those of them that may lose files.
    pub(super) candidates: BTreeSet<RevisionId>,
    /// Revisions that a thinned one has taken the place of.
    pub(super) superseded: Vec<Revision>,
    /// Records that cannot be read.
    pub(super) damaged: Vec<Error>,
    /// Signs that the clock is wrong.
    pub(super) clock: Vec<Refusal>,
    pub(super) now: Timestamp,
}

impl Scene {
    /// Reads the history.
    pub(super) fn read(store: &Store, source: &SourceName, options: &ThinOptions) -> Result<Self> {
        let history = store.history(Some(source))?;
        let mut revisions = history.revisions;
        if let Some(Revision { record, .. }) =
            revisions.iter().find(|revision| revision.record.kind != RevisionKind::Tree)
        {
            let what = format!("revision {} is an image, not a tree of files", record.id);
            return Err(Error::InvalidOption { what });
        }
        let mut damaged = history.damaged;
        // A revision whose state is damaged is there, with all of its files; it is protected.
        damaged.retain(|error| {
            !matches!(error, Error::Damaged { object: ObjectName::State { .. }, .. })
        });
        let superseded: Vec<Revision> =
            revisions.iter().filter(|it| is_superseded(it, &revisions)).cloned().collect();
        revisions.retain(|revision| !superseded.contains(revision));
        let complete = revisions.iter().rfind(|revision| is_complete(revision));
        let kept = [revisions.last(), complete].map(|it| it.map(|revision| revision.record.id));
        let lost_lists = store.given_up()?;
        let mut candidates = BTreeSet::new();
        for revision in &revisions {
            let id = revision.record.id;
            if !revision.state.protected
                && is_good(revision)
                && !kept.contains(&Some(id))
                && options.candidates.contains(revision)
                && !has_lost_list(store, revision, &lost_lists)?
            {
                candidates.insert(id);
            }
        }
        if CANDIDATE_COUNT_MAX < candidates.len() {
            let count = candidates.len();
            let what =
                format!("{count} revisions are too many to be thinned at once, 8192 is most");
            return Err(Error::InvalidOption { what });
        }
        let now = store.environment().clock.now();
        let clock = clock_refusals(&revisions.iter().map(Into::into).collect::<Vec<_>>(), now);
        Ok(Self { revisions, candidates, superseded, damaged, clock, now })
    }

    /// Reads the history and registers a session that pins what may be thinned. Whoever opens the revisions after that finds
    /// which of them were forgotten meanwhile.
    pub(super) fn pinned(
        store: &Store,
        source: &SourceName,
        options: &ThinOptions,
    ) -> Result<(Self, Session)> {
        loop {
            let given_up = store.storage().list_given_up()?;
            let scene = Self::read(store, source, options)?;
            let roots = scene.chosen().map(|revision| revision.record.root).collect();
            let session = store.begin_session(SessionKind::Backup, roots)?;
            // From here on the sweep waits for this session before it takes what a list that is given up led to.
            if store.storage().list_given_up()? == given_up {
                return Ok((scene, session));
            }
        }
    }

    /// Returns whether there is nothing that could be done.
    pub(super) fn is_idle(&self) -> bool {
        self.candidates.is_empty() && self.superseded.is_empty()
    }

    /// Returns the revisions that may lose files, oldest first.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &Revision> {
        self.revisions.iter().filter(|revision| self.candidates.contains(&revision.record.id))
    }
}

/// Returns whether a thinned revision has taken the place of this one, and nobody has changed anything about either since.
fn is_superseded(revision: &Revision, all: &[Revision]) -> bool {
    let state = &revision.state;
    let takes_its_place = |other: &Revision| {
        other.record.thinned.is_some_and(|thinned| thinned.from == revision.record.id)
            && other.record.tags == state.tags
            && is_good(other)
    };
    !state.protected && is_good(revision) && all.iter().any(takes_its_place)
}

/// Returns whether a list of a revision was ever given up. Purges have not kept what lies below it, be it that it can be read again.
fn has_lost_list(
    store: &Store,
    revision: &Revision,
    lost_lists: &BTreeSet<ChunkId>,
) -> Result<bool> {
    if lost_lists.is_empty() {
        return Ok(false);
    }
    match ChunkReader::new(store).read_tree_root(&revision.record.root) {
        Ok(root) => Ok(lost_lists.contains(&revision.record.root)
            || root.pages.iter().any(|page| lost_lists.contains(&page.id))),
        Err(error) if error.is_damage() => Ok(true),
        Err(other) => Err(other),
    }
}
