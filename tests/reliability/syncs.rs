//! Each sync lies once: the loss of every one that matters is noticed, and what the others are for is written down.
//!
//! A sync that is lost alone, and is not noticed, may be made up for by a later one of the same file or directory; it is then lost
//! together with all that follow. Only a purpose of the table [`HARMLESS`] may go unnoticed.

use std::collections::BTreeMap;
use std::path::Path;

use chunkstore::vfs::simulated::{
    Call, CallKind, Counter, CrashMode, Effect, FaultPlan, SimulatedVfs, UnsyncedData,
    UnsyncedNames,
};
use support::attempt::panic_of;
use support::crash::{step_of, take};
use support::documents::table_rows;
use support::history::{History, Operation, World};
use support::long_tests::choose;
use support::model::{Model, check_contents, check_store, reopen};
use support::simulated_store::{self, purge_now, record_renames};

const NOTHING_KEPT: CrashMode = CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::Lost };
const NAMES_KEPT: CrashMode = CrashMode { data: UnsyncedData::Lost, names: UnsyncedNames::Kept };

/// Steps that are taken after the one that lost a sync, before nobody would notice any more.
const STEPS_AFTER: usize = 4;

/// Syncs whose loss costs an acknowledged revision, or what was noted of it.
const NEEDED: [&str; 10] = [
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

/// Syncs whose loss costs no revision, each with the reason. `docs/reliability.md` shows the same table.
const HARMLESS: [(&str, &str); 12] = [
    ("file index.redb", "the index is checked against the packs and made again"),
    ("file sessions/*", "a session file gives packs of a dead backup their grace, nothing else"),
    ("directory sessions", "as its file"),
    ("file condemned/*", "what it names is marked again before it goes; without it packs stay"),
    ("directory condemned", "as its file; the generation is also in the index and in sessions"),
    ("file ledger", "it says when packs were read; where it does not, they are read again"),
    ("file ballast", "it only takes up space"),
    ("directory trash", "what is in it is needed by nothing"),
    (
        "directory quarantine",
        "what is moved there is damaged; if it is not moved, it is found again",
    ),
    ("directory quarantine/*", "as above"),
    ("directory quarantine/*/*", "as above"),
    ("file quarantine/*/*state", "a copy of what was damaged, for people to look at"),
];

/// What a sync is for: of a file, by the name that it gets; of a directory, by its place.
fn purpose(call: &Call, later: &[Call]) -> String {
    let relative = |path: &Path| {
        let path = path.strip_prefix(simulated_store::STORE_PATH).unwrap_or(path);
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        match parts.as_slice() {
            [top, .., file] if 2 < parts.len() => {
                format!("{top}/*/*{}", file.rsplit_once('.').map_or("", |(_, end)| end))
            }
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

/// A sync of a history.
#[derive(Clone, Debug)]
struct Sync {
    step: usize,
    /// Its number among the syncs of the step.
    sync: u64,
    /// Its number among the calls of the step that change something.
    mutation: u64,
    purpose: String,
}

/// Returns all syncs of a step, in the order in which they are made.
fn syncs_of(calls: &[Call], step: usize) -> Vec<Sync> {
    let (mut sync, mut mutation, mut found) = (0, 0, Vec::new());
    for (place, call) in calls.iter().enumerate() {
        if call.kind.is_sync() {
            found.push(Sync { step, sync, mutation, purpose: purpose(call, &calls[place..]) });
        }
        sync += u64::from(call.kind.is_sync());
        mutation += u64::from(call.kind.is_mutating());
    }
    found
}

/// A plan in which these syncs lie.
fn lies(syncs: impl IntoIterator<Item = u64>) -> FaultPlan {
    let lie = |plan: FaultPlan, sync| plan.and(Counter::Syncs, sync, Effect::DropSync);
    syncs.into_iter().fold(FaultPlan::none(), lie)
}

fn is_wrong(vfs: &SimulatedVfs, model: &Model) -> bool {
    [NOTHING_KEPT, NAMES_KEPT]
        .into_iter()
        .any(|mode| panic_of(|| check_contents(&vfs.crash(&mode, 1), model, 200_000)).is_some())
}

/// A history with the worlds before its steps and all its syncs.
struct Rehearsal {
    history: History,
    before: Vec<World>,
    syncs: Vec<Sync>,
}

impl Rehearsal {
    fn new(history: History) -> Self {
        let mut before = vec![World::new(SimulatedVfs::new())];
        let mut syncs = Vec::new();
        for step in 0..=history.operations.len() {
            let after = step_of(&before[step], &history, step);
            syncs.extend(syncs_of(&after.vfs.calls(), step));
            before.push(after);
        }
        Self { history, before, syncs }
    }

    /// Returns the syncs of a step that are lost: one, or with it all later ones for the same purpose.
    fn lost(&self, first: &Sync, step: usize, with_later: bool) -> Vec<u64> {
        let is_later = |other: &Sync| (first.step, first.sync) < (other.step, other.sync);
        let is_lost = |other: &&Sync| {
            let is_first = (first.step, first.sync) == (other.step, other.sync);
            other.step == step
                && (is_first || with_later && is_later(other) && other.purpose == first.purpose)
        };
        self.syncs.iter().filter(is_lost).map(|sync| sync.sync).collect()
    }

    /// Returns whether the loss of a sync shows after a power cut: soon after it, or at the end of its step or of one of the next.
    fn is_noticed(&self, first: &Sync, with_later: bool) -> bool {
        for gap in [2, 7, 20] {
            let mut world = self.before[first.step].copy();
            let plan = lies(self.lost(first, first.step, with_later));
            world.vfs.set_faults(plan.and(Counter::Mutations, first.mutation + gap, Effect::Stop));
            let _stopped = take(&mut world, &self.history, first.step);
            if world.vfs.is_stopped() && is_wrong(&world.vfs, &world.model) {
                return true;
            }
        }
        let mut world = self.before[first.step].copy();
        let end = (first.step + STEPS_AFTER).min(self.history.operations.len());
        for step in first.step..=end {
            world.vfs.set_faults(lies(self.lost(first, step, with_later)));
            take(&mut world, &self.history, step).expect("a lie is not noticed at once");
            if is_wrong(&world.vfs, &world.model) {
                return true;
            }
            world = world.copy();
        }
        false
    }
}

/// How the syncs of one purpose fared.
#[derive(Debug, Default)]
struct Tally {
    tried: usize,
    noticed: usize,
    made_up_for: usize,
    unnoticed: Vec<(usize, u64)>,
}

#[test]
fn loss_of_each_sync_that_matters_is_noticed() {
    let rehearsal = Rehearsal::new(History::of_everything());
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for sync in &rehearsal.syncs {
        let tally = tallies.entry(&sync.purpose).or_default();
        if choose(3, usize::MAX) <= tally.tried {
            continue;
        }
        tally.tried += 1;
        if rehearsal.is_noticed(sync, false) {
            tally.noticed += 1;
        } else if rehearsal.is_noticed(sync, true) {
            tally.made_up_for += 1;
        } else {
            tally.unnoticed.push((sync.step, sync.sync));
        }
    }
    for (purpose, tally) in &tallies {
        let count = rehearsal.syncs.iter().filter(|sync| sync.purpose == **purpose).count();
        let Tally { tried, noticed, made_up_for, unnoticed } = tally;
        println!(
            "sync of {purpose}: {tried} of {count} lost, {noticed} noticed, {made_up_for} made up for by a \
             later one, {} not noticed {unnoticed:?}",
            unnoticed.len()
        );
    }
    for (purpose, tally) in &tallies {
        if NEEDED.contains(purpose) {
            assert!(0 < tally.noticed + tally.made_up_for, "{purpose}: lost, and not noticed");
        } else {
            let is_harmless = HARMLESS.iter().any(|(harmless, _)| harmless == purpose);
            assert!(is_harmless, "{purpose} is neither among the needed nor the harmless");
            let noticed = tally.noticed + tally.made_up_for;
            assert_eq!(noticed, 0, "{purpose}: not as harmless as the table says");
        }
    }
    for needed in NEEDED {
        assert!(tallies.contains_key(needed), "the history never syncs {needed}");
    }
    for (harmless, _) in HARMLESS {
        assert!(tallies.contains_key(harmless), "the history never syncs {harmless}");
    }
}

/// A record is removed by a process that dies before its sync; a purge follows, in which `lost` decides about the
/// syncs of the directory of that record; then the power fails.
pub(crate) fn forget_then_die_then_purge(are_lost: bool) -> (SimulatedVfs, Model) {
    let vfs = SimulatedVfs::new();
    let store = simulated_store::create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    let id = model.backup(&store, "a", &support::images::image(7, 12 << 10)).unwrap();
    model.backup(&store, "b", &support::images::image(9, 12 << 10)).unwrap();
    drop(store);
    // Mutating call 0 makes the lock file, call 1 removes the record, call 2 is the sync.
    vfs.set_faults(FaultPlan::stop_at_mutation(2));
    let store = simulated_store::open(&vfs, 2).unwrap();
    assert!(model.forget(&store, id).is_err());
    drop(store);
    let (vfs, rehearsal) = (vfs.kill(), vfs.kill());
    purge_now(&reopen(&rehearsal, &model, 3)).unwrap();
    let is_of_source = |sync: &&Sync| sync.purpose == "directory revisions/*";
    let syncs = syncs_of(&rehearsal.calls(), 0);
    let of_source: Vec<u64> = syncs.iter().filter(is_of_source).map(|sync| sync.sync).collect();
    assert!(!of_source.is_empty());
    if are_lost {
        vfs.set_faults(lies(of_source));
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
fn history_of_everything_leaves_a_sound_store_without_any_fault() {
    let rehearsal = Rehearsal::new(History::of_everything());
    let end = rehearsal.before.last().expect("there are steps");
    assert!(1 <= end.model.repacked_packs, "a pack is repacked");
    assert!(end.vfs.read_all("/store/ballast").is_ok());
    check_store(&end.vfs.kill(), &end.model, 300_000);
    check_store(&end.vfs.crash(&NOTHING_KEPT, 0), &end.model, 300_001);
}

#[test]
fn document_shows_the_harmless_syncs_with_their_reasons() {
    let expected: Vec<String> =
        HARMLESS.iter().map(|(purpose, reason)| format!("| `{purpose}` | {reason} |")).collect();
    assert_eq!(table_rows("reliability.md", "| sync |"), expected);
}

/// A backup dies when a pack has its name, before that is durable; then comes one of the same image, with the index or one that is
/// built anew; then the power fails.
pub(crate) fn back_up_then_die_then_back_up(has_index: bool) -> (SimulatedVfs, Model) {
    let image = support::images::image(7, 12 << 10);
    let before = SimulatedVfs::new();
    drop(simulated_store::create(&before, 1).unwrap());
    let stopped_at = |stop| {
        let vfs = before.kill();
        vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let store = simulated_store::open(&vfs, 2).unwrap();
        let _stopped = simulated_store::backup(&store, "a", &image);
        vfs.kill()
    };
    let pack_count = |vfs: &SimulatedVfs| simulated_store::files_below(vfs, "packs").len();
    let is_in_between =
        |vfs: &SimulatedVfs| (pack_count(vfs), pack_count(&vfs.crash(&NOTHING_KEPT, 0))) == (1, 0);
    let vfs = (0..60).map(stopped_at).find(is_in_between).expect("a pack has its name once");
    if !has_index {
        vfs.remove("/store/index.redb").unwrap();
    }
    let mut model = Model { is_created: true, ..Model::default() };
    let store = reopen(&vfs, &model, 3);
    model.backup(&store, "a", &image).unwrap();
    drop(store);
    assert_eq!(pack_count(&vfs), 2, "it relies on the pack that was there");
    (vfs.crash(&NOTHING_KEPT, 0), model)
}

#[test]
fn backup_does_not_rely_on_a_pack_whose_name_is_not_durable() {
    for has_index in [true, false] {
        let (vfs, model) = back_up_then_die_then_back_up(has_index);
        check_store(&vfs, &model, 4);
    }
}

/// A record has its name, and its process dies before that is durable; an expiry removes the older revision because of it, and stops
/// at a call; then the power fails, and keeps any of the names that are not durable.
#[test]
fn expiry_does_not_rely_on_a_record_whose_name_is_not_durable() {
    let second = Operation::BackUp { source: 0, edit: 4 };
    let expiry = Operation::Expire { source: 0, keep: 1 };
    let mut before = World::new(SimulatedVfs::new());
    before.create().unwrap();
    before.run(Operation::BackUp { source: 0, edit: 2 }).unwrap();
    let mut rehearsal = before.copy();
    rehearsal.run(second).unwrap();
    let rename = record_renames(&rehearsal.vfs)[0];
    let mut dead = before.copy();
    dead.vfs.set_faults(FaultPlan::stop_at_mutation(rename + 1));
    dead.run(second).unwrap_err();
    let revision_count = |vfs: &SimulatedVfs| {
        let history = simulated_store::open(vfs, 100).unwrap().history(None).unwrap();
        history.revisions.len()
    };
    assert_eq!(revision_count(&dead.vfs.kill()), 2);

    let mut rehearsal = dead.copy();
    rehearsal.run(expiry).unwrap();
    assert_eq!(revision_count(&rehearsal.vfs.kill()), 1, "it removes the older one");
    for stop in 0..=rehearsal.vfs.mutating_call_count() {
        let mut world = dead.copy();
        world.vfs.set_faults(FaultPlan::stop_at_mutation(stop));
        let _stopped = world.run(expiry);
        let mode = CrashMode { names: UnsyncedNames::AnySubset, ..NOTHING_KEPT };
        for seed in 0..20 {
            let store = simulated_store::open(&world.vfs.crash(&mode, seed), 100).unwrap();
            let history = store.history(None).unwrap();
            let newest = history.revisions.last();
            let newest =
                newest.unwrap_or_else(|| panic!("stop {stop}, seed {seed}: both are gone"));
            simulated_store::restore(&store, &newest.record.id).unwrap();
        }
    }
}
