//! The rules of the fault model, one by one.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use crate::environment::{Clock, Entropy};
use crate::time::Timestamp;
use crate::vfs::simulated::{
    CallKind, Counter, CrashMode, Effect, FaultKind, FaultPlan, SeededEntropy, SimulatedClock,
    SimulatedVfs, Stopped, UnsyncedData, UnsyncedNames,
};
use crate::vfs::{LockMode, Vfs, VfsFile};

const LOSE_ALL: CrashMode = CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::Lost };
const LOSE_DATA: CrashMode = CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::Kept };
const LOSE_NAMES: CrashMode = CrashMode { data: UnsyncedData::Kept, names: UnsyncedNames::Lost };
const SUBSETS: CrashMode =
    CrashMode { data: UnsyncedData::AnySectors, names: UnsyncedNames::AnySubset };

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn create(vfs: &SimulatedVfs, name: &str, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = vfs.create_new(path(name)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// A file whose bytes and name are durable.
fn create_durable(vfs: &SimulatedVfs, name: &str, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = create(vfs, name, bytes);
    file.sync_data().unwrap();
    vfs.sync_dir(path(name).parent().unwrap()).unwrap();
    file
}

/// Every file with its bytes.
fn content(vfs: &SimulatedVfs) -> Vec<(String, Vec<u8>)> {
    vfs.all_files()
        .into_iter()
        .map(|(path, _)| (path.to_str().unwrap().to_owned(), vfs.read_all(&path).unwrap()))
        .collect()
}

fn names(vfs: &SimulatedVfs) -> Vec<String> {
    content(vfs).into_iter().map(|(name, _)| name).collect()
}

/// The contents of `/f` that crashes with many seeds leave, without repetition.
fn outcomes(vfs: &SimulatedVfs, data: UnsyncedData) -> Vec<Vec<u8>> {
    let mode = CrashMode { data, names: UnsyncedNames::Kept };
    let mut found: Vec<_> =
        (0..400).map(|seed| vfs.crash(&mode, seed).read_all("/f").unwrap()).collect();
    found.sort();
    found.dedup();
    found
}

fn name_outcomes(vfs: &SimulatedVfs, names_mode: UnsyncedNames) -> Vec<Vec<String>> {
    let mode = CrashMode { data: UnsyncedData::Kept, names: names_mode };
    let mut found: Vec<_> = (0..400).map(|seed| names(&vfs.crash(&mode, seed))).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn synced_file_survives() {
    let vfs = SimulatedVfs::new();
    drop(create_durable(&vfs, "/f", b"abc"));
    for (seed, mode) in (0..).zip(CrashMode::all()) {
        assert_eq!(vfs.crash(&mode, seed).read_all("/f").unwrap(), b"abc", "{mode:?}");
    }
}

#[test]
fn write_without_sync_is_lost_in_a_crash() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    file.write_all_at(b"xyz", 2).unwrap();
    file.set_len(9).unwrap();
    assert_eq!(vfs.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"abc");
    assert_eq!(vfs.read_all("/f").unwrap(), b"abxyz\0\0\0\0");
}

#[test]
fn sync_of_another_handle_makes_the_file_durable() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    file.write_all_at(b"d", 3).unwrap();
    vfs.open(path("/f"), false).unwrap().sync_data().unwrap();
    assert_eq!(vfs.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"abcd");
}

#[test]
fn sync_of_a_file_does_not_save_its_name() {
    let vfs = SimulatedVfs::new();
    create(&vfs, "/f", b"abc").sync_data().unwrap();
    assert_eq!(names(&vfs.crash(&LOSE_NAMES, 0)), [""; 0]);
}

#[test]
fn sync_of_a_directory_does_not_save_bytes() {
    let vfs = SimulatedVfs::new();
    drop(create(&vfs, "/f", b"abc"));
    vfs.sync_dir(path("/")).unwrap();
    assert_eq!(vfs.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"");
}

#[test]
fn rename_without_directory_sync_may_be_lost() {
    let vfs = SimulatedVfs::new();
    drop(create_durable(&vfs, "/tmp", b"abc"));
    vfs.rename_no_replace(path("/tmp"), path("/f")).unwrap();
    assert_eq!(names(&vfs.crash(&LOSE_NAMES, 0)), ["/tmp"]);
    assert_eq!(name_outcomes(&vfs, UnsyncedNames::AnySubset), [["/f"], ["/tmp"]]);
    vfs.sync_dir(path("/")).unwrap();
    assert_eq!(name_outcomes(&vfs, UnsyncedNames::AnySubset), [["/f"]]);
}

#[test]
fn renamed_file_without_sync_is_empty_after_a_crash() {
    let vfs = SimulatedVfs::new();
    drop(create(&vfs, "/tmp", b"abc"));
    vfs.rename_no_replace(path("/tmp"), path("/f")).unwrap();
    vfs.sync_dir(path("/")).unwrap();
    assert_eq!(content(&vfs.crash(&LOSE_DATA, 0)), [("/f".to_owned(), Vec::new())]);
}

#[test]
fn rename_between_directories_is_atomic_in_every_crash() {
    let vfs = SimulatedVfs::new();
    for directory in ["/a", "/b"] {
        vfs.create_dir(path(directory)).unwrap();
    }
    vfs.sync_dir(path("/")).unwrap();
    drop(create_durable(&vfs, "/a/f", b"abc"));
    vfs.rename_no_replace(path("/a/f"), path("/b/f")).unwrap();
    assert_eq!(name_outcomes(&vfs, UnsyncedNames::AnySubset), [["/a/f"], ["/b/f"]]);
    for directory in ["/a", "/b"] {
        let copy = vfs.snapshot();
        copy.sync_dir(path(directory)).unwrap();
        assert_eq!(name_outcomes(&copy, UnsyncedNames::AnySubset), [["/b/f"]]);
    }
}

#[test]
fn replacing_rename_leaves_old_or_new_and_never_nothing() {
    let vfs = SimulatedVfs::new();
    drop(create_durable(&vfs, "/f", b"old"));
    create_durable(&vfs, "/tmp", b"new").sync_data().unwrap();
    vfs.rename_replace(path("/tmp"), path("/f")).unwrap();
    for (seed, mode) in (0..400).flat_map(|seed| CrashMode::all().map(move |mode| (seed, mode))) {
        let crashed = vfs.crash(&mode, seed);
        let expected: &[u8] = if names(&crashed).len() == 2 { b"old" } else { b"new" };
        assert_eq!(crashed.read_all("/f").unwrap(), expected);
    }
}

#[test]
fn file_never_ends_up_under_two_names() {
    let vfs = SimulatedVfs::new();
    drop(create(&vfs, "/a", b"x"));
    for (from, to) in [("/a", "/b"), ("/b", "/c"), ("/c", "/d")] {
        vfs.rename_no_replace(path(from), path(to)).unwrap();
    }
    let none: [&str; 0] = [];
    let found = name_outcomes(&vfs, UnsyncedNames::AnySubset);
    let all: [&[&str]; 5] = [&none, &["/a"], &["/b"], &["/c"], &["/d"]];
    assert_eq!(found, all);
}

#[test]
fn sync_of_a_directory_takes_along_what_its_names_were_before() {
    let vfs = SimulatedVfs::new();
    for directory in ["/a", "/b"] {
        vfs.create_dir(path(directory)).unwrap();
    }
    vfs.sync_dir(path("/")).unwrap();
    drop(create(&vfs, "/a/tmp", b"x"));
    vfs.rename_no_replace(path("/a/tmp"), path("/b/f")).unwrap();
    vfs.sync_dir(path("/b")).unwrap();
    assert_eq!(name_outcomes(&vfs, UnsyncedNames::AnySubset), [["/b/f"]]);
}

#[test]
fn removal_without_directory_sync_may_be_lost() {
    let vfs = SimulatedVfs::new();
    drop(create_durable(&vfs, "/f", b"abc"));
    vfs.remove_file(path("/f")).unwrap();
    assert_eq!(content(&vfs.crash(&LOSE_ALL, 0)), [("/f".to_owned(), b"abc".to_vec())]);
    vfs.sync_dir(path("/")).unwrap();
    assert_eq!(names(&vfs.crash(&LOSE_ALL, 0)), [""; 0]);
    assert!(vfs.state().files.is_empty());
}

#[test]
fn directory_without_sync_of_its_parent_is_lost_with_all_below() {
    let vfs = SimulatedVfs::new();
    vfs.create_dir(path("/a")).unwrap();
    drop(create_durable(&vfs, "/a/f", b"abc"));
    let crashed = vfs.crash(&LOSE_ALL, 0);
    assert_eq!(crashed.list(path("/")).unwrap(), []);
    assert_eq!(crashed.list(path("/a")).unwrap_err().kind(), ErrorKind::NotFound);
    vfs.sync_dir(path("/")).unwrap();
    assert_eq!(names(&vfs.crash(&LOSE_ALL, 0)), ["/a/f"]);
}

#[test]
fn prefix_crash_keeps_the_order_of_names() {
    let vfs = SimulatedVfs::new();
    for name in ["/a", "/b", "/c"] {
        drop(create(&vfs, name, b""));
    }
    let expected: [&[&str]; 4] = [&[], &["/a"], &["/a", "/b"], &["/a", "/b", "/c"]];
    assert_eq!(name_outcomes(&vfs, UnsyncedNames::Prefix), expected);
    assert_eq!(name_outcomes(&vfs, UnsyncedNames::AnySubset).len(), 8);
}

#[test]
fn whole_writes_are_kept_in_any_subset() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"..");
    file.write_all_at(b"a", 0).unwrap();
    file.write_all_at(b"b", 1).unwrap();
    assert_eq!(outcomes(&vfs, UnsyncedData::AnyWrites), [b"..", b".b", b"a.", b"ab"]);
    assert_eq!(outcomes(&vfs, UnsyncedData::Lost), [b".."]);
    assert_eq!(outcomes(&vfs, UnsyncedData::Kept), [b"ab"]);
}

