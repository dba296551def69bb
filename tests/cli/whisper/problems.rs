//! Files that cannot be read: they are named, and cost nobody else anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::trees::{
    METRICS, TREE, content, lock, metric_path, read, remove, scene, scene_with_backup, versions,
    wait_until_open, write,
};
use crate::scene::{Output, Scene};
use crate::system::machine::{OtherUser, skip};
use crate::system::running::Running;

/// Checks that a backup told of one problem, and that everything else is in the revision.
#[track_caller]
fn assert_told(scene: &Scene, output: &Output, name: &str) {
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.contains(&format!("warning: {name}: ")), "{}", output.stderr);
    assert!(output.stderr.contains("error: 1 problem with files"), "{}", output.stderr);
    scene.succeeds(["verify", "-r", "all"]);
    let _gone = fs::remove_dir_all(scene.path("check"));
    scene.succeeds(["whisper", "restore", "-p", "check", "-m", "servers.*"]);
    assert!(read(scene, "check", METRICS[2]) == read(scene, TREE, METRICS[2]));
}

#[test]
fn file_that_becomes_corrupt_keeps_its_former_version() {
    let scene = scene_with_backup();
    let sound = read(&scene, TREE, "top");
    let mut wrong = sound.clone();
    wrong[3] = 99;
    let mut cut = sound.clone();
    cut.truncate(sound.len() / 2);
    let contents = [b"no whisper file".to_vec(), Vec::new(), wrong, cut, vec![0; sound.len()]];
    for (seed, bytes) in (30..).zip(contents) {
        write(&scene, METRICS[2], &content(seed));
        write(&scene, "top", &bytes);
        let output = scene.run(["whisper", "backup", "-x", "0", "-r", "1"]);
        assert_told(&scene, &output, "top.wsp");
        assert!(output.stderr.contains("the revision keeps what it had"), "{}", output.stderr);
        scene.succeeds(["whisper", "purge", "-x", "0"]);
        assert_eq!(versions(&scene, "top").len(), 1);
        scene.succeeds(["whisper", "restore", "-p", "out", "-m", "top"]);
        assert!(read(&scene, "out", "top") == sound);
    }
    write(&scene, "top", &sound);
    scene.succeeds(["whisper", "backup"]);
}

#[test]
fn file_that_is_corrupt_from_the_beginning_is_not_in_the_revision() {
    let scene = scene();
    write(&scene, "empty", b"");
    let output = scene.run(["--json", "whisper", "backup", "-p", TREE]);
    assert_eq!(output.code, Some(3));
    let document = output.json();
    assert_eq!((&document["files"], &document["problem_count"]), (&4.into(), &1.into()));
    assert_eq!(document["problems"][0]["path"], "empty.wsp");
    assert_eq!(document["problems"][0]["carried"], false);
    assert_eq!(output.json_error()["exit_code"], 3);
    assert_eq!(versions(&scene, "empty").len(), 0);
}

#[test]
fn file_that_stays_locked_is_told() {
    let scene = scene_with_backup();
    let sound = read(&scene, TREE, "top");
    write(&scene, "top", &content(60));
    let writer = lock(&scene, TREE, "top");
    let output = scene.run(["whisper", "backup"]);
    assert_told(&scene, &output, "top.wsp");
    assert!(output.stderr.contains("locked by somebody else for 10 seconds"), "{}", output.stderr);
    drop(writer);
    scene.succeeds(["whisper", "restore", "-p", "out", "-m", "top"]);
    assert!(read(&scene, "out", "top") == sound);
    let next = scene.succeeds(["--json", "whisper", "backup"]).json();
    assert_eq!(next["changed_files"], 1);
}

#[test]
fn file_that_vanishes_keeps_its_former_version() {
    let scene = scene_with_backup();
    let sound = read(&scene, TREE, "top");
    // The first file holds the backup up, after it has listed them all.
    write(&scene, METRICS[0], &content(60));
    let first = scene.path(metric_path(TREE, METRICS[0]));
    let writer = lock(&scene, TREE, METRICS[0]);
    let mut running = Running::start(&mut scene.command(["whisper", "backup"]));
    wait_until_open(&mut running, &first);
    remove(&scene, "top");
    drop(writer);
    assert_told(&scene, &running.finish(), "top.wsp");
    assert_eq!(versions(&scene, "top").len(), 1);
    scene.succeeds(["whisper", "restore", "-p", "out", "-m", "top"]);
    assert!(read(&scene, "out", "top") == sound);
    // Now it is gone like any other.
    scene.succeeds(["whisper", "backup"]);
    assert_eq!(versions(&scene, "top").len(), 1);
}

