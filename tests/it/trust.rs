//! Doubt and proof: what makes a backup write everything again, and what takes a doubt away.

use std::path::PathBuf;
use std::sync::Mutex;

use chunkstore::error::Error;
use chunkstore::format::{PackHeader, PackKind, Trust};
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, Recheck, VerifyOptions, VerifyStats};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::Vfs;
use chunkstore::vfs::simulated::{CallKind, Counter, Effect, FaultKind, FaultPlan, SimulatedVfs};
use support::images;
use support::model_store::{ImageSource, SparseImage, try_backup};
use support::simulated_store::{backup, create, files_below, open, purge_now, restore, verify_all};

fn trust(store: &Store, id: RevisionId) -> Trust {
    store.revision(&id).unwrap().state.trust
}

fn trusts(store: &Store, ids: &[RevisionId]) -> Vec<Trust> {
    ids.iter().map(|id| trust(store, *id)).collect()
}

/// A store with three revisions of one source, each of which changes the end of the image, and the images.
fn three_revisions(vfs: &SimulatedVfs) -> (Store, Vec<RevisionId>, Vec<Vec<u8>>) {
    let store = create(vfs, 1).unwrap();
    let images: Vec<Vec<u8>> = (0..3)
        .map(|number| {
            let mut image = images::image(3, 8000);
            image[7900..].fill(number);
            image
        })
        .collect();
    let ids = images.iter().map(|image| backup(&store, "a", image).unwrap().id).collect();
    (store, ids, images)
}

/// Flips a bit in the first record of each of these packs.
fn damage(vfs: &SimulatedVfs, packs: &[PathBuf]) {
    for pack in packs {
        vfs.flip(pack, 80 + 56 + 10, 1).unwrap();
    }
}

/// Bytes of payload that were written to packs, and how many packs got their name.
fn pack_writes(vfs: &SimulatedVfs) -> usize {
    let is_pack = |path: &PathBuf| path.starts_with("/store/packs");
    let calls = vfs.calls();
    calls
        .iter()
        .filter(|call| {
            call.kind == CallKind::RenameNoReplace && call.to.as_ref().is_some_and(is_pack)
        })
        .count()
}

#[test]
fn distrust_is_all_or_nothing_and_says_what_changed() {
    let vfs = SimulatedVfs::new();
    let (store, ids, _) = three_revisions(&vfs);
    let unknown = RevisionId::from_bytes([7; RevisionId::LEN]);
    let error = ops::distrust(&store, &[ids[0], unknown]).unwrap_err();
    assert!(matches!(error, Error::NoSuchRevision { id } if id == unknown), "{error}");
    assert_eq!(trusts(&store, &ids), [Trust::Trusted; 3]);
    assert_eq!(ops::distrust(&store, &ids[..1]).unwrap().changed, ids[..1]);
    let stats = ops::distrust(&store, &ids).unwrap();
    assert_eq!((&stats.changed[..], &stats.unchanged[..]), (&ids[1..], &ids[..1]));
    assert_eq!(trusts(&store, &ids), [Trust::Distrusted; 3]);
}

#[test]
fn doubt_about_any_revision_writes_every_chunk_of_the_next_backup_once_again() {
    for place in 0..3 {
        let vfs = SimulatedVfs::new();
        let (store, ids, images) = three_revisions(&vfs);
        // A chunk of the middle that the image has twice is written once.
        let mut image = images[2].clone();
        image.extend_from_slice(&images[2]);
        let fresh = backup(&create(&SimulatedVfs::new(), 9).unwrap(), "a", &image).unwrap();
        ops::distrust(&store, &ids[place..=place]).unwrap();
        vfs.set_faults(FaultPlan::none());
        let stats = backup(&store, "a", &image).unwrap();
        assert_eq!(pack_writes(&vfs), 2, "one pack of data, one of lists");
        assert_eq!(stats.parent, None, "it is full");
        // As many writes as into an empty store: no chunk is left out, none is written twice.
        let written = |stats: &ops::BackupStats| {
            let numbers = stats.statistics;
            (numbers.new_chunks, numbers.new_bytes, numbers.stored_bytes, numbers.reused_chunks)
        };
        assert_eq!(written(&stats), written(&fresh));
        // Once: the next one is an ordinary backup again.
        vfs.set_faults(FaultPlan::none());
        let next = backup(&store, "a", &image).unwrap();
        assert_eq!((pack_writes(&vfs), next.statistics.new_chunks), (0, 0));
        assert_eq!(next.parent, Some(stats.id));
    }
}

