//! Packs and revisions that no writer makes, with checksums that are right.

use std::ops::Range;

use chunkstore::format::{
    BackupStatistics, Codec, FooterRecord, ObjectKind, PackFooter, PackHeader, PackKind, Page,
    PageEntry, RecordHeader, RevisionKind, RevisionRecord, Root, SpanRef,
};
use chunkstore::id::{ChunkId, RevisionId, SessionId};
use chunkstore::store::Store;
use chunkstore::time::Timestamp;
use chunkstore::units::PackOffset;
use chunkstore::vfs::simulated::SimulatedVfs;
use support::simulated_store::STORE_PATH;

/// A record in the making.
#[derive(Clone)]
pub(super) struct Record {
    kind: ObjectKind,
    codec: Codec,
    pub(super) id: ChunkId,
    plain_len: u32,
    payload: Vec<u8>,
}

impl Record {
    /// Returns a record of these bytes with a payload that says something.
    pub(super) fn new(kind: ObjectKind, codec: Codec, plain: &[u8], payload: Vec<u8>) -> Self {
        let plain_len = u32::try_from(plain.len()).unwrap();
        Self { kind, codec, id: kind.chunk_id(plain), plain_len, payload }
    }

    /// Returns a record that is what it must be.
    pub(super) fn raw(kind: ObjectKind, plain: &[u8]) -> Self {
        Self::new(kind, Codec::Raw, plain, plain.to_vec())
    }
}

/// A pack with a few records.
pub(super) struct PackBytes {
    pub(super) bytes: Vec<u8>,
}

impl PackBytes {
    pub(super) fn data(store: &Store, records: Vec<Record>) -> Self {
        Self::new(store, PackKind::Data, records)
    }

    pub(super) fn list(store: &Store, records: Vec<Record>) -> Self {
        Self::new(store, PackKind::List, records)
    }

    fn new(store: &Store, kind: PackKind, records: Vec<Record>) -> Self {
        let session_id = SessionId::from_bytes([9; 16]);
        let created = Timestamp(1_700_000_000_000);
        let header = PackHeader { kind, store_id: store.id(), session_id, created };
        let mut bytes = header.encode().to_vec();
        let mut table = Vec::new();
        for Record { kind, codec, id, plain_len, payload } in records {
            let offset = PackOffset(u32::try_from(bytes.len()).unwrap());
            let stored_len = u32::try_from(payload.len()).unwrap();
            let header = RecordHeader { kind, codec, id, plain_len, stored_len };
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&payload);
            table.push(FooterRecord { id, offset, plain_len, stored_len, kind, codec });
        }
        let place = u32::try_from(bytes.len()).unwrap();
        bytes.extend_from_slice(&PackFooter { records: table }.encode(place));
        Self { bytes }
    }

    fn table(&self) -> (usize, usize) {
        let trailer = &self.bytes[self.bytes.len() - PackFooter::TRAILER_LEN..];
        let [count, place] =
            [32, 36].map(|field| u32::from_le_bytes(*trailer[field..].first_chunk::<4>().unwrap()));
        (usize::try_from(place).unwrap(), usize::try_from(count).unwrap())
    }

    /// Changes the header of a record, with its checksum.
    pub(super) fn patch_record(&mut self, number: usize, field: usize, value: &[u8]) {
        let (table, _) = self.table();
        let entry = table + number * FooterRecord::LEN;
        let place = self.bytes[entry + 32..].first_chunk::<4>().unwrap();
        let start = usize::try_from(u32::from_le_bytes(*place)).unwrap();
        patch_and_seal(&mut self.bytes, start..start + 48, field, value);
    }

    /// Changes an entry of the table, with the checksums of table and trailer.
    pub(super) fn patch_entry(&mut self, number: usize, field: usize, value: &[u8]) {
        let (table, count) = self.table();
        let place = table + number * FooterRecord::LEN + field;
        self.bytes[place..place + value.len()].copy_from_slice(value);
        let digest =
            *blake3::hash(&self.bytes[table..table + count * FooterRecord::LEN]).as_bytes();
        self.patch_trailer(0, &digest);
    }

    /// Changes the trailer, with its checksum.
    pub(super) fn patch_trailer(&mut self, field: usize, value: &[u8]) {
        let start = self.bytes.len() - PackFooter::TRAILER_LEN;
        patch_and_seal(&mut self.bytes, start..start + 48, field, value);
    }
}

/// Changes a field of a structure, and the checksum of 8 bytes behind it.
pub(super) fn patch_and_seal(bytes: &mut [u8], covered: Range<usize>, field: usize, value: &[u8]) {
    let place = covered.start + field;
    bytes[place..place + value.len()].copy_from_slice(value);
    let digest = *blake3::hash(&bytes[covered.clone()]).as_bytes();
    bytes[covered.end..covered.end + 8].copy_from_slice(&digest[..8]);
}

/// Files that are put into a store, and the revision that leads to them.
pub(super) struct Crafted {
    packs: Vec<Vec<u8>>,
    record: Vec<u8>,
    pub(super) revision: RevisionId,
}

impl Crafted {
    pub(super) fn new(_store: &Store) -> Self {
        let revision = RevisionId::from_bytes([0x33; 16]);
        Self { packs: Vec::new(), record: Vec::new(), revision }
    }

    pub(super) fn add_pack(&mut self, pack: Vec<u8>) {
        self.packs.push(pack);
    }

    /// Adds the lists and the record of an image of one span.
    pub(super) fn add_image(&mut self, store: &Store, entries: &[PageEntry], size: u64) {
        let page = Record::raw(ObjectKind::Page, &Page { entries: entries.to_vec() }.encode());
        let root =
            Root { image_len: size, span_len: 64 << 20, spans: vec![SpanRef::Page(page.id)] };
        let root = Record::raw(ObjectKind::Root, &root.encode());
        let id = root.id;
        self.add_pack(PackBytes::list(store, vec![page, root]).bytes);
        self.add_record(store, id, size);
    }

    pub(super) fn add_record(&mut self, _store: &Store, root: ChunkId, size: u64) {
        let record = RevisionRecord {
            id: self.revision,
            source: "crafted".parse().unwrap(),
            sequence: 1,
            session: SessionId::from_bytes([9; 16]),
            time: Timestamp(1_700_000_000_000),
            kind: RevisionKind::Image,
            size,
            root,
            parent: None,
            host: "host".to_owned(),
            origin: "origin".to_owned(),
            tags: Vec::new(),
            statistics: BackupStatistics::default(),
            thinned: None,
        };
        self.record = record.encode();
    }

    /// Puts the files into a store.
    pub(super) fn write(&self, vfs: &SimulatedVfs) {
        for pack in &self.packs {
            let name = blake3::hash(pack).to_hex();
            let path = format!("{STORE_PATH}/packs/{}/{name}", &name[..2]);
            vfs.write_raw(path, pack.clone()).unwrap();
        }
        let path = format!("{STORE_PATH}/revisions/crafted/{}.rev", self.revision);
        vfs.write_raw(path, self.record.clone()).unwrap();
    }
}
