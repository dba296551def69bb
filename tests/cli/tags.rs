//! `tags`, `protect` and `unprotect`: edits of history.

use serde_json::json;

use crate::scene::Scene;

#[test]
fn tags_are_set_added_and_removed() {
    let (scene, _) = Scene::with_backups(2);
    let ids = scene.ids();
    let output = scene.succeeds(["tags", "add", "-r", "1", "manual:x, manual:y"]);
    let line = format!("revision {}: manual:0 -> manual:0,manual:x,manual:y\n", ids[0]);
    assert_eq!(output.text(), line);
    scene.succeeds(["tags", "remove", "-r", "1", "manual:0,manual:none"]);
    assert_eq!(scene.tags("all"), ["manual:x,manual:y", "manual:1"]);
    scene.succeeds(["tags", "set", "-r", "all", "manual:z"]);
    assert_eq!(scene.tags("all"), ["manual:z", "manual:z"]);
    let output = scene.succeeds(["tags", "set", "-r", "latest", "manual:z"]);
    assert_eq!(output.text(), format!("revision {}: manual:z\n", ids[1]));
    let output = scene.succeeds(["tags", "set", "-r", "latest", ""]);
    assert_eq!(output.text(), format!("revision {}: manual:z -> -\n", ids[1]));
    assert_eq!(scene.tags("all"), ["manual:z", ""]);
    let output = scene.succeeds(["tags", "add", "-r", "tag:none", "manual:z"]);
    assert!(output.stderr.contains("no revision matches"), "{}", output.stderr);
    scene.succeeds(["verify"]);
}

#[test]
fn tags_come_from_the_schedule_are_manual_or_forced() {
    let (scene, _) = Scene::with_backups(1);
    let config = String::from_utf8(scene.read("vm1/config")).unwrap();
    let schedule = "schedule:\n  weekly: {interval: 1w, keep: 5}\n";
    scene.write("vm1/config", format!("{config}\n{schedule}"));
    for command in ["set", "add"] {
        let output = scene.fails(2, ["tags", command, "-r", "0", "daily,weekly"]);
        assert!(output.stderr.contains("unknown tags: daily"), "{}", output.stderr);
        scene.succeeds(["tags", command, "-r", "0", "weekly"]);
        scene.succeeds(["tags", command, "-f", "-r", "0", "daily"]);
    }
    assert_eq!(scene.tags("0"), ["daily,weekly"]);
    // What is not in the schedule any more can be taken away.
    scene.succeeds(["tags", "remove", "-r", "0", "daily"]);
    scene.fails(2, ["tags", "set", "-r", "0", "-f", "a b"]);
    scene.fails(2, ["tags", "add", "-r", "0", ""]);
    scene.fails(2, ["tags", "add", "manual:x"]);
    scene.fails(2, ["tags", "add", "-r", "(", "manual:x"]);
    scene.fails(10, ["tags", "add", "-r", "7", "manual:x"]);
    assert_eq!(scene.tags("0"), ["weekly"]);
}

#[test]
fn expectation_that_one_revision_fails_changes_none() {
    let (scene, _) = Scene::with_backups(3);
    scene.succeeds(["tags", "set", "-r", "not(first)", "manual:a,manual:b"]);
    let before = scene.tags("all");
    let edit = ["tags", "set", "-r", "all", "--expect", "manual:b,manual:a", "manual:c"];
    let output = scene.fails(9, edit);
    assert!(output.stderr.contains(&scene.ids()[0]), "{}", output.stderr);
    assert!(output.stderr.contains("\"manual:0\""), "{}", output.stderr);
    assert!(output.stderr.contains("hint: nothing was changed"), "{}", output.stderr);
    scene.fails(9, ["tags", "remove", "-r", "all", "--autoremove", "--expect", "", "manual:0"]);
    assert_eq!(scene.tags("all"), before);
    scene.succeeds(["tags", "set", "-r", "0..1", "--expect", "manual:b,manual:a", "manual:c"]);
    assert_eq!(scene.tags("all"), ["manual:0", "manual:c", "manual:c"]);
}

