//! Two files change places.

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
    let files = store.files();
    let pairs = (0..files.len()).flat_map(|one| (one + 1..files.len()).map(move |two| (one, two)));
    for (turn, (one, two)) in pairs.enumerate() {
        let pair = [&files[one], &files[two]];
        let is_kin = pair[0].1 == pair[1].1;
        let step = choose(if is_kin { 13 } else { STEP_OF_SAMPLE }, 1);
        if turn % step != 0 {
            continue;
        }
        let finders: Vec<Finder> = if is_kin && pair[0].1 == FileKind::Pack {
            // All records can be found: a pack says itself what it holds.
            pair.iter().map(|(path, ..)| Finder::Misnamed(path.clone())).collect()
        } else if pair.map(|file| file.1) == [FileKind::Pack, FileKind::Trash] {
            // What is in `trash/` is a pack, too.
            vec![Finder::Replaced(pair[0].0.clone())]
        } else if pair.map(|file| file.1) == [FileKind::Index, FileKind::Pack] {
            // Nothing but the lists of the revisions says what was in the pack: a scrub names it, a verify the revisions.
            let index = finder_of_content(&pair[0].0, FileKind::Index, &store);
            vec![index, Finder::Replaced(pair[1].0.clone())]
        } else if pair[1].0 == pair[0].0.with_extension("state") {
            // Of a revision whose record is damaged, the history says no more.
            vec![finder_of_content(&pair[0].0, pair[0].1, &store)]
        } else {
            pair.iter().map(|(path, kind, _)| finder_of_content(path, *kind, &store)).collect()
        };
        let name = || format!("{} and {} swapped", pair[0].0.display(), pair[1].0.display());
        let depth = if turn % 4 == 0 { Depth::All } else { Depth::Found };
        let seed = (turn / step / 4) as u64;
        tally.check(&store, (name, pair[0].1), (&finders, depth, seed), |vfs| {
            let bytes = pair.map(|(path, ..)| store.vfs.read_all(path).unwrap());
            put(vfs, &pair[0].0, &bytes[1]);
            put(vfs, &pair[1].0, &bytes[0]);
        });
    }
    tally.finish("files that change places");
}
