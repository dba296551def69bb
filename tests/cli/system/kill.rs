//! `kill -9` at any moment: nothing acknowledged is lost, and no manual step is needed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::compare::{assert_same, change, fingerprint, write_random_image};
use super::machine::figure;
use super::running::{Moments, Running};
use crate::scene::{IMAGE, Scene, files_below, random_bytes};

/// Kills in each test; more of them with `BACKY_LONG_TESTS`.
fn kill_count(usual: u32) -> u32 {
    if std::env::var_os("BACKY_LONG_TESTS").is_some() { 20 * usual } else { usual }
}

/// What revisions must be: their images by id.
#[derive(Debug, Default)]
struct Ledger {
    images: BTreeMap<String, u64>,
}

impl Ledger {
    /// Notes revisions that are new, which can only be of the present image.
    fn note(&mut self, scene: &Scene) {
        let present = fingerprint(File::open(scene.path(IMAGE)).unwrap());
        for id in scene.ids() {
            self.images.entry(id).or_insert(present);
        }
    }

    /// Reads all revisions that were ever acknowledged, and no others.
    #[track_caller]
    fn assert_intact(&self, scene: &Scene) {
        let mut ids = scene.ids();
        ids.sort();
        assert_eq!(ids, self.images.keys().cloned().collect::<Vec<_>>());
        for (id, image) in &self.images {
            let output = scene.succeeds(["restore", "-r", id, "-"]);
            assert_eq!(fingerprint(output.stdout.as_slice()), *image, "revision {id}");
        }
    }
}

/// Starts a command and kills it after a while.
fn kill_after(scene: &Scene, arguments: &[&str], wait: Duration) {
    let running = Running::start(&mut scene.command(arguments));
    std::thread::sleep(wait);
    running.kill();
}

fn duration_of(scene: &Scene, arguments: &[&str]) -> Duration {
    let began = Instant::now();
    scene.succeeds(arguments);
    began.elapsed()
}

/// Nothing is left that only a killed process would have removed.
#[track_caller]
fn assert_tidy(scene: &Scene) {
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
    let longest = duration_of(&scene, &["backup"]).mul_f64(1.3);
    let (mut moments, mut ledger) = (Moments::new(), Ledger::default());
    ledger.note(&scene);
    for round in 0..kill_count(30) {
        // A few MiB here and there, so that each backup has something to write.
        for place in 0..3 {
            let offset = (u64::from(round) * 5 + place * 4) % (MIB - 2);
            let seed = u64::from(round) * 3 + place + 1000;
            change(&image, (offset << 20) + 1234, &random_bytes(1 << 20, seed));
        }
        kill_after(&scene, &["backup"], moments.next(longest));
        ledger.note(&scene);
        match round % 3 {
            0 => drop(scene.succeeds(["backup"])),
            1 => drop(scene.succeeds(["verify", "-r", "all"])),
            _ => {}
        }
        ledger.note(&scene);
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
    running.kill();
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
    let (mut moments, mut ledger) = (Moments::new(), Ledger::default());
    let mut longest = Duration::from_millis(60);
    for round in 0..kill_count(8) {
        for _ in 0..2 {
            write_random_image(&image, 4, fresh_seed(&mut moments));
            scene.succeeds(["backup"]);
            ledger.note(&scene);
        }
        let oldest = scene.succeeds(["find", "--uuid", "-r", "first"]).text().trim().to_owned();
        scene.succeeds(["forget", "-r", &oldest]);
        ledger.images.remove(&oldest);
        if round == 0 {
            longest = duration_of(&scene, &["purge", "--now"]);
            continue;
        }
        kill_after(&scene, &["purge", "--now"], moments.next(longest));
        if round % 2 == 0 {
            scene.succeeds(["verify", "-r", "all"]);
        }
        kill_after(&scene, &["purge", "--now"], moments.next(longest));
    }
    ledger.assert_intact(&scene);
    assert_tidy(&scene);
    ledger.assert_intact(&scene);
    scene.succeeds(["verify", "-r", "all"]);
}

/// Returns a seed that no other image has.
fn fresh_seed(moments: &mut Moments) -> u64 {
    u64::from(moments.next(Duration::from_secs(3600)).subsec_nanos()) << 20
}

#[test]
fn killed_index_rebuilds_leave_an_index() {
    let (scene, images) = Scene::with_backups(3);
    let longest = duration_of(&scene, &["index", "rebuild"]).mul_f64(1.2);
    let mut moments = Moments::new();
    for round in 0..kill_count(10) {
        if round % 3 == 0 {
            fs::remove_file(scene.backup_path("index.redb")).ok();
        }
        kill_after(&scene, &["index", "rebuild"], moments.next(longest));
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
    let longest = duration_of(&scene, &["restore", "probe"]);
    let mut moments = Moments::new();
    for round in 0..kill_count(10) {
        let target = scene.path("out");
        kill_after(&scene, &["restore", "out"], moments.next(longest));
        if target.exists() {
            // It was killed after its last step.
            assert_same(&target, &scene.path(IMAGE));
            fs::remove_file(&target).unwrap();
        }
        if round % 2 == 0 {
            scene.succeeds(["restore", "out"]);
            assert_same(&target, &scene.path(IMAGE));
            kill_after(&scene, &["restore", "--overwrite", "out"], moments.next(longest));
            scene.succeeds(["restore", "--overwrite", "out"]);
            assert_same(&target, &scene.path(IMAGE));
            fs::remove_file(&target).unwrap();
        }
    }
    scene.succeeds(["backup"]);
    assert_tidy(&scene);
}
