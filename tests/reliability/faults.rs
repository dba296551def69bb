//! Each call fails once, in each of the ways in which an operating system refuses: the operation then ends with an error
//! that names a file, or succeeds all the same; and nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chunkstore::error::{Error, Result};
use chunkstore::id::RevisionId;
use chunkstore::ops;
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{
    Call, CallKind, Counter, CrashMode, Effect, FaultKind, FaultPlan, SimulatedVfs, UnsyncedData,
    UnsyncedNames,
};
use support::attempt::Attempts;
use support::crash::{step_of, take};
use support::history::{History, World};
use support::images;
use support::long_tests::choose;
use support::model::{Model, check_contents, check_store};
use support::simulated_store::{
    BALLAST_LEN, backup, create, describe, open, purge_now, record_renames, restore, verify_all,
};

const IMAGE_LEN: usize = 12 << 10;

/// An operation on the store of [`base`], which has a revision to restore and one to forget.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Open,
    Backup,
    Restore,
    Verify,
    Forget,
    Purge,
    Rebuild,
}

/// A store with three revisions, one of which is forgotten but not purged.
struct Base {
    vfs: SimulatedVfs,
    model: Model,
    newest: RevisionId,
    next_image: Vec<u8>,
}

fn base() -> Base {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    let image = images::image(3, IMAGE_LEN);
    let next = images::changed(&image, 4);
    let first = model.backup(&store, "a", &image).unwrap();
    let newest = model.backup(&store, "a", &next).unwrap();
    let image = images::image(5, IMAGE_LEN);
    let other = model.backup(&store, "b", &image).unwrap();
    // Its pack is mostly dead.
    model.backup(&store, "c", &image[..IMAGE_LEN / 4]).unwrap();
    model.forget(&store, other).unwrap();
    // Enough for a ballast.
    vfs.set_capacity(Some(1 << 30));
    assert_ne!(first, newest);
    drop(store);
    Base { vfs: vfs.kill(), model, newest, next_image: images::changed(&next, 6) }
}

impl Base {
    /// Runs the operation on a copy of the store in which the plan is in force.
    fn run(&self, operation: Operation, plan: FaultPlan) -> (SimulatedVfs, Model, Result<()>) {
        let vfs = self.vfs.kill();
        let mut model = self.model.clone();
        vfs.set_faults(plan);
        let result = open(&vfs, 50).and_then(|store| self.apply(operation, &store, &mut model));
        (vfs, model, result)
    }

    fn apply(&self, operation: Operation, store: &Store, model: &mut Model) -> Result<()> {
        match operation {
            Operation::Open => Ok(()),
            Operation::Backup => model.backup(store, "a", &self.next_image).map(drop),
            Operation::Restore => restore(store, &self.newest).map(|bytes| {
                assert!(bytes == model.acknowledged[&self.newest].bytes(), "other bytes");
            }),
            Operation::Verify => verify_all(store).map(|stats| {
                assert!(stats.verified.iter().all(|id| model.acknowledged.contains_key(id)));
            }),
            Operation::Forget => model.forget(store, self.newest),
            Operation::Purge => purge_now(store).map(drop),
            Operation::Rebuild => ops::rebuild_index(store, &NoProgress).map(drop),
        }
    }
}

/// Asserts that an error is that of a file of the store, and of the class of the fault.
fn check_error(error: &Error, kind: FaultKind) {
    let Error::Storage { path, source, .. } = error else {
        panic!("not an error of storage: {}", describe(error));
    };
    assert!(path.starts_with("/store"), "names no file of the store: {}", describe(error));
    assert_eq!(source.kind(), kind.error().kind(), "of another class: {}", describe(error));
    let is_full = matches!(kind, FaultKind::NoSpace | FaultKind::Quota);
    assert_eq!(error.is_out_of_space(), is_full, "{}", describe(error));
}

