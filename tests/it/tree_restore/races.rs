//! Others who work in the same directory: they lock, write, replace, remove and create files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use chunkstore::ops::TreeProblemReason;
use chunkstore::target::TargetFileError;

use super::*;

fn with_timeout(timeout: Duration) -> TreeRestoreOptions {
    TreeRestoreOptions { lock_timeout: timeout, ..options() }
}

/// Longer than any machine takes.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn locked_file_is_a_problem_after_the_timeout() {
    let scene = Scene::new();
    scene.add("a.wsp", &full_file(1, 50));
    scene.add("locked.wsp", &full_file(2, 50));
    let id = scene.back_up();
    write(&scene.target(), "locked.wsp", file_with(&[(1, 50)], &[]).bytes());
    let holder = File::open(scene.target().join("locked.wsp")).unwrap();
    holder.lock().unwrap();
    let stats = scene.try_restore(&id, &options()).unwrap();
    assert_eq!((stats.written, stats.problem_count, stats.damage_count), (1, 1, 0));
    let reason = &stats.problems[0].reason;
    let is_locked = matches!(reason, TreeProblemReason::Target(TargetFileError::Locked { .. }));
    assert!(is_locked, "{reason:?}");
    let found = fs::read(scene.target().join("locked.wsp")).unwrap();
    assert_eq!(found, file_with(&[(1, 50)], &[]).bytes());

    let released = AtomicBool::new(false);
    thread::scope(|scope| {
        let restore = scope.spawn(|| {
            let stats = scene.restore(&id, &with_timeout(LONG));
            (stats.backfilled, released.load(Ordering::SeqCst))
        });
        thread::sleep(Duration::from_millis(30));
        released.store(true, Ordering::SeqCst);
        drop(holder);
        assert_eq!(restore.join().unwrap(), (1, true));
    });
    assert_same_files(&scene.source(), &scene.target());
}

/// Writes one point into a file with one archive of steps of a second, as Graphite does: opened, locked, changed in place.
fn update(path: &Path, slots: u32, point: Point) {
    const POINTS: u64 = 16 + 12;
    let file = File::options().read(true).write(true).open(path).unwrap();
    file.lock().unwrap();
    let mut base = [0; 4];
    file.read_exact_at(&mut base, POINTS).unwrap();
    let base = match u32::from_be_bytes(base) {
        0 => point.time,
        base => base,
    };
    let slot = (i64::from(point.time) - i64::from(base)).rem_euclid(i64::from(slots));
    let mut bytes = point.time.to_be_bytes().to_vec();
    bytes.extend(point.value.to_be_bytes());
    file.write_all_at(&bytes, POINTS + 12 * u64::try_from(slot).unwrap()).unwrap();
}

#[test]
fn points_that_are_written_meanwhile_are_there_in_the_end() {
    const FILES: u32 = 6;
    const SLOTS: u32 = 60_000;
    let scene = Scene::new();
    for number in 0..FILES {
        scene.add(&format!("f{number}.wsp"), &full_file(number, SLOTS));
    }
    let id = scene.back_up();
    let target = scene.target();
    // More than once: without the lock it goes well now and then.
    for way in [SAFE, COMPAT, SAFE, SAFE] {
        for number in 0..FILES {
            let empty = file_with(&[(1, SLOTS)], &[]);
            write(&target, &format!("f{number}.wsp"), empty.bytes());
        }
        let restored = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            let (begin, begun) = mpsc::channel();
            let (target, restored) = (&target, &restored);
            let writer = scope.spawn(move || {
                let mut written = Vec::new();
                for age in (0..SLOTS).map(|round| round * 7919 % SLOTS) {
                    if restored.load(Ordering::SeqCst) {
                        break;
                    }
                    for number in 0..FILES {
                        let point = Point { time: NOW - age, value: -1.0 - f64::from(age) };
                        update(&target.join(format!("f{number}.wsp")), SLOTS, point);
                        written.push((number, point));
                    }
                    let _nobody_waits = begin.send(());
                }
                written
            });
            begun.recv().unwrap();
            let stats =
                scene.restore(&id, &TreeRestoreOptions { existing: way, ..with_timeout(LONG) });
            restored.store(true, Ordering::SeqCst);
            assert_eq!(stats.backfilled, u64::from(FILES));
            writer.join().unwrap()
        });
        assert!(FILES as usize <= written.len());
        for number in 0..FILES {
            let bytes = fs::read(target.join(format!("f{number}.wsp"))).unwrap();
            let points: HashMap<u32, f64> = WhisperFile::decode(bytes)
                .unwrap()
                .points(0)
                .map(|point| (point.time, point.value))
                .collect();
            assert_eq!(points.len(), SLOTS as usize, "{way:?} {number}");
            if way == SAFE {
                // What somebody wrote is never replaced, whether before or after.
                for (_, point) in written.iter().filter(|(file, _)| *file == number) {
                    assert_eq!(points[&point.time], point.value, "{number} {}", point.time);
                }
            }
        }
    }
}

#[test]
fn file_that_is_replaced_while_it_is_waited_for_is_opened_again() {
    let scene = Scene::new();
    scene.add("x.wsp", &full_file(1, 50));
    let id = scene.back_up();
    let path = scene.target().join("x.wsp");
    for is_replaced in [true, false] {
        write(&scene.target(), "x.wsp", b"the old one, which nobody reads any more");
        let holder = File::open(&path).unwrap();
        holder.lock().unwrap();
        thread::scope(|scope| {
            let restore = scope.spawn(|| scene.restore(&id, &with_timeout(LONG)));
            thread::sleep(Duration::from_millis(30));
            if is_replaced {
                write(&scene.target(), "new", file_with(&[(1, 50)], &[(9, 5.0)]).bytes());
                fs::rename(scene.target().join("new"), &path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            drop(holder);
            let stats = restore.join().unwrap();
            assert_eq!(stats.set_aside_count, 0);
            assert_eq!(
                (stats.written, stats.backfilled),
                if is_replaced { (0, 1) } else { (1, 0) }
            );
        });
        let file = WhisperFile::decode(fs::read(&path).unwrap()).unwrap();
        let kept = Point { time: NOW - 9, value: 5.0 };
        assert_eq!(file.points(0).any(|point| point == kept), is_replaced);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn restores_of_the_same_files_at_once_agree() {
    let scene = Scene::new();
    for number in 0..60 {
        scene.add(&format!("d{}/f{number}.wsp", number % 4), &full_file(number, 300));
    }
    let id = scene.back_up();
    let counts: Vec<u64> = thread::scope(|scope| {
        let run = || scene.restore(&id, &with_timeout(LONG));
        let restores: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        restores
            .into_iter()
            .map(|restore| {
                let stats = restore.join().unwrap();
                assert_eq!(stats.written + stats.unchanged, 60, "{stats:?}");
                stats.written
            })
            .collect()
    });
    assert_eq!(counts.iter().sum::<u64>(), 60, "each is written once: {counts:?}");
    assert_same_files(&scene.source(), &scene.target());
}
