//! Repair: what can be made anew is made anew, what nobody can read is moved aside, purges go on, and nothing is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chunkstore::error::Error;
use chunkstore::format::{ObjectKind, RecordHeader, Trust, decode_document, encode_document};
use chunkstore::id::{ChunkId, RevisionId};
use chunkstore::ops::repair::{self, RepairStats};
use chunkstore::ops::{self, RestoreOptions, RestoreStats};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{Counter, CrashMode, Effect, FaultKind, FaultPlan, SimulatedVfs};
use support::attempt::Attempts;
use support::images;
use support::long_tests::choose;
use support::memory::MemoryTarget;
use support::simulated_store::{
    backup, create, describe, files_below, open, purge_now, restore, verify_all,
};

use crate::quarantine::{find_records, list_chunks, trusts};

const INDEX: &str = "/store/index.redb";

/// Two sources that share nothing; the second has two revisions.
struct Scene {
    vfs: SimulatedVfs,
    images: [Vec<u8>; 3],
    ids: [RevisionId; 3],
}

impl Scene {
    fn new() -> Self {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).unwrap();
        let first = images::image(3, 6000);
        let second = images::image(11, 5000);
        let third = images::changed(&second, 5);
        let images = [first, second, third];
        let ids = [("a", 0), ("b", 1), ("b", 2)].map(|(source, image): (&str, usize)| {
            backup(&store, source, &images[image]).unwrap().id
        });
        Self { vfs, images, ids }
    }

    fn open(&self, seed: u64) -> Store {
        open(&self.vfs, seed).unwrap()
    }

    /// Flips a bit in the only record of a chunk.
    fn flip(&self, chunk: &ChunkId) {
        let [(path, _, record)] = &find_records(&self.vfs, chunk)[..] else { panic!("one copy") };
        let payload = u64::from(record.offset.0) + RecordHeader::LEN as u64;
        self.vfs.flip(path, payload + 5, 0x10).unwrap();
    }

    /// Returns the page of the first revision.
    fn page(&self) -> ChunkId {
        list_chunks(&self.vfs, ObjectKind::Page)[0]
    }

    fn file(&self, revision: usize, end: &str) -> PathBuf {
        let id = self.ids[revision].to_string();
        let files = files_below(&self.vfs, "revisions").into_iter();
        let mut files = files.filter(|path| path.to_str().unwrap().contains(&id));
        files.find(|path| path.extension().unwrap() == end).unwrap()
    }

    /// Damages a page, a record and a state, each of another revision.
    fn damage_all(&self) {
        let store = self.open(50);
        ops::protect(&store, &[self.ids[1], self.ids[2]], true).unwrap();
        self.flip(&self.page());
        self.vfs.flip(self.file(1, "rev"), 200, 1).unwrap();
        self.vfs.flip(self.file(2, "state"), 200, 1).unwrap();
    }

    /// Returns all files but the index, the ledger of locks and sessions.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files_of(&self.vfs)
    }
}

fn files_of(vfs: &SimulatedVfs) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = vfs.all_files().into_iter().map(|(path, _)| path);
    let is_fixed =
        |path: &PathBuf| !path.ends_with("index.redb") && !path.starts_with("/store/locks");
    files.filter(is_fixed).map(|path| (path.clone(), vfs.read_all(&path).unwrap())).collect()
}

fn run(store: &Store) -> Result<RepairStats, Error> {
    repair::plan(store, &NoProgress)?.execute(&NoProgress)
}

fn keep_going(store: &Store, id: &RevisionId) -> (RestoreStats, Vec<u8>) {
    let target = MemoryTarget::default();
    let options = RestoreOptions { keep_going: true, ..RestoreOptions::default() };
    let stats = ops::restore(store, id, &target, &options, &NoProgress).unwrap();
    (stats, target.into_bytes())
}

/// Lets no call write.
fn read_only() -> FaultPlan {
    (0..5000).fold(FaultPlan::none(), |plan, call| {
        plan.and(Counter::Mutations, call, Effect::Fail(FaultKind::ReadOnly))
    })
}

/// Says which ranges of which revisions are lost.
fn lost(stats: &RepairStats) -> BTreeMap<RevisionId, Vec<(u64, u64)>> {
    let hits = stats.damaged.iter().flat_map(|damage| &damage.revisions);
    hits.map(|hit| (hit.id, hit.ranges.clone())).collect()
}

#[test]
fn sound_store_is_left_as_it_is() {
    let scene = Scene::new();
    let before = scene.files();
    for _ in 0..2 {
        let stats = run(&scene.open(2)).unwrap();
        assert!(stats.is_sound() && stats.given_up.is_empty() && stats.marked.is_empty());
        assert_ne!(stats.packs, 0);
        assert_eq!(scene.files(), before);
    }
}

