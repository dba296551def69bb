//! Doubt and proof: what makes a backup write everything again, and what takes a doubt away.

use std::path::PathBuf;

use chunkstore::error::Error;
use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, Recheck};
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{CallKind, Counter, Effect, FaultKind, FaultPlan, SimulatedVfs};
use support::images;
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
