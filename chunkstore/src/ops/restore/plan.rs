//! What is to be read for a part of an image, in the order in which packs hold it.
//!
//! A plan holds the chunks of as many spans as fit into it, so its memory is bounded whatever the size of the image. Sorted by
//! pack and place, the places of the image that need the same record come one after another: it is read and
//! expanded once for all of them. Packs are taken in the order in which the image needs them first, which for
//! a revision that was written by one backup is the order of the image.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::chunk_reader::to_usize;
use crate::format::RecordHeader;
use crate::id::{ChunkId, PackId};
use crate::index::Location;
use crate::limits::{CHUNK_LEN_MAX, STORED_OVERHEAD_MAX};
use crate::units::PackOffset;

/// Chunks in a plan, unless one span has more: 28 MiB of memory, and 32 GiB of an image in chunks of 64 KiB.
pub(super) const PLAN_LEN: usize = 1 << 19;

/// Memory for each chunk of a plan.
pub(super) const PLACEMENT_LEN: usize = size_of::<Placement>();

/// Stored bytes that are read at once, unless one record is longer.
pub(super) const READ_LEN: u64 = 4 << 20;

/// Bytes that nobody needs and that are read all the same, because stopping for them would take longer: about
/// what a disk reads in the time of a seek to the next track, and far below what a request to a remote store costs.
const GAP_LEN_MAX: u64 = 128 << 10;

/// Bytes of the image that one worker takes at once, unless one chunk is longer: what shrinks to little, or is needed in many
/// places, is shared out too.
const BATCH_LEN_MAX: u64 = 32 << 20;

/// Number of no pack: of a chunk that the index does not have.
const NO_PACK: u32 = u32::MAX;

/// A place of the image and the record that belongs there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    /// Number of the pack in the plan.
    pack: u32,
    /// Place of the record in the pack.
    record: PackOffset,
    /// Length in bytes of the chunk as it is stored.
    pub(super) stored_len: u32,
    /// Length in bytes of the plain chunk.
    pub(super) len: u32,
    /// Offset in bytes in the image.
    pub(super) offset: u64,
    pub(super) id: ChunkId,
}

impl Placement {
    /// Returns whether both need the same record.
    pub(super) fn shares_record_with(&self, other: &Self) -> bool {
        self.pack == other.pack
            && self.pack != NO_PACK
            && self.record == other.record
            && self.id == other.id
    }

    /// Returns where the record ends in its pack.
    fn record_end(&self) -> u64 {
        u64::from(self.record.0) + RecordHeader::LEN as u64 + u64::from(self.stored_len)
    }
}

/// What is to be read and where it belongs.
#[derive(Debug, Default)]
pub(super) struct Plan {
    packs: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    placements: Vec<Placement>,
    /// Offsets and lengths of zeros that were written and are to be read back.
    zeros: Vec<(u64, u64)>,
}

impl Plan {
    /// Returns whether nothing more should be added.
    pub(super) fn is_full(&self) -> bool {
        PLAN_LEN <= self.placements.len() + self.zeros.len()
    }

    /// Adds zeros that were written; neighbours that come one after another are one range.
    pub(super) fn add_zeros(&mut self, offset: u64, len: u64) {
        match self.zeros.last_mut() {
            Some((start, known)) if *start + *known == offset => *known += len,
            _ => self.zeros.push((offset, len)),
        }
    }

    /// Adds a chunk of `len` bytes at `offset` of the image. A location that cannot be true counts as none.
    pub(super) fn add(&mut self, id: ChunkId, len: u32, location: Option<Location>, offset: u64) {
        let usable = location.filter(|location| {
            !location.is_missing
                && location.plain_len == len
                && location.stored_len <= CHUNK_LEN_MAX + STORED_OVERHEAD_MAX
        });
        let (pack, record, stored_len) = match usable {
            Some(location) => (self.number_of(location.pack), location.offset, location.stored_len),
            None => (NO_PACK, PackOffset(0), 0),
        };
        self.placements.push(Placement { pack, record, stored_len, len, offset, id });
    }

    fn number_of(&mut self, pack: PackId) -> u32 {
        let next = u32::try_from(self.packs.len()).expect("a plan has fewer packs than chunks");
        let number = *self.numbers.entry(pack).or_insert(next);
        if number == next {
            self.packs.push(pack);
        }
        number
    }

