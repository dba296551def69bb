//! Tables of the index and the values in them.
//!
//! The index is derived: nothing but this program reads it, and a file of another version is
//! rebuilt. Its layout is therefore not part of `docs/format.md`.

use redb::TableDefinition;

use super::Fault;
use crate::format::{FooterRecord, PackKind};
use crate::id::{ChunkId, PackId, QuarantineId, SessionId};
use crate::pack::SealedPack;
use crate::time::Timestamp;
use crate::units::PackOffset;

/// Version of the tables. An index of another version is rebuilt.
pub(super) const INDEX_VERSION: u64 = 3;

pub(super) const CHUNKS: TableDefinition<'_, &[u8; ChunkId::LEN], &[u8; Entry::LEN]> =
    TableDefinition::new("chunks");
pub(super) const PACKS: TableDefinition<'_, u32, &[u8; PackRow::LEN]> =
    TableDefinition::new("packs");
pub(super) const PACK_NUMBERS: TableDefinition<'_, &[u8; PackId::LEN], u32> =
    TableDefinition::new("pack numbers");
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// By source: the sequence number from which on its revisions were made while this index was there. It knows each pack that
/// they need, so that a pack which goes away is noticed. An older revision may need packs that were gone before.
pub(super) const COMPLETE: TableDefinition<'_, &str, u64> = TableDefinition::new("complete since");
/// Quarantine files whose records the index does not lead to.
pub(super) const HONOURED: TableDefinition<'_, &[u8; QuarantineId::LEN], u8> =
    TableDefinition::new("honoured");
pub(super) const STORE: TableDefinition<'_, &str, &[u8; 16]> = TableDefinition::new("store");

/// Keys of [`META`].
pub(super) const META_VERSION: &str = "version";
pub(super) const META_GENERATION: &str = "generation";
pub(super) const META_NEXT_PACK: &str = "next pack number";
/// When a chunk may last have been led to another copy than one that was written just then: a proof which is not younger may be
/// about a copy that is gone.
pub(super) const META_MOVED: &str = "moved";
/// Key of [`STORE`].
pub(super) const STORE_ID: &str = "id";

/// Where a chunk is: value of [`CHUNKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pack_number: u32,
    /// Counts the records of the pack from 0.
    pub(super) record_index: u32,
    pub(super) offset: PackOffset,
    pub(super) plain_len: u32,
    pub(super) stored_len: u32,
}

impl Entry {
    pub(super) const LEN: usize = 24;

    pub(super) fn new(
        pack_number: u32,
        record_index: usize,
        record: &FooterRecord,
    ) -> Result<Self, Fault> {
        Ok(Self {
            pack_number,
            record_index: u32::try_from(record_index)
                .map_err(|_| Fault::Damaged("a pack has too many records".to_owned()))?,
            offset: record.offset,
            plain_len: record.plain_len,
            stored_len: record.stored_len,
        })
    }

    /// Returns the stored form. It ends with a check over the chunk's id and all fields, because redb does not check
    /// its pages: without it one flipped bit could lead from one chunk to another one.
    pub(super) fn encode(&self, id: &ChunkId) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields =
            [self.pack_number, self.record_index, self.offset.0, self.plain_len, self.stored_len];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let check = Self::check(&bytes, id);
        bytes[20..].copy_from_slice(&check);
        bytes
    }

    fn check(bytes: &[u8; Self::LEN], id: &ChunkId) -> [u8; 4] {
        let mut input = [0; ChunkId::LEN + 20];
        input[..ChunkId::LEN].copy_from_slice(id.as_bytes());
        input[ChunkId::LEN..].copy_from_slice(&bytes[..20]);
        let digest = blake3::hash(&input);
        digest.as_bytes()[..4].try_into().expect("a digest has more than 4 bytes")
    }

    /// Returns `None` if the bytes were never written for this chunk.
    pub(super) fn decode(bytes: &[u8; Self::LEN], id: &ChunkId) -> Option<Self> {
        if bytes[20..] != Self::check(bytes, id) {
            return None;
        }
        let field = |index: usize| {
            let place = &bytes[4 * index..4 * index + 4];
            u32::from_le_bytes(place.try_into().expect("the slice has 4 bytes"))
        };
        Some(Self {
            pack_number: field(0),
            record_index: field(1),
            offset: PackOffset(field(2)),
            plain_len: field(3),
            stored_len: field(4),
        })
    }
}

/// What the index knows of a pack: value of [`PACKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackRow {
    /// Name of the pack.
    pub(crate) id: PackId,
    /// Session that wrote it.
    pub(crate) session: SessionId,
    /// When it was begun.
    pub(crate) created: Timestamp,
    /// Length of the file in bytes.
    pub(crate) file_len: u64,
    /// Records in it.
    pub(crate) record_count: u32,
    /// What it holds.
    pub(crate) kind: PackKind,
    /// The file was not there when the index was compared with the directory.
    pub(crate) is_missing: bool,
    /// Generation of the list that condemned it, 0 if none did.
    pub(crate) condemned: u64,
}

impl PackRow {
    pub(super) const LEN: usize = 88;

    /// Returns the row of a pack that was just written.
    pub(crate) fn of(pack: &SealedPack) -> Self {
        Self {
            id: pack.id,
            session: pack.header.session_id,
            created: pack.header.created,
            file_len: pack.file_len,
            record_count: u32::try_from(pack.records.len())
                .expect("the writer of a pack counts its records"),
            kind: pack.header.kind,
            is_missing: false,
            condemned: 0,
        }
    }

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32..48].copy_from_slice(self.session.as_bytes());
        bytes[48..56].copy_from_slice(&self.created.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.file_len.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.record_count.to_le_bytes());
        bytes[68] = self.kind as u8;
        bytes[69] = u8::from(self.is_missing);
        bytes[72..80].copy_from_slice(&self.condemned.to_le_bytes());
        let check = blake3::hash(&bytes[..80]);
        bytes[80..].copy_from_slice(&check.as_bytes()[..8]);
        bytes
    }

    /// Returns `None` if the bytes were never written by [`Self::encode`].
    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        if bytes[80..] != blake3::hash(&bytes[..80]).as_bytes()[..8] {
            return None;
        }
        Some(Self {
            id: PackId::from_bytes(bytes[..32].try_into().ok()?),
            session: SessionId::from_bytes(bytes[32..48].try_into().ok()?),
            created: Timestamp(i64::from_le_bytes(bytes[48..56].try_into().ok()?)),
            file_len: u64::from_le_bytes(bytes[56..64].try_into().ok()?),
            record_count: u32::from_le_bytes(bytes[64..68].try_into().ok()?),
            kind: PackKind::from_byte(bytes[68]).ok()?,
            is_missing: match bytes[69] {
                0 => false,
                1 => true,
                _ => return None,
            },
            condemned: u64::from_le_bytes(bytes[72..80].try_into().ok()?),
        })
    }

    /// Returns whether a new backup may refer to chunks of this pack.
    pub(crate) const fn accepts_new_references(&self) -> bool {
        !self.is_missing && self.condemned == 0
    }
}
