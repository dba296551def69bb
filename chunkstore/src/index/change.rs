//! Changing the index, within one transaction.

use std::collections::HashMap;

use redb::{ReadableTable, Table, WriteTransaction};

use super::tables::{
    CHUNKS, Entry, INDEX_VERSION, META, META_GENERATION, META_NEXT_PACK, META_VERSION,
    PACK_NUMBERS, PACKS, PackRow, STORE, STORE_ID,
};
use super::{Fault, fault};
use crate::format::FooterRecord;
use crate::id::{ChunkId, PackId, StoreId};

/// Tables of the index, open for writing.
#[derive(Debug)]
pub(crate) struct Change<'txn> {
    chunks: Table<'txn, &'static [u8; ChunkId::LEN], &'static [u8; Entry::LEN]>,
    packs: Table<'txn, u32, &'static [u8; PackRow::LEN]>,
    pack_numbers: Table<'txn, &'static [u8; PackId::LEN], u32>,
    meta: Table<'txn, &'static str, u64>,
}

impl<'txn> Change<'txn> {
    /// Opens the tables of an existing index.
    pub(super) fn open(
        transaction: &'txn WriteTransaction,
        store_id: StoreId,
    ) -> Result<Self, Fault> {
        let change = Self::open_tables(transaction)?;
        let version = change.meta.get(META_VERSION).map_err(fault)?.map(|value| value.value());
        let store = transaction.open_table(STORE).map_err(fault)?;
        let id = store.get(STORE_ID).map_err(fault)?.map(|value| *value.value());
        if version != Some(INDEX_VERSION) || id != Some(*store_id.as_bytes()) {
            return Err(Fault::Damaged("it has another version or store".to_owned()));
        }
        Ok(change)
    }

    /// Creates the tables of a new index.
    pub(super) fn create(
        transaction: &'txn WriteTransaction,
        store_id: StoreId,
        generation: u64,
    ) -> Result<Self, Fault> {
        let mut change = Self::open_tables(transaction)?;
        change.meta.insert(META_VERSION, INDEX_VERSION).map_err(fault)?;
        change.meta.insert(META_GENERATION, generation).map_err(fault)?;
        change.meta.insert(META_NEXT_PACK, 0).map_err(fault)?;
        let mut store = transaction.open_table(STORE).map_err(fault)?;
        store.insert(STORE_ID, store_id.as_bytes()).map_err(fault)?;
        Ok(change)
    }