#[test]
fn unreadable_page_stops_a_purge_until_repair_gives_it_up_and_a_backup_heals_it() {
    for kind in [ObjectKind::Page, ObjectKind::Root] {
        for is_gone in [false, true] {
            let scene = Scene::new();
            let store = scene.open(2);
            let list = match kind {
                ObjectKind::Page => scene.page(),
                _ => store.revision(&scene.ids[0]).unwrap().record.root,
            };
            if is_gone {
                scene.vfs.remove(&find_records(&scene.vfs, &list)[0].0).unwrap();
            } else {
                scene.flip(&list);
            }
            let store = scene.open(3);
            for _ in 0..2 {
                assert!(purge_now(&store).unwrap_err().is_damage(), "{kind:?}");
            }
            let stats = run(&store).unwrap();
            let size = scene.images[0].len() as u64;
            assert_eq!(lost(&stats), BTreeMap::from([(scene.ids[0], vec![(0, size)])]));
            // The root lies in the same pack as the page.
            assert!(is_gone || stats.given_up == [list], "{stats:?}");
            assert_eq!(stats.given_up.len(), 1);
            assert!(!stats.is_sound());
            assert_eq!(trusts(&store, &scene.ids[..1]), [Trust::Damaged]);

            let before = scene.files();
            let again = run(&store).unwrap();
            assert_eq!(lost(&again), lost(&stats), "what is lost is told as long as it is");
            assert!(again.given_up.is_empty() && again.marked.is_empty());
            assert_eq!(scene.files(), before, "a second repair does nothing");

            // Its chunks go, the others do not.
            for _ in 0..3 {
                purge_now(&store).unwrap();
            }
            assert_eq!(restore(&store, &scene.ids[1]).unwrap(), scene.images[1]);
            assert_eq!(restore(&store, &scene.ids[2]).unwrap(), scene.images[2]);
            assert!(restore(&store, &scene.ids[0]).unwrap_err().is_damage());

            let healing = backup(&store, "a", &scene.images[0]).unwrap();
            assert!(healing.statistics.new_chunks > 0, "the purge has taken them");
            assert_eq!(healing.healed, [scene.ids[0]], "{kind:?}, {is_gone}");
            for _ in 0..3 {
                purge_now(&store).unwrap();
                assert_eq!(restore(&store, &scene.ids[0]).unwrap(), scene.images[0]);
                assert_eq!(restore(&store, &healing.id).unwrap(), scene.images[0]);
            }
            assert!(verify_all(&store).unwrap().is_sound());
            assert!(run(&store).unwrap().is_sound(), "what can be read again is not lost");
        }
    }
}

