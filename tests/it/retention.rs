//! Tags, protection and expiry in a store: what they change, beside whom, and what is there after a stop at any call.
//!
//! What a schedule keeps is tested where it is decided, in `chunkstore::retention`.

use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use chunkstore::environment::Environment;
use chunkstore::error::Error;
use chunkstore::format::Trust;
use chunkstore::id::{RevisionId, SourceName};
use chunkstore::ops::expire::{self, ExpireError, ExpireOptions};
use chunkstore::ops::{self, BackupOptions, TagEdit, TagOptions, VerifyOptions};
use chunkstore::progress::NoProgress;
use chunkstore::retention::{Refusal, Schedule, TagRule};
use chunkstore::store::Store;
use chunkstore::time::Timestamp;
use chunkstore::vfs::Vfs;
use chunkstore::vfs::simulated::{
    CrashMode, FaultKind, FaultPlan, SimulatedClock, SimulatedVfs, environment,
};
use support::attempt::Attempts;
use support::images;
use support::long_tests::choose;
use support::memory::MemorySource;
use support::model_store::{ImageSource, SparseImage};
use support::simulated_store::{STORE_PATH, describe, options, purge_now, restore};

const DAY: Duration = Duration::from_secs(86_400);

/// When the first revision of a scene is made.
const START: Timestamp = Timestamp(1_790_000_000_000);

/// Revisions of a scene, one a day.
const REVISION_COUNT: usize = 6;

/// Tags and protection of the revisions that are there.
type States = BTreeMap<RevisionId, (Vec<String>, bool)>;

/// A store with one revision a day, on a clock that the test sets.
struct Scene {
    vfs: SimulatedVfs,
    clock: SimulatedClock,
    /// Oldest first.
    ids: Vec<RevisionId>,
    images: Vec<Vec<u8>>,
}

impl Scene {
    /// Returns a scene with these tags on each revision.
    fn with_tags(tags: &str) -> Self {
        let (vfs, clock) = (SimulatedVfs::new(), SimulatedClock::default());
        let mut scene = Self { vfs, clock, ids: Vec::new(), images: Vec::new() };
        let store = Store::create_in(scene.environment(1), STORE_PATH, &options()).unwrap();
        let mut image = images::image(1, 3000);
        for turn in 0..REVISION_COUNT {
            let days = DAY * u32::try_from(turn).unwrap();
            scene.clock.set(Timestamp(START.0 + i64::try_from(days.as_millis()).unwrap()));
            scene.ids.push(backup(&store, &image, tags));
            scene.images.push(image.clone());
            image = images::changed(&image, 10 + turn as u64);
        }
        scene.clock.advance(DAY / 2);
        scene
    }

    fn environment(&self, seed: u64) -> Environment {
        let clock = Arc::new(self.clock.clone());
        Environment { clock, ..environment(self.vfs.clone(), seed) }
    }

    fn open(&self, seed: u64) -> Store {
        Store::open_in(self.environment(seed), STORE_PATH).unwrap()
    }

    /// Returns the same revisions on another file system.
    fn on(&self, vfs: SimulatedVfs) -> Self {
        let (ids, images) = (self.ids.clone(), self.images.clone());
        let clock = self.clock.clone();
        Self { vfs, clock, ids, images }
    }

    /// Checks that each revision that is there restores, and returns their tags and protection.
    fn check(&self, seed: u64) -> States {
        let store = self.open(seed);
        let history = store.history(None).unwrap();
        assert!(history.damaged.is_empty(), "{:?}", history.damaged);
        let mut found = BTreeMap::new();
        for revision in history.revisions {
            let place = self.ids.iter().position(|id| *id == revision.record.id);
            let place = place.expect("no revision appears by itself");
            let bytes = restore(&store, &self.ids[place]);
            let bytes = bytes.unwrap_or_else(|error| panic!("{}", describe(&error)));
            assert!(bytes == self.images[place], "revision {place} has other bytes");
            found.insert(self.ids[place], (revision.state.tags, revision.state.protected));
        }
        found
    }
}

