//! What cannot be had from the store, targets that take no more, and restores that were killed.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use chunkstore::format::{PageEntry, TreeEntry, Trust};
use chunkstore::ops::TreeProblemReason;
use chunkstore::store::StoreOptions;
use chunkstore::target::TargetFileError;

use super::*;
use crate::own_process::CHILD_DIRECTORY;

#[test]
fn damaged_chunk_costs_the_files_that_need_it() {
    let scene = Scene::new();
    for number in 0..40 {
        scene.add(&format!("d{}/f{number}.wsp", number % 3), &full_file(number, 900));
    }
    let twin = scene.add("twin.wsp", &full_file(7, 900));
    let id = scene.back_up();
    let packs: Vec<(PathBuf, u64)> = scene
        .vfs
        .all_files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/store/packs"))
        .collect();
    let (pack, len) = packs.iter().max_by_key(|(_, len)| *len).unwrap();
    scene.vfs.flip(pack, len / 2, 0x10).unwrap();
    let way = existing(Existing::Replace);
    let stats = scene.try_restore(&id, &way).unwrap();
    assert_eq!(stats.files, 41);
    assert!((1..=2).contains(&stats.problem_count), "{stats:?}");
    assert_eq!(stats.damage_count, stats.problem_count);
    assert_eq!(stats.written, 41 - stats.problem_count);
    let mut expected = files_of(&scene.source());
    for problem in &stats.problems {
        let TreeProblemReason::Damaged { chunk: Some(chunk), reason } = &problem.reason else {
            panic!("{problem:?}");
        };
        assert!(reason.contains(&chunk.to_string()), "{reason}");
        expected.remove(problem.path.as_deref().unwrap());
    }
    assert_eq!(files_of(&scene.target()), expected);
    let revision = scene.store.revision(&id).unwrap();
    assert_eq!(revision.state.trust, Trust::Damaged);

    // What exists is left alone.
    for problem in &stats.problems {
        write(&scene.target(), problem.path.as_deref().unwrap(), &twin[..600]);
    }
    let again = scene.try_restore(&id, &way).unwrap();
    assert_eq!((again.problem_count, again.unchanged), (stats.problem_count, stats.written));
    for problem in &stats.problems {
        let found = fs::read(scene.target().join(problem.path.as_deref().unwrap())).unwrap();
        assert_eq!(found, twin[..600]);
    }
}

#[test]
fn chunk_that_several_files_share_is_named_for_each() {
    let scene = Scene::new();
    for name in ["a", "b", "c"] {
        scene.add(&format!("{name}.wsp"), &full_file(1, 50));
    }
    scene.add("other.wsp", &full_file(2, 80));
    let id = scene.back_up();
    let lost = first_points(&scene, &id, "a.wsp");
    let entries: Vec<TreeEntry> = entries(&scene, &id);
    for path in packs_of(&scene) {
        let bytes = scene.vfs.read_all(&path).unwrap();
        if let Some(place) = bytes.windows(32).position(|window| window == lost) {
            // In the header of the record: the id that it says it has.
            scene.vfs.flip(&path, place as u64, 1).unwrap();
        }
    }
    let target = WhisperTarget::new(&scene.target());
    let mut entries = entries.into_iter().map(Ok);
    let stats =
        ops::restore_tree(&scene.store, &mut entries, &target, &options(), &NoProgress).unwrap();
    let paths: BTreeSet<&str> =
        stats.problems.iter().map(|problem| problem.path.as_deref().unwrap()).collect();
    assert_eq!(paths, BTreeSet::from(["a.wsp", "b.wsp", "c.wsp"]), "{stats:?}");
    assert_eq!(names_of(&scene.target()), ["other.wsp"]);
}

fn entries(scene: &Scene, id: &RevisionId) -> Vec<TreeEntry> {
    let reader = TreeReader::open(&scene.store, id).unwrap();
    reader.entries().map(Result::unwrap).collect()
}

/// Returns the id of the last chunk of a file.
fn first_points(scene: &Scene, id: &RevisionId, path: &str) -> [u8; 32] {
    let entry = entries(scene, id).into_iter().find(|it| it.path.to_string() == path).unwrap();
    let chunk = entry.content.iter().rev().find_map(|part| match part {
        PageEntry::Data { id, .. } => Some(*id),
        PageEntry::Zero { .. } => None,
    });
    *chunk.unwrap().as_bytes()
}

