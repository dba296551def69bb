//! `init`.

use std::fs;

use crate::scene::{BACKUP_DIR, IMAGE, Scene};

#[test]
fn init_writes_configuration_and_store() {
    let scene = Scene::with_init();
    let config = String::from_utf8(fs::read(scene.backup_path("config")).unwrap()).unwrap();
    assert!(config.contains("type: file"), "{config}");
    assert!(config.contains(scene.path(IMAGE).to_str().unwrap()), "{config}");
    assert!(scene.backup_path("store.json").exists());
}

#[test]
fn init_never_overwrites_a_configuration() {
    let scene = Scene::with_init();
    let before = fs::read(scene.backup_path("config")).unwrap();
    let output = scene.fails(9, ["init", "file", "/other.img"]);
    assert!(output.stderr.contains("hint: "), "{}", output.stderr);
    assert_eq!(fs::read(scene.backup_path("config")).unwrap(), before);
}

#[test]
fn init_with_a_missing_source_warns() {
    let scene = Scene::new();
    let output = scene.succeeds(["init", "file", "later.img"]);
    assert!(output.stderr.contains("warning: "), "{}", output.stderr);
    scene.fails(3, ["backup"]);
    scene.write_image("later.img", 100_000, 1);
    scene.succeeds(["backup"]);
}

#[test]
fn init_with_a_directory_as_source_is_refused() {
    let scene = Scene::new();
    scene.fails(3, ["init", "file", "."]);
    assert!(!scene.path(BACKUP_DIR).exists());
}

#[test]
fn init_of_another_type_is_refused() {
    let scene = Scene::new();
    let output = scene.fails(2, ["init", "rbd", "pool/image"]);
    assert!(output.stderr.contains("whisper"), "{}", output.stderr);
}

#[test]
fn init_checks_chunking_and_compression() {
    let scene = Scene::new();
    scene.write_image(IMAGE, 100_000, 1);
    for options in [
        ["--chunk-size", "1,2,3"],
        ["--chunk-size", "64KiB"],
        ["--average-chunk-size", "65000"],
        ["--compression-level", "13"],
        ["--name", "a/b"],
    ] {
        let arguments = ["init", "file", IMAGE].into_iter().chain(options);
        scene.fails(2, arguments);
        assert!(!scene.backup_path("config").exists(), "{options:?}");
    }
    scene.succeeds([
        "init",
        "file",
        IMAGE,
        "--chunk-size",
        "4KiB,8KiB,64KiB",
        "--compression-level",
        "-3",
    ]);
    let info = scene.succeeds(["--json", "store", "info"]).json();
    assert_eq!(info["chunking"]["average"], 8 << 10);
    assert_eq!(info["compression_level"], -3);
}

#[test]
fn several_backup_directories_share_a_store() {
    let scene = Scene::new();
    for name in ["a", "b"] {
        scene.write_image(name, 300_000, 7);
        let directory = format!("{name}-backup");
        scene.succeeds(["-b", &directory, "init", "file", name, "--store", "store"]);
        scene.succeeds(["-b", &directory, "backup"]);
        let listed = scene.succeeds(["-b", &directory, "--json", "status"]).json();
        assert_eq!(listed.as_array().unwrap().len(), 1);
        assert_eq!(listed[0]["source"], directory);
    }
    let table = scene.succeeds(["-b", "store", "status"]);
    assert!(table.text().contains("Source") && table.text().contains("a-backup"));
    scene.succeeds(["-b", "store", "verify"]);
    scene.succeeds(["-b", "store", "restore", "-r", "1", "out"]);
    assert_eq!(scene.read("out"), scene.read("a"));
    scene.fails(2, ["-b", "store", "backup"]);
}

#[test]
fn name_that_has_revisions_in_a_shared_store_must_be_asked_for() {
    let scene = Scene::new();
    scene.write_image(IMAGE, 300_000, 7);
    scene.succeeds(["-b", "x/vm", "init", "file", IMAGE, "--store", "store"]);
    scene.succeeds(["-b", "x/vm", "backup"]);
    let again = ["-b", "y/vm", "init", "file", IMAGE, "--store", "store"];
    scene.fails(9, again);
    assert!(!scene.path("y/vm/config").exists());
    scene.succeeds(again.into_iter().chain(["--name", "vm"]));
    assert_eq!(scene.succeeds(["-b", "y/vm", "find"]).text().lines().count(), 1);
}

#[test]
fn wrong_configuration_is_a_usage_error() {
    let scene = Scene::with_init();
    scene.write("vm1/config", "source: {type: file, filename: /x}\nstroe: /y\n");
    let output = scene.fails(2, ["status"]);
    assert!(output.stderr.contains("stroe"), "{}", output.stderr);
}
