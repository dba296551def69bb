//! The backup of an overlay: the same revision as a full backup of the same bytes, for the price of what changed.

use std::path::Path;

use chunkstore::Overlay;
use chunkstore::format::RevisionRecord;
use chunkstore::ops::{self, BackupError, BackupOptions, BackupStats};
use chunkstore::progress::NoProgress;
use chunkstore::source::{Source, SourceError};
use support::images;
use support::simulated_store::{STORE_PATH, backup, open, restore};

use super::{PATH, Scene, example, read_all};

fn back_up(scene: &Scene, overlay: &Overlay) -> Result<BackupStats, BackupError> {
    let record: &RevisionRecord = &overlay.revision().record;
    let options = BackupOptions {
        parent: Some(record.id),
        threads: std::num::NonZero::new(1),
        ..BackupOptions::new(record.source.clone())
    };
    ops::backup(&scene.store, overlay, &options, &NoProgress)
}

#[test]
fn backup_of_an_overlay_is_that_of_its_bytes_and_reads_what_changed() {
    const SPAN: usize = 64 << 20;
    // Three spans; most of it is zeros so that the test is quick.
    let mut image = vec![0; 2 * SPAN + 5000];
    for start in [0, SPAN, 2 * SPAN] {
        let data = images::image(start as u64, 4000);
        image[start..start + data.len()].copy_from_slice(&data);
    }
    let scene = Scene::new(&image);
    let overlay = scene.create();
    overlay.write(SPAN as u64 + 3000, &[5; 100_000]).unwrap();
    overlay.write_zeroes(SPAN as u64, 1000, true).unwrap();
    overlay.close().unwrap();
    drop(overlay);
    // Newer revisions of the source do not matter.
    backup(&scene.store, "a", &images::image(9, 5000)).unwrap();
    let overlay = Overlay::open_for_reading(Path::new(PATH), &scene.store).unwrap();
    let base = overlay.revision().record.id;
    let stats = back_up(&scene, &overlay).unwrap();
    assert_eq!(stats.parent, Some(base));
    assert!(stats.statistics.read_bytes < SPAN as u64, "{:?}", stats.statistics);
    let expected = read_all(&overlay);
    assert!(restore(&scene.store, &stats.id).unwrap() == expected);
    let full = backup(&scene.store, "b", &expected).unwrap();
    let root = |id| scene.store.revision(id).unwrap().record.root;
    assert_eq!(root(&stats.id), root(&full.id));
    // The base is as it was.
    assert!(restore(&scene.store, &base).unwrap() == image);
}

#[test]
fn backup_of_an_unchanged_overlay_has_the_same_root() {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    let stats = back_up(&scene, &overlay).unwrap();
    assert_eq!(stats.statistics.read_bytes, 0);
    let root = |id| scene.store.revision(id).unwrap().record.root;
    assert_eq!(root(&stats.id), root(&overlay.revision().record.id));
}

#[test]
fn overlay_knows_its_changes_against_its_own_revision_only() {
    let scene = Scene::new(&example());
    let other = backup(&scene.store, "a", &images::image(9, 5000)).unwrap().id;
    let overlay = scene.create();
    overlay.write(5000, b"x").unwrap();
    let other = scene.store.revision(&other).unwrap().record;
    assert_eq!(overlay.changes_since(&other).unwrap(), None);
    let own = overlay.changes_since(&overlay.revision().record).unwrap();
    let own = own.expect("it knows");
    assert_eq!((own.len(), &own[0]), (1, &(4096..8192)));
}

#[test]
fn damage_below_an_overlay_is_an_error_of_the_source() {
    let scene = Scene::new(&example());
    let overlay = scene.create();
    overlay.write(0, &[1; 4096]).unwrap();
    drop(overlay);
    // Those with lists are short.
    for (path, len) in scene.vfs.all_files() {
        if path.starts_with(Path::new(STORE_PATH).join("packs")) && 30_000 < len {
            scene.vfs.remove(path).unwrap();
        }
    }
    // Another process has no pack open.
    let store = open(&scene.vfs, 20).unwrap();
    let overlay = Overlay::open(Path::new(PATH), &store).unwrap();
    let result = back_up(&scene, &overlay);
    assert!(matches!(result, Err(BackupError::Source(SourceError::Read { .. }))), "{result:?}");
}