#[test]
fn list_that_cannot_be_read_is_a_problem_without_a_path() {
    let scene = Scene::new();
    scene.add("a.wsp", &full_file(1, 50));
    scene.add("b.wsp", &full_file(2, 50));
    let id = scene.back_up();
    let entries = entries(&scene, &id);
    let list = TreeReader::open(&scene.store, &id).unwrap();
    let sound: Vec<(PathBuf, Vec<u8>)> = packs_of(&scene)
        .into_iter()
        .map(|path| (path.clone(), scene.vfs.read_all(&path).unwrap()))
        .collect();
    for (path, bytes) in &sound {
        scene.vfs.write_raw(path, vec![0xa5; bytes.len()]).unwrap();
    }
    let error = list.entries().find_map(Result::err).expect("nothing can be read");
    for (path, bytes) in sound {
        scene.vfs.write_raw(path, bytes).unwrap();
    }
    let mut entries = entries.into_iter();
    let mut mixed =
        [entries.next().map(Ok), Some(Err(error)), entries.next().map(Ok)].into_iter().flatten();
    let target = WhisperTarget::new(&scene.target());
    let stats =
        ops::restore_tree(&scene.store, &mut mixed, &target, &options(), &NoProgress).unwrap();
    assert_eq!((stats.files, stats.written, stats.damage_count), (2, 2, 1), "{stats:?}");
    assert!(stats.problems[0].path.is_none());
    assert_same_files(&scene.source(), &scene.target());
}

fn packs_of(scene: &Scene) -> Vec<PathBuf> {
    let paths = scene.vfs.all_files().into_iter().map(|(path, _)| path);
    paths.filter(|path| path.starts_with("/store/packs")).collect()
}

#[test]
fn backup_that_is_no_whisper_file_is_written_but_fills_nothing() {
    let scene = Scene::new();
    scene.add("x.wsp", &full_file(1, 50));
    let id = scene.back_up();
    let mut entry = entries(&scene, &id).remove(0);
    entry.content.remove(0);
    let restore = || {
        let mut entries = [Ok(entry.clone())].into_iter();
        let target = WhisperTarget::new(&scene.target());
        ops::restore_tree(&scene.store, &mut entries, &target, &options(), &NoProgress).unwrap()
    };
    write(&scene.target(), "x.wsp", full_file(2, 50).bytes());
    let stats = restore();
    let reason = &stats.problems[0].reason;
    let is_told = matches!(reason, TreeProblemReason::Target(TargetFileError::NotWhisper { .. }));
    assert!(is_told, "{reason:?}");
    assert_eq!(fs::read(scene.target().join("x.wsp")).unwrap(), full_file(2, 50).bytes());
    fs::remove_file(scene.target().join("x.wsp")).unwrap();
    assert_eq!(restore().written, 1);
}

#[test]
fn leftovers_are_removed_unless_somebody_writes_them() {
    let scene = Scene::new();
    scene.add("a/x.wsp", &full_file(1, 50));
    scene.add("top.wsp", &full_file(2, 50));
    let id = scene.back_up();
    let target = scene.target();
    let dead = ["a/.x.wsp.backy-0123456789abcdef", ".y.wsp.backy-ffffffffffffffff"];
    let kept = ["a/.x.wsp.backy-mine", "a/x.wsp.bak", "elsewhere/.x.wsp.backy-0123456789abcdef"];
    for path in dead.iter().chain(&kept) {
        write(&target, path, b"half a file");
    }
    write(&target, "a/.z.wsp.backy-0000000000000001", b"of another restore");
    let other = File::open(target.join("a/.z.wsp.backy-0000000000000001")).unwrap();
    other.lock().unwrap();
    assert_eq!(scene.restore(&id, &options()).written, 2);
    let mut expected = vec!["a/.z.wsp.backy-0000000000000001", "a/x.wsp", "top.wsp"];
    expected.extend(kept);
    expected.sort_unstable();
    assert_eq!(names_of(&target), expected);
}

/// A file system of a few MiB in memory.
struct SmallDisk {
    point: PathBuf,
}

impl SmallDisk {
    /// Returns `None` where this process may not mount.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn mount(point: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(point).unwrap();
        let size = format!("size={size}");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let status =
            Command::new("mount").args(arguments).arg(point).stderr(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("SKIPPED small disk: not possible here: mounting needs root");
            return None;
        }
        Some(Self { point: point.to_owned() })
    }

    fn make_read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.point).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.point).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || thread::panicking());
    }
}

#[test]
fn full_target_ends_the_restore_with_whole_files_only() {
    let scene = Scene::new();
    for number in 0..30 {
        scene.add(&format!("f{number:02}.wsp"), &full_file(number, 12_000));
    }
    let id = scene.back_up();
    let Some(_disk) = SmallDisk::mount(&scene.target(), "2m") else { return };
    let error = scene.try_restore(&id, &options()).unwrap_err();
    let RestoreError::Target(error) = error else { panic!("{error:?}") };
    assert!(error.is_out_of_space(), "{error:?}");
    let found = files_of(&scene.target());
    let expected = files_of(&scene.source());
    assert!(10 < found.len() && found.len() < 30, "{}", found.len());
    for (path, bytes) in &found {
        assert!(expected[path] == *bytes, "{path}");
    }
}

