//! What the versions of files are.

use chunkstore::error::Error;
use chunkstore::time::Timestamp;
use chunkstore::versions::{PathFilter, Selection, Versions};
use support::memory_tree::{files_at, path};
use support::simulated_store::{backup, files_below};

use super::scene::{SOURCE, Scene, seed_of};

fn times(scene: &Scene) -> Vec<Timestamp> {
    scene.revisions().iter().map(|revision| revision.record.time).collect()
}

#[test]
fn unchanged_file_is_no_new_version() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1), ("b", 2)]);
    scene.day(&[("b", 3)]);
    scene.back_up();
    let times = times(&scene);
    let files = scene.versions();
    assert_eq!(files.len(), 2);
    let [a] = &files[0].versions()[..] else { panic!("{files:?}") };
    assert_eq!((a.since, a.len, a.is_current, a.last_seen), (times[0], 9000, true, times[2]));
    assert_eq!(a.revisions, [2, 1, 0]);
    let [new, old] = &files[1].versions()[..] else { panic!("{files:?}") };
    assert_eq!((new.since, new.is_current, &new.revisions[..]), (times[1], true, &[2, 1][..]));
    assert_eq!((old.since, old.is_current, old.last_seen), (times[0], false, times[0]));
}

#[test]
fn content_that_comes_back_is_a_version_of_its_own_and_costs_no_chunk() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1)]);
    scene.day(&[("a", 2)]);
    scene.write(&[("a", 1)]);
    let stats = support::memory_tree::backup_tree(&scene.store, SOURCE, &scene.tree, &[]).unwrap();
    assert_eq!((stats.counts.changed, stats.statistics.new_chunks), (1, 0));
    let versions = scene.versions()[0].versions();
    assert_eq!(versions.len(), 3);
    assert_eq!(versions[0].entry.content, versions[2].entry.content);
    assert!(versions[2].since < versions[1].since && versions[1].since < versions[0].since);
}

#[test]
fn selection_takes_the_newest_version_strictly_before_the_date() {
    let mut scene = Scene::new();
    for seed in 1..4 {
        scene.day(&[("a", seed)]);
    }
    let times = times(&scene);
    let at = |date| scene.seed_at("a", Some(date));
    assert_eq!(at(times[0]), None);
    assert_eq!(at(Timestamp(times[0].0 + 1)), Some(1));
    assert_eq!(at(times[1]), Some(1));
    assert_eq!(at(Timestamp(times[1].0 + 1)), Some(2));
    assert_eq!(at(times[2]), Some(2));
    assert_eq!(scene.seed_at("a", None), Some(3));
}

#[test]
fn selection_has_files_that_are_gone_and_counts_those_that_were_not_there_yet() {
    let mut scene = Scene::new();
    scene.day(&[("old", 1), ("both", 2)]);
    scene.tree.remove("old");
    scene.day(&[("new", 3)]);
    let now = files_at(&scene.store, SOURCE, None).unwrap();
    assert_eq!(now.keys().collect::<Vec<_>>(), ["both", "new", "old"]);
    let date = times(&scene)[1];
    let versions = Versions::open(&scene.store, &Scene::source(), PathFilter::all()).unwrap();
    let mut selection: Selection = versions.select(Some(date));
    let found: Vec<_> = selection.by_ref().map(|entry| entry.unwrap().path.to_string()).collect();
    assert_eq!(found, ["both", "old"]);
    assert_eq!(selection.without_version_count(), 1);
    assert!(selection.problems().is_empty());
}

#[test]
fn file_that_was_away_has_its_old_version_and_a_new_one() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1), ("b", 1)]);
    scene.tree.remove("a");
    scene.back_up();
    scene.day(&[("a", 1)]);
    let times = times(&scene);
    let versions = scene.versions()[0].versions();
    let since: Vec<_> = versions.iter().map(|version| version.since).collect();
    assert_eq!(since, [times[2], times[0]]);
    assert_eq!(scene.seed_at("a", Some(times[2])), Some(1));
}

#[test]
fn filter_leaves_other_files_out() {
    let mut scene = Scene::new();
    scene.day(&[("a/x", 1), ("b/x", 2), ("b/y", 3)]);
    let filter = PathFilter::new(|path| path.is_below(b"b"));
    let versions = Versions::open(&scene.store, &Scene::source(), filter).unwrap();
    let found: Vec<_> = versions.map(|file| file.unwrap().path).collect();
    assert_eq!(found, [path("b/x"), path("b/y")]);
}

#[test]
fn reader_goes_on_while_its_revisions_are_forgotten_and_purged() {
    let mut scene = Scene::new();
    let first = scene.day(&[("a", 1)]);
    let second = scene.day(&[("a", 2)]);
    let versions = Versions::open(&scene.store, &Scene::source(), PathFilter::all()).unwrap();
    chunkstore::ops::forget(&scene.store, &[first, second]).unwrap();
    support::simulated_store::purge_now(&scene.store).unwrap();
    let files: Vec<_> = versions.map(Result::unwrap).collect();
    assert_eq!(files[0].versions().len(), 2);
    assert!(files_below(&scene.vfs, "sessions").is_empty());
}

#[test]
fn damaged_page_of_one_revision_is_told_once_and_the_others_go_on() {
    let mut scene = Scene::new();
    // Enough files for several pages.
    let names: Vec<String> = (0..3000).map(|number| format!("file {number:04}")).collect();
    for name in &names {
        scene.tree.write(name, name.as_bytes());
    }
    scene.back_up();
    let before = files_below(&scene.vfs, "packs");
    for name in &names[..20] {
        scene.tree.write(name, b"other");
    }
    let second = scene.back_up();
    let third = scene.back_up();
    let page = super::doubt::damage_a_page(&scene, &before);
    let mut versions = Versions::open(&scene.store, &Scene::source(), PathFilter::all()).unwrap();
    let mut errors = Vec::new();
    let mut found = Vec::new();
    for file in versions.by_ref() {
        match file {
            Ok(file) => found.push(file),
            Err(error) => errors.push(error),
        }
    }
    assert!(matches!(&errors[..], [error] if error.is_damage()), "{errors:?}");
    let hit: Vec<_> = versions.problems().iter().map(|problem| problem.revision).collect();
    assert_eq!(hit, [second, third], "both have page {page}");
    // The first revision still tells of all files.
    assert_eq!(found.len(), names.len());
    let of_one = found.iter().filter(|file| file.occurrences.len() == 1).count();
    assert!(20 <= of_one && of_one < names.len(), "{of_one}");
}

#[test]
fn images_have_no_versions_of_files() {
    let scene = Scene::new();
    backup(&scene.store, SOURCE, b"an image").unwrap();
    let result = Versions::open(&scene.store, &Scene::source(), PathFilter::all());
    assert!(matches!(result, Err(Error::InvalidOption { .. })));
}

#[test]
fn selection_can_be_sent_to_a_thread() {
    let mut scene = Scene::new();
    scene.day(&[("a", 1)]);
    let versions = Versions::open(&scene.store, &Scene::source(), PathFilter::all()).unwrap();
    let selection = versions.select(None);
    let count = std::thread::spawn(move || selection.count()).join().unwrap();
    assert_eq!(count, 1);
    assert_eq!(seed_of(&super::scene::content(1)), 1);
}
