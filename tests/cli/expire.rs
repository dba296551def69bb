//! `expire`: the schedule of the configuration, what is printed, and when it is refused.
//!
//! Records are dated back by rewriting them, so that no test waits for days.

use chunkstore::format::RevisionRecord;
use chunkstore::time::Timestamp;

use crate::scene::{IMAGE, Scene, files_below, rewrite};

const DAY_MILLISECONDS: i64 = 86_400_000;

const DAILY: &str = "schedule:\n  daily: {interval: 1d, keep: 3}\n";

/// Returns a scene with one revision for each of these ages in days, oldest first.
fn scene(schedule: &str, revisions: &[(i64, &str)]) -> Scene {
    let scene = Scene::new();
    scene.write_image(IMAGE, 20_000, 1);
    scene.succeeds(["init", "file", IMAGE]);
    for (age, tags) in revisions {
        scene.succeeds(["backup", "-f", tags]);
        date_back(&scene, *age);
    }
    set_schedule(&scene, schedule);
    scene
}

fn set_schedule(scene: &Scene, schedule: &str) {
    let config = String::from_utf8(scene.read("vm1/config")).expect("configurations are UTF-8");
    let rest = config.split("schedule:").next().expect("there is always a first part");
    scene.write("vm1/config", format!("{}\n{schedule}", rest.trim_end()));
}

/// Makes the newest revision this many days old; one of a negative age lies in the future.
fn date_back(scene: &Scene, days: i64) {
    let path = scene.succeeds(["find"]).text().trim().to_owned();
    rewrite(path.as_ref(), |bytes| {
        let mut record = RevisionRecord::decode(bytes).expect("the record is sound");
        record.time = Timestamp(record.time.0 - days * DAY_MILLISECONDS);
        *bytes = record.encode();
    });
}

const FIVE: [(i64, &str); 5] =
    [(5, "daily"), (4, "daily,manual:x,gone"), (2, "daily"), (1, "daily"), (0, "daily")];

#[test]
fn expiry_says_why_of_everything() {
    let scene = scene(DAILY, &FIVE);
    let ids = scene.ids();
    let dry = scene.succeeds(["expire", "--dry-run"]);
    let lines: Vec<_> = dry.text().lines().collect();
    assert!(lines[0].starts_with("Date (UTC)") && lines[0].ends_with("Reason"), "{lines:?}");
    assert!(lines[1].contains(&ids[0]) && lines[1].contains("daily -> -"), "{lines:?}");
    assert!(lines[1].contains("removed  daily: 4 newer, age 5d > 3x1d"), "{lines:?}");
    assert!(lines[2].contains(" -> manual:x  kept"), "{lines:?}");
    assert!(lines[2].contains("schedule has no tag gone"), "{lines:?}");
    assert!(lines[2].contains("manual:x: manual tags never expire"), "{lines:?}");
    assert!(lines[3].ends_with("kept     daily: 3rd newest of 3"), "{lines:?}");
    assert!(lines[5].ends_with("daily: newest of 3"), "{lines:?}");
    assert_eq!(lines[6], "1 revision would be removed, 4 would be kept");
    assert_eq!(scene.ids(), ids);

    let output = scene.succeeds(["expire"]);
    assert!(output.text().ends_with("1 revision removed, 4 kept\n"), "{}", output.text());
    assert!(output.stderr.contains("purge"), "{}", output.stderr);
    assert_eq!(scene.ids(), ids[1..]);
    assert_eq!(scene.tags("all"), ["manual:x", "daily", "daily", "daily"]);
    let again = scene.succeeds(["expire"]);
    assert!(again.text().ends_with("0 revisions removed, 4 kept\n"), "{}", again.text());
    scene.succeeds(["purge", "--now"]);
    scene.succeeds(["verify"]);
}

