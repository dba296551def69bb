//! Which versions are kept.

use std::fs;
use std::time::Duration;

use chunkstore::format::{StoreConfig, Trust};
use chunkstore::ops::thin::{self, Candidates, ThinError, ThinOptions};
use chunkstore::ops::{self, BackupError, VerifyOptions};
use chunkstore::progress::{NoProgress, Progress};
use chunkstore::retention::Refusal;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::time::Timestamp;
use chunkstore::versions::PathFilter;
use support::memory_tree::{MemoryTree, backup_tree, files_at};
use support::simulated_store::{purge_now, verify_all};

use super::scene::{DAY, HOUR, SOURCE, Scene, chosen, content, gone_after, keep};

fn file(path: &str, seed: u64) -> (String, u64) {
    (path.to_owned(), seed)
}

#[test]
fn newest_contents_of_each_file_are_kept() {
    let mut scene = Scene::new();
    scene.day(&[("busy", 1), ("idle", 50), ("slow", 60)]);
    for seed in 2..6 {
        scene.day(&[("busy", seed)]);
    }
    scene.day(&[("busy", 6), ("slow", 61)]);
    let before = scene.revisions();
    let chunks = scene.chunks_after_purge();
    let stats = scene.thin(&keep(3));
    // Revision 1 keeps the old content of "slow" until the one before the last, which has it too, and so is the only one to keep it.
    let expected = vec![
        vec![file("busy", 4)],
        vec![file("busy", 5), file("slow", 60)],
        vec![file("busy", 6), file("idle", 50), file("slow", 61)],
    ];
    assert_eq!(scene.contents(), expected);
    assert_eq!(stats.removed, before[..3].iter().map(|it| it.record.id).collect::<Vec<_>>());
    let counts = stats.counts;
    assert_eq!((counts.thinned_revisions, counts.removed_revisions), (2, 3));
    assert_eq!((counts.files, counts.candidates, counts.dropped_versions), (3, 5, 3));
    assert_eq!(counts.dropped_entries, 12);
    assert!(scene.chunks_after_purge() < chunks);
    assert!(verify_all(&scene.store).unwrap().is_sound());
    // Once more there is nothing to do.
    let again = scene.thin(&keep(3));
    assert_eq!(
        (again.replaced.len(), again.removed.len(), again.counts.dropped_entries),
        (0, 0, 0)
    );
}

#[test]
fn thinned_revision_takes_the_place_of_the_complete_one() {
    let mut scene = Scene::new();
    let first = scene.day(&[("a", 1), ("b", 1)]);
    let _second = scene.day(&[("a", 2)]);
    ops::edit_tags(
        &scene.store,
        &[first],
        &ops::TagEdit::Add(vec!["monthly".to_owned()]),
        &ops::TagOptions::default(),
    )
    .unwrap();
    ops::verify(&scene.store, &[first], &VerifyOptions::default(), &NoProgress).unwrap();
    let before = scene.revisions();
    assert_eq!(before[0].state.trust, Trust::Verified);
    let options = ThinOptions { candidates: chosen(&[first]), ..keep(5) };
    let stats = scene.thin(&options);
    let after = scene.revisions();
    assert_eq!(after.len(), 2);
    let (old, new) = (&before[0].record, &after[0].record);
    assert_eq!(stats.replaced, [(old.id, new.id)]);
    assert_eq!((new.time, new.sequence, &new.source), (old.time, old.sequence, &old.source));
    assert_eq!(
        (new.parent, &new.origin, new.statistics),
        (old.parent, &old.origin, old.statistics)
    );
    assert_eq!((new.size, old.size), (9000, 18000));
    let thinned = new.thinned.unwrap();
    assert_eq!((thinned.from, thinned.complete_entries), (old.id, 2));
    assert_eq!(after[0].state.tags, ["monthly"]);
    assert_eq!(after[0].state.trust, Trust::Trusted);
    assert_eq!(after[1], before[1]);
    // Thinned again it still knows how many files there were.
    scene.day(&[("a", 3)]);
    scene.day(&[("a", 4)]);
    scene.write(&[("c", 1)]);
    scene.back_up();
    let all: Vec<_> = scene.revisions().iter().map(|it| it.record.id).collect();
    scene.thin(&ThinOptions { candidates: chosen(&all), ..keep(9) });
    let left = scene.revisions();
    assert_eq!(left[0].record.thinned.unwrap().complete_entries, 2);
    assert_eq!(scene.contents()[0], [file("a", 1)]);
}

#[test]
fn content_seen_before_costs_no_further_count() {
    let mut scene = Scene::new();
    for seed in [9, 1, 2, 1, 2, 1] {
        scene.day(&[("a", seed)]);
    }
    scene.thin(&keep(2));
    let seeds: Vec<u64> = scene.contents().iter().map(|files| files[0].1).collect();
    assert_eq!(seeds, [1, 2, 1, 2, 1]);
}

