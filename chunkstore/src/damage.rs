//! Marks revisions as damaged, and sets them right again.
//!
//! What follows from a mark: `docs/trust.md`, section "Damage". States are edited under `locks/history` and read again there.

use std::collections::{HashMap, HashSet};

use crate::chunk_reader::ChunkReader;
use crate::error::{Error, Result};
use crate::format::{PageEntry, RevisionState, Trust};
use crate::id::{ChunkId, RevisionId};
use crate::index::Location;
use crate::mark::Marker;
use crate::progress::Progress;
use crate::revision::Revision;
use crate::store::Store;

impl Store {
    /// Marks a revision as damaged; returns whether it is there. `is_aside`: nothing of what was found is in the index any more.
    pub(crate) fn mark_damaged(&self, revision: &Revision, is_aside: bool) -> Result<bool> {
        let record = &revision.record;
        let lock = self.lock_history()?;
        let Some(current) = self.read_revision(&record.source, &record.id)? else {
            return Ok(false);
        };
        let current = current.state;
        let before = match current.trust {
            Trust::Trusted | Trust::Verified => Some(Trust::Trusted),
            Trust::Distrusted => Some(Trust::Distrusted),
            // Damage that was not set aside stays, whatever comes.
            Trust::Damaged => current.heals_to,
        };
        let state = RevisionState {
            trust: Trust::Damaged,
            heals_to: before.filter(|_| is_aside),
            doubted: Some(self.environment().clock.now()),
            rewritten: None,
            ..current
        };
        self.write_state(&lock, &record.source, &state).map(|()| true)
    }

    /// Returns whether none of these chunks has a place in the index where something is.
    pub(crate) fn are_aside<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>) -> Result<bool> {
        let ids: Vec<ChunkId> = ids.copied().collect();
        let locations = self.index().view(|view| view.locate(&ids))?;
        Ok(locations.iter().flatten().all(|location| location.is_missing))
    }

    /// Marks all revisions that need one of these chunks, which a read could not get. A chunk that can be had by now is passed over.
    pub(crate) fn mark_hit(&self, chunks: &HashSet<ChunkId>) -> Result<Vec<RevisionId>> {
        let mut reader = ChunkReader::new(self);
        let mut pages = HashMap::new();
        let mut hit = Vec::new();
        for revision in self.history(None)?.revisions {
            if needs(&mut reader, &revision, chunks, &mut pages)? {
                hit.push(revision);
            }
        }
        let is_aside = self.are_aside(chunks.iter())?;
        let mut marked = Vec::new();
        for revision in hit {
            if self.mark_damaged(&revision, is_aside)? {
                marked.push(revision.record.id);
            }
        }
        Ok(marked)
    }

    /// Returns the chunks that are in quarantine and have no place that a new revision may rely on.
    pub(crate) fn unhealed_chunks(&self) -> Result<HashSet<ChunkId>> {
        let quarantine = self.index().quarantine()?;
        let ids: Vec<ChunkId> = quarantine.chunks().copied().collect();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let locations = self.index().view(|view| view.locate(&ids))?;
        let is_healed = |location: Location| location.accepts_new_references;
        let found = ids.into_iter().zip(locations);
        Ok(found
            .filter(|(_, location)| !location.is_some_and(is_healed))
            .map(|(id, _)| id)
            .collect())
    }

    /// Sets damaged revisions right of which all that was found damaged had left the index, and for which the index now has
    /// a place for everything. Returns them.
    pub(crate) fn heal(&self, progress: &dyn Progress) -> Result<Vec<RevisionId>> {
        let mut healed = Vec::new();
        for revision in self.healable(progress)? {
            if self.set_right(&revision)? {
                healed.push(revision.record.id);
            }
        }
        Ok(healed)
    }

    /// Returns the revisions that [`Self::heal`] would set right.
    pub(crate) fn healable(&self, progress: &dyn Progress) -> Result<Vec<Revision>> {
        let mut revisions = self.history(None)?.revisions;
        revisions.retain(|revision| revision.state.heals_to.is_some());
        let mut healable = Vec::new();
        for revision in revisions {
            // One marker for each: of a page that another revision needs too, the gaps below would be told once.
            let mut marker = Marker::new(self, progress);
            marker.mark_root(&revision.record.root)?;
            if marker.gaps.is_empty() {
                healable.push(revision);
            }
        }
        Ok(healable)
    }

    /// Takes the mark away, unless the state has changed since it was read.
    fn set_right(&self, revision: &Revision) -> Result<bool> {
        let Revision { record, state } = revision;
        let lock = self.lock_history()?;
        let Some(current) = self.read_revision(&record.source, &record.id)? else {
            return Ok(false);
        };
        let mark = |state: &RevisionState| (state.trust, state.heals_to, state.doubted);
        let Some(trust) = state.heals_to.filter(|_| mark(state) == mark(&current.state)) else {
            return Ok(false);
        };
        let doubted = current.state.doubted.filter(|_| trust == Trust::Distrusted);
        let state = RevisionState { trust, heals_to: None, doubted, ..current.state };
        self.write_state(&lock, &record.source, &state).map(|()| true)
    }
}

/// Returns whether a revision needs one of the chunks. `pages` are those that were read for other revisions.
fn needs(
    reader: &mut ChunkReader,
    revision: &Revision,
    chunks: &HashSet<ChunkId>,
    pages: &mut HashMap<ChunkId, bool>,
) -> Result<bool> {
    if chunks.contains(&revision.record.root) {
        return Ok(true);
    }
    let root = match reader.read_list_root(&revision.record.root) {
        Ok(root) => root,
        // Purged meanwhile, or damage of its own, which whoever reads it finds.
        Err(error) if error.is_damage() => return Ok(false),
        Err(other) => return Err(other),
    };
    for page in root.pages() {
        if chunks.contains(&page.id) {
            return Ok(true);
        }
        let is_hit = match pages.get(&page.id) {
            Some(known) => *known,
            None => {
                let is_hit = match reader.read_list_entries(root.kind(), &page, None) {
                    Ok(entries) => entries.iter().any(|entry| match entry {
                        PageEntry::Data { id, .. } => chunks.contains(id),
                        PageEntry::Zero { .. } => false,
                    }),
                    Err(error) if error.is_damage() => false,
                    Err(other) => return Err(other),
                };
                pages.insert(page.id, is_hit);
                is_hit
            }
        };
        if is_hit {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the chunk that an error of reading names, if its damage or loss is the reason.
pub(crate) fn chunk_of(error: &Error) -> Option<ChunkId> {
    use crate::error::ObjectName;
    match error {
        Error::Damaged { object: ObjectName::Chunk { id, .. }, .. }
        | Error::Missing { object: ObjectName::Chunk { id, .. } } => Some(*id),
        _ => None,
    }
}
