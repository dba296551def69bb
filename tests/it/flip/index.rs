//! The index is made from the packs: whatever it says, nothing is lost.

use chunkstore::vfs::simulated::SimulatedVfs;
use support::damage::{FileKind, Size, StoreAtRest};
use support::long_tests::choose;

use super::{Depth, Tally, is_tried};

const INDEX: &str = "/store/index.redb";

/// Bytes of a block of the index in the file, with its checksum (`docs/format.md`, section "Index").
const STORED_LEN: usize = 4096 + CHECKSUM_LEN;
const CHECKSUM_LEN: usize = 16;

/// Bytes of the header that are used.
const SECTOR_LEN: usize = 512;

/// In the long form one byte of so many of what a block holds is followed by all operations, and in the short form they alone are tried.
const STEP_OF_ALL: usize = 32;

/// A block is read whole or not at all, so what comes of a flip depends on which block it is in: all operations follow some flips of each block,
/// and all of its checksum and of the header. That each bit of a block is checked is shown where blocks are read (`index::checked_blocks`).
#[test]
fn no_flip_in_the_index_costs_anything() {
    let store = StoreAtRest::new(Size::SMALL);
    let len = store.vfs.read_all(INDEX).unwrap().len();
    let is_deep = |offset: &usize| {
        let (block, within) = (offset / STORED_LEN, offset % STORED_LEN);
        let is_checksum = STORED_LEN - CHECKSUM_LEN <= within;
        is_checksum || *offset < SECTOR_LEN || within % STEP_OF_ALL == block % STEP_OF_ALL
    };
    let deep: Vec<usize> = (0..len).filter(is_deep).collect();
    let step = choose(deep.len().div_ceil(20), 1);
    let places = choose(deep.into_iter().step_by(step).collect(), (0..len).collect::<Vec<_>>());
    let mut tally = Tally::new();
    // The parity of a seed says in which order all operations follow, so those have seeds of their own: a block has its deep places at odd
    // offsets, or at even ones.
    let mut deep_count = 0;
    for (turn, offset) in places.into_iter().enumerate() {
        let mask = if turn % 9 == 8 { 0xff } else { 1 << (turn % 9) };
        let place = (INDEX.as_ref(), FileKind::Index, offset as u64);
        if is_deep(&offset) {
            tally.flip(&store, place, mask, (Depth::All, deep_count));
            deep_count += 1;
        } else {
            tally.flip(&store, place, mask, (Depth::Named, turn as u64));
        }
    }
    tally.finish("flips of the index");
}

/// Flips bits of a byte, and gives its block the right checksum again.
fn bend(vfs: &SimulatedVfs, offset: usize, mask: u8) {
    let mut bytes = vfs.read_all(INDEX).unwrap();
    bytes[offset] ^= mask;
    let number = offset / STORED_LEN;
    assert_ne!(number, 0, "there are no entries in the header");
    let block = &mut bytes[number * STORED_LEN..][..STORED_LEN];
    let (plain, checksum) = block.split_at_mut(STORED_LEN - CHECKSUM_LEN);
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(number as u64).to_le_bytes());
    checksum.copy_from_slice(&blake3::keyed_hash(&key, plain).as_bytes()[..CHECKSUM_LEN]);
    vfs.write_raw(INDEX, bytes).unwrap();
}

/// An entry of the index that leads to another record than it should is the damage that could make a purge remove a
/// pack that is needed: each entry is bent in its pack number and in its record number, in a block that is sound in all else.
#[test]
fn no_index_entry_that_leads_elsewhere_costs_anything() {
    let store = StoreAtRest::new(Size::SMALL);
    let bytes = store.vfs.read_all(INDEX).unwrap();
    let mut tally = Tally::new();
    let mut turn = 0;
    for (number, record) in store.records.values().flat_map(|records| records.iter().enumerate()) {
        let fields =
            [u32::try_from(number).unwrap(), record.offset.0, record.plain_len, record.stored_len];
        let pattern: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        let places = bytes.windows(pattern.len()).enumerate();
        let places = places.filter(|(_, window)| *window == pattern).map(|(place, _)| place);
        for place in places.collect::<Vec<_>>() {
            for mask in choose(&[1][..], &[1, 2, 3, 4, 5, 6, 7]) {
                for field in [place - 4, place] {
                    turn += 1;
                    if !is_tried(turn, 9) {
                        continue;
                    }
                    let name = || format!("{INDEX} entry at byte {field}, mask {mask:#x}");
                    let finder = store.finder(INDEX.as_ref(), FileKind::Index, field as u64);
                    let how = (&[finder][..], Depth::All, turn);
                    tally
                        .check(&store, (name, FileKind::Index), how, |vfs| bend(vfs, field, *mask));
                }
            }
        }
    }
    assert!(0 < turn);
    tally.finish("bent entries of the index");
}
