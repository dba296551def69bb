//! Several processes in one store at once.

use std::fs;
use std::io::Read;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;

use super::compare::{assert_same, change, write_random_image};
use super::running::Running;
use crate::scene::{IMAGE, Scene, random_bytes};

/// Returns a command for the second backup directory, which uses the store of the first.
fn second(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = scene.command(arguments);
    command.env("BACKY_BACKUP_DIR", "vm2");
    command
}

/// Returns a scene with two images of which each has its backup directory; they share a store and
/// half of their bytes.
fn scene_with_two_sources(mib: u64) -> Scene {
    let scene = Scene::new();
    write_random_image(&scene.path(IMAGE), mib, 1);
    write_random_image(&scene.path("second.img"), mib, 1 + mib / 2);
    scene.succeeds(["init", "file", IMAGE]);
    let init = ["init", "--store", "vm1", "--name", "vm2", "file", "second.img"];
    Running::start(&mut second(&scene, &init)).succeeds();
    scene
}

#[test]
fn backups_of_two_sources_restores_and_verifications_run_at_once() {
    let scene = scene_with_two_sources(24);
    scene.succeeds(["backup"]);
    Running::start(&mut second(&scene, &["backup"])).succeeds();
    fs::copy(scene.path(IMAGE), scene.path("before.img")).unwrap();
    write_random_image(&scene.path(IMAGE), 96, 100);
    write_random_image(&scene.path("second.img"), 96, 150);
    let mut backups = [
        Running::start(&mut scene.command(["backup"])),
        Running::start(&mut second(&scene, &["backup"])),
    ];
    let mut rounds = 0;
    while rounds == 0 || !backups.iter_mut().all(Running::has_ended) {
        rounds += 1;
        assert!(rounds < 1000, "the backups do not end");
        let all = [
            Running::start(&mut scene.command(["restore", "-r", "first(tag:manual:cli)", "out"])),
            Running::start(&mut scene.command(["verify", "-r", "first"])),
            Running::start(&mut scene.command(["status"])),
            Running::start(&mut second(&scene, &["find", "-r", "all"])),
            Running::start(&mut scene.command(["store", "info"])),
        ];
        for running in all {
            running.succeeds();
        }
        assert_same(&scene.path("out"), &scene.path("before.img"));
        fs::remove_file(scene.path("out")).unwrap();
    }
    for backup in backups {
        backup.succeeds();
    }
    scene.succeeds(["restore", "-r", "0", "out"]);
    assert_same(&scene.path("out"), &scene.path(IMAGE));
    Running::start(&mut second(&scene, &["restore", "-r", "0", "out2"])).succeeds();
    assert_same(&scene.path("out2"), &scene.path("second.img"));
    scene.succeeds(["verify", "-r", "all"]);
}

#[test]
fn second_backup_of_a_source_names_the_first() {
    let scene = Scene::new();
    write_random_image(&scene.path(IMAGE), 96, 1);
    scene.succeeds(["init", "file", IMAGE]);
    let mut first = Running::start(&mut scene.command(["backup"]));
    first.stop_at_work(&scene);
    let output = scene.fails(11, ["backup"]);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let holder = format!("process {} on {host}", first.id());
    assert!(output.stderr.contains(&holder), "{}", output.stderr);
    assert!(output.stderr.contains("vm1"), "{}", output.stderr);
    // Whoever only reads is not in its way, nor is it in theirs.
    for command in ["status", "find"] {
        scene.run([command]);
    }
    first.signal(Signal::CONT);
    first.succeeds();
    assert_eq!(scene.revision_count(), 1);
    scene.succeeds(["verify"]);
}

