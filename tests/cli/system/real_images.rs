//! Images as they are in real life: partitions, file systems, real files, and holes of a terabyte.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;

use super::compare::{assert_begins_with, assert_same, assert_stream_is, change, fill};
use super::machine::{LoopDevice, create_sparse, figure, run_tool, skip, tool};
use super::running::Running;
use crate::scene::{IMAGE, Scene, files_below, random_bytes};

const IMAGE_LEN: u64 = 1 << 30;
const PARTITION_START: u64 = 1 << 20;

/// Most bytes of real files in the image.
const CONTENT_LEN_MAX: u64 = 192 << 20;

/// Where real files are taken from: programs, texts, and what compresses in other ways.
const CONTENT: [&str; 4] = ["/usr/lib/python3", "/usr/share/doc", "/usr/bin", "/usr/share"];

/// Copies regular files below `from` until the budget is used up; larger ones are passed over.
fn copy_files(from: &Path, to: &Path, budget: &mut u64) {
    let Ok(entries) = fs::read_dir(from) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let (Ok(metadata), Some(name)) = (path.symlink_metadata(), path.file_name()) else {
            continue;
        };
        if metadata.is_dir() && *budget != 0 {
            copy_files(&path, &to.join(name), budget);
        } else if metadata.is_file() && metadata.len() <= *budget && metadata.len() < 16 << 20 {
            fs::create_dir_all(to).unwrap();
            if fs::copy(&path, to.join(name)).is_ok() {
                *budget -= metadata.len();
            }
        }
    }
}

/// Makes an image with a partition table and an ext4 full of real files; says why if it cannot.
fn make_partitioned_image(scene: &Scene) -> Result<(), String> {
    let (image, content) = (scene.path(IMAGE), scene.path("content"));
    for (number, from) in CONTENT.iter().enumerate() {
        let mut budget = CONTENT_LEN_MAX / CONTENT.len() as u64;
        copy_files(Path::new(from), &content.join(number.to_string()), &mut budget);
    }
    fs::write(content.join("motd"), "first\n").unwrap();
    drop(create_sparse(&image, IMAGE_LEN));
    let sfdisk = tool("sfdisk").arg("-q").arg(&image).stdin(Stdio::piped()).spawn();
    let mut sfdisk = sfdisk.map_err(|error| format!("sfdisk: {error}"))?;
    let table = format!("label: gpt\n{},,L\n", PARTITION_START / 512);
    sfdisk.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    let status = sfdisk.wait().unwrap();
    if !status.success() {
        return Err(format!("sfdisk: {status}"));
    }
    let offset = format!("offset={PARTITION_START}");
    // Less by a MiB at the end, for the second table.
    let size = format!("{}k", (IMAGE_LEN - 2 * PARTITION_START) >> 10);
    let (content, image) = (content.to_str().unwrap(), image.to_str().unwrap());
    run_tool("mkfs.ext4", ["-q", "-F", "-E", &offset, "-d", content, image, &size])?;
    fs::remove_dir_all(content).unwrap();
    Ok(())
}

/// Changes files in the file system of the image as a running machine would.
fn change_files(scene: &Scene) -> Result<(), String> {
    scene.write("fresh", random_bytes(3 << 20, 77));
    scene.write("motd", "second\n");
    let commands = [
        "rm motd".to_owned(),
        format!("write {} motd", scene.path("motd").display()),
        "mkdir var".to_owned(),
        format!("write {} var/fresh", scene.path("fresh").display()),
    ];
    scene.write("commands", commands.join("\n") + "\n");
    let commands = scene.path("commands");
    let place = format!("{}?offset={PARTITION_START}", scene.path(IMAGE).display());
    run_tool("debugfs", ["-w", "-f", commands.to_str().unwrap(), &place]).map(drop)
}

/// Looks at the file system with its own tool.
#[track_caller]
fn assert_file_system_is_sound(image: &Path, motd: &str) {
    let place = format!("{}?offset={PARTITION_START}", image.display());
    run_tool("e2fsck", ["-f", "-n", &place]).unwrap();
    assert_eq!(run_tool("debugfs", ["-R", "cat motd", &place]).unwrap(), motd);
}