    fn open_tables(transaction: &'txn WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            chunks: transaction.open_table(CHUNKS).map_err(fault)?,
            packs: transaction.open_table(PACKS).map_err(fault)?,
            pack_numbers: transaction.open_table(PACK_NUMBERS).map_err(fault)?,
            meta: transaction.open_table(META).map_err(fault)?,
        })
    }

    /// Adds a pack and its records. Where a chunk is known already, the place in the newer pack wins, unless new backups
    /// may refer to the other one only: the newer copy may have been written because the older one is damaged. With
    /// `replace` this pack wins.
    ///
    /// Without `replace`, a pack that is known and present is left alone: adding it again changes nothing.
    pub(crate) fn insert_pack(
        &mut self,
        row: PackRow,
        records: &[FooterRecord],
        replace: bool,
    ) -> Result<(), Fault> {
        let known = self.pack_numbers.get(row.id.as_bytes()).map_err(fault)?;
        let known = known.map(|number| number.value());
        let number = match known {
            Some(number) => {
                let is_known = |found: PackRow| found.id == row.id && !found.is_missing;
                if !replace && self.row(number)?.is_some_and(is_known) {
                    return Ok(());
                }
                number
            }
            None => self.take_pack_number()?,
        };
        self.packs.insert(number, &row.encode()).map_err(fault)?;
        self.pack_numbers.insert(row.id.as_bytes(), number).map_err(fault)?;

        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|index| records[*index].id);
        let mut rows = HashMap::from([(number, Some(row))]);
        for index in order {
            let record = &records[index];
            if !replace && self.is_better_placed(&record.id, number, &mut rows)? {
                continue;
            }
            let entry = Entry {
                pack_number: number,
                record_index: u32::try_from(index)
                    .map_err(|_| Fault::Damaged("a pack has too many records".to_owned()))?,
                offset: record.offset,
                plain_len: record.plain_len,
                stored_len: record.stored_len,
            };
            self.chunks.insert(record.id.as_bytes(), &entry.encode()).map_err(fault)?;
        }
        Ok(())
    }

    /// Returns whether the index has a place for `id` that is at least as good as one in pack `number`.
    fn is_better_placed(
        &self,
        id: &ChunkId,
        number: u32,
        rows: &mut HashMap<u32, Option<PackRow>>,
    ) -> Result<bool, Fault> {
        let Some(value) = self.chunks.get(id.as_bytes()).map_err(fault)? else {
            return Ok(false);
        };
        let other = Entry::decode(value.value()).pack_number;
        if other == number {
            return Ok(false);
        }
        let other_row = match rows.get(&other) {
            Some(known) => *known,
            None => *rows.entry(other).insert_entry(self.row(other)?).get(),
        };
        let row = rows.get(&number).copied().flatten();
        let rank = |row: PackRow| (row.accepts_new_references(), row.created);
        Ok(row.map(rank) <= other_row.map(rank))
    }

    fn take_pack_number(&mut self) -> Result<u32, Fault> {
        let next = self.meta.get(META_NEXT_PACK).map_err(fault)?.map_or(0, |value| value.value());
        let number = u32::try_from(next)
            .map_err(|_| Fault::Damaged("it has no pack numbers left".to_owned()))?;
        self.meta.insert(META_NEXT_PACK, next + 1).map_err(fault)?;
        Ok(number)
    }

    fn row(&self, number: u32) -> Result<Option<PackRow>, Fault> {
        let value = self.packs.get(number).map_err(fault)?;
        Ok(value.and_then(|value| PackRow::decode(value.value())))
    }

    /// Changes the row of a pack, if the index knows it.
    fn edit_row(&mut self, id: &PackId, edit: impl Fn(&mut PackRow)) -> Result<(), Fault> {
        let number = self.pack_numbers.get(id.as_bytes()).map_err(fault)?;
        let Some(number) = number.map(|number| number.value()) else {
            return Ok(());
        };
        let Some(mut row) = self.row(number)? else {
            return Err(Fault::Damaged("a pack number leads nowhere".to_owned()));
        };
        edit(&mut row);
        self.packs.insert(number, &row.encode()).map_err(fault)?;
        Ok(())
    }

    /// Notes that the file of a pack is not there.
    pub(crate) fn mark_missing(&mut self, id: &PackId) -> Result<(), Fault> {
        self.edit_row(id, |row| row.is_missing = true)
    }

    /// Flags packs as condemned by list `generation` and raises the generation to at least that:
    /// a session that begins from now on does not refer to them.
    pub(crate) fn condemn(&mut self, packs: &[PackId], generation: u64) -> Result<(), Fault> {
        for id in packs {
            self.edit_row(id, |row| row.condemned = generation)?;
        }
        let current =
            self.meta.get(META_GENERATION).map_err(fault)?.map_or(0, |value| value.value());
        self.meta.insert(META_GENERATION, current.max(generation)).map_err(fault)?;
        Ok(())
    }

    /// Takes the flag of a condemned pack away.
    pub(crate) fn reprieve(&mut self, id: &PackId) -> Result<(), Fault> {
        self.edit_row(id, |row| row.condemned = 0)
    }

    /// Removes a pack and every chunk whose place is in it. `records` are those of its footer.
    pub(crate) fn remove_pack(
        &mut self,
        id: &PackId,
        records: &[FooterRecord],
    ) -> Result<(), Fault> {
        let number = self.pack_numbers.get(id.as_bytes()).map_err(fault)?;
        let Some(number) = number.map(|number| number.value()) else {
            return Ok(());
        };
        for record in records {
            let value = self.chunks.get(record.id.as_bytes()).map_err(fault)?;
            let is_here =
                value.is_some_and(|value| Entry::decode(value.value()).pack_number == number);
            if is_here {
                self.chunks.remove(record.id.as_bytes()).map_err(fault)?;
            }
        }
        // Chunks that a damaged footer did not name still lead here: the row stays, as missing.
        self.edit_row(id, |row| row.is_missing = true)?;
        if !records.is_empty() {
            self.packs.remove(number).map_err(fault)?;
            self.pack_numbers.remove(id.as_bytes()).map_err(fault)?;
        }
        Ok(())
    }
}
