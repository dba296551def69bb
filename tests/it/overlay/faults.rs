//! Damage, failed calls and full disks.

use std::path::Path;
use std::sync::Arc;

use chunkstore::error::{Error, ObjectName, Result};
use chunkstore::format::OverlayMapPage;
use chunkstore::vfs::simulated::{
    Counter, CrashMode, Effect, FaultKind, FaultPlan, UnsyncedData, UnsyncedNames,
};
use chunkstore::{ImageReader, Overlay};
use support::simulated_store::{files_below, open};

use super::{BLOCK_LEN, DATA_START, MAP_START, PATH, Scene, example, read_all};

const KEPT: CrashMode = CrashMode { data: UnsyncedData::Kept, names: UnsyncedNames::Kept };

/// A scene with an overlay in good order, of which both slots of the only page of the map were written.
fn scene_with_overlay() -> (Scene, Vec<u8>) {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    let mut expected = scene.image.clone();
    for place in [0, 50_000] {
        overlay.write(place, &[9; 3 * BLOCK_LEN]).unwrap();
        overlay.flush().unwrap();
        let place = usize::try_from(place).unwrap();
        expected[place..place + 3 * BLOCK_LEN].fill(9);
    }
    drop(overlay);
    (scene, expected)
}

fn overlay_is_damaged<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Damaged { object: ObjectName::Overlay { path }, .. }) if path == Path::new(PATH))
}

fn map_is_damaged<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Damaged { object: ObjectName::OverlayMap { path, range }, .. })
        if path == Path::new(PATH) && range.contains(&0))
}

#[test]
fn damaged_header_is_named_and_anything_else_is_no_overlay() {
    let (scene, _) = scene_with_overlay();
    let bytes = scene.vfs.read_all(PATH).unwrap();
    for place in 0..360 {
        scene.vfs.write_raw(PATH, bytes.clone()).unwrap();
        scene.vfs.flip(PATH, place, 4).unwrap();
        assert!(overlay_is_damaged(&scene.open()), "byte {place}");
    }
    for other in [&b""[..], b"x", &[0; 5000], &bytes[..359]] {
        scene.vfs.write_raw(PATH, other).unwrap();
        assert!(overlay_is_damaged(&scene.open()), "{} bytes", other.len());
    }
    scene.vfs.remove(PATH).unwrap();
    assert!(matches!(scene.open(), Err(Error::Storage { action: "open", .. })));
}

#[test]
fn damage_of_a_page_is_an_error_for_its_range_and_never_the_revision() {
    let (scene, expected) = scene_with_overlay();
    let bytes = scene.vfs.read_all(PATH).unwrap();
    let slots: [&[u64]; 3] = [&[0], &[1], &[0, 1]];
    for slots in slots {
        for place in [0_u64, 20, 60, 4095] {
            scene.vfs.write_raw(PATH, bytes.clone()).unwrap();
            for slot in slots {
                scene.vfs.flip(PATH, MAP_START + slot * 4096 + place, 1).unwrap();
            }
            let overlay = scene.open().unwrap();
            assert!(!overlay.is_base(0, 1));
            assert!(map_is_damaged(&overlay.read(0, &mut [0; 1])), "{slots:?} {place}");
            assert!(map_is_damaged(&overlay.write(0, &[1; 1])));
            assert!(map_is_damaged(&overlay.trim(0, 4096)));
            assert!(map_is_damaged(&overlay.extents(0, 1, 1)));
        }
    }
    // Also where the page has become zeros, as if nothing had been written.
    let mut wiped = bytes.clone();
    wiped[usize::try_from(MAP_START).unwrap()..usize::try_from(DATA_START).unwrap()].fill(0);
    scene.vfs.write_raw(PATH, wiped).unwrap();
    assert!(map_is_damaged(&scene.open().unwrap().read(0, &mut [0; 1])));
    scene.vfs.write_raw(PATH, bytes).unwrap();
    assert!(read_all(&scene.open().unwrap()) == expected);
}

#[test]
fn damaged_directory_is_found_at_opening() {
    let (scene, expected) = scene_with_overlay();
    let bytes = scene.vfs.read_all(PATH).unwrap();
    let both_slots = [4096 + 60, 8192 + 60];
    for place in both_slots {
        scene.vfs.flip(PATH, place, 1).unwrap();
    }
    assert!(overlay_is_damaged(&scene.open()));
    // One of the two may have been torn: all pages of the map are looked at.
    for place in both_slots {
        scene.vfs.write_raw(PATH, bytes.clone()).unwrap();
        scene.vfs.flip(PATH, place, 1).unwrap();
        assert!(read_all(&scene.open().unwrap()) == expected);
    }
}

