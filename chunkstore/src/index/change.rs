//! Changing the index, within one transaction.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;

use redb::{ReadableTable, Table, WriteTransaction};

use super::tables::{
    CHUNKS, COMPLETE, Entry, HONOURED, INDEX_VERSION, META, META_GENERATION, META_MOVED,
    META_NEXT_PACK, META_VERSION, PACK_NUMBERS, PACKS, PackRow, STORE, STORE_ID,
};
use super::{Fault, fault};
use crate::format::FooterRecord;
use crate::id::{ChunkId, PackId, QuarantineId, SourceName, StoreId};
use crate::time::Timestamp;

/// Tables of the index, open for writing.
#[derive(Debug)]
pub(crate) struct Change<'txn> {
    chunks: Table<'txn, &'static [u8; ChunkId::LEN], &'static [u8; Entry::LEN]>,
    packs: Table<'txn, u32, &'static [u8; PackRow::LEN]>,
    pack_numbers: Table<'txn, &'static [u8; PackId::LEN], u32>,
    meta: Table<'txn, &'static str, u64>,
    complete: Table<'txn, &'static str, u64>,
    honoured: Table<'txn, &'static [u8; QuarantineId::LEN], u8>,
    now: Timestamp,
}

/// Where the records of a pack come from that is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A backup has just written them, because what the index had was not good enough.
    Written,
    /// A purge has just copied them, and read them for that.
    Copied,
    /// The pack was there, and the index did not know it.
    Found,
}

impl<'txn> Change<'txn> {
    /// Opens the tables of an existing index.
    pub(super) fn open(
        transaction: &'txn WriteTransaction,
        store_id: StoreId,
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let change = Self::open_tables(transaction, now)?;
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
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let mut change = Self::open_tables(transaction, now)?;
        change.note_move()?;
        change.meta.insert(META_VERSION, INDEX_VERSION).map_err(fault)?;
        change.meta.insert(META_GENERATION, generation).map_err(fault)?;
        change.meta.insert(META_NEXT_PACK, 0).map_err(fault)?;
        let mut store = transaction.open_table(STORE).map_err(fault)?;
        store.insert(STORE_ID, store_id.as_bytes()).map_err(fault)?;
        Ok(change)
    }

    fn open_tables(transaction: &'txn WriteTransaction, now: Timestamp) -> Result<Self, Fault> {
        Ok(Self {
            chunks: transaction.open_table(CHUNKS).map_err(fault)?,
            packs: transaction.open_table(PACKS).map_err(fault)?,
            pack_numbers: transaction.open_table(PACK_NUMBERS).map_err(fault)?,
            meta: transaction.open_table(META).map_err(fault)?,
            complete: transaction.open_table(COMPLETE).map_err(fault)?,
            honoured: transaction.open_table(HONOURED).map_err(fault)?,
            now,
        })
    }

    /// Adds a pack and its records. Where a chunk is known already, the place in the younger pack is kept, if a new
    /// backup may refer to it: it may have been written because the older one is damaged. The new place of one that was
    /// [`Origin::Written`] is kept in any case. Records for which `is_left_out` holds are not added.
    ///
    /// A pack that is known and present keeps its flag: another process may have adopted it a moment ago.
    pub(crate) fn insert_pack(
        &mut self,
        row: PackRow,
        records: &[FooterRecord],
        origin: Origin,
        is_left_out: impl Fn(&ChunkId) -> bool,
    ) -> Result<(), Fault> {
        let replace = matches!(origin, Origin::Written);
        let known = self.pack_numbers.get(row.id.as_bytes()).map_err(fault)?;
        let known = known.map(|number| number.value());
        let number = match known {
            Some(number) => number,
            None => self.take_pack_number()?,
        };
        let present = self.row(number)?.filter(|found| found.id == row.id && !found.is_missing);
        let row = match present {
            Some(_) if !replace => return Ok(()),
            Some(found) => PackRow { condemned: found.condemned, ..row },
            None => row,
        };
        self.packs.insert(number, &row.encode()).map_err(fault)?;
        self.pack_numbers.insert(row.id.as_bytes(), number).map_err(fault)?;

        let mut order: Vec<usize> =
            (0..records.len()).filter(|index| !is_left_out(&records[*index].id)).collect();
        order.sort_by_key(|index| records[*index].id);
        let mut rows = HashMap::from([(number, Some(row))]);
        let mut has_moved = false;
        for index in order {
            let record = &records[index];
            if !replace && self.is_better_placed(&record.id, number, &row, &mut rows)? {
                continue;
            }
            // Nobody knows whether this copy was there when the other one was read.
            has_moved |= matches!(origin, Origin::Found)
                && self.chunks.get(record.id.as_bytes()).map_err(fault)?.is_some();
            let entry = Entry::new(number, index, record)?;
            self.chunks.insert(record.id.as_bytes(), &entry.encode(&record.id)).map_err(fault)?;
        }
        if has_moved { self.note_move() } else { Ok(()) }
    }

