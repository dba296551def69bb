//! Nothing is removed because of revisions that somebody doubts, or on incomplete knowledge.

use std::path::PathBuf;
use std::time::Duration;

use chunkstore::error::{Error, ObjectName};
use chunkstore::format::ObjectKind;
use chunkstore::id::ChunkId;
use chunkstore::ops;
use chunkstore::ops::thin::{self, ThinError, ThinOptions};
use support::simulated_store::{files_below, verify_all};

use super::scene::{Scene, chosen, gone_after, keep, records};

/// Flips a bit in the first page of the packs that were not there before, and returns its id.
pub(super) fn damage_a_page(scene: &Scene, before: &[PathBuf]) -> ChunkId {
    for (path, records) in records(&scene.vfs).into_iter().filter(|it| !before.contains(&it.0)) {
        if let Some(page) = records.iter().find(|it| it.kind == ObjectKind::Page) {
            let end = page.offset.0 + page.len_in_pack();
            scene.vfs.flip(&path, u64::from(end - 5), 0x10).unwrap();
            return page.id;
        }
    }
    panic!("there is no new page");
}

#[test]
fn page_that_cannot_be_read_stops_thinning() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1), ("b", 1)]);
    let before = files_below(&scene.vfs, "packs");
    scene.day(&[("a", 2)]);
    scene.day(&[("a", 3)]);
    let page = damage_a_page(&scene, &before);
    let revisions = scene.revisions();
    let plan = thin::plan(&scene.store, &Scene::source(), &keep(1)).unwrap();
    assert!(
        matches!(plan.damaged(), [Error::Damaged { object: ObjectName::Chunk { id, .. }, .. }] if *id == page),
        "{:?}",
        plan.damaged()
    );
    drop(plan);
    let forced = ThinOptions { force: true, ..keep(1) };
    let result = scene.try_thin(&forced);
    assert!(matches!(result, Err(ThinError::Incomplete { .. })), "{result:?}");
    let ids = |revisions: Vec<chunkstore::Revision>| {
        revisions.into_iter().map(|it| it.record.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(scene.revisions()), ids(revisions));
}

#[test]
fn record_that_cannot_be_read_stops_thinning() {
    let mut scene = Scene::new();
    let first = scene.day(&[("a", 1)]);
    scene.day(&[("a", 2)]);
    scene.day(&[("a", 3)]);
    let record = &scene.revisions()[0].record;
    assert_eq!(record.id, first);
    scene.vfs.flip(scene.store.revision_path(record), 100, 1).unwrap();
    let result = scene.try_thin(&keep(1));
    let Err(ThinError::Incomplete { cause, .. }) = result else { panic!("{result:?}") };
    assert!(
        matches!(*cause, Error::Damaged { object: ObjectName::Revision { id, .. }, .. } if id == first)
    );
    // Once that is forgotten nothing is in the way.
    ops::forget(&scene.store, &[first]).unwrap();
    assert_eq!(scene.thin(&keep(1)).removed.len(), 1);
}

#[test]
fn place_in_a_distrusted_revision_keeps_no_version() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1)]);
    let second = scene.back_up();
    scene.day(&[("a", 2)]);
    ops::distrust(&scene.store, &[second]).unwrap();
    scene.thin(&keep(9));
    let seeds: Vec<u64> = scene.contents().iter().map(|files| files[0].1).collect();
    assert_eq!(seeds, [1, 1, 2]);
}

#[test]
fn content_of_a_distrusted_revision_counts_for_nothing() {
    let mut scene = Scene::new();
    let ids: Vec<_> = (1..5).map(|seed| scene.day(&[("a", seed)])).collect();
    ops::distrust(&scene.store, &ids[2..3]).unwrap();
    scene.thin(&ThinOptions { candidates: chosen(&ids), ..keep(2) });
    let seeds: Vec<u64> = scene.contents().iter().map(|files| files[0].1).collect();
    assert_eq!(seeds, [2, 3, 4]);
}

#[test]
fn file_is_not_gone_because_a_distrusted_revision_lacks_it() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1), ("b", 1)]);
    scene.day(&[("b", 2)]);
    scene.tree.remove("a");
    let newest = scene.back_up();
    ops::distrust(&scene.store, &[newest]).unwrap();
    let before = scene.revisions();
    let stats = scene.thin(&gone_after(Duration::ZERO));
    assert_eq!(stats.counts.gone_files, 0);
    // The place in the first revision goes, because the second has it too, and stays whole.
    assert_eq!(scene.seed_at("a", None), Some(1));
    assert_eq!(scene.revisions()[1..], before[1..]);
}

#[test]
fn verification_of_thinned_revisions_finds_everything() {
    let mut scene = Scene::new();
    for seed in 1..8 {
        scene.day(&[("a", seed), ("b", seed / 2), ("c", seed / 3)]);
    }
    scene.thin(&keep(2));
    assert!(scene.chunks_after_purge() > 0);
    let stats = verify_all(&scene.store).unwrap();
    assert!(stats.is_sound(), "{:?}", stats.damaged);
    assert_eq!(stats.verified.len(), scene.revisions().len());
}
