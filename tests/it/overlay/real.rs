//! On the file system of this machine: holes, space, and images of which the map does not fit into memory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use chunkstore::ops::{self, BackupOptions};
use chunkstore::overlay::OverlayExtentKind;
use chunkstore::progress::NoProgress;
use chunkstore::source::FileSource;
use chunkstore::{ImageReader, Overlay, Store, StoreOptions};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Returns a store with one revision of zeros, and its reader.
fn store_of_zeros(directory: &Path, len: u64) -> (Store, Arc<ImageReader>) {
    let image = directory.join("image");
    fs::File::create(&image).unwrap().set_len(len).unwrap();
    let store = Store::create(directory.join("store"), &StoreOptions::default()).unwrap();
    let source = FileSource::open(&image).unwrap();
    let options = BackupOptions::new("a".parse().unwrap());
    let id = ops::backup(&store, &source, &options, &NoProgress).unwrap().id;
    let reader = Arc::new(ImageReader::open(&store, &id).unwrap());
    (store, reader)
}

/// Returns the space that a file takes, in bytes.
fn space(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn trimmed_space_is_given_back_and_reserved_space_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("overlay");
    let (_store, base) = store_of_zeros(directory.path(), 64 * MIB);
    let overlay = Overlay::create(&path, base).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    overlay.write(MIB, &vec![1; 8 << 20]).unwrap();
    overlay.flush().unwrap();
    let full = space(&path);
    assert!(8 * MIB <= full);
    overlay.trim(MIB, 8 * MIB).unwrap();
    overlay.flush().unwrap();
    if 8 * MIB <= space(&path) {
        println!("SKIPPED overlay holes: the file system of {} has none", path.display());
        return;
    }
    assert!(space(&path) < MIB);
    overlay.write_zeroes(MIB, 8 * MIB, false).unwrap();
    overlay.flush().unwrap();
    assert!(8 * MIB <= space(&path), "{}", space(&path));
    // What was trimmed and written again before the flush is not punched.
    overlay.trim(MIB, MIB).unwrap();
    overlay.write(MIB, &vec![2; 1 << 20]).unwrap();
    overlay.flush().unwrap();
    let mut bytes = vec![0; 3 << 20];
    overlay.read(0, &mut bytes).unwrap();
    let mut expected = vec![0; 3 << 20];
    expected[1 << 20..2 << 20].fill(2);
    assert!(bytes == expected);
}

#[test]
fn throwaway_overlay_has_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let (_store, base) = store_of_zeros(directory.path(), 64 * MIB);
    let count = || fs::read_dir(directory.path()).unwrap().count();
    let before = count();
    let overlay = Overlay::throwaway(directory.path(), base).unwrap();
    overlay.write(5, b"hello").unwrap();
    overlay.close().unwrap();
    let mut bytes = [0; 5];
    overlay.read(5, &mut bytes).unwrap();
    assert_eq!((&bytes, count()), (b"hello", before));
}

#[test]
fn pages_that_are_let_go_are_read_again() {
    // More than twice as many pages as are kept.
    const PAGE: u64 = 32 * MIB;
    const PAGES: u64 = 9000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("overlay");
    let (store, base) = store_of_zeros(directory.path(), PAGES * PAGE + 5000);
    let overlay = Overlay::create(&path, base).unwrap();
    for number in 0..PAGES {
        overlay.trim(number * PAGE, 4096 * (1 + number % 7)).unwrap();
        if number % 1000 == 0 {
            overlay.write(number * PAGE + 100_000, b"x").unwrap();
        }
    }
    let check = |overlay: &Overlay| {
        for number in (0..PAGES).step_by(11).chain((0..PAGES).step_by(1000)) {
            let len = if number % 1000 == 0 { PAGE } else { 4096 * 9 };
            let extents = overlay.extents(number * PAGE, len, 3).unwrap();
            assert_eq!(extents[0].kind, OverlayExtentKind::Zero, "{number}");
            assert_eq!(extents[0].range.end, number * PAGE + 4096 * (1 + number % 7));
            let kinds = if number % 1000 == 0 { 3 } else { 2 };
            assert_eq!(extents.len(), kinds);
        }
    };
    check(&overlay);
    drop(overlay);
    let overlay = Overlay::open(&path, &store).unwrap();
    check(&overlay);
    assert_eq!(overlay.len() / GIB, 281);
    let changed = overlay.changed_extents(0, overlay.len(), usize::MAX).unwrap();
    let changed = changed.iter().filter(|extent| extent.is_changed).count();
    assert_eq!(changed as u64, PAGES + PAGES / 1000);
}
