//! `restore` to files and to stdout.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::scene::{IMAGE, IMAGE_LEN, Scene};

#[test]
fn each_revision_restores_to_what_the_image_was() {
    let (scene, images) = Scene::with_backups(4);
    for (number, image) in images.iter().rev().enumerate() {
        let target = format!("out{number}");
        scene.succeeds(["restore", "-r", &number.to_string(), &target]);
        assert!(scene.read(&target) == *image, "revision {number} differs");
    }
    scene.succeeds(["restore", "newest"]);
    assert!(scene.read("newest") == images[3]);
}

#[test]
fn stdout_has_the_image_and_nothing_else() {
    let (scene, image) = Scene::with_backup();
    for options in [&["restore", "-"][..], &["--json", "restore", "-"], &["-v", "restore", "-"]] {
        assert!(scene.succeeds(options).stdout == image, "{options:?}");
    }
    scene.fails(2, ["restore", "--verify", "-"]);
    scene.fails(2, ["restore", "--delta", "-"]);
}

#[test]
fn existing_target_needs_overwrite() {
    let (scene, image) = Scene::with_backup();
    scene.write("out", "precious");
    let output = scene.fails(9, ["restore", "out"]);
    assert!(output.stderr.contains("hint: use --overwrite"), "{}", output.stderr);
    assert_eq!(scene.read("out"), b"precious");
    scene.succeeds(["restore", "--overwrite", "out"]);
    assert!(scene.read("out") == image);
}

#[test]
fn longer_target_ends_with_the_right_length() {
    let (scene, image) = Scene::with_backup();
    scene.write("out", vec![0xff; 2 * IMAGE_LEN]);
    scene.succeeds(["restore", "--overwrite", "out"]);
    assert!(scene.read("out") == image);
}

#[test]
fn delta_writes_only_what_differs_and_goes_on_where_it_was_interrupted() {
    let (scene, image) = Scene::with_backup();
    let delta = |arguments: &[&str]| {
        let options = ["--json", "restore", "--delta"];
        scene.succeeds(options.iter().chain(arguments)).json()
    };
    // A target that is not there is written whole.
    let report = delta(&["out"]);
    assert_eq!(report["kept_bytes"], 0);
    assert!(scene.read("out") == image);
    let data = report["written_bytes"].as_u64().unwrap();
    assert_ne!(data, 0);

    let report = delta(&["out"]);
    assert_eq!((&report["written_bytes"], &report["kept_bytes"]), (&0.into(), &data.into()));
    for sparse in ["auto", "never", "always"] {
        // One byte in the data, one where zeros belong if there are any, and a tail.
        let mut other = image.clone();
        other[5000] ^= 1;
        let zero = image.windows(4096).position(|window| window.iter().all(|byte| *byte == 0));
        if let Some(zero) = zero {
            other[zero + 4095] = 1;
        }
        other.extend_from_slice(&[0xff; 5000]);
        scene.write("out", &other);
        let report = delta(&["--sparse", sparse, "out"]);
        assert!(scene.read("out") == image, "{sparse}");
        let written = report["written_bytes"].as_u64().unwrap();
        assert!(0 < written && written < data, "{written} of {data}");
        assert_eq!(written + report["kept_bytes"].as_u64().unwrap(), data);
    }
    // What a restore that was interrupted left behind: the beginning.
    scene.write("out", &image[..image.len() / 2]);
    let report = delta(&["--verify", "out"]);
    assert!(scene.read("out") == image);
    assert_ne!(report["kept_bytes"], 0);
}

#[test]
fn source_itself_can_be_overwritten() {
    let (scene, image) = Scene::with_backup();
    scene.write(IMAGE, "broken");
    scene.fails(9, ["restore", IMAGE]);
    scene.succeeds(["restore", "--overwrite", IMAGE]);
    assert!(scene.read(IMAGE) == image);
}

#[test]
fn files_of_the_backup_itself_are_no_targets() {
    let (scene, _) = Scene::with_backup();
    let pack = scene.largest_pack();
    let pack = pack.to_str().unwrap();
    for target in ["vm1/config", "vm1/store.json", "vm1/packs/new", "vm1/tmp/new", pack] {
        let before = fs::read(scene.path(target)).ok();
        scene.fails(9, ["restore", "--overwrite", target]);
        assert_eq!(fs::read(scene.path(target)).ok(), before, "{target}");
    }
    std::os::unix::fs::symlink("vm1/store.json", scene.path("link")).unwrap();
    scene.fails(9, ["restore", "--overwrite", "link"]);
    scene.succeeds(["restore", "vm1/restored.img"]);
    scene.succeeds(["verify"]);
}

#[test]
fn directory_is_no_target() {
    let (scene, _) = Scene::with_backup();
    fs::create_dir(scene.path("out")).unwrap();
    scene.fails(9, ["restore", "--overwrite", "out"]);
    scene.fails(8, ["restore", "no/such/directory/out"]);
}

#[test]
fn zeros_become_holes_unless_that_is_not_wanted() {
    let scene = Scene::new();
    let mut image = vec![0; 8 << 20];
    image[..100].fill(1);
    scene.write(IMAGE, &image);
    scene.succeeds(["backup", "--source", "file:disk.img"]);
    for (when, is_sparse) in [("auto", true), ("always", true), ("never", false)] {
        scene.succeeds(["restore", "--sparse", when, when]);
        assert!(scene.read(when) == image, "{when}");
        let metadata = fs::metadata(scene.path(when)).unwrap();
        assert_eq!(metadata.blocks() * 512 < 4 << 20, is_sparse, "{when}");
    }
}

#[test]
fn restore_reads_back_when_asked() {
    let (scene, image) = Scene::with_backup();
    scene.succeeds(["restore", "--verify", "out"]);
    assert!(scene.read("out") == image);
}

#[test]
fn restore_needs_exactly_one_revision() {
    let (scene, _) = Scene::with_backups(2);
    scene.fails(2, ["restore", "-r", "all", "out"]);
    scene.fails(10, ["restore", "-r", "tag:none", "out"]);
    assert!(!scene.path("out").exists());
}