#[test]
fn revisions_without_tags_are_removed_on_demand() {
    let (scene, images) = Scene::with_backups(3);
    let ids = scene.ids();
    scene.succeeds(["protect", "-r", "1"]);
    let edit = ["--json", "tags", "remove", "--autoremove", "-r", "0, 1", "manual:1,manual:2"];
    let document = scene.succeeds(edit).json();
    let change = |id: &str, tag: &str, removed: bool| json!({"id": id, "tags_before": [tag], "tags_after": [], "removed": removed});
    let expected = json!([change(&ids[2], "manual:2", true), change(&ids[1], "manual:1", false)]);
    assert_eq!(document["revisions"], expected);
    assert_eq!(scene.ids(), ids[..2]);
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["restore", "-r", "1", "out"]);
    assert!(scene.read("out") == images[0]);
}

#[test]
fn protected_revisions_are_neither_forgotten_nor_overlooked() {
    let (scene, _) = Scene::with_backups(2);
    let ids = scene.ids();
    assert!(!scene.succeeds(["status"]).text().contains("Protected"));
    let output = scene.succeeds(["protect", "-r", "first"]);
    assert_eq!(output.text(), format!("revision {} is protected\n", ids[0]));
    let status = scene.succeeds(["status"]);
    let lines: Vec<_> = status.text().lines().collect();
    assert!(lines[0].ends_with("Tags      Protected  Trust"), "{lines:?}");
    assert!(lines[1].ends_with("manual:0  yes        trusted"), "{lines:?}");
    assert!(lines[2].ends_with("manual:1             trusted"), "{lines:?}");
    let status = scene.succeeds(["--json", "status"]).json();
    assert_eq!((&status[0]["protected"], &status[1]["protected"]), (&json!(true), &json!(false)));

    let output = scene.fails(9, ["forget", "-r", "all"]);
    assert!(output.stderr.contains(&format!("revision {} is protected", ids[0])), "{output:?}");
    assert!(output.stderr.contains(&format!("unprotect -r {}", ids[0])), "{output:?}");
    assert_eq!(scene.ids(), ids);
    let document = scene.succeeds(["--json", "unprotect", "-r", "all"]).json();
    let expected = json!({"protected": false, "changed": [ids[0]], "unchanged": [ids[1]]});
    assert_eq!(document, expected);
    scene.succeeds(["forget", "-r", "all"]);
    assert_eq!(scene.revision_count(), 0);
    scene.fails(2, ["protect"]);
    scene.fails(10, ["unprotect", "-r", "latest"]);
}

#[test]
fn all_commands_read_the_same_language() {
    let (scene, _) = Scene::with_backups(2);
    let commands: [&[&str]; 10] = [
        &["status"],
        &["find"],
        &["verify"],
        &["distrust"],
        &["protect"],
        &["unprotect"],
        &["tags", "set", "manual:x"],
        &["tags", "add", "manual:x"],
        &["tags", "remove", "manual:x"],
        &["forget"],
    ];
    let message = |code, command: &[&str], spec: &str| {
        let output = scene.fails(code, command.iter().copied().chain(["-r", spec]));
        output.stderr.lines().find(|line| line.starts_with("error: ")).unwrap().to_owned()
    };
    for (code, spec) in [(2, "last)..5"), (2, "123-"), (10, "9"), (10, "first(not(all))")] {
        let expected = message(code, &["restore", "out"], spec);
        for command in commands {
            assert_eq!(message(code, command, spec), expected, "{command:?}");
        }
    }
    for command in commands {
        let spec = "reverse(local & tag:manual:x, first..last) & not(server:other)";
        scene.succeeds(command.iter().copied().chain(["-r", spec]));
    }
    assert_eq!(scene.revision_count(), 0);
}

#[test]
fn edits_need_no_configuration() {
    let (scene, _) = Scene::with_backups(1);
    std::fs::remove_file(scene.path("vm1/config")).unwrap();
    scene.succeeds(["tags", "add", "-r", "0", "manual:x"]);
    scene.fails(2, ["tags", "add", "-r", "0", "daily"]);
    scene.succeeds(["protect", "-r", "0"]);
    assert_eq!(scene.tags("0"), ["manual:0,manual:x"]);
}