#[test]
fn doubt_does_not_reach_other_sources() {
    let vfs = SimulatedVfs::new();
    let (store, ids, images) = three_revisions(&vfs);
    let other = backup(&store, "b", &images[0]).unwrap();
    ops::distrust(&store, &ids).unwrap();
    let next = backup(&store, "b", &images[0]).unwrap();
    assert_eq!((next.parent, next.statistics.new_chunks), (Some(other.id), 0));
    assert_ne!(backup(&store, "a", &images[0]).unwrap().statistics.new_chunks, 0);
}

#[test]
fn after_each_backup_the_newest_distrusted_revision_is_verified() {
    let vfs = SimulatedVfs::new();
    let (store, mut ids, images) = three_revisions(&vfs);
    ops::distrust(&store, &ids).unwrap();
    for doubtful in [2, 1, 0] {
        let stats = backup(&store, "a", &images[2]).unwrap();
        assert_eq!(stats.recheck, Some(Recheck { id: ids[doubtful], is_sound: true }));
        assert_eq!(trust(&store, ids[doubtful]), Trust::Verified);
        assert!(ids[..doubtful].iter().all(|id| trust(&store, *id) == Trust::Distrusted));
        ids.push(stats.id);
    }
    assert_eq!(backup(&store, "a", &images[2]).unwrap().recheck, None);
    assert_eq!(trusts(&store, &ids[3..]), [Trust::Trusted; 3], "nobody has read these");
}

#[test]
fn distrusted_revision_with_bytes_that_no_backup_has_again_becomes_damaged() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let (old, new) = (images::image(3, 8000), images::image(4, 8000));
    let first = backup(&store, "a", &old).unwrap().id;
    damage(&vfs, &files_below(&vfs, "packs"));
    ops::distrust(&store, &[first]).unwrap();
    let stats = backup(&store, "a", &new).unwrap();
    assert_eq!(stats.recheck, Some(Recheck { id: first, is_sound: false }));
    assert!(stats.warnings.iter().any(|warning| warning.contains("is damaged")), "{stats:?}");
    assert_eq!(trust(&store, first), Trust::Damaged);
    assert_eq!(restore(&store, &stats.id).unwrap(), new);
    // Damage is a doubt of its own, and has its effect once.
    assert_ne!(backup(&store, "a", &new).unwrap().statistics.new_chunks, 0);
    assert_eq!(backup(&store, "a", &new).unwrap().statistics.new_chunks, 0);
}

#[test]
fn doubt_that_has_had_its_effect_can_be_raised_again() {
    let vfs = SimulatedVfs::new();
    let (store, ids, images) = three_revisions(&vfs);
    ops::distrust(&store, &ids[..2]).unwrap();
    backup(&store, "a", &images[2]).unwrap();
    // The newer one was verified; the older one is distrusted still, without effect.
    assert_eq!(trusts(&store, &ids[..2]), [Trust::Distrusted, Trust::Verified]);
    for place in [0, 1] {
        assert_eq!(backup(&store, "a", &images[2]).unwrap().statistics.new_chunks, 0);
        assert_eq!(ops::distrust(&store, &ids[place..=place]).unwrap().changed, [ids[place]]);
        assert_ne!(backup(&store, "a", &images[2]).unwrap().statistics.new_chunks, 0);
    }
    // A damaged revision stays damaged, but the doubt counts.
    damage(&vfs, &files_below(&vfs, "packs"));
    assert!(!verify_all(&store).unwrap().is_sound());
    assert_eq!(trust(&store, ids[0]), Trust::Damaged);
    backup(&store, "a", &images[2]).unwrap();
    assert_eq!(ops::distrust(&store, &ids[..1]).unwrap().changed, ids[..1]);
    assert_eq!(trust(&store, ids[0]), Trust::Damaged);
    assert_ne!(backup(&store, "a", &images[2]).unwrap().statistics.new_chunks, 0);
}

