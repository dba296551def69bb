//! Finds out what revisions need: one bit for each record of each pack.
//!
//! Memory is one bit a record, whatever the number of revisions: a page whose own bit is set
//! was walked already, and so is everything below it. Used by verify and by purge.
//!
//! A [`Proof`] is what verified revisions need: a second set of bits, of records that need not be read again.
//!
//! Bits belong to packs by their names. The numbers that an index gives to packs last only as long as that
//! index: another process may put a new one in its place between two lookups.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::chunk_reader::{ChunkReader, to_usize};
use crate::error::{Error, ObjectName, Result};
use crate::format::{FooterRecord, FormatError, PageEntry};
use crate::id::{ChunkId, PackId};
use crate::index::{Location, Quarantine};
use crate::progress::Progress;
use crate::store::Store;
use crate::time::Timestamp;

/// Chunks that are looked up together.
const LOOKUP_COUNT: usize = 1 << 16;

/// The records of one pack that are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackNeeds {
    bits: Vec<u64>,
    /// XOR of the ids of all needed records: compared with the pack's own table, because the index that gave
    /// the record numbers is not checked by redb.
    fingerprint: [u8; ChunkId::LEN],
}

impl PackNeeds {
    const fn new() -> Self {
        Self { bits: Vec::new(), fingerprint: [0; ChunkId::LEN] }
    }

    /// Sets the bit of a record and returns whether it was clear.
    fn set(&mut self, record_index: u32, id: &ChunkId) -> bool {
        let (word, bit) = (to_usize(record_index / 64), record_index % 64);
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let is_new = self.bits[word] & (1 << bit) == 0;
        if is_new {
            self.bits[word] |= 1 << bit;
            for (sum, byte) in self.fingerprint.iter_mut().zip(id.as_bytes()) {
                *sum ^= byte;
            }
        }
        is_new
    }

    /// Returns whether the record with this number is needed.
    pub(crate) fn contains(&self, record_index: usize) -> bool {
        let word = self.bits.get(record_index / 64);
        word.is_some_and(|word| word & (1 << (record_index % 64)) != 0)
    }

    /// Returns how many records are needed.
    pub(crate) fn count(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).sum()
    }

    /// Returns whether the needed records are those that the pack's table has at these places.
    pub(crate) fn agrees_with(&self, records: &[FooterRecord]) -> bool {
        let mut fingerprint = [0; ChunkId::LEN];
        let mut count = 0_u32;
        for (_, record) in records.iter().enumerate().filter(|(index, _)| self.contains(*index)) {
            count += 1;
            for (sum, byte) in fingerprint.iter_mut().zip(record.id.as_bytes()) {
                *sum ^= byte;
            }
        }
        self.count() == count && fingerprint == self.fingerprint
    }
}

/// Records that were read and matched their ids when revisions were verified.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    needs: BTreeMap<PackId, PackNeeds>,
}

impl Proof {
    /// Collects what the roots of verified revisions prove. Each comes with the time of its proof, the newest first; a record
    /// was proven if its pack was there by then. `created` says since when packs are there.
    ///
    /// What cannot be had proves nothing, and is no finding here.
    pub(crate) fn collect(
        store: &Store,
        progress: &dyn Progress,
        roots: &[(ChunkId, Timestamp)],
        created: &HashMap<PackId, Timestamp>,
    ) -> Result<Self> {
        debug_assert!(roots.is_sorted_by(|left, right| right.1 <= left.1), "newest first");
        let mut marker = Marker::new(store, progress);
        for (root, time) in roots {
            marker.bound = Some((created, *time));
            marker.mark_root(root)?;
        }
        Ok(Self { needs: marker.needs })
    }

    fn contains(&self, location: &Location) -> bool {
        let needs = self.needs.get(&location.pack);
        needs.is_some_and(|needs| needs.contains(to_usize(location.record_index)))
    }
}

/// Something that a revision needs and that cannot be had.
#[derive(Debug)]
pub(crate) struct Gap {
    /// Why.
    pub(crate) error: Error,
    /// Whether it is a page or a root, so that what lies below is unknown.
    pub(crate) is_list: bool,
    /// Whether only pins are known to lead to it, and no revision.
    pub(crate) is_only_pinned: bool,
}

impl Gap {
    /// Returns whether the index has no place for the chunk at all. It may have lost it: another one, made from the
    /// packs, may know better. A chunk in a pack that is gone is not such a case.
    pub(crate) const fn has_no_place(&self) -> bool {
        matches!(self.error, Error::Missing { object: ObjectName::Chunk { pack: None, .. }, .. })
    }

    /// Returns whether the chunk has no place, be it that its copies are in quarantine. What could not be read only now, or lies in a pack
    /// that is gone for the time being, is not such a case.
    pub(crate) const fn is_unserved(&self) -> bool {
        self.has_no_place()
            || matches!(self.error, Error::Damaged { source: FormatError::Quarantined { .. }, .. })
    }
}

/// Collects what revisions need.
pub(crate) struct Marker<'a> {
    store: &'a Store,
    reader: ChunkReader,
    progress: &'a dyn Progress,
    /// Chunks of which it is known why they have no place.
    quarantine: Arc<Quarantine>,
    marked_roots: HashSet<ChunkId>,
    /// Those of them that no revision has led to.
    roots_of_pins: HashSet<ChunkId>,
    /// What is marked now is the root of a session.
    is_pin: bool,
    /// Data chunks of pages that were walked, which are looked up together.
    pending: Vec<ChunkId>,
    /// Only records of packs that were there before this time count.
    bound: Option<(&'a HashMap<PackId, Timestamp>, Timestamp)>,
    /// What counts as read already.
    proof: Option<&'a Proof>,
    /// Records that are needed and count as read already.
    proven: BTreeMap<PackId, PackNeeds>,
    pub(crate) needs: BTreeMap<PackId, PackNeeds>,
    /// By chunk: many revisions may lack the same one.
    pub(crate) gaps: BTreeMap<ChunkId, Gap>,
}

