//! Restore of trees: what becomes of files that are absent, that exist, that others write to, and that cannot be had.

mod backfill;
mod existing;
mod faults;
mod limits;
mod races;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chunkstore::id::RevisionId;
use chunkstore::ops::{
    self, BackupOptions, RestoreError, TreeBackupOptions, TreeRestoreOptions, TreeRestoreStats,
};
use chunkstore::progress::NoProgress;
use chunkstore::source::WhisperTree;
use chunkstore::store::Store;
use chunkstore::target::{Existing, WhisperTarget};
use chunkstore::time::Timestamp;
use chunkstore::tree_reader::TreeReader;
use chunkstore::vfs::simulated::{SimulatedVfs, environment};
use chunkstore::whisper::{Aggregation, Backfill, Point, Retention, WhisperFile};
use support::model_store::small_chunks;
use tempfile::TempDir;

/// The present of these tests, in seconds since 1970: a multiple of the steps that they use.
const NOW: u32 = 1_700_000_400;

/// A store in memory, and two real directories.
struct Scene {
    directory: TempDir,
    vfs: SimulatedVfs,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("source")).unwrap();
        let vfs = SimulatedVfs::new();
        let options = small_chunks();
        let store = Store::create_in(environment(vfs.clone(), 1), "/store", &options).unwrap();
        Self { directory, vfs, store }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    /// Makes a file of the source and returns its bytes.
    fn add(&self, path: &str, file: &WhisperFile) -> Vec<u8> {
        write(&self.source(), path, file.bytes());
        file.bytes().to_vec()
    }

    fn back_up(&self) -> RevisionId {
        let tree = WhisperTree::open(&self.source()).unwrap();
        let options = TreeBackupOptions::new(BackupOptions::new("graphite".parse().unwrap()));
        let stats = ops::backup_tree(&self.store, &tree, &options, &NoProgress).unwrap();
        assert!(stats.problems.is_empty(), "{:?}", stats.problems);
        stats.id
    }

    fn try_restore(
        &self,
        id: &RevisionId,
        options: &TreeRestoreOptions,
    ) -> Result<TreeRestoreStats, RestoreError> {
        self.try_restore_to(&self.target(), id, options)
    }

    fn try_restore_to(
        &self,
        target: &Path,
        id: &RevisionId,
        options: &TreeRestoreOptions,
    ) -> Result<TreeRestoreStats, RestoreError> {
        let reader = TreeReader::open(&self.store, id).unwrap();
        let target = WhisperTarget::new(target);
        ops::restore_tree(&self.store, &mut reader.entries(), &target, options, &NoProgress)
    }

    /// Restores, and expects that nothing is wrong.
    fn restore(&self, id: &RevisionId, options: &TreeRestoreOptions) -> TreeRestoreStats {
        let stats = self.try_restore(id, options).unwrap();
        assert_eq!(stats.problem_count, 0, "{stats:?}");
        stats
    }
}

fn options() -> TreeRestoreOptions {
    TreeRestoreOptions {
        now: Some(Timestamp(i64::from(NOW) * 1000)),
        lock_timeout: Duration::from_millis(50),
        ..TreeRestoreOptions::default()
    }
}

fn existing(existing: Existing) -> TreeRestoreOptions {
    TreeRestoreOptions { existing, ..options() }
}

const SAFE: Existing = Existing::Backfill(Backfill::Safe);
const COMPAT: Existing = Existing::Backfill(Backfill::Compat);

fn write(directory: &Path, path: &str, bytes: &[u8]) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Returns a file with one archive per pair of step and slots, and points in the last steps before [`NOW`].
fn file_with(retentions: &[(u32, u32)], points: &[(u32, f64)]) -> WhisperFile {
    let retentions: Vec<Retention> = retentions
        .iter()
        .map(|(seconds_per_point, points)| Retention {
            seconds_per_point: *seconds_per_point,
            points: *points,
        })
        .collect();
    let mut file = WhisperFile::create(Aggregation::Average, 0.0, &retentions).unwrap();
    let points: Vec<Point> =
        points.iter().map(|(age, value)| Point { time: NOW - age, value: *value }).collect();
    file.update_many(&points, NOW);
    file
}

/// Returns a file that is full of points which no other seed has.
fn full_file(seed: u32, slots: u32) -> WhisperFile {
    let points: Vec<(u32, f64)> = (0..slots)
        .map(|age| (age, f64::from(age) * 0.25 + f64::from(seed.wrapping_mul(2_654_435_761))))
        .collect();
    file_with(&[(1, slots)], &points)
}

/// Returns all files below a directory by their paths in it.
fn files_of(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut remaining = vec![directory.to_path_buf()];
    while let Some(next) = remaining.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                remaining.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Returns the names of the files below a directory.
fn names_of(directory: &Path) -> Vec<String> {
    files_of(directory).into_keys().collect()
}

fn assert_same_files(left: &Path, right: &Path) {
    let (left, right) = (files_of(left), files_of(right));
    assert!(left.keys().eq(right.keys()), "{:?} and {:?}", left.keys(), right.keys());
    for (path, bytes) in &left {
        assert!(right[path] == *bytes, "{path} differs");
    }
}

fn is_whisper_name(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b".wsp")
}
