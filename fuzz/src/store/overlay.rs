//! The file of an overlay as a whole: whatever is in it, reading and writing end with bytes or an error. Where nobody made the
//! checksums right, the bytes are those that were written.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use chunkstore::vfs::simulated::SimulatedVfs;
use chunkstore::{ImageReader, Overlay};
use support::images;
use support::simulated_store::{backup, create, open};

use super::edits::Edits;
use super::{forge, hook, permitted};

const PATH: &str = "/overlay";

/// Start of the bytes of the image in the file; before it are header and map.
const DATA_START: usize = 64 << 10;

const SLOT_LEN: usize = 4096;

/// Slots of the only page of the directory, and of the only page of the map.
const DIRECTORY: Range<usize> = 1..3;
const MAP: Range<usize> = 3..5;

/// The first byte of an input: sets checksums right, or lets the data be changed as well.
const FIX: u8 = 1;
const DATA_TOO: u8 = 2;

struct Scene {
    vfs: SimulatedVfs,
    file: Vec<u8>,
    expected: Vec<u8>,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    hook::install();
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).expect("a new store");
    let mut expected = images::image(1, 40_000);
    let id = backup(&store, "a", &expected).expect("a backup").id;
    let base = Arc::new(ImageReader::open(&store, &id).expect("the revision can be read"));
    let overlay = Overlay::create(Path::new(PATH), base).expect("a new overlay");
    for place in [0, 20_000] {
        overlay.write(place, &[9; 5000]).expect("a write");
        overlay.flush().expect("a flush");
        let place = usize::try_from(place).expect("small");
        expected[place..place + 5000].fill(9);
    }
    overlay.write_zeroes(8192, 4096, true).expect("a write");
    expected[8192..8192 + 4096].fill(0);
    drop(overlay);
    drop(store);
    let file = vfs.read_all(PATH).expect("the overlay is there");
    Scene { vfs: vfs.kill(), file, expected }
});

pub(crate) fn overlay(bytes: &[u8]) -> bool {
    let scene = &*SCENE;
    let Some((choice, bytes)) = bytes.split_first() else { return false };
    let mut file = scene.file.clone();
    let end = if choice & DATA_TOO == 0 { DATA_START } else { file.len() };
    Edits::new(bytes).patch_far(&mut file[..end]);
    if choice & FIX != 0 {
        forge::fix_overlay(&mut file, DATA_START);
    }
    let range_of = |slot: usize| slot * SLOT_LEN..(slot + 1) * SLOT_LEN;
    let is_changed = |slot: usize| file[range_of(slot)] != scene.file[range_of(slot)];
    // Damage to both looks like a crash, after which what was not flushed is gone (docs/format.md, section "Overlay file").
    let is_like_a_crash = DIRECTORY.into_iter().any(is_changed) && MAP.into_iter().any(is_changed);
    let is_known = choice & (FIX | DATA_TOO) == 0 && !is_like_a_crash;
    let vfs = scene.vfs.kill();
    vfs.write_raw(PATH, file).expect("it was there before");
    check(&vfs, is_known.then_some(&scene.expected))
}

fn check(vfs: &SimulatedVfs, expected: Option<&Vec<u8>>) -> bool {
    let store = open(vfs, 700).expect("the store is sound");
    let open = || permitted("open overlay", Overlay::open(Path::new(PATH), &store));
    let Some(overlay) = open() else { return false };
    let before = read_all(&overlay);
    if let (Some(found), Some(expected)) = (&before, expected) {
        assert!(found == expected, "other bytes than were written");
    }
    permitted("extents", overlay.extents(0, overlay.len(), 100));
    permitted("changes", overlay.changed_extents(0, overlay.len(), 100));
    let is_written = permitted("write", overlay.write(30_001, &[5; 4100])).is_some();
    permitted("trim", overlay.trim(12_288, 4096));
    let is_flushed = permitted("flush", overlay.flush()).is_some();
    permitted("close", overlay.close());
    drop(overlay);
    let Some(overlay) = open() else {
        assert!(!is_flushed, "what was flushed cannot be opened");
        return false;
    };
    let mut found = [0; 4100];
    if is_written && is_flushed {
        overlay.read(30_001, &mut found).expect("what was written can be read");
        assert!(found == [5; 4100], "what was written is not there");
    }
    before.is_some()
}

fn read_all(overlay: &Overlay) -> Option<Vec<u8>> {
    let mut bytes = vec![0xee; usize::try_from(overlay.len()).expect("small")];
    permitted("read", overlay.read(0, &mut bytes)).map(|()| bytes)
}

pub(crate) fn overlay_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![1], vec![2]];
    for slot in 0..6_u8 {
        for offset in [0, 8, 24, 60, 90] {
            for choice in [0, FIX, FIX | DATA_TOO] {
                seeds.push(vec![choice, offset, slot << 4, 0, 2, 0xff, 3]);
            }
        }
        // All of the slot that is not zeros: start with a few states, and checksum.
        let start = [&[0, 0, slot << 4, 0, 64], &[0; 64][..]].concat();
        seeds.push([&start, &[0xe0, slot << 4 | 0xf, 0, 32][..], &[0; 32]].concat());
        // The last sequence number.
        seeds.push([&[FIX, 40, slot << 4, 0, 8], &[0xff; 8][..]].concat());
    }
    seeds
}
