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
use support::images;
use support::long_tests::choose;
use support::model::{Model, check_contents, check_store, reopen};
use support::simulated_store::{self, purge_now};
use support::workload::{self, Images};

const WORKLOAD_SEED: u64 = 1;
const IMAGE_LEN: usize = 12 << 10;
const NOTHING_KEPT: CrashMode = CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::Lost };
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
    let modes: Vec<Option<CrashMode>> = CrashMode::all().map(Some).chain([None]).collect();
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
    if seed.is_multiple_of(2) {
        purge_now(&store)?;
    }
    model.backup(&store, "a", &images.other)?;
    purge_now(&store).map(drop)
}

/// A store of which a purge merges small packs, of data and of lists, and repacks one that is mostly dead.
fn store_to_repack() -> (SimulatedVfs, Model) {
    let vfs = SimulatedVfs::new();
    vfs.set_capacity(Some(1 << 30));
    let store = simulated_store::create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    let whole = images::image(50, IMAGE_LEN);
    let forgotten = model.backup(&store, "whole", &whole).unwrap();
    model.backup(&store, "part", &whole[..IMAGE_LEN / 4]).unwrap();
    for number in 0..8 {
        model.backup(&store, "disk", &images::image(60 + number, 1500)).unwrap();
    }
    model.forget(&store, forgotten).unwrap();
    drop(store);
    (vfs.kill(), model)
}

