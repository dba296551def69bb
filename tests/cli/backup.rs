//! `backup`, its tags, and the start with one command.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::scene::{BACKUP_DIR, IMAGE, Scene};

#[test]
fn one_command_gives_a_beginner_a_backup() {
    let scene = Scene::new();
    scene.write_image(IMAGE, 1_000_000, 3);
    let source = format!("file:{IMAGE}");
    scene.succeeds(["backup", "--source", &source]);
    scene.succeeds(["backup", "--source", &source]);
    assert_eq!(scene.revision_count(), 2);
    fs::create_dir(scene.path("empty")).unwrap();
    scene.succeeds(["-b", "empty", "backup", "--source", &source]);
}

#[test]
fn start_with_a_missing_source_leaves_nothing() {
    let scene = Scene::new();
    scene.fails(3, ["backup", "--source", "file:missing.img"]);
    assert!(!scene.path(BACKUP_DIR).exists());
}

#[test]
fn start_in_a_foreign_directory_is_refused() {
    let scene = Scene::new();
    scene.write_image(IMAGE, 1_000_000, 3);
    scene.fails(9, ["-b", ".", "backup", "--source", "file:disk.img"]);
    assert!(!scene.path("store.json").exists());
}

#[test]
fn start_that_was_interrupted_is_taken_up_by_the_same_command() {
    let scene = Scene::with_init();
    // As far as it is before the store has its configuration.
    for name in ["config", "store.json", "index.redb", "ballast"] {
        fs::remove_file(scene.backup_path(name)).unwrap();
    }
    fs::remove_dir(scene.backup_path("condemned")).unwrap();
    scene.write("vm1/tmp/0123", "half a store.json");
    scene.succeeds(["backup", "--source", "file:disk.img"]);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn another_source_than_the_configured_one_is_refused() {
    let scene = Scene::with_init();
    scene.write_image("other.img", 1000, 3);
    scene.fails(9, ["backup", "--source", "file:other.img"]);
    scene.fails(2, ["backup", "--source", "rbd:pool/image"]);
    scene.fails(2, ["backup", "--source", "disk.img"]);
    assert_eq!(scene.revision_count(), 0);
}

#[test]
fn backup_without_a_backup_directory_says_how_to_begin() {
    let scene = Scene::new();
    let output = scene.fails(10, ["backup"]);
    assert!(output.stderr.contains("hint: `backy -b vm1 init"), "{}", output.stderr);
}

#[test]
fn tags_come_from_the_schedule_or_are_manual() {
    let scene = Scene::with_init();
    let output = scene.fails(2, ["backup", "daily"]);
    assert!(output.stderr.contains("daily"), "{}", output.stderr);
    scene.fails(2, ["backup", "manual:a,daily"]);
    scene.fails(2, ["backup", "a b", "-f"]);
    assert_eq!(scene.revision_count(), 0);
    scene.succeeds(["backup", "-f", "daily"]);
    scene.succeeds(["backup", "manual:a,manual:b"]);
    let config = String::from_utf8(scene.read("vm1/config")).unwrap();
    let schedule = "schedule:\n  weekly: {interval: 1w, keep: 5}\n";
    scene.write("vm1/config", format!("{config}\n{schedule}"));
    scene.succeeds(["backup", "weekly"]);
    scene.fails(2, ["backup", "monthly"]);
    let listed = scene.succeeds(["--json", "status", "-r", "reverse(all)"]).json();
    let tags: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["tags"].clone()).collect();
    assert_eq!(tags[0], serde_json::json!(["weekly"]));
    assert_eq!(tags[1], serde_json::json!(["manual:a", "manual:b"]));
    assert_eq!(tags[2], serde_json::json!(["daily"]));
}

#[test]
fn source_that_cannot_be_read_gives_no_revision() {
    let scene = Scene::with_init();
    fs::remove_file(scene.path(IMAGE)).unwrap();
    let output = scene.fails(3, ["backup"]);
    assert!(output.stderr.contains(IMAGE), "{}", output.stderr);
    fs::create_dir(scene.path(IMAGE)).unwrap();
    scene.fails(3, ["backup"]);
    assert_eq!(scene.revision_count(), 0);
}

#[test]
fn source_in_an_unreadable_directory_gives_no_revision() {
    let scene = Scene::new();
    fs::create_dir(scene.path("private")).unwrap();
    scene.write_image("private/disk.img", 1000, 1);
    scene.succeeds(["init", "file", "private/disk.img"]);
    let set_mode = |mode| {
        fs::set_permissions(scene.path("private"), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o000);
    // Root reads everything.
    let is_root = fs::read(scene.path("private/disk.img")).is_ok();
    let output = scene.run(["backup"]);
    set_mode(0o700);
    assert_eq!(output.code, Some(if is_root { 0 } else { 3 }), "{}", output.stderr);
}

#[test]
fn empty_and_tiny_images_are_backed_up() {
    for len in [0, 1, 4096, (4 << 20) + 1] {
        let scene = Scene::new();
        scene.write(IMAGE, vec![7; len]);
        scene.succeeds(["backup", "--source", "file:disk.img"]);
        scene.succeeds(["restore", "out"]);
        assert_eq!(scene.read("out"), vec![7; len], "{len} bytes");
        scene.succeeds(["verify"]);
    }
}

#[test]
fn log_file_has_the_command_and_its_end() {
    let scene = Scene::with_init();
    scene.succeeds(["-l", "backy.log", "backup"]);
    scene.fails(10, ["-l", "backy.log", "restore", "-r", "99", "out"]);
    let log = String::from_utf8(scene.read("backy.log")).unwrap();
    assert!(log.contains("INFO $ ") && log.contains(" backup\n"), "{log}");
    assert!(log.contains("Backy operation complete."), "{log}");
    assert!(log.contains("ERROR ") && log.contains("Backy operation failed."), "{log}");
    scene.fails(2, ["-l", "no/such/directory/log", "status"]);
}
