//! A damaged record is set aside with evidence, stays aside whatever becomes of the index, and is healed by the next backup of the
//! same bytes, for every revision that shares it.

use std::path::PathBuf;

use chunkstore::error::{Error, ObjectName};
use chunkstore::format::{
    FooterRecord, FormatError, ObjectKind, PackFooter, PackHeader, Quarantined, RecordHeader, Trust,
};
use chunkstore::id::{ChunkId, PackId, RevisionId};
use chunkstore::image_reader::{Extent, ImageReader};
use chunkstore::ops::{self, ScrubOptions, ScrubStats, VerifyOptions};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{Counter, CrashMode, Effect, FaultKind, FaultPlan, SimulatedVfs};
use support::attempt::Attempts;
use support::images;
use support::long_tests::choose;
use support::simulated_store::{
    backup, create, describe, files_below, open, purge_now, restore, verify_all,
};

const INDEX: &str = "/store/index.redb";

/// Records of a chunk: the file, its pack, and the place in it.
pub(crate) fn find_records(
    vfs: &SimulatedVfs,
    id: &ChunkId,
) -> Vec<(PathBuf, PackId, FooterRecord)> {
    let mut found = Vec::new();
    for path in files_below(vfs, "packs") {
        let bytes = vfs.read_all(&path).unwrap();
        let trailer = bytes.len() - PackFooter::TRAILER_LEN;
        let len = bytes.len() as u64;
        let table = PackFooter::table_range(&bytes[trailer..], len).unwrap();
        let footer = PackFooter::decode(&bytes[usize::try_from(table.start).unwrap()..], len);
        for record in footer.unwrap().records.into_iter().filter(|record| record.id == *id) {
            let pack = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            found.push((path.clone(), pack, record));
        }
    }
    found
}

pub(crate) fn trusts(store: &Store, ids: &[RevisionId]) -> Vec<Trust> {
    ids.iter().map(|id| store.revision(id).unwrap().state.trust).collect()
}

/// Returns the chunk with a byte of a revision, and its range.
fn chunk_at(store: &Store, id: &RevisionId, offset: u64) -> (ChunkId, u64, u64) {
    let reader = ImageReader::open(store, id).unwrap();
    for extent in reader.extents(0, reader.len()).unwrap() {
        match extent {
            Extent::Data { range, id } if range.contains(&offset) => {
                return (id, range.start, range.end - range.start);
            }
            Extent::Data { .. } | Extent::Zero { .. } => {}
        }
    }
    panic!("no data at byte {offset}");
}

/// Two sources with the same beginning and other ends, and a third one that has nothing to do with them.
struct Scene {
    vfs: SimulatedVfs,
    store: Store,
    images: [Vec<u8>; 3],
    /// `a`, `b`, and the third one.
    ids: [RevisionId; 3],
}

impl Scene {
    fn new() -> Self {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).unwrap();
        let first = images::image(3, 8000);
        let mut second = first.clone();
        second[7900..].fill(9);
        let images = [first, second, images::image(11, 5000)];
        let ids = [("a", 0), ("b", 1), ("c", 2)].map(|(source, image): (&str, usize)| {
            backup(&store, source, &images[image]).unwrap().id
        });
        Self { vfs, store, images, ids }
    }

    /// Flips a bit of a stored chunk, and returns where.
    fn flip(&self, chunk: &ChunkId) -> (PackId, FooterRecord, Vec<u8>) {
        let [(path, pack, record)] = &find_records(&self.vfs, chunk)[..] else {
            panic!("one copy")
        };
        let payload = u64::from(record.offset.0) + RecordHeader::LEN as u64;
        self.vfs.flip(path, payload + 5, 0x10).unwrap();
        let start = usize::try_from(record.offset.0).unwrap();
        let len = usize::try_from(record.len_in_pack()).unwrap();
        let stored = self.vfs.read_all(path).unwrap()[start..start + len].to_vec();
        (*pack, *record, stored)
    }

    fn quarantine(&self) -> Vec<Quarantined> {
        let files = files_below(&self.vfs, "quarantine").into_iter();
        files.map(|path| Quarantined::decode(&self.vfs.read_all(&path).unwrap()).unwrap()).collect()
    }

    fn scrub(&self) -> ScrubStats {
        ops::scrub(&self.store, &ScrubOptions::default(), &NoProgress).unwrap()
    }

    fn assert_restored(&self, when: &str) {
        for (id, image) in self.ids.iter().zip(&self.images) {
            let bytes = restore(&self.store, id);
            let bytes = bytes.unwrap_or_else(|error| panic!("{when}: {}", describe(&error)));
            assert!(bytes == *image, "{when}");
        }
    }

    /// Looks at what is left and returns how many chunks are lost: in quarantine and without another place.
    fn unhealed(&self) -> u64 {
        ops::info(&self.store).unwrap().unhealed_chunks
    }
}

