//! Writes one pack: header, records, footer; then it gets its name.

use std::mem;

use crate::error::{Error, Result};
use crate::format::{Codec, FooterRecord, ObjectKind, PackFooter, PackHeader, RecordHeader};
use crate::id::{ChunkId, PackId};
use crate::limits::{PACK_LEN_MAX, PACK_RECORD_COUNT_MAX};
use crate::storage::{ObjectKey, Storage, Upload};
use crate::units::PackOffset;
use crate::vfs::AlignedBuffer;

/// Bytes that are collected before they are written: so many at once keep a disk busy.
pub(crate) const WRITE_BUFFER_LEN: usize = 2 << 20;

/// Length in bytes at which a pack is sealed. One sync for each of these, and one object on a remote storage.
pub(crate) const PACK_LEN_TARGET: u64 = 64 << 20;

/// Records at which a pack is sealed, however short it is: their table is in memory until then.
pub(crate) const PACK_RECORD_COUNT_TARGET: usize = 32 << 10;

/// A pack that is durable under its name.
#[derive(Clone, Debug)]
pub(crate) struct SealedPack {
    pub(crate) id: PackId,
    pub(crate) header: PackHeader,
    pub(crate) file_len: u64,
    pub(crate) records: Vec<FooterRecord>,
}

/// A pack in the making. Dropped without [`seal`](Self::seal) it never existed.
#[derive(Debug)]
pub(crate) struct PackWriter {
    upload: Box<dyn Upload>,
    header: PackHeader,
    /// What is not written yet. Begins at a multiple of its capacity, so that full buffers can be written directly.
    buffer: AlignedBuffer,
    hasher: blake3::Hasher,
    records: Vec<FooterRecord>,
    len: u64,
}

impl PackWriter {
    pub(crate) fn create(storage: &dyn Storage, header: PackHeader) -> Result<Self> {
        let mut writer = Self {
            upload: storage.upload()?,
            header,
            buffer: AlignedBuffer::new(WRITE_BUFFER_LEN),
            hasher: blake3::Hasher::new(),
            records: Vec::new(),
            len: 0,
        };
        let header = writer.header.encode();
        writer.append(&header)?;
        Ok(writer)
    }

    /// Returns the length that the file would have if it was sealed now.
    pub(crate) fn file_len(&self) -> u64 {
        self.len + footer_len(self.records.len())
    }

    /// Returns how many records there are.
    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
    }

    /// Returns whether the pack is to be sealed before a record with a payload of this length is appended.
    pub(crate) fn is_full_for(&self, payload_len: usize) -> bool {
        PACK_LEN_TARGET <= self.file_len()
            || PACK_RECORD_COUNT_TARGET <= self.record_count()
            || !self.has_room_for(payload_len)
    }

    /// Returns whether a record with a payload of this length still fits.
    pub(crate) fn has_room_for(&self, payload_len: usize) -> bool {
        let record_len = RecordHeader::LEN as u64 + payload_len as u64;
        let count = self.records.len() + 1;
        count <= PACK_RECORD_COUNT_MAX as usize
            && self.len + record_len + footer_len(count) <= PACK_LEN_MAX
    }

    /// Appends a chunk in its stored form and returns how many bytes it takes in the pack.
    pub(crate) fn append_record(
        &mut self,
        kind: ObjectKind,
        codec: Codec,
        id: ChunkId,
        plain_len: u32,
        payload: &[u8],
    ) -> Result<u64> {
        let too_long = || Error::Bug { what: format!("chunk {id} does not fit into a pack") };
        if !self.has_room_for(payload.len()) {
            return Err(too_long());
        }
        let stored_len = u32::try_from(payload.len()).map_err(|_| too_long())?;
        let offset = PackOffset(u32::try_from(self.len).map_err(|_| too_long())?);
        let header = RecordHeader { kind, codec, id, plain_len, stored_len };
        self.append(&header.encode())?;
        self.append(payload)?;
        self.records.push(FooterRecord { id, offset, plain_len, stored_len, kind, codec });
        Ok(RecordHeader::LEN as u64 + u64::from(stored_len))
    }

    /// Completes the pack and makes it durable: steps of `docs/durability.md`, section "A pack".
    pub(crate) fn seal(self, storage: &dyn Storage) -> Result<SealedPack> {
        self.complete()?.publish(storage)
    }

    /// Writes all that is missing but the name.
    pub(crate) fn complete(mut self) -> Result<CompletePack> {
        let table_offset = u32::try_from(self.len)
            .map_err(|_| Error::Bug { what: "a pack grew beyond its limit".to_owned() })?;
        let footer = PackFooter { records: mem::take(&mut self.records) };
        let bytes = footer.encode(table_offset);
        self.append(&bytes)?;
        self.flush()?;
        let id = PackId::from_bytes(*self.hasher.finalize().as_bytes());
        let Self { upload, header, len: file_len, .. } = self;
        let pack = SealedPack { id, header, file_len, records: footer.records };
        Ok(CompletePack { upload, pack })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = self.buffer.fill(bytes);
        while self.buffer.is_full() {
            self.flush()?;
            rest = self.buffer.fill(rest);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(self.buffer.as_slice());
        self.upload.append(self.buffer.as_slice())?;
        self.buffer.clear();
        Ok(())
    }
}

/// A pack that lacks nothing but its name. Dropped without [`publish`](Self::publish) it never existed.
#[derive(Debug)]
pub(crate) struct CompletePack {
    upload: Box<dyn Upload>,
    /// What it will be.
    pub(crate) pack: SealedPack,
}

impl CompletePack {
    /// Makes the pack durable under its name.
    pub(crate) fn publish(self, storage: &dyn Storage) -> Result<SealedPack> {
        let id = self.pack.id;
        debug_assert!(storage.path(&ObjectKey::Pack(id)).ends_with(id.to_string()));
        self.upload.finish(&ObjectKey::Pack(id))?;
        Ok(self.pack)
    }
}

fn footer_len(record_count: usize) -> u64 {
    (record_count * FooterRecord::LEN + PackFooter::TRAILER_LEN) as u64
}
