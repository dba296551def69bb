//! A tree of whisper files in a scene, and revisions of it that are older than the test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chunkstore::Store;
use chunkstore::environment::{Clock, Environment};
use chunkstore::error::Error;
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, BackupError, BackupOptions, TreeBackupOptions};
use chunkstore::progress::NoProgress;
use chunkstore::source::WhisperTree;
use chunkstore::time::Timestamp;
use chunkstore::whisper::{Aggregation, Point, Retention, WhisperFile};
use rustix::fs::{FlockOperation, flock};

use crate::scene::{BACKUP_DIR, Scene, files_below, random_bytes};
use crate::system::running::Running;

/// Name of the tree in a scene.
pub(super) const TREE: &str = "tree";

/// Seconds between two points of the first archive.
pub(super) const STEP: u32 = 60;

/// Points of the first archive: four hours.
const POINTS: u32 = 240;

const DAY_MILLISECONDS: i64 = 86_400_000;

/// Metrics of [`scene`].
pub(super) const METRICS: [&str; 4] =
    ["carbon.agents.a.cpu", "carbon.agents.b.cpu", "servers.web1.load", "top"];

/// Returns a scene with a few metrics, all different, and no backup directory.
pub(super) fn scene() -> Scene {
    let scene = Scene::new();
    for (seed, metric) in (1..).zip(METRICS) {
        write(&scene, metric, &content(seed));
    }
    scene
}

/// Returns a scene with one revision.
pub(super) fn scene_with_backup() -> Scene {
    let scene = scene();
    scene.succeeds(["whisper", "backup", "-p", TREE]);
    scene
}

/// Returns seconds since 1970.
pub(super) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u32::try_from(since.as_secs()).unwrap()
}

/// Returns the beginning of a step of the first archive, so many steps before the present one.
pub(super) fn steps_ago(steps: u32) -> u32 {
    now() / STEP * STEP - steps * STEP
}

/// Returns a whisper file with these points.
pub(super) fn file_with(points: &[Point]) -> Vec<u8> {
    let retention = |seconds_per_point, points| Retention { seconds_per_point, points };
    let retentions = [retention(STEP, POINTS), retention(10 * STEP, 144)];
    let mut file = WhisperFile::create(Aggregation::Average, 0.0, &retentions).unwrap();
    file.update_many(points, now());
    file.into_bytes()
}

/// Returns a whisper file with a hundred points; another one for each seed.
pub(crate) fn content(seed: u32) -> Vec<u8> {
    let point = |index: u32| Point {
        time: steps_ago(index + 1),
        value: f64::from(seed * 1000 + index) / 7.0,
    };
    file_with(&(0..100).map(point).collect::<Vec<_>>())
}

/// Returns a large whisper file whose points do not compress well: more bytes than all lists of a test have.
pub(super) fn noise(seed: u32) -> Vec<u8> {
    let retention = Retention { seconds_per_point: STEP, points: 30_000 };
    let mut file = WhisperFile::create(Aggregation::Last, 0.0, &[retention]).unwrap();
    let bytes = random_bytes(8 * 30_000, seed.into());
    let value = |bytes: &[u8]| f64::from(u32::from_le_bytes(bytes[..4].try_into().unwrap())) / 3.0;
    let points = (0..29_000).map(steps_ago).zip(bytes.chunks_exact(8).map(value));
    let points: Vec<_> = points.map(|(time, value)| Point { time, value }).collect();
    file.update_many(&points, now());
    file.into_bytes()
}

/// Returns the path of a metric below a directory.
pub(super) fn metric_path(directory: &str, metric: &str) -> PathBuf {
    Path::new(directory).join(format!("{}.wsp", metric.replace('.', "/")))
}

/// Writes the file of a metric. The one that is there is written over, as carbon does it.
pub(super) fn write(scene: &Scene, metric: &str, bytes: &[u8]) {
    let path = metric_path(TREE, metric);
    fs::create_dir_all(scene.path(&path).parent().unwrap()).unwrap();
    scene.write(path, bytes);
}

pub(super) fn read(scene: &Scene, directory: &str, metric: &str) -> Vec<u8> {
    scene.read(metric_path(directory, metric))
}

pub(super) fn remove(scene: &Scene, metric: &str) {
    fs::remove_file(scene.path(metric_path(TREE, metric))).unwrap();
}

/// Locks the file of a metric as a writer does, until it is dropped.
pub(super) fn lock(scene: &Scene, directory: &str, metric: &str) -> File {
    let file = File::open(scene.path(metric_path(directory, metric))).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

/// Waits until a command has this file open.
#[track_caller]
pub(super) fn wait_until_open(running: &mut Running, path: &Path) {
    let descriptors = format!("/proc/{}/fd", running.id());
    let is_open = || {
        let links = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).any(|link| link == path)
    };
    assert!(running.wait_until(is_open), "it has ended");
}

/// Returns every file below a directory of the scene, with its bytes.
pub(super) fn snapshot(scene: &Scene, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let top = scene.path(directory);
    let paths = files_below(&top).into_iter();
    paths
        .map(|path| (path.strip_prefix(&top).unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// Returns what `whisper list` knows: of each metric, oldest first, how many revisions have which version.
#[track_caller]
pub(super) fn versions(scene: &Scene, metric: &str) -> Vec<usize> {
    let listed = scene.succeeds(["--json", "whisper", "list", "-m", metric]).json();
    let metrics = listed.as_array().unwrap();
    assert!(metrics.len() < 2, "{listed}");
    let Some(found) = metrics.first() else { return Vec::new() };
    let versions = found["versions"].as_array().unwrap().iter();
    versions.map(|version| version["revisions"].as_array().unwrap().len()).collect()
}

/// A clock that is some days behind.
#[derive(Debug)]
struct PastClock {
    days: i64,
}

impl Clock for PastClock {
    fn now(&self) -> Timestamp {
        Timestamp(i64::from(now()) * 1000 - self.days * DAY_MILLISECONDS)
    }

    fn monotonic(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Makes a revision of the tree as if so many days ago. There must be a backup directory.
pub(super) fn back_up_days_ago(scene: &Scene, days: i64) -> RevisionId {
    let environment = Environment { clock: Arc::new(PastClock { days }), ..Environment::system() };
    let store = Store::open_in(environment, scene.path(BACKUP_DIR)).unwrap();
    let tree = WhisperTree::open(&scene.path(TREE)).unwrap();
    let common = BackupOptions {
        tags: vec!["whisper".to_owned()],
        ..BackupOptions::new(BACKUP_DIR.parse().unwrap())
    };
    let options = TreeBackupOptions { accept_empty: true, ..TreeBackupOptions::new(common) };
    loop {
        match ops::backup_tree(&store, &tree, &options, &NoProgress) {
            Ok(stats) => return stats.id,
            // A child that another test starts at this moment has a copy of the last lock, until it is another program.
            Err(BackupError::Store(Error::Locked { .. })) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns the date of so many days ago, as `--date` takes it.
pub(super) fn date_days_ago(days: i64) -> String {
    let seconds = i64::from(now()) - days * DAY_MILLISECONDS / 1000;
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
    jiff::Timestamp::try_from(time).unwrap().strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}
