//! Index rebuild: a new index from the packs alone.

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::Store;

/// What a rebuild found.
#[derive(Debug, Default)]
pub struct RebuildStats {
    /// Packs in the index.
    pub packs: u64,
    /// Records in these packs; a chunk may have several.
    pub chunks: u64,
    /// Packs that are damaged: with a table that had to be replaced by reading the records, or of no use at all.
    pub damaged: Vec<Error>,
}

/// Builds the index anew from the packs. Never needed in normal use: every other operation does it by itself if
/// the index is damaged or gone.
///
/// # Errors
///
/// - [`Error::Storage`] if a pack cannot be read or the index cannot be written.
/// - [`Error::Cancelled`].
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use chunkstore::ops;
/// use chunkstore::progress::NoProgress;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// assert_eq!(ops::rebuild_index(&store, &NoProgress)?.packs, 0);
/// # Ok::<(), chunkstore::error::Error>(())
/// ```
pub fn rebuild_index(store: &Store, progress: &dyn Progress) -> Result<RebuildStats> {
    let rebuilt = store.index().rebuild(progress)?;
    Ok(RebuildStats { packs: rebuilt.packs, chunks: rebuilt.records, damaged: rebuilt.damaged })
}
