//! Files that are absent or exist, each way to treat them, and what is kept of their metadata.

use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use chunkstore::ops::{TreeProblemReason, TreeRestoreOptions};
use chunkstore::target::{Existing, TargetFileError};

use super::*;

#[test]
fn absent_files_are_written_whole_with_mode_and_time() {
    let scene = Scene::new();
    scene.add("carbon/agents/a.wsp", &full_file(1, 700));
    scene.add("carbon/agents/b.wsp", &full_file(2, 3000));
    scene.add("carbon/empty.wsp", &file_with(&[(60, 20_000), (600, 9000)], &[]));
    scene.add("top.wsp", &file_with(&[(1, 20)], &[(3, 0.5)]));
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    for (path, mode) in [("carbon/agents/a.wsp", 0o640), ("top.wsp", 0o604)] {
        let path = scene.source().join(path);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    let id = scene.back_up();
    let stats = scene.restore(&id, &options());
    assert_eq!((stats.files, stats.written, stats.backfilled), (4, 4, 0));
    assert_eq!(
        stats.written_bytes,
        files_of(&scene.source()).values().map(|it| it.len() as u64).sum::<u64>()
    );
    assert_same_files(&scene.source(), &scene.target());
    for (path, mode) in [("carbon/agents/a.wsp", 0o640), ("top.wsp", 0o604)] {
        let found = fs::metadata(scene.target().join(path)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, mode);
        assert_eq!(found.modified().unwrap(), time);
    }
    // Space for points that come later is taken, as Graphite does it.
    let empty = fs::metadata(scene.target().join("carbon/empty.wsp")).unwrap();
    assert!(empty.len() <= empty.blocks() * 512, "{} blocks of {}", empty.blocks(), empty.len());

    let again = scene.restore(&id, &options());
    assert_eq!((again.unchanged, again.written, again.backfilled), (4, 0, 0));
    assert_same_files(&scene.source(), &scene.target());
}

#[test]
fn owner_comes_back_where_that_is_permitted() {
    let scene = Scene::new();
    scene.add("a/x.wsp", &full_file(1, 10));
    let path = scene.source().join("a/x.wsp");
    // Without rights to give files away everything keeps one owner.
    let is_given = std::os::unix::fs::chown(&path, Some(12_345), Some(54_321)).is_ok();
    let id = scene.back_up();
    assert_eq!(scene.restore(&id, &options()).owner_kept, 0);
    let (found, wanted) =
        (fs::metadata(scene.target().join("a/x.wsp")).unwrap(), fs::metadata(&path).unwrap());
    assert_eq!((found.uid(), found.gid()), (wanted.uid(), wanted.gid()));
    if is_given {
        // Whoever writes the file has to create others beside it.
        let directory = fs::metadata(scene.target().join("a")).unwrap();
        assert_eq!((directory.uid(), directory.gid()), (12_345, 54_321));
    }
}

#[test]
fn each_way_treats_existing_files_as_it_says() {
    let scene = Scene::new();
    scene.add("old.wsp", &full_file(1, 50));
    scene.add("same.wsp", &full_file(2, 50));
    scene.add("new.wsp", &full_file(3, 50));
    let id = scene.back_up();
    for way in [Existing::Replace, Existing::Skip, Existing::Refuse] {
        let target = scene.target();
        write(&target, "old.wsp", full_file(9, 70).bytes());
        write(&target, "same.wsp", full_file(2, 50).bytes());
        let before = fs::read(target.join("old.wsp")).unwrap();
        let stats = scene.try_restore(&id, &existing(way)).unwrap();
        assert_eq!((stats.files, stats.written), (3, 1), "{way:?}");
        let old = fs::read(target.join("old.wsp")).unwrap();
        match way {
            Existing::Replace => {
                assert_eq!((stats.replaced, stats.unchanged), (1, 1));
                assert_same_files(&scene.source(), &target);
            }
            Existing::Skip => {
                assert_eq!((stats.skipped, stats.problem_count), (2, 0));
                assert_eq!(old, before);
            }
            _ => {
                assert_eq!((stats.unchanged, stats.problem_count, stats.damage_count), (1, 1, 0));
                assert_eq!(stats.problems[0].path.as_deref(), Some("old.wsp"));
                let reason = &stats.problems[0].reason;
                let exists = TreeProblemReason::Target(TargetFileError::Exists);
                assert_eq!(reason.to_string(), exists.to_string());
                assert_eq!(old, before);
            }
        }
        fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn corrupt_file_is_set_aside_under_a_name_of_its_own() {
    let scene = Scene::new();
    scene.add("a/x.wsp", &full_file(1, 50));
    scene.add("a/y.wsp", &full_file(2, 50));
    let id = scene.back_up();
    let target = scene.target();
    write(&target, "a/x.wsp", b"no whisper file");
    write(&target, "a/x.wsp.corrupt-20231114T222000Z", b"older");
    write(&target, "a/y.wsp", b"");
    let stats = scene.restore(&id, &options());
    assert_eq!((stats.written, stats.set_aside_count), (2, 2));
    let names: BTreeMap<&str, &str> =
        stats.set_aside.iter().map(|it| (it.path.as_str(), it.name.as_str())).collect();
    assert_eq!(names["a/x.wsp"], "x.wsp.corrupt-20231114T222000Z-1");
    assert_eq!(names["a/y.wsp"], "y.wsp.corrupt-20231114T222000Z");
    let files = files_of(&target);
    assert_eq!(files.len(), 5);
    assert_eq!(files["a/x.wsp"], full_file(1, 50).bytes());
    assert_eq!(files["a/y.wsp"], full_file(2, 50).bytes());
    assert_eq!(files["a/x.wsp.corrupt-20231114T222000Z"], b"older");
    assert_eq!(files["a/x.wsp.corrupt-20231114T222000Z-1"], b"no whisper file");
    assert!(files["a/y.wsp.corrupt-20231114T222000Z"].is_empty());
}

#[test]
fn dry_run_tells_the_same_and_writes_nothing() {
    let scene = Scene::new();
    scene.add("absent/x.wsp", &full_file(1, 50));
    scene.add("gaps.wsp", &full_file(2, 50));
    scene.add("same.wsp", &full_file(3, 50));
    scene.add("corrupt.wsp", &full_file(4, 50));
    let id = scene.back_up();
    let dry = TreeRestoreOptions { is_dry_run: true, ..options() };
    let absent = scene.restore(&id, &dry);
    assert_eq!((absent.files, absent.written), (4, 4));
    assert!(!scene.target().exists());

    write(&scene.target(), "gaps.wsp", file_with(&[(1, 50)], &[(7, 1.0)]).bytes());
    write(&scene.target(), "same.wsp", full_file(3, 50).bytes());
    write(&scene.target(), "corrupt.wsp", b"corrupt");
    write(&scene.target(), ".a.wsp.backy-0123456789abcdef", b"left");
    let before = files_of(&scene.target());
    let told = scene.restore(&id, &dry);
    assert_eq!(files_of(&scene.target()), before);
    let done = scene.restore(&id, &options());
    for stats in [&told, &done] {
        assert_eq!((stats.written, stats.backfilled, stats.unchanged), (2, 1, 1));
        assert_eq!((stats.filled_points, stats.set_aside_count), (49, 1));
        assert_eq!(stats.filled_bytes, 49 * 12);
    }
    assert_eq!(told.set_aside, done.set_aside);
    assert_eq!(files_of(&scene.target())["gaps.wsp"].len(), full_file(2, 50).bytes().len());
}

#[test]
fn links_below_the_target_are_not_followed() {
    let scene = Scene::new();
    scene.add("linked/x.wsp", &full_file(1, 50));
    scene.add("file/x.wsp", &full_file(2, 50));
    scene.add("link.wsp", &full_file(3, 50));
    scene.add("hanging.wsp", &full_file(4, 50));
    scene.add("directory.wsp", &full_file(5, 50));
    scene.add("good.wsp", &full_file(6, 50));
    let id = scene.back_up();
    let (target, outside) = (scene.target(), scene.directory.path().join("outside"));
    write(&outside, "x.wsp", full_file(9, 50).bytes());
    write(&target, "file", b"in the way");
    fs::create_dir(target.join("directory.wsp")).unwrap();
    symlink(&outside, target.join("linked")).unwrap();
    symlink(outside.join("x.wsp"), target.join("link.wsp")).unwrap();
    symlink(outside.join("nothing.wsp"), target.join("hanging.wsp")).unwrap();
    let before = files_of(&outside);
    for way in [SAFE, Existing::Replace] {
        let stats = scene.try_restore(&id, &existing(way)).unwrap();
        assert_eq!((stats.files, stats.problem_count), (6, 5), "{way:?} {stats:?}");
        for problem in &stats.problems {
            let TreeProblemReason::Target(TargetFileError::Occupied { found, .. }) =
                &problem.reason
            else {
                panic!("{problem:?}");
            };
            let expected = match problem.path.as_deref().unwrap() {
                "file/x.wsp" => "a file",
                "directory.wsp" => "a directory",
                _ => "a symbolic link",
            };
            assert_eq!(*found, expected, "{problem:?}");
        }
        assert_eq!(files_of(&outside), before);
        assert_eq!(fs::read(target.join("good.wsp")).unwrap(), full_file(6, 50).bytes());
    }
    // The directory itself may be reached by a link.
    let reached = scene.directory.path().join("reached");
    symlink(&target, &reached).unwrap();
    assert_eq!(scene.try_restore_to(&reached, &id, &options()).unwrap().unchanged, 1);
}
