//! `whisper restore`: which version, which metrics, and what becomes of files that are there.

use chunkstore::whisper::{Point, WhisperFile};

use super::trees::{
    METRICS, TREE, back_up_days_ago, content, date_days_ago, file_with, metric_path, read, scene,
    scene_with_backup, snapshot, steps_ago, write,
};
use crate::scene::Scene;

#[test]
fn newest_version_strictly_before_the_date_is_restored() {
    let scene = scene();
    scene.succeeds(["init", "whisper", TREE]);
    let mut contents = Vec::new();
    for days in [30, 20, 10] {
        contents.push(content(u32::try_from(days).unwrap()));
        write(&scene, "top", contents.last().unwrap());
        back_up_days_ago(&scene, days);
    }
    for (days, expected) in [(25, 0), (15, 1), (5, 2)] {
        let (target, date) = (format!("out{days}"), date_days_ago(days));
        scene.succeeds(["whisper", "restore", "-p", &target, "-c", &date]);
        assert!(read(&scene, &target, "top") == contents[expected], "{days}");
    }
    // The very moment is not before it; a moment later is.
    let listed = scene.succeeds(["--json", "whisper", "list", "-m", "top"]).json();
    let since = listed[0]["versions"][1]["since"].as_str().unwrap();
    scene.succeeds(["whisper", "restore", "-p", "exact", "-c", since]);
    assert!(read(&scene, "exact", "top") == contents[0]);
    let listed = scene.succeeds(["--json", "whisper", "list", "-m", "top", "-c", since]).json();
    assert_eq!(listed[0]["versions"].as_array().unwrap().len(), 1);
    for date in ["2001-02-03", "2001-02-03T04:05:06", "2001-02-03T04:05:06+02:00"] {
        scene.fails(10, ["whisper", "restore", "-p", "none", "-c", date]);
    }
    assert!(!scene.path("none").exists());
}

#[test]
fn metrics_that_are_younger_than_the_date_are_counted() {
    let scene = scene();
    scene.succeeds(["init", "whisper", TREE]);
    back_up_days_ago(&scene, 10);
    write(&scene, "young", &content(60));
    back_up_days_ago(&scene, 1);
    let date = date_days_ago(5);
    let output = scene.succeeds(["--json", "whisper", "restore", "-p", "out", "-c", &date]);
    let document = output.json();
    assert_eq!((&document["files"], &document["files_without_version"]), (&4.into(), &1.into()));
    assert!(!scene.path(metric_path("out", "young")).exists());
}

#[test]
fn globs_cross_dots() {
    let scene = scene_with_backup();
    for (glob, expected) in [
        ("carbon.*", &METRICS[..2]),
        ("*.cpu", &METRICS[..2]),
        ("carbon.*.a.*", &METRICS[..1]),
        ("servers.web?.load", &METRICS[2..3]),
        ("*[!u]", &METRICS[2..]),
        ("top", &METRICS[3..]),
        ("*", &METRICS[..]),
    ] {
        let _gone = std::fs::remove_dir_all(scene.path("out"));
        scene.succeeds(["whisper", "restore", "-p", "out", "-m", glob]);
        for metric in METRICS {
            let is_there = scene.path(metric_path("out", metric)).exists();
            assert_eq!(is_there, expected.contains(&metric), "{glob} {metric}");
        }
        let listed = scene.succeeds(["--json", "whisper", "list", "-m", glob]).json();
        let names: Vec<_> = listed.as_array().unwrap().iter().map(|it| &it["metric"]).collect();
        assert_eq!(names, expected, "{glob}");
    }
    for glob in ["Top", "carbon", "nothing.*", ""] {
        let output = scene.fails(10, ["whisper", "restore", "-p", "none", "-m", glob]);
        assert!(output.stderr.contains("nothing to restore: no metric matches"), "{output:?}");
    }
    assert!(!scene.path("none").exists());
}

fn points(values: &[(u32, f64)]) -> Vec<Point> {
    values.iter().map(|(steps, value)| Point { time: steps_ago(*steps), value: *value }).collect()
}

/// Returns the values of the first archive by how many steps ago they are, newest first.
fn values(bytes: Vec<u8>) -> Vec<(u32, f64)> {
    let file = WhisperFile::decode(bytes).unwrap();
    let mut found: Vec<_> = file.points(0).collect();
    found.sort_by_key(|point| std::cmp::Reverse(point.time));
    let newest = steps_ago(0);
    found.iter().map(|point| ((newest - point.time) / super::trees::STEP, point.value)).collect()
}