fn source() -> SourceName {
    "a".parse().unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn backup(store: &Store, image: &[u8], tags: &str) -> RevisionId {
    let options = BackupOptions { tags: words(tags), ..BackupOptions::new(source()) };
    ops::backup(store, &MemorySource::new(image), &options, &NoProgress).unwrap().id
}

/// Returns options with a tag `daily` of which this many are kept.
fn daily(keep: u64) -> ExpireOptions {
    let rule = TagRule::count("1d".parse().unwrap(), keep.try_into().unwrap());
    let schedule = Schedule::default().with_tag("daily", rule).unwrap();
    ExpireOptions { schedule, ..ExpireOptions::default() }
}

fn expire(store: &Store, options: &ExpireOptions) -> Result<Vec<RevisionId>, ExpireError> {
    Ok(expire::plan(store, &source(), options)?.execute()?.removed)
}

fn edit(store: &Store, ids: &[RevisionId], edit: &TagEdit) -> Result<(), Error> {
    ops::edit_tags(store, ids, edit, &TagOptions::default()).map(drop)
}

#[test]
fn expiry_drops_tags_and_revisions_and_nothing_else() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    edit(&store, &scene.ids[..1], &TagEdit::Add(words("manual:x unknown"))).unwrap();
    let plan = expire::plan(&store, &source(), &daily(4)).unwrap();
    assert_eq!(plan.verdict().removed().collect::<Vec<_>>(), scene.ids[1..2]);
    assert_eq!(scene.check(3).len(), REVISION_COUNT, "a plan changes nothing");
    assert_eq!(plan.execute().unwrap().removed, scene.ids[1..2]);
    let found = scene.check(4);
    assert_eq!(found.len(), REVISION_COUNT - 1);
    assert_eq!(found[&scene.ids[0]], (words("manual:x"), false));
    assert_eq!(found[&scene.ids[2]], (words("daily"), false));
    assert_eq!(expire(&store, &daily(4)).unwrap(), []);
    purge_now(&store).unwrap();
    assert_eq!(scene.check(5), found);
}

#[test]
fn revision_that_was_protected_after_the_plan_is_kept() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    let plan = expire::plan(&store, &source(), &daily(4)).unwrap();
    assert_eq!(plan.verdict().removed().count(), 2);
    ops::protect(&scene.open(3), &scene.ids[..1], true).unwrap();
    assert_eq!(plan.execute().unwrap().removed, scene.ids[1..2]);
    assert_eq!(scene.check(4)[&scene.ids[0]], (words("daily"), true));
}

#[test]
fn expiry_leaves_other_sources_alone() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    let other = BackupOptions { tags: words("gone"), ..BackupOptions::new("b".parse().unwrap()) };
    let other = ops::backup(&store, &MemorySource::new(b"other"), &other, &NoProgress).unwrap();
    expire(&store, &daily(4)).unwrap();
    assert_eq!(store.revision(&other.id).unwrap().state.tags, ["gone"]);
}

#[test]
fn clock_that_jumps_expires_nothing_unless_forced() {
    let scene = Scene::with_tags("daily");
    let now = Timestamp(START.0 + 6 * 86_400_000);
    let store = scene.open(2);
    let refusal = |now: i64, options: &ExpireOptions| {
        scene.clock.set(Timestamp(now));
        match expire(&store, options) {
            Err(ExpireError::Refused { refusals, .. }) => refusals,
            other => panic!("{other:?}"),
        }
    };
    let ahead = refusal(now.0 + 400 * 86_400_000, &daily(4));
    assert!(matches!(ahead[..], [Refusal::Pause { .. }]), "{ahead:?}");
    let back = refusal(START.0 - 86_400_000, &daily(4));
    assert!(matches!(back[..], [Refusal::FromTheFuture { .. }]), "{back:?}");
    let half = refusal(now.0, &daily(1));
    assert!(matches!(half[..], [Refusal::MoreThanHalf { removed: 5, total: 6 }]), "{half:?}");
    let all = refusal(now.0, &ExpireOptions::default());
    assert!(matches!(all[..], [Refusal::MoreThanHalf { .. }, Refusal::LastGood { .. }]), "{all:?}");
    assert_eq!(scene.check(3).len(), REVISION_COUNT);
    scene.clock.set(Timestamp(now.0 + 400 * 86_400_000));
    let forced = ExpireOptions { force: true, ..daily(4) };
    assert_eq!(expire(&store, &forced).unwrap(), scene.ids[..2]);
}

