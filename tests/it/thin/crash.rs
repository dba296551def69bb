//! Thinning stops at any call, and the machine comes back with what a power cut may leave.

use std::collections::BTreeMap;

use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::thin::ThinOptions;
use chunkstore::progress::NoProgress;
use chunkstore::time::Timestamp;
use chunkstore::vfs::simulated::{
    Call, CallKind, CrashMode, FaultKind, FaultPlan, UnsyncedData, UnsyncedNames,
};
use support::attempt::Attempts;
use support::long_tests::choose;
use support::memory_tree::{Files, files_at};
use support::simulated_store::{files_below, record_renames, verify_all};

use super::scene::{DAY, SOURCE, Scene, keep};

/// A history of which thinning replaces revisions, removes one, and takes away a file that is gone.
fn history() -> (Scene, ThinOptions) {
    let mut scene = Scene::new();
    scene.day(&[("a", 1), ("b", 11), ("gone", 21)]);
    scene.tree.remove("gone");
    scene.day(&[("a", 2), ("c", 31)]);
    scene.day(&[("a", 3), ("b", 12), ("c", 32)]);
    scene.day(&[("a", 4)]);
    scene.day(&[("a", 5), ("b", 13), ("c", 33)]);
    (scene, ThinOptions { gone_after: Some(DAY * 3), ..keep(3) })
}

/// What the store has at each date that matters.
type Answers = BTreeMap<Timestamp, Files>;

fn answers(scene: &Scene, dates: &[Timestamp]) -> Answers {
    let answer = |date: &Timestamp| (*date, files_at(&scene.store, SOURCE, Some(*date)).unwrap());
    dates.iter().map(answer).collect()
}

/// What must hold before and after, whatever happens between.
struct Expected {
    options: ThinOptions,
    dates: Vec<Timestamp>,
    /// Answers that thinning does not change.
    kept: Answers,
    after: Answers,
    contents: Vec<Vec<(String, u64)>>,
    chunks: u64,
}

impl Expected {
    /// Thins a copy.
    fn of(scene: &Scene, options: ThinOptions) -> Self {
        let times = scene.revisions().into_iter().map(|revision| revision.record.time);
        let dates: Vec<_> = times.flat_map(|time| [time, Timestamp(time.0 + 1)]).collect();
        let before = answers(scene, &dates);
        let copy = scene.on(scene.vfs.kill(), 40);
        let stats = copy.thin(&options);
        assert!(2 <= stats.replaced.len() && !stats.removed.is_empty(), "{stats:?}");
        assert!(stats.counts.gone_files == 1, "{stats:?}");
        let after = answers(&copy, &dates);
        let mut kept = after.clone();
        for (date, files) in &mut kept {
            files.retain(|path, bytes| before[date].get(path) == Some(bytes));
        }
        assert!(kept.values().map(BTreeMap::len).sum::<usize>() >= 12, "{kept:?}");
        let contents = copy.contents();
        Self { options, dates, kept, after, contents, chunks: copy.chunks_after_purge() }
    }

    /// Checks that nothing is lost that thinning keeps.
    fn check_kept(&self, scene: &Scene) {
        let found = answers(scene, &self.dates);
        for (date, files) in &self.kept {
            for (path, bytes) in files {
                assert!(found[date].get(path) == Some(bytes), "{path} at {date}");
            }
        }
    }

    /// Checks a store that thinning was stopped in: nothing is lost, and a second run does the rest.
    fn check(&self, scene: &Scene) {
        self.check_kept(scene);
        assert!(verify_all(&scene.store).unwrap().is_sound());
        scene.thin(&self.options);
        assert_eq!(scene.contents(), self.contents);
        assert_eq!(answers(scene, &self.dates), self.after);
        assert_eq!(scene.thin(&self.options).counts.superseded_revisions, 0);
        assert_eq!(scene.chunks_after_purge(), self.chunks, "something is left of the first run");
        for directory in ["tmp", "sessions", "trash"] {
            let left = files_below(&scene.vfs, directory);
            assert!(left.is_empty(), "{left:?}");
        }
        assert_eq!(answers(scene, &self.dates), self.after);
        // The history goes on.
        let mut scene = scene.on(scene.vfs.kill(), 60);
        let newest = scene.revisions().pop().unwrap().record.sequence;
        scene.day(&[("a", 6)]);
        assert_eq!(scene.revisions().pop().unwrap().record.sequence, newest + 1);
    }
}

/// Returns what to try at a stop, a killed process or a power cut: one in turn for a sample, each for all.
fn modes_at(stop: u64) -> Vec<(Option<CrashMode>, u64)> {
    let modes: Vec<Option<CrashMode>> = CrashMode::all().map(Some).chain([None]).collect();
    if choose(false, true) {
        return modes.into_iter().map(|mode| (mode, stop)).collect();
    }
    // 8 and 21 have no common divisor: neighbouring stops get different modes.
    let index = usize::try_from(stop * 8).unwrap() % modes.len();
    vec![(modes[index], stop * 3)]
}

