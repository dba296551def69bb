//! The chunk list of one span, ready to be read at random: 40 bytes for an entry, and up to 24 more for where its chunk is once that was
//! looked up.
//!
//! Offsets are from the start of the span, so equal spans of any images share one. Invariant: the entries cover the span in order and
//! without gap.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::format::{Page, PageEntry};
use crate::id::{ChunkId, PackId, SessionId};
use crate::index::Location;
use crate::store::Store;
use crate::units::PackOffset;

/// Neighbouring entries whose places are looked up together: a read of one block does not wait until all chunks of 64 MiB are found.
const LOCATED_TOGETHER: usize = 64;

/// Packs that these entries lie in, as they are counted for memory: mostly it is one or two, after many changes some more.
const PACKS_COUNTED: usize = 8;

#[derive(Debug)]
pub(crate) struct SpanPage {
    /// Start of each entry times two, plus one if it is zeros.
    starts: Box<[u64]>,
    /// Chunk of each entry that is not zeros.
    ids: Box<[ChunkId]>,
    len: u64,
    /// For [`LOCATED_TOGETHER`] entries each, if they were looked up.
    places: Mutex<Box<[Option<Arc<Places>>]>>,
}

/// Bytes of a span that one entry covers, as far as they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Counts the entries of the page from 0.
    pub(super) index: usize,
    /// All that the entry covers.
    pub(super) entry: Range<u64>,
    pub(super) part: Range<u64>,
    /// The chunk, unless it is zeros.
    pub(super) chunk: Option<ChunkId>,
}

/// Where neighbouring chunks are.
#[derive(Debug)]
struct Places {
    packs: Vec<PackPlace>,
    records: Box<[RecordPlace]>,
}

/// What the locations in one pack have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackPlace {
    pack: PackId,
    session: SessionId,
    accepts_new_references: bool,
    is_missing: bool,
}

/// A location in 16 bytes. Its plain length is that of the entry, or the record is not the one that is looked for.
#[derive(Clone, Copy, Debug, Default)]
struct RecordPlace {
    /// Place in `packs` plus one; 0 if the chunk was not found.
    pack: u8,
    record_index: u32,
    offset: u32,
    stored_len: u32,
}

impl Places {
    fn new(locations: &[Option<Location>]) -> Self {
        let mut packs: Vec<PackPlace> = Vec::new();
        let mut place = |location: &Option<Location>| {
            let Some(location) = location else { return RecordPlace::default() };
            let pack = PackPlace {
                pack: location.pack,
                session: location.session,
                accepts_new_references: location.accepts_new_references,
                is_missing: location.is_missing,
            };
            let index = packs.iter().position(|known| *known == pack).unwrap_or_else(|| {
                packs.push(pack);
                packs.len() - 1
            });
            RecordPlace {
                pack: u8::try_from(index + 1).expect("64 chunks lie in at most 64 packs"),
                record_index: location.record_index,
                offset: location.offset.0,
                stored_len: location.stored_len,
            }
        };
        let records = locations.iter().map(&mut place).collect();
        Self { packs, records }
    }

    fn get(&self, index: usize, plain_len: u64) -> Option<Location> {
        let record = self.records[index];
        let pack = self.packs[usize::from(record.pack).checked_sub(1)?];
        Some(Location {
            pack: pack.pack,
            session: pack.session,
            record_index: record.record_index,
            offset: PackOffset(record.offset),
            plain_len: u32::try_from(plain_len).ok()?,
            stored_len: record.stored_len,
            accepts_new_references: pack.accepts_new_references,
            is_missing: pack.is_missing,
        })
    }
}

impl SpanPage {
    pub(super) fn new(page: &Page) -> Self {
        let mut len = 0;
        let mut starts = Vec::with_capacity(page.entries.len());
        let mut ids = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            let (is_zero, id) = match entry {
                PageEntry::Zero { .. } => (true, ChunkId::from_bytes([0; ChunkId::LEN])),
                PageEntry::Data { id, .. } => (false, *id),
            };
            starts.push(len << 1 | u64::from(is_zero));
            ids.push(id);
            len += entry.len();
        }
        let group_count = starts.len().div_ceil(LOCATED_TOGETHER);
        let places = vec![None; group_count].into_boxed_slice();
        Self { starts: starts.into(), ids: ids.into(), len, places: Mutex::new(places) }
    }

    /// Returns the bytes that the page takes on the heap once all its chunks were looked up.
    pub(super) fn byte_len(&self) -> usize {
        const PLACES: usize = size_of::<Option<Arc<Places>>>()
            + size_of::<Places>()
            + PACKS_COUNTED * size_of::<PackPlace>()
            + 64;
        let entry = size_of::<u64>() + size_of::<ChunkId>() + size_of::<RecordPlace>();
        self.starts.len() * entry + self.starts.len().div_ceil(LOCATED_TOGETHER) * PLACES
    }

    /// Returns the length of the span in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Returns what covers these bytes of the span, in order.
    pub(super) fn pieces(&self, part: Range<u64>) -> impl Iterator<Item = Piece> {
        let first = self.starts.partition_point(|start| start >> 1 <= part.start).saturating_sub(1);
        (first..self.starts.len())
            .map(move |index| {
                let entry = self.range(index);
                let part = entry.start.max(part.start)..entry.end.min(part.end);
                let is_zero = self.starts[index] & 1 == 1;
                Piece { index, entry, part, chunk: (!is_zero).then(|| self.ids[index]) }
            })
            .take_while(|piece| piece.part.start < piece.part.end)
    }

    fn range(&self, index: usize) -> Range<u64> {
        let end = self.starts.get(index + 1).map_or(self.len, |next| next >> 1);
        self.starts[index] >> 1..end
    }

    /// Returns where the chunk of an entry is, with what was found out before.
    pub(super) fn location(&self, store: &Store, index: usize) -> Result<Option<Location>> {
        let (group, place) = (index / LOCATED_TOGETHER, index % LOCATED_TOGETHER);
        let plain = self.range(index);
        let known = self.places.lock().unwrap_or_else(PoisonError::into_inner)[group].clone();
        let places = match known {
            Some(places) => places,
            None => {
                // Another thread may be faster; its answer is as good.
                let places = Arc::new(Places::new(&self.locate(store, group)?));
                let mut all = self.places.lock().unwrap_or_else(PoisonError::into_inner);
                all[group] = Some(Arc::clone(&places));
                places
            }
        };
        Ok(places.get(place, plain.end - plain.start))
    }

    /// Forgets where the neighbours of an entry are, because it was not there.
    pub(super) fn forget_places(&self, index: usize) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places[index / LOCATED_TOGETHER] = None;
    }

    fn locate(&self, store: &Store, group: usize) -> Result<Vec<Option<Location>>> {
        let first = group * LOCATED_TOGETHER;
        let last = (first + LOCATED_TOGETHER).min(self.starts.len());
        let is_data = |index: usize| self.starts[index] & 1 == 0;
        let ids: Vec<ChunkId> =
            (first..last).filter(|index| is_data(*index)).map(|index| self.ids[index]).collect();
        let mut found = store.index().locate_often(&ids)?.into_iter();
        let mut place = |index: usize| is_data(index).then(|| found.next().flatten()).flatten();
        Ok((first..last).map(&mut place).collect())
    }
}
