//! What operations do about damage that they found, and when it is over: `docs/trust.md`, section "Damage".
//!
//! The finding itself is what the operation returns. That it cannot be written down, because the store cannot be written, is a note.

use std::collections::{BTreeSet, HashSet};

use super::findings::Findings;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId, RevisionId};
use crate::index::Location;
use crate::progress::Progress;
use crate::quarantine::Copy;
use crate::store::Store;

/// Sets damaged copies aside.
pub(super) fn set_aside(
    store: &Store,
    copies: &BTreeSet<Copy>,
    progress: &dyn Progress,
) -> Result<()> {
    or_note(store.set_aside(copies), "what is damaged is not set aside", progress)
}

/// Sets revisions right that have again all that they need.
pub(super) fn heal(store: &Store, progress: &dyn Progress) -> Result<Vec<RevisionId>> {
    or_note(store.heal(progress), "revisions that are healed are not set right", progress)
}

/// Marks the revisions that need chunks which could not be read. Best effort: what could not be read is the error to report.
pub(super) fn mark_lost(store: &Store, lost: &HashSet<ChunkId>, progress: &dyn Progress) {
    if lost.is_empty() {
        return;
    }
    if let Err(error) = store.mark_hit(lost) {
        progress.note(&format!("the damage is not noted in the store: {error}"));
    }
}

/// Returns the chunks of which the index has another copy than those that were found damaged.
pub(super) fn replaced(
    store: &Store,
    findings: &Findings,
    damaged_copies: &BTreeSet<Copy>,
) -> Result<BTreeSet<ChunkId>> {
    let ids: BTreeSet<ChunkId> = damaged_copies.iter().map(|(_, id)| *id).collect();
    let ids: Vec<ChunkId> = ids.into_iter().filter(|id| findings.contains(id)).collect();
    let locations = store.index().view(|view| view.locate(&ids))?;
    let has_other_copy = |(id, location): &(ChunkId, Option<Location>)| {
        location.as_ref().is_some_and(|location| {
            !location.is_missing && !damaged_copies.contains(&(location.pack, *id))
        })
    };
    let replaced = ids.into_iter().zip(locations).filter(has_other_copy);
    Ok(replaced.map(|(id, _)| id).collect())
}

/// Adds the chunks that cannot be had although no pack with them was found damaged now: their pack is gone, or they were set aside
/// before. Returns them.
pub(super) fn add_known(
    store: &Store,
    missing: &BTreeSet<PackId>,
    findings: &mut Findings,
) -> Result<BTreeSet<ChunkId>> {
    let mut known = BTreeSet::new();
    for pack in missing {
        for (_, id) in store.index().view(|view| view.chunks_of(pack))? {
            let object = crate::error::ObjectName::Chunk { id, pack: Some(*pack) };
            findings.add(id, &Error::Missing { object });
            known.insert(id);
        }
    }
    let quarantine = store.index().quarantine()?;
    let ids: Vec<ChunkId> = quarantine.chunks().copied().collect();
    if ids.is_empty() {
        return Ok(known);
    }
    let locations = store.index().view(|view| view.locate(&ids))?;
    for (id, _) in ids.iter().zip(locations).filter(|(_, location)| location.is_none()) {
        if let Some(error) = quarantine.error_of(id).filter(|_| !findings.contains(id)) {
            findings.add(*id, &error);
            known.insert(*id);
        }
    }
    Ok(known)
}

fn or_note<T: Default>(result: Result<T>, what: &str, progress: &dyn Progress) -> Result<T> {
    match result {
        Err(error @ Error::Storage { .. }) => {
            progress.note(&format!("{what}: {error}"));
            Ok(T::default())
        }
        other => other,
    }
}
