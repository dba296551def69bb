//! Each byte of a larger store: packs of some hundred KiB, chunks of some KiB, pages with many entries.

use support::damage::{FileKind, Size, StoreAtRest};
use support::long_tests::choose;

use super::{Depth, Tally};

/// In the short form one byte of so many is flipped.
const STEP_OF_SAMPLE: usize = 24_000;

/// After every so many-th flip everything is restored, and in the short form all operations follow.
const STEP_OF_ALL: u64 = 16;

/// Parts into which the bytes of the index are divided, and of all else.
const SHARDS_OF_INDEX: usize = 2;
const SHARDS: usize = 4;

fn flip_each_byte((shard, shards): (usize, usize), is_index: bool) {
    let store = StoreAtRest::new(Size::LARGE);
    let mut tally = Tally::new();
    let step = choose(STEP_OF_SAMPLE, 1);
    let files =
        store.files().into_iter().filter(|(_, kind, _)| (*kind == FileKind::Index) == is_index);
    let places = files
        .flat_map(|(path, kind, len)| (0..len).map(move |offset| (path.clone(), kind, offset)));
    for (number, (path, kind, offset)) in places.enumerate() {
        let block = number / step;
        if block % shards == shard && number % step == block * 7 % step {
            let seed = (block / shards) as u64;
            let is_deep = seed.is_multiple_of(STEP_OF_ALL);
            let depth = if is_deep { choose(Depth::All, Depth::Found) } else { Depth::Named };
            tally.flip(&store, (&path, kind, offset), 0xff, (depth, seed / STEP_OF_ALL));
        }
    }
    let what =
        if is_index { "bytes of the index of a larger store" } else { "bytes of a larger store" };
    tally.finish(&format!("{what}, part {} of {shards}", shard + 1));
}

#[test]
fn every_byte_of_a_larger_store_is_found_or_harmless_1() {
    flip_each_byte((0, SHARDS), false);
}

#[test]
fn every_byte_of_a_larger_store_is_found_or_harmless_2() {
    flip_each_byte((1, SHARDS), false);
}

#[test]
fn every_byte_of_a_larger_store_is_found_or_harmless_3() {
    flip_each_byte((2, SHARDS), false);
}

#[test]
fn every_byte_of_a_larger_store_is_found_or_harmless_4() {
    flip_each_byte((3, SHARDS), false);
}

#[test]
fn every_byte_of_the_index_of_a_larger_store_is_harmless_1() {
    flip_each_byte((0, SHARDS_OF_INDEX), true);
}

#[test]
fn every_byte_of_the_index_of_a_larger_store_is_harmless_2() {
    flip_each_byte((1, SHARDS_OF_INDEX), true);
}