#[test]
fn write_is_torn_at_sectors_and_nowhere_else() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", &[0; 1536]);
    file.write_all_at(&[1; 1000], 100).unwrap();
    let found = outcomes(&vfs, UnsyncedData::AnySectors);
    assert_eq!(found.len(), 8);
    for bytes in found {
        for sector in [&bytes[100..512], &bytes[512..1024], &bytes[1024..1100]] {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
        }
        assert!(bytes[..100].iter().chain(&bytes[1100..]).all(|byte| *byte == 0));
    }
}

#[test]
fn length_may_grow_without_the_bytes() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    file.write_all_at(b"xyz", 2).unwrap();
    assert_eq!(outcomes(&vfs, UnsyncedData::ZeroTail), [b"abc\0\0"]);
    let expected: [&[u8]; 3] = [b"abc", b"abc\0\0", b"abxyz"];
    assert_eq!(outcomes(&vfs, UnsyncedData::AnySectors), expected);
}

#[test]
fn subset_crash_is_deterministic() {
    let vfs = SimulatedVfs::new();
    for name in ["/a", "/b", "/c", "/d"] {
        drop(create(&vfs, name, &[7; 4096]));
    }
    let states: Vec<_> = (0..64).map(|seed| content(&vfs.crash(&SUBSETS, seed))).collect();
    let again: Vec<_> = (0..64).map(|seed| content(&vfs.crash(&SUBSETS, seed))).collect();
    assert_eq!(states, again);
    assert!(states.windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn crash_does_not_touch_the_original() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    file.write_all_at(b"d", 3).unwrap();
    let crashed = vfs.crash(&LOSE_ALL, 0);
    crashed.open(path("/f"), true).unwrap().write_all_at(b"crashed", 0).unwrap();
    crashed.remove_file(path("/f")).unwrap();
    assert_eq!(vfs.read_all("/f").unwrap(), b"abcd");
    file.sync_data().unwrap();
    assert_eq!(vfs.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"abcd");
}

#[test]
fn file_without_a_name_is_gone_after_a_crash() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    vfs.remove_file(path("/f")).unwrap();
    vfs.sync_dir(path("/")).unwrap();
    assert_eq!(file.len().unwrap(), 3);
    assert!(vfs.crash(&SUBSETS, 0).state().files.is_empty());
    assert!(vfs.kill().state().files.is_empty());
}