#[test]
fn backup_takes_nothing_over_from_a_page_that_was_given_up_and_came_back() {
    let scene = Scene::new();
    let path = find_records(&scene.vfs, &scene.page()).remove(0).0;
    let bytes = scene.vfs.read_all(&path).unwrap();
    scene.vfs.remove(&path).unwrap();
    let store = scene.open(2);
    assert!(!run(&store).unwrap().given_up.is_empty());
    for _ in 0..3 {
        purge_now(&store).unwrap();
    }
    let file = chunkstore::vfs::Vfs::create_new(&scene.vfs, &path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let store = scene.open(3);
    // Twice: the second one is made with an index that knows all packs since the first.
    for _ in 0..2 {
        let made = backup(&store, "a", &scene.images[0]).unwrap();
        assert_eq!(restore(&store, &made.id).unwrap(), scene.images[0]);
        assert_eq!(restore(&store, &scene.ids[0]).unwrap(), scene.images[0]);
        purge_now(&store).unwrap();
    }
    assert!(verify_all(&store).unwrap().is_sound());
}

#[test]
fn given_up_list_that_is_damaged_anew_stops_a_purge_until_it_is_confirmed() {
    let scene = Scene::new();
    let page = scene.page();
    scene.flip(&page);
    run(&scene.open(2)).unwrap();
    backup(&scene.open(3), "a", &scene.images[0]).unwrap();
    let store = scene.open(4);
    let copies = find_records(&scene.vfs, &page);
    assert_eq!(copies.len(), 2);
    // A read that fails is no proof of loss.
    for (path, _, record) in &copies {
        let payload = u64::from(record.offset.0) + RecordHeader::LEN as u64;
        scene.vfs.flip(path, payload + 7, 0x10).unwrap();
    }
    assert!(purge_now(&store).unwrap_err().is_damage());
    assert_eq!(restore(&store, &scene.ids[2]).unwrap(), scene.images[2]);
}

#[test]
fn record_that_cannot_be_decoded_is_moved_with_its_state_and_can_be_put_back() {
    let scene = Scene::new();
    let store = scene.open(2);
    ops::protect(&store, &[scene.ids[1]], true).unwrap();
    let (record, state) = (scene.file(1, "rev"), scene.file(1, "state"));
    let states = scene.vfs.read_all(&state).unwrap();
    scene.vfs.flip(&record, 200, 1).unwrap();
    let damaged = scene.vfs.read_all(&record).unwrap();
    assert!(purge_now(&store).unwrap_err().is_damage());

    let stats = run(&store).unwrap();
    let [moved] = &stats.moved_records[..] else { panic!("{stats:?}") };
    assert_eq!(moved.id, scene.ids[1]);
    assert_eq!(scene.vfs.read_all(&moved.path).unwrap(), damaged);
    assert_eq!(scene.vfs.read_all(moved.path.with_extension("state")).unwrap(), states);
    assert!(moved.path.starts_with("/store/quarantine/revisions/b"));
    assert!(!stats.is_sound() && run(&store).unwrap().is_sound());
    purge_now(&store).unwrap();
    assert_eq!(restore(&store, &scene.ids[0]).unwrap(), scene.images[0]);
    assert_eq!(restore(&store, &scene.ids[2]).unwrap(), scene.images[2]);

    // The same file damaged a second time gets a name of its own.
    let file = chunkstore::vfs::Vfs::create_new(&scene.vfs, &record).unwrap();
    file.write_all_at(&damaged, 0).unwrap();
    let again = run(&store).unwrap();
    assert_eq!(again.moved_records[0].path.extension().unwrap(), "1");
    assert_eq!(scene.vfs.read_all(&moved.path).unwrap(), damaged);

    scene.vfs.remove(&moved.path).unwrap();
    let file = chunkstore::vfs::Vfs::create_new(&scene.vfs, &record).unwrap();
    let mut sound = damaged;
    sound[200] ^= 1;
    file.write_all_at(&sound, 0).unwrap();
    assert_eq!(store.revision(&scene.ids[1]).unwrap().record.id, scene.ids[1]);
}

#[test]
fn damaged_state_is_kept_and_replaced_by_a_cautious_one() {
    let scene = Scene::new();
    let store = scene.open(2);
    ops::protect(&store, &[scene.ids[2]], true).unwrap();
    let path = scene.file(2, "state");
    scene.vfs.flip(&path, 200, 1).unwrap();
    let damaged = scene.vfs.read_all(&path).unwrap();
    let stats = run(&store).unwrap();
    assert!(stats.is_sound(), "its data can be read");
    let [kept] = &stats.replaced_states[..] else { panic!("{stats:?}") };
    assert_eq!(scene.vfs.read_all(&kept.path).unwrap(), damaged);
    assert!(store.history(None).unwrap().damaged.is_empty());
    let state = store.revision(&scene.ids[2]).unwrap().state;
    assert!(state.protected && state.trust == Trust::Distrusted, "{state:?}");
    assert!(run(&store).unwrap().replaced_states.is_empty());
}

#[test]
fn plan_says_the_same_and_changes_nothing_also_where_nothing_can_be_written() {
    let scene = Scene::new();
    scene.damage_all();
    let before = scene.files();
    let plans = [false, true].map(|is_read_only| {
        if is_read_only {
            scene.vfs.set_faults(read_only());
        }
        let store = scene.open(7 + u64::from(is_read_only));
        let plan = repair::plan(&store, &NoProgress).unwrap();
        let expected = plan.expected();
        assert_eq!(expected.moved_records.len(), 1);
        assert_eq!(expected.replaced_states.len(), 1);
        assert_eq!(expected.given_up, [scene.page()]);
        assert_eq!(
            (&expected.set_aside[..], &expected.marked[..]),
            (&[scene.page()][..], &scene.ids[..1])
        );
        scene.vfs.set_faults(FaultPlan::none());
        assert_eq!(scene.files(), before, "read-only: {is_read_only}");
        (lost(expected), expected.given_up.clone(), expected.moved_records.clone())
    });
    assert_eq!(plans[0], plans[1]);
    let stats = run(&scene.open(9)).unwrap();
    assert_eq!(plans[0], (lost(&stats), stats.given_up, stats.moved_records));
}

#[test]
fn record_of_a_newer_format_is_left_alone() {
    let scene = Scene::new();
    scene.damage_all();
    let path = scene.file(0, "rev");
    let magic = "chunkstore revision";
    let record = scene.vfs.read_all(&path).unwrap();
    let body: serde_json::Value = decode_document(magic, 1, &record).unwrap();
    scene.vfs.write_raw(&path, encode_document(magic, 2, &body)).unwrap();
    let before = scene.files();
    let error = run(&scene.open(2)).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { .. }), "{}", describe(&error));
    assert_eq!(scene.files(), before);
}