#[test]
fn file_that_is_removed_while_it_is_read_is_stored_as_it_was() {
    let scene = scene_with_backup();
    let last = content(60);
    write(&scene, "top", &last);
    let path = scene.path(metric_path(TREE, "top"));
    let writer = lock(&scene, TREE, "top");
    let mut running = Running::start(&mut scene.command(["whisper", "backup"]));
    wait_until_open(&mut running, &path);
    remove(&scene, "top");
    drop(writer);
    running.succeeds();
    scene.succeeds(["whisper", "restore", "-p", "out", "-m", "top"]);
    assert!(read(&scene, "out", "top") == last);
}

#[test]
fn file_that_locks_others_out_does_not_stop_a_restore_of_the_others() {
    let scene = scene_with_backup();
    for metric in METRICS {
        write(&scene, metric, &content(60));
    }
    let _writer = lock(&scene, TREE, "top");
    let output = scene.fails(3, ["whisper", "restore", "--locktimeout", "1"]);
    assert!(output.stderr.contains("warning: top.wsp: "), "{}", output.stderr);
    assert!(output.stderr.contains("error: 1 metric could not be restored"), "{}", output.stderr);
    assert!(output.text().starts_with("restored 3 metrics"), "{}", output.text());
}

#[test]
fn directory_that_cannot_be_read_keeps_what_was_in_it() {
    let scene = scene();
    let user = match OtherUser::new(&scene) {
        Ok(user) => user,
        Err(reason) => return skip("unreadable directory", &reason),
    };
    fs::create_dir(scene.path("vm1")).unwrap();
    fs::set_permissions(scene.path("vm1"), fs::Permissions::from_mode(0o777)).unwrap();
    let run = |arguments: &[&str]| {
        let output = user.command(&scene, arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Output { code: output.status.code(), stdout: output.stdout, stderr }
    };
    let first = run(&["whisper", "backup", "-p", TREE]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let closed = scene.path("tree/carbon");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let output = run(&["whisper", "backup", "-x", "0", "-r", "1"]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_told(&scene, &output, "carbon");
    assert!(output.text().contains("4 metrics (2 unchanged, 2 kept unread"), "{}", output.text());
    scene.succeeds(["whisper", "purge", "-x", "0"]);
    for metric in METRICS {
        assert_eq!(versions(&scene, metric).len(), 1, "{metric}");
    }
}

#[test]
fn tree_that_has_become_empty_is_refused() {
    let scene = scene_with_backup();
    for metric in METRICS {
        remove(&scene, metric);
    }
    for command in [&["whisper", "backup", "-x", "0"][..], &["backup"]] {
        let output = scene.fails(9, command);
        assert!(output.stderr.contains("no file to back up"), "{}", output.stderr);
    }
    assert_eq!(versions(&scene, "top").len(), 1);
    scene.succeeds(["whisper", "backup", "--force"]);
    assert_eq!(scene.revision_count(), 2);
    scene.succeeds(["whisper", "restore"]);
    assert!(scene.path(metric_path(TREE, "top")).exists());
}

#[test]
fn tree_that_is_not_there_is_an_error_and_begins_nothing() {
    let scene = Scene::new();
    for command in
        [&["whisper", "backup", "-p", "gone"][..], &["backup", "--source", "whisper:gone"]]
    {
        let output = scene.fails(3, command);
        assert!(output.stderr.contains("gone"), "{}", output.stderr);
        assert!(!scene.path("vm1").exists());
    }
}

#[test]
fn names_and_links_that_are_unusual_are_stored_or_left_out() {
    let scene = scene();
    write(&scene, "with space.and=tags;host:a", &content(31));
    scene.write("tree/notes.txt", "no metric");
    std::os::unix::fs::symlink("carbon", scene.path("tree/link")).unwrap();
    std::os::unix::fs::symlink("top.wsp", scene.path("tree/alias.wsp")).unwrap();
    let output = scene.succeeds(["whisper", "backup", "-p", TREE]);
    assert!(output.text().contains("6 metrics"), "{}", output.text());
    scene.succeeds(["whisper", "restore", "-p", "out"]);
    assert!(read(&scene, "out", "with space.and=tags;host:a") == content(31));
    assert!(read(&scene, "out", "alias") == read(&scene, TREE, "top"));
    assert!(!scene.path("out/link").exists() && !scene.path("out/notes.txt").exists());
}
