//! Documents of `--json`: their keys are stable.

use serde_json::Value;

use crate::scene::{IMAGE, IMAGE_LEN, Scene};

#[track_caller]
fn assert_keys(document: &Value, keys: &[&str]) {
    for key in keys {
        assert!(document.get(key).is_some(), "{key} is not in {document}");
    }
}

#[test]
fn documents_have_their_keys() {
    let scene = Scene::with_init();
    let backup = scene.succeeds(["--json", "backup"]).json();
    assert_keys(
        &backup,
        &[
            "id",
            "size",
            "read_bytes",
            "new_bytes",
            "stored_bytes",
            "reused_chunks",
            "new_chunks",
            "duration_seconds",
            "parent",
            "warnings",
        ],
    );
    assert_eq!(backup["size"], IMAGE_LEN);
    assert_eq!(backup["parent"], Value::Null);
    let second = scene.succeeds(["backup", "--json"]).json();
    assert_eq!(second["parent"], backup["id"]);

    let status = scene.succeeds(["--json", "status", "-r", "first"]).json();
    assert_keys(
        &status[0],
        &["id", "source", "time", "size", "stored_bytes", "duration_seconds", "tags", "trust"],
    );
    assert_eq!(status[0]["id"], backup["id"]);
    assert_eq!(status[0]["complete"], true);
    assert_eq!(status[0]["kind"], "image");
    assert_eq!(status[0]["tags"], serde_json::json!(["manual:cli"]));

    let restore = scene.succeeds(["--json", "restore", "out"]).json();
    assert_keys(&restore, &["id", "target", "size", "written_bytes", "zero_bytes", "damaged"]);
    let verify = scene.succeeds(["--json", "verify"]).json();
    assert_keys(&verify, &["checked_chunks", "checked_bytes", "damaged"]);
    assert_eq!(verify["damaged"], serde_json::json!([]));
    let scrub = scene.succeeds(["--json", "scrub"]).json();
    assert_keys(&scrub, &["checked_packs", "checked_chunks", "checked_bytes", "damaged"]);
    assert_eq!(scrub["damaged"], serde_json::json!([]));
    let find = scene.succeeds(["--json", "find", "-r", "first"]).json();
    assert_eq!(find[0]["id"], backup["id"]);
    let forget = scene.succeeds(["--json", "forget", "-r", "first"]).json();
    assert_eq!(forget["forgotten"], serde_json::json!([backup["id"]]));
    for arguments in [&["--json", "purge", "--dry-run"][..], &["--json", "purge", "--now"]] {
        let purge = scene.succeeds(arguments).json();
        assert_keys(&purge, &["freed_bytes", "repacked_bytes", "kept_bytes", "deferred_bytes"]);
    }
    let rebuild = scene.succeeds(["--json", "index", "rebuild"]).json();
    assert_keys(&rebuild, &["packs", "chunks"]);
    let info = scene.succeeds(["--json", "store", "info"]).json();
    assert_keys(
        &info,
        &[
            "format",
            "store_id",
            "packs",
            "chunks",
            "apparent_bytes",
            "unique_bytes",
            "stored_bytes",
            "coverage",
        ],
    );
    assert_eq!(info["format"], 1);
}

#[test]
fn init_prints_a_document() {
    let scene = Scene::new();
    scene.write_image(IMAGE, 1000, 1);
    let init = scene.succeeds(["--json", "init", "file", IMAGE]).json();
    assert_keys(&init, &["backup_dir", "store", "store_id", "name", "source"]);
    assert_eq!(init["name"], "vm1");
}

#[test]
fn errors_are_one_object_on_stderr() {
    let (scene, _) = Scene::with_backup();
    let output = scene.run(["--json", "restore", "-r", "7", "out"]);
    assert_eq!(output.code, Some(10));
    assert!(output.stdout.is_empty());
    let error = output.json_error();
    assert_keys(&error, &["error", "causes", "exit_code", "hint"]);
    assert_eq!(error["exit_code"], 10);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    let output = scene.run(["--json", "no-such-command"]);
    assert_eq!(output.code, Some(2));
    assert_eq!(output.json_error()["exit_code"], 2);
}

#[test]
fn warnings_are_objects_too() {
    let scene = Scene::new();
    let output = scene.succeeds(["--json", "init", "file", "missing.img"]);
    assert_keys(&output.json_error(), &["warning"]);
}
