//! `distrust`: which revisions it doubts, and what it says.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::scene::{IMAGE, IMAGE_LEN, Scene};

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

/// Backs up an image that is written to all the time, until a sample shows it.
fn backup_of_a_busy_image(scene: &Scene) -> crate::scene::Output {
    let file =
        OpenOptions::new().write(true).open(scene.path(IMAGE)).expect("the image can be opened");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in (0_u8..=255).cycle() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                file.write_all_at(&vec![round; IMAGE_LEN], 0).expect("the image can be written");
            }
        });
        let output = (0..50)
            .map(|_| scene.run(["--json", "backup", "--sample", "100"]))
            .find(|output| output.code != Some(0));
        is_over.store(true, Ordering::SeqCst);
        output.expect("one of fifty backups meets a change")
    })
}

#[test]
fn image_that_changes_while_it_is_read_ends_with_4_and_evidence() {
    let scene = Scene::with_init();
    scene.write_image(IMAGE, IMAGE_LEN, 1);
    scene.succeeds(["backup", "--sample=0"]);
    let output = backup_of_a_busy_image(&scene);
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    let error = output.json_error();
    assert!(error["error"].as_str().unwrap().starts_with("no revision: at byte "), "{error}");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("snapshot") && hint.contains("/quarantine/mismatch-"), "{hint}");
    let evidence = std::fs::read_dir(scene.backup_path("quarantine")).unwrap().count();
    assert!(3 <= evidence, "two sides and a report, not {evidence} files");

    let status = scene.succeeds(["status"]);
    assert!(status.stderr.contains("of what a backup read back wrongly in "), "{}", status.stderr);
    let info = scene.succeeds(["--json", "store", "info"]).json();
    assert_ne!(info["mismatches"], json!(0));

    // Until it is removed, more is compared; and then there is a revision again.
    let output = scene.succeeds(["backup", "--sample", "adaptive"]);
    assert!(output.stderr.contains("something speaks against this source"), "{}", output.stderr);
    assert!(output.text().ends_with(" compared\n"), "{}", output.text());
    let report = scene.succeeds(["--json", "backup", "--sample", "100%"]).json();
    assert_eq!(report["sampled_bytes"], json!(IMAGE_LEN));
    scene.succeeds(["verify"]);
}

#[test]
fn sample_that_is_no_percentage_is_refused() {
    let scene = Scene::with_init();
    for wrong in ["101", "-1", "much", ""] {
        let output = scene.fails(2, ["backup", &format!("--sample={wrong}")]);
        assert!(output.stderr.contains("from 0 to 100"), "{}", output.stderr);
    }
}

#[test]
fn verify_says_what_it_left_out_and_reads_it_on_demand() {
    let (scene, _) = Scene::with_backups(1);
    let first = scene.succeeds(["--json", "verify"]).json();
    assert_eq!(first["proven_chunks"], 0);
    let second = scene.succeeds(["--json", "verify", "-r", "0"]).json();
    assert_eq!(
        (&second["checked_chunks"], &second["proven_chunks"]),
        (&json!(0), &first["checked_chunks"])
    );
    assert_eq!(second["verified"], json!(scene.ids()));
    let output = scene.succeeds(["verify"]);
    assert!(output.stderr.contains("--all-data reads them"), "{}", output.stderr);
    let third = scene.succeeds(["--json", "verify", "--all-data"]).json();
    assert_eq!(
        (&third["checked_chunks"], &third["proven_chunks"]),
        (&first["checked_chunks"], &json!(0))
    );
}
