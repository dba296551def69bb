//! Files under other plausible names, and older ones in the place of newer ones.

use std::path::{Path, PathBuf};

use chunkstore::ops;
use chunkstore::progress::NoProgress;
use support::damage::{FileKind, Finder, Size, StoreAtRest, backup_image, name_of};
use support::long_tests::choose;
use support::simulated_store::{STORE_PATH, files_below, purge_now};

use super::super::{Depth, Tally, depth_of, is_tried};
use super::{FORGOTTEN, put};

/// Returns the files of a kind.
fn files_of(store: &StoreAtRest, kind: FileKind) -> Vec<PathBuf> {
    let files = store.files().into_iter().filter(|(_, found, _)| *found == kind);
    files.map(|(path, ..)| path).collect()
}

/// A copy, where it is put, and who must find it.
type Case = (PathBuf, PathBuf, Finder);

fn cases(store: &StoreAtRest) -> Vec<Case> {
    let other_id = "0123456789abcdef0123456789abcdef";
    let other_digest = format!("{other_id}{other_id}");
    let root = Path::new(STORE_PATH);
    let mut cases = Vec::new();
    for path in files_of(store, FileKind::Pack) {
        let misnamed = root.join("packs/01").join(&other_digest);
        let misplaced = root.join("packs/02").join(path.file_name().unwrap());
        // What is in quarantine is so under the name of its pack.
        let has_damage = store.quarantined.iter().any(|(pack, _)| *pack == path);
        let more = Finder::Misnamed(misnamed.clone());
        let finder = if has_damage { Finder::FoundAgain } else { more };
        cases.push((path.clone(), misnamed, finder));
        cases.push((path, misplaced, Finder::Nobody("it is not where a pack of that name is")));
    }
    let records = files_of(store, FileKind::Record);
    for path in &records {
        let renamed = path.with_file_name(format!("{other_id}.rev"));
        let finder = Finder::HistoryOfRecord(other_id.parse().unwrap());
        cases.push((path.clone(), renamed, finder));
        for other in records.iter().filter(|other| other.parent() != path.parent()) {
            let moved = other.with_file_name(path.file_name().unwrap());
            cases.push((path.clone(), moved, Finder::Stray(name_of(path))));
        }
    }
    let states = files_of(store, FileKind::State);
    for (path, other) in states.iter().zip(states.iter().skip(1)) {
        cases.push((path.clone(), other.clone(), Finder::HistoryOfState(name_of(other))));
    }
    for path in files_of(store, FileKind::Condemned) {
        for generation in [1_u64, 77] {
            let renamed = path.with_file_name(format!("{generation:020}"));
            cases.push((path.clone(), renamed, Finder::Plan(generation)));
        }
    }
    for path in files_of(store, FileKind::Session) {
        let twice = path.with_file_name(other_id);
        cases.push((path, twice, Finder::Nobody("its process has ended")));
    }
    for path in files_of(store, FileKind::Quarantined) {
        let twice = path.with_file_name(&other_digest);
        cases.push((path, twice.clone(), Finder::NoteOfQuarantine(twice)));
    }
    for path in files_of(store, FileKind::GivenUp) {
        let twice = path.with_file_name(format!("given-up-{other_digest}"));
        cases.push((path, twice, Finder::Nobody("it says what is known")));
    }
    cases
}

#[test]
fn every_copy_under_another_name_is_found_or_harmless() {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    for (turn, (from, to, finder)) in (0..).zip(cases(&store)) {
        if !is_tried(turn, 5) {
            continue;
        }
        let kind = FileKind::of(&from);
        let name = || format!("{} also as {}", from.display(), to.display());
        let bytes = store.vfs.read_all(&from).unwrap();
        tally.check(&store, (name, kind), (&[finder], Depth::All, turn), |vfs| {
            put(vfs, &to, &bytes);
        });
    }
    tally.finish("copies under other names");
}

