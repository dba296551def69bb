//! Damage that a store meets in real life, what it says about it, and how it heals.

use std::path::PathBuf;

use chunkstore::error::{Error, ObjectName};
use chunkstore::format::{
    ObjectKind, PackFooter, RecordHeader, Trust, decode_document, encode_document,
};
use chunkstore::id::{ChunkId, PackId, RevisionId};
use chunkstore::ops::{self, VerifyOptions};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{CallKind, Counter, Effect, FaultKind, FaultPlan, SimulatedVfs};
use support::images;
use support::model::{Model, check_store};
use support::simulated_store::{
    backup, create, describe, files_below, open, purge_now, restore, verify_all,
};

const INDEX: &str = "/store/index.redb";

/// Returns the file that has the data chunk of these bytes, its pack, and where in the file its payload begins.
fn find_chunk(vfs: &SimulatedVfs, id: &ChunkId) -> Vec<(PathBuf, PackId, u64)> {
    let mut found = Vec::new();
    for path in files_below(vfs, "packs") {
        let bytes = vfs.read_all(&path).unwrap();
        let Some(trailer) = bytes.len().checked_sub(PackFooter::TRAILER_LEN) else { continue };
        let len = bytes.len() as u64;
        let Ok(table) = PackFooter::table_range(&bytes[trailer..], len) else { continue };
        let footer = PackFooter::decode(&bytes[usize::try_from(table.start).unwrap()..], len);
        for record in footer.unwrap().records.iter().filter(|record| record.id == *id) {
            let pack = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let offset = u64::from(record.offset.0) + RecordHeader::LEN as u64;
            found.push((path.clone(), pack, offset));
        }
    }
    found
}

fn trust(store: &Store, id: &RevisionId) -> Trust {
    store.revision(id).unwrap().state.trust
}

/// An image whose first chunk is the same in all variants, and which ends differently in each.
fn variant(number: u8) -> Vec<u8> {
    let mut image = images::image(3, 8000);
    let len = image.len();
    image[len - 100..].fill(number);
    image
}

/// Returns the first chunk of a revision with its length.
fn first_chunk(store: &Store, id: &RevisionId, image: &[u8]) -> (ChunkId, u64) {
    let reader = chunkstore::image_reader::ImageReader::open(store, id).unwrap();
    let extents = reader.extents(0, image.len() as u64).unwrap();
    let chunkstore::image_reader::Extent::Data { range, id } = &extents[0] else {
        panic!("the image begins with data");
    };
    let len = usize::try_from(range.end).unwrap();
    assert_eq!(ObjectKind::Data.chunk_id(&image[..len]), *id);
    (*id, range.end)
}

#[test]
fn missing_pack_is_named_costs_only_what_it_holds_and_heals_with_the_next_backup() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let (image, other) = (images::image(3, 8000), images::image(4, 8000));
    let id = backup(&store, "a", &image).unwrap().id;
    let healthy = backup(&store, "b", &other).unwrap().id;
    let (chunk, _) = first_chunk(&store, &id, &image);
    drop(store);
    let vfs = vfs.kill();
    let [(path, pack, _)] = &find_chunk(&vfs, &chunk)[..] else { panic!("one copy") };
    vfs.remove(path).unwrap();

    let store = open(&vfs, 2).unwrap();
    let error = restore(&store, &id).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{}", describe(&error));
    assert_eq!(restore(&store, &healthy).unwrap(), other);
    let stats = verify_all(&store).unwrap();
    assert!(!stats.damaged.is_empty());
    for damaged in &stats.damaged {
        assert_eq!(damaged.revisions.len(), 1);
        assert_eq!(damaged.revisions[0].id, id);
    }
    assert_eq!((trust(&store, &id), trust(&store, &healthy)), (Trust::Damaged, Trust::Verified));

    // A purge keeps what is left, and does not make it worse.
    purge_now(&store).unwrap();
    let warned = backup(&store, "a", &image).unwrap();
    assert!(0 < warned.statistics.new_chunks);
    assert_eq!(restore(&store, &id).unwrap(), image, "the older revision is healed");
    assert!(verify_all(&store).unwrap().is_sound());
    assert_eq!(trust(&store, &id), Trust::Verified);
    assert!(!files_below(&vfs, "packs").contains(path));
    assert_ne!(find_chunk(&vfs, &chunk)[0].1, *pack);
}

