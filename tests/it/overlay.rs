//! Overlays: writable images over a revision.

mod backup;
mod crash;
mod faults;
mod model;
mod real;
mod syncs;

use std::path::Path;
use std::sync::{Arc, Barrier};

use chunkstore::error::{Error, Result};
use chunkstore::overlay::{OverlayExtent, OverlayExtentKind};
use chunkstore::vfs::simulated::SimulatedVfs;
use chunkstore::{ImageReader, Overlay, Store};
use support::images;
use support::simulated_store::{backup, create, open, purge_now};

const BLOCK_LEN: usize = 4096;

/// Where the overlay lies.
const PATH: &str = "/overlay";

/// Start of the map in the file of an overlay over a small image: behind the header and one page of the directory.
const MAP_START: u64 = 3 * 4096;

/// Start of the bytes of a small image in the file.
const DATA_START: u64 = 64 << 10;

/// A store with one revision of an image, and its directory.
struct Scene {
    vfs: SimulatedVfs,
    store: Store,
    image: Vec<u8>,
    revision: Arc<ImageReader>,
}

impl Scene {
    fn new(image: &[u8]) -> Self {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).unwrap();
        let id = backup(&store, "a", image).unwrap().id;
        let revision = Arc::new(ImageReader::open(&store, &id).unwrap());
        Self { vfs, store, image: image.to_vec(), revision }
    }

    fn create(&self) -> Overlay {
        Overlay::create(Path::new(PATH), Arc::clone(&self.revision)).unwrap()
    }

    fn open(&self) -> Result<Overlay> {
        Overlay::open(Path::new(PATH), &self.store)
    }
}

/// Returns data with a long run of zeros, and no multiple of anything in length.
fn example() -> Vec<u8> {
    let mut image = images::image(1, 200 << 10);
    let len = image.len();
    image[len - 5000..].fill(7);
    image
}

fn read_all(overlay: &Overlay) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(overlay.len()).unwrap()];
    overlay.read(0, &mut bytes).unwrap();
    bytes
}

fn extent(start: u64, end: u64, kind: OverlayExtentKind) -> OverlayExtent {
    OverlayExtent { range: start..end, kind }
}

#[test]
fn fresh_overlay_is_its_revision() {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    assert_eq!(read_all(&overlay), scene.image);
    assert!(overlay.is_base(0, overlay.len()));
    assert_eq!(overlay.revision().record.id, scene.revision.revision().record.id);
    assert!(!overlay.changed_extents(0, overlay.len(), 9).unwrap()[0].is_changed);
    drop(overlay);
    assert_eq!(read_all(&scene.open().unwrap()), scene.image);
}

#[test]
fn what_is_written_is_there_after_reopening_and_the_revision_is_as_it_was() {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    overlay.write(5000, &[1; 10_000]).unwrap();
    overlay.write_zeroes(30_000, 10_000, true).unwrap();
    overlay.write_zeroes(50_000, 10_000, false).unwrap();
    overlay.trim(70_000, 10_000).unwrap();
    let end = scene.image.len();
    overlay.write(end as u64 - 3, b"end").unwrap();
    let mut expected = scene.image.clone();
    expected[5000..15_000].fill(1);
    expected[30_000..40_000].fill(0);
    expected[50_000..60_000].fill(0);
    // Whole blocks only.
    expected[73_728..77_824].fill(0);
    expected[end - 3..].copy_from_slice(b"end");
    assert_eq!(read_all(&overlay), expected);
    assert!(!overlay.is_base(5000, 1) && overlay.is_base(0, 4096));
    drop(overlay);
    assert_eq!(read_all(&scene.open().unwrap()), expected);
    let mut revision = vec![0; end];
    scene.revision.read_exact_at(&mut revision, 0).unwrap();
    assert_eq!(revision, scene.image);
}

