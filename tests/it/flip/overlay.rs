//! Bits of an overlay file flip. It lies outside of the store, and its data has no checksum: a flip there is that flip, and no more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chunkstore::error::{Error, ObjectName};
use chunkstore::vfs::simulated::SimulatedVfs;
use chunkstore::{ImageReader, Overlay};
use support::attempt::Attempts;
use support::images;
use support::long_tests::choose;
use support::simulated_store::{backup, create, describe, open};

const PATH: &str = "/overlay";

/// Bytes of the header that mean something; up to the directory there are zeros.
const HEADER_LEN: u64 = 360;

/// Parts of the file, by what they end with.
const HEADER_END: u64 = 4096;
const DIRECTORY_END: u64 = 3 * 4096;
const MAP_END: u64 = 5 * 4096;
const DATA_START: u64 = 64 << 10;

const MASKS: [u8; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 0xff];

/// Makes an overlay in good order: one block was written, one is zero, one is that of the revision; both slots of its map are used.
fn make() -> (SimulatedVfs, Vec<u8>) {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let image = images::image(3, 12_000);
    let id = backup(&store, "a", &image).unwrap().id;
    let base = Arc::new(ImageReader::open(&store, &id).unwrap());
    let overlay = Overlay::create(Path::new(PATH), base).unwrap();
    let mut expected = image;
    overlay.write(100, &[7; 700]).unwrap();
    expected[100..800].fill(7);
    overlay.flush().unwrap();
    overlay.trim(4096, 4096).unwrap();
    expected[4096..8192].fill(0);
    overlay.close().unwrap();
    drop(overlay);
    (vfs.kill(), expected)
}

/// Flips bits of a byte, and returns what came of it.
fn flip(
    (vfs, expected): &(SimulatedVfs, Vec<u8>),
    offset: u64,
    mask: u8,
) -> (&'static str, &'static str) {
    let vfs = vfs.kill();
    vfs.flip(PATH, offset, mask).unwrap();
    let store = open(&vfs, 5).unwrap();
    let part = match offset {
        0..HEADER_LEN => "header",
        HEADER_LEN..HEADER_END | MAP_END..DATA_START => "zeros between the parts",
        HEADER_END..DIRECTORY_END => "directory",
        DIRECTORY_END..MAP_END => "map",
        _ => "data",
    };
    let overlay = match Overlay::open(Path::new(PATH), &store) {
        Ok(overlay) => overlay,
        Err(Error::Damaged { object: ObjectName::Overlay { path }, .. }) => {
            assert_eq!(path, Path::new(PATH));
            assert!(part == "header" || part == "directory", "{part}");
            return (part, "open names it");
        }
        Err(error) => panic!("{}", describe(&error)),
    };
    assert_ne!(part, "header", "it is opened");
    let mut bytes = vec![0xee; expected.len()];
    match overlay.read(0, &mut bytes) {
        Err(Error::Damaged { object: ObjectName::OverlayMap { path, .. }, .. }) => {
            assert_eq!((path.as_path(), part), (Path::new(PATH), "map"));
            return (part, "whoever reads there names it");
        }
        other => other.unwrap_or_else(|error| panic!("{}", describe(&error))),
    }
    assert_ne!(part, "map", "it is read");
    if part == "data" {
        let place = usize::try_from(offset - DATA_START).unwrap();
        if bytes != *expected {
            bytes[place] ^= mask;
            assert!(bytes == *expected, "more than the flip has changed");
            return (part, "the byte is what the medium gives: data has no checksum");
        }
        return (part, "the block is not in the overlay");
    }
    assert!(bytes == *expected, "other bytes");
    // What was found torn is written anew; then it is as good as ever.
    overlay.write(9000, b"x").unwrap();
    overlay.close().unwrap();
    drop(overlay);
    let overlay = Overlay::open(Path::new(PATH), &store).unwrap();
    overlay.read(0, &mut bytes).unwrap();
    let mut right = expected.clone();
    right[9000] = b'x';
    assert!(bytes == right, "other bytes after a write");
    (part, "harmless")
}

#[test]
fn every_flip_in_an_overlay_is_found_or_changes_that_byte_only() {
    let scene = make();
    let len = scene.0.read_all(PATH).unwrap().len() as u64;
    let (mut attempts, mut outcomes) = (Attempts::default(), BTreeMap::new());
    let step = choose(61, 1);
    let places = (0..MAP_END).chain(DATA_START..len).step_by(step);
    for (turn, offset) in places.enumerate() {
        let one = [MASKS[turn % MASKS.len()]];
        for mask in choose(&one[..], &MASKS[..]) {
            attempts.attempt(
                || format!("byte {offset} mask {mask:#x}"),
                || *outcomes.entry(flip(&scene, offset, *mask)).or_insert(0) += 1,
            );
        }
    }
    println!("overlay of {len} bytes: {outcomes:?}");
    attempts.finish("flips of an overlay");
}

#[test]
fn overlay_of_any_length_is_named_or_right_where_it_is_read() {
    let (vfs, expected) = make();
    let len = vfs.read_all(PATH).unwrap().len() as u64;
    let mut attempts = Attempts::default();
    for new_len in (0..len + 9000).step_by(choose(997, 41)) {
        attempts.attempt(
            || format!("{len} bytes made {new_len}"),
            || {
                let vfs = vfs.kill();
                vfs.truncate(PATH, new_len).unwrap();
                let store = open(&vfs, 5).unwrap();
                let Ok(overlay) = Overlay::open(Path::new(PATH), &store) else {
                    assert!(new_len < DIRECTORY_END);
                    return;
                };
                for (place, right) in (0..).zip(expected.chunks(512)) {
                    let mut bytes = vec![0xee; right.len()];
                    let result = overlay.read(place * 512, &mut bytes);
                    assert!(result.is_err() || bytes == right, "block {place}: other bytes");
                    assert!(new_len < len || result.is_ok(), "block {place}: {result:?}");
                }
            },
        );
    }
    attempts.finish("lengths of an overlay");
}