#[test]
fn read_only_target_ends_the_restore() {
    let scene = Scene::new();
    scene.add("x.wsp", &full_file(1, 50));
    let id = scene.back_up();
    let Some(disk) = SmallDisk::mount(&scene.target(), "1m") else { return };
    write(&scene.target(), "x.wsp", full_file(2, 60).bytes());
    disk.make_read_only();
    for way in [SAFE, Existing::Replace] {
        let error = scene.try_restore(&id, &existing(way)).unwrap_err();
        assert!(matches!(error, RestoreError::Target(_)), "{error:?}");
    }
    let dry = TreeRestoreOptions { is_dry_run: true, ..options() };
    assert_eq!(scene.restore(&id, &dry).files, 1);
}

#[test]
fn directory_that_may_not_be_written_costs_its_files() {
    let scene = Scene::new();
    scene.add("closed/x.wsp", &full_file(1, 50));
    scene.add("open/x.wsp", &full_file(2, 50));
    let id = scene.back_up();
    let closed = scene.target().join("closed");
    fs::create_dir_all(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    let is_closed = File::create(closed.join("probe")).is_err();
    let stats = scene.try_restore(&id, &options()).unwrap();
    if is_closed {
        assert_eq!((stats.written, stats.problem_count, stats.damage_count), (1, 1, 0));
        assert_eq!(stats.problems[0].path.as_deref(), Some("closed/x.wsp"));
        assert_eq!(names_of(&scene.target()), ["open/x.wsp"]);
    } else {
        // The administrator may write everywhere.
        assert_eq!(stats.written, 2);
    }
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    let file = scene.directory.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = scene.try_restore_to(&file, &id, &options()).unwrap_err();
    assert!(matches!(error, RestoreError::Target(_)), "{error:?}");
}

/// Kills a process when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

const CHILD_FILES: u32 = 400;

#[test]
fn killed_restore_leaves_no_torn_file_and_the_next_one_completes_it() {
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = (directory.path().join("source"), directory.path().join("target"));
    for number in 0..CHILD_FILES {
        let path = format!("d{}/f{number}.wsp", number / 50);
        write(&source, &path, full_file(number, 4000).bytes());
    }
    let store = Store::create(directory.path().join("store"), &StoreOptions::default()).unwrap();
    let tree = WhisperTree::open(&source).unwrap();
    let backup = TreeBackupOptions::new(BackupOptions::new("graphite".parse().unwrap()));
    let id = ops::backup_tree(&store, &tree, &backup, &NoProgress).unwrap().id;
    let expected = files_of(&source);
    let mut wanted = 5;
    // Killed later and later, until one of them is done before it is killed.
    for _ in 0..8 {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "tree_restore::faults::restore_until_killed", "--ignored"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        while child.0.try_wait().unwrap().is_none() && count_files(&target) < wanted {
            thread::sleep(Duration::from_millis(1));
        }
        drop(child);
        for (path, bytes) in files_of(&target).iter().filter(|(path, _)| path.ends_with(".wsp")) {
            assert!(expected[path] == *bytes, "{path} is torn");
        }
        wanted = count_files(&target) + 40;
    }
    let reader = TreeReader::open(&store, &id).unwrap();
    let target_directory = WhisperTarget::new(&target);
    let restored = ops::restore_tree(
        &store,
        &mut reader.entries(),
        &target_directory,
        &options(),
        &NoProgress,
    );
    let stats = restored.unwrap();
    assert_eq!(stats.written + stats.unchanged, u64::from(CHILD_FILES), "{stats:?}");
    assert_same_files(&source, &target);
}

fn count_files(directory: &Path) -> usize {
    let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    below(directory)
        .flat_map(|entry| below(&entry.path()).collect::<Vec<_>>())
        .filter(|entry| is_whisper_name(&entry.path()))
        .count()
}

#[test]
#[ignore = "part of killed_restore_leaves_no_torn_file_and_the_next_one_completes_it"]
fn restore_until_killed() {
    let directory = PathBuf::from(env::var_os(CHILD_DIRECTORY).unwrap());
    let store = Store::open(directory.join("store")).unwrap();
    let id = store.history(None).unwrap().revisions[0].record.id;
    let reader = TreeReader::open(&store, &id).unwrap();
    let target = WhisperTarget::new(&directory.join("target"));
    let stats =
        ops::restore_tree(&store, &mut reader.entries(), &target, &options(), &NoProgress).unwrap();
    assert_eq!(stats.files, u64::from(CHILD_FILES));
}
