//! Faults of whisper-backup 0.3.0, and what its README has left to do: none of them is here.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::trees::{
    METRICS, TREE, back_up_days_ago, content, date_days_ago, lock, metric_path, noise, read,
    remove, scene, scene_with_backup, snapshot, versions, wait_until_open, write,
};
use crate::scene::{Scene, files_below};
use crate::system::running::Running;

/// Returns a scene whose backup directory has no revision yet.
fn scene_with_init() -> Scene {
    let scene = scene();
    scene.succeeds(["init", "whisper", TREE]);
    scene
}

#[test]
fn purge_that_is_turned_off_purges_nothing() {
    let scene = scene_with_init();
    for days in [300, 200, 100] {
        back_up_days_ago(&scene, days);
    }
    remove(&scene, "top");
    back_up_days_ago(&scene, 0);
    for command in [&["whisper", "purge", "-x", "-1"][..], &["whisper", "backup", "-x", "-1"]] {
        scene.succeeds(command);
        assert_eq!(versions(&scene, "top").len(), 1);
    }
}

#[test]
fn noop_works_for_backup_and_purge() {
    let scene = scene_with_backup();
    write(&scene, "new", &content(50));
    remove(&scene, "top");
    let backup = scene.succeeds(["whisper", "backup", "-n"]);
    assert!(backup.text().contains("1 new") && backup.text().contains("1 gone"), "{backup:?}");
    scene.succeeds(["whisper", "backup", "-x", "-1"]);
    let purge = scene.succeeds(["whisper", "purge", "-n", "-x", "0"]);
    assert!(purge.text().starts_with("1 metric would be forgotten"), "{}", purge.text());
    assert_eq!(versions(&scene, "top").len(), 1);
}

#[test]
fn live_metrics_that_do_not_change_are_never_purged() {
    // The prefix is given as it is, with a slash behind it, and as an absolute path.
    let scene = scene_with_init();
    for days in [300, 200, 100, 90] {
        back_up_days_ago(&scene, days);
    }
    let absolute = scene.path(TREE).display().to_string();
    for prefix in [TREE, "tree/", &absolute, &format!("{absolute}/")] {
        scene.succeeds(["whisper", "backup", "-p", prefix, "-x", "45"]);
        scene.succeeds(["whisper", "purge", "-x", "0"]);
    }
    for metric in METRICS {
        assert_eq!(versions(&scene, metric).len(), 1, "{metric}");
    }
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert!(METRICS.iter().all(|it| read(&scene, "out", it) == read(&scene, TREE, it)));
}

#[test]
fn restore_and_purge_find_what_backup_has_stored() {
    let scene = scene_with_backup();
    let restored = scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert!(restored.text().starts_with("restored 4 metrics"), "{}", restored.text());
    fs::remove_dir_all(scene.path("tree/carbon")).unwrap();
    scene.succeeds(["whisper", "backup", "-x", "-1"]);
    let purged = scene.succeeds(["whisper", "purge", "-x", "0"]);
    assert!(purged.text().starts_with("2 metrics forgotten"), "{}", purged.text());
    assert_eq!(versions(&scene, "top").len(), 1);
}

#[test]
fn history_does_not_shrink_when_nothing_new_arrives() {
    let scene = scene_with_backup();
    for seed in 10..12 {
        write(&scene, "top", &content(seed));
        scene.succeeds(["whisper", "backup"]);
    }
    assert_eq!(versions(&scene, "top"), [1, 1, 1]);
    for _ in 0..4 {
        write(&scene, "top", b"no whisper file");
        scene.fails(3, ["whisper", "backup", "-r", "3"]);
        fs::rename(scene.path(TREE), scene.path("away")).unwrap();
        scene.fails(3, ["whisper", "backup", "-r", "1", "-x", "0"]);
        fs::create_dir(scene.path(TREE)).unwrap();
        scene.fails(9, ["whisper", "backup", "-r", "1", "-x", "0"]);
        fs::remove_dir(scene.path(TREE)).unwrap();
        fs::rename(scene.path("away"), scene.path(TREE)).unwrap();
        assert_eq!(versions(&scene, "top").len(), 3);
    }
}

