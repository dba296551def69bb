//! What is kept of each metric, and for how long.

use super::trees::{
    METRICS, TREE, back_up_days_ago, content, read, remove, scene, scene_with_backup, versions,
    write,
};
use crate::scene::Scene;

/// Returns a scene in which `top` was last seen so many days ago, after a backup every ten days.
fn scene_without_top_since(days: i64) -> Scene {
    let scene = scene();
    scene.succeeds(["init", "whisper", TREE]);
    for tens in (0..10).rev() {
        back_up_days_ago(&scene, days + 10 * tens);
    }
    remove(&scene, "top");
    scene
}

#[test]
fn newest_unique_versions_are_kept() {
    let scene = scene_with_backup();
    let mut contents = Vec::new();
    for seed in 20..27 {
        contents.push(content(seed));
        write(&scene, "top", contents.last().unwrap());
        // Twice: what has not changed is no version, and pushes none out.
        scene.succeeds(["whisper", "backup", "-r", "3"]);
        scene.succeeds(["whisper", "backup", "-r", "3"]);
    }
    assert_eq!(versions(&scene, "top").len(), 3);
    for metric in &METRICS[..3] {
        assert_eq!(versions(&scene, metric).len(), 1, "{metric}");
    }
    // Each of the versions can still be restored, by the date from which it was there.
    let listed = scene.succeeds(["--json", "whisper", "list", "-m", "top"]).json();
    let listed = listed[0]["versions"].as_array().unwrap();
    for (index, expected) in contents[4..].iter().enumerate() {
        let target = format!("out{index}");
        // Listed newest first.
        let newer = 2_usize.checked_sub(index + 1);
        let newer = newer.map(|newer| listed[newer]["since"].as_str().unwrap());
        let mut command = vec!["whisper", "restore", "-p", &target, "-m", "top"];
        command.extend(newer.iter().flat_map(|date| ["-c", date]));
        scene.succeeds(&command);
        assert!(read(&scene, &target, "top") == *expected, "{index}");
    }
    scene.succeeds(["verify", "-r", "all"]);
    scene.succeeds(["whisper", "backup", "-r", "1"]);
    assert_eq!(versions(&scene, "top").len(), 1);
}

#[test]
fn five_versions_are_kept_unless_something_else_is_said() {
    let scene = scene_with_backup();
    for seed in 20..27 {
        write(&scene, "top", &content(seed));
        scene.succeeds(["whisper", "backup"]);
    }
    assert_eq!(versions(&scene, "top").len(), 5);
    let config = String::from_utf8(scene.read("vm1/config")).unwrap();
    scene.write("vm1/config", format!("{}\nwhisper: {{retention: 2}}\n", config.trim_end()));
    scene.succeeds(["whisper", "backup"]);
    assert_eq!(versions(&scene, "top").len(), 2);
}

#[test]
fn retention_is_for_the_metrics_that_are_meant() {
    let scene = scene_with_backup();
    for seed in 20..24 {
        write(&scene, "top", &content(seed));
        write(&scene, METRICS[0], &content(seed + 10));
        scene.succeeds(["whisper", "backup"]);
    }
    scene.succeeds(["whisper", "backup", "-r", "1", "-m", "carbon.*"]);
    assert_eq!(versions(&scene, METRICS[0]).len(), 1);
    assert_eq!(versions(&scene, "top").len(), 5);
}

#[test]
fn metric_is_kept_for_as_long_as_is_said_after_it_went() {
    for (last_seen, days, is_kept) in
        [(10, "45", true), (44, "45", true), (46, "45", false), (46, "-1", true), (10, "0", false)]
    {
        let scene = scene_without_top_since(last_seen);
        scene.succeeds(["whisper", "backup", "-x", days]);
        assert_eq!(versions(&scene, "top").len() == 1, is_kept, "{last_seen} {days}");
        for metric in &METRICS[..3] {
            assert_eq!(versions(&scene, metric).len(), 1, "{metric}");
        }
        scene.succeeds(["verify", "-r", "all"]);
    }
}

#[test]
fn default_is_forty_five_days_and_the_configuration_may_say_others() {
    for (last_seen, config, is_kept) in [
        (44, "", true),
        (46, "", false),
        (46, "whisper: {purge-days: 50}", true),
        (51, "whisper: {purge-days: 50}", false),
        (51, "whisper: {purge-days: -1}", true),
    ] {
        let scene = scene_without_top_since(last_seen);
        let text = String::from_utf8(scene.read("vm1/config")).unwrap();
        scene.write("vm1/config", format!("{}\n{config}\n", text.trim_end()));
        scene.succeeds(["whisper", "backup"]);
        assert_eq!(versions(&scene, "top").len() == 1, is_kept, "{last_seen} {config}");
    }
}

#[test]
fn metric_that_went_is_kept_with_its_versions_and_comes_back() {
    let scene = scene_with_backup();
    write(&scene, "top", &content(60));
    scene.succeeds(["whisper", "backup"]);
    remove(&scene, "top");
    let gone = scene.succeeds(["--json", "whisper", "backup"]).json();
    assert_eq!(gone["gone_files"], 1);
    assert_eq!(versions(&scene, "top").len(), 2);
    let listed = scene.succeeds(["whisper", "list", "-m", "top"]);
    assert!(listed.text().starts_with("top (gone, last seen "), "{}", listed.text());
    write(&scene, "top", &content(60));
    scene.succeeds(["whisper", "backup"]);
    assert!(scene.succeeds(["whisper", "list", "-m", "top"]).text().starts_with("top\n"));
    scene.succeeds(["whisper", "purge", "-x", "0"]);
    assert!(!versions(&scene, "top").is_empty());
}

#[test]
fn protected_revisions_and_manual_ones_stay_complete() {
    let scene = scene_with_backup();
    scene.succeeds(["protect", "-r", "0"]);
    write(&scene, "top", &content(60));
    scene.succeeds(["whisper", "backup", "manual:mine"]);
    let ids = scene.ids();
    for seed in 70..74 {
        write(&scene, "top", &content(seed));
        scene.succeeds(["whisper", "backup", "-r", "1"]);
    }
    assert_eq!(scene.ids()[..2], ids);
    for (id, target) in ids.iter().zip(["a", "b"]) {
        scene.succeeds(["restore", "-r", id, target]);
        assert!(METRICS.iter().all(|it| !read(&scene, target, it).is_empty()));
    }
    assert_eq!(versions(&scene, "top").len(), 3);
}
