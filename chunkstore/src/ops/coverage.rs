//! Coverage: how much of the store was read, and when.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::format::Ledger;
use crate::id::PackId;
use crate::store::Store;
use crate::time::Timestamp;

/// What the ledger says of the packs of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Packs of the store.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that were read as a whole, and were sound.
    pub read_packs: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// When the one of them was read that was not read for the longest time.
    pub stalest: Option<Timestamp>,
    /// Why the ledger cannot be read, if it cannot: it is damaged, or a newer program wrote it. All packs count as never read then.
    pub ledger_damage: Option<String>,
}

/// Returns how much of the store was read, and when. Reads the ledger and the list of packs in the index.
///
/// # Errors
///
/// - [`Error::Storage`] if something cannot be read.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// use chunkstore::ops;
/// use chunkstore::store::{Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// assert_eq!(ops::coverage(&store)?.packs, 0);
/// # Ok::<(), chunkstore::error::Error>(())
/// ```
pub fn coverage(store: &Store) -> Result<Coverage> {
    let (ledger, damage) = match store.ledger() {
        Err(newer @ Error::UnsupportedFormat { .. }) => (Ledger::default(), Some(newer)),
        other => other?,
    };
    let mut coverage =
        Coverage { ledger_damage: damage.map(|damage| damage.to_string()), ..Coverage::default() };
    let reads: HashMap<PackId, Timestamp> =
        ledger.entries.into_iter().map(|entry| (entry.pack, entry.read)).collect();
    let packs = store.index().view(|view| view.packs())?;
    for (_, row) in packs.iter().filter(|(_, row)| !row.is_missing) {
        coverage.packs += 1;
        coverage.pack_bytes += row.file_len;
        if let Some(read) = reads.get(&row.id) {
            coverage.read_packs += 1;
            coverage.read_bytes += row.file_len;
            coverage.stalest = Some(coverage.stalest.map_or(*read, |stalest| stalest.min(*read)));
        }
    }
    Ok(coverage)
}