#[test]
fn missing_pack_is_named_by_verify_and_restore() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let image = images::image(3, 8000);
    let id = backup(&store, "a", &image).unwrap().id;
    let (chunk, _) = first_chunk(&store, &id, &image);
    let (path, pack, _) = find_chunk(&vfs, &chunk).remove(0);
    let stats = {
        vfs.remove(&path).unwrap();
        verify_all(&store).unwrap()
    };
    let found = stats.damaged.iter().find(|damaged| damaged.chunk == chunk).unwrap();
    assert_eq!(found.pack, Some(pack), "the pack that is missing is named: {}", found.reason);
    let error = restore(&open(&vfs, 2).unwrap(), &id).unwrap_err();
    let Error::Missing { object: ObjectName::Chunk { pack: named, .. } } = &error else {
        panic!("{}", describe(&error));
    };
    assert_eq!(*named, Some(pack));
}

#[test]
fn damaged_chunk_of_three_revisions_is_named_with_all_of_them_and_heals() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let ids: Vec<RevisionId> =
        (1..4).map(|number| backup(&store, "a", &variant(number)).unwrap().id).collect();
    let other = backup(&store, "b", &images::image(9, 4000)).unwrap().id;
    let (chunk, len) = first_chunk(&store, &ids[0], &variant(1));
    let (path, pack, payload) = find_chunk(&vfs, &chunk).remove(0);
    vfs.flip(&path, payload + 3, 0x10).unwrap();

    let error = restore(&store, &ids[0]).unwrap_err();
    let Error::Damaged { object: ObjectName::Chunk { id, pack: named }, .. } = &error else {
        panic!("{}", describe(&error));
    };
    assert_eq!((*id, *named), (chunk, Some(pack)));

    let stats = verify_all(&store).unwrap();
    let [damaged] = &stats.damaged[..] else { panic!("{:?}", stats.damaged) };
    assert_eq!((damaged.chunk, damaged.pack), (chunk, Some(pack)));
    assert_eq!(damaged.revisions.len(), 3);
    for revision in &damaged.revisions {
        assert!(ids.contains(&revision.id));
        assert_eq!(revision.ranges, [(0, len)]);
    }
    assert!(ids.iter().all(|id| trust(&store, id) == Trust::Damaged));
    assert_eq!(trust(&store, &other), Trust::Verified);

    let healed = backup(&store, "a", &variant(3)).unwrap();
    assert_eq!((healed.parent, healed.statistics.new_chunks), (Some(ids[2]), 1), "only that one");
    assert_eq!(healed.healed.len(), 3);
    let check = |store: &Store, when: &str| {
        for (number, id) in (1..).zip(&ids) {
            let bytes = restore(store, id).unwrap_or_else(|error| panic!("{when}: {error}"));
            assert!(bytes == variant(number), "{when}");
        }
    };
    check(&store, "after the next backup");
    assert!(verify_all(&store).unwrap().is_sound());
    assert!(ids.iter().all(|id| trust(&store, id) == Trust::Verified));

    // The damaged copy is still in its pack. It must not come back with a new index, in whatever order packs are read.
    let new_index = vfs.kill();
    new_index.remove(INDEX).unwrap();
    check(&open(&new_index, 5).unwrap(), "with a new index");
    ops::rebuild_index(&store, &NoProgress).unwrap();
    check(&store, "after a rebuild");
    purge_now(&store).unwrap();
    check(&store, "after a purge");
}

