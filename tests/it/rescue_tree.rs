//! The manual restore of trees: `rescue.py` gives back a single metric, or all, as the library has stored them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use chunkstore::id::RevisionId;
use chunkstore::ops::{self, BackupOptions, TreeBackupOptions};
use chunkstore::progress::NoProgress;
use chunkstore::source::WhisperTree;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::whisper::{Aggregation, Point, Retention, WhisperFile};
use tempfile::TempDir;

use crate::rescue::{DAMAGE, DONE, NOT_FOUND, python, run_script};

/// A store with one revision of some metrics.
struct Scene {
    python: String,
    directory: TempDir,
    id: RevisionId,
    files: BTreeMap<String, Vec<u8>>,
}

/// Returns a file with two archives and some points, of which `seed` decides.
fn whisper_file(seed: u32) -> Vec<u8> {
    let retentions = [(60, 3000), (600, 20_000)];
    let retentions =
        retentions.map(|(seconds_per_point, points)| Retention { seconds_per_point, points });
    let mut file = WhisperFile::create(Aggregation::Average, 0.5, &retentions).unwrap();
    let now = 1_790_000_000;
    let points: Vec<Point> = (0..2000 + seed)
        .map(|index| {
            let value = f64::from(index * seed % 977) / 8.0 + f64::from(seed);
            Point { time: now - 60 * index, value }
        })
        .collect();
    file.update_many(&points, now);
    file.into_bytes()
}

impl Scene {
    fn new() -> Option<Self> {
        let python = python()?;
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("whisper");
        let mut files = BTreeMap::new();
        for seed in 0..40 {
            let name = format!("servers/host{}/metric{seed}.wsp", seed % 7);
            let path = tree.join(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes = whisper_file(seed);
            fs::write(path, &bytes).unwrap();
            files.insert(name, bytes);
        }
        let store =
            Store::create(directory.path().join("store"), &StoreOptions::default()).unwrap();
        let options = TreeBackupOptions::new(BackupOptions::new("graphite".parse().unwrap()));
        let source = WhisperTree::open(&tree).unwrap();
        let stats = ops::backup_tree(&store, &source, &options, &NoProgress).unwrap();
        assert_eq!((stats.counts.files, stats.counts.problems), (40, 0));
        Some(Self { python, directory, id: stats.id, files })
    }

    fn run(&self, command: &str, more: &[&str]) -> Output {
        let store = self.directory.path().join("store");
        let arguments = [&[command, store.to_str().unwrap()], more].concat();
        run_script(&self.python, &arguments)
    }

    fn target(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn packs(&self) -> Vec<PathBuf> {
        let levels = fs::read_dir(self.directory.path().join("store/packs")).unwrap();
        let files = levels.flat_map(|level| fs::read_dir(level.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }
}

/// Returns all files below a directory.
fn read_tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn rescue_script_restores_one_metric_and_all() {
    let Some(scene) = Scene::new() else { return };
    let id = scene.id.to_string();
    let output = scene.run("files", &[&id[..8]]);
    assert_eq!(output.status.code(), Some(DONE), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.rsplit('\t').next()).collect();
    assert_eq!(names, scene.files.keys().collect::<Vec<_>>());

    let (name, bytes) = scene.files.first_key_value().unwrap();
    let target = scene.target("one.wsp");
    let output = scene.run("file", &[&id, name, target.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(DONE), "{output:?}");
    assert!(fs::read(&target).unwrap() == *bytes);
    let output = scene.run("file", &[&id, name, target.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(DAMAGE), "it exists: {output:?}");
    let output = scene.run("file", &[&id, "no/such.wsp", target.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(NOT_FOUND), "{output:?}");

    let all = scene.target("all");
    let output = scene.run("restore", &[&id, all.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(DONE), "{output:?}");
    assert!(read_tree(&all) == scene.files);
    let output = scene.run("check", &[]);
    assert_eq!(output.status.code(), Some(DONE), "{output:?}");
}

#[test]
fn rescue_script_leaves_out_metrics_that_are_damaged() {
    let Some(scene) = Scene::new() else { return };
    let longest = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let pack = scene.packs().into_iter().max_by_key(longest).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let all = scene.target("all");
    let output = scene.run("restore", &[&scene.id.to_string(), all.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(DAMAGE), "{output:?}");
    let found = read_tree(&all);
    assert!((1..40).contains(&(40 - found.len())), "{} files", found.len());
    assert!(found.iter().all(|(name, bytes)| scene.files[name] == *bytes));
    let output = scene.run("check", &[]);
    assert_eq!(output.status.code(), Some(DAMAGE), "{output:?}");
}