#[test]
fn extents_tell_data_holes_and_zeros() {
    use OverlayExtentKind::{Data, Hole, Zero};
    let mut image = vec![1; 256 << 10];
    image[64 << 10..192 << 10].fill(0);
    let scene = Scene::new(&image);
    let overlay = scene.create();
    overlay.write_zeroes(8192, 4096, true).unwrap();
    overlay.write(128 << 10, b"x").unwrap();
    let all = [
        extent(0, 8192, Data),
        extent(8192, 12_288, Zero),
        extent(12_288, 64 << 10, Data),
        extent(64 << 10, 128 << 10, Hole),
        extent(128 << 10, 132 << 10, Data),
        extent(132 << 10, 192 << 10, Hole),
        extent(192 << 10, 256 << 10, Data),
    ];
    assert_eq!(overlay.extents(0, 256 << 10, 100).unwrap(), all);
    assert_eq!(overlay.extents(0, 256 << 10, 3).unwrap(), all[..3]);
    assert_eq!(overlay.extents(9000, 1000, 3).unwrap(), [extent(9000, 10_000, Zero)]);
    assert_eq!(overlay.extents(9000, 0, 3).unwrap(), []);
    let changed = overlay.changed_extents(5000, 8000, 9).unwrap();
    let changed: Vec<_> = changed.into_iter().map(|it| (it.range, it.is_changed)).collect();
    assert_eq!(changed, [(5000..8192, false), (8192..12_288, true), (12_288..13_000, false)]);
    assert_eq!(overlay.changed_extents(0, 256 << 10, 1).unwrap().len(), 1);
}

#[test]
fn ranges_beyond_the_image_are_refused() {
    let scene = Scene::new(&[5; 5000]);
    let overlay = scene.create();
    let refused = |result: Result<()>| matches!(result, Err(Error::InvalidOption { .. }));
    assert!(refused(overlay.read(4999, &mut [0; 2])));
    assert!(refused(overlay.write(5000, b"x")));
    assert!(refused(overlay.write(u64::MAX, b"x")));
    assert!(refused(overlay.write_zeroes(0, 5001, true)));
    assert!(refused(overlay.trim(1, 5000)));
    assert!(refused(overlay.extents(0, 5001, 1).map(drop)));
    assert!(!overlay.is_base(0, 5001));
    overlay.write(5000, b"").unwrap();
    assert_eq!(read_all(&overlay), [5; 5000]);
}

#[test]
fn empty_image_has_an_overlay_too() {
    let scene = Scene::new(&[]);
    let overlay = scene.create();
    assert!(overlay.is_empty());
    overlay.flush().unwrap();
    drop(overlay);
    assert!(read_all(&scene.open().unwrap()).is_empty());
}

#[test]
fn one_process_at_a_time_has_it_open() {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    for result in [scene.open(), Overlay::open_for_reading(Path::new(PATH), &scene.store)] {
        let Err(Error::Locked { what, .. }) = result else { panic!("{result:?}") };
        assert!(what.contains(PATH));
    }
    drop(overlay);
    assert!(scene.open().is_ok());
    let taken = Overlay::create(Path::new(PATH), Arc::clone(&scene.revision));
    assert!(matches!(taken, Err(Error::Storage { action: "create", .. })), "{taken:?}");
}

#[test]
fn overlay_opened_for_reading_takes_no_writes_and_stays_as_it_is() {
    let scene = Scene::new(&example());
    scene.create().write(100, b"x").unwrap();
    let before = scene.vfs.read_all(PATH).unwrap();
    let overlay = Overlay::open_for_reading(Path::new(PATH), &scene.store).unwrap();
    assert!(overlay.write(0, b"x").is_err() && overlay.trim(0, 4096).is_err());
    assert!(overlay.write_zeroes(0, 4096, true).is_err());
    assert_eq!(read_all(&overlay)[100], b'x');
    overlay.flush().unwrap();
    overlay.close().unwrap();
    drop(overlay);
    assert!(scene.vfs.read_all(PATH).unwrap() == before);
}

#[test]
fn overlay_of_another_store_is_refused() {
    let (scene, other) = (Scene::new(&example()), Scene::new(&example()));
    drop(scene.create());
    other.vfs.write_raw(PATH, scene.vfs.read_all(PATH).unwrap()).unwrap();
    // Stores of the same seed have the same id: another one is made.
    let elsewhere = SimulatedVfs::new();
    elsewhere.write_raw(PATH, scene.vfs.read_all(PATH).unwrap()).unwrap();
    let store = create(&elsewhere, 77).unwrap();
    let result = Overlay::open(Path::new(PATH), &store);
    let Err(Error::OtherStore { found, expected, .. }) = result else { panic!("{result:?}") };
    assert_eq!((found, expected), (scene.store.id(), store.id()));
}