#[test]
fn document_has_the_same() {
    let scene = scene(DAILY, &FIVE);
    let ids = scene.ids();
    let dry = scene.succeeds(["--json", "expire", "--dry-run"]).json();
    assert_eq!(dry["dry_run"], true);
    let done = scene.succeeds(["--json", "expire"]).json();
    assert_eq!(done["dry_run"], false);
    for document in [dry, done] {
        assert_eq!(document["source"], "vm1");
        assert_eq!(document["removed"], serde_json::json!([ids[0]]));
        assert_eq!(document["refusals"], serde_json::json!([]));
        let first = &document["revisions"][0];
        assert_eq!(first["id"], ids[0].as_str());
        assert_eq!(first["tags_before"], serde_json::json!(["daily"]));
        assert_eq!(first["tags_after"], serde_json::json!([]));
        assert_eq!(first["removed"], true);
        assert!(first["time"].as_str().unwrap().ends_with('Z'));
        let reason = serde_json::json!(
            {"tag": "daily", "keeps": false, "reason": "daily: 4 newer, age 5d > 3x1d"}
        );
        assert_eq!(first["reasons"], serde_json::json!([reason]));
    }
}

#[test]
fn calendar_keeps_the_newest_of_each_period() {
    let schedule = "schedule:\n  nightly: {keep-daily: 2, keep-yearly: 1}\n";
    let scene = scene(schedule, &[(2, "nightly"), (1, "nightly"), (0, "nightly"), (0, "nightly")]);
    let ids = scene.ids();
    let output = scene.succeeds(["expire", "--dry-run"]);
    let lines: Vec<_> = output.text().lines().collect();
    assert!(lines[1].ends_with("removed  nightly: no keep rule needs it"), "{lines:?}");
    assert!(lines[2].contains("kept     nightly: keep-daily: newest of 20"), "{lines:?}");
    assert!(lines[4].contains("; nightly: keep-yearly: newest of 20"), "{lines:?}");
    scene.succeeds(["expire"]);
    assert_eq!(scene.ids(), [ids[1].clone(), ids[3].clone()]);
}

#[test]
fn calendar_of_the_schedule_keeps_revisions_of_former_tags() {
    let scene = scene("schedule:\n  keep-daily: 9\n", &[(2, "gone"), (1, "gone"), (0, "gone")]);
    let output = scene.succeeds(["expire"]);
    assert!(output.text().contains("; keep-daily: newest of 20"), "{}", output.text());
    assert_eq!(scene.tags("all"), ["", "", ""]);
}

#[track_caller]
fn assert_refused(scene: &Scene, expected: &str, hint: &str) {
    let ids = scene.ids();
    let output = scene.fails(9, ["expire"]);
    assert!(output.stderr.contains(expected), "{}", output.stderr);
    assert!(output.stderr.contains("hint: ") && output.stderr.contains(hint), "{}", output.stderr);
    assert_eq!(output.text(), "");
    assert_eq!(scene.ids(), ids);
    // To look is not refused, and says what would be.
    let dry = scene.succeeds(["expire", "--dry-run"]);
    assert!(dry.stderr.contains("refused without --force"), "{}", dry.stderr);
    let dry = scene.succeeds(["--json", "expire", "--dry-run"]).json();
    assert_ne!(dry["refusals"], serde_json::json!([]));
    let error = scene.run(["--json", "expire"]).json_error();
    assert_eq!(error["exit_code"], 9);
    assert_eq!(scene.ids(), ids);
}

#[test]
fn clock_that_is_behind_is_refused() {
    let scene = scene(DAILY, &[(1, "daily"), (0, "daily"), (-1, "daily")]);
    let id = scene.ids()[2].clone();
    assert_refused(&scene, &format!("but revision {id} is of"), &format!("forget -r {id}"));
    scene.succeeds(["expire", "--force"]);
    scene.succeeds(["forget", "-r", &id]);
    scene.succeeds(["expire"]);
}