#[track_caller]
fn run(scene: &Scene, arguments: &[&str]) -> crate::scene::Output {
    Running::start(&mut scene.command(arguments)).succeeds_in_bounded_memory()
}

/// Restores to a file, which is looked at and removed.
#[track_caller]
fn assert_restores(scene: &Scene, revision: &str, expected: &Path, motd: &str) {
    run(scene, &["restore", "-r", revision, "new-file"]);
    let restored = scene.path("new-file");
    assert_same(&restored, expected);
    let allocated = fs::metadata(&restored).unwrap().blocks() * 512;
    assert!(allocated < IMAGE_LEN / 2, "{allocated} bytes are allocated");
    assert_file_system_is_sound(&restored, motd);
    fs::remove_file(restored).unwrap();
}

#[test]
fn partitioned_image_comes_back_byte_for_byte() {
    let scene = Scene::new();
    if let Err(reason) = make_partitioned_image(&scene) {
        return skip("real image", &reason);
    }
    let (image, first) = (scene.path(IMAGE), scene.path("first.img"));
    scene.succeeds(["init", "file", IMAGE]);
    let full = run(&scene, &["--json", "backup"]).json();
    run_tool("cp", ["--sparse=always", image.to_str().unwrap(), first.to_str().unwrap()]).unwrap();
    change_files(&scene).unwrap();
    let second = run(&scene, &["--json", "backup"]).json();
    let new = ["new_bytes", "stored_bytes"].map(|key| second[key].as_u64().unwrap());
    let all = full["stored_bytes"].as_u64().unwrap();
    figure(&format!("stored at first {all}, then {} for 3 MiB of changes", new[1]));
    assert!(3 << 20 <= new[0] && new[0] < 8 << 20, "{second}");
    assert!(new[1] < all / 8, "{second}");

    assert_restores(&scene, "1", &first, "first");
    assert_restores(&scene, "0", &image, "second");

    let used = scene.path("used-file");
    fill(&used, IMAGE_LEN + (1 << 20));
    run(&scene, &["restore", "-r", "1", "--overwrite", "used-file"]);
    assert_same(&used, &first);

    fs::remove_file(used).unwrap();

    let mut restore = Running::start(&mut scene.command(["restore", "-r", "0", "-"]));
    let stream = restore.take_stdout();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_stream_is(stream, &image));
        restore.succeeds_in_bounded_memory();
    });
    let verified = run(&scene, &["--json", "verify", "-r", "all"]).json();
    assert_eq!(verified["damaged"].as_array().map(Vec::len), Some(0));
}

#[test]
fn device_full_of_other_bytes_is_overwritten() {
    let scene = Scene::new();
    if let Err(reason) = make_partitioned_image(&scene) {
        return skip("real image", &reason);
    }
    // Its beginning: a device takes real space, and this is still larger than any buffer.
    let (image, len) = (scene.path(IMAGE), 160 << 20);
    File::options().write(true).open(&image).unwrap().set_len(len).unwrap();
    let backing = scene.path("backing");
    fill(&backing, len + (1 << 20));
    let device = match LoopDevice::attach(&backing) {
        Ok(device) => device,
        Err(reason) => return skip("restore to a device", &reason),
    };
    let path = device.path.to_str().unwrap();
    scene.succeeds(["init", "file", IMAGE]);
    scene.succeeds(["backup"]);
    scene.fails(9, ["restore", path]);
    for (how, sparse) in [("--overwrite", "auto"), ("--overwrite", "always"), ("--delta", "auto")] {
        run(&scene, &["restore", how, "--sparse", sparse, path]);
        assert_begins_with(&device.path, &image);
        let mut behind = vec![0; 1 << 20];
        File::open(&device.path).unwrap().read_exact_at(&mut behind, len).unwrap();
        assert!(behind.iter().all(|byte| *byte == 0xff), "bytes behind the image were written");
        change(&device.path, 64 << 20, &[0xff; 4 << 20]);
    }
    // And a device as the source, with the bytes it has now.
    let other = scene.path("from-device");
    let mut init = scene.command(["init", "file", path]);
    assert!(init.env("BACKY_BACKUP_DIR", &other).output().unwrap().status.success());
    let mut backup = scene.command(["backup"]);
    Running::start(backup.env("BACKY_BACKUP_DIR", &other)).succeeds_in_bounded_memory();
    let mut restore = scene.command(["restore", "device.img"]);
    Running::start(restore.env("BACKY_BACKUP_DIR", &other)).succeeds();
    assert_same(&scene.path("device.img"), &backing);
}