impl<'a> Marker<'a> {
    pub(crate) fn new(store: &'a Store, progress: &'a dyn Progress) -> Self {
        Self {
            store,
            reader: ChunkReader::new(store),
            progress,
            quarantine: Arc::default(),
            marked_roots: HashSet::new(),
            roots_of_pins: HashSet::new(),
            is_pin: false,
            pending: Vec::new(),
            bound: None,
            proof: None,
            proven: BTreeMap::new(),
            needs: BTreeMap::new(),
            gaps: BTreeMap::new(),
        }
    }

    /// Leaves out of [`Self::needs`] what `proof` has.
    pub(crate) fn with_proof(self, proof: &'a Proof) -> Self {
        Self { proof: Some(proof), ..self }
    }

    /// Returns how many records are needed and were left out because of the proof.
    pub(crate) fn proven_count(&self) -> u64 {
        self.proven.values().map(|needs| u64::from(needs.count())).sum()
    }

    /// Marks a root that a session pins, and everything below it.
    pub(crate) fn mark_pin(&mut self, id: &ChunkId) -> Result<()> {
        self.is_pin = true;
        let marked = self.mark_root(id);
        self.is_pin = false;
        marked
    }

    /// Marks a root and everything below it. What cannot be had becomes a [`Gap`].
    pub(crate) fn mark_root(&mut self, id: &ChunkId) -> Result<()> {
        if !self.marked_roots.insert(*id) {
            if !self.is_pin && self.roots_of_pins.remove(id) {
                // Only sessions led here before: what is missing below, this revision may need too.
                self.gaps.values_mut().for_each(|gap| gap.is_only_pinned = false);
            }
            return Ok(());
        }
        self.quarantine = self.store.index().quarantine()?;
        if self.is_pin {
            self.roots_of_pins.insert(*id);
        }
        let location = self.locate(&[*id])?.pop().flatten();
        if !self.mark(id, location, true) {
            return Ok(());
        }
        let root = match self.reader.read_list_root(id) {
            Ok(root) => root,
            Err(error) => return self.note_gap(*id, error, true),
        };
        let pages = root.pages();
        let ids: Vec<ChunkId> = pages.iter().map(|page| page.id).collect();
        let locations = self.locate(&ids)?;
        for (page, location) in pages.iter().zip(locations) {
            if self.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if !self.mark(&page.id, location, true) {
                continue;
            }
            match self.reader.read_list_entries(root.kind(), page, location) {
                Ok(entries) => self.mark_entries(&entries)?,
                Err(error) => self.note_gap(page.id, error, true)?,
            }
        }
        self.mark_pending()
    }

    fn mark_entries(&mut self, entries: &[PageEntry]) -> Result<()> {
        self.pending.extend(entries.iter().filter_map(|entry| match entry {
            PageEntry::Data { id, .. } => Some(*id),
            PageEntry::Zero { .. } => None,
        }));
        if LOOKUP_COUNT <= self.pending.len() { self.mark_pending() } else { Ok(()) }
    }

    /// Marks the chunks that were collected. In the index they lie in the order of their ids, so many at once cost less than
    /// the same chunks page by page.
    fn mark_pending(&mut self) -> Result<()> {
        let mut ids = std::mem::take(&mut self.pending);
        ids.sort_unstable();
        ids.dedup();
        for ids in ids.chunks(LOOKUP_COUNT) {
            for (id, location) in ids.iter().zip(self.locate(ids)?) {
                self.mark(id, location, false);
            }
        }
        ids.clear();
        self.pending = ids;
        Ok(())
    }

    /// Marks one record and returns whether that is news.
    fn mark(&mut self, id: &ChunkId, location: Option<Location>, is_list: bool) -> bool {
        match location {
            Some(location) if !location.is_missing => {
                let is_late = |(created, time): &(&HashMap<PackId, Timestamp>, Timestamp)| {
                    created.get(&location.pack).is_none_or(|created| *time <= *created)
                };
                if self.bound.as_ref().is_some_and(is_late) {
                    // What lies below a list may have been there before all the same.
                    return true;
                }
                let is_proven = self.proof.is_some_and(|proof| proof.contains(&location));
                let needs = if is_proven { &mut self.proven } else { &mut self.needs };
                needs
                    .entry(location.pack)
                    .or_insert_with(PackNeeds::new)
                    .set(location.record_index, id)
            }
            other => {
                let pack = other.map(|location| location.pack);
                let missing = || Error::Missing { object: ObjectName::Chunk { id: *id, pack } };
                let quarantined = self.quarantine.error_of(id).filter(|_| pack.is_none());
                let error = quarantined.unwrap_or_else(missing);
                self.add_gap(*id, error, is_list);
                false
            }
        }
    }

    fn note_gap(&mut self, chunk: ChunkId, error: Error, is_list: bool) -> Result<()> {
        if !error.is_damage() {
            return Err(error);
        }
        self.add_gap(chunk, error, is_list);
        Ok(())
    }

    fn add_gap(&mut self, chunk: ChunkId, error: Error, is_list: bool) {
        let known = self.gaps.get(&chunk);
        let is_only_pinned = self.is_pin && known.is_none_or(|gap| gap.is_only_pinned);
        self.gaps.insert(chunk, Gap { error, is_list, is_only_pinned });
    }

    fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.store.index().view(|view| view.locate(ids))
    }
}