/// A limit that `docs/format.md` names, in section "Overlay file".
#[test]
fn damage_that_looks_like_a_crash_costs_no_more_than_one_flush() {
    let (scene, expected) = scene_with_overlay();
    let mut one_flush_before = scene.image.clone();
    one_flush_before[..3 * BLOCK_LEN].fill(9);
    let bytes = scene.vfs.read_all(PATH).unwrap();
    let mut outcomes = [0, 0];
    for (directory, map) in [(4096, 0), (4096, 4096), (8192, 0), (8192, 4096)] {
        scene.vfs.write_raw(PATH, bytes.clone()).unwrap();
        scene.vfs.flip(PATH, directory + 60, 1).unwrap();
        scene.vfs.flip(PATH, MAP_START + map + 60, 1).unwrap();
        let overlay = scene.open().unwrap();
        let mut found = vec![0; scene.image.len()];
        match overlay.read(0, &mut found) {
            Ok(()) if found == expected => outcomes[0] += 1,
            Ok(()) if found == one_flush_before => outcomes[1] += 1,
            other => assert!(map_is_damaged(&other), "{directory} {map}: {other:?}"),
        }
    }
    assert_eq!(outcomes, [1, 1], "what was written last, and what was written before");
}

#[test]
fn page_that_the_directory_does_not_know_is_not_written_over() {
    let scene = Scene::new(&example());
    drop(scene.create());
    let fresh = scene.vfs.read_all(PATH).unwrap();
    scene.open().unwrap().write(0, b"x").unwrap();
    let mut mixed = scene.vfs.read_all(PATH).unwrap();
    mixed[4096..12288].copy_from_slice(&fresh[4096..12288]);
    scene.vfs.write_raw(PATH, mixed).unwrap();
    let overlay = scene.open().unwrap();
    assert!(map_is_damaged(&overlay.write(0, b"y")), "the page in the file would win");
}

/// Returns the page in a slot of a file.
fn page_at(file: &[u8], start: usize) -> OverlayMapPage {
    OverlayMapPage::decode(&file[start..start + OverlayMapPage::LEN]).unwrap()
}

fn put(file: &mut [u8], start: usize, page: &OverlayMapPage) {
    file[start..start + OverlayMapPage::LEN].copy_from_slice(&page.encode());
}

/// What lies in the slots of a page that the directory does not know: a first write that was torn is forgotten, anything else is
/// damage, and what is written over it and flushed is there in any case.
#[test]
fn unreadable_page_that_the_directory_does_not_know_is_torn_or_damaged() {
    let scene = Scene::new(&example());
    drop(scene.create());
    let fresh = scene.vfs.read_all(PATH).unwrap();
    let in_use = OverlayMapPage { is_closed: false, sequence: 2, ..page_at(&fresh, 4096) };
    // Whether the overlay was in use, the slots with something in them, and whether that is a torn write.
    for (is_in_use, slots, is_torn) in [
        (true, &[0][..], true),
        (true, &[1], false),
        (true, &[0, 1], false),
        (false, &[0], false),
        (false, &[1], false),
    ] {
        let mut file = fresh.clone();
        file.resize(usize::try_from(DATA_START).unwrap(), 0);
        if is_in_use {
            put(&mut file, 8192, &in_use);
        }
        for slot in slots {
            file[usize::try_from(MAP_START).unwrap() + slot * 4096 + 100] = 1;
        }
        scene.vfs.write_raw(PATH, file).unwrap();
        let overlay = scene.open().unwrap();
        if is_in_use {
            assert_eq!(!map_is_damaged(&overlay.read(0, &mut [0; 1])), is_torn, "{slots:?}");
        }
        let result = overlay.write(0, b"y");
        assert_eq!(result.is_ok(), is_torn, "{is_in_use} {slots:?}");
        assert!(is_torn || map_is_damaged(&result));
        overlay.close().unwrap();
        drop(overlay);
        if is_torn {
            let mut found = [0];
            scene.open().unwrap().read(0, &mut found).unwrap();
            assert_eq!(found, *b"y");
        }
    }
}

