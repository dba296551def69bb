//! `distrust`: which revisions it doubts, and what it says.

use serde_json::json;

use crate::scene::Scene;

fn trust(scene: &Scene) -> Vec<String> {
    let status = scene.succeeds(["--json", "status"]).json();
    let revisions = status.as_array().expect("status is an array").iter();
    revisions
        .map(|revision| revision["trust"].as_str().expect("trust is a word").to_owned())
        .collect()
}

#[test]
fn distrust_takes_revisions_ranges_and_days() {
    let (scene, _) = Scene::with_backups(3);
    let ids = scene.ids();
    let output = scene.succeeds(["distrust", "-r", "first"]);
    assert_eq!(output.text(), format!("revision {} is in doubt\n", ids[0]));
    assert_eq!(trust(&scene), ["distrusted", "trusted", "trusted"]);
    let document = scene.succeeds(["--json", "distrust", "-r", "first..1"]).json();
    assert_eq!(document, json!({"changed": [ids[1]], "unchanged": [ids[0]]}));
    for none in [
        &["distrust", "--from", "9000-01-01"][..],
        &["distrust", "--until", "2001-01-01"],
        &["distrust", "-r", "0", "-f", "2001-01-01", "-u", "2001-12-31"],
        &["distrust", "-r", "tag:none"],
    ] {
        let output = scene.succeeds(none);
        assert!(output.stderr.contains("no revision matches"), "{}", output.stderr);
    }
    assert_eq!(trust(&scene), ["distrusted", "distrusted", "trusted"]);
    let days = ["--json", "distrust", "-f", "2001-01-01", "-u", "9000-01-01"];
    assert_eq!(scene.succeeds(days).json()["changed"], json!([ids[2]]));
    assert_eq!(trust(&scene), ["distrusted"; 3]);
}

#[test]
fn distrust_that_names_nothing_or_no_day_is_refused() {
    let (scene, _) = Scene::with_backups(1);
    scene.fails(2, ["distrust"]);
    scene.fails(2, ["distrust", "--from", "yesterday"]);
    scene.fails(2, ["distrust", "--until", "2026-02-30"]);
    let output = scene.fails(2, ["distrust", "--from", "2026-02-02", "--until", "2026-02-01"]);
    assert!(output.stderr.contains("--until is a day before --from"), "{}", output.stderr);
    scene.fails(10, ["distrust", "-r", "7"]);
    assert_eq!(trust(&scene), ["trusted"]);
}

#[test]
fn backup_after_a_distrust_says_why_it_is_full_and_what_became_of_the_doubt() {
    let (scene, _) = Scene::with_backups(2);
    let ids = scene.ids();
    scene.succeeds(["distrust", "-r", "all"]);
    let output = scene.succeeds(["--json", "backup"]);
    let document = output.json();
    assert_eq!(document["rechecked"], json!({"id": ids[1], "sound": true}));
    assert_eq!(document["reused_chunks"], 0);
    let warning = document["warnings"][0].as_str().unwrap();
    assert!(warning.contains("is distrusted: every chunk is written again"), "{warning}");
    assert_eq!(trust(&scene), ["distrusted", "verified", "trusted"]);
    let output = scene.succeeds(["backup"]);
    assert!(output.stderr.contains(&format!("{} is verified now", ids[0])), "{}", output.stderr);
    assert_eq!(scene.succeeds(["--json", "backup"]).json()["rechecked"], json!(null));
}
