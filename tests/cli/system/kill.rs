//! `kill -9` at any moment: nothing acknowledged is lost, and no manual step is needed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use super::compare::{assert_same, change, fingerprint, write_random_image};
use super::killer::Killer;
use super::machine::figure;
use super::running::Running;
use crate::scene::{IMAGE, Scene, files_below, random_bytes};

/// Revisions up to which a long run adds more.
const REVISIONS_MAX: usize = 40;

/// What revisions must be: their images by id.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) images: BTreeMap<String, u64>,
}

impl Ledger {
    /// Notes revisions that are new, which can only be of the present image.
    pub(super) fn note(&mut self, scene: &Scene) {
        let present = fingerprint(File::open(scene.path(IMAGE)).unwrap());
        for id in scene.ids() {
            self.images.entry(id).or_insert(present);
        }
    }

    /// Reads all revisions that were ever acknowledged, and no others.
    #[track_caller]
    pub(super) fn assert_intact(&self, scene: &Scene) {
        let mut ids = scene.ids();
        ids.sort();
        assert_eq!(ids, self.images.keys().cloned().collect::<Vec<_>>());
        for (id, image) in &self.images {
            let output = scene.succeeds(["restore", "-r", id, "-"]);
            assert_eq!(fingerprint(output.stdout.as_slice()), *image, "revision {id}");
        }
    }
}

/// Checks all revisions and forgets all but the latest, once there are many.
fn keep_few(scene: &Scene, ledger: &mut Ledger) {
    if ledger.images.len() < REVISIONS_MAX {
        return;
    }
    ledger.assert_intact(scene);
    scene.succeeds(["forget", "-r", "not(latest)"]);
    scene.succeeds(["purge", "--now"]);
    let left = scene.ids();
    assert_eq!(left.len(), 1);
    ledger.images.retain(|id, _| left.contains(id));
    ledger.assert_intact(scene);
}

/// Nothing is left that only a killed process would have removed.
#[track_caller]
pub(super) fn assert_tidy(scene: &Scene) {
    scene.succeeds(["purge", "--now"]);
    for place in ["tmp", "sessions", "trash"] {
        assert_eq!(files_below(&scene.backup_path(place)), Vec::<PathBuf>::new(), "{place}");
    }
}

#[test]
fn killed_backups_lose_nothing_and_need_no_care() {
    const MIB: u64 = 12;
    let scene = Scene::new();
    let image = scene.path(IMAGE);
    write_random_image(&image, MIB, 1);
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    let (mut killer, mut ledger) = (Killer::new(25), Ledger::default());
    ledger.note(&scene);
    while let Some(round) = killer.next_round() {
        // A few MiB here and there, so that each backup has something to write.
        for place in 0..3 {
            let offset = (u64::from(round) * 5 + place * 4) % (MIB - 2);
            let seed = u64::from(round) * 3 + place + 1000;
            change(&image, (offset << 20) + 1234, &random_bytes(1 << 20, seed));
        }
        killer.kill(&scene, &["backup"]);
        ledger.note(&scene);
        match round % 3 {
            0 => drop(scene.succeeds(["backup"])),
            1 => drop(scene.succeeds(["verify", "-r", "all"])),
            _ => {}
        }
        ledger.note(&scene);
        keep_few(&scene, &mut ledger);
    }
    scene.succeeds(["backup"]);
    ledger.note(&scene);
    ledger.assert_intact(&scene);
    assert_eq!(files_below(&scene.backup_path("tmp")), Vec::<PathBuf>::new());
    assert_tidy(&scene);
    scene.succeeds(["verify", "-r", "all"]);
    figure(&format!("{} revisions", ledger.images.len()));
}

#[test]
fn killed_first_backup_goes_on_where_it_was() {
    const MIB: u64 = 200;
    let scene = Scene::new();
    write_random_image(&scene.path(IMAGE), MIB, 1);
    scene.succeeds(["init", "file", IMAGE]);
    let packs = scene.backup_path("packs");
    let mut running = Running::start(&mut scene.command(["backup"]));
    assert!(running.wait_until(|| !files_below(&packs).is_empty()), "no pack was finished");
    assert!(running.kill(), "it ended before it was killed");
    assert_eq!(scene.revision_count(), 0);
    assert_eq!(files_below(&scene.backup_path("sessions")).len(), 1);
    let report = scene.succeeds(["--json", "backup"]).json();
    let new_bytes = report["new_bytes"].as_u64().unwrap();
    figure(&format!("{} MiB of {MIB} were new", new_bytes >> 20));
    assert!(new_bytes < (MIB - 60) << 20, "{report}");
    scene.succeeds(["restore", "out"]);
    assert_same(&scene.path("out"), &scene.path(IMAGE));
    assert_tidy(&scene);
    scene.succeeds(["verify"]);
}

#[test]
fn killed_purges_lose_nothing() {
    let scene = Scene::new();
    let image = scene.path(IMAGE);
    scene.succeeds(["init", "file", IMAGE]);
    let (mut killer, mut ledger) = (Killer::new(12), Ledger::default());
    while let Some(round) = killer.next_round() {
        for _ in 0..2 {
            write_random_image(&image, 4, killer.random() << 10);
            scene.succeeds(["backup"]);
            ledger.note(&scene);
        }
        let oldest = scene.succeeds(["find", "--uuid", "-r", "first"]).text().trim().to_owned();
        scene.succeeds(["forget", "-r", &oldest]);
        ledger.images.remove(&oldest);
        killer.kill(&scene, &["purge", "--now"]);
        if round % 4 == 0 {
            scene.succeeds(["verify", "-r", "all"]);
        }
        killer.kill(&scene, &["purge", "--now"]);
        keep_few(&scene, &mut ledger);
    }
    ledger.assert_intact(&scene);
    assert_tidy(&scene);
    ledger.assert_intact(&scene);
    scene.succeeds(["verify", "-r", "all"]);
}

#[test]
fn killed_index_rebuilds_leave_an_index() {
    let (scene, images) = Scene::with_backups(3);
    let mut killer = Killer::new(10);
    while let Some(round) = killer.next_round() {
        if round % 3 == 0 {
            fs::remove_file(scene.backup_path("index.redb")).ok();
        }
        killer.kill(&scene, &["index", "rebuild"]);
        assert!(scene.succeeds(["restore", "-r", "0", "-"]).stdout == images[2]);
    }
    scene.succeeds(["verify", "-r", "all"]);
    scene.succeeds(["backup"]);
    assert_tidy(&scene);
}

#[test]
fn killed_restores_do_not_hinder_the_next_one() {
    let scene = Scene::new();
    write_random_image(&scene.path(IMAGE), 24, 1);
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    let mut killer = Killer::new(12);
    while let Some(round) = killer.next_round() {
        let target = scene.path("out");
        killer.kill(&scene, &["restore", "out"]);
        if target.exists() {
            // It was killed after its last step.
            assert_same(&target, &scene.path(IMAGE));
            fs::remove_file(&target).unwrap();
        }
        if round % 2 == 0 {
            scene.succeeds(["restore", "out"]);
            assert_same(&target, &scene.path(IMAGE));
            killer.kill(&scene, &["restore", "--overwrite", "out"]);
            scene.succeeds(["restore", "--overwrite", "out"]);
            assert_same(&target, &scene.path(IMAGE));
            fs::remove_file(&target).unwrap();
        }
    }
    scene.succeeds(["backup"]);
    assert_tidy(&scene);
}
