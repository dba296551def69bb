//! Files that are too short or too long, that are gone, or that are directories.

use std::collections::BTreeSet;

use support::damage::{FileKind, Size, StoreAtRest};
use support::images::Numbers;
use support::long_tests::choose;

use super::super::{Depth, Tally, depth_of};
use super::{finder_of_absence, finder_of_content, put};

/// Every so many-th length is followed by all operations.
const STEP_OF_ALL: u64 = 8;

/// Cuts files of some kinds to each shorter length, or to some.
fn cut_all(is_wanted: impl Fn(FileKind) -> bool, what: &str) {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    for (turn, (path, kind, len)) in (0..).zip(store.files()) {
        if !is_wanted(kind) {
            continue;
        }
        let finders = [finder_of_content(&path, kind, &store)];
        let few = BTreeSet::from([[0, len / 2], [1, len - 1]][usize::try_from(turn % 2).unwrap()]);
        let few: Vec<u64> = few.into_iter().filter(|few| *few < len).collect();
        let step = usize::try_from(if kind == FileKind::Index { 997 } else { 1 }).unwrap();
        for new_len in choose(few, (0..len).step_by(step).collect()) {
            let is_deep = (turn + new_len) % STEP_OF_ALL == 0;
            let depth = if is_deep { Depth::All } else { Depth::Found };
            let name = || format!("{} cut to {new_len}", path.display());
            let seed = turn / STEP_OF_ALL + new_len;
            tally.check(&store, (name, kind), (&finders, depth, seed), |vfs| {
                vfs.truncate(&path, new_len).unwrap();
            });
        }
    }
    tally.finish(what);
}

#[test]
fn every_pack_that_is_cut_is_found() {
    cut_all(|kind| kind == FileKind::Pack, "packs that are cut");
}

#[test]
fn every_other_file_that_is_cut_is_found_or_harmless() {
    cut_all(|kind| kind != FileKind::Pack, "other files that are cut");
}

#[test]
fn every_file_that_is_extended_is_found_or_harmless() {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    for (turn, (path, kind, _)) in (0..).zip(store.files()) {
        let bytes = store.vfs.read_all(&path).unwrap();
        let mut noise = vec![0; 4096];
        Numbers::new(turn).fill(&mut noise, false);
        let tails: [(&str, &[u8]); 5] = [
            ("a zero", &[0]),
            ("zeros", &[0; 4096]),
            ("a line feed", b"\n"),
            ("noise", &noise),
            ("itself", &bytes),
        ];
        for (number, (tail, more)) in (0..).zip(tails) {
            if choose(turn % 5 != number, false) {
                continue;
            }
            let depth = depth_of(turn, STEP_OF_ALL);
            let finders = [finder_of_content(&path, kind, &store)];
            let name = || format!("{} extended by {tail}", path.display());
            tally.check(&store, (name, kind), (&finders, depth, turn + number), |vfs| {
                put(vfs, &path, &[&bytes[..], more].concat());
            });
        }
    }
    tally.finish("files that are extended");
}

#[test]
fn every_file_that_is_gone_is_found_or_harmless() {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    for (turn, (path, kind, _)) in (0..).zip(store.files()) {
        let finders = finder_of_absence(&path, kind, &store);
        for seed in choose(turn % 2..turn % 2 + 1, 0..2) {
            let depth = depth_of(turn, STEP_OF_ALL);
            let name = || format!("{} removed, seed {seed}", path.display());
            tally.check(&store, (name, kind), (&finders, depth, seed), |vfs| {
                vfs.remove(&path).unwrap();
            });
        }
    }
    tally.finish("files that are gone");
}

/// Whoever finds a directory where a file should be passes it over, as any name that means nothing, or says that the file is damaged.
#[test]
fn every_file_that_is_a_directory_is_found_or_harmless() {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    for (turn, (path, kind, _)) in (0..).zip(store.files()) {
        // What is listed is passed over if it is no file; what has a fixed name is read.
        let finders = match kind {
            FileKind::Index | FileKind::Lock => continue,
            FileKind::State | FileKind::Ledger => vec![finder_of_content(&path, kind, &store)],
            _ => finder_of_absence(&path, kind, &store),
        };
        let name = || format!("{} replaced by a directory", path.display());
        tally.check(&store, (name, kind), (&finders, Depth::Found, turn), |vfs| {
            vfs.remove(&path).unwrap();
            vfs.write_raw(path.join("file"), "something").unwrap();
        });
    }
    tally.finish("files that are directories");
}