/// Stores points 20 to 39 of a metric, replaces its file by these, restores into it, and returns what is there then.
fn fill(mode: &str, there: &[(u32, f64)]) -> (Vec<(u32, f64)>, serde_json::Value) {
    let scene = Scene::new();
    let stored: Vec<_> = (20..40).map(|steps| (steps, f64::from(steps))).collect();
    write(&scene, "m", &file_with(&points(&stored)));
    scene.succeeds(["whisper", "backup", "-p", TREE]);
    write(&scene, "m", &file_with(&points(there)));
    let output = scene.succeeds(["--json", "whisper", "restore", "--backfill", mode]);
    (values(read(&scene, TREE, "m")), output.json())
}

/// There is everything but two steps, one step, and a zero for two others; what is there has its own values.
fn gaps() -> Vec<(u32, f64)> {
    let is_missing = |steps: &u32| [36, 35, 30].contains(steps);
    let value = |steps| if [26, 25].contains(&steps) { 0.0 } else { 1000.0 + f64::from(steps) };
    (20..40).filter(|steps| !is_missing(steps)).map(|steps| (steps, value(steps))).collect()
}

fn value_at(values: &[(u32, f64)], steps: u32) -> Option<f64> {
    values.iter().find(|(at, _)| *at == steps).map(|(_, value)| *value)
}

#[test]
fn safe_filling_changes_no_value_that_is_there() {
    let (found, document) = fill("safe", &gaps());
    assert_eq!(found.len(), 20);
    for (steps, value) in gaps() {
        assert_eq!(value_at(&found, steps), Some(value), "{steps}");
    }
    for steps in [36, 35, 30] {
        assert_eq!(value_at(&found, steps), Some(f64::from(steps)));
    }
    assert_eq!(document["replaced_points"], 0);
    assert_eq!(document["backfilled_files"], 1);
}

#[test]
fn compatible_filling_does_what_whisper_backup_does() {
    let (found, document) = fill("compat", &gaps());
    for steps in [36, 35] {
        assert_eq!(value_at(&found, steps), Some(f64::from(steps)), "a gap of two is filled");
    }
    assert_eq!(value_at(&found, 34), Some(34.0), "and so is the value behind it");
    assert_eq!(value_at(&found, 30), None, "a single gap is not");
    assert_eq!(value_at(&found, 26), Some(26.0), "two zeros are a gap");
    assert_eq!(value_at(&found, 38), Some(1038.0));
    assert!(document["replaced_points"].as_u64().unwrap() >= 4, "{document}");
}

#[test]
fn empty_file_gets_everything_in_either_mode() {
    for mode in ["safe", "compat"] {
        let (found, _) = fill(mode, &[]);
        let expected: Vec<_> = (20..40).map(|steps| (steps, f64::from(steps))).collect();
        assert_eq!(found, expected, "{mode}");
    }
    let (found, document) = fill("never", &gaps());
    assert_eq!(found.len(), 17);
    assert_eq!((&document["skipped_files"], &document["filled_points"]), (&1.into(), &0.into()));
}

#[test]
fn second_restore_changes_nothing() {
    let scene = scene_with_backup();
    write(&scene, "top", &file_with(&[]));
    scene.succeeds(["whisper", "restore"]);
    let before = snapshot(&scene, TREE);
    let again = scene.succeeds(["--json", "whisper", "restore"]).json();
    assert_eq!((&again["unchanged_files"], &again["written_bytes"]), (&4.into(), &0.into()));
    assert!(snapshot(&scene, TREE) == before);
}

#[test]
fn corrupt_file_is_set_aside_and_written_anew() {
    let scene = scene_with_backup();
    let expected = read(&scene, TREE, "top");
    write(&scene, "top", b"no whisper file");
    let output = scene.succeeds(["whisper", "restore"]);
    assert!(output.stderr.contains("warning: top.wsp was no whisper file"), "{}", output.stderr);
    assert!(read(&scene, TREE, "top") == expected);
    let aside: Vec<_> =
        snapshot(&scene, TREE).into_values().filter(|it| it == b"no whisper file").collect();
    assert_eq!(aside.len(), 1, "it is kept");
}
