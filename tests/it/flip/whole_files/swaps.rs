//! Two files change places.

use std::path::{Path, PathBuf};

use support::damage::{FileKind, Finder, Size, StoreAtRest};
use support::long_tests::choose;

use super::super::{Depth, Tally};
use super::{finder_of_content, put};

/// In the short form one pair of so many is tried.
const STEP_OF_SAMPLE: usize = 61;

#[test]
fn two_files_that_change_places_are_found_or_harmless() {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    let files: Vec<(PathBuf, FileKind)> =
        store.files().into_iter().map(|(path, kind, _)| (path, kind)).collect();
    let pairs = (0..files.len()).flat_map(|one| (one + 1..files.len()).map(move |two| (one, two)));
    for (turn, (one, two)) in pairs.enumerate() {
        let pair = [&files[one], &files[two]];
        let step = choose(if pair[0].1 == pair[1].1 { 13 } else { STEP_OF_SAMPLE }, 1);
        if turn % step == 0 {
            let depth = if turn % 4 == 0 { Depth::All } else { Depth::Found };
            swap(&store, &mut tally, pair, (depth, (turn / step / 4) as u64));
        }
    }
    tally.finish("files that change places");
}

/// A pack with a record in quarantine has another digest than its name says, and may still be another pack.
#[test]
fn pack_that_changes_places_with_one_whose_record_is_in_quarantine_is_found() {
    let store = StoreAtRest::new(Size::SMALL);
    let mut tally = Tally::new();
    let packs: Vec<&PathBuf> = store.records.keys().collect();
    assert!(!store.quarantined.is_empty());
    for (damaged, _) in &store.quarantined {
        for other in packs.iter().filter(|pack| **pack != damaged) {
            let pair = [damaged, *other].map(|path| (path.clone(), FileKind::Pack));
            swap(&store, &mut tally, pair.each_ref(), (Depth::Found, 0));
        }
    }
    tally.finish("packs that change places with one whose record is in quarantine");
}

/// Lets two files change places, and checks what comes of it.
fn swap(
    store: &StoreAtRest,
    tally: &mut Tally,
    pair: [&(PathBuf, FileKind); 2],
    (depth, seed): (Depth, u64),
) {
    let paths: [&Path; 2] = pair.map(|(path, _)| path.as_path());
    let bytes = paths.map(|path| store.vfs.read_all(path).unwrap());
    let finders: Vec<Finder> = if bytes[0] == bytes[1] {
        vec![Finder::Nobody("both have the same bytes")]
    } else {
        finders_of(store, pair)
    };
    let name = || format!("{} and {} swapped", paths[0].display(), paths[1].display());
    tally.check(store, (name, pair[0].1), (&finders, depth, seed), |vfs| {
        put(vfs, paths[0], &bytes[1]);
        put(vfs, paths[1], &bytes[0]);
    });
}

/// Returns who must find that two files have changed places.
fn finders_of(store: &StoreAtRest, pair: [&(PathBuf, FileKind); 2]) -> Vec<Finder> {
    let [(first, _), (second, _)] = pair;
    match pair.map(|(_, kind)| *kind) {
        // All records can be found: a pack says itself what it holds.
        [FileKind::Pack, FileKind::Pack] => {
            [first, second].map(|path| Finder::Misnamed(path.clone())).into()
        }
        // What is in `trash/` is a pack, too.
        [FileKind::Pack, FileKind::Trash] => vec![Finder::Replaced(first.clone())],
        // Nothing but the lists of the revisions says what was in the pack: a scrub names it, a verify the revisions.
        [FileKind::Index, FileKind::Pack] => {
            let index = finder_of_content(first, FileKind::Index, store);
            vec![index, Finder::Replaced(second.clone())]
        }
        // Of a revision whose record is damaged, the history says no more.
        [kind, _] if *second == first.with_extension("state") => {
            vec![finder_of_content(first, kind, store)]
        }
        _ => pair.iter().map(|(path, kind)| finder_of_content(path, *kind, store)).collect(),
    }
}