#[test]
fn slot_that_was_wiped_or_is_older_than_it_can_be_is_damage() {
    let (scene, expected) = scene_with_overlay();
    let overlay = scene.open().unwrap();
    overlay.write(0, &[9]).unwrap();
    overlay.trim(30_000, 9000).unwrap();
    drop(overlay);
    let bytes = scene.vfs.read_all(PATH).unwrap();
    let [first, second] = [0, 4096].map(|slot| usize::try_from(MAP_START).unwrap() + slot);
    let (newer, older) = (page_at(&bytes, first), page_at(&bytes, second));
    assert_eq!((newer.sequence, older.sequence), (3, 2));
    let wiped = [0; OverlayMapPage::LEN];
    let ancient = OverlayMapPage { sequence: 1, ..older }.encode();
    for (start, other) in
        [(first, &wiped[..]), (second, &wiped), (second, &ancient), (second, &newer.encode())]
    {
        let mut changed = bytes.clone();
        changed[start..start + OverlayMapPage::LEN].copy_from_slice(other);
        scene.vfs.write_raw(PATH, changed).unwrap();
        assert!(map_is_damaged(&scene.open().unwrap().read(0, &mut [0; 1])), "{start}");
    }
    scene.vfs.write_raw(PATH, bytes).unwrap();
    assert!(read_all(&scene.open().unwrap())[..30_000] == expected[..30_000]);
}

#[test]
fn page_after_which_there_is_no_other_fails_the_flush() {
    let (scene, _) = scene_with_overlay();
    let bytes = scene.vfs.read_all(PATH).unwrap();
    for (start, is_map) in [(usize::try_from(MAP_START).unwrap(), true), (4096, false)] {
        let mut file = bytes.clone();
        for (slot, sequence) in [(0, u64::MAX - 1), (4096, u64::MAX)] {
            let page = OverlayMapPage { sequence, ..page_at(&bytes, start + slot) };
            put(&mut file, start + slot, &page);
        }
        scene.vfs.write_raw(PATH, file).unwrap();
        let overlay = scene.open().unwrap();
        overlay.write(30_000, b"y").unwrap();
        for _ in 0..2 {
            let result = overlay.flush();
            if is_map {
                assert!(map_is_damaged(&result), "{result:?}");
            } else {
                assert!(overlay_is_damaged(&result), "{result:?}");
            }
        }
        let mut found = [0];
        overlay.read(30_000, &mut found).unwrap();
        assert_eq!(found, *b"y");
    }
}

#[test]
fn page_of_another_overlay_is_damage() {
    let (scene, _) = scene_with_overlay();
    let mine = scene.vfs.read_all(PATH).unwrap();
    let other = Overlay::create(Path::new("/other"), Arc::clone(&scene.revision)).unwrap();
    other.write(0, b"x").unwrap();
    drop(other);
    let other = scene.vfs.read_all("/other").unwrap();
    let map = usize::try_from(MAP_START).unwrap()..usize::try_from(MAP_START).unwrap() + 4096;
    let mut mixed = mine;
    mixed[map.clone()].copy_from_slice(&other[map]);
    scene.vfs.write_raw(PATH, mixed).unwrap();
    assert!(map_is_damaged(&scene.open().unwrap().read(0, &mut [0; 1])));
}

#[test]
fn file_that_was_cut_is_an_error_where_bytes_are_missing() {
    let (scene, expected) = scene_with_overlay();
    scene.vfs.truncate(PATH, DATA_START + 50_000).unwrap();
    let overlay = scene.open().unwrap();
    let mut bytes = [0; 100];
    overlay.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, expected[..100]);
    assert!(overlay.read(55_000, &mut bytes).is_err());
}

#[test]
fn failed_sync_ends_the_writing_and_not_the_reading() {
    // Of the data, of the map, of the directory.
    for sync in 0..3 {
        let scene = Scene::new(&example());
        let overlay = scene.create();
        overlay.write(0, &[1; 5000]).unwrap();
        let plan = FaultPlan::at(Counter::Syncs, sync, Effect::Fail(FaultKind::Device));
        scene.vfs.set_faults(plan);
        assert!(matches!(overlay.flush(), Err(Error::Storage { action: "sync", .. })), "{sync}");
        let calls = scene.vfs.mutating_call_count();
        assert!(overlay.flush().is_err() && overlay.close().is_err());
        assert!(overlay.write(9, b"x").is_err() && overlay.trim(0, 4096).is_err());
        assert!(overlay.write_zeroes(0, 100, false).is_err());
        assert_eq!(read_all(&overlay)[..5000], [1; 5000]);
        drop(overlay);
        assert_eq!(scene.vfs.mutating_call_count(), calls, "nothing is tried again");
    }
}

