//! Protect: keep revisions whatever the schedule says, or no longer.

use crate::error::Result;
use crate::format::RevisionState;
use crate::id::RevisionId;
use crate::revision::Revision;
use crate::store::Store;

/// What protecting did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectStats {
    /// The revisions whose protection is another one now, in the order in which they were named.
    pub changed: Vec<RevisionId>,
    /// Those that had been like that before.
    pub unchanged: Vec<RevisionId>,
}

/// Protects revisions from expiring and from being forgotten, or takes that away. Nothing happens unless all of them exist.
///
/// A crash changes some of them or all.
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
/// let id = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?.id;
///
/// ops::protect(&store, &[id], true)?;
/// assert!(ops::forget(&store, &[id]).is_err());
/// ops::protect(&store, &[id], false)?;
/// ops::forget(&store, &[id])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn protect(store: &Store, ids: &[RevisionId], protected: bool) -> Result<ProtectStats> {
    let lock = store.lock_history()?;
    let revisions = ids.iter().map(|id| store.revision(id)).collect::<Result<Vec<_>>>()?;
    let mut stats = ProtectStats::default();
    for Revision { record, state } in revisions {
        if state.protected == protected {
            stats.unchanged.push(record.id);
            continue;
        }
        let state = RevisionState { protected, ..state };
        store.write_state(&lock, &record.source, &state)?;
        stats.changed.push(record.id);
    }
    Ok(stats)
}