#[test]
fn compression_is_settled_when_the_store_is_made() {
    let scene = scene();
    scene.succeeds(["init", "whisper", TREE, "--compression-level", "1"]);
    let before = read(&scene, TREE, "top");
    scene.succeeds(["whisper", "backup"]);
    let store = scene.path("vm1").display().to_string();
    let other = ["-b", "other", "init", "whisper", TREE, "--store", &store];
    let output = scene.fails(2, [&other[..], &["--compression-level", "9"]].concat());
    assert!(output.stderr.contains("fixed when a store is created"), "{}", output.stderr);
    for seed in 10..13 {
        write(&scene, "top", &content(seed));
        scene.succeeds(["whisper", "backup"]);
    }
    scene.succeeds(["restore", "-r", "first", "out"]);
    assert!(read(&scene, "out", "top") == before);
    scene.succeeds(["whisper", "backup", "-r", "2"]);
    assert_eq!(versions(&scene, "top").len(), 2);
    scene.succeeds(["verify", "-r", "all"]);
}

#[test]
fn date_before_every_backup_is_said() {
    let scene = scene_with_backup();
    let date = date_days_ago(1);
    let output = scene.fails(10, ["whisper", "restore", "-p", "out", "-c", &date]);
    assert!(output.stderr.contains("nothing to restore: no version is older than"), "{output:?}");
    assert!(output.stderr.contains("metrics that match \"*\": 4"), "{output:?}");
    assert!(!scene.path("out").exists());
}

#[test]
fn what_retention_drops_is_really_deleted() {
    let scene = scene_with_backup();
    let chunks = || scene.succeeds(["--json", "store", "info"]).json()["chunks"].as_u64().unwrap();
    let few = chunks();
    for seed in 10..20 {
        write(&scene, "top", &content(seed));
        scene.succeeds(["whisper", "backup", "-r", "100"]);
    }
    let many = chunks();
    write(&scene, "top", &content(4));
    scene.succeeds(["whisper", "backup", "-r", "1"]);
    scene.succeeds(["purge", "--now"]);
    // Lists of files are chunks too, and there are two more revisions than in the beginning at most.
    assert!(chunks() + 4 < many && chunks() <= few + 4, "{few} {many} {}", chunks());
    scene.succeeds(["verify", "--all-data"]);
}

#[test]
fn failures_of_workers_are_not_lost() {
    let scene = scene();
    for metric in METRICS {
        write(&scene, &format!("bad.{metric}"), b"no whisper file");
    }
    let output = scene.fails(3, ["whisper", "backup", "-p", TREE, "-f", "4"]);
    for metric in METRICS {
        let path = metric_path("bad", metric).display().to_string();
        assert!(output.stderr.contains(&path), "{path}: {}", output.stderr);
    }
    assert!(output.stderr.contains("4 problems"), "{}", output.stderr);
}

#[test]
fn content_that_comes_back_costs_nothing() {
    let scene = scene_with_backup();
    let (first, second) = (read(&scene, TREE, "top"), content(99));
    write(&scene, "top", &second);
    scene.succeeds(["whisper", "backup"]);
    write(&scene, "top", &first);
    let third = scene.succeeds(["--json", "whisper", "backup"]).json();
    assert_eq!(third["changed_files"], 1);
    assert_eq!((&third["new_bytes"], &third["new_chunks"]), (&0.into(), &0.into()));
    // Unchanged files make no version.
    let fourth = scene.succeeds(["--json", "whisper", "backup"]).json();
    assert_eq!((&fourth["changed_files"], &fourth["new_bytes"]), (&0.into(), &0.into()));
    scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert!(read(&scene, "out", "top") == first);
}

