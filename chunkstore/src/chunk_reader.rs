//! Reads chunks by id. No byte leaves here that does not hash to its id.

use std::collections::BTreeSet;

use crate::compression::Expander;
use crate::error::{Error, ObjectName, Result};
use crate::format::{FormatError, ObjectKind, RecordHeader};
use crate::id::{ChunkId, PackId};
use crate::index::Location;
use crate::limits::{CHUNK_LEN_MAX, STORED_OVERHEAD_MAX};
use crate::pack::{read_contents, read_record};
use crate::planted::{Bug, has};
use crate::storage::{ObjectKey, Storage};
use crate::store::Store;

/// Reads chunks one after another with buffers of its own: one for each thread.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    store: Store,
    buffers: ReadBuffers,
    /// Whether the index was compared with the packs because a chunk in quarantine has no place.
    has_compared: bool,
    /// Whether the last chunk was not, or not soundly, where it was looked for first.
    has_strayed: bool,
}

/// What reading takes apart from the chunk itself. It is worth keeping.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffers {
    expander: Expander,
    record: Vec<u8>,
}

impl ReadBuffers {
    /// Returns room for a record. What is in it is old.
    fn record_of(&mut self, len: usize) -> &mut [u8] {
        if self.record.len() < len {
            self.record.resize(len, 0);
        }
        &mut self.record[..len]
    }

    /// Returns the bytes that the last records took.
    pub(crate) const fn record_len(&self) -> usize {
        self.record.capacity()
    }
}

/// Copies that the readers of one handle set aside at once. Each costs a look through all packs for another copy; where that
/// many are damaged, a verification or scrub sets them aside together.
const SET_ASIDE_MAX: u32 = 64;

/// Why a chunk could not be read at a place.
#[derive(Debug)]
enum ReadFault {
    /// The chunk is not at that place: the index may be out of date or damaged.
    Place(Error),
    /// The chunk is there and damaged, or the store cannot be read.
    Chunk(Error),
}

impl ChunkReader {
    pub(crate) fn new(store: &Store) -> Self {
        Self::with_buffers(store, ReadBuffers::default(), false)
    }

    /// Goes on with the buffers of another reader, and with what another one knows: see [`Self::has_compared`].
    pub(crate) fn with_buffers(store: &Store, buffers: ReadBuffers, has_compared: bool) -> Self {
        Self { store: store.clone(), buffers, has_compared, has_strayed: false }
    }

    pub(crate) fn into_buffers(self) -> ReadBuffers {
        self.buffers
    }

    /// Returns whether the index was compared with the packs because a chunk in quarantine has no place: once is enough.
    pub(crate) const fn has_compared(&self) -> bool {
        self.has_compared
    }

    /// Returns whether the last chunk was not, or not soundly, at the location that was given: who keeps locations forgets it.
    pub(crate) const fn has_strayed(&self) -> bool {
        self.has_strayed
    }

    /// Replaces `plain` by the bytes of chunk `id`. `location` is where a lookup found it, if one was made.
    ///
    /// If the chunk is not there, the index is brought up to date, then rebuilt, before the chunk counts as missing or
    /// damaged. For chunks that the index lacks it is rebuilt once for each handle. A damaged copy is set aside, and another one is
    /// read if there is one.
    pub(crate) fn read(
        &mut self,
        kind: ObjectKind,
        id: &ChunkId,
        location: Option<Location>,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        self.has_strayed = false;
        match self.find_and_read(kind, id, location, plain) {
            Err(Error::Damaged { object: ObjectName::Chunk { pack: Some(pack), .. }, source })
                if !matches!(source, FormatError::Quarantined { .. }) =>
            {
                match self.locate_other_copy(&pack, id)? {
                    Some(other) => self.find_and_read(kind, id, Some(other), plain),
                    None => Err(damaged(id, Some(pack), source)),
                }
            }
            other => other,
        }
    }

    /// Sets a damaged copy aside and returns where another one is. Where the store cannot be written there is none.
    fn locate_other_copy(&self, pack: &PackId, id: &ChunkId) -> Result<Option<Location>> {
        if !self.store.may_set_aside(SET_ASIDE_MAX)
            || self.store.set_aside(&BTreeSet::from([(*pack, *id)])).is_err()
        {
            return Ok(None);
        }
        Ok(self.locate(id)?.filter(|location| location.pack != *pack && !location.is_missing))
    }

    fn find_and_read(
        &mut self,
        kind: ObjectKind,
        id: &ChunkId,
        location: Option<Location>,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let location = match location {
            Some(location) => Some(location),
            None => self.locate(id)?,
        };
        let location = match location {
            Some(location) => Some(location),
            None => self.locate_quarantined(id)?,
        };
        let first = match self.read_at(kind, id, location, plain) {
            Ok(()) => return Ok(()),
            Err(ReadFault::Chunk(error)) => {
                self.has_strayed = true;
                return Err(error);
            }
            Err(ReadFault::Place(error)) => error,
        };
        self.has_strayed = true;
        if location.is_none() && self.store.index().was_renewed() {
            // Looked for in all packs already. With many missing chunks that must not be done for each of them.
            return Err(first);
        }
        if let Some(Location { is_missing: true, pack, .. }) = location
            && self.store.storage().object_len(&ObjectKey::Pack(pack))?.is_none()
        {
            // Other copies were looked for when this was noted.
            return Err(first);
        }
        // A purge may have copied it meanwhile: the index knows.
        let moved = self.locate(id)?;
        if moved.is_some()
            && moved != location
            && let Ok(()) = self.read_at(kind, id, moved, plain)
        {
            return Ok(());
        }
        self.store.index().reconcile()?;
        let refreshed = self.locate(id)?;
        let second = if refreshed == location {
            first
        } else {
            match self.read_at(kind, id, refreshed, plain) {
                Ok(()) => return Ok(()),
                Err(ReadFault::Chunk(error)) => return Err(error),
                Err(ReadFault::Place(error)) => error,
            }
        };
        if refreshed.is_none() {
            // A pack may have it all the same: the index is not the truth.
            self.store.index().renew_once()?;
        } else if self.index_contradicts_pack(id, refreshed) {
            self.store.index().renew()?;
        } else {
            return Err(second);
        }
        let renewed = self.locate(id)?;
        match self.read_at(kind, id, renewed, plain) {
            Ok(()) => Ok(()),
            Err(ReadFault::Chunk(error) | ReadFault::Place(error)) => Err(error),
        }
    }

