//! Brings the index and the directory of packs together.
//!
//! Packs that no index knows are adopted: a crash came between their last sync and the index, or another process
//! is about to add them. Condemned lists are read under the exclusive lock and after the packs, so that
//! a pack that purge is removing is never adopted as one that new backups may use (`docs/concurrency.md`).

use std::collections::{HashMap, HashSet};

use super::change::Origin;
use super::tables::PackRow;
use super::{Change, Fault, Index, Quarantine};
use crate::error::{Error, ObjectName, Result};
use crate::format::{CondemnedList, FormatError, PackKind};
use crate::id::{ChunkId, PackId, SessionId};
use crate::pack::{PackContents, read_contents};
use crate::storage::{ObjectKey, Storage, get_table};
use crate::time::Timestamp;

/// Records that one transaction adds at most, unless one pack has more.
const BATCH_RECORD_COUNT: usize = 50_000;

/// All condemned lists of a store.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    /// Those that can be read, oldest first.
    pub(crate) lists: Vec<CondemnedList>,
    /// Generations of those that cannot, ascending, with the reason.
    pub(crate) damaged: Vec<(u64, Error)>,
}

impl Condemned {
    /// Reads all lists.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Self> {
        let mut condemned = Self::default();
        for generation in storage.list_condemned()? {
            let key = ObjectKey::Condemned(generation);
            let (len_max, check) = (CondemnedList::LEN_MAX, CondemnedList::check_len);
            let bytes = match get_table(storage, &key, len_max, check) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error @ (Error::Damaged { .. } | Error::UnsupportedFormat { .. })) => {
                    let error = error.of_object(ObjectName::Condemned { generation });
                    condemned.damaged.push((generation, error));
                    continue;
                }
                Err(other) => return Err(other),
            };
            let list = CondemnedList::decode(&bytes).and_then(|list| {
                let what = "its name says another generation";
                if list.generation == generation {
                    Ok(list)
                } else {
                    Err(FormatError::Inconsistent { what })
                }
            });
            match list {
                Ok(list) => condemned.lists.push(list),
                Err(source) => {
                    let object = ObjectName::Condemned { generation };
                    let error = crate::error::unsupported_or_damaged(object, source);
                    condemned.damaged.push((generation, error));
                }
            }
        }
        Ok(condemned)
    }

    /// Refuses lists that a newer program wrote: they are not damaged, and not ours to set aside.
    pub(crate) fn refuse_newer_format(&self) -> Result<()> {
        let found = self.damaged.iter().find_map(|(_, error)| match error {
            Error::UnsupportedFormat { object, found, supported } => {
                Some(Error::UnsupportedFormat {
                    object: object.clone(),
                    found: *found,
                    supported: *supported,
                })
            }
            _ => None,
        });
        found.map_or(Ok(()), Err)
    }

    /// Returns the packs that a readable list names.
    pub(crate) fn packs(&self) -> HashSet<PackId> {
        self.lists.iter().flat_map(|list| list.packs.iter().copied()).collect()
    }

    /// Returns the highest generation, 0 if there is no list.
    pub(crate) fn newest_generation(&self) -> u64 {
        let readable = self.lists.last().map_or(0, |list| list.generation);
        let damaged = self.damaged.last().map_or(0, |(generation, _)| *generation);
        readable.max(damaged)
    }

    /// Returns the generation that condemned each pack, as a function.
    ///
    /// A list that cannot be read may name any pack. Until purge has set it aside, every pack counts as condemned: it can
    /// be read, but no new backup relies on it.
    pub(super) fn generation_of_pack(&self) -> impl Fn(&PackId) -> u64 + use<> {
        let named: HashMap<PackId, u64> = self
            .lists
            .iter()
            .flat_map(|list| list.packs.iter().map(move |id| (*id, list.generation)))
            .collect();
        let otherwise = self.damaged.last().map_or(0, |(generation, _)| *generation);
        move |id| named.get(id).copied().unwrap_or(otherwise)
    }
}

pub(super) fn row(id: PackId, contents: &PackContents, condemned: u64) -> PackRow {
    let header = contents.header.as_ref();
    let holds_lists = contents.records.first().is_some_and(|record| record.kind.is_list());
    PackRow {
        id,
        // A damaged header hides who wrote the pack and when; purge then sees no reason to spare it.
        session: header.map_or(SessionId::from_bytes([0; 16]), |header| header.session_id),
        created: header.map_or(Timestamp(0), |header| header.created),
        file_len: contents.file_len,
        record_count: u32::try_from(contents.records.len()).unwrap_or(u32::MAX),
        kind: if holds_lists { PackKind::List } else { PackKind::Data },
        is_missing: false,
        condemned,
    }
}

/// Enters a pack that was found in the directory. Where a chunk is known already, the younger place is kept.
fn insert(
    change: &mut Change<'_>,
    id: PackId,
    contents: &PackContents,
    condemned: u64,
    quarantine: &Quarantine,
) -> std::result::Result<(), Fault> {
    let is_left_out = |chunk: &ChunkId| quarantine.contains(&id, chunk);
    change.insert_pack(row(id, contents, condemned), &contents.records, Origin::Found, is_left_out)
}

