//! Info: how large a store is, and of what.

use crate::chunking::ChunkingParams;
use crate::error::Result;
use crate::id::StoreId;
use crate::storage::Storage;
use crate::store::{FORMAT_VERSION, Store};

/// Sizes and parameters of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// Format of the store.
    pub format: u32,
    /// Its id.
    pub store_id: StoreId,
    /// Packs.
    pub packs: u64,
    /// Different chunks, those of chunk lists included.
    pub chunks: u64,
    /// Revisions that can be read.
    pub revisions: u64,
    /// Bytes of all images of all revisions.
    pub apparent_bytes: u64,
    /// Plain bytes of all records in packs, before compression.
    pub unique_bytes: u64,
    /// Bytes of all packs on disk.
    pub stored_bytes: u64,
    /// Bytes of packs that a purge has condemned and not yet removed; part of `stored_bytes`.
    pub condemned_bytes: u64,
    /// Chunks of which a copy is in quarantine.
    pub quarantined_chunks: u64,
    /// Those of them that no other place has.
    pub unhealed_chunks: u64,
    /// Reports of places at which a backup read something else back than its source had.
    pub mismatches: u64,
    /// How images are cut.
    pub chunking: ChunkingParams,
    /// zstd level for new chunks.
    pub compression_level: i32,
}

/// Returns sizes and parameters of a store. Reads the records of all revisions and the tables of all packs.
///
/// # Errors
///
/// - [`crate::error::Error::Storage`] if something cannot be read.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use chunkstore::ops;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// assert_eq!(ops::info(&store)?.chunks, 0);
/// # Ok::<(), chunkstore::error::Error>(())
/// ```
pub fn info(store: &Store) -> Result<StoreInfo> {
    store.index().reconcile()?;
    let (packs, chunks) = store.index().view(|view| Ok((view.packs()?, view.chunk_count()?)))?;
    let mut info = StoreInfo {
        format: FORMAT_VERSION,
        store_id: store.id(),
        packs: 0,
        chunks,
        revisions: 0,
        apparent_bytes: 0,
        unique_bytes: 0,
        stored_bytes: 0,
        condemned_bytes: 0,
        quarantined_chunks: store.index().quarantine()?.chunks().count() as u64,
        unhealed_chunks: store.unhealed_chunks()?.len() as u64,
        mismatches: store.mismatches()?.len() as u64,
        chunking: *store.chunking(),
        compression_level: store.config().compression_level,
    };
    for (_, row) in packs.iter().filter(|(_, row)| !row.is_missing) {
        info.packs += 1;
        info.stored_bytes += row.file_len;
        if row.condemned != 0 {
            info.condemned_bytes += row.file_len;
        }
        match crate::pack::read_contents(store.storage() as &dyn Storage, &row.id) {
            Ok(contents) => {
                let plain = contents.records.iter().map(|record| u64::from(record.plain_len));
                info.unique_bytes += plain.sum::<u64>();
            }
            Err(error) if error.is_damage() => {}
            Err(other) => return Err(other),
        }
    }
    for revision in store.history(None)?.revisions {
        info.revisions += 1;
        info.apparent_bytes += revision.record.size;
    }
    Ok(info)
}