#[test]
fn nothing_is_lost_or_left_by_a_stop_at_any_call() {
    let (scene, options) = history();
    let expected = Expected::of(&scene, options);
    let base = scene.vfs.kill();
    let end = {
        let vfs = base.kill();
        scene.on(vfs.clone(), 50).thin(&expected.options);
        vfs.mutating_call_count()
    };
    assert!(20 < end, "{end}");
    let mut attempts = Attempts::default();
    for stop in (0..end + 2).step_by(choose(2, 1)) {
        let vfs = base.kill();
        let stopped = scene.on(vfs.clone(), 50);
        vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let result = stopped.try_thin(&expected.options);
        assert!(result.is_err() || end <= stop, "stop {stop} of {end}");
        for (mode, seed) in modes_at(stop) {
            let name = || format!("stop {stop}, mode {mode:?}, seed {seed}");
            attempts.attempt(name, || {
                let vfs = mode.map_or_else(|| vfs.kill(), |mode| vfs.crash(&mode, seed));
                expected.check(&scene.on(vfs, 100 + stop + seed));
            });
        }
    }
    attempts.finish("stopped while it thins");
}

#[test]
fn nothing_is_lost_or_left_by_an_error_of_any_call() {
    let (scene, options) = history();
    let expected = Expected::of(&scene, options);
    let base = scene.vfs.kill();
    let mut attempts = Attempts::default();
    for (first, kind) in [(0, FaultKind::Device), (1, FaultKind::NoSpace)] {
        for stop in (choose(first, 0)..).step_by(choose(3, 1)) {
            let vfs = base.kill();
            let failing = scene.on(vfs.clone(), 50);
            vfs.set_faults(FaultPlan::fail_mutation(stop, kind));
            let result = failing.try_thin(&expected.options);
            let is_over = vfs.mutating_call_count() <= stop;
            vfs.set_faults(FaultPlan::none());
            if is_over {
                result.unwrap();
                break;
            }
            let name = || format!("{kind:?} of call {stop}");
            attempts.attempt(name, || expected.check(&scene.on(vfs.kill(), 100 + stop)));
        }
    }
    attempts.finish("failed while it thins");
}

#[test]
fn both_revisions_are_harmless_until_the_next_thinning() {
    let (scene, options) = history();
    let expected = Expected::of(&scene, options);
    // The last removal of a record is not done any more: the old and the new revision are there.
    let vfs = scene.vfs.kill();
    scene.on(vfs.clone(), 50).thin(&expected.options);
    let calls = vfs.calls();
    let mutations: Vec<_> = calls.iter().filter(|call| call.kind.is_mutating()).collect();
    let is_removal = |call: &&Call| {
        call.kind == CallKind::RemoveFile && call.path.extension().is_some_and(|end| end == "rev")
    };
    let removal = mutations.iter().rposition(is_removal).expect("old records are removed") as u64;
    let vfs = scene.vfs.kill();
    let stopped = scene.on(vfs.clone(), 50);
    vfs.set_faults(FaultPlan::stop_at_mutation(removal));
    stopped.try_thin(&expected.options).unwrap_err();
    let both = scene.on(vfs.kill(), 70);
    let revisions = both.revisions();
    let twice = revisions.windows(2).find(|two| two[0].record.sequence == two[1].record.sequence);
    assert!(twice.is_some(), "{revisions:?}");
    // They are counted once, and the interrupted one does not come back when somebody purges.
    purge::plan(&both.store, &PurgeOptions::default(), &NoProgress)
        .unwrap()
        .execute(&NoProgress)
        .unwrap();
    let stats = both.thin(&expected.options);
    assert_eq!(stats.counts.superseded_revisions, 1);
    expected.check(&both);
}

/// The record of a thinned revision has its name, and its process dies before that is durable; the next thinning removes the one that it
/// came from, and stops at a call; then the power fails, and keeps any of the names that are not durable.
#[test]
fn thinning_does_not_rely_on_a_record_whose_name_is_not_durable() {
    let (scene, options) = history();
    let expected = Expected::of(&scene, options);
    let vfs = scene.vfs.kill();
    scene.on(vfs.clone(), 50).thin(&expected.options);
    let rename = *record_renames(&vfs).last().expect("records are made");
    let dead = scene.vfs.kill();
    let stopped = scene.on(dead.clone(), 50);
    dead.set_faults(FaultPlan::stop_at_mutation(rename + 1));
    stopped.try_thin(&expected.options).unwrap_err();
    let end = {
        let vfs = dead.kill();
        assert_eq!(
            scene.on(vfs.clone(), 70).thin(&expected.options).counts.superseded_revisions,
            1
        );
        vfs.mutating_call_count()
    };
    let mode = CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::AnySubset };
    for stop in 0..=end {
        let vfs = dead.kill();
        let stopped = scene.on(vfs.clone(), 70);
        vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let _stopped = stopped.try_thin(&expected.options);
        for seed in 0..10 {
            expected.check_kept(&scene.on(vfs.crash(&mode, seed), 90));
        }
    }
}
