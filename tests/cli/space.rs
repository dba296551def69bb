//! `purge`, `index rebuild`, `store info`, `status --space`, `completions`.

use std::fs;

use crate::scene::{Scene, files_below};

#[test]
fn purge_gives_space_back_now_or_later() {
    let (scene, images) = Scene::with_backups(2);
    let size = || -> u64 {
        let packs = files_below(&scene.backup_path("packs"));
        packs.iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    };
    let before = size();
    scene.succeeds(["forget", "-r", "1"]);
    let output = scene.succeeds(["purge", "--dry-run"]);
    assert!(output.text().starts_with("would free "), "{}", output.text());
    assert_eq!(size(), before);
    scene.succeeds(["purge"]);
    scene.succeeds(["purge", "--now"]);
    assert!(size() < before);
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == images[1]);
    scene.succeeds(["verify"]);
}

#[test]
fn purge_of_an_empty_history_succeeds() {
    let scene = Scene::with_init();
    scene.succeeds(["purge", "--now"]);
}

#[test]
fn index_is_rebuilt() {
    let (scene, image) = Scene::with_backup();
    let output = scene.succeeds(["index", "rebuild"]);
    assert!(output.text().starts_with("rebuilt the index: "), "{}", output.text());
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == image);
}

#[test]
fn store_info_tells_sizes_and_parameters() {
    let (scene, _) = Scene::with_backup();
    let output = scene.succeeds(["store", "info"]);
    for text in ["Format:", "Stored:", "16.0 KiB, 64.0 KiB, 256.0 KiB"] {
        assert!(output.text().contains(text), "{text} {}", output.text());
    }
}

#[test]
fn status_tells_the_space_of_revisions_when_asked() {
    let (scene, _) = Scene::with_backups(2);
    let plain = scene.succeeds(["--json", "status"]).json();
    assert_eq!(plain[0].get("exclusive_bytes"), None);
    let status = scene.succeeds(["--json", "status", "--space"]).json();
    let before = scene.succeeds(["--json", "purge", "--dry-run"]).json();
    assert_eq!(before["freed_bytes"], 0);
    let exclusive = status[0]["exclusive_bytes"].as_u64().unwrap();
    assert!(1 << 20 < exclusive && status[0]["shared_bytes"].is_u64(), "{status}");
    let text = scene.succeeds(["status", "--space"]);
    assert!(text.text().contains("Shared") && text.text().contains("Exclusive"), "{}", text.text());

    scene.succeeds(["forget", "-r", "first"]);
    let freed = scene.succeeds(["--json", "purge", "--now"]).json()["freed_bytes"].as_u64();
    // Packs have a header and a table besides their records.
    assert!((exclusive..exclusive + (20 << 10)).contains(&freed.unwrap()), "{exclusive} {freed:?}");
    assert_eq!(scene.run(["status", "--space", "--yaml"]).code, Some(2));
}

#[test]
fn completions_are_printed_for_each_shell() {
    let scene = Scene::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(scene.succeeds(["completions", shell]).text().contains("backup-dir"), "{shell}");
    }
    scene.fails(2, ["completions", "none"]);
}
