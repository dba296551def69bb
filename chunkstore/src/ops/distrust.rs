//! Distrust: doubt revisions, so that the next backup of their source writes every chunk again.

use crate::error::Result;
use crate::format::{RevisionState, Trust};
use crate::id::RevisionId;
use crate::revision::Revision;
use crate::store::Store;

/// What distrusting did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistrustStats {
    /// The revisions that are in doubt now and were not before, in the order in which they were named.
    pub changed: Vec<RevisionId>,
    /// Those whose doubt had not had its effect yet. It is younger now: a backup that runs does not settle it any more.
    pub unchanged: Vec<RevisionId>,
}

/// Doubts revisions. Nothing happens unless all of them exist.
///
/// The next backup of each of their sources is full: it predicts nothing, and writes every chunk once again. A doubt that has
/// had its effect can be raised anew. A damaged revision stays damaged, which is more than doubt. A crash changes some of
/// them or all.
///
/// # Errors
///
/// - [`crate::error::Error::NoSuchRevision`] if one of them does not exist.
/// - [`crate::error::Error::Damaged`], [`crate::error::Error::UnsupportedFormat`] if the record of one cannot be read.
/// - [`crate::error::Error::Storage`] if a state cannot be written.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use chunkstore::ops::{self, BackupOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let options = BackupOptions::new("disk".parse()?);
/// let first = ops::backup(&store, &source, &options, &NoProgress)?;
///
/// ops::distrust(&store, &[first.id])?;
/// let second = ops::backup(&store, &source, &options, &NoProgress)?;
/// assert_eq!(second.statistics.new_chunks, first.statistics.new_chunks);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn distrust(store: &Store, ids: &[RevisionId]) -> Result<DistrustStats> {
    let lock = store.lock_history()?;
    let revisions = ids.iter().map(|id| store.revision(id)).collect::<Result<Vec<_>>>()?;
    let now = store.environment().clock.now();
    let mut stats = DistrustStats::default();
    for Revision { record, state } in revisions {
        let changed = if state.is_in_doubt() { &mut stats.unchanged } else { &mut stats.changed };
        changed.push(record.id);
        let trust = if state.trust == Trust::Damaged { Trust::Damaged } else { Trust::Distrusted };
        // A mark that goes by itself leads back to the doubt.
        let heals_to = state.heals_to.map(|_| Trust::Distrusted);
        let state = RevisionState { trust, doubted: Some(now), heals_to, rewritten: None, ..state };
        store.write_state(&lock, &record.source, &state)?;
    }
    Ok(stats)
}