#[test]
fn expectation_that_one_revision_fails_changes_none() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    edit(&store, &scene.ids[3..4], &TagEdit::Set(words("daily weekly"))).unwrap();
    let before = scene.check(3);
    let expecting = |tags: &str, autoremove| TagOptions { expect: Some(words(tags)), autoremove };
    let set = TagEdit::Set(Vec::new());
    for options in [expecting("daily", false), expecting("daily", true), expecting("", true)] {
        match ops::edit_tags(&store, &scene.ids, &set, &options) {
            Err(Error::OtherTags { .. }) => assert_eq!(scene.check(4), before),
            other => panic!("{other:?}"),
        }
    }
    // The order of tags says nothing.
    let ids = &scene.ids[3..4];
    ops::edit_tags(&store, ids, &set, &expecting("weekly daily", false)).unwrap();
    assert_eq!(scene.check(5)[&ids[0]], (Vec::new(), false));
}

#[test]
fn revisions_that_are_left_without_tags_are_dropped_on_demand_unless_protected() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    ops::protect(&store, &scene.ids[1..2], true).unwrap();
    edit(&store, &scene.ids[2..3], &TagEdit::Add(words("manual:x"))).unwrap();
    let remove = TagEdit::Remove(words("daily"));
    let options = TagOptions { expect: None, autoremove: true };
    let stats = ops::edit_tags(&store, &scene.ids[..3], &remove, &options).unwrap();
    let removed: Vec<bool> = stats.changes.iter().map(|change| change.is_removed).collect();
    assert_eq!(removed, [true, false, false]);
    let found = scene.check(3);
    assert!(!found.contains_key(&scene.ids[0]));
    assert_eq!(found[&scene.ids[1]], (Vec::new(), true));
    assert_eq!(found[&scene.ids[2]], (words("manual:x"), false));
    assert_eq!(found[&scene.ids[3]], (words("daily"), false));
}

#[test]
fn edit_of_a_revision_that_does_not_exist_changes_none() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    let ids = [scene.ids[0], RevisionId::from_bytes([7; RevisionId::LEN])];
    let result = edit(&store, &ids, &TagEdit::Set(words("manual:x")));
    assert!(matches!(result, Err(Error::NoSuchRevision { id }) if id == ids[1]), "{result:?}");
    let result = ops::protect(&store, &ids, true);
    assert!(matches!(result, Err(Error::NoSuchRevision { id }) if id == ids[1]), "{result:?}");
    let result = edit(&store, &ids[..1], &TagEdit::Add(words("a,b")));
    assert!(matches!(result, Err(Error::InvalidOption { .. })), "{result:?}");
    assert_eq!(scene.check(3)[&ids[0]], (words("daily"), false));
}

#[test]
fn protected_revision_is_not_forgotten_and_nothing_beside_it() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    ops::protect(&store, &scene.ids[1..2], true).unwrap();
    match ops::forget(&store, &scene.ids) {
        Err(Error::Protected { id }) => assert_eq!(id, scene.ids[1]),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.check(3).len(), REVISION_COUNT);
    let stats = ops::protect(&store, &scene.ids, false).unwrap();
    assert_eq!((stats.changed.len(), stats.unchanged.len()), (1, REVISION_COUNT - 1));
    ops::forget(&store, &scene.ids).unwrap();
    assert_eq!(scene.check(4).len(), 0);
}

#[test]
fn revision_with_a_damaged_state_counts_as_protected() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    let id = scene.ids[0];
    ops::protect(&store, &[id], true).unwrap();
    let record = store.revision(&id).unwrap().record;
    let state = store.revision_path(&record).with_extension("state");
    let file = scene.vfs.open(&state, true).unwrap();
    file.write_all_at(b"x", 40).unwrap();
    drop(file);
    let plan = expire::plan(&store, &source(), &daily(4)).unwrap();
    assert!(plan.damaged()[0].is_damage());
    assert_eq!(plan.execute().unwrap().removed, scene.ids[1..2]);
    assert!(matches!(ops::forget(&store, &[id]), Err(Error::Protected { .. })));
    ops::protect(&store, &[id], false).unwrap();
    ops::forget(&store, &[id]).unwrap();
    assert_eq!(scene.check(3).len(), REVISION_COUNT - 2);
}