/// Returns whether a pack cannot be read for a reason of its own, so that the others are of use.
pub(super) const fn is_of_this_pack(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::UnsupportedFormat { .. })
}

impl Index {
    /// Adopts packs that the index does not know, notes those that are gone, and takes out what is in quarantine. Returns what
    /// is damaged.
    pub(crate) fn reconcile(&self) -> Result<Vec<Error>> {
        let known = self.view(|view| view.packs())?;
        let listed: HashSet<PackId> = self.storage.list_packs()?.into_iter().collect();
        let present: HashSet<PackId> =
            known.iter().filter(|(_, row)| !row.is_missing).map(|(_, row)| row.id).collect();
        let unknown: Vec<PackId> = listed.difference(&present).copied().collect();
        let gone: Vec<PackId> = present.difference(&listed).copied().collect();
        let mut damaged = self.adopt(unknown)?;
        damaged.extend(self.honour_quarantine()?.damaged.iter().map(Error::again));
        if !gone.is_empty() {
            let lost = match self.take_over_missing(&gone).and_then(|()| self.note_missing(&gone)) {
                // Reading goes on without the note: a missing file is found out when it is read.
                Err(error) if super::is_refused(&error) => gone,
                other => other?,
            };
            damaged
                .extend(lost.into_iter().map(|id| Error::Missing { object: ObjectName::Pack(id) }));
        }
        Ok(damaged)
    }

    fn adopt(&self, mut unknown: Vec<PackId>) -> Result<Vec<Error>> {
        unknown.sort();
        let mut damaged = Vec::new();
        let mut batch = Vec::new();
        let mut batch_len = 0;
        let mut remaining = unknown.into_iter().peekable();
        while let Some(id) = remaining.next() {
            match read_contents(&self.storage, &id) {
                Ok(contents) => {
                    batch_len += contents.records.len();
                    batch.push((id, contents));
                }
                Err(Error::Missing { .. }) => {}
                Err(error) if is_of_this_pack(&error) => damaged.push(error),
                Err(other) => return Err(other),
            }
            if BATCH_RECORD_COUNT <= batch_len || remaining.peek().is_none() {
                match self.adopt_batch(&batch) {
                    Err(error) if super::is_refused(&error) => {
                        self.stand_in()?;
                        return Ok(damaged);
                    }
                    other => other?,
                }
                batch.clear();
                batch_len = 0;
            }
        }
        Ok(damaged)
    }

    fn adopt_batch(&self, batch: &[(PackId, PackContents)]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        // A backup relies on what the index leads to.
        self.storage.sync_packs(batch.iter().map(|(id, _)| id))?;
        // What stands in for the file lacks these packs. If the file can still not be written, it is made again.
        self.end_stand_in();
        self.change(|change| {
            // The generation stays: only the purge that flags all packs of a list raises it.
            let generation_of = Condemned::read(&self.storage)?.generation_of_pack();
            let quarantine = self.quarantine()?;
            for (id, contents) in batch {
                // A purge may have removed the pack since it was read.
                if self.storage.object_len(&ObjectKey::Pack(*id))?.is_some() {
                    insert(change, *id, contents, generation_of(id), &quarantine)?;
                }
            }
            Ok(())
        })
    }

    /// Notes packs that are not there and returns those that are lost. One that was condemned, or has left the
    /// index by now, was swept: that is no loss.
    fn note_missing(&self, gone: &[PackId]) -> Result<Vec<PackId>> {
        self.change(|change| {
            let mut lost = Vec::new();
            for id in gone {
                if self.storage.object_len(&ObjectKey::Pack(*id))?.is_none()
                    && change.mark_missing(id)?
                {
                    lost.push(*id);
                }
            }
            Ok(lost)
        })
    }

    /// Looks through all packs for other copies of chunks whose pack is missing. This comes before the note that it is: a
    /// crash between the two, and the next comparison begins again.
    fn take_over_missing(&self, gone: &[PackId]) -> Result<()> {
        let gone: HashSet<PackId> = gone.iter().copied().collect();
        let quarantine = self.quarantine()?;
        let packs = self.view(|view| view.packs())?;
        // A pack that was swept meanwhile is no loss.
        let is_lost = |row: &PackRow| gone.contains(&row.id) && row.accepts_new_references();
        if !packs.iter().any(|(_, row)| is_lost(row)) {
            return Ok(());
        }
        let mut batch: Vec<(PackId, PackContents)> = Vec::new();
        let mut batch_len = 0;
        let mut present = packs
            .iter()
            .filter(|(_, row)| !row.is_missing && !gone.contains(&row.id))
            .map(|(_, row)| row.id)
            .peekable();
        while let Some(id) = present.next() {
            match read_contents(&self.storage, &id) {
                Ok(contents) => {
                    batch_len += contents.records.len();
                    batch.push((id, contents));
                }
                Err(error) if is_of_this_pack(&error) => {}
                Err(other) => return Err(other),
            }
            if BATCH_RECORD_COUNT <= batch_len || present.peek().is_none() {
                self.change(|change| {
                    batch.iter().try_for_each(|(id, contents)| {
                        change.take_over_missing(id, &contents.records, &gone, |chunk| {
                            quarantine.contains(id, chunk)
                        })
                    })
                })?;
                batch.clear();
                batch_len = 0;
            }
        }
        Ok(())
    }
}