#[test]
fn one_place_of_a_version_is_enough_and_that_is_the_newest() {
    let mut scene = Scene::new();
    for _ in 0..4 {
        scene.day(&[("other", 1)]);
        scene.back_up();
    }
    scene.tree.remove("other");
    scene.day(&[("a", 7)]);
    // Nothing limits the versions.
    scene.thin(&ThinOptions::default());
    assert_eq!(scene.contents(), [vec![file("other", 1)], vec![file("a", 7)]]);
    let times: Vec<_> = scene.versions().iter().map(|file| file.versions()[0].since).collect();
    assert!(times[1] < times[0], "the version is as old as its first revision was");
}

#[test]
fn file_that_is_gone_is_kept_until_its_time_is_up() {
    let mut scene = Scene::new();
    scene.day(&[("gone", 1), ("live", 1)]);
    scene.tree.remove("gone");
    scene.back_up();
    // Last seen two days ago.
    let days = |count: u32| gone_after(DAY * count);
    let kept = |scene: &Scene| scene.seed_at("gone", None).is_some();
    let never = scene.thin(&keep(9));
    assert!(kept(&scene));
    assert_eq!(never.counts.gone_files, 0);
    scene.thin(&days(3));
    assert!(kept(&scene));
    let stats = scene.thin(&days(2));
    assert!(!kept(&scene));
    assert_eq!((stats.counts.gone_files, stats.counts.dropped_versions), (1, 1));
    assert_eq!(scene.contents(), [vec![file("live", 1)]]);
}

#[test]
fn file_that_is_gone_goes_at_once_if_that_is_wanted() {
    let mut scene = Scene::new();
    scene.day(&[("gone", 1), ("live", 1)]);
    scene.tree.remove("gone");
    scene.back_up();
    scene.thin(&gone_after(Duration::ZERO));
    assert_eq!(scene.contents(), [vec![file("live", 1)]]);
}

#[test]
fn age_of_what_is_gone_counts_from_when_it_was_last_seen_not_from_its_last_change() {
    let mut scene = Scene::new();
    scene.day(&[("idle", 1)]);
    for seed in 1..50 {
        scene.day(&[("busy", seed)]);
    }
    scene.tree.remove("idle");
    scene.back_up();
    scene.thin(&gone_after(DAY * 45));
    assert_eq!(scene.seed_at("idle", None), Some(1));
}

#[test]
fn idle_and_prefixed_live_files_are_never_purged() {
    let mut scene = Scene::new();
    scene.day(&[("idle.wsp", 1), ("prefix/carbon/idle.wsp", 2)]);
    for seed in 1..60 {
        scene.day(&[("busy.wsp", seed)]);
    }
    scene.tree.unreadable.insert("idle.wsp".to_owned());
    scene.tree.excluded.insert("prefix/carbon/idle.wsp".to_owned());
    scene.back_up();
    let options = ThinOptions { gone_after: Some(Duration::ZERO), ..keep(1) };
    scene.thin(&options);
    let newest = [file("busy.wsp", 59), file("idle.wsp", 1), file("prefix/carbon/idle.wsp", 2)];
    assert_eq!(scene.contents(), [newest.to_vec()]);
}

#[test]
fn failed_backup_expires_nothing() {
    let mut scene = Scene::new();
    for seed in 1..4 {
        scene.day(&[("a", seed), ("b", 10 + seed)]);
    }
    scene.thin(&keep(3));
    let before = scene.revisions();
    // Neither a tree that cannot be listed, nor one that is empty, nor a file that cannot be read pushes a version out.
    let whole = scene.tree.clone();
    scene.tree.is_broken = true;
    let failed = backup_tree(&scene.store, SOURCE, &scene.tree, &[]);
    assert!(matches!(failed, Err(BackupError::Source(_))));
    scene.tree = MemoryTree::default();
    let failed = backup_tree(&scene.store, SOURCE, &scene.tree, &[]);
    assert!(matches!(failed, Err(BackupError::Source(_))));
    let options = ThinOptions { gone_after: Some(Duration::ZERO), ..keep(3) };
    scene.thin(&options);
    assert_eq!(scene.revisions(), before);
    scene.tree = whole;
    scene.write(&[("a", 4)]);
    scene.tree.unreadable.extend(["a".to_owned(), "b".to_owned()]);
    scene.back_up();
    scene.thin(&options);
    let seeds = |path| -> Vec<u64> {
        let files = scene.contents().into_iter().flatten();
        files.filter(|(found, _)| found == path).map(|(_, seed)| seed).collect()
    };
    assert_eq!((seeds("a"), seeds("b")), (vec![1, 2, 3], vec![11, 12, 13]));
}