fn assert_quarantined(error: &Error, chunk: ChunkId, in_pack: PackId) {
    let Error::Damaged { object: ObjectName::Chunk { id, pack }, source } = error else {
        panic!("{}", describe(error));
    };
    assert_eq!((*id, *pack), (chunk, Some(in_pack)));
    assert!(matches!(source, FormatError::Quarantined { .. }), "{}", describe(error));
}

#[test]
fn damaged_chunk_is_set_aside_and_healed_for_all_sources_by_a_backup_of_one() {
    let scene = Scene::new();
    let [a, b, c] = scene.ids;
    let (chunk, start, len) = chunk_at(&scene.store, &a, 700);
    assert_eq!(chunk_at(&scene.store, &b, 700).0, chunk);
    let (pack, record, stored) = scene.flip(&chunk);

    let stats = ops::verify(&scene.store, &[a], &VerifyOptions::default(), &NoProgress).unwrap();
    let [damaged] = &stats.damaged[..] else { panic!("{:?}", stats.damaged) };
    assert_eq!((damaged.chunk, damaged.pack), (chunk, Some(pack)));
    let mut hit: Vec<_> =
        damaged.revisions.iter().map(|hit| (hit.id, hit.ranges.clone())).collect();
    hit.sort();
    let mut expected = vec![(a, vec![(start, len)]), (b, vec![(start, len)])];
    expected.sort();
    assert_eq!(hit, expected, "also of the source that was not named");
    assert_eq!(trusts(&scene.store, &[a, b, c]), [Trust::Damaged, Trust::Damaged, Trust::Trusted]);

    let [file] = &scene.quarantine()[..] else { panic!("one finding") };
    assert_eq!((file.pack, &file.evidence), (pack, &stored));
    let [found] = &file.records[..] else { panic!("one record") };
    assert_eq!((found.id, found.offset), (chunk, record.offset.0));
    assert!(!file.reason.is_empty());

    // It is known now, also to an index that is made from the packs.
    scene.vfs.remove(INDEX).unwrap();
    let error = restore(&scene.store, &a).unwrap_err();
    assert_quarantined(&error, chunk, pack);
    ops::rebuild_index(&scene.store, &NoProgress).unwrap();
    assert_quarantined(&restore(&scene.store, &b).unwrap_err(), chunk, pack);
    assert!(!verify_all(&scene.store).unwrap().is_sound());
    let scrubbed = scene.scrub();
    assert_eq!(scrubbed.damaged.len(), 1, "{:?}", scrubbed.damaged);
    assert_eq!(scrubbed.damaged[0].revisions.len(), 2);
    assert_eq!(scene.quarantine().len(), 1, "nothing is said twice");
    assert_eq!(scene.unhealed(), 1);

    // A third source changes nothing.
    assert_eq!(backup(&scene.store, "c", &scene.images[2]).unwrap().healed, []);
    let stats = backup(&scene.store, "b", &scene.images[1]).unwrap();
    assert_eq!((stats.parent, stats.statistics.new_chunks), (Some(b), 1), "the damaged one only");
    let mut healed = stats.healed;
    healed.sort();
    let mut expected = vec![a, b];
    expected.sort();
    assert_eq!(healed, expected);
    assert_eq!(trusts(&scene.store, &[a, b, c]), [Trust::Trusted, Trust::Trusted, Trust::Verified]);
    scene.assert_restored("after the backup");
    assert_eq!((scene.unhealed(), scene.quarantine().len()), (0, 1), "the evidence stays");

    // The damaged record is still in its pack, and nothing leads there again.
    assert!(verify_all(&scene.store).unwrap().is_sound());
    assert!(scene.scrub().is_sound());
    for _ in 0..2 {
        ops::rebuild_index(&scene.store, &NoProgress).unwrap();
        scene.assert_restored("with a new index");
        purge_now(&scene.store).unwrap();
        scene.assert_restored("after a purge");
    }
    assert_eq!(backup(&scene.store, "a", &scene.images[0]).unwrap().statistics.new_chunks, 0);
    assert!(verify_all(&scene.store).unwrap().is_sound());
}

