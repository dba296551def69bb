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
fn purge_takes_only_what_the_forgotten_revision_had_for_itself() {
    let (scene, images) = Scene::with_backups(4);
    let ids = scene.ids();
    scene.succeeds(["forget", "-r", "2"]);
    let left: Vec<_> = ids.iter().enumerate().filter(|(age, _)| *age != 1).collect();
    assert_eq!(scene.ids(), left.iter().map(|(_, id)| (*id).clone()).collect::<Vec<_>>());
    for command in [&["purge", "--now"][..], &["purge", "--now"], &["index", "rebuild"]] {
        scene.succeeds(command);
        for (number, id) in &left {
            let output = scene.succeeds(["restore", "-r", id.as_str(), "-"]);
            assert!(output.stdout == images[*number], "{number} after {command:?}");
        }
    }
    scene.succeeds(["verify", "-r", "all"]);
}

#[test]
fn purge_keeps_what_two_revisions_share_and_removes_what_killed_backups_left() {
    let (scene, image) = Scene::with_backup();
    scene.succeeds(["backup"]);
    scene.succeeds(["forget", "-r", "1"]);
    fs::write(scene.backup_path("tmp/0123456789abcdef0123456789abcdef"), "left").unwrap();
    scene.succeeds(["purge", "--now"]);
    assert_eq!(files_below(&scene.backup_path("tmp")), Vec::<std::path::PathBuf>::new());
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == image);
    scene.succeeds(["verify"]);
}

#[test]
fn purge_tells_the_same_before_and_after() {
    let (scene, images) = Scene::with_backups(12);
    scene.succeeds(["forget", "-r", "3"]);
    let census = || {
        let files = files_below(&scene.backup_path("."));
        files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = census();
    let told = scene.succeeds(["--json", "purge", "--now", "--dry-run"]).json();
    assert!(census() == before, "a dry run changes nothing");
    let done = scene.succeeds(["--json", "purge", "--now"]).json();
    for key in ["freed_bytes", "repacked_bytes", "kept_bytes", "deferred_bytes", "waiting"] {
        assert_eq!(told[key], done[key], "{key}");
    }
    assert!(0 < done["repacked_bytes"].as_u64().unwrap(), "{done}");
    assert_eq!(files_below(&scene.backup_path("packs")).len(), 2);
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == images[11]);
}

#[test]
fn purge_says_until_when_the_grace_lasts() {
    let (scene, _) = Scene::with_backups(2);
    scene.succeeds(["forget", "-r", "1"]);
    for arguments in [&["purge", "--dry-run"][..], &["purge"]] {
        let output = scene.succeeds(arguments);
        let line = output.text().lines().nth(1).unwrap();
        assert!(line.starts_with("deferred: "), "{line}");
        assert!(line.contains(" waits for the grace, until 20"), "{line}");
    }
    let info = scene.succeeds(["--json", "store", "info"]).json();
    assert!(0 < info["condemned_bytes"].as_u64().unwrap(), "{info}");
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