#[test]
fn restore_of_a_forgotten_revision_outlives_a_purge_that_moves_what_it_reads() {
    let scene = Scene::new();
    let image = scene.path(IMAGE);
    // The pack of the first revision is mostly dead for the second one, which is the beginning of it.
    write_random_image(&image, 60, 1);
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    fs::File::options().write(true).open(&image).unwrap().set_len(24 << 20).unwrap();
    scene.succeeds(["backup"]);
    scene.succeeds(["forget", "-r", "1"]);
    // Nobody reads what it writes, so it stops when the pipe is full.
    let mut restore = Running::start(&mut scene.command(["restore", "-r", "0", "-"]));
    let mut stdout = restore.take_stdout();
    let mut found = vec![0; 1000];
    stdout.read_exact(&mut found).unwrap();
    scene.succeeds(["forget", "-r", "0"]);
    let report = scene.succeeds(["--json", "purge", "--now"]).json();
    assert!(20 << 20 < report["repacked_bytes"].as_u64().unwrap(), "{report}");
    assert!(60 << 20 < report["freed_bytes"].as_u64().unwrap(), "{report}");
    let holder = &report["waiting"][0]["session"];
    assert_eq!((&holder["kind"], &holder["process"]), (&"restore".into(), &restore.id().into()));
    let text = scene.succeeds(["purge", "--now"]);
    let name = format!("for the restore of process {} on ", restore.id());
    assert!(text.text().contains(&name), "{}", text.text());
    scene.succeeds(["index", "rebuild"]);
    stdout.read_to_end(&mut found).unwrap();
    restore.succeeds();
    assert!(found == fs::read(&image).unwrap(), "other bytes");
    let report = scene.succeeds(["--json", "purge", "--now"]).json();
    assert_eq!((&report["kept_bytes"], &report["waiting"]), (&0.into(), &serde_json::json!([])));
}

#[test]
fn purges_beside_backups_and_restores_lose_nothing() {
    let scene = scene_with_two_sources(24);
    scene.succeeds(["backup"]);
    Running::start(&mut second(&scene, &["backup"])).succeeds();
    let is_over = AtomicBool::new(false);
    let purge_count = thread::scope(|scope| {
        let purging = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) && count < 2000 {
                scene.succeeds(["purge", "--now"]);
                count += 1;
            }
            count
        });
        let worked = scope.spawn(|| {
            for round in 0..6 {
                work_beside_purges(&scene, round);
            }
        });
        let result = worked.join();
        is_over.store(true, Ordering::Relaxed);
        let count = purging.join().expect("every purge succeeds");
        result.expect("what ran beside the purges succeeds");
        count
    });
    assert!(6 <= purge_count, "{purge_count} purges");
    scene.succeeds(["verify", "-r", "all"]);
    scene.succeeds(["restore", "-r", "0", "out"]);
    assert_same(&scene.path("out"), &scene.path(IMAGE));
    Running::start(&mut second(&scene, &["restore", "-r", "0", "out2"])).succeeds();
    assert_same(&scene.path("out2"), &scene.path("second.img"));
}

/// Backs both images up, restores one, and forgets old revisions, so that purge has something to
/// do. Bytes come back that were purged, or are about to be.
fn work_beside_purges(scene: &Scene, round: u64) {
    for (name, seed) in [(IMAGE, round % 2), ("second.img", (round + 1) % 2)] {
        for place in 0..6 {
            let bytes = random_bytes(2 << 20, 500 + seed * 10 + place);
            change(&scene.path(name), place * (4 << 20) + 4096, &bytes);
        }
    }
    let one = Running::start(&mut scene.command(["backup"]));
    let two = Running::start(&mut second(scene, &["backup"]));
    let restore = Running::start(&mut second(scene, &["restore", "-r", "0", "-"]));
    one.succeeds();
    two.succeeds();
    assert_eq!(restore.succeeds().stdout.len(), 24 << 20);
    let old = scene.run(["forget", "-r", "not(last)"]);
    assert!(matches!(old.code, Some(0 | 10)), "{}", old.stderr);
    let out = format!("out-{round}");
    scene.succeeds(["restore", "-r", "0", &out]);
    assert_same(&scene.path(&out), &scene.path(IMAGE));
    fs::remove_file(scene.path(&out)).unwrap();
}
