//! Documents of `--json`: one on stdout for each command, with keys that are stable.

use serde_json::Value;

use super::trees::{TREE, content, remove, scene_with_backup, write};

const COUNTS: [&str; 8] = [
    "files",
    "new_files",
    "changed_files",
    "unchanged_files",
    "carried_files",
    "gone_files",
    "read_files",
    "problem_count",
];

const BACKUP: [&str; 16] = [
    "id",
    "source",
    "parent",
    "size",
    "problems",
    "read_bytes",
    "new_bytes",
    "stored_bytes",
    "reused_bytes",
    "reused_chunks",
    "new_chunks",
    "sampled_count",
    "duration_seconds",
    "tags",
    "warnings",
    "healed",
];

const THINNED: [&str; 5] =
    ["dropped_versions", "dropped_entries", "gone_files", "thinned_revisions", "removed_revisions"];

const SPACE: [&str; 4] = ["freed_bytes", "repacked_bytes", "kept_bytes", "deferred_bytes"];

const RESTORE: [&str; 18] = [
    "target",
    "noop",
    "files",
    "written_files",
    "replaced_files",
    "backfilled_files",
    "unchanged_files",
    "skipped_files",
    "files_without_version",
    "filled_points",
    "replaced_points",
    "written_bytes",
    "set_aside",
    "set_aside_count",
    "problems",
    "problem_count",
    "damage_count",
    "duration_seconds",
];

#[track_caller]
fn assert_keys(document: &Value, keys: &[&str]) {
    for key in keys {
        assert!(document.get(key).is_some(), "{key} is not in {document}");
    }
}

#[test]
fn documents_have_their_keys() {
    let scene = scene_with_backup();
    let run = |arguments: &[&str]| {
        let output = scene.succeeds([&["--json", "whisper"], arguments].concat());
        for line in output.stderr.lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object()), "{line}");
        }
        output.json()
    };
    write(&scene, "top", &content(60));
    remove(&scene, "servers.web1.load");
    let preview = run(&["backup", "-n", "-x", "0", "-r", "1"]);
    assert_keys(&preview, &COUNTS);
    assert_keys(&preview, &["noop", "problems"]);
    assert_keys(&preview["thinned"], &THINNED);
    assert_eq!(preview["noop"], true);

    let backup = run(&["backup", "-x", "-1"]);
    assert_keys(&backup, &[&COUNTS[..], &BACKUP].concat());
    assert_keys(&backup["thinned"], &THINNED);
    assert_keys(&backup["space"], &SPACE);
    assert_eq!((&backup["gone_files"], &backup["changed_files"]), (&1.into(), &1.into()));
    assert_eq!(backup["tags"], serde_json::json!(["whisper"]));
    let generic = scene.succeeds(["--json", "backup"]).json();
    assert_keys(&generic, &[&COUNTS[..], &BACKUP].concat());

    let list = run(&["list"]);
    assert_eq!(list.as_array().unwrap().len(), 4);
    for metric in list.as_array().unwrap() {
        assert_keys(metric, &["metric", "path", "current", "last_seen", "versions"]);
        assert_keys(&metric["versions"][0], &["since", "last_seen", "size", "revisions"]);
    }
    assert_eq!(list[2]["current"], false);
    assert_eq!(run(&["list", "-m", "none"]), serde_json::json!([]));

    let purge = run(&["purge", "-n", "-x", "0"]);
    assert_keys(&purge, &THINNED);
    assert_eq!((&purge["noop"], &purge["space"]), (&true.into(), &Value::Null));
    let purge = run(&["purge", "-x", "0"]);
    assert_keys(&purge, &THINNED);
    assert_keys(&purge["space"], &SPACE);
    assert_eq!((&purge["noop"], &purge["gone_files"]), (&false.into(), &1.into()));

    for arguments in [&["restore", "-n"][..], &["restore"], &["restore", "-p", "out"]] {
        assert_keys(&run(arguments), &RESTORE);
    }
    assert_keys(&scene.succeeds(["--json", "restore", "out2"]).json(), &RESTORE);
    let first = scene.succeeds(["--json", "-b", "new", "whisper", "backup", "-p", TREE]).json();
    assert_eq!(first["space"], Value::Null, "nothing was dropped");
}

#[test]
fn errors_are_objects_with_an_exit_code() {
    let scene = scene_with_backup();
    for (code, arguments) in [
        (10, &["restore", "-m", "none"][..]),
        (9, &["backup", "-p", "vm1"]),
        (2, &["backup", "unknown"]),
    ] {
        let output = scene.run([&["--json", "whisper"], arguments].concat());
        assert_eq!(output.code, Some(code), "{}", output.stderr);
        assert_eq!(output.json_error()["exit_code"], code);
        assert_eq!(output.text(), "");
    }
}

#[test]
fn empty_history_is_a_document_too() {
    let scene = super::trees::scene();
    scene.succeeds(["init", "whisper", TREE]);
    assert_eq!(scene.succeeds(["--json", "whisper", "list"]).json(), serde_json::json!([]));
    assert_eq!(scene.succeeds(["whisper", "list"]).text(), "no metrics found\n");
    scene.fails(10, ["whisper", "restore", "-p", "out"]);
    scene.succeeds(["whisper", "purge"]);
}
