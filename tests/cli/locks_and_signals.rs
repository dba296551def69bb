//! Other processes: locks, signals, readers that go away.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{IMAGE, Scene, files_below, random_bytes};

/// Time in which anything must have happened.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a scene with an image that takes a while.
fn scene_with_large_image() -> Scene {
    let scene = Scene::new();
    let mut block = random_bytes(1 << 20, 5);
    let mut image = File::create(scene.path(IMAGE)).expect("an image can be made");
    for number in 0..384_u64 {
        // Each block differs all over, so that no two chunks are the same.
        block.rotate_left(1 + 8 * 5);
        for page in block.chunks_exact_mut(512) {
            page[..8].copy_from_slice(&number.to_le_bytes());
        }
        image.write_all(&block).expect("an image can be written");
    }
    image.set_len(2 << 30).expect("an image can have a hole");
    scene.succeeds(["init", "file", IMAGE]);
    scene
}

/// Starts a backup and waits until it has begun its work.
fn start_backup(scene: &Scene) -> Child {
    let mut command = scene.command(["backup"]);
    let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the binary can be run");
    let began = Instant::now();
    let places = ["sessions", "tmp", "packs"].map(|name| scene.backup_path(name));
    while places.iter().all(|place| files_below(place).is_empty()) {
        assert!(began.elapsed() < PATIENCE, "the backup does not begin");
        let ended = child.try_wait().expect("a child can be waited for");
        assert_eq!(ended, None, "the backup ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("an id is a number");
    kill_process(pid, signal).expect("a child can be signalled");
}

#[track_caller]
fn assert_signal_ends_backup(signal: Signal, code: i32) {
    let scene = scene_with_large_image();
    let child = start_backup(&scene);
    send(&child, signal);
    let output = child.wait_with_output().expect("a child can be waited for");
    let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains("error: interrupted"), "{stderr}");
    assert_eq!(scene.revision_count(), 0);
    scene.succeeds(["backup"]);
    assert_eq!(scene.revision_count(), 1);
}

#[test]
fn interrupt_ends_a_backup_without_a_revision() {
    assert_signal_ends_backup(Signal::INT, 130);
}

#[test]
fn termination_ends_a_backup_without_a_revision() {
    assert_signal_ends_backup(Signal::TERM, 143);
}

#[test]
fn locked_source_is_told() {
    let (scene, _) = Scene::with_backup();
    let lock = File::options().write(true).open(scene.backup_path("locks/sources/vm1")).unwrap();
    lock.lock().unwrap();
    let output = scene.fails(11, ["backup"]);
    assert!(output.stderr.contains("locked by"), "{}", output.stderr);
    // Reading needs no lock on the source.
    scene.succeeds(["restore", "out"]);
    drop(lock);
    scene.succeeds(["backup"]);
}

#[test]
fn reader_that_closes_its_pipe_ends_a_listing_quietly() {
    let (scene, _) = Scene::with_backup();
    let commands: [&[&str]; 4] = [&["status"], &["--json", "status"], &["find"], &["--help"]];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = scene.command(arguments).stdout(writer).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
    }
}

#[test]
fn reader_that_closes_its_pipe_makes_a_restore_fail() {
    let (scene, _) = Scene::with_backup();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = scene.command(["restore", "-"]).stdout(writer).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn full_stdout_is_an_error() {
    let (scene, _) = Scene::with_backup();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = scene.command(["status"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
}
