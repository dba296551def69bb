//! What commands say about a store that is damaged, of another version, or no store at all.

use std::fs;

use crate::scene::{BACKUP_DIR, IMAGE_LEN, Scene, newer_config, rewrite};

fn flip_a_byte(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

#[test]
fn directory_without_a_store_is_named() {
    let scene = Scene::new();
    let commands: [&[&str]; 8] = [
        &["status"],
        &["find"],
        &["verify"],
        &["purge"],
        &["restore", "out"],
        &["forget", "-r", "0"],
        &["index", "rebuild"],
        &["store", "info"],
    ];
    for command in commands {
        let output = scene.fails(10, command);
        assert!(output.stderr.contains(BACKUP_DIR), "{}", output.stderr);
        assert!(output.stderr.contains("hint: "), "{}", output.stderr);
    }
    assert!(!scene.path(BACKUP_DIR).exists());
}

#[test]
fn configuration_without_its_store_is_no_backup() {
    let scene = Scene::with_init();
    fs::remove_file(scene.backup_path("store.json")).unwrap();
    scene.fails(10, ["status"]);
    scene.fails(10, ["backup"]);
}

#[test]
fn newer_format_is_refused() {
    let (scene, _) = Scene::with_backup();
    rewrite(&scene.backup_path("store.json"), |bytes| {
        *bytes = newer_config(bytes);
    });
    let commands: [&[&str]; 4] = [&["status"], &["backup"], &["restore", "out"], &["purge"]];
    for command in commands {
        scene.fails(6, command);
    }
}

#[test]
fn flipped_byte_in_a_pack_is_damage() {
    let (scene, _) = Scene::with_backup();
    rewrite(&scene.largest_pack(), |bytes| flip_a_byte(bytes));
    let output = scene.fails(4, ["restore", "out"]);
    assert!(output.stderr.contains("hint: "), "{}", output.stderr);
}

#[test]
fn verify_names_what_is_damaged() {
    let (scene, _) = Scene::with_backup();
    let id = scene.ids().remove(0);
    rewrite(&scene.largest_pack(), |bytes| flip_a_byte(bytes));
    let output = scene.run(["--json", "verify"]);
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    let damaged = &output.json()["damaged"][0];
    assert!(damaged["chunk"].is_string(), "{damaged}");
    assert_eq!(damaged["revisions"][0]["id"], id);
    assert!(damaged["revisions"][0]["ranges"][0][1].as_u64() > Some(0), "{damaged}");
}

#[test]
fn quarantined_chunk_is_named_and_counted_until_a_backup_heals_it() {
    let (scene, image) = Scene::with_backup();
    let id = scene.ids().remove(0);
    rewrite(&scene.largest_pack(), |bytes| flip_a_byte(bytes));
    let output = scene.run(["--json", "verify"]);
    let found = output.json();
    let chunk = found["damaged"][0]["chunk"].as_str().unwrap();
    let counts = || {
        let info = scene.succeeds(["--json", "store", "info"]).json();
        [info["quarantined_chunks"].clone(), info["unhealed_chunks"].clone()]
    };
    assert_eq!(counts(), [1, 1]);
    assert_eq!(scene.succeeds(["--json", "status"]).json()[0]["trust"], "damaged");
    for command in [&["restore", "out"][..], &["verify"], &["scrub"]] {
        let output = scene.fails(4, command);
        assert!(output.stderr.contains(chunk), "{}", output.stderr);
        assert!(output.stderr.contains("quarantine"), "{}", output.stderr);
    }
    let info = scene.succeeds(["store", "info"]);
    let info = String::from_utf8(info.stdout).unwrap();
    assert!(info.contains("lost until a backup meets them"), "{info}");

    let output = scene.succeeds(["--json", "backup"]);
    assert!(output.stderr.contains(&format!("revision {id} is healed")), "{}", output.stderr);
    let backup = output.json();
    assert_eq!((&backup["healed"], &backup["new_chunks"]), (&serde_json::json!([id]), &1.into()));
    assert_eq!(counts(), [1, 0]);
    scene.succeeds(["verify", "--all-data"]);
    scene.succeeds(["scrub"]);
    scene.succeeds(["restore", "-r", "1", "older"]);
    assert!(scene.read("older") == image);
}

#[test]
fn keep_going_restores_what_is_left() {
    let (scene, image) = Scene::with_backup();
    rewrite(&scene.largest_pack(), |bytes| flip_a_byte(bytes));
    let output = scene.fails(4, ["restore", "--keep-going", "out"]);
    assert!(output.stderr.contains("warning: revision "), "{}", output.stderr);
    let restored = scene.read("out");
    assert_eq!(restored.len(), IMAGE_LEN);
    assert!(restored != image);
    let wrong = restored.iter().zip(&image).filter(|(found, expected)| found != expected);
    assert!(wrong.clone().count() <= 256 << 10, "one chunk at most is lost");
    assert!(wrong.into_iter().all(|(found, _)| *found == 0), "what is lost reads as zeros");
}

#[test]
fn missing_pack_is_damage() {
    let (scene, _) = Scene::with_backup();
    fs::remove_file(scene.largest_pack()).unwrap();
    scene.fails(4, ["restore", "out"]);
    scene.fails(4, ["verify"]);
    scene.succeeds(["status"]);
}

#[test]
fn backup_of_the_same_image_heals_a_missing_pack() {
    let (scene, image) = Scene::with_backup();
    fs::remove_file(scene.largest_pack()).unwrap();
    scene.run(["verify"]);
    scene.succeeds(["backup"]);
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == image);
    scene.succeeds(["restore", "-r", "1", "older"]);
    assert!(scene.read("older") == image);
}

#[test]
fn deleted_index_is_made_anew() {
    let (scene, image) = Scene::with_backup();
    fs::remove_file(scene.backup_path("index.redb")).unwrap();
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == image);
    scene.succeeds(["backup"]);
    scene.succeeds(["verify"]);
}

#[test]
fn garbage_in_the_place_of_the_index_is_made_anew() {
    let (scene, image) = Scene::with_backup();
    rewrite(&scene.backup_path("index.redb"), |bytes| bytes.fill(0x5a));
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == image);
    scene.succeeds(["backup"]);
    scene.succeeds(["verify"]);
}