fn fail_each_call(operation: Operation) {
    let base = base();
    let (vfs, _, result) = base.run(operation, FaultPlan::none());
    result.expect("the operation works without faults");
    let count = vfs.call_count();
    let step = choose(usize::try_from(count).expect("small").div_ceil(150), 1);
    let mut attempts = Attempts::default();
    for (turn, call) in (0..count).step_by(step).enumerate() {
        let kinds = FaultKind::ALL;
        // Each call fails in one way, in turn; all in all ways in the full set.
        let chosen = choose(&kinds[turn % kinds.len()..][..1], &kinds[..]);
        for kind in chosen {
            let name = || format!("{operation:?}, call {call}, {kind:?}");
            attempts.attempt(name, || {
                let (vfs, model, result) = base.run(operation, FaultPlan::fail_call(call, *kind));
                if let Err(error) = result {
                    check_error(&error, *kind);
                }
                check_failed_syncs(&vfs.calls(), call);
                if turn % 4 == 0 {
                    check_store(&vfs.kill(), &model, 600 + call);
                } else {
                    check_contents(&vfs.kill(), &model, 600 + call);
                }
            });
        }
    }
    attempts.finish(&format!("{operation:?}"));
}

/// Asserts that a file whose sync failed, as the call with this number did, is not synced again under that name.
fn check_failed_syncs(calls: &[Call], failed: u64) {
    let failed = usize::try_from(failed).expect("small");
    let Some((call, later)) = calls.get(failed..).and_then(<[Call]>::split_first) else { return };
    if call.kind != CallKind::SyncData {
        return;
    }
    // A new file may take the name of one that was given up.
    let of_this_file = later
        .iter()
        .take_while(|later| !(later.kind == CallKind::CreateNew && later.path == call.path))
        .take_while(|later| later.to.as_ref() != Some(&call.path));
    let again = of_this_file.filter(|later| later.kind == CallKind::SyncData);
    let again = again.filter(|later| later.path == call.path).count();
    assert_eq!(again, 0, "{} is synced again after a failed sync", call.path.display());
}

/// The kinds of failure of one call: each error of the system, half of the bytes, and a sync that fails.
fn effects() -> Vec<Effect> {
    FaultKind::ALL.into_iter().map(Effect::Fail).chain([Effect::Short]).collect()
}

/// Asserts that an error is what this effect may cause: it names a file of the store, and is of the class of the fault.
fn check_effect(error: &Error, effect: Effect) {
    match effect {
        Effect::Fail(kind) => check_error(error, kind),
        // A file that ends too early may be damaged as well.
        _ => assert!(
            matches!(error, Error::Storage { .. } | Error::Damaged { .. } | Error::Missing { .. }),
            "{}",
            describe(error)
        ),
    }
}

/// Each call of every step of a history in which each operation has something to do fails once.
fn fail_each_call_of_steps(part: usize, parts: usize) {
    let history = History::of_everything();
    let mut attempts = Attempts::default();
    let mut before = World::new(SimulatedVfs::new());
    for step in 0..=history.operations.len() {
        let after = step_of(&before, &history, step);
        let count = after.vfs.call_count();
        let stride = choose(usize::try_from(count).expect("small").div_ceil(16), 1);
        for (turn, call) in (0..count).step_by(stride).enumerate().filter(|_| step % parts == part)
        {
            let all = effects();
            let chosen = choose(&all[(turn + step) % all.len()..][..1], &all[..]);
            for effect in chosen {
                attempts.attempt(
                    || format!("step {step}, call {call}, {effect:?}"),
                    || fail_call_of_step(&before, &history, step, call, *effect),
                );
            }
        }
        before = after;
    }
    attempts.finish("failing calls of all operations");
}

pub(crate) fn fail_call_of_step(
    before: &World,
    history: &History,
    step: usize,
    call: u64,
    effect: Effect,
) {
    let mut world = before.copy();
    world.has_faults = true;
    world.vfs.set_faults(FaultPlan::at(Counter::Calls, call, effect));
    if let Err(error) = take(&mut world, history, step) {
        check_effect(&error, effect);
    }
    check_failed_syncs(&world.vfs.calls(), call);
    let seed = 400_000 + call;
    if call.is_multiple_of(4) {
        check_store(&world.vfs.kill(), &world.model, seed);
    } else {
        check_contents(&world.vfs.kill(), &world.model, seed);
    }
}

#[test]
fn every_operation_survives_the_failure_of_any_call_first_half() {
    fail_each_call_of_steps(0, 2);
}

#[test]
fn every_operation_survives_the_failure_of_any_call_second_half() {
    fail_each_call_of_steps(1, 2);
}

#[test]
fn open_survives_the_failure_of_any_call() {
    fail_each_call(Operation::Open);
}

#[test]
fn backup_survives_the_failure_of_any_call() {
    fail_each_call(Operation::Backup);
}