#[test]
fn kill_keeps_live_bytes_but_makes_nothing_durable() {
    let vfs = SimulatedVfs::new();
    let file = create(&vfs, "/f", b"abc");
    assert!(file.try_lock(LockMode::Exclusive).unwrap());
    let killed = vfs.kill();
    assert_eq!(killed.read_all("/f").unwrap(), b"abc");
    assert!(killed.lock(path("/f"), LockMode::Exclusive, false).unwrap().is_some());
    assert_eq!(names(&killed.crash(&LOSE_ALL, 0)), [""; 0]);
    killed.open(path("/f"), false).unwrap().sync_data().unwrap();
    killed.sync_dir(path("/")).unwrap();
    assert_eq!(killed.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"abc");
}

#[test]
fn locks_are_gone_after_a_crash() {
    let vfs = SimulatedVfs::new();
    drop(create_durable(&vfs, "/f", b""));
    let lock = vfs.lock(path("/f"), LockMode::Exclusive, true).unwrap();
    let crashed = vfs.crash(&LOSE_ALL, 0);
    assert!(crashed.lock(path("/f"), LockMode::Exclusive, false).unwrap().is_some());
    drop(lock);
}

#[test]
fn failed_sync_loses_data_although_the_second_says_ok() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    vfs.set_faults(FaultPlan::at(Counter::Syncs, 0, Effect::Fail(FaultKind::Device)));
    file.write_all_at(b"lost", 0).unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    assert_eq!(vfs.read_all("/f").unwrap(), b"lost");
    file.write_all_at(b"kept", 6).unwrap();
    file.sync_data().unwrap();
    assert_eq!(vfs.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"abc\0\0\0kept");
}

