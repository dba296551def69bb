//! `repair`: what it says, its documents and its exit codes.

use std::fs;

use crate::scene::{BACKUP_DIR, IMAGE_LEN, Scene, rewrite};

/// Returns the smallest pack: that of the lists.
fn list_pack(scene: &Scene) -> std::path::PathBuf {
    let mut packs = Vec::new();
    for directory in fs::read_dir(scene.backup_path("packs")).expect("there are packs") {
        for pack in
            fs::read_dir(directory.expect("it can be listed").path()).expect("it can be listed")
        {
            let pack = pack.expect("it can be listed");
            packs.push((pack.metadata().expect("it is there").len(), pack.path()));
        }
    }
    packs.sort();
    packs.remove(0).1
}

#[test]
fn sound_store_ends_with_0() {
    let (scene, image) = Scene::with_backup();
    let plan = scene.succeeds(["repair", "--plan"]);
    assert!(plan.text().contains("the index would be made anew: 2 packs"), "{}", plan.text());
    let done = scene.succeeds(["repair"]);
    assert!(done.text().contains("the index was made anew: 2 packs"), "{}", done.text());
    assert!(done.text().contains("all revisions can be read"), "{}", done.text());
    assert!(done.stderr.contains("verify --all-data"), "{}", done.stderr);
    let document = scene.succeeds(["--json", "repair"]).json();
    assert_eq!((&document["plan"], &document["packs"]), (&false.into(), &2.into()));
    assert_eq!(document["damaged"], serde_json::json!([]));
    scene.succeeds(["restore", "out"]);
    assert!(scene.read("out") == image);
}

#[test]
fn lost_lists_stop_a_purge_until_they_are_given_up() {
    let (scene, _) = Scene::with_backup();
    let id = scene.ids().remove(0);
    fs::remove_file(list_pack(&scene)).unwrap();
    let stopped = scene.fails(4, ["purge"]);
    assert!(stopped.stderr.contains("`repair`"), "{}", stopped.stderr);

    let plan = scene.run(["--json", "repair", "--plan"]);
    assert_eq!(plan.code, Some(4), "{}", plan.stderr);
    let plan = plan.json();
    assert_eq!(plan["plan"], true);
    assert_eq!(plan["damaged"][0]["revisions"][0]["id"], id);
    assert_eq!(plan["damaged"][0]["revisions"][0]["ranges"], serde_json::json!([[0, IMAGE_LEN]]));
    assert_eq!(plan["given_up"].as_array().unwrap().len(), 1);
    scene.fails(4, ["purge"]);

    let output = scene.fails(4, ["repair"]);
    assert!(output.text().contains("1 list that nobody can serve"), "{}", output.text());
    assert!(output.stderr.contains(&format!("revision {id} is hit")), "{}", output.stderr);
    let again = scene.run(["--json", "repair"]);
    assert_eq!((again.code, &again.json()["given_up"]), (Some(4), &serde_json::json!([])));
    scene.succeeds(["purge"]);

    let output = scene.run(["--json", "restore", "--keep-going", "out"]);
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    let ranges = &output.json()["damaged"][0]["revisions"][0]["ranges"];
    assert_eq!(*ranges, serde_json::json!([[0, IMAGE_LEN]]));
    assert!(scene.read("out") == vec![0; IMAGE_LEN]);
    let output = scene.fails(4, ["restore", "--keep-going", "out2"]);
    assert!(output.stderr.contains(&format!("{IMAGE_LEN} bytes at byte 0")), "{}", output.stderr);

    scene.succeeds(["backup"]);
    scene.succeeds(["repair"]);
    scene.succeeds(["verify", "--all-data"]);
}

#[test]
fn damaged_record_is_moved_and_named() {
    let (scene, _) = Scene::with_backups(2);
    let id = scene.ids().remove(0);
    let record = scene.backup_path(&format!("revisions/{BACKUP_DIR}/{id}.rev"));
    rewrite(&record, |bytes| bytes[200] ^= 1);
    scene.fails(4, ["purge"]);
    let plan = scene.fails(4, ["repair", "--plan"]);
    assert!(plan.text().contains("would be moved to"), "{}", plan.text());
    assert!(record.exists());
    let output = scene.fails(4, ["repair"]);
    let aside = scene.backup_path(&format!("quarantine/revisions/{BACKUP_DIR}/{id}.rev"));
    assert!(output.text().contains(&id) && aside.exists() && !record.exists(), "{}", output.text());
    scene.succeeds(["repair"]);
    scene.succeeds(["purge"]);

    rewrite(&aside, |bytes| bytes[200] ^= 1);
    fs::rename(&aside, &record).unwrap();
    assert_eq!(scene.ids().len(), 2);
}