#[test]
fn damaged_page_and_damaged_root_are_set_aside_and_healed() {
    for kind in [ObjectKind::Page, ObjectKind::Root] {
        for finder in ["verify", "scrub", "restore", "read", "diff"] {
            let mut scene = Scene::new();
            // The same image once more: it shares page and root.
            let twin = backup(&scene.store, "d", &scene.images[0]).unwrap().id;
            let [a, b, c] = scene.ids;
            let root = scene.store.revision(&a).unwrap().record.root;
            let lists: Vec<ChunkId> = list_chunks(&scene.vfs, kind);
            let chunk = match kind {
                ObjectKind::Root => root,
                _ => lists[0],
            };
            scene.flip(&chunk);
            scene.store = open(&scene.vfs, 7).unwrap();
            match finder {
                "verify" => assert!(!verify_all(&scene.store).unwrap().is_sound()),
                "scrub" => assert!(!scene.scrub().is_sound()),
                "restore" => assert!(restore(&scene.store, &a).unwrap_err().is_damage()),
                "read" => {
                    let reader = ImageReader::open(&scene.store, &a);
                    let read = reader.and_then(|reader| reader.read_exact_at(&mut [0; 10], 0));
                    assert!(read.unwrap_err().is_damage());
                }
                _ => {
                    let diff = ops::diff(&scene.store, &a, &b, &NoProgress);
                    let found = diff.and_then(|diff| diff.collect::<Result<Vec<_>, _>>());
                    assert!(found.unwrap_err().is_damage());
                }
            }
            let ids = [a, twin, b, c];
            let (damaged, free) = ids.split_at(2);
            assert_eq!(trusts(&scene.store, damaged), [Trust::Damaged; 2], "{kind:?}, {finder}");
            assert!(!trusts(&scene.store, free).contains(&Trust::Damaged), "{kind:?}, {finder}");
            assert_eq!(scene.quarantine().len(), 1, "{kind:?}, {finder}");
            assert_eq!(scene.unhealed(), 1);

            let stats = backup(&scene.store, "d", &scene.images[0]).unwrap();
            assert_eq!(stats.statistics.new_chunks, 0, "no data is written");
            assert_eq!(stats.healed.len(), 2, "{kind:?}, {finder}: {:?}", stats.warnings);
            assert_eq!(trusts(&scene.store, damaged), [Trust::Trusted; 2]);
            scene.assert_restored(finder);
            assert!(verify_all(&scene.store).unwrap().is_sound());
        }
    }
}