#[test]
fn old_versions_stay_and_expire_when_the_compression_is_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut tree = MemoryTree::default();
    let store = Store::create(&path, &StoreOptions::default()).unwrap();
    for seed in 1..4 {
        tree.write("a", &content(seed));
        backup_tree(&store, SOURCE, &tree, &[]).unwrap();
    }
    let file = path.join("store.json");
    let mut config = StoreConfig::decode(&fs::read(&file).unwrap()).unwrap();
    config.compression_level = 9;
    fs::write(&file, config.encode()).unwrap();
    let store = Store::open(&path).unwrap();
    tree.write("a", &content(4));
    backup_tree(&store, SOURCE, &tree, &[]).unwrap();
    let source = Scene::source();
    let stats = thin::plan(&store, &source, &keep(2)).unwrap().execute(&NoProgress).unwrap();
    assert_eq!(stats.removed.len(), 2);
    purge_now(&store).unwrap();
    let history = store.history(Some(&source)).unwrap();
    let date = history.revisions[1].record.time;
    assert_eq!(files_at(&store, SOURCE, Some(date)).unwrap()["a"], content(3));
    assert_eq!(files_at(&store, SOURCE, None).unwrap()["a"], content(4));
}

#[test]
fn plan_changes_nothing() {
    let mut scene = Scene::new();
    for seed in 1..5 {
        scene.day(&[("a", seed)]);
    }
    let before = scene.vfs.all_files();
    let options = ThinOptions { gone_after: Some(Duration::ZERO), ..keep(2) };
    let plan = thin::plan(&scene.store, &Scene::source(), &options).unwrap();
    assert_eq!(plan.expected().removed_revisions, 2);
    assert_eq!(plan.revisions().len(), 2);
    assert_eq!(plan.revisions()[0].files_before, 1);
    drop(plan);
    assert_eq!(scene.vfs.all_files(), before);
}

#[test]
fn files_that_are_not_meant_keep_everything() {
    let mut scene = Scene::new();
    for seed in 1..5 {
        scene.day(&[("a/x", seed), ("b/x", seed)]);
    }
    let filter = PathFilter::new(|path| path.is_below(b"a"));
    let stats = scene.thin(&ThinOptions { filter, ..keep(1) });
    assert_eq!(stats.counts.files, 1);
    let b = |seed| vec![file("b/x", seed)];
    assert_eq!(scene.contents()[..3], [b(1), b(2), b(3)]);
    assert_eq!(scene.contents()[3], [file("a/x", 4), file("b/x", 4)]);
}

#[test]
fn candidates_are_those_without_tags_or_without_these() {
    let mut scene = Scene::new();
    let tags: [&[&str]; 4] = [&["daily"], &["weekly", "daily"], &["manual:x"], &[]];
    for (seed, tags) in (1..).zip(tags) {
        scene.write(&[("a", seed)]);
        scene.back_up_with(tags);
    }
    scene.day(&[("a", 9)]);
    let expected = |scene: &Scene, candidates| {
        let options = ThinOptions { candidates, ..keep(1) };
        thin::plan(&scene.store, &Scene::source(), &options).unwrap().expected().removed_revisions
    };
    let without =
        |tags: &[&str]| Candidates::WithoutTags(tags.iter().map(|tag| (*tag).to_owned()).collect());
    assert_eq!(expected(&scene, Candidates::Untagged), 1);
    assert_eq!(expected(&scene, without(&["weekly"])), 2);
    assert_eq!(expected(&scene, without(&["daily", "weekly"])), 1);
    assert_eq!(expected(&scene, without(&[])), 3);
    let all: Vec<_> = scene.revisions().iter().map(|it| it.record.id).collect();
    assert_eq!(expected(&scene, chosen(&all)), 4);
}

#[test]
fn protected_and_newest_revisions_are_left_alone() {
    let mut scene = Scene::new();
    let first = scene.day(&[("a", 1)]);
    scene.day(&[("a", 2)]);
    scene.day(&[("a", 3)]);
    ops::protect(&scene.store, &[first], true).unwrap();
    let all: Vec<_> = scene.revisions().iter().map(|it| it.record.id).collect();
    scene.thin(&ThinOptions { candidates: chosen(&all), ..keep(1) });
    assert_eq!(scene.contents(), [vec![file("a", 1)], vec![file("a", 3)]]);
}

/// Protects a revision when thinning looks at the files, and forgets another one.
struct Meddler<'a> {
    store: &'a Store,
    protect: chunkstore::id::RevisionId,
    forget: chunkstore::id::RevisionId,
}

impl Progress for Meddler<'_> {
    fn advance(&self, _count: u64) {
        ops::protect(self.store, &[self.protect], true).unwrap();
    }

    fn end(&self) {
        ops::forget(self.store, &[self.forget]).unwrap();
    }
}