#[test]
fn expiry_waits_for_no_backup_and_edits_need_not() {
    let scene = Scene::with_tags("daily");
    let (store, other) = (scene.open(2), scene.open(3));
    let lock = store.lock_source(&source()).unwrap();
    match expire(&other, &daily(4)) {
        Err(ExpireError::Store(Error::Locked { what, .. })) => assert_eq!(what, "source a"),
        other => panic!("{other:?}"),
    }
    expire::plan(&other, &source(), &daily(4)).unwrap();
    edit(&other, &scene.ids[..1], &TagEdit::Add(words("manual:x"))).unwrap();
    ops::protect(&other, &scene.ids[..1], true).unwrap();
    ops::forget(&other, &scene.ids[1..2]).unwrap();
    drop(lock);
    assert_eq!(expire(&other, &daily(5)).unwrap(), []);
    assert_eq!(scene.check(4)[&scene.ids[0]], (words("daily manual:x"), true));
}

#[test]
fn doubt_is_settled_by_a_backup_during_which_tags_were_edited() {
    let scene = Scene::with_tags("daily");
    let store = scene.open(2);
    let id = *scene.ids.last().unwrap();
    // A doubt makes the next backup write everything, once.
    ops::distrust(&store, &[id]).unwrap();
    assert_eq!(store.revision(&id).unwrap().state.trust, Trust::Distrusted);
    let editor = scene.open(3);
    let image = SparseImage::of(&scene.images[0]);
    let edited = Once::new();
    let source_of_image = ImageSource::new(&image).with_hook(|_offset| {
        edited.call_once(|| {
            edit(&editor, &[id], &TagEdit::Add(words("manual:meanwhile"))).unwrap();
            ops::protect(&editor, &[id], true).unwrap();
        });
    });
    let options = BackupOptions { tags: words("daily"), ..BackupOptions::new(source()) };
    let healed = ops::backup(&store, &source_of_image, &options, &NoProgress).unwrap().id;
    assert!(edited.is_completed());
    let state = store.revision(&id).unwrap().state;
    assert_eq!(state.rewritten, Some(healed));
    assert_eq!((state.tags, state.protected), (words("daily manual:meanwhile"), true));
}

#[test]
fn edits_of_one_state_beside_each_other_are_all_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::create(&path, &options()).unwrap();
    let id = backup(&store, &images::image(1, 3000), "daily");
    let rounds = 40;
    thread::scope(|scope| {
        for writer in 0..3 {
            let path = &path;
            scope.spawn(move || {
                let store = Store::open(path).unwrap();
                for round in 0..rounds {
                    let tag = format!("manual:{writer}-{round}");
                    edit(&store, &[id], &TagEdit::Add(vec![tag])).unwrap();
                    edit(&store, &[id], &TagEdit::Remove(words("daily"))).unwrap();
                }
            });
        }
        scope.spawn(|| {
            let store = Store::open(&path).unwrap();
            for round in 0..rounds {
                ops::protect(&store, &[id], round % 2 == 0).unwrap();
            }
            ops::protect(&store, &[id], true).unwrap();
        });
        scope.spawn(|| {
            let store = Store::open(&path).unwrap();
            for _ in 0..rounds {
                let options = VerifyOptions::default();
                let stats = ops::verify(&store, &[id], &options, &NoProgress).unwrap();
                assert_eq!(stats.verified, [id]);
            }
        });
    });
    let state = store.revision(&id).unwrap().state;
    assert_eq!(state.tags.len(), 3 * rounds);
    assert!(state.protected && state.trust == Trust::Verified, "{state:?}");
}

/// Edits of history that are stopped and made to fail at every call.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Expire,
    Tags,
    Autoremove,
    Protect,
}

impl Edit {
    const ALL: [Self; 4] = [Self::Expire, Self::Tags, Self::Autoremove, Self::Protect];

    fn run(self, store: &Store, ids: &[RevisionId]) -> Result<(), Error> {
        match self {
            Self::Expire => match expire(store, &daily(3)) {
                Ok(_) => Ok(()),
                Err(ExpireError::Store(error)) => Err(error),
                Err(other) => panic!("{other:?}"),
            },
            Self::Tags => edit(store, ids, &TagEdit::Set(words("daily manual:new"))),
            Self::Autoremove => {
                let options = TagOptions { expect: None, autoremove: true };
                let remove = TagEdit::Remove(words("former"));
                ops::edit_tags(store, ids, &remove, &options).map(drop)
            }
            Self::Protect => ops::protect(store, ids, true).map(drop),
        }
    }