#[test]
fn healed_chunk_stays_healed_whatever_the_names_of_packs() {
    // Names of packs are digests, so which one is read first is up to the seed.
    for seed in 10..26 {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, seed).unwrap();
        let image = variant(1);
        let id = backup(&store, "a", &image).unwrap().id;
        let (chunk, _) = first_chunk(&store, &id, &image);
        let (path, _, payload) = find_chunk(&vfs, &chunk).remove(0);
        vfs.flip(&path, payload, 1).unwrap();
        assert!(!verify_all(&store).unwrap().is_sound());
        backup(&store, "a", &image).unwrap();
        vfs.remove(INDEX).unwrap();
        assert_eq!(restore(&store, &id).unwrap(), image, "seed {seed}");
    }
}

/// Returns a store with two revisions, and their model.
fn two_revisions() -> (SimulatedVfs, Model) {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    model.backup(&store, "a", &variant(1)).unwrap();
    model.backup(&store, "b", &images::image(8, 5000)).unwrap();
    drop(store);
    (vfs.kill(), model)
}

#[test]
fn index_that_is_garbage_gone_cut_or_of_another_store_is_made_again_without_a_word() {
    let (vfs, model) = two_revisions();
    let own = vfs.read_all(INDEX).unwrap();
    let foreign = {
        let vfs = SimulatedVfs::new();
        backup(&create(&vfs, 99).unwrap(), "x", &variant(5)).unwrap();
        vfs.read_all(INDEX).unwrap()
    };
    let stale = {
        let vfs = SimulatedVfs::new();
        drop(create(&vfs, 1).unwrap());
        vfs.read_all(INDEX).unwrap()
    };
    let mut noise = vec![0; own.len()];
    images::Numbers::new(5).fill(&mut noise, false);
    let cases: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("gone", None),
        ("empty", Some(Vec::new())),
        ("text", Some(b"this is no database".to_vec())),
        ("noise", Some(noise)),
        ("zeros", Some(vec![0; 1 << 20])),
        ("half", Some(own[..own.len() / 2].to_vec())),
        ("one byte short", Some(own[..own.len() - 1].to_vec())),
        ("of another store", Some(foreign)),
        ("older", Some(stale)),
    ];
    for (turn, (case, bytes)) in cases.into_iter().enumerate() {
        for seed in [100, 101] {
            let vfs = vfs.kill();
            match &bytes {
                Some(bytes) => vfs.write_raw(INDEX, bytes.clone()).unwrap(),
                None => vfs.remove(INDEX).unwrap(),
            }
            println!("index {case}");
            check_store(&vfs, &model, seed + 2 * turn as u64);
        }
    }
}

#[test]
fn damaged_condemned_list_costs_nothing_and_the_generation_does_not_fall() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let mut model = Model { is_created: true, ..Model::default() };
    model.backup(&store, "a", &variant(1)).unwrap();
    let gone = model.backup(&store, "b", &images::image(8, 5000)).unwrap();
    model.forget(&store, gone).unwrap();
    let plan = ops::purge::plan(&store, &ops::purge::PurgeOptions::default(), &NoProgress).unwrap();
    assert_eq!(plan.execute(&NoProgress).unwrap().condemned_packs, 2);
    let list = files_below(&vfs, "condemned").remove(0);
    vfs.flip(&list, 20, 0xff).unwrap();
    for seed in [10, 11] {
        let vfs = vfs.kill();
        check_store(&vfs, &model, seed);
        let lists = files_below(&vfs, "condemned");
        assert!(lists.last().is_some_and(|newest| *newest > list), "{lists:?}");
        assert_eq!(files_below(&vfs, "quarantine").len(), 1);
    }
}