#[test]
fn backup_that_fails_settles_no_doubt() {
    let vfs = SimulatedVfs::new();
    let (store, ids, images) = three_revisions(&vfs);
    ops::distrust(&store, &ids[..1]).unwrap();
    vfs.set_faults(FaultPlan::none());
    backup(&store, "a", &images[2]).unwrap();
    let mutations = vfs.mutating_call_count();
    assert!(mutations > 10);
    for call in (0..mutations).step_by(3) {
        let vfs = SimulatedVfs::new();
        let (store, ids, images) = three_revisions(&vfs);
        ops::distrust(&store, &ids[..1]).unwrap();
        vfs.set_faults(FaultPlan::none().and(
            Counter::Mutations,
            call,
            Effect::Fail(FaultKind::NoSpace),
        ));
        let is_made = backup(&store, "a", &images[2]).is_ok();
        vfs.set_faults(FaultPlan::none());
        drop(store);
        let store = open(&vfs, 20).unwrap();
        let state = store.revision(&ids[0]).unwrap().state;
        if !is_made {
            assert!(state.is_in_doubt(), "call {call}");
            assert_ne!(backup(&store, "a", &images[2]).unwrap().statistics.new_chunks, 0);
        }
        purge_now(&store).unwrap();
        assert_eq!(restore(&store, &ids[2]).unwrap(), images[2], "call {call}");
    }
}

/// Verifies revisions by default, or all of their data, and returns the packs of data that were read for it.
fn verify(
    vfs: &SimulatedVfs,
    store: &Store,
    ids: &[RevisionId],
    all_data: bool,
) -> (VerifyStats, Vec<PathBuf>) {
    vfs.set_faults(FaultPlan::none());
    let options = VerifyOptions { all_data, ..VerifyOptions::default() };
    let stats = ops::verify(store, ids, &options, &NoProgress).unwrap();
    let calls = vfs.calls();
    let reads = calls.iter().filter(|call| call.kind == CallKind::ReadExactAt);
    let mut read: Vec<PathBuf> = reads.map(|call| call.path.clone()).collect();
    read.sort();
    read.dedup();
    read.retain(|path| data_packs(vfs).contains(path));
    (stats, read)
}

/// Returns the packs that hold data, sorted.
fn data_packs(vfs: &SimulatedVfs) -> Vec<PathBuf> {
    let mut packs = files_below(vfs, "packs");
    packs.retain(|path| {
        let bytes = vfs.read_all(path).unwrap();
        PackHeader::decode(&bytes[..PackHeader::LEN]).unwrap().kind == PackKind::Data
    });
    packs
}

#[test]
fn verify_reads_what_no_verified_revision_proves_and_nothing_else() {
    let vfs = SimulatedVfs::new();
    let (store, ids, _) = three_revisions(&vfs);
    let (total, packs) = verify(&vfs, &store, &ids[2..], true);
    assert_eq!((total.proven_chunks, packs.len()), (0, 2), "{packs:?}");

    let vfs = SimulatedVfs::new();
    let (store, ids, images) = three_revisions(&vfs);
    let other_ids = [backup(&store, "b", &images[0]).unwrap().id];
    let (first, packs) = verify(&vfs, &store, &ids[..1], false);
    assert_eq!((first.proven_chunks, packs.len()), (0, 1), "nothing is proven yet");
    // The same image of another source: nothing is left to read, and it is verified all the same.
    let (stats, packs) = verify(&vfs, &store, &other_ids, false);
    assert_eq!((stats.checked_chunks, stats.proven_chunks), (0, first.checked_chunks));
    assert_eq!((&stats.verified[..], packs), (&other_ids[..], Vec::new()));
    assert_eq!(trust(&store, other_ids[0]), Trust::Verified);
    // The newest one needs a few chunks of its own.
    let (stats, packs) = verify(&vfs, &store, &ids[2..], false);
    assert_eq!(stats.checked_chunks + stats.proven_chunks, total.checked_chunks);
    assert!((3..=5).contains(&stats.checked_chunks), "{stats:?}");
    assert_eq!(packs.len(), 1);
    assert_eq!(stats.verified, ids[2..]);
    // Of all revisions only the one in the middle is left.
    let (stats, packs) = verify(&vfs, &store, &ids, false);
    assert_eq!((packs.len(), &stats.verified), (1, &ids));
    assert!((3..=5).contains(&stats.checked_chunks), "{stats:?}");
    assert_eq!(verify(&vfs, &store, &ids, false).1, Vec::<PathBuf>::new());
    let (stats, packs) = verify(&vfs, &store, &ids, true);
    assert_eq!((stats.proven_chunks, packs), (0, data_packs(&vfs)));
}

