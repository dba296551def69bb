//! Ways in which a store could lose data or hide damage, one test for each: through the public API, on real files.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chunkstore::error::{Error, ObjectName};
use chunkstore::format::{CondemnedList, Trust};
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, BackupOptions, BackupStats, RestoreOptions, VerifyOptions, purge};
use chunkstore::progress::NoProgress;
use chunkstore::source::{FileSource, Source, SourceError};
use chunkstore::store::{Store, StoreOptions};
use chunkstore::target::{FileTarget, FileTargetOptions};
use chunkstore::time::Timestamp;

/// Purges without grace.
fn no_grace() -> purge::PurgeOptions {
    purge::PurgeOptions { grace: Duration::ZERO, ..purge::PurgeOptions::default() }
}

/// A store and images beside it.
struct Scene {
    directory: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        Store::create(&path, &StoreOptions::default()).unwrap();
        // As in another process.
        let store = Store::open(&path).unwrap();
        Self { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn backup(&self, source: &str, image: &[u8]) -> BackupStats {
        let path = self.path("image");
        fs::write(&path, image).unwrap();
        let options = BackupOptions::new(source.parse().unwrap());
        let source = FileSource::open(&path).unwrap();
        ops::backup(&self.store, &source, &options, &NoProgress).unwrap()
    }

    fn restore(&self, id: &RevisionId) -> Vec<u8> {
        let path = self.path("restored");
        let options = FileTargetOptions { overwrite: true, ..FileTargetOptions::default() };
        let target = FileTarget::open(&path, &options).unwrap();
        let options = RestoreOptions::default();
        ops::restore(&self.store, id, &target, &options, &NoProgress).unwrap();
        drop(target);
        fs::read(path).unwrap()
    }

    fn purge(&self) -> Result<purge::PurgeStats, Error> {
        purge::plan(&self.store, &no_grace(), &NoProgress)?.execute(&NoProgress)
    }

    fn packs(&self) -> Vec<PathBuf> {
        let levels = fs::read_dir(self.path("store/packs")).unwrap();
        levels.flat_map(|level| names_in(&level.unwrap().path())).collect()
    }

    /// Returns the pack that is longest: one with data.
    fn data_pack(&self) -> PathBuf {
        let len = |path: &PathBuf| fs::metadata(path).unwrap().len();
        self.packs().into_iter().max_by_key(len).unwrap()
    }
}

fn names_in(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Returns bytes that no other seed gives and that do not compress.
fn image(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn purge_keeps_what_came_while_another_process_rebuilt_the_index() {
    for seed in 0..8 {
        let scene = Scene::new();
        let kept = image(2 * seed, 300_000);
        let again = image(2 * seed + 1, 300_000);
        let first = scene.backup("first", &again);
        let other = scene.backup("other", &kept);
        ops::forget(&scene.store, &[first.id]).unwrap();
        let plan = purge::plan(&scene.store, &no_grace(), &NoProgress).unwrap();
        let late = scene.backup("late", &again);
        assert_eq!(late.statistics.new_chunks, 0);
        // Packs have other numbers in the new index.
        ops::rebuild_index(&scene.store, &NoProgress).unwrap();
        plan.execute(&NoProgress).unwrap();
        assert_eq!(scene.restore(&late.id), again);
        assert_eq!(scene.restore(&other.id), kept);
    }
}

#[test]
fn verify_names_what_a_truncated_pack_has_lost() {
    let scene = Scene::new();
    let id = scene.backup("disk", &image(1, 4 << 20)).id;
    let pack = fs::File::options().write(true).open(scene.data_pack()).unwrap();
    pack.set_len(pack.metadata().unwrap().len() / 2).unwrap();
    let stats = ops::verify(&scene.store, &[id], &VerifyOptions::default(), &NoProgress).unwrap();
    assert!(10 < stats.damaged.len(), "{:?}", stats.damaged);
    let lost: u64 =
        stats.damaged.iter().flat_map(|chunk| &chunk.revisions[0].ranges).map(|(_, len)| len).sum();
    assert!(1 << 20 < lost, "{lost}");
    assert!(stats.verified.is_empty());
    assert_eq!(scene.store.revision(&id).unwrap().state.trust, Trust::Damaged);
}

#[test]
fn second_copy_of_a_chunk_is_found_when_the_pack_of_the_first_is_lost() {
    let scene = Scene::new();
    let image = image(1, 1 << 20);
    let first = scene.backup("disk", &image).id;
    let old_packs = scene.packs();
    // A state that cannot be read is a doubt: everything is written again.
    fs::write(scene.path(&format!("store/revisions/disk/{first}.state")), "no state").unwrap();
    let second = scene.backup("disk", &image);
    assert_ne!(second.statistics.new_chunks, 0);
    let is_new = |pack: &PathBuf| !old_packs.contains(pack);
    scene.packs().into_iter().filter(is_new).for_each(|pack| fs::remove_file(pack).unwrap());
    ops::info(&scene.store).unwrap();
    assert_eq!(scene.restore(&second.id), image);
    let store = Store::open(scene.store.path()).unwrap();
    let options = VerifyOptions::default();
    let stats = ops::verify(&store, &[first, second.id], &options, &NoProgress).unwrap();
    assert!(stats.is_sound(), "{stats:?}");
    scene.purge().unwrap();
    assert_eq!(scene.restore(&first), image);
}

#[test]
fn verify_looks_for_a_second_copy_before_it_calls_a_chunk_missing() {
    let scene = Scene::new();
    let image = image(1, 1 << 20);
    let first = scene.backup("disk", &image).id;
    let old_packs = scene.packs();
    fs::write(scene.path(&format!("store/revisions/disk/{first}.state")), "no state").unwrap();
    scene.backup("disk", &image);
    let is_new = |pack: &PathBuf| !old_packs.contains(pack);
    scene.packs().into_iter().filter(is_new).for_each(|pack| fs::remove_file(pack).unwrap());
    let options = VerifyOptions::default();
    let stats = ops::verify(&scene.store, &[first], &options, &NoProgress).unwrap();
    assert!(stats.is_sound(), "{stats:?}");
}

#[test]
fn rewriting_backup_writes_equal_chunks_once() {
    let scene = Scene::new();
    // More than one pack of data, twice.
    let half = image(1, 70 << 20);
    let image = [&half[..], &vec![7; (58 << 20) + (64 << 20)], &half[..]].concat();
    let id = scene.backup("disk", &image).id;
    fs::write(scene.path(&format!("store/revisions/disk/{id}.state")), "no state").unwrap();
    let stats = scene.backup("disk", &image);
    assert_ne!(stats.statistics.new_bytes, 0);
    assert!(stats.statistics.new_bytes < 100 << 20, "{:?}", stats.statistics);
}

#[test]
fn backup_after_a_pack_and_the_index_were_lost_relies_on_nothing_that_is_gone() {
    let scene = Scene::new();
    let image = image(1, 1 << 20);
    let first = scene.backup("disk", &image);
    assert_eq!(scene.backup("disk", &image).statistics.new_chunks, 0);
    fs::remove_file(scene.data_pack()).unwrap();
    fs::remove_file(scene.path("store/index.redb")).unwrap();
    let third = scene.backup("disk", &image);
    assert_eq!(third.statistics.new_chunks, first.statistics.new_chunks);
    assert_eq!(scene.restore(&third.id), image);
}

#[test]
fn pack_that_goes_away_between_plan_and_execution_of_a_purge_stays_known_as_missing() {
    let scene = Scene::new();
    let image = image(1, 1 << 20);
    scene.backup("disk", &image);
    let plan = purge::plan(&scene.store, &no_grace(), &NoProgress).unwrap();
    fs::remove_file(scene.data_pack()).unwrap();
    // Another process compares the index with the directory.
    ops::info(&scene.store).unwrap();
    plan.execute(&NoProgress).unwrap();
    let second = scene.backup("disk", &image);
    assert_eq!(scene.restore(&second.id), image);
}

#[test]
fn purge_refuses_to_run_without_the_directory_of_revisions_or_of_sessions() {
    for name in ["revisions", "sessions", "condemned"] {
        let scene = Scene::new();
        scene.backup("disk", &image(1, 300_000));
        let count = scene.packs().len();
        fs::rename(scene.path("store").join(name), scene.path("aside")).unwrap();
        scene.purge().unwrap_err();
        assert_eq!(scene.packs().len(), count);
    }
}

#[test]
fn purge_refuses_to_run_if_a_source_is_a_symbolic_link() {
    let scene = Scene::new();
    let image = image(1, 300_000);
    let id = scene.backup("disk", &image).id;
    let directory = scene.path("store/revisions/disk");
    fs::rename(&directory, scene.path("aside")).unwrap();
    std::os::unix::fs::symlink(scene.path("aside"), &directory).unwrap();
    assert!(matches!(scene.purge(), Err(Error::Storage { path, .. }) if path == directory));
    fs::remove_file(&directory).unwrap();
    fs::rename(scene.path("aside"), &directory).unwrap();
    assert_eq!(scene.restore(&id), image);
}

#[test]
fn damaged_state_costs_neither_the_revision_nor_the_purge() {
    let scene = Scene::new();
    let image = image(1, 300_000);
    let id = scene.backup("disk", &image).id;
    fs::write(scene.path(&format!("store/revisions/disk/{id}.state")), "no state").unwrap();
    let history = scene.store.history(None).unwrap();
    assert!(matches!(
        history.damaged[..],
        [Error::Damaged { object: ObjectName::State { .. }, .. }]
    ));
    let state = &history.revisions[0].state;
    assert_eq!((state.trust, state.protected), (Trust::Distrusted, true));
    scene.purge().unwrap();
    assert_eq!(scene.restore(&id), image);
    // The doubt has its effect once.
    assert_ne!(scene.backup("disk", &image).statistics.new_chunks, 0);
    assert_eq!(scene.backup("disk", &image).statistics.new_chunks, 0);
}

#[test]
fn healed_chunk_stays_healed_when_the_index_is_rebuilt_and_is_written_once() {
    for seed in 0..6 {
        let scene = Scene::new();
        let image = image(seed, 300_000);
        let first = scene.backup("disk", &image).id;
        let pack = scene.data_pack();
        let mut bytes = fs::read(&pack).unwrap();
        bytes[80 + 56 + 1000] ^= 1;
        fs::write(&pack, bytes).unwrap();
        let options = VerifyOptions::default();
        let stats = ops::verify(&scene.store, &[first], &options, &NoProgress).unwrap();
        assert_eq!(stats.damaged.len(), 1);
        std::thread::sleep(Duration::from_millis(5));
        assert_ne!(scene.backup("disk", &image).statistics.new_chunks, 0);
        assert_eq!(scene.restore(&first), image);
        ops::rebuild_index(&scene.store, &NoProgress).unwrap();
        assert_eq!(scene.restore(&first), image);
        assert_eq!(scene.backup("disk", &image).statistics.new_chunks, 0);
    }
}

#[test]
fn purge_leaves_a_condemned_list_of_a_newer_program_alone() {
    let scene = Scene::new();
    let list = CondemnedList { generation: 7, condemned_at: Timestamp(0), packs: Vec::new() };
    let mut bytes = list.encode();
    bytes.truncate(bytes.len() - 32);
    bytes[8] = 2;
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    let path = scene.path("store/condemned/00000000000000000007");
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(scene.purge(), Err(Error::UnsupportedFormat { found: 2, .. })));
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn generation_without_a_successor_is_damage_and_no_panic() {
    let scene = Scene::new();
    let name = format!("store/condemned/{:020}", u64::MAX);
    fs::write(scene.path(&name), "no list").unwrap();
    assert!(matches!(
        scene.purge(),
        Err(Error::Damaged { object: ObjectName::Condemned { generation: u64::MAX }, .. })
    ));
}

/// Says that there is data in front of where it was asked.
struct Confused;

impl Source for Confused {
    fn name(&self) -> &str {
        "confused"
    }

    fn len(&self) -> u64 {
        10
    }

    fn next_data(&self, _offset: u64) -> Result<Option<Range<u64>>, SourceError> {
        Ok(Some(0..0))
    }

    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<(), SourceError> {
        Ok(())
    }
}

#[test]
fn source_that_contradicts_itself_ends_the_backup() {
    let scene = Scene::new();
    let options = BackupOptions::new("disk".parse().unwrap());
    ops::backup(&scene.store, &Confused, &options, &NoProgress).unwrap_err();
}

#[test]
fn tags_that_no_record_can_hold_are_refused_before_anything_is_read() {
    let scene = Scene::new();
    let mut options = BackupOptions::new("disk".parse().unwrap());
    options.tags = (0..300_000).map(|number| format!("tag{number}")).collect();
    fs::write(scene.path("image"), "bytes").unwrap();
    let source = FileSource::open(&scene.path("image")).unwrap();
    ops::backup(&scene.store, &source, &options, &NoProgress).unwrap_err();
}