#[test]
fn backup_that_was_killed_leaks_nothing() {
    let scene = scene_with_init();
    let empty = scene.succeeds(["--json", "store", "info"]).json();
    // Reading waits there for a writer.
    let _writer = lock(&scene, TREE, "top");
    let mut running = Running::start(&mut scene.command(["whisper", "backup"]));
    running.stop_at_work(&scene);
    running.signal(Signal::CONT);
    std::thread::sleep(Duration::from_millis(300));
    assert!(running.kill(), "it waits");
    assert_eq!(scene.revision_count(), 0);
    scene.succeeds(["purge", "--now"]);
    assert_eq!(scene.succeeds(["--json", "store", "info"]).json()["chunks"], empty["chunks"]);
    assert_eq!(files_below(&scene.backup_path("packs")).len(), 0);
    assert_eq!(files_below(&scene.backup_path("tmp")).len(), 0);
}

#[test]
fn restore_works_on_several_files_at_once() {
    let scene = Scene::new();
    // More than one thread takes at a time, which are 16 MiB; what the first one waits for does not stop the others.
    let metrics: Vec<_> = (0..60).map(|number| format!("m{number:02}")).collect();
    for (seed, metric) in (1..).zip(&metrics) {
        write(&scene, metric, &noise(seed));
    }
    scene.succeeds(["whisper", "backup", "-p", TREE]);
    for metric in &metrics {
        remove(&scene, metric);
    }
    write(&scene, &metrics[0], &content(70));
    let writer = lock(&scene, TREE, &metrics[0]);
    let mut running = Running::start(&mut scene.command(["whisper", "restore", "-f", "2"]));
    let is_there = || scene.path(metric_path(TREE, &metrics[59])).exists();
    assert!(running.wait_until(is_there), "it waits for the first one");
    drop(writer);
    let output = running.succeeds();
    assert!(output.text().starts_with("restored 60 metrics"), "{}", output.text());
}

#[test]
fn idle_metric_is_kept_for_days_after_its_file_went() {
    // Its only content is 100 days old, and it was there until 10 days ago.
    let scene = scene_with_init();
    for days in (1..=10).rev().map(|tens| tens * 10) {
        back_up_days_ago(&scene, days);
    }
    let content = read(&scene, TREE, "top");
    remove(&scene, "top");
    for _ in 0..3 {
        scene.succeeds(["whisper", "backup", "-x", "45"]);
    }
    assert_eq!(versions(&scene, "top").len(), 1);
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["whisper", "restore", "-p", "out", "-m", "top"]);
    assert!(read(&scene, "out", "top") == content);
    scene.succeeds(["whisper", "purge", "-x", "11"]);
    assert_eq!(versions(&scene, "top").len(), 1, "ten days are less than eleven");
    scene.succeeds(["whisper", "purge", "-x", "9"]);
    assert_eq!(versions(&scene, "top").len(), 0, "ten days are more than nine");
    assert_eq!(versions(&scene, METRICS[0]).len(), 1);
}

#[test]
fn interrupt_ends_a_backup_without_a_revision() {
    let scene = scene_with_init();
    for number in 0..500 {
        write(&scene, &format!("many.m{number}"), &content(1000 + number));
    }
    let writer = lock(&scene, TREE, "top");
    let mut running = Running::start(&mut scene.command(["whisper", "backup"]));
    wait_until_open(&mut running, &scene.path(metric_path(TREE, "top")));
    running.signal(Signal::INT);
    let output = running.finish();
    assert_eq!(output.code, Some(130), "{}", output.stderr);
    assert!(output.stderr.contains("error: interrupted"), "{}", output.stderr);
    assert!(!scene.backup_path("whisper.success").exists());
    assert_eq!(scene.revision_count(), 0);
    drop(writer);
    // Nothing is locked any more.
    scene.succeeds(["whisper", "backup", "--locktimeout", "0"]);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn interrupt_ends_a_restore_that_waits() {
    let scene = scene_with_backup();
    write(&scene, METRICS[0], &content(70));
    let before = snapshot(&scene, TREE);
    let _writer = lock(&scene, TREE, METRICS[0]);
    let mut running = Running::start(&mut scene.command(["whisper", "restore"]));
    running.stop_at_work(&scene);
    running.signal(Signal::TERM);
    running.signal(Signal::CONT);
    let output = running.finish();
    assert_eq!(output.code, Some(143), "{}", output.stderr);
    assert!(snapshot(&scene, TREE) == before);
}
