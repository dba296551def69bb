//! Forget: drop revisions. The space comes back with a purge.

use crate::error::{Error, Result};
use crate::id::{RevisionId, SourceName};
use crate::lock::HistoryLock;
use crate::planted::{Bug, has};
use crate::store::Store;

/// What a forget did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgetStats {
    /// The revisions that are gone, in the order in which they were named.
    pub forgotten: Vec<RevisionId>,
}

/// Forgets revisions, also such whose record is damaged. Nothing happens unless all of them exist and none is protected.
///
/// A revision whose state is damaged counts as protected; one whose record is damaged does not: nothing of it can be
/// read, and until it is forgotten it stops every purge.
///
/// Who reads one of them at this moment reads on. A crash forgets some of them or all.
///
/// # Errors
///
/// - [`Error::NoSuchRevision`] if one of them does not exist.
/// - [`Error::Protected`] if one of them is protected.
/// - [`Error::UnsupportedFormat`] if one of them is of a newer program, which may have protected it.
/// - [`Error::Storage`] if one cannot be removed.
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
    let lock = store.lock_history()?;
    let mut sources = Vec::with_capacity(ids.len());
    for id in ids {
        let source = store.source_of(id)?;
        refuse_protected(store, &lock, &source, id)?;
        sources.push(source);
    }
    for (source, id) in sources.iter().zip(ids) {
        store.remove_revision(&lock, source, id)?;
    }
    Ok(ForgetStats { forgotten: ids.to_vec() })
}

/// Nobody can protect it any more while the lock is held.
fn refuse_protected(
    store: &Store,
    _lock: &HistoryLock,
    source: &SourceName,
    id: &RevisionId,
) -> Result<()> {
    match store.read_revision(source, id) {
        Ok(Some(revision)) if revision.state.protected && !has(Bug::ProtectionIgnored) => {
            Err(Error::Protected { id: *id })
        }
        Ok(_) | Err(Error::Damaged { .. }) => Ok(()),
        Err(other) => Err(other),
    }
}
