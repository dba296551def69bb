//! `status`, `find` and `forget`: the history and the language that names revisions.

use crate::scene::{Scene, files_below, prefix_of, rewrite};

#[test]
fn status_lists_revisions_and_sums_them_up() {
    let (scene, _) = Scene::with_backups(2);
    let output = scene.succeeds(["status"]);
    let lines: Vec<_> = output.text().lines().collect();
    assert!(lines[0].starts_with("Date (UTC)") && lines[0].ends_with("Trust"), "{lines:?}");
    assert!(!lines[0].contains("Source"), "{lines:?}");
    let ids = scene.ids();
    assert!(lines[1].contains(&ids[0]) && lines[1].contains("manual:0"), "{lines:?}");
    assert!(lines[2].contains(&ids[1]) && lines[2].contains("3.0 MiB"), "{lines:?}");
    assert!(lines[3].starts_with("2 revisions containing 6.0 MiB data ("), "{lines:?}");
}

#[test]
fn status_of_an_empty_store_is_an_empty_table() {
    let scene = Scene::with_init();
    assert!(scene.succeeds(["status"]).text().contains("0 revisions"));
    assert_eq!(scene.succeeds(["--json", "status"]).json(), serde_json::json!([]));
    scene.fails(10, ["status", "-r", "latest"]);
}

#[test]
fn times_and_dates_are_local() {
    let (scene, _) = Scene::with_backups(1);
    let run = |zone: &str, arguments: &[&str]| {
        let output = scene.command(arguments).env("TZ", zone).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run("<+05>-5", &["status"]);
    assert!(table.lines().next().unwrap().starts_with("Date (+05)"), "{table}");
    assert!(table.contains(" +05:00  "), "{table}");
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Kolkata").exists() {
        assert!(run("Asia/Kolkata", &["status"]).starts_with("Date (Asia/Kolkata)"));
        assert!(run("Asia/Kolkata", &["status"]).contains(" +05:30  "));
    }
}

#[test]
fn yaml_has_the_keys_of_the_ancestor() {
    let (scene, _) = Scene::with_backups(1);
    let output = scene.succeeds(["status", "--yaml"]);
    for key in ["uuid:", "timestamp:", "parent:", "bytes_written:", "duration:", "trust:", "tags:"]
    {
        assert!(output.text().contains(key), "{key} {}", output.text());
    }
    scene.fails(2, ["status", "--yaml", "-r", "??"]);
}

#[test]
fn revisions_are_found_by_number_id_prefix_tag_and_function() {
    let (scene, _) = Scene::with_backups(3);
    let ids = scene.ids();
    let found = |spec: &str| scene.succeeds(["find", "--uuid", "-r", spec]).text().to_owned();
    assert_eq!(found("0").trim(), ids[2]);
    assert_eq!(found("latest").trim(), ids[2]);
    assert_eq!(found("first").trim(), ids[0]);
    assert_eq!(found("tag:manual:1").trim(), ids[1]);
    assert_eq!(found(&ids[1]).trim(), ids[1]);
    // Ten characters, because a short run of digits alone is a number.
    assert_eq!(found(prefix_of(&ids[1])).trim(), ids[1]);
    assert_eq!(found("2..1").lines().collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    assert_eq!(found("2020-01-01.. & reverse(all)").lines().count(), 3);
    assert_eq!(found("..2020-01-01"), "");
    assert_eq!(found("not(tag:manual:0),first").lines().last(), Some(ids[0].as_str()));
    let path = scene.succeeds(["find"]).text().trim().to_owned();
    assert!(path.ends_with(&format!("{}.rev", ids[2])), "{path}");
    assert!(std::path::Path::new(&path).is_file(), "{path}");
}

#[test]
fn unknown_revisions_are_told_from_wrong_specifications() {
    let (scene, _) = Scene::with_backups(1);
    for unknown in ["1", "00000000000000000000000000000000", "first(tag:none)"] {
        let output = scene.fails(10, ["find", "-r", unknown]);
        assert!(output.stderr.contains("hint: "), "{}", output.stderr);
    }
    for wrong in ["", "(", "nonsense", "1 2", "tag:", "trust:none", "2015-09..0"] {
        scene.fails(2, ["find", "-r", wrong]);
    }
}

#[test]
fn forget_drops_what_was_named_and_nothing_else() {
    let (scene, images) = Scene::with_backups(3);
    let ids = scene.ids();
    scene.fails(2, ["forget"]);
    let output = scene.succeeds(["forget", "-r", "1"]);
    assert!(output.text().contains(&ids[1]), "{}", output.text());
    assert!(output.stderr.contains("purge"), "{}", output.stderr);
    assert_eq!(scene.ids(), [ids[0].clone(), ids[2].clone()]);
    scene.fails(10, ["restore", "-r", &ids[1], "out"]);
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["restore", "-r", "1", "out"]);
    assert!(scene.read("out") == images[0]);
    let output = scene.succeeds(["forget", "-r", "tag:none"]);
    assert_eq!(output.text(), "");
    assert_eq!(scene.revision_count(), 2);
}

#[test]
fn golden_links_and_copies_of_records_are_no_revisions() {
    let (scene, images) = Scene::with_backups(2);
    let ids = scene.ids();
    let records = scene.backup_path("revisions").join("vm1");
    let (record, other) = (records.join(format!("{}.rev", ids[1])), "f".repeat(32));
    let other = records.join(format!("{other}.rev"));
    std::os::unix::fs::symlink(&record, &other).unwrap();
    assert_eq!(scene.ids(), ids);
    assert_eq!(scene.succeeds(["restore", "-r", "0", "-"]).stdout, images[1]);
    // What a link hides could be needed.
    let output = scene.run(["purge", "--now"]);
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains(other.to_str().unwrap()), "{}", output.stderr);

    std::fs::remove_file(&other).unwrap();
    std::fs::copy(&record, &other).unwrap();
    let output = scene.fails(4, ["status"]);
    for id in &ids {
        assert_eq!(output.text().matches(id.as_str()).count(), 1, "{}", output.text());
    }
    assert!(output.stderr.contains("warning: "), "{}", output.stderr);
    std::fs::remove_file(&other).unwrap();
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["verify", "-r", "all"]);
}

#[test]
fn damaged_record_is_a_warning_and_an_exit_code() {
    let (scene, _) = Scene::with_backups(2);
    let ids = scene.ids();
    let records = files_below(&scene.backup_path("revisions"));
    let record = records.iter().find(|path| path.ends_with(format!("{}.rev", ids[1])));
    rewrite(record.unwrap(), |bytes| bytes.truncate(10));
    let output = scene.fails(4, ["status"]);
    assert!(output.text().contains(&ids[0]), "{}", output.text());
    assert!(output.stderr.contains("warning: "), "{}", output.stderr);
    scene.fails(4, ["verify"]);
    // The newest revision is the one that cannot be read: another one must not go in its place.
    scene.fails(4, ["forget", "-r", "latest"]);
    scene.succeeds(["restore", "-r", &ids[0], "out"]);
    scene.succeeds(["forget", "-r", &ids[0]]);
}
