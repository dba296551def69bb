//! Options of the commands: what they change, and what is refused.

use super::trees::{
    METRICS, TREE, content, read, remove, scene, scene_with_backup, snapshot, versions, write,
};
use crate::scene::{IMAGE, Scene};

#[test]
fn noop_changes_nothing() {
    let scene = scene_with_backup();
    for seed in 30..36 {
        write(&scene, "top", &content(seed));
        scene.succeeds(["whisper", "backup", "-r", "100"]);
    }
    remove(&scene, METRICS[0]);
    scene.succeeds(["whisper", "backup", "-r", "100", "-x", "-1"]);
    write(&scene, "top", &content(40));
    write(&scene, "new", &content(41));
    for leftover in ["whisper.lock", "whisper.success"] {
        std::fs::remove_file(scene.backup_path(leftover)).unwrap();
    }
    let (store, tree) = (snapshot(&scene, "vm1"), snapshot(&scene, TREE));
    let commands: [&[&str]; 6] = [
        &["whisper", "backup", "-n", "-r", "1", "-x", "0"],
        &["whisper", "backup", "-n", "--read-all", "--stampfile", "stamp"],
        &["whisper", "purge", "-n", "-x", "0"],
        &["whisper", "restore", "-n"],
        &["whisper", "restore", "-n", "--backfill", "compat"],
        &["whisper", "restore", "-n", "-p", "out"],
    ];
    for command in commands {
        let output = scene.succeeds(command);
        assert!(
            output.text().starts_with("would ") || output.text().contains("would be"),
            "{output:?}"
        );
        let after = snapshot(&scene, "vm1");
        assert!(store == after, "{command:?}: {:?}", after.keys());
        assert!(tree == snapshot(&scene, TREE), "{command:?}");
    }
    assert!(!scene.path("out").exists() && !scene.path("stamp").exists());
    // It says what is done then.
    let said = scene.succeeds(["--json", "whisper", "backup", "-n", "-r", "1", "-x", "0"]).json();
    let done = scene.succeeds(["--json", "whisper", "backup", "-r", "1", "-x", "0"]).json();
    for key in ["files", "new_files", "changed_files", "unchanged_files", "gone_files"] {
        assert_eq!(said[key], done[key], "{key}");
    }
    assert_eq!((&said["files"], &said["changed_files"]), (&4.into(), &1.into()));
}

#[test]
fn noop_finds_the_same_problems() {
    let scene = scene_with_backup();
    write(&scene, "top", b"no whisper file");
    let output = scene.fails(3, ["whisper", "backup", "-n"]);
    assert!(output.stderr.contains("top.wsp"), "{}", output.stderr);
    scene.fails(10, ["whisper", "restore", "-n", "-m", "none"]);
}

#[test]
fn metrics_that_are_not_meant_stay_as_they_are() {
    let scene = scene_with_backup();
    for (seed, metric) in (80..).zip(METRICS) {
        write(&scene, metric, &content(seed));
    }
    let before = snapshot(&scene, TREE);
    let document = scene.succeeds(["--json", "whisper", "backup", "-m", "carbon.*"]).json();
    assert_eq!((&document["changed_files"], &document["carried_files"]), (&2.into(), &2.into()));
    assert_eq!(document["files"], 4);
    assert_eq!(METRICS.map(|it| versions(&scene, it).len()), [2, 2, 1, 1]);
    // Nothing that was carried is taken for what it is now.
    scene.succeeds(["whisper", "backup"]);
    assert_eq!(METRICS.map(|it| versions(&scene, it).len()), [2; 4]);
    assert!(snapshot(&scene, TREE) == before);
}

#[test]
fn read_all_reads_what_has_not_changed() {
    let scene = scene_with_backup();
    for (command, count) in [
        (&["--json", "whisper", "backup", "--read-all"][..], 4),
        (&["--json", "backup", "--read-all"], 4),
    ] {
        let document = scene.succeeds(command).json();
        assert_eq!(document["read_files"], count);
        assert_eq!((&document["changed_files"], &document["new_bytes"]), (&0.into(), &0.into()));
    }
}

#[test]
fn any_number_of_threads_does_the_same() {
    let scene = scene();
    for threads in ["1", "3", "16"] {
        let (directory, out) = (format!("b{threads}"), format!("out{threads}"));
        scene.succeeds(["-b", &directory, "whisper", "backup", "-p", TREE, "-f", threads]);
        scene.succeeds(["-b", &directory, "whisper", "restore", "-p", &out, "-f", threads]);
        assert!(METRICS.iter().all(|it| read(&scene, &out, it) == read(&scene, TREE, it)));
    }
}