#[test]
fn failed_directory_sync_leaves_names_to_chance_although_the_second_says_ok() {
    let vfs = SimulatedVfs::new();
    vfs.set_faults(FaultPlan::at(Counter::Syncs, 0, Effect::Fail(FaultKind::Device)));
    drop(create(&vfs, "/a", b""));
    vfs.sync_dir(path("/")).unwrap_err();
    drop(create(&vfs, "/b", b""));
    vfs.sync_dir(path("/")).unwrap();
    let expected: [&[&str]; 2] = [&["/a", "/b"], &["/b"]];
    assert_eq!(name_outcomes(&vfs, UnsyncedNames::AnySubset), expected);
}

#[test]
fn dropped_sync_says_ok_and_is_logged() {
    let vfs = SimulatedVfs::new();
    vfs.set_faults(FaultPlan::drop_sync(1));
    drop(create_durable(&vfs, "/f", b"abc"));
    assert_eq!(vfs.dropped_syncs(), [path("/")]);
    assert_eq!(names(&vfs.crash(&LOSE_ALL, 0)), [""; 0]);
    vfs.sync_dir(path("/")).unwrap();
    assert_eq!(vfs.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"abc");
}

#[test]
fn unreadable_bytes_fail_each_read_of_them_and_no_other() {
    let vfs = SimulatedVfs::new();
    for name in ["/f", "/g"] {
        drop(create_durable(&vfs, name, b"abcdef"));
    }
    vfs.set_faults(FaultPlan::fail_reads(path("/f"), 2..4, FaultKind::Device));
    let mut byte = [0; 2];
    let file = vfs.open(path("/f"), true).unwrap();
    for (offset, is_read) in [(0, true), (1, false), (2, false), (3, false), (4, true), (1, false)]
    {
        let result = file.read_exact_at(&mut byte, offset);
        assert_eq!(
            result.map_err(|error| error.raw_os_error()),
            if is_read { Ok(()) } else { Err(Some(5)) }
        );
    }
    file.write_all_at(b"x", 2).unwrap();
    vfs.open(path("/g"), false).unwrap().read_exact_at(&mut byte, 2).unwrap();
    assert_eq!(byte, *b"cd");

    vfs.set_faults(FaultPlan::fail_open(path("/f"), FaultKind::Access));
    for writable in [false, true] {
        assert_eq!(vfs.open(path("/f"), writable).unwrap_err().raw_os_error(), Some(13));
    }
    assert_eq!(vfs.file_len(path("/f")).unwrap(), 6);
    vfs.open(path("/g"), false).unwrap();
    vfs.set_faults(FaultPlan::none());
    vfs.open(path("/f"), false).unwrap();
}

