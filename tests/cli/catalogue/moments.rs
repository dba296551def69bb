//! Faults that need the right moment: something happens while a command runs.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use super::driver::check_store;
use super::row::After;
use super::stage::Stage;
use crate::scene::{IMAGE, Scene, random_bytes};
use crate::system::machine::{Mount, run_tool, skip};
use crate::system::running::Running;

/// Bytes of an image that takes a while.
const LARGE_LEN: usize = 24 << 20;

/// Gives the source many new bytes, and starts a backup that is stopped once it is at work.
fn stopped_backup(stage: &Stage) -> Running {
    stage.scene.write(IMAGE, random_bytes(LARGE_LEN, 5));
    let mut running = Running::start(&mut stage.scene.command(["backup", "manual:stopped"]));
    running.stop_at_work(&stage.scene);
    running
}

#[track_caller]
fn assert_sound(stage: &Stage) {
    assert_eq!(check_store(stage, After::Whole), Ok(()));
}

pub(super) fn source_that_is_replaced_meanwhile_is_read_to_its_end() {
    let stage = Stage::new();
    let mut running = stopped_backup(&stage);
    let old = stage.scene.read(IMAGE);
    stage.scene.write("other", random_bytes(LARGE_LEN, 6));
    fs::rename(stage.scene.path("other"), stage.scene.path(IMAGE)).unwrap();
    running.signal(Signal::CONT);
    running.succeeds();
    let (output, bytes) = stage.restore("latest");
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(bytes == old, "bytes of two files");
    assert_sound(&stage);
}

pub(super) fn store_that_is_moved_away_ends_a_backup() {
    let stage = Stage::new();
    let mut running = stopped_backup(&stage);
    fs::rename(stage.scene.path("vm1"), stage.scene.path("elsewhere")).unwrap();
    running.signal(Signal::CONT);
    let output = running.finish();
    fs::rename(stage.scene.path("elsewhere"), stage.scene.path("vm1")).unwrap();
    assert_eq!(output.code, Some(8), "{}", output.stderr);
    assert!(output.stderr.contains("error: ") && output.stderr.contains("/vm1"), "{output:?}");
    assert_sound(&stage);
}

pub(super) fn store_that_is_unmounted_ends_a_backup() {
    let scene = Scene::new();
    let mount = match Mount::small_file_system(&scene, 128 << 20) {
        Ok(mount) => mount,
        Err(reason) => return skip("store that is unmounted", &reason),
    };
    scene.write(IMAGE, random_bytes(LARGE_LEN, 5));
    symlink("mnt/vm1", scene.path("vm1")).unwrap();
    fs::create_dir(mount.point.join("vm1")).unwrap();
    scene.succeeds(["init", "file", IMAGE]);
    let mut running = Running::start(&mut scene.command(["backup"]));
    running.stop_at_work(&scene);
    run_tool("umount", ["--lazy", mount.point.to_str().unwrap()]).unwrap();
    running.signal(Signal::CONT);
    let output = running.finish();
    assert_eq!(output.code, Some(8), "{}", output.stderr);
    assert!(output.stderr.contains("/vm1"), "{}", output.stderr);
    drop(mount);
    let image = scene.path("small.img");
    let mount = Mount::image(&scene, &image).unwrap();
    scene.succeeds(["backup"]);
    scene.succeeds(["verify", "--all-data"]);
    assert_eq!(scene.revision_count(), 1);
    drop(mount);
}

pub(super) fn temporary_file_of_a_living_writer_is_left_alone() {
    let stage = Stage::new();
    let path = stage.scene.backup_path("tmp").join("b".repeat(32));
    fs::write(&path, b"half a pack").unwrap();
    let writer = fs::File::open(&path).unwrap();
    writer.lock().unwrap();
    stage.scene.succeeds(["backup", "manual:beside"]);
    assert_eq!(fs::read(&path).unwrap(), b"half a pack");
    drop(writer);
    assert_sound(&stage);
}

pub(super) fn second_interrupt_ends_the_process_at_once() {
    let stage = Stage::new();
    let mut running = stopped_backup(&stage);
    // Both are pending when it goes on: the first one sets the flag that the second one finds.
    running.signal(Signal::INT);
    running.signal(Signal::TERM);
    running.signal(Signal::CONT);
    let output = running.finish();
    assert!(matches!(output.code, Some(130 | 143)), "{output:?}");
    assert_sound(&stage);
}

pub(super) fn backup_that_slept_long_still_holds_its_locks() {
    let stage = Stage::new();
    let mut running = stopped_backup(&stage);
    let output = stage.scene.fails(11, ["backup"]);
    assert!(output.stderr.contains("hint: "), "{}", output.stderr);
    running.signal(Signal::CONT);
    running.succeeds();
    assert_sound(&stage);
}
