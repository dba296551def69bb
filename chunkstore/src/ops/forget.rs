//! Forget: drop revisions. The space comes back with a purge.

use crate::error::Result;
use crate::id::RevisionId;
use crate::storage::{ObjectKey, Storage};
use crate::store::Store;

/// What a forget did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgetStats {
    /// The revisions that are gone, in the order in which they were named.
    pub forgotten: Vec<RevisionId>,
}

/// Forgets revisions, also such whose record is damaged. Nothing happens unless all of them exist.
///
/// Who reads one of them at this moment reads on. A crash forgets some of them or all.
///
/// # Errors
///
/// - [`crate::error::Error::NoSuchRevision`] if one of them does not exist.
/// - [`crate::error::Error::Storage`] if one cannot be removed.
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
/// let id = ops::backup(&store, &source, &options, &NoProgress)?.id;
///
/// ops::forget(&store, &[id])?;
/// assert!(store.revision(&id).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn forget(store: &Store, ids: &[RevisionId]) -> Result<ForgetStats> {
    let mut keys = Vec::with_capacity(ids.len());
    for id in ids {
        keys.push((store.source_of(id)?, *id));
    }
    let mut stats = ForgetStats::default();
    for (source, id) in keys {
        // The record first: a state without a record is nothing.
        store.storage().delete(&ObjectKey::Record(source.clone(), id))?;
        store.storage().delete(&ObjectKey::State(source, id))?;
        stats.forgotten.push(id);
    }
    Ok(stats)
}