#[test]
fn clock_that_is_ahead_is_refused() {
    let ages = [(404, "daily"), (403, "daily"), (402, "daily"), (401, "daily"), (400, "daily")];
    let scene = scene(DAILY, &ages);
    assert_refused(&scene, "the clock may be wrong: there is no revision between", "set the clock");
    let output = scene.succeeds(["expire", "--force"]);
    assert!(output.stderr.contains("warning: forced: the clock may be wrong"), "{}", output.stderr);
    assert_eq!(scene.revision_count(), 3);
}

#[test]
fn removing_more_than_half_is_refused() {
    let scene = scene(
        "schedule:\n  daily: {interval: 1d, keep: 1}\n",
        &[(4, "daily"), (3, "daily"), (2, "daily"), (0, "daily")],
    );
    assert_refused(&scene, "3 of 4 revisions would be removed, more than half", "--dry-run");
    scene.succeeds(["expire", "--force"]);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn last_good_revision_is_not_removed_without_force() {
    let scene = scene(DAILY, &[(1, "gone")]);
    let id = scene.ids()[0].clone();
    assert_refused(
        &scene,
        &format!("revision {id}, the last good one, would be removed"),
        "--force",
    );
    scene.succeeds(["expire", "--force"]);
    assert_eq!(scene.revision_count(), 0);
}

#[test]
fn protected_revisions_stay() {
    let scene = scene(DAILY, &FIVE);
    let id = scene.ids()[0].clone();
    scene.succeeds(["protect", "-r", &id]);
    let output = scene.succeeds(["expire"]);
    let line = output.text().lines().nth(1).unwrap();
    assert!(line.ends_with("daily                            kept    protected"), "{line:?}");
    assert_eq!(scene.revision_count(), 5);
    scene.succeeds(["unprotect", "-r", &id]);
    scene.succeeds(["expire"]);
    assert_eq!(scene.revision_count(), 4);
}

#[test]
fn without_a_schedule_nothing_expires() {
    let scene = scene("", &[(1, "daily"), (0, "daily")]);
    let output = scene.fails(2, ["expire"]);
    assert!(output.stderr.contains("no schedule"), "{}", output.stderr);
    // One without tags is a schedule: all that is not manual goes, as far as that is not refused.
    set_schedule(&scene, "schedule: {}\n");
    scene.fails(9, ["expire"]);
    std::fs::remove_file(scene.path("vm1/config")).unwrap();
    scene.fails(2, ["expire"]);
    assert_eq!(scene.revision_count(), 2);
}

#[test]
fn wrong_schedule_is_a_configuration_error_that_names_it() {
    let scene = scene("", &[(0, "daily")]);
    for (schedule, expected) in [
        ("schedule:\n  daily: {interval: 0, keep: 3}\n", "above 0"),
        ("schedule:\n  daily: {interval: 1d, keep: 0}\n", "at least 1"),
        ("schedule:\n  daily: {interval: 1d, kept: 3}\n", "kept"),
        ("schedule:\n  keep-hourly: 3\n", "keep-hourly"),
    ] {
        set_schedule(&scene, schedule);
        let output = scene.fails(2, ["expire"]);
        assert!(output.stderr.contains(expected), "{}", output.stderr);
        assert!(output.stderr.contains("vm1/config"), "{}", output.stderr);
    }
}

#[test]
fn running_backup_is_told_and_a_damaged_record_is_left_alone() {
    let scene = scene(DAILY, &FIVE);
    let lock = std::fs::File::options().write(true).open(scene.backup_path("locks/sources/vm1"));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    let output = scene.fails(11, ["expire"]);
    assert!(output.stderr.contains("locked by"), "{}", output.stderr);
    drop(lock);
    let ids = scene.ids();
    let records = files_below(&scene.backup_path("revisions"));
    let record = records.iter().find(|path| path.ends_with(format!("{}.rev", ids[4])));
    rewrite(record.unwrap(), |bytes| bytes.truncate(10));
    let output = scene.fails(4, ["expire"]);
    assert!(output.text().contains("daily: 3 newer, age 5d > 3x1d"), "{}", output.text());
    assert!(record.unwrap().exists());
}
