//! The records of all packs, put in the order of their ids without holding all of them in memory.
//!
//! An index whose entries come in order is written once, from its beginning to its end. Entered pack by pack, in the random order
//! of digests, each transaction would write most of its pages anew.
//!
//! Records are dealt into buckets by the first byte of their ids. What a bucket holds beyond one block goes to a temporary file;
//! one bucket at a time is read back and sorted. Ids are digests, so the buckets fill evenly.

use super::Fault;
use super::tables::Entry;
use crate::format::FooterRecord;
use crate::id::ChunkId;
use crate::storage::{LocalStorage, TemporaryFile};

/// Buckets: one for each value of the first byte of an id.
pub(super) const BUCKET_COUNT: usize = 256;

/// Bytes of a record in a bucket: id and entry.
const RECORD_LEN: usize = ChunkId::LEN + Entry::LEN;

/// Bytes of a bucket that are written to the file at once. All buckets together hold 14 MiB.
const BLOCK_LEN: usize = 1024 * RECORD_LEN;

/// Where blocks go that have no place in memory.
#[derive(Debug)]
pub(super) enum Overflow<'a> {
    /// To a file, which is made when the first block is full.
    File(&'a LocalStorage),
    /// Nowhere: nothing can be written.
    Memory,
}

/// The records; see the module.
#[derive(Debug)]
pub(super) struct RecordBuckets<'a> {
    overflow: Overflow<'a>,
    file: Option<TemporaryFile>,
    file_len: u64,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    /// Places of its blocks in the file.
    blocks: Vec<u64>,
    /// What is not in the file.
    rest: Vec<u8>,
}

impl<'a> RecordBuckets<'a> {
    pub(super) fn new(overflow: Overflow<'a>) -> Self {
        let buckets = vec![Bucket::default(); BUCKET_COUNT];
        Self { overflow, file: None, file_len: 0, buckets }
    }

    /// Adds the records of a pack, except those for which `is_left_out` holds.
    pub(super) fn add(
        &mut self,
        pack_number: u32,
        records: &[FooterRecord],
        is_left_out: impl Fn(&ChunkId) -> bool,
    ) -> Result<(), Fault> {
        let records = records.iter().enumerate();
        for (index, record) in records.filter(|(_, record)| !is_left_out(&record.id)) {
            let entry = Entry::new(pack_number, index, record)?;
            let number = usize::from(record.id.as_bytes()[0]);
            let rest = &mut self.buckets[number].rest;
            rest.extend_from_slice(record.id.as_bytes());
            rest.extend_from_slice(&entry.encode(&record.id));
            if BLOCK_LEN <= rest.len()
                && let Overflow::File(storage) = self.overflow
            {
                self.write_block(storage, number)?;
            }
        }
        Ok(())
    }

    /// Takes the records of one bucket, sorted by id; those of one id are in the order in which they were added.
    pub(super) fn take(&mut self, number: usize) -> Result<Vec<(ChunkId, Entry)>, Fault> {
        let bucket = std::mem::take(&mut self.buckets[number]);
        let mut bytes = vec![0; bucket.blocks.len() * BLOCK_LEN];
        for (block, offset) in bytes.chunks_exact_mut(BLOCK_LEN).zip(bucket.blocks) {
            let file = self.file.as_ref().expect("a block has its place in the file");
            file.read_exact_at(block, offset)?;
        }
        bytes.extend_from_slice(&bucket.rest);
        let records = bytes.chunks_exact(RECORD_LEN).map(|record| {
            let (id, entry) = record.split_at(ChunkId::LEN);
            let id = ChunkId::from_bytes(id.try_into().expect("it was split off at this length"));
            let entry = entry.try_into().expect("it is what is left of the record");
            let entry = Entry::decode(entry, &id).ok_or_else(|| {
                Fault::Damaged(format!("a record of chunk {id} came back otherwise"))
            })?;
            Ok((id, entry))
        });
        let mut records = records.collect::<Result<Vec<_>, Fault>>()?;
        records.sort_by_key(|(id, _)| *id);
        Ok(records)
    }

    fn write_block(&mut self, storage: &LocalStorage, number: usize) -> Result<(), Fault> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(storage.temporary()?),
        };
        let bucket = &mut self.buckets[number];
        file.write_all_at(&bucket.rest, self.file_len)?;
        bucket.blocks.push(self.file_len);
        self.file_len += bucket.rest.len() as u64;
        bucket.rest.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Codec, ObjectKind};
    use crate::layout::Layout;
    use crate::units::PackOffset;
    use crate::vfs::Vfs;
    use crate::vfs::simulated::{SimulatedVfs, environment};

    /// Records of two packs: every third one of the second pack has an id of the first.
    fn records(pack: u32, count: u32) -> Vec<FooterRecord> {
        let record = |index: u32| {
            let seed = if index.is_multiple_of(3) { index } else { index + pack * count };
            let mut id = *blake3::hash(&seed.to_le_bytes()).as_bytes();
            // Two buckets, so that both have more than fits.
            id[0] = id[0] % 2 * 255;
            FooterRecord {
                id: ChunkId::from_bytes(id),
                offset: PackOffset(index),
                plain_len: pack + 1,
                stored_len: 1,
                kind: ObjectKind::Data,
                codec: Codec::Raw,
            }
        };
        (0..count).map(record).collect()
    }

    fn expected(packs: &[Vec<FooterRecord>]) -> Vec<(ChunkId, Entry)> {
        let mut expected: Vec<(ChunkId, Entry)> = Vec::new();
        for (number, records) in (0..).zip(packs) {
            for (index, record) in records.iter().enumerate() {
                expected.push((record.id, Entry::new(number, index, record).unwrap()));
            }
        }
        expected.sort_by_key(|(id, _)| *id);
        expected
    }

    #[test]
    fn records_come_back_in_the_order_of_their_ids_from_memory_and_from_the_file() {
        let vfs = SimulatedVfs::new();
        let layout = Layout::new("/store");
        for directory in [layout.root(), &layout.directory("tmp")] {
            vfs.create_dir(directory).unwrap();
        }
        let storage = LocalStorage::new(environment(vfs.clone(), 1), layout.clone());
        for count in [10, 3000] {
            let packs = [records(0, count), records(1, count)];
            for is_file in [true, false] {
                let overflow = if is_file { Overflow::File(&storage) } else { Overflow::Memory };
                let mut buckets = RecordBuckets::new(overflow);
                for (number, records) in (0..).zip(&packs) {
                    buckets.add(number, records, |_| false).unwrap();
                }
                let has_file = !vfs.list(&layout.directory("tmp")).unwrap().is_empty();
                assert_eq!(has_file, is_file && 1000 < count);
                let numbers = 0..BUCKET_COUNT;
                let found: Vec<_> =
                    numbers.flat_map(|number| buckets.take(number).unwrap()).collect();
                assert!(found == expected(&packs), "{count} records, file {is_file}");
            }
        }
        assert!(vfs.list(&layout.directory("tmp")).unwrap().is_empty());
    }
}