    /// Notes that chunks are led to other copies.
    fn note_move(&mut self) -> Result<(), Fault> {
        let now = u64::try_from(self.now.0).unwrap_or(0);
        self.meta.insert(META_MOVED, now).map_err(fault)?;
        Ok(())
    }

    /// Enters the packs of a new index, whose numbers are their places in `rows`.
    pub(super) fn insert_rows(&mut self, rows: &[PackRow]) -> Result<(), Fault> {
        for row in rows {
            let number = self.take_pack_number()?;
            self.packs.insert(number, &row.encode()).map_err(fault)?;
            self.pack_numbers.insert(row.id.as_bytes(), number).map_err(fault)?;
        }
        Ok(())
    }

    /// Enters chunks that are sorted and lie behind all that the index has. Of a chunk with several places the one is
    /// kept that [`Self::insert_pack`] would keep, had it been called pack by pack.
    pub(super) fn append_sorted(
        &mut self,
        records: &[(ChunkId, Entry)],
        rows: &[PackRow],
    ) -> Result<(), Fault> {
        let rank = |entry: &Entry| {
            let row = usize::try_from(entry.pack_number).ok().and_then(|number| rows.get(number));
            row.map(rank)
        };
        let mut cursor =
            self.chunks.upper_bound_mut(Bound::<&[u8; 32]>::Unbounded).map_err(fault)?;
        for places in records.chunk_by(|(left, _), (right, _)| left == right) {
            let (id, mut best) = places[0];
            for (_, entry) in &places[1..] {
                if entry.pack_number == best.pack_number || rank(&best) < rank(entry) {
                    best = *entry;
                }
            }
            cursor.insert_before(id.as_bytes(), &best.encode(&id)).map_err(fault)?;
        }
        cursor.close().map_err(fault)
    }

    /// Returns whether the index has a place for `id` that is at least as good as pack `number`.
    fn is_better_placed(
        &self,
        id: &ChunkId,
        number: u32,
        row: &PackRow,
        rows: &mut HashMap<u32, Option<PackRow>>,
    ) -> Result<bool, Fault> {
        let Some(other) = self.pack_number_of(id)?.filter(|other| *other != number) else {
            return Ok(false);
        };
        let other_row = match rows.get(&other) {
            Some(known) => *known,
            None => {
                let found = self.row(other)?;
                rows.insert(other, found);
                found
            }
        };
        Ok(other_row.is_some_and(|other_row| rank(row) <= rank(&other_row)))
    }