#[test]
fn newer_format_is_refused_and_nothing_is_written() {
    let (vfs, _) = two_revisions();
    let magic = "chunkstore store";
    let config = vfs.read_all("/store/store.json").unwrap();
    let body: serde_json::Value = decode_document(magic, 1, &config).unwrap();
    vfs.write_raw("/store/store.json", encode_document(magic, 2, &body)).unwrap();
    let contents = |vfs: &SimulatedVfs| -> Vec<_> {
        let files = vfs.all_files().into_iter();
        files.map(|(path, _)| (path.clone(), vfs.read_all(&path).unwrap())).collect()
    };
    let before = contents(&vfs);
    vfs.set_faults(FaultPlan::none());
    let error = open(&vfs, 2).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFormat { found: 2, .. }), "{}", describe(&error));
    assert!(matches!(create(&vfs, 3), Err(Error::CannotCreate { .. })));
    assert_eq!(vfs.mutating_call_count(), 0);
    assert!(contents(&vfs) == before);
}

/// Every call that changes something fails as on a medium that is mounted read-only.
fn read_only(kind: FaultKind) -> FaultPlan {
    (0..4000).fold(FaultPlan::none(), |plan, call| {
        plan.and(Counter::Mutations, call, Effect::Fail(kind))
    })
}

#[test]
fn store_that_cannot_be_written_restores_and_verifies() {
    let (vfs, model) = two_revisions();
    for kind in [FaultKind::ReadOnly, FaultKind::Access, FaultKind::NoSpace, FaultKind::Quota] {
        for index in ["sound", "gone", "noise", "unknowing"] {
            let vfs = vfs.kill();
            match index {
                "gone" => vfs.remove(INDEX).unwrap(),
                "noise" => vfs.write_raw(INDEX, vec![7; 5000]).unwrap(),
                "unknowing" => {
                    let other = SimulatedVfs::new();
                    drop(create(&other, 1).unwrap());
                    vfs.write_raw(INDEX, other.read_all(INDEX).unwrap()).unwrap();
                }
                _ => {}
            }
            vfs.set_faults(read_only(kind));
            let store = open(&vfs, 2).unwrap();
            let ids: Vec<RevisionId> = model.acknowledged.keys().copied().collect();
            for (id, expected) in &model.acknowledged {
                let bytes = restore(&store, id).unwrap_or_else(|error| {
                    panic!("{kind:?}, index {index}: {}", describe(&error))
                });
                assert!(bytes == expected.bytes());
            }
            let stats = ops::verify(&store, &ids, &VerifyOptions::default(), &NoProgress).unwrap();
            assert!(stats.is_sound(), "{kind:?}, index {index}: {:?}", stats.damaged);
            assert!(stats.verified.is_empty(), "nothing can be noted");
            let error = backup(&store, "a", &variant(9)).unwrap_err();
            assert!(matches!(error, Error::Storage { .. }), "{}", describe(&error));
        }
    }
}

#[test]
fn damaged_chunk_on_a_read_only_medium_is_reported_as_damage() {
    let (vfs, model) = two_revisions();
    let store = open(&vfs, 2).unwrap();
    let id = *model.acknowledged.iter().find(|(_, expected)| expected.source == "a").unwrap().0;
    let (chunk, _) = first_chunk(&store, &id, &variant(1));
    let (path, _, _) = find_chunk(&vfs, &chunk).remove(0);
    vfs.remove(&path).unwrap();
    vfs.set_faults(read_only(FaultKind::ReadOnly));
    let store = open(&vfs, 3).unwrap();
    let error = restore(&store, &id).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{}", describe(&error));
    assert!(!verify_all(&store).unwrap().is_sound());
}

/// Longer than any record, state or other document.
const TOO_LONG: u64 = 2 << 20;