#[test]
fn any_failed_call_is_an_error_and_loses_nothing_that_was_flushed() {
    let run = |plan| {
        let (scene, _) = scene_with_overlay();
        let overlay = scene.open().unwrap();
        overlay.write(8, &[2; 5000]).unwrap();
        overlay.flush().unwrap();
        scene.vfs.set_faults(plan);
        let results = [
            overlay.write(20_000, &[3; 9000]),
            overlay.trim(0, 9000),
            overlay.flush(),
            overlay.write_zeroes(40_000, 9000, false),
            overlay.flush(),
        ];
        let bytes = read_all(&overlay);
        drop(overlay);
        (scene, results, bytes)
    };
    let (scene, _, expected) = run(FaultPlan::none());
    let mut failed = 0;
    for call in 0..scene.vfs.mutating_call_count() {
        for kind in [FaultKind::NoSpace, FaultKind::Device] {
            let (scene, results, _) = run(FaultPlan::fail_mutation(call, kind));
            let out_of_space =
                |result: &Result<()>| result.as_ref().is_err_and(Error::is_out_of_space);
            failed += results.iter().filter(|result| result.is_err()).count();
            let is_poisoned = results
                .iter()
                .any(|result| matches!(result, Err(Error::Storage { action: "sync", .. })));
            if kind == FaultKind::NoSpace && !is_poisoned {
                let count = results.iter().filter(|result| result.is_err()).count();
                assert_eq!(results.iter().filter(|result| out_of_space(result)).count(), count);
            }
            let vfs = scene.vfs.crash(&KEPT, call);
            let store = open(&vfs, 50).unwrap();
            let found = read_all(&Overlay::open(Path::new(PATH), &store).unwrap());
            assert_eq!(found[60_000..], expected[60_000..]);
            if results[4].is_ok() && results.iter().all(Result::is_ok) {
                assert!(found == expected, "call {call}");
            }
        }
    }
    assert!(10 < failed);
}

#[test]
fn full_disk_is_an_error_of_the_write_and_all_goes_on_with_space() {
    let (scene, mut expected) = scene_with_overlay();
    let overlay = scene.open().unwrap();
    let used: u64 = scene.vfs.all_files().iter().map(|(_, len)| len).sum();
    scene.vfs.set_capacity(Some(used + 10_000));
    let end = expected.len() as u64;
    let error = overlay.write(end - 20_000, &[4; 20_000]).unwrap_err();
    assert!(error.is_out_of_space(), "{error:?}");
    assert!(overlay.write_zeroes(end - 5000, 5000, false).unwrap_err().is_out_of_space());
    assert!(read_all(&overlay) == expected);
    overlay.write(1000, &[5; 100]).unwrap();
    overlay.flush().unwrap();
    expected[1000..1100].fill(5);
    scene.vfs.set_capacity(None);
    overlay.write(end - 20_000, &[4; 20_000]).unwrap();
    let start = expected.len() - 20_000;
    expected[start..].fill(4);
    assert!(read_all(&overlay) == expected);
    drop(overlay);
    assert!(read_all(&scene.open().unwrap()) == expected);
}

#[test]
fn damaged_revision_fails_the_write_of_a_part_of_a_block_and_nothing_else() {
    let scene = Scene::new(&example());
    drop(scene.create());
    let store = open(&scene.vfs, 20).unwrap();
    for path in files_below(&scene.vfs, "packs") {
        let len = scene.vfs.read_all(&path).unwrap().len() as u64;
        // Lists stay: they are in short packs.
        if 30_000 < len {
            for place in (200..len - 2000).step_by(50) {
                scene.vfs.flip(&path, place, 1).unwrap();
            }
        }
    }
    let id = scene.revision.revision().record.id;
    assert!(ImageReader::open(&store, &id).unwrap().read_exact_at(&mut [0; 1], 0).is_err());
    let overlay = Overlay::open(Path::new(PATH), &store).unwrap();
    let before = scene.vfs.read_all(PATH).unwrap();
    let error = overlay.write(10, &[1; 2 * BLOCK_LEN]).unwrap_err();
    assert!(error.is_damage(), "{error:?}");
    assert!(scene.vfs.read_all(PATH).unwrap() == before, "nothing is written");
    overlay.write(0, &[1; 2 * BLOCK_LEN]).unwrap();
    overlay.write(10, &[2; 10]).unwrap();
    let mut bytes = [0; 2 * BLOCK_LEN];
    overlay.read(0, &mut bytes).unwrap();
    assert_eq!((bytes[9], bytes[10], bytes[20]), (1, 2, 1));
    overlay.trim(0, overlay.len()).unwrap();
    assert!(read_all(&overlay).iter().all(|byte| *byte == 0));
}
