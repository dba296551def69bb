//! Locks, stamps, delays: what makes the commands good for cron.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use super::trees::{TREE, content, lock, scene_with_backup, versions, write};
use crate::scene::Scene;
use crate::system::machine::skip;
use crate::system::running::Running;

fn hold(path: &Path) -> File {
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

fn is_stamped(scene: &Scene) -> bool {
    scene.backup_path("whisper.success").exists()
}

#[test]
fn stamp_is_touched_when_all_went_well() {
    let scene = scene_with_backup();
    let stamp = scene.backup_path("whisper.success");
    for command in ["backup", "restore", "purge"] {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().write(true).open(&stamp).unwrap().set_modified(old).unwrap();
        scene.succeeds(["whisper", "list"]);
        assert_eq!(fs::metadata(&stamp).unwrap().modified().unwrap(), old);
        scene.succeeds(["whisper", command]);
        assert!(old < fs::metadata(&stamp).unwrap().modified().unwrap(), "{command}");
    }
}

#[test]
fn nothing_is_stamped_after_a_problem() {
    let scene = scene_with_backup();
    fs::remove_file(scene.backup_path("whisper.success")).unwrap();
    write(&scene, "bad", b"no whisper file");
    scene.fails(3, ["whisper", "backup"]);
    scene.fails(10, ["whisper", "restore", "-m", "none"]);
    scene.fails(9, ["whisper", "backup", "-p", "vm1"]);
    scene.fails(3, ["whisper", "backup", "-n"]);
    assert!(!is_stamped(&scene));
    scene.succeeds(["whisper", "backup", "--nostamp", "-m", "top"]);
    assert!(!is_stamped(&scene));
    scene.succeeds(["whisper", "backup", "--stampfile", "run/of/stamp", "-m", "top"]);
    assert!(!is_stamped(&scene) && scene.path("run/of/stamp").exists());
}

#[test]
fn lock_that_is_held_ends_the_command_with_its_path() {
    let scene = scene_with_backup();
    fs::remove_file(scene.backup_path("whisper.success")).unwrap();
    let held = hold(&scene.backup_path("whisper.lock"));
    for command in ["backup", "restore", "purge"] {
        let begun = Instant::now();
        let output = scene.fails(11, ["whisper", command, "--locktimeout", "1"]);
        assert!(Duration::from_secs(1) <= begun.elapsed());
        assert!(output.stderr.contains("vm1/whisper.lock was locked"), "{}", output.stderr);
        scene.fails(11, ["whisper", command, "--locktimeout", "0"]);
    }
    assert!(!is_stamped(&scene));
    assert_eq!(scene.revision_count(), 1);
    // Lists take no lock, and a lock elsewhere is another one.
    scene.succeeds(["whisper", "list"]);
    scene.succeeds(["whisper", "backup", "--nolock"]);
    scene.succeeds(["whisper", "backup", "--lockfile", "mine"]);
    assert_eq!(scene.read("mine").last(), Some(&b'\n'));
    let mine = hold(&scene.path("mine"));
    let output = scene.fails(11, ["whisper", "purge", "--lockfile", "mine", "--locktimeout", "0"]);
    assert!(output.stderr.contains("mine was locked"), "{}", output.stderr);
    drop((held, mine));
    scene.succeeds(["whisper", "purge", "--lockfile", "mine"]);
    scene.succeeds(["whisper", "backup", "--locktimeout", "0"]);
}

#[test]
fn lock_is_waited_for() {
    let scene = scene_with_backup();
    let held = hold(&scene.backup_path("whisper.lock"));
    let mut running = Running::start(&mut scene.command(["whisper", "backup"]));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!running.has_ended());
    let before = scene.ids();
    drop(held);
    running.succeeds();
    assert_ne!(scene.ids(), before);
}

#[test]
fn waiting_ends_with_a_signal() {
    let scene = scene_with_backup();
    let _held = hold(&scene.backup_path("whisper.lock"));
    for command in [&["whisper", "backup"][..], &["whisper", "purge", "--splay", "100000"]] {
        let mut running = Running::start(scene.command(command).args(["-l", "log"]));
        let has_begun = || fs::read_to_string(scene.path("log")).is_ok_and(|log| log.contains('$'));
        assert!(running.wait_until(has_begun));
        running.signal(Signal::INT);
        assert_eq!(running.finish().code, Some(130));
        fs::remove_file(scene.path("log")).unwrap();
    }
}

#[test]
fn list_works_while_a_backup_runs() {
    let scene = scene_with_backup();
    write(&scene, "top", &content(50));
    let writer = lock(&scene, TREE, "top");
    let mut running = Running::start(&mut scene.command(["whisper", "backup"]));
    running.stop_at_work(&scene);
    scene.fails(11, ["whisper", "purge", "--locktimeout", "0"]);
    assert_eq!(versions(&scene, "top").len(), 1);
    assert!(scene.succeeds(["whisper", "list"]).text().ends_with("4 metrics found\n"));
    running.signal(Signal::CONT);
    drop(writer);
    running.succeeds();
    assert_eq!(versions(&scene, "top").len(), 2);
}

#[test]
fn second_backup_of_the_source_is_refused_by_the_store() {
    let scene = scene_with_backup();
    write(&scene, "top", &content(50));
    let _writer = lock(&scene, TREE, "top");
    let mut running = Running::start(&mut scene.command(["whisper", "backup"]));
    running.stop_at_work(&scene);
    scene.fails(11, ["whisper", "backup", "--nolock"]);
    scene.fails(11, ["backup"]);
}

#[test]
fn splay_delays_by_no_more_than_it_says() {
    let scene = scene_with_backup();
    for _ in 0..3 {
        let mut running = Running::start(&mut scene.command(["whisper", "purge", "--splay", "1"]));
        // Of the limit itself a unit test takes care; here it only must not be for ever.
        assert!(!running.wait_until(|| false));
        running.succeeds();
    }
    scene.succeeds(["whisper", "purge", "--splay", "0"]);
}

#[test]
fn missing_system_log_is_a_warning() {
    let scene = scene_with_backup();
    let output = scene.succeeds(["whisper", "backup", "--syslog"]);
    if Path::new("/dev/log").exists() {
        return skip("missing system log", "not possible here: this machine has one");
    }
    assert!(output.stderr.contains("warning: nothing goes to the system log"), "{output:?}");
}