    /// Puts the placements into the order of storage.
    pub(super) fn sort(&mut self) {
        self.placements.sort_unstable_by_key(|placement| {
            (placement.pack, placement.record.0, placement.offset)
        });
    }

    /// Returns the placements, and the offsets and lengths of zeros that were written, each in the order of the image.
    pub(super) fn into_order_of_image(mut self) -> (Vec<Placement>, Vec<(u64, u64)>) {
        self.placements.sort_unstable_by_key(|placement| placement.offset);
        self.zeros.sort_unstable();
        (self.placements, self.zeros)
    }

    /// Returns all placements.
    pub(super) fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// Returns how many bytes of the image the plan covers.
    pub(super) fn len_in_image(&self) -> u64 {
        let data: u64 = self.placements.iter().map(|placement| u64::from(placement.len)).sum();
        data + self.zeros.iter().map(|(_, len)| len).sum::<u64>()
    }

    /// Hands out the placements of a sorted plan.
    pub(super) fn batches(&self) -> Batches<'_> {
        Batches { plan: self, rest: Mutex::new(&self.placements) }
    }
}

/// Placements whose records are read at once, in the order of storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    /// The pack; `None` if it is not known where the one chunk of the batch is.
    pub(super) pack: Option<PackId>,
    pub(super) placements: &'a [Placement],
}

impl Batch<'_> {
    /// Returns where in the pack the batch begins, and how many bytes it has there.
    pub(super) fn range(&self) -> (PackOffset, usize) {
        let start = self.placements.first().map_or(PackOffset(0), |first| first.record);
        let end = self.placements.iter().map(Placement::record_end).max().unwrap_or(0);
        let len = end.saturating_sub(u64::from(start.0));
        (start, usize::try_from(len).expect("a batch has at most a few records"))
    }

    /// Returns the bytes of one record out of those of the batch.
    pub(super) fn record<'b>(&self, placement: &Placement, bytes: &'b [u8]) -> &'b [u8] {
        let start = to_usize(placement.record.0 - self.range_start());
        &bytes[start..start + RecordHeader::LEN + to_usize(placement.stored_len)]
    }

    fn range_start(&self) -> u32 {
        self.placements.first().map_or(0, |first| first.record.0)
    }
}

/// Shares out a plan among threads.
#[derive(Debug)]
pub(super) struct Batches<'a> {
    plan: &'a Plan,
    rest: Mutex<&'a [Placement]>,
}

impl<'a> Batches<'a> {
    /// Returns the next batch, or `None` if nothing is left.
    pub(super) fn next(&self) -> Option<Batch<'a>> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let first = rest.first()?;
        if first.pack == NO_PACK {
            let (placements, behind) = rest.split_at(1);
            *rest = behind;
            return Some(Batch { pack: None, placements });
        }
        let start = u64::from(first.record.0);
        let mut end = first.record_end();
        let mut len = u64::from(first.len);
        let mut count = 1;
        while let Some(next) = rest.get(count)
            && len + u64::from(next.len) <= BATCH_LEN_MAX
            && next.pack == first.pack
            && u64::from(next.record.0) <= end + GAP_LEN_MAX
            && next.record_end() <= end.max(start + READ_LEN)
        {
            end = end.max(next.record_end());
            len += u64::from(next.len);
            count += 1;
        }
        let (placements, behind) = rest.split_at(count);
        *rest = behind;
        Some(Batch { pack: Some(self.plan.packs[to_usize(first.pack)]), placements })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    const KIB: u32 = 1 << 10;
    const MIB: u32 = 1 << 20;

    fn location(pack: u8, offset: u32, stored_len: u32) -> Option<Location> {
        Some(Location {
            pack: PackId::from_bytes([pack; 32]),
            session: SessionId::from_bytes([0; 16]),
            record_index: 0,
            offset: PackOffset(offset),
            plain_len: 64 * KIB,
            stored_len,
            accepts_new_references: true,
            is_missing: false,
        })
    }

    fn chunk(number: u8) -> ChunkId {
        ChunkId::from_bytes([number; 32])
    }

