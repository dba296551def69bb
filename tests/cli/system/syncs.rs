//! Every sync that the program makes outside of a store, under `strace`, and what it is for. Those inside are accounted for by
//! `tests/reliability/syncs.rs`, those of an overlay by `tests/it/overlay/syncs.rs`, each by a search that loses them. That the loss of
//! one outside shows on a real file system is proved by `tests/powerfail/run --self-test` with `LIE_IN`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::machine::{run_tool, skip, tool};
use crate::scene::{IMAGE, IMAGE_LEN, Scene};

/// The backup directory; only the first part of it is there.
const JOB: &str = "srv/backups/vm1";

const STORE: &str = "store";

/// Backup directory of whisper files, with a store in it.
const TREE_JOB: &str = "tree-job";

/// Syncs outside of a store, and what would be lost without each. `docs/reliability.md` shows the same table.
const OUTSIDE: [(&str, &str); 6] = [
    ("directory above a new backup directory", "the backup directory, with a store in it"),
    ("file config", "the configuration: it may be empty"),
    ("directory of config", "the configuration: it may not be there"),
    ("restored file", "bytes of what was restored"),
    ("directory of a restored file", "the name of what was restored"),
    ("file system of a restored tree", "names and bytes of what was restored"),
];

/// A call of the program: its name, and the path that it is about.
#[derive(Debug)]
struct Call {
    name: String,
    path: PathBuf,
}

/// Runs a command and returns its syncs and what directories it made, in their order.
fn trace(scene: &Scene, arguments: &[&str]) -> Vec<Call> {
    let program = scene.command(arguments);
    let mut strace = tool("strace");
    strace.args(["-f", "-y", "-qq", "-s", "512", "-o"]).arg(scene.path("trace"));
    strace.args(["-e", "trace=fsync,fdatasync,syncfs,sync,sync_file_range,msync,mkdir"]);
    strace.arg(program.get_program()).args(program.get_args()).current_dir(scene.root());
    let output = strace.env("BACKY_BACKUP_DIR", JOB).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    let trace = fs::read_to_string(scene.path("trace")).unwrap();
    trace.lines().filter_map(|line| Call::parse(line, &scene.root())).collect()
}

/// Returns a scene with an image and the first part of the way to the backup directory; says so if there is no `strace`.
fn scene_to_trace() -> Option<Scene> {
    if let Err(reason) = run_tool("strace", ["-o", "/dev/null", "true"]) {
        skip("syncs of the program", &reason);
        return None;
    }
    let scene = Scene::new();
    scene.write_image(IMAGE, IMAGE_LEN, 1);
    // As an `init` leaves it that dies after its first directory.
    fs::create_dir(scene.path("srv")).unwrap();
    Some(scene)
}

impl Call {
    /// Reads a line `thread name(descriptor<path>...` or `thread name("path"...`; `None` if no call begins in it.
    fn parse(line: &str, root: &Path) -> Option<Self> {
        let (_, rest) = line.split_once(' ')?;
        let (name, text) = rest.trim_start().split_once('(')?;
        if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            return None;
        }
        let path = text.split(['"', '<', '>']).nth(1).unwrap_or_else(|| panic!("{line}"));
        Some(Self { name: name.to_owned(), path: root.join(path) })
    }

    fn is_sync(&self) -> bool {
        self.name != "mkdir"
    }

    /// Returns what the sync is for; `None` if it is one of the store.
    fn purpose(&self, root: &Path) -> Option<&'static str> {
        // The scene itself, or where it lies.
        let is_around = root.starts_with(&self.path);
        let path = self.path.strip_prefix(root).unwrap_or(&self.path);
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_above = is_around || Path::new(JOB).starts_with(path) && path != Path::new(JOB);
        Some(match self.name.as_str() {
            "syncfs" if path.starts_with("tree-out") => "file system of a restored tree",
            "fsync" if is_above => "directory above a new backup directory",
            "fsync" if path == Path::new(JOB) => "directory of config",
            "fsync" if file_name.starts_with(".config.") => "file config",
            "fsync" if path == Path::new("out") => "directory of a restored file",
            "fsync" if path.starts_with("out") => "restored file",
            _ if path.starts_with(STORE) || path.starts_with(TREE_JOB) => return None,
            _ => panic!("a sync that nobody has accounted for: {self:?}"),
        })
    }
}

#[test]
fn every_sync_outside_of_a_store_is_accounted_for() {
    let Some(scene) = scene_to_trace() else { return };
    fs::create_dir_all(scene.path("tree/a")).unwrap();
    fs::write(scene.path("tree/a/cpu.wsp"), crate::whisper::trees::content(1)).unwrap();
    fs::create_dir(scene.path("out")).unwrap();
    let commands: [&[&str]; 17] = [
        &["init", "file", IMAGE, "--store", STORE],
        &["backup", "manual:a"],
        &["tags", "add", "-r", "last", "manual:b"],
        &["protect", "-r", "last"],
        &["unprotect", "-r", "last"],
        &["backup", "manual:c"],
        &["restore", "out/disk.img"],
        &["restore", "--overwrite", "out/disk.img"],
        &["restore", "--delta", "out/disk.img"],
        &["verify", "-r", "all", "--all-data"],
        &["scrub"],
        &["forget", "-r", "first"],
        &["purge", "--now"],
        &["index", "rebuild"],
        &["repair"],
        &["-b", TREE_JOB, "whisper", "backup", "-p", "tree"],
        &["-b", TREE_JOB, "whisper", "restore", "-p", "tree-out", "-m", "*"],
    ];
    let mut found = BTreeSet::new();
    let mut store_count = 0;
    for command in commands {
        for call in trace(&scene, command).iter().filter(|call| call.is_sync()) {
            match call.purpose(&scene.root()) {
                Some(purpose) => _ = found.insert(purpose),
                None => store_count += 1,
            }
        }
    }
    assert_eq!(found, OUTSIDE.iter().map(|(purpose, _)| *purpose).collect());
    assert_ne!(store_count, 0);
}

#[test]
fn init_makes_the_name_of_each_new_directory_durable_before_there_is_anything_below() {
    let Some(scene) = scene_to_trace() else { return };
    let calls = trace(&scene, &["init", "file", IMAGE]);
    let root = scene.root();
    let place = |name: &str, path: &str| {
        let path = root.join(path);
        calls.iter().position(|call| call.name == name && call.path == path)
    };
    let order = [
        ("fsync", ""),
        ("mkdir", "srv/backups"),
        ("fsync", "srv"),
        ("mkdir", JOB),
        ("fsync", "srv/backups"),
        ("fsync", JOB),
    ];
    let places: Vec<_> = order.iter().map(|(name, path)| place(name, path)).collect();
    assert!(places.iter().all(Option::is_some), "{places:?} {calls:?}");
    assert!(places.is_sorted(), "{places:?} {calls:?}");
}

#[test]
fn document_shows_the_syncs_outside_of_a_store() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md");
    let document = fs::read_to_string(path).unwrap();
    let rows = document.lines().skip_while(|line| !line.starts_with("| sync outside")).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<String> =
        OUTSIDE.iter().map(|(purpose, lost)| format!("| {purpose} | {lost} |")).collect();
    assert_eq!(rows, expected);
}
