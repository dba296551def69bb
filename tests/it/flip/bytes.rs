//! Each bit of each byte of a small store.

use std::path::PathBuf;

use support::damage::{FileKind, Size, StoreAtRest};
use support::long_tests::choose;

use super::{Depth, Tally};

/// All single bits of a byte, and all bits at once.
const MASKS: [u8; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 0xff];

/// In the short form one byte of so many is flipped, with one of the masks.
const STEP_OF_SAMPLE: usize = 120;

/// In both forms all bits of one byte of so many are flipped with all operations to follow.
const STEP_OF_ALL: usize = 5;

/// Parts into which the bytes of packs, and of records and states, are divided: each is a test, so that several run at once.
const SHARDS: usize = 4;

/// Flips bits of the files of some kinds: of every byte all of them, or a sample.
fn flip_all(kinds: &[FileKind], shard: usize, shards: usize) {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    let files = store.files().into_iter().filter(|(_, kind, _)| kinds.contains(kind));
    let places = files.flat_map(|(path, kind, len)| {
        (0..len).map(move |offset| (PathBuf::clone(&path), kind, offset))
    });
    // Packs are the many: of small files every few bytes are in the sample.
    let step = choose(if kinds.contains(&FileKind::Pack) { 2 } else { 1 } * STEP_OF_SAMPLE, 1);
    for (number, (path, kind, offset)) in places.enumerate() {
        let block = number / step;
        if block % shards != shard || number % step != block * 7 % step {
            continue;
        }
        let one = [MASKS[block % MASKS.len()]];
        for (turn, mask) in choose(&one[..], &MASKS[..]).iter().enumerate() {
            let is_deep = (block / shards).is_multiple_of(STEP_OF_ALL);
            let depth = match choose(0xff, *mask) {
                0xff if is_deep => Depth::All,
                0xff => Depth::Found,
                mask if mask.trailing_zeros() as usize == number % 8 => Depth::Found,
                _ => Depth::Named,
            };
            let seed = (block / shards / STEP_OF_ALL + turn) as u64;
            tally.flip(&store, (&path, kind, offset), *mask, (depth, seed));
        }
    }
    tally.finish(&format!("flips of {kinds:?}, part {} of {shards}", shard + 1));
}

#[test]
fn every_flip_in_a_pack_is_found_1() {
    flip_all(&[FileKind::Pack], 0, SHARDS);
}

#[test]
fn every_flip_in_a_pack_is_found_2() {
    flip_all(&[FileKind::Pack], 1, SHARDS);
}

#[test]
fn every_flip_in_a_pack_is_found_3() {
    flip_all(&[FileKind::Pack], 2, SHARDS);
}

#[test]
fn every_flip_in_a_pack_is_found_4() {
    flip_all(&[FileKind::Pack], 3, SHARDS);
}

#[test]
fn every_flip_in_a_record_is_found() {
    flip_all(&[FileKind::Record], 0, 1);
}

#[test]
fn every_flip_in_a_state_is_found() {
    flip_all(&[FileKind::State], 0, 1);
}

#[test]
fn every_flip_in_the_configuration_is_found() {
    flip_all(&[FileKind::Config], 0, 1);
}

#[test]
fn every_flip_in_a_list_of_packs_or_in_the_quarantine_is_found_or_harmless() {
    use FileKind::{AsideList, AsideRecord, AsideState, Condemned, Evidence, GivenUp};
    use FileKind::{Ledger, Mismatch, Quarantined};
    flip_all(&[Condemned, Ledger, Quarantined, GivenUp, Mismatch, Evidence], 0, 1);
    flip_all(&[AsideList, AsideRecord, AsideState], 0, 1);
}

#[test]
fn every_flip_in_what_processes_leave_is_harmless() {
    use FileKind::{Ballast, Lock, Session, Temporary, Trash};
    flip_all(&[Ballast, Lock, Session, Temporary, Trash], 0, 1);
}
