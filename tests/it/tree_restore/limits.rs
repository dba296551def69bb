//! Memory, files that are too long for it, and the wish to stop.

use std::env;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};

use chunkstore::error::Error;
use chunkstore::ops::{MEMORY_DEFAULT, TreeProblemReason};
use chunkstore::progress::Progress;
use chunkstore::store::StoreOptions;

use super::*;
use crate::own_process::{CHILD_DIRECTORY, peak_memory, run_child};

const MIB: u64 = 1 << 20;

#[test]
fn long_file_stays_within_the_memory() {
    run_child("tree_restore::limits::long_file");
}

#[test]
#[ignore = "measures the memory of its process"]
fn long_file() {
    let directory = PathBuf::from(env::var_os(CHILD_DIRECTORY).unwrap());
    let (source, target) = (directory.join("source"), directory.join("target"));
    // 64 MB of slots, with points of half of a year.
    let slots = 64_000_000 / 12;
    let points: Vec<(u32, f64)> = (0..300_000).map(|age| (age, f64::from(age))).collect();
    let file = file_with(&[(1, slots)], &points);
    write(&source, "long.wsp", file.bytes());
    let gaps = file_with(&[(1, slots)], &points[..200_000]);
    drop((file, points));
    for number in 0..200 {
        write(&source, &format!("d/f{number}.wsp"), full_file(number, 20_000).bytes());
    }
    let store = Store::create(directory.join("store"), &StoreOptions::default()).unwrap();
    let tree = WhisperTree::open(&source).unwrap();
    let backup = TreeBackupOptions::new(BackupOptions::new("graphite".parse().unwrap()));
    let id = ops::backup_tree(&store, &tree, &backup, &NoProgress).unwrap().id;
    let restore = |target: &Path| {
        let reader = TreeReader::open(&store, &id).unwrap();
        let target = WhisperTarget::new(target);
        ops::restore_tree(&store, &mut reader.entries(), &target, &options(), &NoProgress).unwrap()
    };
    write(&target, "long.wsp", gaps.bytes());
    drop(gaps);
    // What the test itself took is not the restore's.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let filled = restore(&target);
    assert_eq!((filled.written, filled.backfilled, filled.problem_count), (200, 1, 0));
    assert_eq!(filled.filled_points, 100_000);
    let written = restore(&directory.join("other"));
    assert_eq!((written.written, written.problem_count), (201, 0));
    let peak = peak_memory();
    assert!(peak < MEMORY_DEFAULT as u64 + 56 * MIB, "{} MiB", peak / MIB);
    assert_same_files(&source, &directory.join("other"));
}

#[test]
fn file_that_does_not_fit_is_a_problem_and_the_others_are_restored() {
    let scene = Scene::new();
    scene.add("a.wsp", &full_file(1, 50));
    scene.add("long.wsp", &file_with(&[(1, 20_000_000)], &[(5, 1.0)]));
    scene.add("z.wsp", &full_file(2, 50));
    let id = scene.back_up();
    let stats = scene.try_restore(&id, &options()).unwrap();
    assert_eq!((stats.files, stats.written, stats.problem_count), (3, 2, 1));
    let TreeProblemReason::TooLong { len } = stats.problems[0].reason else {
        panic!("{:?}", stats.problems);
    };
    assert_eq!(len, 16 + 12 + 240_000_000);
    assert_eq!(names_of(&scene.target()), ["a.wsp", "z.wsp"]);

    // As long as the one that exists is what does not fit.
    let stats = scene.try_restore(&id, &TreeRestoreOptions { memory: 400 << 20, ..options() });
    assert_eq!(stats.unwrap().written, 1);
}

#[test]
fn too_little_memory_is_refused() {
    let scene = Scene::new();
    scene.add("a.wsp", &full_file(1, 50));
    let id = scene.back_up();
    let with = |memory| TreeRestoreOptions { memory, ..options() };
    let error = scene.try_restore(&id, &with(8 << 20)).unwrap_err();
    assert!(matches!(error, RestoreError::Store(Error::InvalidOption { .. })), "{error:?}");
    assert_eq!(scene.restore(&id, &with(64 << 20)).written, 1);
}

#[test]
fn number_of_threads_does_not_change_the_result() {
    let scene = Scene::new();
    for number in 0..300 {
        let path = format!("d{}/e{}/f{number}.wsp", number % 7, number % 3);
        scene.add(&path, &full_file(number % 100, 60 * (number % 50 + 1)));
    }
    scene.add("long.wsp", &full_file(1000, 400_000));
    let id = scene.back_up();
    for threads in [1, 2, 5] {
        let target = scene.directory.path().join(format!("target{threads}"));
        let options = TreeRestoreOptions { threads: NonZero::new(threads), ..options() };
        let stats = scene.try_restore_to(&target, &id, &options).unwrap();
        assert_eq!((stats.files, stats.written), (301, 301));
        assert_same_files(&scene.source(), &target);
    }
}

/// Asks to stop after so many bytes.
struct StopsAfter {
    bytes: AtomicU64,
    limit: u64,
}

impl Progress for StopsAfter {
    fn advance(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.limit <= self.bytes.load(Ordering::Relaxed)
    }
}

#[test]
fn cancelled_restore_leaves_whole_files() {
    let scene = Scene::new();
    for number in 0..50 {
        scene.add(&format!("f{number}.wsp"), &full_file(number, 1000));
    }
    let id = scene.back_up();
    let reader = TreeReader::open(&scene.store, &id).unwrap();
    let progress = StopsAfter { bytes: AtomicU64::new(0), limit: 5 * 12_000 };
    let target = WhisperTarget::new(&scene.target());
    let result =
        ops::restore_tree(&scene.store, &mut reader.entries(), &target, &options(), &progress);
    assert!(matches!(result, Err(RestoreError::Store(Error::Cancelled))), "{result:?}");
    let (found, expected) = (files_of(&scene.target()), files_of(&scene.source()));
    assert!((5..50).contains(&found.len()), "{}", found.len());
    assert!(found.iter().all(|(path, bytes)| expected[path] == *bytes));
}
