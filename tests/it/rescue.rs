//! The manual restore that users are promised: `rescue.py` shares no code with the library, and restores what the
//! library has written.
//!
//! Needs Python with the packages `blake3` and `zstandard`; `BACKY_PYTHON` names another interpreter. Without
//! them these tests say that they were skipped.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chunkstore::compression::Compressor;
use chunkstore::format::{Codec, ObjectKind};
use chunkstore::id::RevisionId;
use chunkstore::ops;
use chunkstore::store::{Store, StoreOptions};
use support::model_store::{Numbers, SparseImage, back_up, small_chunks, try_purge};
use tempfile::TempDir;

pub(crate) const DONE: i32 = 0;
pub(crate) const DAMAGE: i32 = 4;
pub(crate) const NOT_FOUND: i32 = 10;

/// Runs the script, or returns `None` if this machine cannot.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub(crate) fn python() -> Option<String> {
    let python = env::var("BACKY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let reason = match Command::new(&python).args(["-c", "import blake3, zstandard"]).output() {
        Ok(output) if output.status.success() => return Some(python),
        Ok(output) => {
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("").to_owned()
        }
        Err(error) => format!("{python}: {error}"),
    };
    println!("SKIPPED rescue: {reason}");
    None
}

/// Runs the script.
pub(crate) fn run_script(python: &str, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("rescue.py");
    Command::new(python).arg(script).args(arguments).output().unwrap()
}

/// A store on the real file system, and what is in it.
struct Scene {
    python: String,
    directory: TempDir,
    truth: Vec<(RevisionId, SparseImage)>,
}

impl Scene {
    fn new() -> Option<Self> {
        let python = python()?;
        let directory = tempfile::tempdir().unwrap();
        let mut scene = Self { python, directory, truth: Vec::new() };
        let store = Store::create(scene.store(), &StoreOptions::default()).unwrap();
        scene.fill(&store);
        Some(scene)
    }

    fn fill(&mut self, store: &Store) {
        let text = "Data that compresses. ".repeat(20_000);
        let mut image = SparseImage::new((128 << 20) + 777);
        image.write(0, &Numbers(1).bytes(500_000));
        image.write((64 << 20) - 1000, text.as_bytes());
        image.write((128 << 20) + 700, b"the end");
        for round in 0..3 {
            self.truth.push((back_up(store, "vm-1", &image).id, image.clone()));
            image.write(1000 * round, b"changed");
            image.resize((128 << 20) + 777 - 100_000 * round);
        }
        for image in [SparseImage::new(0), SparseImage::new(70_000), SparseImage::of(b"x")] {
            self.truth.push((back_up(store, "vm-2", &image).id, image));
        }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run_script(&self.python, arguments)
    }

    fn run_on_store(&self, command: &str, more: &[&str]) -> Output {
        let store = self.store();
        let arguments: Vec<&str> =
            [command, store.to_str().unwrap()].into_iter().chain(more.iter().copied()).collect();
        self.run(&arguments)
    }

    /// Restores a revision and returns the exit code and the image.
    fn restore(&self, id: &RevisionId) -> (i32, Vec<u8>) {
        let target = self.directory.path().join("restored");
        if target.exists() {
            fs::remove_file(&target).unwrap();
        }
        let output = self.run_on_store("restore", &[&id.to_string(), target.to_str().unwrap()]);
        (output.status.code().unwrap(), fs::read(&target).unwrap())
    }

    fn assert_all_restored(&self) {
        for (id, image) in &self.truth {
            let (code, found) = self.restore(id);
            assert_eq!(code, DONE);
            assert!(found == image.to_vec(), "revision {id} differs");
        }
    }

    /// Returns the longest pack, which holds data, and its bytes.
    fn largest_pack(&self) -> (PathBuf, Vec<u8>) {
        let levels = fs::read_dir(self.store().join("packs")).unwrap();
        let files = levels.flat_map(|level| fs::read_dir(level.unwrap().path()).unwrap());
        let files = files.map(|file| file.unwrap().path());
        let path = files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    }
}

#[test]
fn rescue_script_lists_checks_and_restores() {
    let Some(scene) = Scene::new() else { return };
    let output = scene.run_on_store("list", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(DONE), "{text}");
    for (id, _) in &scene.truth {
        assert!(text.contains(&id.to_string()), "{text}");
    }
    assert_eq!(text.lines().filter(|line| line.contains("vm-1")).count(), 3, "{text}");
    let output = scene.run_on_store("check", &[]);
    assert_eq!(output.status.code(), Some(DONE), "{output:?}");
    scene.assert_all_restored();
    let output = scene.run_on_store("restore", &["ffffffff", "/nonexistent/x"]);
    assert_eq!(output.status.code(), Some(NOT_FOUND), "{output:?}");
}