#[test]
fn purge_that_repacks_survives_a_stop_at_any_call() {
    let (base, model) = store_to_repack();
    let end = {
        let vfs = base.kill();
        let stats = purge_now(&simulated_store::open(&vfs, 50).unwrap()).unwrap();
        assert!(17 <= stats.repacked_packs, "{stats:?}");
        assert_eq!(simulated_store::files_below(&vfs, "packs").len(), 2);
        vfs.mutating_call_count()
    };
    let mut attempts = Attempts::default();
    for stop in (0..end).step_by(choose(3, 1)) {
        let vfs = base.kill();
        vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let stopped = purge_now(&simulated_store::open(&vfs, 50).unwrap());
        assert!(stopped.is_err());
        for (mode, seed) in modes_at(stop) {
            let name = || format!("stop {stop}, mode {mode:?}, seed {seed}");
            attempts.attempt(name, || {
                let vfs = aftermath(&vfs, mode, seed);
                check_store(&vfs, &model, 1000 + stop + seed);
                // Nothing of the attempt is left.
                let store = simulated_store::open(&vfs, 3000).unwrap();
                let again = purge_now(&store).unwrap();
                assert_eq!((again.freed_bytes, again.repacked_bytes), (0, 0), "{again:?}");
                let packs = simulated_store::files_below(&vfs, "packs");
                assert!(packs.len() <= 4, "{packs:?}");
            });
        }
    }
    attempts.finish("stopped while it repacks");
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
            [top, _, file] => {
                format!("{top}/*/*{}", file.rsplit_once('.').map_or("", |(_, end)| end))
            }
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
const NEEDED_SYNCS: [&str; 10] = [
    "directory /",
    "directory store",
    "directory packs",
    "directory packs/*",
    "directory revisions",
    "directory revisions/*",
    "file store.json",
    "file packs/*/*",
    "file revisions/*/*rev",
    "file revisions/*/*state",
];

/// Syncs whose loss costs no revision, each with the reason.
const HARMLESS_SYNCS: [(&str, &str); 8] = [
    ("file index.redb", "the index is checked against the packs and made again"),
    ("file sessions/*", "a session file gives packs of a dead backup their grace, nothing else"),
    ("directory sessions", "as its file"),
    ("file condemned/*", "what it names is marked again before it goes; without it packs stay"),
    ("directory condemned", "as its file; the generation is also in the index and in sessions"),
    ("file ledger", "it says when packs were read; where it does not, they are read again"),
    ("file ballast", "it only takes up space"),
    ("directory trash", "what is in it is needed by nothing"),
];

/// A plan in which all of these syncs lie.
fn drop_all(syncs: impl IntoIterator<Item = u64>) -> FaultPlan {
    let lie = |plan: FaultPlan, sync| plan.and(Counter::Syncs, sync, Effect::DropSync);
    syncs.into_iter().fold(FaultPlan::none(), lie)
}

/// Returns whether the loss of these syncs shows after a crash soon after mutating call `at`.
fn is_noticed(images: &Images, lost: &FaultPlan, at: u64) -> bool {
    [2, 5, 12, 25, 60, 140].into_iter().any(|gap| {
        let plan = lost.clone().and(Counter::Mutations, at + gap, Effect::Stop);
        let (vfs, model, _) = run(images, plan);
        [NOTHING_KEPT, NAMES_KEPT].into_iter().any(|mode| {
            panic_of(|| check_contents(&vfs.crash(&mode, gap), &model, 700 + gap)).is_some()
        })
    })
}

/// Returns the numbers of all syncs for which `is_meant` holds, each with the number of the mutating call.
fn syncs_where(calls: &[Call], is_meant: impl Fn(&Call, &[Call]) -> bool) -> Vec<(u64, u64)> {
    let (mut syncs, mut mutations, mut found) = (0, 0, Vec::new());
    for (place, call) in calls.iter().enumerate() {
        if call.kind.is_sync() && is_meant(call, &calls[place..]) {
            found.push((syncs, mutations));
        }
        syncs += u64::from(call.kind.is_sync());
        mutations += u64::from(call.kind.is_mutating());
    }
    found
}

#[test]
fn loss_of_each_sync_that_matters_is_noticed() {
    let images = Images::new(IMAGE_LEN);
    let (vfs, _, result) = run(&images, FaultPlan::none());
    result.expect("the workload runs without faults");
    let calls = vfs.calls();
    let purposes = syncs_where(&calls, |_, _| true).len();
    let mut table: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for (place, call) in calls.iter().enumerate().filter(|(_, call)| call.kind.is_sync()) {
        let purpose = purpose(call, &calls[place..]);
        table.entry(purpose).or_insert_with_key(|wanted| {
            syncs_where(&calls, |call, later| self::purpose(call, later) == *wanted)
        });
    }
    assert_eq!(table.values().map(Vec::len).sum::<usize>(), purposes);
    for (purpose, places) in &table {
        let one = places
            .iter()
            .take(choose(4, usize::MAX))
            .any(|(sync, at)| is_noticed(&images, &FaultPlan::drop_sync(*sync), *at));
        // Some are made twice, by two steps that do not know of each other.
        let all = drop_all(places.iter().map(|(sync, _)| *sync));
        let step = places.len().div_ceil(choose(4, 1000));
        let all = places.iter().step_by(step).any(|(_, at)| is_noticed(&images, &all, *at));
        println!("{purpose}: {} syncs; noticed: one lost {one}, all lost {all}", places.len());
        let is_harmless = HARMLESS_SYNCS.iter().any(|(harmless, _)| harmless == purpose);
        if NEEDED_SYNCS.contains(&purpose.as_str()) {
            assert!(one || all, "{purpose}: lost, and not noticed");
        } else {
            assert!(is_harmless, "{purpose} is neither among the needed nor the harmless");
            assert!(!one && !all, "{purpose}: not as harmless as the table says");
        }
    }
    for needed in NEEDED_SYNCS {
        assert!(table.contains_key(needed), "the workload never syncs {needed}");
    }
}

/// A record is removed by a process that dies before its sync; a purge follows, in which `lost` decides about the
/// syncs of the directory of that record; then the power fails.
fn forget_then_die_then_purge(are_lost: bool) -> (SimulatedVfs, Model) {
    let vfs = SimulatedVfs::new();
    let images = Images::new(IMAGE_LEN);
    let store = simulated_store::create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    let id = model.backup(&store, "a", &images.first).unwrap();
    model.backup(&store, "b", &images.other).unwrap();
    drop(store);
    // Mutating call 0 makes the lock file, call 1 removes the record, call 2 is the sync.
    vfs.set_faults(FaultPlan::stop_at_mutation(2));
    let store = simulated_store::open(&vfs, 2).unwrap();
    assert!(model.forget(&store, id).is_err());
    drop(store);
    let (vfs, rehearsal) = (vfs.kill(), vfs.kill());
    purge_now(&reopen(&rehearsal, &model, 3)).unwrap();
    let of_source = syncs_where(&rehearsal.calls(), |call, _| call.path.ends_with("revisions/a"));
    assert!(!of_source.is_empty());
    if are_lost {
        vfs.set_faults(drop_all(of_source.into_iter().map(|(sync, _)| sync)));
    }
    purge_now(&reopen(&vfs, &model, 3)).unwrap();
    (vfs.crash(&NOTHING_KEPT, 0), model)
}

#[test]
fn purge_does_not_rely_on_a_removal_that_is_not_durable() {
    let (vfs, model) = forget_then_die_then_purge(false);
    check_store(&vfs, &model, 4);
}

#[test]
fn loss_of_the_sync_before_marking_is_noticed() {
    let (vfs, model) = forget_then_die_then_purge(true);
    assert!(panic_of(|| check_contents(&vfs, &model, 4)).is_some());
}

#[test]
fn workload_leaves_a_sound_store_without_any_fault() {
    let (vfs, model, result) = run(&Images::new(IMAGE_LEN), FaultPlan::none());
    result.unwrap();
    assert!(1 <= model.repacked_packs, "a pack is repacked");
    assert!(vfs.read_all("/store/ballast").is_ok());
    check_store(&vfs.kill(), &model, 10);
    check_store(&vfs.crash(&NOTHING_KEPT, 0), &model, 11);
}
