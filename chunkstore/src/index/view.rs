//! Looking up in the index.

use std::collections::{HashMap, HashSet};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::tables::{
    CHUNKS, COMPLETE, Entry, HONOURED, INDEX_VERSION, META, META_GENERATION, META_MOVED,
    META_VERSION, PACKS, PackRow, STORE, STORE_ID,
};
use super::{Fault, fault};
use crate::id::{ChunkId, PackId, QuarantineId, SessionId, SourceName, StoreId};
use crate::limits::PACK_RECORD_COUNT_MAX;
use crate::time::Timestamp;
use crate::units::PackOffset;

/// Where a chunk is, as the index says. To be checked against the record header there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackId,
    /// Session that wrote the pack.
    pub(crate) session: SessionId,
    pub(crate) record_index: u32,
    pub(crate) offset: PackOffset,
    pub(crate) plain_len: u32,
    pub(crate) stored_len: u32,
    /// Whether a new backup may refer to it: the pack is neither condemned nor missing.
    pub(crate) accepts_new_references: bool,
    /// Whether the file was not there when the index was last compared with the directory.
    pub(crate) is_missing: bool,
}

impl Location {
    fn new(row: &PackRow, entry: &Entry) -> Self {
        Self {
            pack: row.id,
            session: row.session,
            record_index: entry.record_index,
            offset: entry.offset,
            plain_len: entry.plain_len,
            stored_len: entry.stored_len,
            accepts_new_references: row.accepts_new_references(),
            is_missing: row.is_missing,
        }
    }
}

/// A consistent state of the index.
#[derive(Debug)]
pub(crate) struct View<'a> {
    transaction: &'a ReadTransaction,
}

impl View<'_> {
    pub(super) fn run<R>(
        database: &Database,
        store_id: StoreId,
        look: &impl Fn(&View<'_>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let transaction = database.begin_read().map_err(fault)?;
        let view = View { transaction: &transaction };
        view.check_identity(store_id)?;
        look(&view)
    }

    /// Refuses an index of another version or of another store.
    fn check_identity(&self, store_id: StoreId) -> Result<(), Fault> {
        let version = self.meta(META_VERSION)?;
        if version != INDEX_VERSION {
            return Err(Fault::Damaged(format!("it has version {version}")));
        }
        let table = self.transaction.open_table(STORE).map_err(fault)?;
        let found = table.get(STORE_ID).map_err(fault)?;
        if found.map(|id| *id.value()) != Some(*store_id.as_bytes()) {
            return Err(Fault::Damaged("it belongs to another store".to_owned()));
        }
        Ok(())
    }

    fn meta(&self, key: &str) -> Result<u64, Fault> {
        let table = self.transaction.open_table(META).map_err(fault)?;
        let value = table.get(key).map_err(fault)?;
        value.map(|value| value.value()).ok_or_else(|| Fault::Damaged(format!("it has no {key}")))
    }

    /// Returns the generation: that of the newest condemned list whose packs are flagged.
    pub(crate) fn generation(&self) -> Result<u64, Fault> {
        self.meta(META_GENERATION)
    }

    /// Returns when a chunk may last have been led to another copy than one that was written just then.
    pub(crate) fn moved(&self) -> Result<Timestamp, Fault> {
        Ok(Timestamp(i64::try_from(self.meta(META_MOVED)?).unwrap_or(i64::MAX)))
    }

    /// Returns the sequence number from which on the index knows all packs that revisions of `source` were made with.
    pub(crate) fn complete_since(&self, source: &SourceName) -> Result<Option<u64>, Fault> {
        let table = self.transaction.open_table(COMPLETE).map_err(fault)?;
        let value = table.get(source.as_str()).map_err(fault)?;
        Ok(value.map(|value| value.value()))
    }

    /// Returns where each of `ids` is. They are looked up in the order in which the table has them: neighbours lie on one page.
    pub(crate) fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, Fault> {
        let chunks = self.transaction.open_table(CHUNKS).map_err(fault)?;
        let packs = self.transaction.open_table(PACKS).map_err(fault)?;
        let mut rows: HashMap<u32, PackRow> = HashMap::new();
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|index| ids[*index]);
        let mut locations = vec![None; ids.len()];
        for index in order {
            let id = &ids[index];
            let Some(value) = chunks.get(id.as_bytes()).map_err(fault)? else { continue };
            let entry = Entry::decode(value.value(), id)
                .ok_or_else(|| Fault::Damaged(format!("its entry of chunk {id} is damaged")))?;
            if PACK_RECORD_COUNT_MAX <= entry.record_index {
                return Err(Fault::Damaged("a record number is out of range".to_owned()));
            }
            let row = match rows.get(&entry.pack_number) {
                Some(known) => known,
                None => {
                    let value = packs.get(entry.pack_number).map_err(fault)?;
                    let row = value.and_then(|value| PackRow::decode(value.value()));
                    let row = row.ok_or_else(|| {
                        Fault::Damaged(format!("it does not know pack {}", entry.pack_number))
                    })?;
                    rows.entry(entry.pack_number).or_insert(row)
                }
            };
            locations[index] = Some(Location::new(row, &entry));
        }
        Ok(locations)
    }

    /// Returns the quarantine files whose records the index does not lead to.
    pub(crate) fn honoured(&self) -> Result<HashSet<QuarantineId>, Fault> {
        let table = self.transaction.open_table(HONOURED).map_err(fault)?;
        let mut honoured = HashSet::new();
        for item in table.iter().map_err(fault)? {
            let (name, _) = item.map_err(fault)?;
            honoured.insert(QuarantineId::from_bytes(*name.value()));
        }
        Ok(honoured)
    }

    /// Returns all packs with their numbers.
    pub(crate) fn packs(&self) -> Result<Vec<(u32, PackRow)>, Fault> {
        let table = self.transaction.open_table(PACKS).map_err(fault)?;
        let mut packs = Vec::new();
        for item in table.iter().map_err(fault)? {
            let (number, value) = item.map_err(fault)?;
            let row = PackRow::decode(value.value());
            let row = row.ok_or_else(|| Fault::Damaged("a pack row is invalid".to_owned()))?;
            packs.push((number.value(), row));
        }
        Ok(packs)
    }

    /// Returns number and id of every record that the index places in a pack. Reads the whole table.
    pub(crate) fn chunks_of(&self, pack: &PackId) -> Result<Vec<(u32, ChunkId)>, Fault> {
        let number = self.packs()?.into_iter().find(|(_, row)| row.id == *pack);
        let Some((number, _)) = number else { return Ok(Vec::new()) };
        let table = self.transaction.open_table(CHUNKS).map_err(fault)?;
        let mut chunks = Vec::new();
        for item in table.iter().map_err(fault)? {
            let (id, value) = item.map_err(fault)?;
            let id = ChunkId::from_bytes(*id.value());
            let entry = Entry::decode(value.value(), &id)
                .ok_or_else(|| Fault::Damaged(format!("its entry of chunk {id} is damaged")))?;
            if entry.pack_number == number {
                chunks.push((entry.record_index, id));
            }
        }
        Ok(chunks)
    }

    /// Returns how many chunks the index knows.
    pub(crate) fn chunk_count(&self) -> Result<u64, Fault> {
        let table = self.transaction.open_table(CHUNKS).map_err(fault)?;
        table.len().map_err(fault)
    }
}