    /// Returns a store of which the edit changes some revisions and removes others.
    fn scene(self) -> Scene {
        let scene = match self {
            Self::Autoremove => Scene::with_tags("former"),
            _ => Scene::with_tags("daily former"),
        };
        let store = scene.open(2);
        edit(&store, &scene.ids[1..2], &TagEdit::Add(words("manual:old"))).unwrap();
        drop(store);
        scene.on(scene.vfs.kill())
    }
}

/// An edit, and the tags and protection of all revisions before and after it.
struct Prepared {
    edit: Edit,
    scene: Scene,
    before: States,
    after: States,
    mutations: u64,
    calls: u64,
}

impl Prepared {
    fn new(edit: Edit) -> Self {
        let scene = edit.scene();
        let before = scene.check(3);
        let whole = scene.on(scene.vfs.kill());
        let store = whole.open(4);
        let counts = || (whole.vfs.mutating_call_count(), whole.vfs.call_count());
        let at_first = counts();
        edit.run(&store, &whole.ids).unwrap();
        let at_last = counts();
        let after = whole.check(5);
        assert_ne!(before, after);
        let (mutations, calls) = (at_last.0 - at_first.0, at_last.1 - at_first.1);
        Self { edit, scene, before, after, mutations, calls }
    }

    /// Runs the edit under a plan, and looks at what is there after `aftermath`: every revision is as before or as after, and
    /// the same edit once more makes all of them as after.
    fn check(&self, plan: FaultPlan, aftermath: impl FnOnce(&SimulatedVfs) -> SimulatedVfs) {
        let interrupted = self.scene.on(self.scene.vfs.kill());
        let store = interrupted.open(6);
        interrupted.vfs.set_faults(plan);
        let result = self.edit.run(&store, &interrupted.ids);
        drop(store);
        let interrupted = interrupted.on(aftermath(&interrupted.vfs));
        let found = interrupted.check(7);
        if result.is_ok() {
            assert_eq!(found, self.after, "acknowledged, and not done");
        }
        for id in &interrupted.ids {
            let state = found.get(id);
            let is_known = state == self.before.get(id) || state == self.after.get(id);
            assert!(is_known, "{id} is neither as before nor as after: {state:?}");
        }
        let store = interrupted.open(8);
        let remaining: Vec<RevisionId> = found.keys().copied().collect();
        self.edit.run(&store, &remaining).unwrap();
        purge_now(&store).unwrap();
        assert_eq!(interrupted.check(9), self.after);
    }
}

#[test]
fn edit_that_stops_at_any_call_leaves_each_revision_as_before_or_as_after() {
    let modes: Vec<Option<CrashMode>> = CrashMode::all().map(Some).chain([None]).collect();
    let mut attempts = Attempts::default();
    for edit in Edit::ALL {
        let prepared = Prepared::new(edit);
        assert!(10 < prepared.mutations, "{edit:?} makes {} calls", prepared.mutations);
        for stop in 0..prepared.mutations {
            // 5 and the number of modes have no common divisor: all of them have their turn.
            let mode = modes[usize::try_from(stop * 5).unwrap() % modes.len()];
            let name = || format!("{edit:?}, stop {stop}, {mode:?}");
            attempts.attempt(name, || {
                prepared.check(FaultPlan::stop_at_mutation(stop), |vfs| {
                    mode.map_or_else(|| vfs.kill(), |mode| vfs.crash(&mode, stop))
                });
            });
        }
    }
    attempts.finish("interrupted edits");
}

#[test]
fn edit_that_fails_at_any_call_leaves_each_revision_as_before_or_as_after() {
    let mut attempts = Attempts::default();
    for edit in Edit::ALL {
        let prepared = Prepared::new(edit);
        let step = choose(3, 1);
        for (turn, call) in (0..prepared.calls).step_by(step).enumerate() {
            let kind = FaultKind::ALL[turn % FaultKind::ALL.len()];
            let name = || format!("{edit:?}, call {call}, {kind:?}");
            attempts.attempt(name, || {
                prepared.check(FaultPlan::fail_call(call, kind), SimulatedVfs::kill);
            });
        }
    }
    attempts.finish("failed edits");
}