#[test]
fn restore_survives_the_failure_of_any_call() {
    fail_each_call(Operation::Restore);
}

#[test]
fn verify_survives_the_failure_of_any_call() {
    fail_each_call(Operation::Verify);
}

#[test]
fn forget_survives_the_failure_of_any_call() {
    fail_each_call(Operation::Forget);
}

#[test]
fn purge_survives_the_failure_of_any_call() {
    fail_each_call(Operation::Purge);
}

#[test]
fn rebuild_of_the_index_survives_the_failure_of_any_call() {
    fail_each_call(Operation::Rebuild);
}

#[test]
fn failed_sync_followed_by_a_power_cut_loses_nothing_acknowledged() {
    let base = base();
    let modes = [UnsyncedNames::Lost, UnsyncedNames::Kept];
    let mut attempts = Attempts::default();
    for operation in [Operation::Backup, Operation::Forget, Operation::Purge, Operation::Rebuild] {
        let (vfs, ..) = base.run(operation, FaultPlan::none());
        for sync in 0..vfs.sync_count() {
            let plan = FaultPlan::at(Counter::Syncs, sync, Effect::Fail(FaultKind::Device));
            let (vfs, model, _) = base.run(operation, plan);
            for names in modes {
                let mode = CrashMode { data: UnsyncedData::Lost, names };
                attempts.attempt(
                    || format!("{operation:?}, sync {sync}, {mode:?}"),
                    || check_store(&vfs.crash(&mode, sync), &model, 800 + sync),
                );
            }
        }
    }
    attempts.finish("failed syncs");
}

/// Returns the packs and their lengths.
fn packs(vfs: &SimulatedVfs) -> BTreeMap<PathBuf, u64> {
    let files = vfs.all_files().into_iter();
    files.filter(|(path, _)| path.starts_with("/store/packs")).collect()
}

fn used(vfs: &SimulatedVfs) -> u64 {
    vfs.all_files().iter().map(|(_, len)| len).sum()
}

#[test]
fn full_disk_at_any_byte_fails_the_backup_and_nothing_else() {
    let base = base();
    base.vfs.set_capacity(None);
    let needed = {
        let (vfs, _, result) = base.run(Operation::Backup, FaultPlan::none());
        result.unwrap();
        used(&vfs) - used(&base.vfs)
    };
    let mut attempts = Attempts::default();
    let mut failed = 0;
    // The index grows beside its old self, so it may take more room for a while.
    let end = needed + (4 << 10);
    for room in (0..end).step_by(choose(257, 7)) {
        let mut backup_failed = false;
        attempts.attempt(
            || format!("room for {room} bytes"),
            || {
                let vfs = base.vfs.kill();
                vfs.set_capacity(Some(used(&vfs) + room));
                let mut model = base.model.clone();
                let store = open(&vfs, 50).unwrap();
                let result = model.backup(&store, "a", &base.next_image);
                backup_failed = result.is_err();
                if let Err(error) = result {
                    assert!(error.is_out_of_space(), "{}", describe(&error));
                }
                model.check_restore(&store, "on the full disk");
                drop(store);
                let vfs = vfs.kill();
                let before = packs(&vfs);
                vfs.set_capacity(None);
                let store = open(&vfs, 60).unwrap();
                model.backup(&store, "a", &base.next_image).unwrap();
                let after = packs(&vfs);
                assert!(before.iter().all(|(path, len)| after.get(path) == Some(len)));
                check_store(&vfs.kill(), &model, 70 + room);
            },
        );
        failed += u64::from(backup_failed);
    }
    attempts.finish("full disk");
    println!("full disk: {failed} backups failed");
    assert!(0 < failed);
}

#[test]
fn backup_after_a_failed_one_reuses_its_packs() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let image = images::image(3, IMAGE_LEN);
    // Everything but the revision record.
    let (rehearsal, record_rename) = {
        let vfs = vfs.snapshot();
        vfs.set_faults(FaultPlan::none());
        backup(&open(&vfs, 2).unwrap(), "a", &image).unwrap();
        let renames = record_renames(&vfs);
        (vfs, renames[0])
    };
    vfs.set_faults(FaultPlan::fail_mutation(record_rename, FaultKind::NoSpace));
    let store_after = open(&vfs, 2).unwrap();
    let error = backup(&store_after, "a", &image).unwrap_err();
    assert!(error.is_out_of_space());
    vfs.set_faults(FaultPlan::none());
    let before = packs(&vfs);
    let stats = backup(&store, "a", &image).unwrap();
    assert_eq!(stats.statistics.new_chunks, 0, "all chunks are in packs of the failed backup");
    assert_eq!(packs(&vfs), before);
    assert_eq!(before.len(), packs(&rehearsal).len());
    assert_eq!(restore(&store, &stats.id).unwrap(), image);
}