#[test]
fn chunks_of_extreme_lengths_are_backed_up_in_bounded_memory() {
    for (lengths, len) in [("64,256,1KiB", 96 << 20), ("1MiB,4MiB,16MiB", 300 << 20)] {
        let scene = Scene::new();
        scene.succeeds(["init", "file", IMAGE, "--chunk-size", lengths]);
        for seed in [1, 2] {
            // Half of it shrinks. Nothing of the second one is predicted by the first.
            let mut bytes = random_bytes(len, seed);
            bytes.chunks_exact_mut(8192).for_each(|block| block[4096..].fill(7));
            scene.write(IMAGE, bytes);
            for _ in 0..2 {
                run(&scene, &["backup"]);
            }
        }
    }
}

#[test]
fn terabyte_with_three_islands_takes_seconds_and_kilobytes() {
    const LEN: u64 = 1 << 40;
    const ISLAND_LEN: u64 = 300_000;
    const ISLANDS: [u64; 3] = [0, (500 << 30) + 12_288, LEN - ISLAND_LEN];
    let scene = Scene::new();
    let image = File::create(scene.path(IMAGE)).unwrap();
    if let Err(error) = image.set_len(LEN) {
        return skip("image of a terabyte", &format!("not possible here: {error}"));
    }
    for (number, offset) in ISLANDS.into_iter().enumerate() {
        image.write_all_at(&random_bytes(300_000, number as u64 + 9), offset).unwrap();
    }
    image.sync_all().unwrap();
    scene.succeeds(["init", "file", IMAGE]);
    let began = Instant::now();
    for arguments in [&["backup"][..], &["backup"], &["restore", "out"], &["verify"]] {
        let began = Instant::now();
        run(&scene, arguments);
        figure(&format!("{:?}: {arguments:?} of a terabyte", began.elapsed()));
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());

    let store_files = ["packs", "revisions", "sessions"].map(|name| scene.backup_path(name));
    let files = store_files.iter().flat_map(|directory| files_below(directory));
    let stored: u64 = files.map(|path| fs::metadata(path).unwrap().len()).sum();
    let index = fs::metadata(scene.backup_path("index.redb")).unwrap().len();
    figure(&format!("{stored} bytes stored of 900,000, index {index} bytes"));
    assert!(stored < 1_200_000, "{stored} bytes stored");
    assert!(index < 4 << 20, "the index has {index} bytes");

    let out = File::open(scene.path("out")).unwrap();
    let image = File::open(scene.path(IMAGE)).unwrap();
    assert_eq!(out.metadata().unwrap().len(), LEN);
    let allocated = out.metadata().unwrap().blocks() * 512;
    assert!(allocated < 4 << 20, "{allocated} bytes are allocated");
    for offset in ISLANDS {
        let mut found = vec![0; 300_000];
        let mut expected = vec![0; 300_000];
        out.read_exact_at(&mut found, offset).unwrap();
        image.read_exact_at(&mut expected, offset).unwrap();
        assert!(found == expected, "the island at {offset} differs");
    }
    assert_no_data_elsewhere(&out, &ISLANDS, ISLAND_LEN);
}

/// Holes are zeros; what is allocated besides the islands must be read.
#[track_caller]
fn assert_no_data_elsewhere(file: &File, islands: &[u64], island_len: u64) {
    let mut offset = 0;
    while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(offset)) {
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
        assert!(end - start < 4 << 20, "data from {start} to {end}");
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        file.read_exact_at(&mut bytes, start).unwrap();
        for (place, byte) in (start..).zip(bytes) {
            let is_island = islands.iter().any(|at| (*at..at + island_len).contains(&place));
            assert!(is_island || byte == 0, "a byte at {place}");
        }
        offset = end;
    }
}
