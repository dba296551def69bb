//! Chunks of whisper files that are damaged: found, named, left out of a restore, healed.

use super::trees::{METRICS, TREE, content, metric_path, noise, read, scene_with_backup, write};
use crate::scene::{Scene, files_below, rewrite};

/// Flips a bit of the newest metric's chunks: what is new in the last revision. Returns a scene with two revisions; `top`
/// has its own content in each of them.
fn scene_with_damage() -> Scene {
    let scene = scene_with_backup();
    let before = files_below(&scene.backup_path("packs"));
    write(&scene, "top", &noise(60));
    scene.succeeds(["whisper", "backup"]);
    let packs = files_below(&scene.backup_path("packs")).into_iter();
    let new = packs.filter(|path| !before.contains(path));
    // Points are more than the lists that name them.
    let pack = new.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    rewrite(&pack, |bytes| {
        let place = bytes.len() / 3;
        bytes[place] ^= 1;
    });
    scene
}

#[test]
fn verify_names_chunk_and_revision() {
    let scene = scene_with_damage();
    let ids = scene.ids();
    let output = scene.run(["--json", "verify", "-r", "all", "--all-data"]);
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    let document = output.json();
    let damaged = document["damaged"].as_array().unwrap();
    assert_eq!(damaged.len(), 1, "{document}");
    let chunk = damaged[0]["chunk"].as_str().unwrap();
    assert_eq!(damaged[0]["revisions"][0]["id"], ids[1], "{document}");
    assert_eq!(damaged[0]["revisions"].as_array().unwrap().len(), 1);
    let text = scene.fails(4, ["verify", "-r", "0"]);
    assert!(text.stderr.contains(chunk) && text.stderr.contains(&ids[1]), "{}", text.stderr);
    scene.succeeds(["verify", "-r", "1"]);
}

#[test]
fn restore_skips_the_damaged_metric_and_counts_it() {
    let scene = scene_with_damage();
    for command in
        [&["--json", "whisper", "restore", "-p", "out"][..], &["--json", "restore", "out2"]]
    {
        let output = scene.run(command);
        assert_eq!(output.code, Some(4), "{}", output.stderr);
        let document = output.json();
        assert_eq!((&document["files"], &document["problem_count"]), (&4.into(), &1.into()));
        assert_eq!(document["damage_count"], 1);
        assert_eq!(document["problems"][0]["path"], "top.wsp");
        assert_eq!(document["problems"][0]["damage"], true);
    }
    for target in ["out", "out2"] {
        assert!(METRICS[..3].iter().all(|it| read(&scene, target, it) == read(&scene, TREE, it)));
        assert!(!scene.path(metric_path(target, "top")).exists(), "nothing half is there");
    }
    let text = scene.fails(4, ["whisper", "restore", "-p", "out3"]);
    assert!(text.stderr.contains("warning: top.wsp: "), "{}", text.stderr);
    // The live file is not touched.
    let before = read(&scene, TREE, "top");
    scene.fails(4, ["whisper", "restore", "-m", "t?p", "-p", "out4"]);
    assert!(read(&scene, TREE, "top") == before);
}

#[test]
fn backup_that_reads_everything_heals() {
    for command in [&["backup", "--read-all"][..], &["whisper", "backup", "--read-all"]] {
        let scene = scene_with_damage();
        let id = scene.ids().remove(1);
        scene.fails(4, ["verify", "-r", "all", "--all-data"]);
        let output = scene.succeeds(command);
        assert!(output.stderr.contains(&format!("revision {id} is healed")), "{}", output.stderr);
        scene.succeeds(["verify", "-r", "all", "--all-data"]);
        scene.succeeds(["whisper", "restore", "-p", "out"]);
        assert!(read(&scene, "out", "top") == read(&scene, TREE, "top"));
    }
}

#[test]
fn damage_is_healed_by_a_usual_backup_too_once_it_is_known() {
    let scene = scene_with_damage();
    scene.fails(4, ["verify", "-r", "all", "--all-data"]);
    scene.succeeds(["whisper", "backup"]);
    scene.succeeds(["verify", "-r", "all", "--all-data"]);
    scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert!(read(&scene, "out", "top") == read(&scene, TREE, "top"));
}

#[test]
fn retention_does_not_judge_what_it_cannot_read() {
    let scene = scene_with_backup();
    for seed in 60..63 {
        write(&scene, "top", &content(seed));
        scene.succeeds(["whisper", "backup"]);
    }
    // Every pack: the lists are among them.
    for pack in files_below(&scene.backup_path("packs")) {
        rewrite(&pack, |bytes| {
            for place in (bytes.len() / 8..bytes.len()).step_by(64) {
                bytes[place] ^= 1;
            }
        });
    }
    let ids = scene.ids();
    let output = scene.run(["whisper", "purge", "-x", "0"]);
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert_eq!(scene.ids(), ids);
    scene.fails(4, ["whisper", "list"]);
}
