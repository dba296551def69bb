//! Setting damaged records aside: confirmed by reading again, with evidence, and out of the index.
//!
//! Order: `docs/durability.md`, section "Quarantine". The file is durable before the index changes, so a record that has left the index
//! is always known to be damaged. Nothing is removed: the pack stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use crate::chunk_reader::to_usize;
use crate::compression::Expander;
use crate::error::{Error, Result};
use crate::format::{FooterRecord, FormatError, Quarantined, QuarantinedRecord, RecordHeader};
use crate::id::{ChunkId, PackId, QuarantineId};
use crate::index::Location;
use crate::limits::{QUARANTINE_EVIDENCE_LEN_MAX, QUARANTINE_TEXT_LEN_MAX};
use crate::pack::{PackContents, read_contents, read_header, read_record};
use crate::storage::{Existing, ObjectKey, Storage};
use crate::store::Store;
use crate::units::PackOffset;

/// One copy of a chunk.
pub(crate) type Copy = (PackId, ChunkId);

/// Where a record must be, by the table of its pack, or by the index if that is damaged.
struct Place {
    id: ChunkId,
    record_index: u32,
    offset: PackOffset,
    /// Length with its header.
    len: usize,
}

impl Store {
    /// Sets copies of chunks aside, if another reading confirms that they are damaged. Where the index has led to one of them, it leads
    /// to another copy afterwards, which is read before anybody relies on it, or nowhere.
    ///
    /// What is missing as a whole is not set aside: the index knows of it.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`] if the store cannot be written. The index then leads where it led before.
    pub(crate) fn set_aside(&self, copies: &BTreeSet<Copy>) -> Result<()> {
        let mut suspects = copies.clone();
        let mut seen = BTreeSet::new();
        while !suspects.is_empty() {
            let known = self.index().quarantine()?;
            let mut by_pack: BTreeMap<PackId, BTreeSet<ChunkId>> = BTreeMap::new();
            for (pack, id) in &suspects {
                let is_known = known.contains(pack, id);
                let ids = by_pack.entry(*pack).or_default();
                if !is_known {
                    ids.insert(*id);
                }
            }
            for (pack, ids) in by_pack.iter().filter(|(_, ids)| !ids.is_empty()) {
                if let Some(file) = self.confirm(pack, ids)? {
                    let bytes = file.encode();
                    let name = QuarantineId::from_bytes(*blake3::hash(&bytes).as_bytes());
                    let key = ObjectKey::Quarantined(name);
                    self.storage().put(&key, &bytes, Existing::Replace)?;
                }
            }
            self.index().reconcile()?;
            seen.append(&mut suspects);
            suspects = self.other_copies(&seen)?;
        }
        Ok(())
    }

    /// Returns the places that the index has now of these chunks, and at which nobody has looked yet.
    fn other_copies(&self, seen: &BTreeSet<Copy>) -> Result<BTreeSet<Copy>> {
        let ids: BTreeSet<ChunkId> = seen.iter().map(|(_, id)| *id).collect();
        let ids: Vec<ChunkId> = ids.into_iter().collect();
        let locations = self.index().view(|view| view.locate(&ids))?;
        let present = |location: &Location| !location.is_missing;
        let copies = ids.into_iter().zip(locations).filter_map(|(id, location)| {
            location.filter(present).map(|location| (location.pack, id))
        });
        Ok(copies.filter(|copy| !seen.contains(copy)).collect())
    }