#[test]
fn index_of_another_store_costs_nothing() {
    let store = StoreAtRest::new(Size::SMALL);
    let other = StoreAtRest::new(Size::LARGE).vfs.read_all("/store/index.redb").unwrap();
    let mut tally = Tally::new();
    for seed in 0..2 {
        let name = || format!("the index of another store, seed {seed}");
        let finders = [Finder::Nobody("it says which store it is of")];
        tally.check(&store, (name, FileKind::Index), (&finders, Depth::All, seed), |vfs| {
            put(vfs, "/store/index.redb".as_ref(), &other);
        });
    }
    tally.finish("the index of another store");
}

/// Whatever is put back from an hour ago costs nothing of what was made since.
#[test]
fn older_files_in_the_place_of_newer_ones_cost_nothing() {
    let store = StoreAtRest::new(Size::SMALL);
    let later = later_store(&store);
    let mut tally = Tally::new();
    for (turn, (path, kind, _)) in (0..).zip(store.files()) {
        let old = store.vfs.read_all(&path).unwrap();
        if later.vfs.read_all(&path).is_ok_and(|new| new == old) {
            continue;
        }
        let finder = match kind {
            FileKind::Config => Finder::Nobody("it never changes"),
            // What was swept, and is back.
            FileKind::Pack | FileKind::Trash => Finder::Nobody("a pack more"),
            FileKind::Record => Finder::Absent(name_of(&path)),
            FileKind::State => Finder::Nobody("tags and trust as they were"),
            _ => Finder::Nobody("it is as old as it says"),
        };
        for seed in choose(turn % 2..turn % 2 + 1, 0..2) {
            let depth = depth_of(turn, 3);
            let name = || format!("{} as it was before, seed {seed}", path.display());
            let finders = std::slice::from_ref(&finder);
            tally.check(&later, (name, kind), (finders, depth, turn + seed), |vfs| {
                put(vfs, &path, &old);
            });
        }
    }
    tally.finish("older files put back");
}

/// Returns the store after some more life: states, lists, ledger and index have changed, packs are swept.
fn later_store(store: &StoreAtRest) -> StoreAtRest {
    let vfs = store.vfs.kill();
    let open = store.open(&vfs, 70).unwrap();
    let ids: Vec<_> = store.held.iter().map(|held| held.id).collect();
    ops::protect(&open, &ids, true).unwrap();
    purge_now(&open).unwrap();
    for held in &store.held {
        if let support::damage::Content::Image(image) = &held.content {
            backup_image(&open, held.source, image).unwrap();
        }
    }
    ops::scrub(&open, &ops::ScrubOptions::default(), &NoProgress).unwrap();
    drop(open);
    store.after(&vfs)
}

/// The record of a revision that was forgotten is put back: while its packs are there it is a revision again; once they are swept, it is
/// named, and stops no one else.
#[test]
fn forgotten_record_that_is_put_back_is_a_revision_or_is_named() {
    let store = StoreAtRest::new(Size::SMALL);
    let (record, bytes) = store.forgotten.clone();
    let mut tally = Tally::new();
    for seed in 0..2 {
        let name = || format!("a forgotten record while its packs are condemned, seed {seed}");
        let finders = [Finder::Nobody(FORGOTTEN)];
        tally.check(&store, (name, FileKind::Record), (&finders, Depth::All, seed), |vfs| {
            put(vfs, &record, &bytes);
        });
        let swept = store.vfs.kill();
        purge_now(&store.open(&swept, 71).unwrap()).unwrap();
        let swept = store.after(&swept);
        assert!(files_below(&swept.vfs, "packs").len() < store.records.len());
        let name = || format!("a forgotten record after its packs are swept, seed {seed}");
        let finders = [Finder::Absent(name_of(&record))];
        tally.check(&swept, (name, FileKind::Record), (&finders, Depth::All, seed), |vfs| {
            put(vfs, &record, &bytes);
        });
    }
    tally.finish("forgotten records put back");
}
