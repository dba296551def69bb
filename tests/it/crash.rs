//! Everything stops at any call, and the machine comes back with what a power cut may leave: the fault model
//! is that of `chunkstore::vfs::simulated`.
//!
//! The checks use nothing but what a user would call; there is no repair for tests.

use std::collections::BTreeMap;
use std::path::Path;

use chunkstore::error::Result;
use chunkstore::vfs::simulated::{
    Call, CallKind, Counter, CrashMode, Effect, FaultPlan, SimulatedVfs, UnsyncedData,
    UnsyncedNames,
};
use support::attempt::{Attempts, panic_of};
use support::long_tests::choose;
use support::model::{Model, check_contents, check_store, reopen};
use support::simulated_store::{self, purge_now};
use support::workload::{self, Images};

const WORKLOAD_SEED: u64 = 1;
const IMAGE_LEN: usize = 12 << 10;
const NOTHING_KEPT: CrashMode =
    CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::Lost };
const NAMES_KEPT: CrashMode = CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::Kept };

/// Runs the workload until the plan stops it.
fn run(images: &Images, plan: FaultPlan) -> (SimulatedVfs, Model, Result<()>) {
    let vfs = SimulatedVfs::new();
    vfs.set_faults(plan);
    let mut model = Model::default();
    let result = workload::run(&vfs, images, WORKLOAD_SEED, &mut model);
    (vfs, model, result)
}

fn mutation_count(images: &Images) -> u64 {
    let (vfs, _, result) = run(images, FaultPlan::none());
    result.expect("the workload runs without faults");
    vfs.mutating_call_count()
}

/// What a stop leaves behind: a killed process, or a power cut of the given kind.
fn aftermath(vfs: &SimulatedVfs, mode: Option<CrashMode>, seed: u64) -> SimulatedVfs {
    mode.map_or_else(|| vfs.kill(), |mode| vfs.crash(&mode, seed))
}

/// Returns the modes to try at a stop: a few in turn for a sample, each with several seeds for all.
fn modes_at(stop: u64) -> Vec<(Option<CrashMode>, u64)> {
    let modes: Vec<Option<CrashMode>> =
        CrashMode::all().map(Some).chain([None]).collect();
    let seeds = if choose(false, true) { 0..4 } else { 0..1 };
    if choose(false, true) {
        return modes.iter().flat_map(|mode| seeds.clone().map(|seed| (*mode, seed))).collect();
    }
    // 8 and 21 have no common divisor: neighbouring stops get different modes.
    let pick = |turn: u64| {
        let index = usize::try_from(stop * 8 + turn * 11).expect("small") % modes.len();
        (modes[index], stop * 3 + turn)
    };
    vec![pick(0), pick(1)]
}