    /// Returns the number of the pack in which the index places a chunk.
    fn pack_number_of(&self, id: &ChunkId) -> Result<Option<u32>, Fault> {
        let Some(value) = self.chunks.get(id.as_bytes()).map_err(fault)? else {
            return Ok(None);
        };
        let entry = Entry::decode(value.value(), id)
            .ok_or_else(|| Fault::Damaged(format!("its entry of chunk {id} is damaged")))?;
        Ok(Some(entry.pack_number))
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

    /// Notes that the file of a pack is not there, and returns whether that is a loss: whether the index relied on it.
    pub(crate) fn mark_missing(&mut self, id: &PackId) -> Result<bool, Fault> {
        let number = self.pack_numbers.get(id.as_bytes()).map_err(fault)?;
        let row = match number.map(|number| number.value()) {
            Some(number) => self.row(number)?,
            None => None,
        };
        self.edit_row(id, |row| row.is_missing = true)?;
        Ok(row.is_some_and(|row| row.accepts_new_references()))
    }

    /// Leads chunks whose pack is missing, or one of `gone`, to this one, which has them too.
    pub(crate) fn take_over_missing(
        &mut self,
        id: &PackId,
        records: &[FooterRecord],
        gone: &HashSet<PackId>,
        is_left_out: impl Fn(&ChunkId) -> bool,
    ) -> Result<(), Fault> {
        let number = self.pack_numbers.get(id.as_bytes()).map_err(fault)?;
        let Some(number) = number.map(|number| number.value()) else {
            return Ok(());
        };
        let mut is_missing: HashMap<u32, bool> = HashMap::new();
        let mut has_moved = false;
        let records = records.iter().enumerate();
        for (index, record) in records.filter(|(_, record)| !is_left_out(&record.id)) {
            let other = self.pack_number_of(&record.id)?;
            let Some(other) = other.filter(|other| *other != number) else { continue };
            let is_missing = match is_missing.get(&other) {
                Some(known) => *known,
                None => {
                    let is_gone = |row: PackRow| row.is_missing || gone.contains(&row.id);
                    let found = self.row(other)?.is_none_or(is_gone);
                    is_missing.insert(other, found);
                    found
                }
            };
            if is_missing {
                has_moved = true;
                let entry = Entry::new(number, index, record)?;
                self.chunks
                    .insert(record.id.as_bytes(), &entry.encode(&record.id))
                    .map_err(fault)?;
            }
        }
        if has_moved { self.note_move() } else { Ok(()) }
    }

    /// Leads a chunk to another copy, or nowhere, if its place is in a pack where it is in quarantine.
    pub(super) fn lead_elsewhere(
        &mut self,
        id: &ChunkId,
        is_out: impl Fn(&PackId) -> bool,
        copy: Option<&(PackRow, usize, FooterRecord)>,
    ) -> Result<(), Fault> {
        let Some(number) = self.pack_number_of(id)? else { return Ok(()) };
        if !self.row(number)?.is_some_and(|row| is_out(&row.id)) {
            return Ok(());
        }
        self.note_move()?;
        let known = match copy {
            Some((row, index, record)) => {
                let number = self.pack_numbers.get(row.id.as_bytes()).map_err(fault)?;
                number.map(|number| Entry::new(number.value(), *index, record)).transpose()?
            }
            None => None,
        };
        match known {
            Some(entry) => {
                self.chunks.insert(id.as_bytes(), &entry.encode(id)).map_err(fault)?;
            }
            None => drop(self.chunks.remove(id.as_bytes()).map_err(fault)?),
        }
        Ok(())
    }

    /// Notes quarantine files whose records the index does not lead to any more.
    pub(super) fn note_honoured(&mut self, names: &[QuarantineId]) -> Result<(), Fault> {
        for name in names {
            self.honoured.insert(name.as_bytes(), 0).map_err(fault)?;
        }
        Ok(())
    }

    /// Removes every chunk whose place is in one of these packs, in one of `part_count` parts of the table, which is read
    /// for that. An entry that is damaged goes too: the chunk is then looked for in the packs.
    pub(crate) fn forget_chunks_of(
        &mut self,
        packs: &[PackId],
        part: u8,
        part_count: u8,
    ) -> Result<(), Fault> {
        let mut numbers = HashSet::new();
        for id in packs {
            let number = self.pack_numbers.get(id.as_bytes()).map_err(fault)?;
            numbers.extend(number.map(|number| number.value()));
        }
        let bound = |part: u8| {
            let first_byte = u16::from(part) * 256 / u16::from(part_count);
            let mut id = [0; ChunkId::LEN];
            u8::try_from(first_byte).ok().map(|byte| {
                id[0] = byte;
                id
            })
        };
        let (start, end) = (bound(part), bound(part + 1));
        let range = (
            start.as_ref().map_or(Bound::Unbounded, Bound::Included),
            end.as_ref().map_or(Bound::Unbounded, Bound::Excluded),
        );
        self.chunks
            .retain_in::<&[u8; ChunkId::LEN], _>(range, |id, value| {
                Entry::decode(value, &ChunkId::from_bytes(*id))
                    .is_some_and(|entry| !numbers.contains(&entry.pack_number))
            })
            .map_err(fault)
    }

    /// Removes packs that no chunk leads to any more.
    pub(crate) fn forget_packs(&mut self, packs: &[PackId]) -> Result<(), Fault> {
        for id in packs {
            let number = self.pack_numbers.remove(id.as_bytes()).map_err(fault)?;
            if let Some(number) = number.map(|number| number.value()) {
                self.packs.remove(number).map_err(fault)?;
            }
        }
        Ok(())
    }

    /// Notes that the revisions of `source` from this sequence number on were made while the index was there.
    pub(crate) fn set_complete_since(
        &mut self,
        source: &SourceName,
        sequence: u64,
    ) -> Result<(), Fault> {
        self.complete.insert(source.as_str(), sequence).map_err(fault)?;
        Ok(())
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
            if self.pack_number_of(&record.id)? == Some(number) {
                self.chunks.remove(record.id.as_bytes()).map_err(fault)?;
            }
        }
        // Chunks that a damaged footer did not name still lead here: the row stays, as missing.
        let row = self.row(number)?;
        self.edit_row(id, |row| row.is_missing = true)?;
        if row.is_none_or(|row| u64::from(row.record_count) <= records.len() as u64) {
            self.packs.remove(number).map_err(fault)?;
            self.pack_numbers.remove(id.as_bytes()).map_err(fault)?;
        }
        Ok(())
    }
}

/// Of two places of a chunk, the one in the pack of the higher rank is kept.
pub(super) const fn rank(row: &PackRow) -> (bool, Timestamp) {
    (row.accepts_new_references(), row.created)
}