    /// Returns pack and offsets in the image of every batch.
    fn batches(plan: &mut Plan) -> Vec<(Option<u8>, Vec<u64>)> {
        plan.sort();
        let batches = plan.batches();
        std::iter::from_fn(|| batches.next())
            .map(|batch| {
                let offsets = batch.placements.iter().map(|placement| placement.offset).collect();
                (batch.pack.map(|pack| pack.as_bytes()[0]), offsets)
            })
            .collect()
    }

    #[test]
    fn records_come_in_the_order_of_packs_and_neighbours_at_once() {
        let mut plan = Plan::default();
        plan.add(chunk(1), 64 * KIB, location(9, 40 * KIB, 20 * KIB), 0);
        plan.add(chunk(2), 64 * KIB, location(3, 80, 20 * KIB), 100);
        plan.add(chunk(3), 64 * KIB, location(9, 80, 20 * KIB), 200);
        plan.add(chunk(4), 64 * KIB, location(9, 10 * MIB, 20 * KIB), 300);
        plan.add(chunk(1), 64 * KIB, location(9, 40 * KIB, 20 * KIB), 400);
        assert_eq!(plan.len_in_image(), 5 * 64 * u64::from(KIB));
        let expected = [(Some(9), vec![200, 0, 400]), (Some(9), vec![300]), (Some(3), vec![100])];
        assert_eq!(batches(&mut plan), expected);
        for (offset, len) in [(0, 5), (5, 7), (20, 1), (0, 3)] {
            plan.add_zeros(offset, len);
        }
        let [first, second, third, ..] = plan.placements() else { panic!("it has five") };
        assert!(!first.shares_record_with(second) && second.shares_record_with(third));
        let (placements, zeros) = plan.into_order_of_image();
        let offsets: Vec<u64> = placements.iter().map(|placement| placement.offset).collect();
        assert_eq!(offsets, [0, 100, 200, 300, 400]);
        assert_eq!(zeros, [(0, 3), (0, 12), (20, 1)]);
    }

    #[test]
    fn batch_ends_where_it_would_read_too_much_at_once_or_for_nothing() {
        let header = u32::try_from(RecordHeader::LEN).unwrap();
        let gap = u32::try_from(GAP_LEN_MAX).unwrap();
        for (second, is_one) in [
            (MIB + header, true),
            (MIB + header + gap, true),
            (MIB + header + gap + 1, false),
            (3 * MIB, false),
        ] {
            let mut plan = Plan::default();
            plan.add(chunk(1), 64 * KIB, location(1, 0, MIB), 0);
            plan.add(chunk(2), 64 * KIB, location(1, second, KIB), 1);
            assert_eq!(batches(&mut plan).len() == 1, is_one, "{second}");
        }
        let mut plan = Plan::default();
        let step = MIB + header;
        for number in 0..4 {
            plan.add(chunk(1), 64 * KIB, location(1, number * step, MIB), u64::from(number));
        }
        plan.add(chunk(2), 64 * KIB, location(1, 4 * step, 16 * MIB), 4);
        let expected = [(Some(1), vec![0, 1, 2]), (Some(1), vec![3]), (Some(1), vec![4])];
        assert_eq!(batches(&mut plan), expected);
    }

    #[test]
    fn what_has_no_place_comes_last_and_alone() {
        let mut plan = Plan::default();
        plan.add(chunk(1), 64 * KIB, None, 0);
        plan.add(chunk(1), 64 * KIB, None, 1);
        plan.add(chunk(2), 32 * KIB, location(1, 80, 100), 2);
        plan.add(chunk(3), 64 * KIB, location(1, 80, u32::MAX), 3);
        plan.add(chunk(4), 64 * KIB, location(1, 80, 100), 4);
        let expected = [
            (Some(1), vec![4]),
            (None, vec![0]),
            (None, vec![1]),
            (None, vec![2]),
            (None, vec![3]),
        ];
        assert_eq!(batches(&mut plan), expected);
        let placements = plan.placements();
        assert!(!placements[1].shares_record_with(&placements[2]));
    }

    #[test]
    fn many_places_of_one_record_are_shared_out() {
        let mut plan = Plan::default();
        for offset in 0..1200 {
            plan.add(chunk(1), 64 * KIB, location(1, 80, 100), offset);
        }
        let lens: Vec<usize> =
            batches(&mut plan).iter().map(|(_, offsets)| offsets.len()).collect();
        assert_eq!(lens, [512, 512, 176]);
    }
}
