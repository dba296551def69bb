//! Puts thinned revisions in the places of those that they come from.

use super::ThinStats;
use super::rewrite::NewTree;
use super::scene::Scene;
use crate::ballast;
use crate::error::Result;
use crate::format::{RevisionRecord, Thinned};
use crate::id::{ChunkId, RevisionId, SessionId};
use crate::lock::HistoryLock;
use crate::revision::Revision;
use crate::session::Session;
use crate::store::Store;

/// Commits the new trees, which are durable, and removes what they take the place of, oldest first. Ends the session.
pub(super) fn replace(
    store: &Store,
    session: Session,
    scene: &Scene,
    trees: Vec<NewTree>,
    mut stats: ThinStats,
) -> Result<ThinStats> {
    for revision in &scene.superseded {
        let id = revision.record.id;
        if change(store, revision, |lock| remove(store, lock, revision))? {
            stats.removed.push(id);
        } else {
            stats.skipped.push(id);
        }
    }
    for tree in trees {
        let id = tree.revision.record.id;
        let new = tree.root_id.map(|root| record(store, &tree, root, session.record.id));
        let is_done = change(store, &tree.revision, |lock| {
            if let Some(new) = &new {
                match store.read_revision(&new.source, &new.id)? {
                    None => store.commit_record(new)?,
                    // Begun anew after a full disk, where it may have come to its name and no further.
                    Some(_) => store.storage().sync_source(&new.source)?,
                }
            }
            remove(store, lock, &tree.revision)
        })?;
        match new {
            _ if !is_done => stats.skipped.push(id),
            Some(new) => stats.replaced.push((id, new.id)),
            None => stats.removed.push(id),
        }
    }
    session.finish();
    if !stats.replaced.is_empty() {
        // What was found damaged meanwhile was marked in revisions that are gone by now: the new ones need it as well.
        let lost = store.unhealed_chunks()?;
        if !lost.is_empty() {
            store.mark_hit(&lost)?;
        }
    }
    Ok(stats)
}

/// Makes a change to a revision, unless somebody has removed it or changed its state since it was decided. Returns whether it was made.
fn change(
    store: &Store,
    revision: &Revision,
    mut make: impl FnMut(&HistoryLock) -> Result<()>,
) -> Result<bool> {
    let Revision { record, state } = revision;
    let lock = store.lock_history()?;
    match store.read_revision(&record.source, &record.id)? {
        Some(current) if current.state == *state => {}
        _ => return Ok(false),
    }
    ballast::with_ballast(store, || make(&lock)).map(|()| true)
}

fn remove(store: &Store, lock: &HistoryLock, revision: &Revision) -> Result<()> {
    store.remove_revision(lock, &revision.record.source, &revision.record.id)
}

/// Returns the record of what stays of a revision.
fn record(store: &Store, tree: &NewTree, root: ChunkId, session: SessionId) -> RevisionRecord {
    let Revision { record, state } = &tree.revision;
    let mut random = [0; RevisionId::LEN];
    store.environment().entropy.fill(&mut random);
    let complete_entries =
        record.thinned.map_or(tree.files_before, |thinned| thinned.complete_entries);
    RevisionRecord {
        id: RevisionId::from_bytes(random),
        session,
        size: tree.root.content_len(),
        root,
        tags: state.tags.clone(),
        thinned: Some(Thinned { from: record.id, complete_entries }),
        ..record.clone()
    }
}