#[test]
fn rebuild_of_the_index_needs_nothing_of_the_directory_above_the_store() {
    let base = base();
    let (vfs, _, result) = base.run(Operation::Rebuild, FaultPlan::none());
    result.unwrap();
    let is_above = |call: &Call| !call.path.starts_with("/store");
    assert!(!vfs.calls().iter().any(is_above));
}

#[test]
fn handle_that_met_a_full_disk_sees_what_comes_later() {
    let base = base();
    let vfs = base.vfs.kill();
    let store = open(&vfs, 50).unwrap();
    vfs.remove("/store/index.redb").unwrap();
    vfs.set_capacity(Some(used(&vfs)));
    restore(&store, &base.newest).unwrap();
    vfs.set_capacity(None);
    let other = open(&vfs, 60).unwrap();
    let image = images::image(77, IMAGE_LEN);
    let id = backup(&other, "c", &image).unwrap().id;
    assert_eq!(restore(&store, &id).unwrap(), image);
    let mut model = base.model.clone();
    model.backup(&store, "a", &base.next_image).unwrap();
    model.check_restore(&store, "after the disk had room again");
}

#[test]
fn purge_in_these_tests_repacks_and_makes_the_ballast() {
    let base = base();
    let vfs = base.vfs.kill();
    let stats = purge_now(&open(&vfs, 50).unwrap()).unwrap();
    assert!(1 <= stats.repacked_packs && 2 <= stats.removed_packs, "{stats:?}");
    assert_eq!(vfs.read_all("/store/ballast").unwrap().len() as u64, BALLAST_LEN);
}

/// Purges where there is room for so many bytes, without grace. Returns how much less is used then.
fn purge_with_room(base: &Base, ballast_len: Option<usize>, room: u64) -> Result<u64> {
    let vfs = base.vfs.kill();
    if let Some(len) = ballast_len {
        vfs.write_raw("/store/ballast", vec![7; len]).unwrap();
    }
    let before = used(&vfs);
    vfs.set_capacity(Some(before + room));
    let result = purge_now(&open(&vfs, 50).unwrap());
    let mut model = base.model.clone();
    model.check_restore(&open(&vfs, 51).unwrap(), "after a purge on the full disk");
    let freed = before.saturating_sub(used(&vfs));
    let vfs = vfs.kill();
    vfs.set_capacity(None);
    let store = open(&vfs, 60).unwrap();
    model.backup(&store, "a", &base.next_image).unwrap();
    check_store(&vfs.kill(), &model, 70 + room);
    result.map(|_| freed)
}

#[test]
fn purge_on_a_full_disk_frees_space_with_the_ballast_and_loses_nothing_without() {
    let base = base();
    let mut attempts = Attempts::default();
    let mut without_ballast = [0, 0];
    for room in (0..40_000).step_by(choose(3847, 97)) {
        attempts.attempt(
            || format!("room for {room} bytes and a ballast"),
            || {
                let freed = purge_with_room(&base, Some(4 << 20), room);
                let freed = freed.unwrap_or_else(|error| panic!("{}", describe(&error)));
                assert!(0 < freed);
            },
        );
        attempts.attempt(
            || format!("room for {room} bytes"),
            || match purge_with_room(&base, None, room) {
                Ok(_) => without_ballast[0] += 1,
                Err(error) => {
                    assert!(error.is_out_of_space(), "{}", describe(&error));
                    without_ballast[1] += 1;
                }
            },
        );
    }
    attempts.finish("purge on a full disk");
    let [succeeded, failed] = without_ballast;
    println!("purge on a full disk without a ballast: {succeeded} succeeded, {failed} failed");
}

#[test]
fn forget_needs_no_space() {
    let base = base();
    let vfs = base.vfs.kill();
    vfs.set_capacity(Some(used(&vfs)));
    let mut model = base.model.clone();
    model.forget(&open(&vfs, 50).unwrap(), base.newest).unwrap();
    vfs.set_capacity(None);
    check_store(&vfs.kill(), &model, 60);
}