#[test]
fn another_prefix_than_the_configured_one_is_refused_for_a_backup() {
    let scene = scene_with_backup();
    std::fs::create_dir(scene.path("other")).unwrap();
    let output = scene.fails(9, ["whisper", "backup", "-p", "other"]);
    assert!(output.stderr.contains("is for source"), "{}", output.stderr);
    scene.fails(9, ["backup", "--source", "file:tree"]);
    assert_eq!(scene.revision_count(), 1);
    // A restore may go anywhere but into the backup itself.
    scene.succeeds(["whisper", "restore", "-p", "other"]);
    scene.fails(9, ["whisper", "restore", "-p", "vm1"]);
    scene.fails(9, ["whisper", "restore", "-p", "vm1/packs/x"]);
}

#[test]
fn tags_are_those_of_the_schedule_manual_ones_or_whisper() {
    let scene = scene_with_backup();
    let output = scene.fails(2, ["whisper", "backup", "daily"]);
    assert!(output.stderr.contains("unknown tags: daily"), "{}", output.stderr);
    scene.succeeds(["whisper", "backup", "manual:x,whisper"]);
    assert_eq!(scene.tags("0"), ["manual:x,whisper"]);
    scene.succeeds(["whisper", "backup", "--force", "daily"]);
    assert_eq!(scene.tags("0"), ["daily"]);
}

#[test]
fn wrong_arguments_are_explained() {
    let scene = scene_with_backup();
    let commands: [(&[&str], &str); 14] = [
        (&["whisper"], "Usage"),
        (&["whisper", "prune"], "unrecognized subcommand"),
        (&["whisper", "backup", "-r", "0"], "--retention"),
        (&["whisper", "backup", "-r", "many"], "--retention"),
        (&["whisper", "backup", "-x", "-2"], "--purge"),
        (&["whisper", "backup", "-f", "0"], "--processes"),
        (&["whisper", "backup", "--lockfile", "l", "--nolock"], "--nolock"),
        (&["whisper", "backup", "--stampfile", "s", "--nostamp"], "--nostamp"),
        (&["whisper", "backup", "--splay", "-1"], "unexpected argument"),
        (&["whisper", "backup", "--sample", "120"], "--sample"),
        (&["whisper", "restore", "-c", "yesterday"], "not a date"),
        (&["whisper", "restore", "--backfill", "all"], "--backfill"),
        (&["whisper", "list", "-x", "1"], "unexpected argument"),
        (&["whisper", "restore", "-r", "1"], "unexpected argument"),
    ];
    for (command, part) in commands {
        let output = scene.run(command);
        assert_eq!(output.code, Some(2), "{command:?}: {}", output.stderr);
        assert!(output.stderr.contains(part), "{command:?}: {}", output.stderr);
        assert_eq!(output.text(), "");
    }
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn backup_directory_of_an_image_is_not_taken_for_metrics() {
    let (scene, _) = Scene::with_backup();
    std::fs::create_dir(scene.path(TREE)).unwrap();
    let before = snapshot(&scene, "vm1");
    let commands: [&[&str]; 6] = [
        &["whisper", "backup"],
        &["whisper", "backup", "-p", TREE],
        &["whisper", "restore", "-p", "out"],
        &["whisper", "list"],
        &["whisper", "purge"],
        &["backup", "--source", "whisper:tree"],
    ];
    for command in commands {
        let output = scene.fails(9, command);
        assert!(output.stderr.contains("hint: "), "{command:?}: {}", output.stderr);
    }
    scene.fails(2, ["backup", "--read-all"]);
    // Nothing of a job is left there either.
    assert!(before == snapshot(&scene, "vm1"));
    assert!(scene.path(IMAGE).exists());
}

#[test]
fn quiet_says_nothing_and_debug_and_log_file_say_more() {
    let scene = scene_with_backup();
    for command in [&["whisper", "backup", "-q"][..], &["whisper", "restore", "-q"]] {
        assert_eq!(scene.succeeds(command).stderr, "");
    }
    write(&scene, "top", b"no whisper file");
    let output = scene.fails(3, ["whisper", "backup", "-q"]);
    assert!(output.stderr.starts_with("warning: top.wsp"), "{}", output.stderr);
    let output = scene.fails(3, ["-l", "log", "whisper", "backup", "-d"]);
    assert!(output.stderr.contains("top.wsp"), "{}", output.stderr);
    let log = String::from_utf8(scene.read("log")).unwrap();
    assert!(log.contains("whisper backup -d") && log.contains("top.wsp"), "{log}");
    assert!(log.contains("Exit code 3"), "{log}");
    remove(&scene, "top");
    scene.succeeds(["whisper", "list", "-l", "log"]);
}
