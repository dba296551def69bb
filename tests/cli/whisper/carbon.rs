//! A real carbon that writes the tree while it is backed up and restored: `tests/whisper/carbon.py` runs and feeds it.
//!
//! Each slot of its files tells whether it is right, and the archives of a file agree after every update: a copy that was
//! torn would be seen.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use chunkstore::whisper::{Point, WhisperFile};
use rustix::fs::{FlockOperation, flock};

use crate::scene::{Scene, files_below};
use crate::system::machine::{figure, skip};

const METRICS: usize = 240;

/// Where carbon has its files in a scene.
const TREE: &str = "carbon/storage/whisper";

/// How long the tree is backed up while it is written.
const DURATION: Duration = Duration::from_secs(10);

/// carbon, and who feeds it. They end when this is dropped, or when the test is killed.
struct Carbon {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Carbon {
    fn start(scene: &Scene) -> Option<Self> {
        let python = env::var("BACKY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let reason = match Command::new(&python).args(["-c", "import carbon, whisper"]).output() {
            Ok(output) if output.status.success() => return Some(Self::run(&python, scene)),
            Ok(output) => {
                String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("").to_owned()
            }
            Err(error) => format!("{python}: {error}"),
        };
        skip("carbon", &reason);
        None
    }

    fn run(python: &str, scene: &Scene) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/whisper/carbon.py");
        let mut command = Command::new(python);
        command.arg(script).arg(scene.path("carbon")).arg(METRICS.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, input, output }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "{command}: it has ended");
        line.trim_end().to_owned()
    }

    /// Lets carbon write, until all metrics have files.
    fn go(&mut self, scene: &Scene) {
        self.ask("go");
        let begun = Instant::now();
        // A file is there a moment before its header is.
        let is_whole = |path: &PathBuf| fs::metadata(path).is_ok_and(|it| it.len() > 60_000);
        while files_below(&scene.path(TREE)).iter().filter(|path| is_whole(path)).count() < METRICS
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "carbon makes no files");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Carbon {
    fn drop(&mut self) {
        // The kernel ends carbon with it.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Reads files as a backup must: under the lock of their writer.
fn sample(scene: &Scene) -> BTreeMap<PathBuf, Vec<u8>> {
    let tree = scene.path(TREE);
    let read = |path: PathBuf| {
        let mut file = File::open(&path).unwrap();
        flock(&file, FlockOperation::LockShared).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        (path.strip_prefix(&tree).unwrap().to_owned(), bytes)
    };
    files_below(&tree)
        .into_iter()
        .filter(|path| number_of(path).is_multiple_of(4))
        .map(read)
        .collect()
}

/// Returns the number of a metric.
fn number_of(path: &Path) -> u32 {
    path.file_stem().unwrap().to_str().unwrap()[1..].parse().unwrap()
}

/// Checks that a file is what carbon had written after some point: every value is that of its time, and each slot of a coarser
/// archive has the value of the last point in its step. Returns how many points the first archive has.
#[track_caller]
fn assert_whole(path: &Path, bytes: Vec<u8>) -> usize {
    let metric = f64::from(number_of(path));
    let file = WhisperFile::decode(bytes).unwrap();
    let finest: BTreeMap<u32, f64> =
        file.points(0).map(|Point { time, value }| (time, value)).collect();
    assert!(!finest.is_empty(), "{}: it is empty", path.display());
    for (time, value) in &finest {
        assert_eq!(*value, f64::from(*time) * 1000.0 + metric, "{} {time}", path.display());
    }
    for index in 1..file.header().archives().len() {
        let step = file.header().archives()[index].seconds_per_point;
        let found: BTreeMap<u32, f64> =
            file.points(index).map(|Point { time, value }| (time, value)).collect();
        let mut expected = BTreeMap::new();
        for (time, value) in &finest {
            expected.insert(time / step * step, *value);
        }
        assert_eq!(found, expected, "{}: archive {index}", path.display());
    }
    finest.len()
}

#[test]
fn no_stored_file_is_torn_while_carbon_writes() {
    let scene = Scene::new();
    let Some(mut carbon) = Carbon::start(&scene) else { return };
    carbon.go(&scene);
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut changed = 0;
    while begun.elapsed() < DURATION || samples.len() < 3 {
        let before = sample(&scene);
        // A manual tag keeps the whole revision.
        let tag = format!("manual:{}", samples.len());
        let command = ["--json", "whisper", "backup", "-p", TREE, "--read-all", &tag];
        let document = scene.succeeds(command).json();
        assert_eq!(document["files"], METRICS);
        changed += document["changed_files"].as_u64().unwrap();
        let after = sample(&scene);
        let steady = before.into_iter().filter(|(path, bytes)| after.get(path) == Some(bytes));
        samples.push((document["id"].as_str().unwrap().to_owned(), steady.collect::<Vec<_>>()));
    }
    let sent = carbon.ask("sent");
    drop(carbon);

    let (mut files, mut equal, revisions) = (0, 0, samples.len());
    for (id, steady) in samples {
        scene.succeeds(["restore", "-r", &id, "out"]);
        for path in files_below(&scene.path("out")) {
            assert_whole(&path, fs::read(&path).unwrap());
            files += 1;
        }
        for (path, bytes) in steady {
            assert!(scene.read(Path::new("out").join(&path)) == bytes, "{id} {}", path.display());
            equal += 1;
        }
        fs::remove_dir_all(scene.path("out")).unwrap();
    }
    assert_eq!(files, revisions * METRICS);
    assert!(0 < changed && 0 < equal, "{changed} changed, {equal} did not");
    scene.succeeds(["verify", "-r", "all", "--all-data"]);
    figure(&format!(
        "carbon wrote {sent} points; {revisions} revisions with {files} files are whole ({changed} changed between them), \
         {equal} files that rested are equal byte for byte"
    ));
}

#[test]
fn filling_gaps_loses_no_point_that_carbon_writes_meanwhile() {
    let scene = Scene::new();
    let Some(mut carbon) = Carbon::start(&scene) else { return };
    carbon.go(&scene);
    std::thread::sleep(Duration::from_secs(2));
    let (mut filled, mut restores) = (0, 0);
    for round in 0..4 {
        carbon.ask("pause");
        scene.succeeds(["whisper", "backup", "-p", TREE]);
        // Half of the files are lost, and carbon begins them anew.
        let tree = files_below(&scene.path(TREE)).into_iter();
        tree.filter(|path| number_of(path) % 2 == 1)
            .for_each(|path| fs::remove_file(path).unwrap());
        carbon.go(&scene);
        let mode = if round % 2 == 0 { "safe" } else { "compat" };
        for _ in 0..3 {
            let command = ["--json", "whisper", "restore", "--backfill", mode];
            let document = scene.succeeds(command).json();
            assert_eq!(document["files"], METRICS);
            assert_eq!(document["set_aside_count"], 0);
            filled += document["filled_points"].as_u64().unwrap();
            restores += 1;
        }
    }
    let sent = carbon.ask("sent");
    assert_eq!(carbon.ask("fetch"), "0", "points are missing or wrong");
    drop(carbon);
    let mut points = 0;
    for path in files_below(&scene.path(TREE)) {
        points += assert_whole(&path, fs::read(&path).unwrap());
    }
    assert_eq!(points.to_string(), sent);
    assert!(0 < filled);
    figure(&format!(
        "carbon wrote {sent} points while {restores} restores filled {filled} in; all are there, in {METRICS} files"
    ));
}
