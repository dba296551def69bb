//! Records that were found damaged: the index does not lead to them.
//!
//! The files in `quarantine/` say which (`docs/format.md`, section "Quarantine file"). They are never changed, so the index notes the
//! names of those that it honours; what is new is found by comparing names. A file that cannot be read is named and has no
//! effect: its record is then found damaged once more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Arc, PoisonError};

use super::change::rank;
use super::tables::PackRow;
use super::{Index, is_refused};
use crate::error::{Error, ObjectName, Result, unsupported_or_damaged};
use crate::format::{FooterRecord, FormatError, Quarantined};
use crate::id::{ChunkId, PackId, QuarantineId};
use crate::pack::read_contents;
use crate::storage::{ObjectKey, Storage};
use crate::time::Timestamp;

/// All quarantine files of a store.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    /// Their names, sorted; also of those that cannot be read.
    pub(crate) names: Vec<QuarantineId>,
    /// Those that cannot be read.
    pub(crate) damaged: Vec<Error>,
    packs: HashMap<PackId, HashSet<ChunkId>>,
    chunks: HashMap<ChunkId, Finding>,
}

/// What is known of a chunk that was found damaged.
#[derive(Clone, Debug)]
struct Finding {
    pack: PackId,
    since: Timestamp,
    reason: Arc<str>,
}

/// The best of the copies of a chunk that are not in quarantine.
type Copies = HashMap<ChunkId, (PackRow, usize, FooterRecord)>;

impl Quarantine {
    /// Reads the files with these names.
    pub(super) fn read(storage: &dyn Storage, names: Vec<QuarantineId>) -> Result<Self> {
        let mut quarantine = Self::default();
        for name in &names {
            let key = ObjectKey::Quarantined(*name);
            let object = || ObjectName::File { path: storage.path(&key) };
            let bytes = match storage.get(&key, Quarantined::LEN_MAX) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error @ Error::Damaged { .. }) => {
                    quarantine.damaged.push(error);
                    continue;
                }
                Err(other) => return Err(other),
            };
            let file = if blake3::hash(&bytes).as_bytes() == name.as_bytes() {
                Quarantined::decode(&bytes)
            } else {
                Err(FormatError::WrongChecksum { structure: "the quarantine file" })
            };
            match file {
                Ok(file) => quarantine.add(&file),
                Err(source) => quarantine.damaged.push(unsupported_or_damaged(object(), source)),
            }
        }
        quarantine.names = names;
        Ok(quarantine)
    }

    fn add(&mut self, file: &Quarantined) {
        let reason: Arc<str> = Arc::from(file.reason.as_str());
        let chunks = self.packs.entry(file.pack).or_default();
        for record in &file.records {
            chunks.insert(record.id);
            let finding =
                Finding { pack: file.pack, since: file.found, reason: Arc::clone(&reason) };
            self.chunks.insert(record.id, finding);
        }
    }

    /// Returns whether the record of a chunk in a pack is in quarantine.
    pub(crate) fn contains(&self, pack: &PackId, id: &ChunkId) -> bool {
        self.packs.get(pack).is_some_and(|chunks| chunks.contains(id))
    }

    /// Returns the chunks of which a copy is in quarantine.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &ChunkId> {
        self.chunks.keys()
    }

    /// Returns why a chunk cannot be had that has no place, if a copy of it is in quarantine.
    pub(crate) fn error_of(&self, id: &ChunkId) -> Option<Error> {
        let Finding { pack, since, reason } = self.chunks.get(id)?;
        let object = ObjectName::Chunk { id: *id, pack: Some(*pack) };
        let source = FormatError::Quarantined { since: *since, reason: reason.to_string() };
        Some(Error::Damaged { object, source })
    }
}

impl Index {
    /// Returns what is in quarantine now.
    pub(crate) fn quarantine(&self) -> Result<Arc<Quarantine>> {
        let names = match self.storage.list_quarantined() {
            // A store that was copied without its empty directories has nothing in it.
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            other => other?,
        };
        let mut known = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        if known.names != names {
            *known = Arc::new(Quarantine::read(&self.storage, names)?);
        }
        Ok(Arc::clone(&known))
    }

    /// Takes the records out that are in quarantine and still in the index. Where another pack has such a chunk too, the
    /// index leads there instead. Returns the files that cannot be read.
    pub(super) fn honour_quarantine(&self) -> Result<Arc<Quarantine>> {
        let quarantine = self.quarantine()?;
        if quarantine.names.is_empty() {
            return Ok(quarantine);
        }
        let known = self.view(|view| view.honoured())?;
        let news: Vec<QuarantineId> =
            quarantine.names.iter().filter(|name| !known.contains(name)).copied().collect();
        if news.is_empty() {
            return Ok(quarantine);
        }
        let ids: Vec<ChunkId> = quarantine.chunks().copied().collect();
        let locations = self.view(|view| view.locate(&ids))?;
        let is_out = |(id, location): &(ChunkId, Option<super::Location>)| {
            location.as_ref().is_some_and(|location| quarantine.contains(&location.pack, id))
        };
        let leaving: BTreeSet<ChunkId> =
            ids.into_iter().zip(locations).filter(is_out).map(|(id, _)| id).collect();
        let copies = self.find_copies(&leaving, &quarantine)?;
        let changed = self.change(|change| {
            for id in &leaving {
                let is_out = |pack: &PackId| quarantine.contains(pack, id);
                change.lead_elsewhere(id, is_out, copies.get(id))?;
            }
            change.note_honoured(&news)
        });
        match changed {
            // A new index in memory honours what is there.
            Err(error) if is_refused(&error) => self.stand_in()?,
            other => other?,
        }
        Ok(quarantine)
    }

    /// Looks through all packs for copies of chunks that are not in quarantine.
    fn find_copies(&self, ids: &BTreeSet<ChunkId>, quarantine: &Quarantine) -> Result<Copies> {
        let mut copies = Copies::new();
        if ids.is_empty() {
            return Ok(copies);
        }
        let packs = self.view(|view| view.packs())?;
        for (_, row) in packs.into_iter().filter(|(_, row)| !row.is_missing) {
            let contents = match read_contents(&self.storage, &row.id) {
                Ok(contents) => contents,
                Err(error) if super::reconcile::is_of_this_pack(&error) => continue,
                Err(other) => return Err(other),
            };
            for (index, record) in contents.records.iter().enumerate() {
                let is_copy = ids.contains(&record.id) && !quarantine.contains(&row.id, &record.id);
                let is_better =
                    |(other, ..): &(PackRow, usize, FooterRecord)| rank(other) < rank(&row);
                if is_copy && copies.get(&record.id).is_none_or(is_better) {
                    copies.insert(record.id, (row, index, *record));
                }
            }
        }
        Ok(copies)
    }
}