/// The fuzzer of histories found this: a repair took the record for one of a newer program, and did nothing.
#[test]
fn record_with_a_flipped_version_is_damaged_and_moved_aside() {
    let scene = Scene::new();
    let path = scene.file(0, "rev");
    let mut bytes = scene.vfs.read_all(&path).unwrap();
    let version = bytes.windows(2).position(|it| it == b"1,").unwrap();
    bytes[version] ^= 4;
    scene.vfs.write_raw(&path, bytes).unwrap();
    let stats = run(&scene.open(2)).unwrap();
    assert_eq!(stats.moved_records.len(), 1);
}

#[test]
fn root_that_cannot_be_read_restores_as_zeros_with_its_whole_range() {
    let scene = Scene::new();
    let store = scene.open(2);
    let root = store.revision(&scene.ids[0]).unwrap().record.root;
    scene.flip(&root);
    let store = scene.open(3);
    let (stats, bytes) = keep_going(&store, &scene.ids[0]);
    let size = scene.images[0].len() as u64;
    assert_eq!(bytes, vec![0; scene.images[0].len()]);
    assert_eq!((stats.damaged[0].chunk, stats.damaged.len()), (root, 1));
    assert_eq!(stats.damaged[0].revisions[0].ranges, [(0, size)]);
    assert_eq!(trusts(&store, &scene.ids), [Trust::Damaged, Trust::Trusted, Trust::Trusted]);
}

/// What must be true after any stop: nothing is lost that could be read, no file is gone, nothing is trusted that was not.
fn check_after_stop(scene: &Scene, vfs: &SimulatedVfs, before: &BTreeSet<Vec<u8>>, seed: u64) {
    let store = open(vfs, seed).unwrap();
    assert_eq!(restore(&store, &scene.ids[2]).unwrap(), scene.images[2]);
    let state = store.revision(&scene.ids[2]).unwrap().state;
    assert!(state.protected && state.trust == Trust::Distrusted, "{state:?}");
    run(&store).unwrap();
    let after: BTreeSet<Vec<u8>> = files_of(vfs).into_values().collect();
    assert!(before.is_subset(&after), "the bytes of a file are gone");
    let last = run(&store).unwrap();
    assert!(last.given_up.is_empty() && last.moved_records.is_empty());
    assert!(last.replaced_states.is_empty() && last.marked.is_empty() && last.set_aside.is_empty());
    assert_eq!(lost(&last).into_keys().collect::<Vec<_>>(), scene.ids[..1]);
    purge_now(&store).unwrap();
    assert_eq!(restore(&store, &scene.ids[2]).unwrap(), scene.images[2]);
    backup(&store, "a", &scene.images[0]).unwrap();
    assert_eq!(restore(&store, &scene.ids[0]).unwrap(), scene.images[0]);
}

#[test]
fn repair_survives_a_stop_and_a_failure_at_any_call() {
    let scene = Scene::new();
    scene.damage_all();
    scene.vfs.remove(INDEX).unwrap();
    let before: BTreeSet<Vec<u8>> = {
        let whole = files_of(&scene.vfs.kill()).into_iter();
        // The state of a revision with a damaged page gets a mark.
        whole.map(|(_, bytes)| bytes).collect()
    };
    let whole = scene.vfs.kill();
    run(&open(&whole, 2).unwrap()).unwrap();
    let modes: Vec<CrashMode> = CrashMode::all().collect();
    let mut attempts = Attempts::default();
    for call in (0..whole.mutating_call_count() + 2).step_by(choose(4, 1)) {
        let vfs = scene.vfs.kill();
        let store = open(&vfs, 2).unwrap();
        vfs.set_faults(FaultPlan::stop_at_mutation(call));
        let _stopped = run(&store);
        let mode = modes[usize::try_from(call).unwrap() % modes.len()];
        for vfs in [vfs.crash(&mode, call), vfs.kill()] {
            attempts.attempt(
                || format!("stop {call}, mode {mode:?}"),
                || check_after_stop(&scene, &vfs, &before, 100 + call),
            );
        }
        for kind in [FaultKind::Device, FaultKind::NoSpace] {
            let vfs = scene.vfs.kill();
            let store = open(&vfs, 2).unwrap();
            vfs.set_faults(FaultPlan::fail_mutation(call, kind));
            let _failed = run(&store);
            vfs.set_faults(FaultPlan::none());
            drop(store);
            attempts.attempt(
                || format!("{kind:?} at {call}"),
                || check_after_stop(&scene, &vfs, &before, 100 + call),
            );
        }
    }
    attempts.finish("repair");
}
