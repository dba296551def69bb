//! The beginning: one command, and the general commands on a whisper source.

use std::fs;

use super::trees::{METRICS, TREE, content, read, scene, write};
use crate::scene::Scene;

#[track_caller]
fn assert_restores(scene: &Scene, target: &str) {
    for metric in METRICS {
        assert!(read(scene, target, metric) == read(scene, TREE, metric), "{metric}");
    }
}

#[test]
fn one_command_begins_the_backup_of_a_tree() {
    let scene = scene();
    let first = scene.succeeds(["-b", "new", "whisper", "backup", "-p", TREE]);
    assert!(first.text().contains("4 metrics (0 unchanged, 4 new)"), "{}", first.text());
    assert!(first.stderr.contains("new is now a backup directory"), "{}", first.stderr);
    assert!(scene.path("new/whisper.success").exists());
    let second = scene.succeeds(["-b", "new", "whisper", "backup"]);
    assert!(second.text().contains("4 metrics (4 unchanged)"), "{}", second.text());
    scene.succeeds(["-b", "new", "whisper", "restore", "-p", "out"]);
    assert_restores(&scene, "out");
}

#[test]
fn directory_that_is_there_and_empty_is_as_good_as_none() {
    let scene = scene();
    fs::create_dir(scene.path("new")).unwrap();
    scene.succeeds(["-b", "new", "whisper", "backup", "-p", TREE]);
    scene.succeeds(["-b", "new", "verify"]);
}

#[test]
fn source_option_of_backup_begins_the_backup_of_a_tree() {
    let scene = scene();
    let output = scene.succeeds(["backup", "--source", "whisper:tree"]);
    assert!(output.text().contains("4 metrics"), "{}", output.text());
    let status = scene.succeeds(["--json", "status"]).json();
    assert_eq!(status[0]["kind"], "tree");
    assert_eq!(status[0]["tags"][0], "manual:cli");
    // What was begun so, goes on with the other commands.
    scene.succeeds(["whisper", "backup"]);
    assert_eq!(scene.tags("all"), ["manual:cli", "whisper"]);
}

#[test]
fn general_commands_do_all_that_is_needed() {
    let scene = scene();
    scene.succeeds(["init", "whisper", TREE]);
    let config = String::from_utf8(scene.read("vm1/config")).unwrap();
    assert!(config.contains("type: whisper"), "{config}");
    scene.succeeds(["backup"]);
    let first = METRICS.map(|metric| read(&scene, TREE, metric));
    write(&scene, "top", &content(100));
    let document = scene.succeeds(["--json", "backup"]).json();
    assert_eq!((&document["files"], &document["changed_files"]), (&4.into(), &1.into()));
    let status = scene.succeeds(["--json", "status"]).json();
    assert_eq!((&status[0]["kind"], &status[1]["kind"]), (&"tree".into(), &"tree".into()));
    assert_eq!(status[0]["complete"], true);
    scene.succeeds(["verify", "--all-data"]);
    scene.succeeds(["scrub"]);
    scene.succeeds(["restore", "out"]);
    assert_restores(&scene, "out");
    scene.succeeds(["restore", "-r", "first", "older"]);
    for (metric, bytes) in METRICS.iter().zip(&first) {
        assert!(read(&scene, "older", metric) == *bytes, "{metric}");
    }
    let refused = scene.fails(3, ["restore", "-r", "first", "out"]);
    assert!(refused.stderr.contains("top.wsp"), "{}", refused.stderr);
    scene.succeeds(["restore", "-r", "first", "--overwrite", "out"]);
    assert!(read(&scene, "out", "top") == first[3]);
    scene.fails(2, ["restore", "-"]);

    scene.succeeds(["tags", "set", "-r", "first", "manual:gone"]);
    scene.succeeds(["forget", "-r", "first"]);
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["verify"]);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn schedule_keeps_complete_revisions_and_expiry_thins_the_others() {
    let scene = scene();
    scene.succeeds(["init", "whisper", TREE]);
    let config = String::from_utf8(scene.read("vm1/config")).unwrap();
    let schedule = "schedule:\n  daily: {interval: 1d, keep: 3}\nwhisper: {retention: 2}\n";
    scene.write("vm1/config", format!("{}\n{schedule}", config.trim_end()));
    scene.succeeds(["backup", "daily"]);
    for seed in 10..15 {
        write(&scene, "top", &content(seed));
        // Its own tag is none of the schedule.
        scene.succeeds(["whisper", "backup", "-r", "9"]);
    }
    let output = scene.succeeds(["--json", "expire"]).json();
    assert!(output.is_object(), "{output}");
    scene.succeeds(["restore", "-r", "first", "complete"]);
    assert_eq!(METRICS.map(|metric| read(&scene, "complete", metric)).len(), 4);
    scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert_restores(&scene, "out");
    scene.succeeds(["verify", "-r", "all"]);
}

#[test]
fn commands_in_a_directory_that_is_no_backup_directory_leave_nothing_in_it() {
    let scene = scene();
    fs::create_dir(scene.path("vm1")).unwrap();
    scene.write("vm1/notes", "mine");
    for (code, command) in [
        (10, &["whisper", "backup"][..]),
        (9, &["whisper", "backup", "-p", TREE]),
        (10, &["whisper", "restore"]),
        (10, &["whisper", "list"]),
        (10, &["whisper", "purge"]),
    ] {
        let output = scene.fails(code, command);
        assert!(output.stderr.contains("vm1"), "{}", output.stderr);
        let names: Vec<_> = fs::read_dir(scene.path("vm1")).unwrap().collect();
        assert_eq!(names.len(), 1, "{command:?} left {names:?}");
    }
    assert_eq!(scene.read("vm1/notes"), b"mine");
}