#[test]
fn record_or_state_that_is_too_long_costs_its_revision_and_stops_nothing_else() {
    for (end, is_lost) in [("rev", true), ("state", false)] {
        let (vfs, model) = two_revisions();
        let ids: Vec<RevisionId> = model.acknowledged.keys().copied().collect();
        let store = open(&vfs, 2).unwrap();
        ops::protect(&store, &ids, true).unwrap();
        let is_hit = |path: &&PathBuf| path.to_str().unwrap().contains("revisions/a/");
        let mut files = files_below(&vfs, "revisions");
        files.retain(|path| is_hit(&path) && path.extension().unwrap() == end);
        vfs.truncate(&files[0], TOO_LONG).unwrap();

        let history = store.history(None).unwrap();
        assert_eq!(history.revisions.len(), if is_lost { 1 } else { 2 });
        assert_eq!(history.damaged.len(), 1);
        assert!(history.damaged[0].is_damage(), "{}", describe(&history.damaged[0]));
        for (id, expected) in &model.acknowledged {
            let is_hit = is_lost && expected.source == "a";
            assert_eq!(restore(&store, id).is_err(), is_hit, "{end} of {}", expected.source);
        }
        assert_eq!(purge_now(&store).is_err(), is_lost, "what a lost record needs is unknown");
        let plan = ops::repair::plan(&store, &NoProgress).unwrap();
        let stats = plan.execute(&NoProgress).unwrap();
        let moved = stats.moved_records.len() + stats.replaced_states.len();
        assert_eq!(moved, 1, "{stats:?}");
        assert!(store.history(None).unwrap().damaged.is_empty());
        purge_now(&store).unwrap();
    }
}

#[test]
fn record_in_the_directory_of_another_source_hides_nothing() {
    let (vfs, model) = two_revisions();
    let found = model.acknowledged.iter().find(|(_, expected)| expected.source == "b");
    let (id, expected) = found.unwrap();
    let mut files = files_below(&vfs, "revisions");
    files.retain(|path| path.ends_with(format!("{id}.rev")));
    let stray = PathBuf::from(format!("/store/revisions/a/{id}.rev"));
    vfs.write_raw(&stray, vfs.read_all(&files[0]).unwrap()).unwrap();

    let store = open(&vfs, 2).unwrap();
    assert_eq!(store.history(None).unwrap().damaged.len(), 1);
    assert_eq!(store.revision(id).unwrap().record.source.as_str(), "b");
    assert!(restore(&store, id).unwrap() == expected.bytes());
    ops::protect(&store, &[*id], true).unwrap();
    assert!(matches!(ops::forget(&store, &[*id]), Err(Error::Protected { .. })));
    assert!(vfs.read_all(&stray).is_ok() && vfs.read_all(&files[0]).is_ok());
    let plan = ops::repair::plan(&store, &NoProgress).unwrap();
    assert_eq!(plan.execute(&NoProgress).unwrap().moved_records.len(), 1);
    assert!(vfs.read_all(&stray).is_err() && vfs.read_all(&files[0]).is_ok());
    assert!(restore(&store, id).unwrap() == expected.bytes());
}

#[test]
fn list_that_is_not_as_long_as_it_says_is_refused_before_memory_is_taken_for_it() {
    let (vfs, model) = two_revisions();
    let ledger = PathBuf::from("/store/ledger");
    verify_all(&open(&vfs, 2).unwrap()).unwrap();
    let mut long = vfs.read_all(&ledger).unwrap();
    long.resize(usize::try_from(TOO_LONG).unwrap(), 0);
    let list = PathBuf::from("/store/condemned/00000000000000000007");
    for content in [vec![0; long.len()], long] {
        let vfs = vfs.kill();
        vfs.write_raw(&list, content.clone()).unwrap();
        vfs.write_raw(&ledger, content).unwrap();
        let store = open(&vfs, 3).unwrap();
        let plan = ops::repair::plan(&store, &NoProgress).unwrap();
        assert_eq!(plan.expected().condemned_lists, [7]);
        assert!(verify_all(&store).unwrap().is_sound());
        check_store(&vfs, &model, 4);
        let is_read = |call: &&chunkstore::vfs::simulated::Call| {
            call.kind == CallKind::ReadExactAt && (call.path == list || call.path == ledger)
        };
        let longest = vfs.calls().iter().filter(is_read).map(|call| call.len).max();
        assert!(longest.is_some_and(|len| len < 1000), "{longest:?}");
    }
}
