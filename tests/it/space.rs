//! Space of revisions: what the figures say, and what a purge frees then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chunkstore::error::Error;
use chunkstore::format::PackFooter;
use chunkstore::id::{ChunkId, RevisionId};
use chunkstore::ops::{self, RevisionSpace};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;
use support::images;
use support::simulated_store::{backup, create, files_below, open, purge_now};

fn spaces(store: &Store) -> BTreeMap<RevisionId, RevisionSpace> {
    let spaces = ops::space(store, &NoProgress).unwrap();
    spaces.into_iter().map(|space| (space.id, space)).collect()
}

/// Returns the stored bytes of each record of each pack.
fn records(vfs: &SimulatedVfs) -> BTreeMap<PathBuf, BTreeMap<ChunkId, u64>> {
    let of_pack = |path: PathBuf| {
        let bytes = vfs.read_all(&path).unwrap();
        let trailer = &bytes[bytes.len() - PackFooter::TRAILER_LEN..];
        let table = PackFooter::table_range(trailer, bytes.len() as u64).unwrap();
        let table = &bytes[usize::try_from(table.start).unwrap()..];
        let footer = PackFooter::decode(table, bytes.len() as u64).unwrap();
        let len = |record: &chunkstore::format::FooterRecord| u64::from(record.len_in_pack());
        let records = footer.records.iter().map(|record| (record.id, len(record)));
        (path, records.collect())
    };
    files_below(vfs, "packs").into_iter().map(of_pack).collect()
}

/// Returns the bytes of all records that these revisions need together: forgets the others in a copy of the store, then
/// one after the other, and adds up what each one alone had.
fn needed(vfs: &SimulatedVfs, ids: &BTreeSet<RevisionId>) -> u64 {
    let store = open(&vfs.kill(), 77).unwrap();
    let mut gone: Vec<RevisionId> = spaces(&store).into_keys().collect();
    gone.retain(|id| !ids.contains(id));
    ops::forget(&store, &gone).unwrap();
    let mut sum = 0;
    let mut left: Vec<RevisionId> = ids.iter().copied().collect();
    while let Some(id) = left.pop() {
        sum += spaces(&store)[&id].exclusive_bytes;
        ops::forget(&store, &[id]).unwrap();
    }
    sum
}

#[test]
fn exclusive_is_what_forget_and_purge_free() {
    // Each image shares nothing with the others, so what is freed are whole packs.
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let ids: Vec<RevisionId> =
        (1..5).map(|seed| backup(&store, "a", &images::image(seed, 9000)).unwrap().id).collect();
    for id in &ids {
        let space = spaces(&store)[id];
        assert_eq!(space.shared_bytes, 0);
        let before = records(&vfs);
        ops::forget(&store, &[*id]).unwrap();
        purge_now(&store).unwrap();
        let after = records(&vfs);
        let gone = before.iter().filter(|(path, _)| !after.contains_key(*path));
        let freed: u64 = gone.flat_map(|(_, records)| records.values()).sum();
        assert_eq!(space.exclusive_bytes, freed);
        assert!(0 < freed);
    }
    assert!(files_below(&vfs, "packs").is_empty());
}

#[test]
fn bytes_of_a_middle_revision_are_exclusive_until_they_come_back() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let common = images::image(1, 30_000);
    let with = |tail: &[u8]| [common.as_slice(), tail].concat();
    let own = images::image(2, 8000);
    let first = backup(&store, "a", &with(b"one")).unwrap();
    let middle = backup(&store, "a", &with(&own)).unwrap();
    let last = backup(&store, "a", &with(b"three")).unwrap();
    let found = spaces(&store);
    assert!(8000 / 2 < found[&middle.id].exclusive_bytes, "{found:?}");
    assert!(found[&first.id].exclusive_bytes < 4000 && found[&last.id].exclusive_bytes < 4000);
    for stats in [&first, &middle, &last] {
        assert!(15_000 < found[&stats.id].shared_bytes, "{found:?}");
        assert_eq!(found[&stats.id].new_bytes, stats.statistics.stored_bytes);
    }
    // Another source has the same bytes: nothing but the list of chunks is left to the middle one, and not even that.
    let other = backup(&store, "b", &with(&own)).unwrap();
    let found = spaces(&store);
    assert_eq!(found[&middle.id].exclusive_bytes, 0, "{found:?}");
    assert_eq!(found[&other.id].exclusive_bytes, 0, "{found:?}");
    assert_eq!(found[&middle.id].shared_bytes, found[&other.id].shared_bytes);
}

#[test]
fn figures_agree_with_forgetting_one_after_the_other() {
    for seed in 0..6 {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, seed).unwrap();
        let mut image = images::image(seed, 20_000);
        let mut numbers = images::Numbers::new(seed);
        let mut earlier = vec![image.clone()];
        for step in 0..7 {
            image = match numbers.below(4) {
                0 => earlier[numbers.below(earlier.len())].clone(),
                1 => image[..image.len() - 1000].to_vec(),
                _ => images::changed(&image, seed * 100 + step),
            };
            earlier.push(image.clone());
            backup(&store, ["a", "b", "c"][numbers.below(3)], &image).unwrap();
        }
        let found = spaces(&store);
        let all: BTreeSet<RevisionId> = found.keys().copied().collect();
        let total = needed(&vfs, &all);
        for (id, space) in &found {
            let rest: BTreeSet<RevisionId> = all.iter().copied().filter(|one| one != id).collect();
            assert_eq!(space.exclusive_bytes, total - needed(&vfs, &rest), "seed {seed}: {id}");
            let alone = needed(&vfs, &BTreeSet::from([*id]));
            assert_eq!(space.exclusive_bytes + space.shared_bytes, alone, "seed {seed}: {id}");
        }
        // Nothing is stored that no revision needs yet, so all records together are what all revisions need.
        let stored: u64 = records(&vfs).values().flat_map(BTreeMap::values).sum();
        assert_eq!(total, stored, "seed {seed}");
    }
}

#[test]
fn unreadable_page_makes_the_figures_unknown_and_is_named() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    backup(&store, "a", &images::image(1, 9000)).unwrap();
    drop(store);
    let packs = files_below(&vfs, "packs").into_iter();
    let lists = packs.min_by_key(|path| vfs.read_all(path).unwrap().len()).unwrap();
    vfs.flip(&lists, 200, 1).unwrap();
    let error = ops::space(&open(&vfs, 2).unwrap(), &NoProgress).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
}
