//! Copies what is needed of packs into new ones.
//!
//! Stored bytes are copied as they are, after each record was expanded and hashed. Either all needed records of a pack are
//! sound, or none is copied and the pack stays: a damaged record is left where it is. A new pack is durable before the index
//! knows it, and the old one is given up only after the index leads to the new places; so a stop at any point
//! leaves two copies, never none (`docs/durability.md`, section "Purge").

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::PurgeOptions;
use super::repack::Candidate;
use crate::budget::{Budget, Share, too_little_memory};
use crate::chunk_reader::to_usize;
use crate::compression::Expander;
use crate::error::{Error, ObjectName, Result};
use crate::format::{FooterRecord, FormatError, PackHeader, PackKind, RecordHeader};
use crate::id::{PackId, SessionId};
use crate::index::{self, Origin, PackRow};
use crate::limits::CHUNK_LEN_MAX;
use crate::mark::PackNeeds;
use crate::ops::rate_limit::RateLimit;
use crate::pack::{
    PACK_RECORD_COUNT_TARGET, PackWriter, SealedPack, WRITE_BUFFER_LEN, read_contents, read_record,
};
use crate::progress::Progress;
use crate::storage::Storage;
use crate::store::Store;
use crate::time::Timestamp;

/// Bytes that are read from a pack at once, unless one record is longer.
const READ_LEN: u32 = 4 << 20;

/// Records that one transaction adds to the index at most, unless one pack has more.
const BATCH_RECORD_COUNT: usize = 50_000;

/// Memory for each record of a pack that is read or written: its row in the table, in the encoded table.
const RECORD_MEMORY: usize = 128;

/// What does not depend on the pack that is copied: the chunk that is checked, buffers and tables of the two packs
/// that are written, those that wait for the index, and the index.
const FIXED_MEMORY: usize = CHUNK_LEN_MAX as usize
    + 2 * (WRITE_BUFFER_LEN + PACK_RECORD_COUNT_TARGET * RECORD_MEMORY)
    + (BATCH_RECORD_COUNT + PACK_RECORD_COUNT_TARGET) * RECORD_MEMORY
    + index::CACHE_LEN;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Packs of which nothing is needed any more, because the index leads to the copies.
    pub(super) emptied: Vec<PackId>,
    /// The new packs.
    pub(super) packs: Vec<PackRow>,
    /// What is damaged, and stays where it is.
    pub(super) damaged: Vec<Error>,
}

/// Copies what `needs` says of the packs `chosen`. Where there is no space left it ends early.
pub(super) fn copy(
    store: &Store,
    options: &PurgeOptions,
    chosen: &[Candidate],
    needs: &BTreeMap<PackId, PackNeeds>,
    progress: &dyn Progress,
) -> Result<Copied> {
    let mut copier = Copier::new(store, options, chosen, progress)?;
    match copier.copy_all(chosen, needs) {
        // What is complete counts; the rest is for another time.
        Err(error) if error.is_out_of_space() => {
            progress.note(&format!("packs are not repacked for want of space: {error}"));
            copier.open = [None, None];
            // What enters the index takes space too. What does not is found there by the next purge.
            match copier.enter() {
                Err(error) if error.is_out_of_space() => {}
                other => other?,
            }
        }
        other => other?,
    }
    Ok(copier.copied)
}

struct Copier<'a> {
    store: &'a Store,
    progress: &'a dyn Progress,
    limit: Option<RateLimit>,
    memory: Budget,
    _fixed_memory: Share,
    session: SessionId,
    /// When the new packs were begun, for the index: after all that they replace, whatever the clock says.
    created: Timestamp,
    expander: Expander,
    /// The needed records of one pack.
    stored: Vec<u8>,
    plain: Vec<u8>,
    /// The pack of each kind that is being written.
    open: [Option<PackWriter>; 2],
    /// Old packs whose last record went into the open pack of their kind.
    in_open: [Vec<PackId>; 2],
    /// New packs that are durable and not in the index yet, and the old packs that they empty.
    sealed: Vec<SealedPack>,
    in_sealed: Vec<PackId>,
    copied: Copied,
}