#[test]
fn rescue_script_reads_small_chunks_condemned_packs_and_dead_sessions() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut scene = Scene { python, directory, truth: Vec::new() };
    let store = Store::create(scene.store(), &small_chunks()).unwrap();
    let forgotten = back_up(&store, "vm-3", &SparseImage::of(&Numbers(9).bytes(50_000))).id;
    scene.fill(&store);
    ops::forget(&store, &[forgotten]).unwrap();
    let stats = try_purge(&store, std::time::Duration::from_secs(3600)).unwrap();
    assert!(0 < stats.condemned_packs);
    let output = scene.run_on_store("check", &[]);
    assert_eq!(output.status.code(), Some(DONE), "{output:?}");
    scene.assert_all_restored();
}

#[test]
fn rescue_script_reports_a_flipped_byte() {
    let Some(scene) = Scene::new() else { return };
    let (path, mut bytes) = scene.largest_pack();
    bytes[80 + 56 + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let output = scene.run_on_store("check", &[]);
    assert_eq!(output.status.code(), Some(DAMAGE), "{output:?}");
    let codes: Vec<i32> = scene.truth.iter().map(|(id, _)| scene.restore(id).0).collect();
    assert_eq!(codes[0], DAMAGE);
    assert_eq!(codes[3..], [DONE; 3]);
    // What is damaged is left zero, all else is there.
    let (_, found) = scene.restore(&scene.truth[0].0);
    let expected = scene.truth[0].1.to_vec();
    let differing = found.iter().zip(&expected).filter(|(left, right)| left != right).count();
    assert!((1..=256 << 10).contains(&differing), "{differing} bytes differ");
}

#[test]
fn rescue_script_restores_without_footers() {
    let Some(scene) = Scene::new() else { return };
    let (path, mut bytes) = scene.largest_pack();
    let len = bytes.len();
    bytes[len - 64..].fill(0);
    fs::write(&path, bytes).unwrap();
    scene.assert_all_restored();
    let output = scene.run_on_store("check", &[]);
    assert_eq!(output.status.code(), Some(DAMAGE), "{output:?}");
}

/// Returns points that are stored with the transforms that there are: bits, differences, units with and without error.
fn series() -> Vec<Vec<u8>> {
    let noise = Numbers(5).bytes(3000);
    let points = |value: &dyn Fn(f64, f64) -> f64| -> Vec<u8> {
        let mut points = Vec::new();
        for (slot, byte) in (0_u32..).zip(&noise) {
            points.extend((1_700_000_000 + 10 * (slot % 2000)).to_be_bytes());
            points.extend(value(f64::from(slot), f64::from(*byte)).to_be_bytes());
        }
        points
    };
    let mut series = vec![
        points(&|slot, byte| slot * 100.0 + byte),
        points(&|_, byte| -byte / 100.0),
        points(&|slot, byte| (byte / 100.0 + slot / 10.0 + 0.7) / 6.0),
        points(&|slot, byte| (slot + byte / 1000.0).sqrt()),
        points(&|slot, _| if slot % 2.0 == 0.0 { f64::NAN } else { 1e300 }),
    ];
    let with_exception = series.first_mut().unwrap();
    with_exception[16..24].copy_from_slice(&0.123_456_789_f64.to_be_bytes());
    series
}

#[test]
fn rescue_script_reads_points() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let payload = directory.path().join("payload");
    let program = "import sys; sys.path.insert(0, sys.argv[1]); import rescue; \
        payload = open(sys.argv[2], 'rb').read(); \
        sys.stdout.buffer.write(rescue.decode(rescue.POINTS, payload, int(sys.argv[3]), 'it'))";
    let mut transforms = Vec::new();
    for plain in series() {
        let id = ObjectKind::Data.chunk_id(&plain);
        let mut compressor = Compressor::new(1).unwrap();
        let mut stored = Vec::new();
        let codec = compressor.compress_points(ObjectKind::Data, &id, &plain, &mut stored);
        assert_eq!(codec.unwrap(), Codec::Points);
        transforms.push(stored[0]);
        fs::write(&payload, &stored).unwrap();
        let output = Command::new(&python)
            .args(["-c", program, env!("CARGO_MANIFEST_DIR"), payload.to_str().unwrap()])
            .arg(plain.len().to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout == plain, "transform {:#x}", transforms[transforms.len() - 1]);
    }
    transforms.dedup();
    assert!(transforms.len() > 3, "{transforms:x?}");
}
