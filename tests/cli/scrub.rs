//! `scrub`, and what `status` and `store info` say of it.

use std::fs;

use crate::scene::{Scene, rewrite};

#[test]
fn scrub_is_remembered_and_shown() {
    let (scene, _) = Scene::with_backup();
    let never = scene.succeeds(["status"]);
    assert!(never.text().contains("none of 2 packs was read as a whole yet"), "{}", never.text());
    let output = scene.succeeds(["scrub", "--limit", "1GiB/s"]);
    assert!(output.text().starts_with("checked 2 packs: "), "{}", output.text());
    assert!(output.text().contains(": no damage"), "{}", output.text());
    for command in [&["status"][..], &["store", "info"]] {
        let output = scene.succeeds(command);
        assert!(output.text().contains("all of 2 packs were read since 20"), "{}", output.text());
    }
    let info = scene.succeeds(["--json", "store", "info"]).json();
    assert_eq!(info["coverage"]["read_packs"], 2);
    assert!(info["coverage"]["stalest"].is_string(), "{info}");

    let output = scene.succeeds(["--json", "scrub", "--older-than", "30d"]).json();
    assert_eq!((&output["checked_packs"], &output["checked_chunks"]), (&0.into(), &0.into()));
    let output = scene.succeeds(["--json", "scrub"]).json();
    assert_eq!(output["checked_packs"], 2);
}

#[test]
fn damage_ends_with_4_and_names_the_revision() {
    let (scene, _) = Scene::with_backup();
    let id = scene.ids().remove(0);
    rewrite(&scene.largest_pack(), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let output = scene.fails(4, ["scrub"]);
    assert!(output.stderr.contains(&format!("warning: revision {id} is hit")), "{}", output.stderr);
    let output = scene.run(["--json", "scrub", "--older-than", "1h"]);
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert_eq!(output.json()["damaged"][0]["revisions"][0]["id"], id);
    let status = scene.succeeds(["--json", "status"]).json();
    assert_eq!(status[0]["trust"], "damaged");
}

#[test]
fn damaged_ledger_is_a_warning() {
    let (scene, _) = Scene::with_backup();
    scene.succeeds(["scrub"]);
    fs::write(scene.backup_path("ledger"), "nonsense").unwrap();
    for command in [&["store", "info"][..], &["status"]] {
        let output = scene.succeeds(command);
        assert!(output.stderr.contains("never read"), "{}", output.stderr);
    }
    scene.succeeds(["verify"]);
    assert!(scene.succeeds(["status"]).text().contains("all of 2 packs"));
}

#[test]
fn wrong_ages_and_rates_are_usage_errors() {
    let (scene, _) = Scene::with_backup();
    for arguments in
        [["--older-than", "soon"], ["--older-than", "0"], ["--limit", "0"], ["--limit", "x"]]
    {
        scene.fails(2, ["scrub"].iter().chain(&arguments));
    }
}