#[test]
fn forgotten_revision_is_named_and_an_open_overlay_reads_on() {
    let scene = Scene::new(&example());
    let id = scene.revision.revision().record.id;
    let overlay = scene.create();
    overlay.write(0, b"x").unwrap();
    chunkstore::ops::forget(&scene.store, &[id]).unwrap();
    purge_now(&scene.store).unwrap();
    let mut expected = scene.image.clone();
    expected[0] = b'x';
    assert_eq!(read_all(&overlay), expected);
    drop(overlay);
    let result = Overlay::open(Path::new(PATH), &open(&scene.vfs, 9).unwrap());
    let Err(Error::NoSuchBase { path, source_name, id: found }) = result else {
        panic!("{result:?}")
    };
    assert_eq!((path.as_path(), source_name.as_str(), found), (Path::new(PATH), "a", id));
}

#[test]
fn throwaway_overlay_leaves_nothing() {
    let scene = Scene::new(&example());
    let before = scene.vfs.all_files();
    let overlay = Overlay::throwaway(Path::new("/"), Arc::clone(&scene.revision)).unwrap();
    let syncs = scene.vfs.sync_count();
    overlay.write(1000, &[3; 100_000]).unwrap();
    overlay.flush().unwrap();
    overlay.trim(0, 50_000).unwrap();
    overlay.flush().unwrap();
    let mut expected = scene.image.clone();
    expected[1000..101_000].fill(3);
    expected[..49_152].fill(0);
    assert_eq!(read_all(&overlay), expected);
    assert_eq!(scene.vfs.sync_count(), syncs);
    assert_eq!(scene.vfs.all_files(), before);
}

#[test]
fn idle_flush_does_nothing_and_overwriting_takes_one_sync() {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    overlay.write(0, &[1; BLOCK_LEN]).unwrap();
    overlay.flush().unwrap();
    scene.vfs.set_faults(chunkstore::vfs::simulated::FaultPlan::none());
    overlay.flush().unwrap();
    assert_eq!(scene.vfs.mutating_call_count(), 0);
    overlay.write(100, &[2; 100]).unwrap();
    overlay.flush().unwrap();
    assert_eq!((scene.vfs.mutating_call_count(), scene.vfs.sync_count()), (2, 1));
}

#[test]
fn writes_to_parts_of_the_same_block_do_not_undo_each_other() {
    const LEN: usize = 1 << 20;
    const ROUNDS: usize = 24;
    const PART: usize = 700;
    let scene = Scene::new(&vec![0; ROUNDS * LEN]);
    let overlay = scene.create();
    let barrier = Barrier::new(2);
    // A long write ends in a block of which a short one writes the rest, a little later in each round.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for start in (0..ROUNDS * LEN).step_by(LEN) {
                barrier.wait();
                overlay.write(start as u64, &[1; LEN - PART]).unwrap();
            }
        });
        scope.spawn(|| {
            for round in 0..ROUNDS {
                barrier.wait();
                (0..round * 20_000).for_each(|_| std::hint::spin_loop());
                let place = (round + 1) * LEN - PART;
                overlay.write(place as u64, &[2; PART]).unwrap();
            }
        });
    });
    let mut expected = vec![1; ROUNDS * LEN];
    expected.chunks_mut(LEN).for_each(|chunk| chunk[LEN - PART..].fill(2));
    assert!(read_all(&overlay) == expected);
    drop(overlay);
    assert!(read_all(&scene.open().unwrap()) == expected);
}

#[test]
fn flushes_beside_writes_lose_nothing() {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    let mut expected = scene.image.clone();
    for place in (0..200 << 10).step_by(512) {
        expected[place..place + 512].fill(u8::try_from(place / 512 % 251).unwrap() + 1);
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (overlay, expected) = (&overlay, &expected);
            scope.spawn(move || {
                for place in (thread * 512..200 << 10).step_by(4 * 512) {
                    overlay.write(place as u64, &expected[place..place + 512]).unwrap();
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| overlay.flush().unwrap()));
    });
    assert!(read_all(&overlay) == expected);
    drop(overlay);
    assert!(read_all(&scene.open().unwrap()) == expected);
}