#[test]
fn call_fails_as_planned_and_the_next_succeeds() {
    for kind in FaultKind::ALL {
        let vfs = SimulatedVfs::new();
        vfs.set_faults(FaultPlan::fail_call(1, kind));
        let file = vfs.create_new(path("/f")).unwrap();
        let error = file.write_all_at(b"abc", 0).unwrap_err();
        assert_eq!(error.raw_os_error(), kind.error().raw_os_error());
        assert_eq!(file.len().unwrap(), 0);
        file.write_all_at(b"abc", 0).unwrap();
    }
}

#[test]
fn mutations_are_counted_apart_from_other_calls() {
    let vfs = SimulatedVfs::new();
    vfs.set_faults(FaultPlan::fail_mutation(1, FaultKind::NoSpace));
    let file = vfs.create_new(path("/f")).unwrap();
    vfs.list(path("/")).unwrap();
    file.len().unwrap();
    assert_eq!(file.sync_data().unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!((vfs.call_count(), vfs.mutating_call_count(), vfs.sync_count()), (4, 2, 1));
    vfs.set_faults(FaultPlan::none());
    assert_eq!((vfs.call_count(), vfs.mutating_call_count(), vfs.sync_count()), (0, 0, 0));
}

#[test]
fn short_transfer_moves_half_and_fails() {
    let vfs = SimulatedVfs::new();
    let plan = FaultPlan::at(Counter::Calls, 1, Effect::Short);
    vfs.set_faults(plan.and(Counter::Calls, 2, Effect::Short));
    let file = vfs.create_new(path("/f")).unwrap();
    assert_eq!(file.write_all_at(b"abcd", 0).unwrap_err().kind(), ErrorKind::WriteZero);
    assert_eq!(vfs.read_all("/f").unwrap(), b"ab");
    let mut buffer = [0; 2];
    let error = file.read_exact_at(&mut buffer, 0).unwrap_err();
    assert_eq!((error.kind(), buffer), (ErrorKind::UnexpectedEof, [b'a', 0]));
}

#[test]
fn nothing_reaches_the_disk_after_a_stop() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    vfs.set_faults(FaultPlan::stop_at_mutation(1));
    file.write_all_at(b"X", 0).unwrap();
    let errors: [io::Error; 4] = [
        file.sync_data().unwrap_err(),
        file.sync_data().unwrap_err(),
        vfs.open(path("/f"), false).unwrap_err(),
        vfs.remove_file(path("/f")).unwrap_err(),
    ];
    assert!(errors.iter().all(Stopped::is));
    assert!(!Stopped::is(&FaultKind::Device.error()));
    assert!(vfs.is_stopped());
    assert_eq!(vfs.calls().len(), 2);
    assert_eq!(vfs.crash(&LOSE_ALL, 0).read_all("/f").unwrap(), b"abc");
    vfs.set_faults(FaultPlan::none());
    file.sync_data().unwrap();
}

#[test]
fn stop_wakes_who_waits_for_a_lock() {
    let vfs = SimulatedVfs::new();
    drop(create(&vfs, "/f", b""));
    let lock = vfs.lock(path("/f"), LockMode::Exclusive, true).unwrap();
    vfs.set_faults(FaultPlan::stop_at_mutation(0));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| vfs.lock(path("/f"), LockMode::Shared, true).map(drop));
        while vfs.call_count() == 0 {
            std::thread::yield_now();
        }
        vfs.sync_dir(path("/")).unwrap_err();
        assert!(Stopped::is(&waiting.join().unwrap().unwrap_err()));
    });
    drop(lock);
}

#[test]
#[should_panic(expected = "deadlock: waited 10ms for the lock (Exclusive) on /f")]
fn waiting_too_long_for_a_lock_panics() {
    let vfs = SimulatedVfs::new();
    let file = create(&vfs, "/f", b"");
    assert!(file.try_lock(LockMode::Shared).unwrap());
    vfs.set_lock_wait_max(Duration::from_millis(10));
    drop(vfs.lock(path("/f"), LockMode::Exclusive, true));
}