/// Returns the chunks of a kind, in the order of the packs that were written first.
pub(crate) fn list_chunks(vfs: &SimulatedVfs, kind: ObjectKind) -> Vec<ChunkId> {
    let mut found = Vec::new();
    for path in files_below(vfs, "packs") {
        let bytes = vfs.read_all(&path).unwrap();
        let created = PackHeader::decode(&bytes[..PackHeader::LEN]).unwrap().created;
        let len = bytes.len() as u64;
        let table = PackFooter::table_range(&bytes[bytes.len() - PackFooter::TRAILER_LEN..], len);
        let start = usize::try_from(table.unwrap().start).unwrap();
        let footer = PackFooter::decode(&bytes[start..], len).unwrap();
        let records = footer.records.into_iter().filter(|record| record.kind == kind);
        found.extend(records.map(|record| (created, record.id)));
    }
    found.sort();
    found.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn second_sound_copy_serves_at_once() {
    for finder in ["verify", "scrub", "restore"] {
        let scene = Scene::new();
        let [a, b, _] = scene.ids;
        let (chunk, ..) = chunk_at(&scene.store, &a, 700);
        ops::distrust(&scene.store, &[b]).unwrap();
        backup(&scene.store, "b", &scene.images[1]).unwrap();
        let copies = find_records(&scene.vfs, &chunk);
        assert_eq!(copies.len(), 2);
        // The index leads to the younger copy: flip bits until a restore could not but set one aside.
        let created = |path: &PathBuf| {
            let bytes = scene.vfs.read_all(path).unwrap();
            PackHeader::decode(&bytes[..PackHeader::LEN]).unwrap().created
        };
        let (path, pack, record) = copies.iter().max_by_key(|(path, ..)| created(path)).unwrap();
        let payload = u64::from(record.offset.0) + RecordHeader::LEN as u64;
        scene.vfs.flip(path, payload + 5, 0x10).unwrap();
        match finder {
            "verify" => {
                let stats = verify_all(&scene.store).unwrap();
                assert_eq!((stats.damaged[0].chunk, stats.damaged[0].pack), (chunk, Some(*pack)));
                assert!(stats.damaged[0].revisions.is_empty(), "it costs nothing");
            }
            "scrub" => assert!(scene.scrub().damaged_revisions.is_empty()),
            _ => scene.assert_restored("a copy is left"),
        }
        assert_eq!(scene.quarantine().len(), 1, "{finder}");
        assert_eq!(scene.unhealed(), 0);
        assert!(!trusts(&scene.store, &scene.ids).contains(&Trust::Damaged));
        scene.assert_restored(finder);
        scene.vfs.remove(INDEX).unwrap();
        scene.assert_restored("with a new index");
        assert!(verify_all(&scene.store).unwrap().is_sound());
    }
}

#[test]
fn flaky_read_condemns_nothing() {
    let scene = Scene::new();
    let (a, mut seen) = (scene.ids[0], 0);
    let count = {
        scene.vfs.set_faults(FaultPlan::none());
        restore(&scene.store, &a).unwrap();
        scene.vfs.calls().len() as u64
    };
    for call in 0..count {
        let plan = FaultPlan::none().and(Counter::Calls, call, Effect::Fail(FaultKind::Device));
        scene.vfs.set_faults(plan);
        seen += u64::from(restore(&scene.store, &a).is_err());
        scene.vfs.set_faults(FaultPlan::none());
        assert!(files_below(&scene.vfs, "quarantine").is_empty(), "call {call}");
        assert_eq!(trusts(&scene.store, &[a]), [Trust::Trusted], "call {call}");
    }
    assert_ne!(seen, 0);
    scene.assert_restored("nothing was wrong");
}

#[test]
fn bad_sector_is_set_aside_and_a_dead_medium_condemns_nothing() {
    let scene = Scene::new();
    let (chunk, ..) = chunk_at(&scene.store, &scene.ids[0], 700);
    let (path, pack, record) = find_records(&scene.vfs, &chunk).remove(0);
    let payload = u64::from(record.offset.0) + RecordHeader::LEN as u64;
    for (bad, is_aside) in [(0..u64::MAX, false), (payload + 1..payload + 2, true)] {
        scene.vfs.set_faults(FaultPlan::fail_reads(&path, bad.clone(), FaultKind::Device));
        let store = open(&scene.vfs, 20).unwrap();
        assert!(!verify_all(&store).unwrap().is_sound());
        let files = scene.quarantine();
        assert_eq!(files.len(), usize::from(is_aside), "{bad:?}");
        assert_eq!(trusts(&store, &scene.ids[..2]), [Trust::Damaged; 2]);
        if let [file] = &files[..] {
            assert_eq!((file.pack, file.records[0].id), (pack, chunk));
            assert!(file.evidence.is_empty() && file.reason.contains("cannot be read"));
            // The doubt of the dead medium was not set aside: this one is full, and the index leads to what it writes.
            backup(&store, "a", &scene.images[0]).unwrap();
            assert!(verify_all(&store).unwrap().is_sound());
            assert_eq!(restore(&store, &scene.ids[1]).unwrap(), scene.images[1]);
        }
    }
}

#[test]
fn damaged_quarantine_file_is_named_and_harmless() {
    let mut scene = Scene::new();
    let (chunk, ..) = chunk_at(&scene.store, &scene.ids[0], 700);
    scene.flip(&chunk);
    assert!(!verify_all(&scene.store).unwrap().is_sound());
    let file = files_below(&scene.vfs, "quarantine").remove(0);
    scene.vfs.flip(&file, 70, 1).unwrap();
    scene.vfs.remove(INDEX).unwrap();
    scene.store = open(&scene.vfs, 8).unwrap();
    // The record comes back with the new index, and is found damaged once more.
    let error = restore(&scene.store, &scene.ids[0]).unwrap_err();
    assert!(error.is_damage(), "{}", describe(&error));
    assert_eq!(files_below(&scene.vfs, "quarantine").len(), 2);
    let stats = backup(&scene.store, "b", &scene.images[1]).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(stats.warnings.iter().any(|warning| warning.contains(name)), "{:?}", stats.warnings);
    assert_eq!(stats.statistics.new_chunks, 1);
    scene.assert_restored("healed all the same");
    purge_now(&scene.store).unwrap();
    assert!(verify_all(&scene.store).unwrap().is_sound());
    scene.assert_restored("after a purge");
}

#[test]
fn purge_removes_nothing_because_a_chunk_is_in_quarantine() {
    let scene = Scene::new();
    let (chunk, ..) = chunk_at(&scene.store, &scene.ids[0], 700);
    scene.flip(&chunk);
    assert!(!verify_all(&scene.store).unwrap().is_sound());
    let before = files_below(&scene.vfs, "packs");
    for _ in 0..2 {
        let stats = purge_now(&scene.store).unwrap();
        assert_eq!((stats.removed_packs, stats.condemned_packs), (0, 0));
    }
    assert_eq!(files_below(&scene.vfs, "packs"), before);
    backup(&scene.store, "a", &scene.images[0]).unwrap();
    scene.assert_restored("after a purge of a store with a lost chunk");

    // The damaged pack goes when nothing needs it; the evidence does not.
    let a: Vec<RevisionId> = scene
        .store
        .history(None)
        .unwrap()
        .revisions
        .iter()
        .map(|revision| revision.record.id)
        .filter(|id| *id != scene.ids[2])
        .collect();
    ops::forget(&scene.store, &a).unwrap();
    assert_ne!(purge_now(&scene.store).unwrap().removed_packs, 0);
    assert!(find_records(&scene.vfs, &chunk).is_empty());
    assert_eq!(scene.quarantine().len(), 1);
    assert_eq!(restore(&scene.store, &scene.ids[2]).unwrap(), scene.images[2]);
}

#[test]
fn doubt_outlives_damage() {
    let scene = Scene::new();
    let [a, b, _] = scene.ids;
    let (chunk, ..) = chunk_at(&scene.store, &a, 700);
    ops::distrust(&scene.store, &[a]).unwrap();
    scene.flip(&chunk);
    let stats = ops::verify(&scene.store, &[b], &VerifyOptions::default(), &NoProgress).unwrap();
    assert!(!stats.is_sound());
    assert_eq!(trusts(&scene.store, &[a, b]), [Trust::Damaged; 2]);
    let stats = backup(&scene.store, "b", &scene.images[1]).unwrap();
    assert_eq!(stats.healed.len(), 2);
    assert_eq!(trusts(&scene.store, &[a, b]), [Trust::Distrusted, Trust::Trusted]);
    let stats = backup(&scene.store, "a", &scene.images[0]).unwrap();
    assert_eq!((stats.parent, stats.statistics.reused_chunks), (None, 0), "it is full");
}

#[test]
fn revision_made_while_a_chunk_is_set_aside_is_marked_too() {
    use support::model_store::{ImageSource, SparseImage};
    let scene = Scene::new();
    let (chunk, ..) = chunk_at(&scene.store, &scene.ids[0], 700);
    scene.flip(&chunk);
    let image = SparseImage::of(&scene.images[0]);
    let other = open(&scene.vfs, 9).unwrap();
    let source = ImageSource::new(&image).with_hook(|_| {
        assert!(restore(&other, &scene.ids[1]).is_err());
    });
    // The parent is not marked when the backup begins, so its chunks are taken over.
    // A sample would meet the damage.
    let sample = ops::SampleSize::Percent(0);
    let options = ops::BackupOptions { sample, ..ops::BackupOptions::new("a".parse().unwrap()) };
    let id = ops::backup(&scene.store, &source, &options, &NoProgress).unwrap().id;
    assert_eq!(trusts(&scene.store, &[id]), [Trust::Damaged]);
    let stats = backup(&scene.store, "a", &scene.images[0]).unwrap();
    assert!(stats.healed.contains(&id), "{stats:?}");
    scene.assert_restored("healed");
}

/// Damage, then what a user does about it. What was acknowledged before is never lost, wherever it stops.
fn find_and_heal(scene: &Scene, store: &Store) -> Result<(), Error> {
    verify_all(store)?;
    backup(store, "b", &scene.images[1])?;
    verify_all(store)?;
    purge_now(store).map(drop)
}

#[test]
fn finding_and_healing_survive_a_stop_at_any_call() {
    let scene = Scene::new();
    let (chunk, ..) = chunk_at(&scene.store, &scene.ids[0], 700);
    scene.flip(&chunk);
    let whole = scene.vfs.kill();
    find_and_heal(&scene, &open(&whole, 2).unwrap()).unwrap();
    let modes: Vec<CrashMode> = CrashMode::all().collect();
    let mut attempts = Attempts::default();
    for stop in (0..whole.mutating_call_count() + 4).step_by(choose(2, 1)) {
        let vfs = scene.vfs.kill();
        let store = open(&vfs, 2).unwrap();
        vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let _stopped = find_and_heal(&scene, &store);
        let mode = modes[usize::try_from(stop).unwrap() % modes.len()];
        for vfs in [vfs.crash(&mode, stop), vfs.kill()] {
            attempts.attempt(
                || format!("stop {stop}, mode {mode:?}"),
                || {
                    let store = open(&vfs, 100 + stop).unwrap();
                    // What the damage does not hit can be read at once.
                    assert_eq!(restore(&store, &scene.ids[2]).unwrap(), scene.images[2]);
                    find_and_heal(&scene, &store).unwrap();
                    assert!(verify_all(&store).unwrap().is_sound());
                    for (id, image) in scene.ids.iter().zip(&scene.images) {
                        assert!(restore(&store, id).unwrap() == *image);
                        assert_eq!(store.revision(id).unwrap().state.trust, Trust::Verified);
                    }
                },
            );
        }
    }
    attempts.finish("quarantine");
}
