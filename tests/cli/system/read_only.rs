//! Stores that cannot be written: all that only reads works, the rest says what it could not write.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::machine::{Mount, OtherUser, skip};
use super::running::Running;
use crate::scene::{IMAGE, Scene, files_below, rewrite};

const READING: [&[&str]; 7] = [
    &["status"],
    &["find"],
    &["verify"],
    &["store", "info"],
    &["restore", "-r", "0", "-"],
    &["--json", "status"],
    &["purge", "--dry-run", "--now"],
];

const WRITING: [&[&str]; 4] =
    [&["backup"], &["forget", "-r", "1"], &["purge"], &["purge", "--now"]];

/// Runs all commands; those that write must name the directory that they could not write to.
#[track_caller]
fn assert_only_reading_works(command: impl Fn(&[&str]) -> Command, image: &[u8], place: &str) {
    for arguments in READING {
        let mut command = command(arguments);
        let output = Running::start(&mut command).succeeds();
        if arguments.contains(&"-") {
            assert!(output.stdout == image, "the image differs");
        }
    }
    for arguments in WRITING {
        let output = Running::start(&mut command(arguments)).finish();
        assert_eq!(output.code, Some(7), "{arguments:?}: {}", output.stderr);
        assert!(output.stderr.contains(place), "{arguments:?}: {}", output.stderr);
    }
}

/// Returns names, lengths and times of all files of the store.
fn census(scene: &Scene) -> Vec<String> {
    let describe = |path: &std::path::PathBuf| {
        let metadata = fs::metadata(path).unwrap();
        format!("{} {} {:?}", path.display(), metadata.len(), metadata.modified().unwrap())
    };
    let mut files: Vec<String> =
        files_below(&scene.backup_path(".")).iter().map(describe).collect();
    files.sort();
    files
}

#[test]
fn store_on_a_read_only_medium_is_readable() {
    let (scene, images) = Scene::with_backups(2);
    for has_index in [true, false] {
        if !has_index {
            fs::remove_file(scene.backup_path("index.redb")).unwrap();
        }
        fs::remove_dir(scene.path("mnt")).ok();
        let mount = match Mount::read_only(&scene, &scene.backup_path(".")) {
            Ok(mount) => mount,
            Err(reason) => return skip("read-only medium", &reason),
        };
        let before = census(&scene);
        let command = |arguments: &[&str]| {
            let mut command = scene.command(arguments);
            command.env("BACKY_BACKUP_DIR", "mnt");
            command
        };
        assert_only_reading_works(command, &images[1], "/mnt/");
        assert_eq!(census(&scene), before);
        drop(mount);
    }
    scene.succeeds(["backup"]);
    assert_eq!(scene.revision_count(), 3);
}

fn set_modes(path: &Path, directories: u32, files: u32) {
    let is_directory = path.is_dir();
    let mode = if is_directory { directories } else { files };
    if is_directory {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            set_modes(&entry.unwrap().path(), directories, files);
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn store_of_somebody_else_is_readable() {
    let (scene, images) = Scene::with_backups(2);
    let user = match OtherUser::new(&scene) {
        Ok(user) => user,
        Err(reason) => return skip("other user", &reason),
    };
    for has_index in [true, false] {
        if !has_index {
            fs::remove_file(scene.backup_path("index.redb")).unwrap();
        }
        set_modes(&scene.backup_path("."), 0o555, 0o444);
        fs::set_permissions(scene.path(IMAGE), fs::Permissions::from_mode(0o644)).unwrap();
        let before = census(&scene);
        let command = |arguments: &[&str]| user.command(&scene, arguments);
        assert_only_reading_works(command, &images[1], "/vm1/");
        assert_eq!(census(&scene), before);
        set_modes(&scene.backup_path("."), 0o755, 0o644);
    }
    scene.succeeds(["backup"]);
    assert_eq!(scene.revision_count(), 3);
}

#[test]
fn store_that_may_not_be_read_is_named() {
    let (scene, _) = Scene::with_backups(1);
    let user = match OtherUser::new(&scene) {
        Ok(user) => user,
        Err(reason) => return skip("other user", &reason),
    };
    set_modes(&scene.backup_path("."), 0o755, 0o000);
    let output = Running::start(&mut user.command(&scene, ["status"])).finish();
    assert_eq!(output.code, Some(7), "{}", output.stderr);
    assert!(output.stderr.contains("/vm1/"), "{}", output.stderr);
    set_modes(&scene.backup_path("."), 0o755, 0o644);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn damage_on_a_read_only_medium_is_told_as_damage() {
    let (scene, _) = Scene::with_backups(1);
    let pack = scene.largest_pack();
    rewrite(&pack, |bytes| bytes[100_000] ^= 1);
    let mount = match Mount::read_only(&scene, &scene.backup_path(".")) {
        Ok(mount) => mount,
        Err(reason) => return skip("read-only medium", &reason),
    };
    scene.fails(4, ["-b", "mnt", "verify"]);
    scene.fails(4, ["-b", "mnt", "restore", "out"]);
    scene.fails(4, ["-b", "mnt", "restore", "--keep-going", "out"]);
    drop(mount);
    // Nor is an index that cannot be made anew the reason.
    fs::remove_file(pack).unwrap();
    fs::remove_file(scene.backup_path("index.redb")).unwrap();
    fs::remove_file(scene.path("out")).unwrap();
    fs::remove_dir(scene.path("mnt")).unwrap();
    let mount = Mount::read_only(&scene, &scene.backup_path(".")).unwrap();
    scene.fails(4, ["-b", "mnt", "verify"]);
    scene.fails(4, ["-b", "mnt", "restore", "--keep-going", "out"]);
    drop(mount);
}
