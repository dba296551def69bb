//! Sources that cannot be read to their end: no revision, one line that says where, a store that is
//! as before.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::Signal;

use super::compare::write_random_image;
use super::machine::{LoopDevice, OtherUser, run_tool, skip, tool};
use super::running::Running;
use crate::scene::{IMAGE, Output, Scene};

const MIB: u64 = 96;

/// Returns a scene with one revision of a small image whose source is now larger.
fn scene_with_larger_image() -> Scene {
    let (scene, _) = Scene::with_backup();
    write_random_image(&scene.path(IMAGE), MIB, 1);
    scene
}

/// Checks that a backup ended with this code, with one line that names the source, and made
/// nothing.
#[track_caller]
fn assert_refused(scene: &Scene, output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.code, Some(code), "{}", output.stderr);
    let errors: Vec<_> = output.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", output.stderr);
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is not in: {}", output.stderr);
    }
    assert_eq!(output.stdout, b"");
    assert_eq!(scene.revision_count(), 1);
    scene.succeeds(["verify", "-r", "all"]);
}

/// Runs a backup during which the image is changed.
fn back_up_while(scene: &Scene, change: impl FnOnce(&Path)) -> Output {
    let mut running = Running::start(&mut scene.command(["backup"]));
    running.stop_at_work(scene);
    change(&scene.path(IMAGE));
    running.signal(Signal::CONT);
    running.finish()
}

fn set_len(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn source_that_is_cut_meanwhile_makes_no_revision() {
    let scene = scene_with_larger_image();
    for len in [MIB << 20 >> 1, 1_000_001, 0] {
        write_random_image(&scene.path(IMAGE), MIB, len);
        let output = back_up_while(&scene, |image| set_len(image, len));
        let (from, to) = ((MIB << 20).to_string(), len.to_string());
        assert_refused(&scene, &output, 3, &[IMAGE, &from, &to]);
    }
    write_random_image(&scene.path(IMAGE), 2, 5);
    scene.succeeds(["backup"]);
}

#[test]
fn source_that_is_cut_while_another_program_has_it_mapped_makes_no_revision() {
    let scene = scene_with_larger_image();
    let program = "import mmap, sys\n\
        file = open(sys.argv[1], 'r+b')\n\
        memory = mmap.mmap(file.fileno(), 0)\n\
        memory[4096:8192] = b'x' * 4096\n\
        print('mapped', flush=True)\n\
        sys.stdin.read()\n";
    let mut python = tool("python3");
    python.args(["-c", program]).arg(scene.path(IMAGE));
    let mut python = match python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(python) => python,
        Err(error) => return skip("mapped source", &format!("python3: {error}")),
    };
    let mut line = String::new();
    BufReader::new(python.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = back_up_while(&scene, |image| set_len(image, 5 << 20));
    drop(python.stdin.take());
    assert!(python.wait().unwrap().success());
    assert_eq!(line, "mapped\n");
    assert_refused(&scene, &output, 3, &[IMAGE, &(5 << 20).to_string()]);
}

#[test]
fn source_that_grows_meanwhile_makes_no_revision() {
    let scene = scene_with_larger_image();
    let output = back_up_while(&scene, |image| {
        OpenOptions::new().append(true).open(image).unwrap().write_all(b"more").unwrap();
    });
    assert_refused(&scene, &output, 3, &[IMAGE, &((MIB << 20) + 4).to_string()]);
    scene.succeeds(["backup"]);
}

#[test]
fn source_that_is_written_to_meanwhile_is_told_as_a_warning() {
    let scene = scene_with_larger_image();
    let output = back_up_while(&scene, |image| super::compare::change(image, 0, b"other bytes"));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stderr.contains("was changed while it was read"), "{}", output.stderr);
    assert_eq!(scene.revision_count(), 2);
}

#[test]
fn unreadable_part_of_a_device_is_told_with_its_place() {
    let (scene, _) = Scene::with_backup();
    let backing = scene.path("backing");
    write_random_image(&backing, 32, 1);
    let device = match LoopDevice::attach(&backing) {
        Ok(device) => device,
        Err(reason) => return skip("unreadable device", &reason),
    };
    // The device keeps its size, and cannot read what its file does not have any more.
    set_len(&backing, 20 << 20);
    let path = device.path.to_str().unwrap();
    run_tool("blockdev", ["--flushbufs", path]).unwrap();
    fs::remove_file(scene.path(IMAGE)).unwrap();
    symlink(&device.path, scene.path(IMAGE)).unwrap();
    let output = scene.fails(3, ["backup"]);
    let name = scene.path(IMAGE);
    let offset = (20 << 20).to_string();
    assert_refused(&scene, &output, 3, &[name.to_str().unwrap(), &offset, "Input/output error"]);
}

#[test]
fn what_is_no_image_is_refused_at_once() {
    let (scene, image) = Scene::with_backup();
    let path = scene.path(IMAGE);
    fs::remove_file(&path).unwrap();
    assert_refused(&scene, &scene.run(["backup"]), 3, &[IMAGE, "No such file"]);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    assert_refused(&scene, &scene.run(["backup"]), 3, &[IMAGE, "a FIFO"]);
    for (other, what) in [("/dev/null", "a character device"), ("/", "a directory")] {
        fs::remove_file(&path).unwrap();
        symlink(other, &path).unwrap();
        assert_refused(&scene, &scene.run(["backup"]), 3, &[IMAGE, what]);
    }
    fs::remove_file(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    assert_refused(&scene, &scene.run(["backup"]), 3, &[IMAGE, "No such file"]);
    // A link to an image is an image.
    scene.write("elsewhere", &image);
    scene.succeeds(["backup"]);
    assert!(scene.succeeds(["restore", "-r", "0", "-"]).stdout == image);
}

#[test]
fn source_that_may_not_be_read_is_told() {
    let scene = Scene::new();
    scene.write_image(IMAGE, 1 << 20, 1);
    let user = match OtherUser::new(&scene) {
        Ok(user) => user,
        Err(reason) => return skip("other user", &reason),
    };
    let place = scene.path("open");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(scene.path(IMAGE), fs::Permissions::from_mode(0o000)).unwrap();
    let source = format!("file:{}", scene.path(IMAGE).display());
    let arguments = ["-b", "open/vm", "backup", "--source", &source];
    let output = Running::start(&mut user.command(&scene, arguments)).finish();
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.contains(IMAGE), "{}", output.stderr);
    assert!(output.stderr.contains("Permission denied"), "{}", output.stderr);
    assert!(!scene.path("open/vm").exists(), "nothing was created");
}

#[test]
fn file_of_the_store_is_no_source_for_it() {
    let (scene, _) = Scene::with_backup();
    let pack = scene.largest_pack();
    for own in [pack, scene.backup_path("index.redb"), scene.backup_path("store.json")] {
        fs::remove_file(scene.path(IMAGE)).unwrap();
        symlink(&own, scene.path(IMAGE)).unwrap();
        let output = scene.run(["backup"]);
        assert_refused(&scene, &output, 9, &[IMAGE, "belongs to the backup itself"]);
        let name = own.to_str().unwrap();
        let output =
            scene.run(["-b", "other", "init", "--store", "vm1", "--name", "x", "file", name]);
        assert_eq!(output.code, Some(9), "{}", output.stderr);
        assert!(!scene.path("other").exists());
    }
    // Beside the files of the store there is room for an image.
    scene.write("vm1/disk", b"an image");
    fs::remove_file(scene.path(IMAGE)).unwrap();
    symlink(scene.backup_path("disk"), scene.path(IMAGE)).unwrap();
    scene.succeeds(["backup"]);
}