impl<'a> Copier<'a> {
    fn new(
        store: &'a Store,
        options: &PurgeOptions,
        chosen: &[Candidate],
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let memory = Budget::new(options.memory);
        let fixed = memory.try_take(FIXED_MEMORY);
        let fixed = fixed.ok_or_else(|| too_little_memory(options.memory, FIXED_MEMORY))?;
        let mut random = [0; SessionId::LEN];
        store.environment().entropy.fill(&mut random);
        let clock = &store.environment().clock;
        let newest = chosen.iter().map(|candidate| candidate.created.0).max().unwrap_or(i64::MIN);
        Ok(Self {
            store,
            progress,
            limit: options.bytes_per_second.map(|rate| RateLimit::new(rate, clock.as_ref())),
            memory,
            _fixed_memory: fixed,
            session: SessionId::from_bytes(random),
            created: clock.now().max(Timestamp(newest.saturating_add(1))),
            expander: Expander::new(),
            stored: Vec::new(),
            plain: Vec::new(),
            open: [None, None],
            in_open: [Vec::new(), Vec::new()],
            sealed: Vec::new(),
            in_sealed: Vec::new(),
            copied: Copied::default(),
        })
    }

    fn copy_all(
        &mut self,
        chosen: &[Candidate],
        needs: &BTreeMap<PackId, PackNeeds>,
    ) -> Result<()> {
        for candidate in chosen {
            if let Some(need) = needs.get(&candidate.id) {
                self.copy_pack(candidate, need)?;
            }
            self.progress.advance(candidate.live.len);
        }
        for slot in 0..self.open.len() {
            self.seal(slot)?;
        }
        self.enter()
    }

