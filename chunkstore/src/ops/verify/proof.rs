//! Which verified revisions prove that chunks were read, and since when (`docs/trust.md`, section "Proofs").

use std::collections::HashMap;

use crate::error::Result;
use crate::format::Trust;
use crate::id::{ChunkId, PackId};
use crate::mark::Proof;
use crate::progress::Progress;
use crate::session;
use crate::store::Store;
use crate::time::Timestamp;

/// Returns the time of a proof that begins now. Every pack that is sealed from now on is younger: it was begun by a session
/// that begins later, or by one that runs already.
pub(super) fn time(store: &Store) -> Result<Timestamp> {
    let now = store.environment().clock.now();
    let sessions = session::list(store.environment(), store.layout())?;
    let writers = sessions.iter().filter(|session| session.is_alive).map(|session| {
        // A session that cannot be read may have begun at any time.
        session
            .record
            .as_ref()
            .map_or(Some(Timestamp(0)), |record| record.kind.is_writer().then_some(record.started))
    });
    Ok(writers.flatten().fold(now, Timestamp::min))
}

/// Collects what the verified revisions of the store prove. A proof that is older than a doubt about any revision does not count, nor
/// one from before the index led a chunk to another copy.
pub(super) fn collect(store: &Store, progress: &dyn Progress) -> Result<Proof> {
    let history = store.history(None)?;
    let doubts = history.revisions.iter().filter(|revision| revision.state.is_doubted());
    // A doubt without a time is younger than any proof.
    let doubted =
        doubts.map(|revision| revision.state.doubted.unwrap_or(Timestamp(i64::MAX))).max();
    let moved = store.index().view(|view| view.moved())?;
    let verified = history.revisions.iter().filter(|it| it.state.trust == Trust::Verified);
    let mut roots: Vec<(ChunkId, Timestamp)> = verified
        .filter_map(|revision| Some((revision.record.root, revision.state.verified?)))
        .filter(|(_, time)| moved < *time && doubted.is_none_or(|doubted| doubted < *time))
        .collect();
    if roots.is_empty() {
        return Ok(Proof::default());
    }
    roots.sort_by_key(|(root, time)| (std::cmp::Reverse(*time), *root));
    let packs = store.index().view(|view| view.packs())?;
    // A damaged header hides since when the pack is there.
    let is_known = |(_, created): &(PackId, Timestamp)| *created != Timestamp(0);
    let created: HashMap<PackId, Timestamp> =
        packs.into_iter().map(|(_, row)| (row.id, row.created)).filter(is_known).collect();
    let proof = Proof::collect(store, progress, &roots, &created)?;
    // What was looked up meanwhile may be another copy already.
    let has_moved = store.index().view(|view| view.moved())? != moved;
    Ok(if has_moved { Proof::default() } else { proof })
}