    /// Looks again for a chunk that has no place. If a copy is in quarantine, an index that fits to the packs is enough to
    /// know that there is no other one.
    fn locate_quarantined(&mut self, id: &ChunkId) -> Result<Option<Location>> {
        let Some(error) = self.store.index().quarantine()?.error_of(id) else { return Ok(None) };
        if !self.has_compared {
            self.store.index().reconcile()?;
            self.has_compared = true;
        }
        self.locate(id)?.map_or(Err(error), |location| Ok(Some(location)))
    }

    /// Returns where the index says that the chunk is.
    fn locate(&self, id: &ChunkId) -> Result<Option<Location>> {
        let locations = self.store.index().view(|view| view.locate(&[*id]))?;
        Ok(locations.into_iter().next().flatten())
    }

    fn read_at(
        &mut self,
        kind: ObjectKind,
        id: &ChunkId,
        location: Option<Location>,
        plain: &mut Vec<u8>,
    ) -> std::result::Result<(), ReadFault> {
        let Some(location) = location else {
            let object = ObjectName::Chunk { id: *id, pack: None };
            return Err(ReadFault::Place(Error::Missing { object }));
        };
        let pack = location.pack;
        let in_chunk = |source| damaged(id, Some(pack), source);
        let expected = RecordPlace { kind, id: *id, location };
        expected.check_lengths().map_err(|source| ReadFault::Place(in_chunk(source)))?;

        let len = RecordHeader::LEN + to_usize(location.stored_len);
        let record = self.buffers.record_of(len);
        let storage = self.store.storage();
        read_record(storage, &pack, record, location.offset).map_err(|error| match error {
            Error::Missing { .. } => ReadFault::Place(Error::Missing {
                object: ObjectName::Chunk { id: *id, pack: Some(pack) },
            }),
            Error::Damaged { source, .. } => ReadFault::Place(in_chunk(source)),
            other => ReadFault::Chunk(other),
        })?;
        let (header, payload) = self.buffers.record[..len].split_at(RecordHeader::LEN);
        let header = RecordHeader::decode(header)
            .and_then(|header| expected.check(&header).map(|()| header))
            .map_err(|source| ReadFault::Place(in_chunk(source)))?;
        let expanded = self.buffers.expander.expand(&header, payload, plain);
        if has(Bug::DamageReadsAsZeros) && expanded.is_err() {
            plain.clear();
            plain.resize(to_usize(header.plain_len), 0);
            return Ok(());
        }
        expanded.map_err(|source| ReadFault::Chunk(in_chunk(source)))
    }

    /// Returns whether the table of the pack says otherwise than the index. If it agrees,
    /// the record itself is damaged, and nothing is won by a new index.
    fn index_contradicts_pack(&self, id: &ChunkId, location: Option<Location>) -> bool {
        let Some(location) = location else { return false };
        let storage: &dyn Storage = self.store.storage();
        let Ok(contents) = read_contents(storage, &location.pack) else { return false };
        let record = contents.records.get(to_usize(location.record_index));
        !record.is_some_and(|record| {
            record.id == *id
                && record.offset == location.offset
                && record.stored_len == location.stored_len
                && record.plain_len == location.plain_len
        }) && contents.damage.is_none()
    }
}

/// What must be found at a place.
#[derive(Clone, Copy, Debug)]
struct RecordPlace {
    kind: ObjectKind,
    id: ChunkId,
    location: Location,
}

impl RecordPlace {
    /// Checks the lengths before memory is taken for them.
    fn check_lengths(&self) -> std::result::Result<(), FormatError> {
        if CHUNK_LEN_MAX + STORED_OVERHEAD_MAX < self.location.stored_len {
            return Err(FormatError::out_of_range(
                "stored_len in the index",
                self.location.stored_len,
                "at most 16 MiB + 64 KiB",
            ));
        }
        Ok(())
    }

    fn check(&self, header: &RecordHeader) -> std::result::Result<(), FormatError> {
        let matches = header.id == self.id
            && header.kind == self.kind
            && header.stored_len == self.location.stored_len
            && header.plain_len == self.location.plain_len;
        if matches {
            Ok(())
        } else {
            Err(FormatError::Inconsistent { what: "another record is in its place" })
        }
    }
}

pub(crate) fn damaged(id: &ChunkId, pack: Option<PackId>, source: FormatError) -> Error {
    Error::Damaged { object: ObjectName::Chunk { id: *id, pack }, source }
}

/// Converts a length of this format, which is always below 2^32, for use in memory.
pub(crate) fn to_usize(len: u32) -> usize {
    usize::try_from(len).expect("memory is addressed with at least 32 bits")
}
