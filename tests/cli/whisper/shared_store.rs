//! One store for an image and a tree: neither harms the other.

use super::trees::{METRICS, TREE, content, read, scene, versions, write};
use crate::scene::{IMAGE, IMAGE_LEN};

#[test]
fn image_and_tree_share_a_store() {
    let scene = scene();
    scene.write_image(IMAGE, IMAGE_LEN, 1);
    let store = scene.path("store").display().to_string();
    scene.succeeds(["-b", "image", "init", "file", IMAGE, "--store", &store]);
    scene.succeeds(["init", "whisper", TREE, "--store", &store]);
    scene.succeeds(["-b", "image", "backup"]);
    scene.succeeds(["whisper", "backup"]);
    let first = scene.read(IMAGE);
    for seed in 50..54 {
        write(&scene, "top", &content(seed));
        scene.write_image(IMAGE, IMAGE_LEN, u64::from(seed));
        scene.succeeds(["whisper", "backup", "-r", "2"]);
        scene.succeeds(["-b", "image", "backup"]);
    }
    assert_eq!(versions(&scene, "top").len(), 2);
    scene.succeeds(["-b", "image", "purge", "--now"]);
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["whisper", "purge", "-x", "0"]);
    for directory in ["image", "vm1"] {
        scene.succeeds(["-b", directory, "verify", "-r", "all", "--all-data"]);
        scene.succeeds(["-b", directory, "scrub"]);
    }
    scene.succeeds(["-b", "image", "restore", "-r", "first", "out.img"]);
    assert!(scene.read("out.img") == first);
    scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert!(METRICS.iter().all(|it| read(&scene, "out", it) == read(&scene, TREE, it)));

    let image = scene.succeeds(["-b", "image", "--json", "status"]).json();
    let kinds = image.as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap());
    assert_eq!(kinds.collect::<Vec<_>>(), ["image"; 5]);
    let tree = scene.succeeds(["--json", "status"]).json();
    assert!(tree.as_array().unwrap().iter().all(|it| it["kind"] == "tree"));
    scene.fails(9, ["-b", "image", "whisper", "list"]);
}

#[test]
fn tree_that_is_forgotten_leaves_the_image() {
    let scene = scene();
    scene.write_image(IMAGE, IMAGE_LEN, 1);
    let store = scene.path("store").display().to_string();
    scene.succeeds(["-b", "image", "init", "file", IMAGE, "--store", &store]);
    scene.succeeds(["init", "whisper", TREE, "--store", &store]);
    scene.succeeds(["-b", "image", "backup"]);
    scene.succeeds(["whisper", "backup"]);
    scene.succeeds(["forget", "-r", "all"]);
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["-b", "image", "restore", "out.img"]);
    assert!(scene.read("out.img") == scene.read(IMAGE));
    scene.succeeds(["whisper", "backup"]);
    scene.succeeds(["-b", "image", "forget", "-r", "all"]);
    scene.succeeds(["-b", "image", "purge", "--now"]);
    scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert!(METRICS.iter().all(|it| read(&scene, "out", it) == read(&scene, TREE, it)));
}