#[test]
fn capacity_ends_in_a_partial_write_and_no_space() {
    let vfs = SimulatedVfs::new();
    assert_eq!(vfs.free_space(path("/")).unwrap(), None);
    let file = create(&vfs, "/f", b"abc");
    vfs.set_capacity(Some(5));
    assert_eq!(vfs.free_space(path("/")).unwrap(), Some(2));
    assert_eq!(file.write_all_at(b"xyz", 3).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(vfs.read_all("/f").unwrap(), b"abcxy");
    file.write_all_at(b"ABC", 0).unwrap();
    assert_eq!(file.set_len(6).unwrap_err().kind(), ErrorKind::StorageFull);
    vfs.remove_file(path("/f")).unwrap();
    assert_eq!(vfs.free_space(path("/")).unwrap(), Some(0));
    drop(file);
    assert_eq!(vfs.free_space(path("/")).unwrap(), Some(5));
}

#[test]
fn calls_are_logged_in_order() {
    let vfs = SimulatedVfs::new();
    drop(create(&vfs, "/tmp", b"abc"));
    vfs.rename_no_replace(path("/tmp"), path("/f")).unwrap();
    let calls = vfs.calls();
    let kinds: Vec<_> = calls.iter().map(|call| call.kind).collect();
    assert_eq!(kinds, [CallKind::CreateNew, CallKind::WriteAllAt, CallKind::RenameNoReplace]);
    assert_eq!((calls[1].path.as_path(), calls[1].len), (path("/tmp"), 3));
    assert_eq!(calls[2].to.as_deref(), Some(path("/f")));
}

#[test]
fn damage_is_live_and_durable_at_once_and_not_counted() {
    let vfs = SimulatedVfs::new();
    vfs.write_raw("/a/b/f", *b"abc").unwrap();
    vfs.write_raw("/a/g", *b"x").unwrap();
    vfs.flip("/a/b/f", 1, 0x20).unwrap();
    assert_eq!(vfs.flip("/a/b/f", 3, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    vfs.truncate("/a/b/f", 2).unwrap();
    vfs.remove("/a/g").unwrap();
    assert_eq!(vfs.call_count(), 0);
    let expected = [("/a/b/f".to_owned(), b"aB".to_vec())];
    assert_eq!(content(&vfs), expected);
    assert_eq!(content(&vfs.crash(&LOSE_ALL, 0)), expected);
}

#[test]
fn damage_settles_the_pending_changes_of_its_file_only() {
    let vfs = SimulatedVfs::new();
    drop(create(&vfs, "/tmp", b"abc"));
    vfs.rename_no_replace(path("/tmp"), path("/f")).unwrap();
    drop(create(&vfs, "/other", b"abc"));
    vfs.flip("/f", 0, 0x20).unwrap();
    assert_eq!(content(&vfs.crash(&LOSE_ALL, 0)), [("/f".to_owned(), b"Abc".to_vec())]);
}

#[test]
fn snapshot_goes_its_own_way() {
    let vfs = SimulatedVfs::new();
    let file = create_durable(&vfs, "/f", b"abc");
    let copy = vfs.snapshot();
    file.write_all_at(b"X", 0).unwrap();
    assert_eq!(copy.read_all("/f").unwrap(), b"abc");
    assert_eq!((copy.call_count(), vfs.call_count()), (4, 5));
    let clone = vfs.clone();
    clone.remove_file(path("/f")).unwrap();
    assert_eq!(names(&vfs), [""; 0]);
}

#[test]
fn relative_and_absolute_paths_lead_to_the_same_file() {
    let vfs = SimulatedVfs::new();
    drop(create(&vfs, "f", b"abc"));
    assert_eq!(vfs.read_all("/f").unwrap(), b"abc");
    assert_eq!(vfs.read_all("./f").unwrap(), b"abc");
    assert_eq!(vfs.open(path("../f"), false).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn clock_advances_at_each_reading_and_monotonic_time_never_goes_back() {
    let clock = SimulatedClock::new(Timestamp(1000), Duration::from_millis(5));
    assert_eq!((clock.now(), clock.now()), (Timestamp(1000), Timestamp(1005)));
    clock.advance(Duration::from_secs(1));
    let before = clock.monotonic();
    clock.set(Timestamp(0));
    assert_eq!(clock.now(), Timestamp(0));
    assert!(before < clock.monotonic());
}

#[test]
fn entropy_is_that_of_the_seed() {
    let fill = |seed| {
        let mut bytes = [0; 13];
        SeededEntropy::new(seed).fill(&mut bytes);
        bytes
    };
    assert_eq!(fill(1), fill(1));
    assert_ne!(fill(1), fill(2));
}
