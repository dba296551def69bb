//! A file system with no space left: what is stored stays readable, and a backup goes on later.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use chunkstore::{ImageReader, Overlay, Store};

use super::compare::{assert_same, write_random_image};
use super::machine::{Mount, create_sparse, figure, run_tool, skip};
use crate::scene::{BACKUP_DIR, IMAGE, Scene, files_below};

const DISK_LEN: u64 = 256 << 20;

/// Takes up all that is left, to the last byte.
fn fill_disk(path: &Path) {
    let mut file = File::create(path).unwrap();
    for part_len in [1 << 20, 4096, 1] {
        let part = vec![0xaa; part_len];
        loop {
            match file.write_all(&part) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    let _may_be_full = file.sync_all();
}

fn available_bytes(path: &Path) -> u64 {
    let found = rustix::fs::statvfs(path).unwrap();
    found.f_bavail * found.f_frsize
}

/// Returns a scene with a small file system on `mnt`. What is named last is given back first.
fn scene_with_small_disk() -> Option<(Scene, Mount)> {
    let scene = Scene::new();
    match Mount::small_file_system(&scene, DISK_LEN) {
        Ok(mount) => Some((scene, mount)),
        Err(reason) => {
            skip("full disk", &reason);
            None
        }
    }
}

#[test]
fn full_disk_keeps_what_is_stored_and_a_backup_goes_on_later() {
    let Some((scene, mount)) = scene_with_small_disk() else { return };
    let (image, first) = (scene.path(IMAGE), scene.path("first.img"));
    write_random_image(&image, 8, 1000);
    fs::copy(&image, &first).unwrap();
    let init = ["-b", "mnt/vm1", "init", "file", IMAGE];
    scene.succeeds(init);
    scene.succeeds(["-b", "mnt/vm1", "backup"]);

    write_random_image(&image, 150, 2000);
    let filler = mount.point.join("filler");
    let filler_len = available_bytes(&mount.point) - (100 << 20);
    let len = filler_len.to_string();
    drop(create_sparse(&filler, 0));
    run_tool("fallocate", ["-l", &len, filler.to_str().unwrap()]).unwrap();
    let output = scene.fails(5, ["-b", "mnt/vm1", "backup"]);
    assert!(output.stderr.contains("mnt/vm1/"), "{}", output.stderr);

    let rest = mount.point.join("rest");
    fill_disk(&rest);
    assert_eq!(available_bytes(&mount.point), 0);
    assert_readable(&scene, &first);
    let output = scene.fails(5, ["-b", "mnt/vm1", "backup"]);
    assert!(output.stderr.contains("mnt/vm1/"), "{}", output.stderr);
    assert_eq!(available_bytes(&mount.point), 0, "a failed backup left nothing else behind");
    // Also when the index must be made anew and cannot be kept.
    fs::remove_file(mount.point.join("vm1/index.redb")).unwrap();
    fill_disk(&mount.point.join("rest-of-index"));
    assert_readable(&scene, &first);

    for file in [filler, rest, mount.point.join("rest-of-index")] {
        fs::remove_file(file).unwrap();
    }
    let report = scene.succeeds(["-b", "mnt/vm1", "--json", "backup"]).json();
    let new_bytes = report["new_bytes"].as_u64().unwrap();
    figure(&format!("{new_bytes} new bytes of {} after the disk was full", 150 << 20));
    assert!(new_bytes < (150 << 20) - (60 << 20), "finished packs are reused: {report}");
    scene.succeeds(["-b", "mnt/vm1", "verify", "-r", "all"]);
    scene.succeeds(["-b", "mnt/vm1", "restore", "-r", "0", "out"]);
    assert_same(&scene.path("out"), &image);
    assert_eq!(files_below(&mount.point.join("vm1/tmp")), Vec::<std::path::PathBuf>::new());
}

/// Reading needs no space in the store.
#[track_caller]
fn assert_readable(scene: &Scene, expected: &Path) {
    for command in ["status", "find", "verify"] {
        scene.succeeds(["-b", "mnt/vm1", command]);
    }
    scene.succeeds(["-b", "mnt/vm1", "store", "info"]);
    scene.succeeds(["-b", "mnt/vm1", "restore", "out"]);
    assert_same(&scene.path("out"), expected);
    fs::remove_file(scene.path("out")).unwrap();
}

/// Two revisions of random images, the first of which is forgotten, on a disk that is then full.
fn forget_on_a_full_disk(scene: &Scene, mount: &Mount) {
    let image = scene.path(IMAGE);
    write_random_image(&image, 40, 1000);
    scene.succeeds(["-b", "mnt/vm1", "init", "file", IMAGE]);
    scene.succeeds(["-b", "mnt/vm1", "backup"]);
    write_random_image(&image, 30, 2000);
    scene.succeeds(["-b", "mnt/vm1", "backup"]);
    let free = available_bytes(&mount.point);
    let filler = mount.point.join("filler");
    drop(create_sparse(&filler, 0));
    let len = (free - (8 << 20)).to_string();
    run_tool("fallocate", ["-l", &len, filler.to_str().unwrap()]).unwrap();
    fill_disk(&mount.point.join("rest"));
    assert_eq!(available_bytes(&mount.point), 0);
    scene.succeeds(["-b", "mnt/vm1", "forget", "-r", "1"]);
}

/// Purges, which must give the space of the forgotten image back, and checks the other one.
fn purge_full_disk(scene: &Scene, mount: &Mount) {
    // What forgetting a revision gives back is not left either.
    fill_disk(&mount.point.join("rest-of-record"));
    assert_eq!(available_bytes(&mount.point), 0);
    let report = scene.succeeds(["-b", "mnt/vm1", "--json", "purge", "--now"]).json();
    assert!(35 << 20 < report["freed_bytes"].as_u64().unwrap(), "{report}");
    assert!(15 << 20 < available_bytes(&mount.point), "purge gave space back");
    scene.succeeds(["-b", "mnt/vm1", "verify"]);
    scene.succeeds(["-b", "mnt/vm1", "restore", "out"]);
    assert_same(&scene.path("out"), &scene.path(IMAGE));
    scene.succeeds(["-b", "mnt/vm1", "backup"]);
    assert_is_allocated(&mount.point.join("vm1/ballast"), 4 << 20);
}

/// Asserts that a file takes up space, at least so much.
fn assert_is_allocated(path: &Path, len_min: u64) {
    let metadata = fs::metadata(path).unwrap();
    assert!(len_min <= metadata.len(), "{} bytes", metadata.len());
    assert!(metadata.len() <= metadata.blocks() * 512, "{} blocks", metadata.blocks());
}

#[test]
fn purge_frees_a_full_disk_with_the_ballast_and_makes_it_anew() {
    for (disk_len, ballast_len) in [(DISK_LEN, 16 << 20), (1 << 30, 64 << 20)] {
        let scene = Scene::new();
        let mount = match Mount::small_file_system(&scene, disk_len) {
            Ok(mount) => mount,
            Err(reason) => return skip("full disk", &reason),
        };
        forget_on_a_full_disk(&scene, &mount);
        assert_is_allocated(&mount.point.join("vm1/ballast"), ballast_len);
        purge_full_disk(&scene, &mount);
    }
}

#[test]
fn purge_of_a_full_disk_without_a_ballast_loses_nothing() {
    let Some((scene, mount)) = scene_with_small_disk() else { return };
    forget_on_a_full_disk(&scene, &mount);
    fs::remove_file(mount.point.join("vm1/ballast")).unwrap();
    fill_disk(&mount.point.join("rest-of-ballast"));
    assert_eq!(available_bytes(&mount.point), 0);
    let output = scene.run(["-b", "mnt/vm1", "purge", "--now"]);
    assert!(matches!(output.code, Some(0 | 5)), "{}", output.stderr);
    scene.succeeds(["-b", "mnt/vm1", "verify"]);
    fs::remove_file(mount.point.join("rest-of-ballast")).unwrap();
    scene.succeeds(["-b", "mnt/vm1", "purge", "--now"]);
    assert!(40 << 20 < available_bytes(&mount.point), "purge gave space back");
    scene.succeeds(["-b", "mnt/vm1", "restore", "out"]);
    assert_same(&scene.path("out"), &scene.path(IMAGE));
}

#[test]
fn purge_that_waits_for_the_grace_frees_a_full_disk_later() {
    let Some((scene, mount)) = scene_with_small_disk() else { return };
    forget_on_a_full_disk(&scene, &mount);
    let report = scene.succeeds(["-b", "mnt/vm1", "--json", "purge"]).json();
    assert_eq!(report["freed_bytes"], 0, "{report}");
    assert_eq!(report["waiting"][0]["condemned"], true, "{report}");
    assert!(report["waiting"][0]["until"].is_string(), "{report}");
    purge_full_disk(&scene, &mount);
}

#[test]
fn expiry_on_a_full_disk_removes_revisions_and_their_tags() {
    let Some((scene, mount)) = scene_with_small_disk() else { return };
    let image = scene.path(IMAGE);
    write_random_image(&image, 8, 1000);
    scene.succeeds(["-b", "mnt/vm1", "init", "file", IMAGE]);
    for tags in ["daily", "daily,manual:x", "daily"] {
        scene.succeeds(["-b", "mnt/vm1", "backup", "-f", tags]);
    }
    let config = mount.point.join("vm1/config");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.split("schedule:").next().unwrap();
    fs::write(&config, format!("{text}\nschedule:\n  other: {{interval: 1d, keep: 1}}\n")).unwrap();
    fill_disk(&mount.point.join("rest"));
    assert_eq!(available_bytes(&mount.point), 0);
    scene.succeeds(["-b", "mnt/vm1", "expire", "--force"]);
    let left = scene.succeeds(["-b", "mnt/vm1", "--json", "status"]).json();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left[0]["tags"], serde_json::json!(["manual:x"]));
    scene.succeeds(["-b", "mnt/vm1", "restore", "out"]);
    assert_same(&scene.path("out"), &image);
}

#[test]
fn restore_to_a_full_disk_leaves_no_file_behind() {
    let Some((scene, mount)) = scene_with_small_disk() else { return };
    write_random_image(&scene.path(IMAGE), 48, 1000);
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    let filler = mount.point.join("filler");
    drop(create_sparse(&filler, 0));
    let len = (available_bytes(&mount.point) - (20 << 20)).to_string();
    run_tool("fallocate", ["-l", &len, filler.to_str().unwrap()]).unwrap();
    let output = scene.fails(5, ["restore", "mnt/out"]);
    assert!(output.stderr.contains("mnt/out"), "{}", output.stderr);
    assert_eq!(files_below(&mount.point), std::slice::from_ref(&filler));
    fs::remove_file(filler).unwrap();
    scene.succeeds(["restore", "mnt/out"]);
    assert_same(&mount.point.join("out"), &scene.path(IMAGE));
}

#[test]
fn overlay_on_a_full_disk_fails_writes_that_need_space_and_no_others() {
    const RESERVED: usize = 1 << 20;
    let Some((scene, mount)) = scene_with_small_disk() else { return };
    write_random_image(&scene.path(IMAGE), 8, 1000);
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    let mut expected = scene.read(IMAGE);
    let store = Store::open(scene.path(BACKUP_DIR)).unwrap();
    let id = scene.ids().remove(0).parse().unwrap();
    let base = Arc::new(ImageReader::open(&store, &id).unwrap());
    let path = mount.point.join("overlay");
    let overlay = Overlay::create(&path, base).unwrap();
    overlay.write_zeroes(0, RESERVED as u64, false).unwrap();
    overlay.flush().unwrap();

    let filler = mount.point.join("filler");
    fill_disk(&filler);
    overlay.write(0, &[1; RESERVED]).unwrap();
    overlay.flush().unwrap();
    expected[..RESERVED].fill(1);
    let error = overlay.write(4 << 20, &[2; 2 << 20]).unwrap_err();
    assert!(error.is_out_of_space(), "{error:?}");
    let mut found = vec![0; expected.len()];
    overlay.read(0, &mut found).unwrap();
    assert!(found[..4 << 20] == expected[..4 << 20]);
    overlay.flush().unwrap();

    fs::remove_file(filler).unwrap();
    overlay.write(4 << 20, &[2; 2 << 20]).unwrap();
    expected[4 << 20..6 << 20].fill(2);
    overlay.close().unwrap();
    drop(overlay);
    Overlay::open(&path, &store).unwrap().read(0, &mut found).unwrap();
    assert!(found == expected);
}