#[test]
fn revisions_that_somebody_changes_meanwhile_are_left_as_they_are() {
    let mut scene = Scene::new();
    let ids: Vec<_> = (1..5).map(|seed| scene.day(&[("a", seed), ("b", seed / 2)])).collect();
    let plan = thin::plan(&scene.store, &Scene::source(), &keep(1)).unwrap();
    let meddler = Meddler { store: &scene.store, protect: ids[0], forget: ids[1] };
    let stats = plan.execute(&meddler).unwrap();
    assert_eq!(stats.skipped, ids[..2]);
    assert_eq!(stats.removed, [ids[2]]);
    let left: Vec<_> = scene.revisions().iter().map(|it| it.record.id).collect();
    assert_eq!(left, [ids[0], ids[3]]);
}

#[test]
fn thinning_waits_for_no_backup_of_its_source() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1)]);
    let _lock = scene.store.lock_source(&Scene::source()).unwrap();
    let result = scene.try_thin(&keep(1));
    assert!(matches!(result, Err(ThinError::Store(chunkstore::error::Error::Locked { .. }))));
}

/// A clock that was set on, with nothing that would explain it; files are gone.
fn scene_with_a_jump() -> Scene {
    let mut scene = Scene::new();
    scene.day(&[("gone", 1), ("live", 1)]);
    for seed in 2..6 {
        scene.day(&[("live", seed)]);
    }
    scene.tree.remove("gone");
    scene.back_up();
    scene
}

#[test]
fn clock_that_looks_wrong_refuses_what_depends_on_it() {
    let scene = scene_with_a_jump();
    let options = gone_after(DAY * 300);
    let before = scene.revisions();
    scene.thin(&options);
    scene.clock.advance(DAY * 400);
    let plan = thin::plan(&scene.store, &Scene::source(), &options).unwrap();
    assert!(matches!(plan.refusals(), [Refusal::Pause { .. }]), "{:?}", plan.refusals());
    let result = plan.execute(&NoProgress);
    assert!(matches!(result, Err(ThinError::Refused { .. })), "{result:?}");
    assert_eq!(scene.seed_at("gone", None), Some(1));
    assert!(scene.revisions().len() <= before.len());
    // What does not depend on the clock is done.
    scene.thin(&keep(1));
    scene.thin(&ThinOptions { force: true, ..options });
    assert_eq!(scene.seed_at("gone", None), None);
}

#[test]
fn clock_that_was_put_back_refuses_what_depends_on_it() {
    let scene = scene_with_a_jump();
    let time = scene.revisions()[0].record.time;
    scene.clock.set(Timestamp(time.0 - i64::try_from(HOUR.as_millis()).unwrap()));
    let result = scene.try_thin(&gone_after(Duration::ZERO));
    let Err(ThinError::Refused { refusals, .. }) = result else { panic!("{result:?}") };
    assert!(matches!(refusals[..], [Refusal::FromTheFuture { .. }]), "{refusals:?}");
    assert_eq!(scene.seed_at("gone", None), Some(1));
}

#[test]
fn file_is_not_gone_because_a_thinned_revision_lacks_it() {
    let mut scene = Scene::new();
    scene.day(&[("gone", 1), ("live", 2)]);
    scene.tree.remove("gone");
    scene.day(&[("late", 5)]);
    scene.back_up();
    let newest = scene.day(&[("more", 6)]);
    // Two places of "late" and "live" go, because the newest revision has them.
    scene.thin(&keep(1));
    ops::forget(&scene.store, &[newest]).unwrap();
    // What is left are a thinned revision with "gone", and none that is complete.
    assert!(scene.revisions().iter().all(|it| it.record.thinned.is_some()));
    let before = scene.contents();
    scene.thin(&gone_after(Duration::ZERO));
    assert_eq!(scene.contents(), before);
    // The next backup tells what is there.
    scene.back_up();
    scene.thin(&gone_after(Duration::ZERO));
    assert_eq!(scene.seed_at("gone", None), None);
    assert_eq!(scene.seed_at("live", None), Some(2));
}

#[test]
fn history_goes_on_after_thinning() {
    let mut scene = Scene::new();
    for seed in 1..6 {
        scene.day(&[("a", seed), ("b", seed)]);
        scene.thin(&keep(3));
        purge_now(&scene.store).unwrap();
    }
    let sequences: Vec<u64> = scene.revisions().iter().map(|it| it.record.sequence).collect();
    assert_eq!(sequences, [3, 4, 5]);
    let parent = backup_tree(&scene.store, SOURCE, &scene.tree, &[]).unwrap();
    assert_eq!((parent.counts.unchanged, parent.counts.read), (2, 0));
}