    /// Copies the needed records of one pack, if all of them are sound.
    fn copy_pack(&mut self, candidate: &Candidate, need: &PackNeeds) -> Result<()> {
        // What of a pack is needed is far less than what a pack can hold, or the pack is small.
        let table_len = to_usize(candidate.record_count).saturating_mul(RECORD_MEMORY);
        let len = usize::try_from(candidate.live.len).unwrap_or(usize::MAX);
        let Some(_memory) = self.memory.try_take(len.saturating_add(table_len)) else {
            let what = "more of it is needed than there is memory for";
            self.progress.note(&format!("pack {} stays as it is: {what}", candidate.id));
            return Ok(());
        };
        let storage: &dyn Storage = self.store.storage();
        let contents = match read_contents(storage, &candidate.id) {
            Err(error) if error.is_damage() => {
                self.copied.damaged.push(error);
                return Ok(());
            }
            other => other?,
        };
        let records = contents.records.iter().enumerate();
        let records: Vec<&FooterRecord> =
            records.filter(|(index, _)| need.contains(*index)).map(|(_, record)| record).collect();
        let is_of_kind = |record: &&FooterRecord| record.kind.pack_kind() == candidate.kind;
        if contents.damage.is_some()
            || !need.agrees_with(&contents.records)
            || !records.iter().all(is_of_kind)
        {
            // It has changed since it was marked: the next purge sees what has become of it.
            return Ok(());
        }
        match self.load(&candidate.id, &records) {
            Ok(true) => self.append(candidate, &records),
            Ok(false) => Ok(()),
            Err(error) if error.is_damage() || is_unreadable(&error) => {
                self.copied.damaged.push(error);
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Reads records, one after another into one buffer, and checks each; returns whether all are sound.
    fn load(&mut self, pack: &PackId, records: &[&FooterRecord]) -> Result<bool> {
        let storage: &dyn Storage = self.store.storage();
        let clock = self.store.environment().clock.as_ref();
        let total: usize = records.iter().map(|record| to_usize(record.len_in_pack())).sum();
        self.stored.resize(total, 0);
        let (mut rest, mut start) = (records, 0);
        while let Some(first) = rest.first() {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let mut len = first.len_in_pack();
            let mut count = 1;
            while let Some(next) = rest.get(count)
                && next.offset.0 == first.offset.0 + len
                && len + next.len_in_pack() <= READ_LEN
            {
                len += next.len_in_pack();
                count += 1;
            }
            if let Some(limit) = &self.limit {
                limit.take(u64::from(len), clock, self.progress)?;
            }
            let end = start + to_usize(len);
            read_record(storage, pack, &mut self.stored[start..end], first.offset)?;
            (rest, start) = (&rest[count..], end);
        }
        let mut is_sound = true;
        let mut start = 0;
        for record in records {
            let end = start + to_usize(record.len_in_pack());
            let (header, payload) = self.stored[start..end].split_at(RecordHeader::LEN);
            let checked = RecordHeader::decode(header).and_then(|header| {
                if header == record.header() {
                    self.expander.expand(&header, payload, &mut self.plain)
                } else {
                    let what = "its header differs from the pack's table";
                    Err(FormatError::Inconsistent { what })
                }
            });
            if let Err(source) = checked {
                is_sound = false;
                let object = ObjectName::Chunk { id: record.id, pack: Some(*pack) };
                self.copied.damaged.push(Error::Damaged { object, source });
            }
            start = end;
        }
        Ok(is_sound)
    }

    /// Appends the records that were loaded to the pack of their kind.
    fn append(&mut self, candidate: &Candidate, records: &[&FooterRecord]) -> Result<()> {
        let slot = usize::from(candidate.kind == PackKind::List);
        let stored = std::mem::take(&mut self.stored);
        let mut start = 0;
        for record in records {
            let end = start + to_usize(record.len_in_pack());
            let payload = &stored[start + RecordHeader::LEN..end];
            if self.open[slot].as_ref().is_some_and(|pack| pack.is_full_for(payload.len())) {
                self.seal(slot)?;
            }
            if self.open[slot].is_none() {
                self.open[slot] = Some(self.begin_pack(candidate.kind)?);
            }
            if let Some(pack) = &mut self.open[slot] {
                let FooterRecord { kind, codec, id, plain_len, .. } = **record;
                pack.append_record(kind, codec, id, plain_len, payload)?;
            }
            start = end;
        }
        self.stored = stored;
        self.in_open[slot].push(candidate.id);
        Ok(())
    }

    fn begin_pack(&self, kind: PackKind) -> Result<PackWriter> {
        let header = PackHeader {
            kind,
            store_id: self.store.id(),
            session_id: self.session,
            created: self.created,
        };
        PackWriter::create(self.store.storage() as &dyn Storage, header)
    }

    /// Makes the open pack of a kind durable.
    fn seal(&mut self, slot: usize) -> Result<()> {
        let Some(pack) = self.open[slot].take() else { return Ok(()) };
        self.sealed.push(pack.seal(self.store.storage() as &dyn Storage)?);
        self.in_sealed.append(&mut self.in_open[slot]);
        let record_count: usize = self.sealed.iter().map(|pack| pack.records.len()).sum();
        if BATCH_RECORD_COUNT <= record_count { self.enter() } else { Ok(()) }
    }

    /// Enters the durable packs into the index: it then leads to the younger places, as a new index would.
    fn enter(&mut self) -> Result<()> {
        if self.sealed.is_empty() {
            return Ok(());
        }
        let packs: Vec<(PackRow, &[FooterRecord])> =
            self.sealed.iter().map(|pack| (PackRow::of(pack), pack.records.as_slice())).collect();
        self.store.index().change(|change| {
            packs.iter().try_for_each(|(row, records)| {
                change.insert_pack(*row, records, Origin::Copied, |_| false)
            })
        })?;
        self.copied.packs.extend(packs.into_iter().map(|(row, _)| row));
        self.sealed.clear();
        self.copied.emptied.append(&mut self.in_sealed);
        Ok(())
    }
}

/// Returns whether the medium cannot read a place of a file: that costs the one pack.
fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::Storage { source, .. } if Errno::from_io_error(source) == Some(Errno::IO))
}
