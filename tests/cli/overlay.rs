//! `backup --from-overlay`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use chunkstore::{ImageReader, Overlay, Store};

use crate::scene::{BACKUP_DIR, IMAGE, IMAGE_LEN, Scene, rewrite};

const OVERLAY: &str = "disk.overlay";

/// Creates an overlay over the newest revision, and writes to it.
fn create_overlay(scene: &Scene) -> Overlay {
    let store = Store::open(scene.path(BACKUP_DIR)).expect("the store can be opened");
    let id = scene.ids().last().and_then(|id| id.parse().ok()).expect("there is a revision");
    let base = Arc::new(ImageReader::open(&store, &id).expect("the revision can be read"));
    let overlay = Overlay::create(&scene.path(OVERLAY), base).expect("an overlay can be made");
    overlay.write(5000, &[7; 20_000]).expect("it can be written");
    overlay.write_zeroes(1 << 20, 100_000, true).expect("it can be written");
    overlay
}

fn changed(image: &[u8]) -> Vec<u8> {
    let mut expected = image.to_vec();
    expected[5000..25_000].fill(7);
    expected[1 << 20..(1 << 20) + 100_000].fill(0);
    expected
}

#[test]
fn overlay_becomes_a_revision_and_stays_as_it_is() {
    let (scene, image) = Scene::with_backup();
    let base = scene.ids();
    drop(create_overlay(&scene));
    let mode = scene.path(OVERLAY).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = scene.read(OVERLAY);
    let output = scene.succeeds(["backup", "--from-overlay", OVERLAY, "manual:fixed"]);
    assert!(output.stderr.contains("disk.overlay stays as it is"), "{}", output.stderr);
    assert!(scene.read(OVERLAY) == before);
    scene.succeeds(["restore", "restored.img"]);
    assert!(scene.read("restored.img") == changed(&image));
    assert_eq!(scene.tags("latest"), ["manual:fixed"]);
    scene.succeeds(["restore", "-r", &base[0], "base.img"]);
    assert!(scene.read("base.img") == image);
    // The same bytes as an image give nothing new.
    scene.write(IMAGE, changed(&image));
    let report = scene.succeeds(["--json", "backup"]).json();
    assert_eq!((&report["new_chunks"], &report["size"]), (&0.into(), &IMAGE_LEN.into()));
}

#[test]
fn report_names_the_revision_below_as_the_parent() {
    let (scene, _) = Scene::with_backups(1);
    drop(create_overlay(&scene));
    let base = scene.ids().remove(0);
    scene.write_image(IMAGE, IMAGE_LEN, 99);
    scene.succeeds(["backup"]);
    let report = scene.succeeds(["--json", "backup", "--from-overlay", OVERLAY]).json();
    assert_eq!(report["parent"], base.as_str());
    assert_eq!(report["source"], BACKUP_DIR);
    assert!(report["new_bytes"].as_u64().unwrap() < 1 << 20, "{report}");
}

#[test]
fn overlay_that_is_open_is_refused() {
    let (scene, _) = Scene::with_backup();
    let overlay = create_overlay(&scene);
    let output = scene.fails(11, ["backup", "--from-overlay", OVERLAY]);
    assert!(output.stderr.contains(OVERLAY), "{}", output.stderr);
    drop(overlay);
    scene.succeeds(["backup", "--from-overlay", OVERLAY]);
}

#[test]
fn wrong_arguments_and_wrong_files_leave_no_revision() {
    let (scene, _) = Scene::with_backup();
    drop(create_overlay(&scene));
    scene.fails(2, ["backup", "--from-overlay", OVERLAY, "daily"]);
    let both = ["backup", "--from-overlay", OVERLAY, "--source", "file:disk.img"];
    assert_eq!(scene.run(both).code, Some(2));
    assert_eq!(scene.run(["backup", "--from-overlay"]).code, Some(2));
    scene.fails(10, ["-b", "nowhere", "backup", "--from-overlay", OVERLAY]);
    for (name, code) in [("missing", 3), (IMAGE, 4), (BACKUP_DIR, 3)] {
        let output = scene.fails(code, ["backup", "--from-overlay", name]);
        assert!(output.stderr.contains(name), "{}", output.stderr);
    }
    scene.write("empty", b"");
    scene.fails(4, ["backup", "--from-overlay", "empty"]);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn overlay_of_another_store_or_another_source_is_refused() {
    let (scene, _) = Scene::with_backup();
    drop(create_overlay(&scene));
    scene.succeeds(["-b", "other", "init", "file", IMAGE]);
    let output = scene.fails(9, ["-b", "other", "backup", "--from-overlay", OVERLAY]);
    assert!(output.stderr.contains(OVERLAY), "{}", output.stderr);
    scene.succeeds(["-b", "vm2", "init", "file", IMAGE, "--store", BACKUP_DIR]);
    let output = scene.fails(9, ["-b", "vm2", "backup", "--from-overlay", OVERLAY]);
    assert!(output.stderr.contains("vm1"), "{}", output.stderr);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn overlay_of_a_forgotten_revision_names_it() {
    let (scene, _) = Scene::with_backups(2);
    drop(create_overlay(&scene));
    let base = scene.ids().remove(1);
    scene.succeeds(["forget", "-r", &base]);
    scene.succeeds(["purge", "--now"]);
    let output = scene.fails(10, ["backup", "--from-overlay", OVERLAY]);
    assert!(
        output.stderr.contains(&base) && output.stderr.contains("protect"),
        "{}",
        output.stderr
    );
}

fn flip(path: &Path, place: usize) {
    rewrite(path, |bytes| bytes[place] ^= 1);
}

#[test]
fn damaged_overlay_is_found_and_leaves_no_revision() {
    let (scene, _) = Scene::with_backup();
    drop(create_overlay(&scene));
    let path = scene.path(OVERLAY);
    // The header; then the page of the map, which nothing of the overlay can be read without.
    flip(&path, 100);
    let output = scene.fails(4, ["backup", "--from-overlay", OVERLAY]);
    assert!(output.stderr.contains(OVERLAY), "{}", output.stderr);
    flip(&path, 100);
    flip(&path, 3 * 4096 + 100);
    let output = scene.fails(3, ["backup", "--from-overlay", OVERLAY]);
    assert!(output.stderr.contains("map of bytes 0 to"), "{}", output.stderr);
    flip(&path, 3 * 4096 + 100);
    assert_eq!(scene.revision_count(), 1);
    scene.succeeds(["backup", "--from-overlay", OVERLAY]);
}