#[test]
fn proof_becomes_younger_only_by_reading_all_data() {
    let vfs = SimulatedVfs::new();
    let (store, ids, _) = three_revisions(&vfs);
    let time = || store.revision(&ids[0]).unwrap().state.verified;
    verify(&vfs, &store, &ids[..1], false);
    let first = time();
    assert!(first.is_some());
    verify(&vfs, &store, &ids, false);
    assert_eq!(time(), first);
    verify(&vfs, &store, &ids, true);
    assert!(first < time());
}

#[test]
fn chunk_that_was_written_again_after_the_proof_is_read() {
    let vfs = SimulatedVfs::new();
    let (store, ids, images) = three_revisions(&vfs);
    let other = backup(&store, "b", &images[2]).unwrap().id;
    verify(&vfs, &store, &[other], false);
    let old_packs = data_packs(&vfs);
    ops::distrust(&store, &ids[2..]).unwrap();
    let again = backup(&store, "a", &images[2]).unwrap().id;
    // This one was verified after the backup, and would prove the new packs.
    assert_eq!(trust(&store, ids[2]), Trust::Verified);
    ops::forget(&store, &ids[2..]).unwrap();
    let (stats, packs) = verify(&vfs, &store, &[again], false);
    assert_eq!(stats.proven_chunks, 0, "{stats:?}");
    assert!(!packs.is_empty() && packs.iter().all(|pack| !old_packs.contains(pack)), "{packs:?}");
    assert_eq!(stats.verified, [again]);
    // Now the other one is proven where its chunks are now.
    assert_eq!(verify(&vfs, &store, &[other], false).1, Vec::<PathBuf>::new());
}

#[test]
fn doubt_takes_older_proofs_back_until_it_is_answered() {
    let vfs = SimulatedVfs::new();
    let (store, ids, images) = three_revisions(&vfs);
    let other = backup(&store, "b", &images[2]).unwrap().id;
    verify(&vfs, &store, &[other], false);
    assert_eq!(verify(&vfs, &store, &[other], false).0.checked_chunks, 0);
    ops::distrust(&store, &ids[..1]).unwrap();
    // Neither the doubted revision nor another one is verified on the strength of the old proof.
    let (stats, packs) = verify(&vfs, &store, &ids[2..], false);
    assert_eq!((stats.proven_chunks, packs.len()), (0, 2));
    // This proof is younger than the doubt. It does not have all that the doubted revision needs.
    let (stats, packs) = verify(&vfs, &store, &ids[..1], false);
    assert!(stats.proven_chunks != 0 && packs.len() == 1, "{stats:?}");
    assert_eq!(trust(&store, ids[0]), Trust::Verified);
    assert_eq!(store.revision(&ids[0]).unwrap().state.doubted, None);
    // A doubt that is raised twice counts from the second time.
    ops::distrust(&store, &ids[1..2]).unwrap();
    verify(&vfs, &store, &ids[2..], true);
    assert_ne!(verify(&vfs, &store, &[other], false).0.proven_chunks, 0);
    assert_eq!(ops::distrust(&store, &ids[1..2]).unwrap().unchanged, ids[1..2]);
    assert_eq!(verify(&vfs, &store, &[other], false).0.proven_chunks, 0);
}