/// Stops at every `parts`-th call, beginning with `part`.
fn explore(part: u64, parts: u64) {
    let images = Images::new(IMAGE_LEN);
    // The two pack threads may make a few calls in another order: count generously, end at the first run that does not stop.
    let end = mutation_count(&images) + 8;
    let mut attempts = Attempts::default();
    for stop in (part..end).step_by(usize::try_from(parts).expect("small")) {
        let (vfs, model, _) = run(&images, FaultPlan::stop_at_mutation(stop));
        for (mode, seed) in modes_at(stop) {
            let name = || format!("stop {stop}, mode {mode:?}, seed {seed}");
            attempts.attempt(name, || {
                check_store(&aftermath(&vfs, mode, seed), &model, 1000 + stop + seed);
            });
        }
    }
    attempts.finish("crash");
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_first_quarter() {
    explore(0, 4);
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_second_quarter() {
    explore(1, 4);
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_third_quarter() {
    explore(2, 4);
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_fourth_quarter() {
    explore(3, 4);
}

/// What a user does after a crash: purge, and the next backup.
fn recover(vfs: &SimulatedVfs, model: &mut Model, images: &Images, seed: u64) -> Result<()> {
    let store = match simulated_store::open(vfs, seed) {
        Err(chunkstore::error::Error::NotAStore { .. }) => simulated_store::create(vfs, seed)?,
        other => other?,
    };
    model.is_created = true;
    if seed % 2 == 0 {
        purge_now(&store)?;
    }
    model.backup(&store, "a", &images.other)?;
    purge_now(&store).map(drop)
}

#[test]
fn acknowledged_revisions_survive_a_second_crash_during_recovery() {
    let images = Images::new(IMAGE_LEN);
    let end = mutation_count(&images);
    let modes: Vec<CrashMode> = CrashMode::all().collect();
    let mut attempts = Attempts::default();
    for stop in (3..end).step_by(choose(47, 5)) {
        let (vfs, model, _) = run(&images, FaultPlan::stop_at_mutation(stop));
        let mode = modes[usize::try_from(stop).expect("small") % modes.len()];
        let crashed = vfs.crash(&mode, stop);
        let whole = crashed.snapshot();
        let mut recovered = model.clone();
        recover(&whole, &mut recovered, &images, 5000 + stop).expect("recovery works");
        for second in (0..whole.mutating_call_count()).step_by(choose(7, 1)) {
            let vfs = crashed.kill();
            vfs.set_faults(FaultPlan::stop_at_mutation(second));
            let mut model = model.clone();
            let _stopped = recover(&vfs, &mut model, &images, 5000 + stop);
            let mode = modes[usize::try_from(stop + second).expect("small") % modes.len()];
            let name = || format!("stop {stop}, then {second}, mode {mode:?}");
            attempts.attempt(name, || {
                check_store(&vfs.crash(&mode, second), &model, 9000 + stop + second);
            });
        }
    }
    attempts.finish("second crash");
}

/// What a sync is for: of a file, by the name that it gets; of a directory, by its place.
fn purpose(call: &Call, later: &[Call]) -> String {
    let relative = |path: &Path| {
        let path = path.strip_prefix(simulated_store::STORE_PATH).unwrap_or(path);
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        match parts.as_slice() {
            [top, _, file] => format!("{top}/*/*{}", file.rsplit_once('.').map_or("", |(_, end)| end)),
            [top, _] if top == "packs" || top == "revisions" => format!("{top}/*"),
            [top, _] => format!("{top}/*"),
            [top] => top.clone(),
            _ => "store".to_owned(),
        }
    };
    if call.kind == CallKind::SyncDir {
        return format!("directory {}", relative(&call.path));
    }
    let renamed = later.iter().find(|later| later.to.is_some() && later.path == call.path);
    match renamed.and_then(|rename| rename.to.as_deref()) {
        Some(to) => format!("file {}", relative(to)),
        None => format!("file {}", relative(&call.path)),
    }
}

/// Syncs whose loss costs an acknowledged revision, or what was noted of it.
const NEEDED_SYNCS: [&str; 9] = [
    "directory /",
    "directory store",
    "directory packs",
    "directory packs/*",
    "directory revisions",
    "directory revisions/*",
    "file store.json",
    "file packs/*/*",
    "file revisions/*/*rev",
];

/// Syncs whose loss costs no revision, each with the reason.
const HARMLESS_SYNCS: [(&str, &str); 8] = [
    ("file index.redb", "the index is checked against the packs and made again"),
    ("file sessions/*", "a session file gives packs of a dead backup their grace, nothing else"),
    ("directory sessions", "as its file"),
    ("file condemned/*", "what it names is marked again before it goes; without it packs stay"),
    ("directory condemned", "as its file; the generation is also in the index and in sessions"),
    ("directory trash", "what is in it is needed by nothing"),
    ("file revisions/*/*state", "see the test of states"),
    ("file tmp/*", "a file of tmp counts only after it was renamed"),
];

/// Returns whether the loss of sync `n` shows after a crash soon after it.
fn is_noticed(images: &Images, sync: u64, at_mutation: u64) -> bool {
    [2, 5, 12, 25, 60, 140].into_iter().any(|gap| {
        let plan = FaultPlan::drop_sync(sync).and(
            Counter::Mutations,
            at_mutation + gap,
            Effect::Stop,
        );
        let (vfs, model, _) = run(images, plan);
        [NOTHING_KEPT, NAMES_KEPT].into_iter().any(|mode| {
            panic_of(|| check_contents(&vfs.crash(&mode, gap), &model, 700 + gap)).is_some()
        })
    })
}

#[test]
fn loss_of_each_sync_that_matters_is_noticed() {
    let images = Images::new(IMAGE_LEN);
    let (vfs, _, result) = run(&images, FaultPlan::none());
    result.expect("the workload runs without faults");
    let calls = vfs.calls();
    let mutations: Vec<(usize, &Call)> =
        calls.iter().enumerate().filter(|(_, call)| call.kind.is_mutating()).collect();
    let mut syncs: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    let mut sync_count = 0;
    for (mutation, (place, call)) in mutations.iter().enumerate() {
        if call.kind.is_sync() {
            let purpose = purpose(call, &calls[*place..]);
            syncs.entry(purpose).or_default().push((sync_count, mutation as u64));
            sync_count += 1;
        }
    }
    let mut table = Vec::new();
    for (purpose, places) in &syncs {
        let tried = places.len().min(choose(6, 1000));
        let noticed =
            places.iter().take(tried).any(|(sync, at)| is_noticed(&images, *sync, *at));
        table.push((purpose.as_str(), places.len(), noticed));
        println!("{purpose}: {} syncs, noticed: {noticed}", places.len());
    }
    for needed in NEEDED_SYNCS {
        let found = table.iter().find(|(purpose, ..)| *purpose == needed);
        assert!(found.is_some_and(|(.., noticed)| *noticed), "{needed} lost and not noticed");
    }
    for (purpose, _, noticed) in &table {
        let is_listed = NEEDED_SYNCS.contains(purpose)
            || HARMLESS_SYNCS.iter().any(|(harmless, _)| harmless == purpose);
        assert!(is_listed, "{purpose} is neither needed nor harmless; noticed: {noticed}");
    }
}

/// A record is removed by a process that dies before its sync; a purge follows, and a power cut.
fn forget_then_die_then_purge(lost_sync: Option<u64>) -> (SimulatedVfs, Model) {
    let vfs = SimulatedVfs::new();
    let images = Images::new(IMAGE_LEN);
    let store = simulated_store::create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    let id = model.backup(&store, "a", &images.first).unwrap();
    model.backup(&store, "b", &images.other).unwrap();
    drop(store);
    // Mutating call 0 removes the record, call 1 is the sync.
    vfs.set_faults(FaultPlan::stop_at_mutation(1));
    let store = simulated_store::open(&vfs, 2).unwrap();
    assert!(model.forget(&store, id).is_err());
    drop(store);
    let vfs = vfs.kill();
    if let Some(sync) = lost_sync {
        vfs.set_faults(FaultPlan::drop_sync(sync));
    }
    purge_now(&reopen(&vfs, &model, 3)).unwrap();
    (vfs.crash(&NOTHING_KEPT, 0), model)
}

#[test]
fn purge_does_not_rely_on_a_removal_that_is_not_durable() {
    let (vfs, model) = forget_then_die_then_purge(None);
    check_store(&vfs, &model, 4);
}

#[test]
fn loss_of_the_sync_before_marking_is_noticed() {
    let noticed = |sync| {
        let (vfs, model) = forget_then_die_then_purge(Some(sync));
        panic_of(|| check_contents(&vfs, &model, 4)).is_some()
    };
    assert!((0..4).any(noticed));
}

#[test]
fn workload_leaves_a_sound_store_without_any_fault() {
    let (vfs, model, result) = run(&Images::new(IMAGE_LEN), FaultPlan::none());
    result.unwrap();
    check_store(&vfs.kill(), &model, 10);
    check_store(&vfs.crash(&NOTHING_KEPT, 0), &model, 11);
}