    /// Reads records once more, and returns those that are damaged with what was read; `None` if none is.
    fn confirm(&self, pack: &PackId, ids: &BTreeSet<ChunkId>) -> Result<Option<Quarantined>> {
        let storage: &dyn Storage = self.storage();
        let contents = match read_contents(storage, pack) {
            Ok(contents) => Some(contents),
            Err(Error::Missing { .. }) => return Ok(None),
            Err(error) if error.is_damage() => None,
            Err(other) => return Err(other),
        };
        let mut expander = Expander::new();
        let mut file = Quarantined {
            pack: *pack,
            found: self.environment().clock.now(),
            command: cut(&self.environment().identity.command),
            reason: String::new(),
            records: Vec::new(),
            evidence: Vec::new(),
        };
        for place in self.places(pack, ids, contents.as_ref())? {
            let mut bytes = vec![0; place.len];
            let reason = match read_record(storage, pack, &mut bytes, place.offset) {
                Ok(()) => check(&mut expander, &place.id, &bytes).err(),
                Err(Error::Damaged { source, .. }) => {
                    bytes.clear();
                    Some(source)
                }
                Err(Error::Storage { source, .. })
                    if Errno::from_io_error(&source) == Some(Errno::IO) =>
                {
                    // If the medium does not read other places either, it is not this record that is bad.
                    if read_header(storage, pack).is_err() {
                        return Ok(None);
                    }
                    bytes.clear();
                    Some(FormatError::Unreadable { reason: source.to_string() })
                }
                Err(Error::Missing { .. }) => return Ok(None),
                Err(other) => return Err(other),
            };
            if let Some(reason) = reason {
                if file.records.is_empty() {
                    file.reason = cut(&reason.to_string());
                }
                add_record(&mut file, &place, &bytes);
            }
        }
        Ok((!file.records.is_empty()).then_some(file))
    }

    /// Returns where the records of these chunks must be, in their order.
    fn places(
        &self,
        pack: &PackId,
        ids: &BTreeSet<ChunkId>,
        contents: Option<&PackContents>,
    ) -> Result<Vec<Place>> {
        let mut places: BTreeMap<u32, Place> = BTreeMap::new();
        let records = contents.iter().flat_map(|contents| &contents.records);
        for (record_index, record) in (0..).zip(records) {
            if ids.contains(&record.id) {
                places.insert(record_index, Place::in_table(record_index, record));
            }
        }
        // A damaged table does not have all records.
        if contents.is_none_or(|contents| contents.damage.is_some()) {
            let ids: Vec<ChunkId> = ids.iter().copied().collect();
            let locations = self.index().view(|view| view.locate(&ids))?;
            for (id, location) in ids.into_iter().zip(locations) {
                let location = location.filter(|location| location.pack == *pack);
                if let Some(Location { record_index, offset, stored_len, .. }) = location {
                    let len = RecordHeader::LEN + to_usize(stored_len);
                    places.entry(record_index).or_insert(Place { id, record_index, offset, len });
                }
            }
        }
        Ok(places.into_values().collect())
    }
}

impl Place {
    fn in_table(record_index: u32, record: &FooterRecord) -> Self {
        let len = to_usize(record.len_in_pack());
        Self { id: record.id, record_index, offset: record.offset, len }
    }
}

/// Returns whether the bytes of a record are those of the chunk.
fn check(
    expander: &mut Expander,
    id: &ChunkId,
    bytes: &[u8],
) -> std::result::Result<(), FormatError> {
    let (header, payload) = bytes.split_at(RecordHeader::LEN);
    let header = RecordHeader::decode(header)?;
    if header.id != *id || to_usize(header.stored_len) != payload.len() {
        return Err(FormatError::Inconsistent { what: "another record is in its place" });
    }
    expander.expand(&header, payload, &mut Vec::new())
}

/// Adds a record with as much of what was read as there is room for.
fn add_record(file: &mut Quarantined, place: &Place, bytes: &[u8]) {
    let room = to_usize(QUARANTINE_EVIDENCE_LEN_MAX).saturating_sub(file.evidence.len());
    let evidence = &bytes[..bytes.len().min(room)];
    file.evidence.extend_from_slice(evidence);
    file.records.push(QuarantinedRecord {
        id: place.id,
        record_index: place.record_index,
        offset: place.offset.0,
        evidence_len: u32::try_from(evidence.len()).expect("there is room for 512 KiB"),
    });
}

/// Cuts a text to what a quarantine file holds.
pub(crate) fn cut(text: &str) -> String {
    let len_max = usize::from(QUARANTINE_TEXT_LEN_MAX);
    let fits = |(start, letter): &(usize, char)| start + letter.len_utf8() <= len_max;
    text.char_indices().take_while(fits).map(|(_, letter)| letter).collect()
}