#[test]
fn rot_after_a_proof_is_found_by_reading_all_data_and_ends_every_proof_that_it_hits() {
    let vfs = SimulatedVfs::new();
    let (store, ids, images) = three_revisions(&vfs);
    let other = backup(&store, "b", &images[0]).unwrap().id;
    let apart = backup(&store, "c", &images::image(8, 5000)).unwrap().id;
    let all: Vec<RevisionId> = ids.iter().copied().chain([other, apart]).collect();
    assert_eq!(verify(&vfs, &store, &all, false).0.verified, all);
    let first = store.revision(&ids[0]).unwrap().record.root;
    assert_eq!(first, store.revision(&other).unwrap().record.root);
    let pack = verify(&vfs, &store, &ids[..1], true).1.remove(0);
    damage(&vfs, &[pack]);
    assert!(verify(&vfs, &store, &ids[1..2], false).0.is_sound(), "it was not looked at again");

    let (stats, _) = verify(&vfs, &store, &ids[1..2], true);
    assert_eq!(stats.damaged.len(), 1, "{:?}", stats.damaged);
    let mut hit: Vec<RevisionId> = stats.damaged[0].revisions.iter().map(|hit| hit.id).collect();
    hit.sort();
    let mut expected = all[..4].to_vec();
    expected.sort();
    assert_eq!(hit, expected, "those that were not named, too");
    assert_eq!(trusts(&store, &all), {
        let mut trusts = [Trust::Damaged; 5];
        trusts[4] = Trust::Verified;
        trusts
    });
    // No proof is left by which one of them would be called verified.
    for id in &all[..4] {
        let (stats, _) = verify(&vfs, &store, &[*id], false);
        assert!(!stats.is_sound() && stats.verified.is_empty(), "{stats:?}");
    }
}

#[test]
fn proof_is_as_old_as_the_oldest_backup_that_runs_beside_it() {
    let vfs = SimulatedVfs::new();
    let store = create(&vfs, 1).unwrap();
    let bytes = images::image(3, 8000);
    let id = backup(&store, "a", &bytes).unwrap().id;
    let image = SparseImage::of(&bytes);
    let times = Mutex::new(Vec::new());
    let source = ImageSource::new(&image).with_hook(|_| {
        let options = VerifyOptions { all_data: true, ..VerifyOptions::default() };
        for _ in 0..2 {
            ops::verify(&store, &[id], &options, &NoProgress).unwrap();
            times.lock().unwrap().push(store.revision(&id).unwrap().state.verified.unwrap());
        }
    });
    let running = try_backup(&store, "b", &source).unwrap().id;
    let times = std::mem::take(&mut *times.lock().unwrap());
    let during = times[0];
    // The clock goes on with each look at it. All of these have the time at which the backup registered.
    assert_eq!(times, vec![during; times.len()]);
    assert!(2 <= times.len() && store.revision(&running).unwrap().record.time < during);
    verify(&vfs, &store, &[id], true);
    assert!(during < store.revision(&id).unwrap().state.verified.unwrap());
}

#[test]
fn proof_of_a_copy_that_is_gone_does_not_count_for_an_older_copy() {
    for rebuilds in [false, true] {
        let vfs = SimulatedVfs::new();
        let (store, ids, images) = three_revisions(&vfs);
        let old_packs = data_packs(&vfs);
        ops::distrust(&store, &ids[2..]).unwrap();
        let again = backup(&store, "a", &images[2]).unwrap().id;
        verify(&vfs, &store, &[again], true);
        assert_eq!(verify(&vfs, &store, &[again], false).1, Vec::<PathBuf>::new());
        for pack in data_packs(&vfs).iter().filter(|pack| !old_packs.contains(pack)) {
            vfs.remove_file(pack).unwrap();
        }
        if rebuilds {
            vfs.remove_file(&store.index_path()).unwrap();
        }
        let (stats, packs) = verify(&vfs, &store, &[again], false);
        assert_eq!((stats.proven_chunks, packs), (0, old_packs), "rebuilds {rebuilds}");
        assert!(stats.is_sound());
    }
}
