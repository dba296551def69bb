//! What must be true of a store after every schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chunkstore::error::{Error, Result};
use chunkstore::id::RevisionId;
use chunkstore::ops;
use chunkstore::store::Store;
use chunkstore::vfs::Vfs;
use chunkstore::vfs::simulated::SimulatedVfs;

use crate::explorer::EndCheck;
use crate::model::{Expected, Model};
use crate::simulated_store::{backup, describe, files_below, open, purge_now, verify_all};

/// Seed of the environment in which the store is looked at.
const SEED: u64 = 77;

/// What operations beside each other were told, and are on their way to.
#[derive(Debug, Default)]
pub struct Truth {
    known: Mutex<Known>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: BTreeMap<RevisionId, Expected>,
    /// Of these nothing is known: somebody may forget them, or has.
    going: BTreeMap<RevisionId, Expected>,
    in_flight: Vec<Expected>,
}

impl Clone for Truth {
    fn clone(&self) -> Self {
        Self { known: Mutex::new(self.known().clone()) }
    }
}

impl Truth {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Backs up and remembers; a backup that fails or dies may have left a complete revision.
    ///
    /// # Errors
    ///
    /// As [`backup`].
    pub fn backup(&self, store: &Store, source: &str, bytes: &[u8]) -> Result<RevisionId> {
        let expected = Expected::image(source, bytes);
        self.known().in_flight.push(expected.clone());
        let id = backup(store, source, bytes)?.id;
        let mut known = self.known();
        let place = known.in_flight.iter().position(|other| *other == expected);
        known.in_flight.remove(place.expect("it was put there"));
        known.acknowledged.insert(id, expected);
        Ok(id)
    }

    /// Remembers a revision that was made otherwise.
    pub fn add(&self, id: RevisionId, source: &str, bytes: &[u8]) {
        let expected = Expected::image(source, bytes);
        self.known().acknowledged.insert(id, expected);
    }

    /// Notes that a revision is about to go, or may.
    pub fn let_go(&self, id: RevisionId) {
        let mut known = self.known();
        let gone = known.acknowledged.remove_entry(&id);
        known.going.extend(gone);
    }

    /// Forgets a revision and remembers that.
    ///
    /// # Errors
    ///
    /// As [`ops::forget`].
    pub fn forget(&self, store: &Store, id: RevisionId) -> Result<()> {
        self.let_go(id);
        ops::forget(store, &[id])?;
        self.known().going.remove(&id);
        Ok(())
    }

    /// Returns whether a revision may be gone.
    #[must_use]
    pub fn may_be_gone(&self, id: &RevisionId) -> bool {
        !self.known().acknowledged.contains_key(id)
    }

    fn model(&self) -> Model {
        let Known { acknowledged, going, in_flight } = self.known().clone();
        Model {
            is_created: true,
            acknowledged,
            being_forgotten: going,
            in_flight,
            ..Model::default()
        }
    }
}

/// Checks the store after a schedule, with nothing but what a user would call.
///
/// # Panics
///
/// If something does not hold.
pub(super) fn check(vfs: &SimulatedVfs, truth: &Truth, end_check: Option<&EndCheck>) {
    let store = open(vfs, SEED).expect("the store opens");
    if let Some(check) = end_check {
        check(&store, truth);
    }
    let mut model = truth.model();
    model.check_history(&store);
    check_sequences(&store);
    model.check_restore(&store, "at the end");
    let fail = |error: Error| -> ! { panic!("at the end: {}", describe(&error)) };

    let purged = purge_now(&store).unwrap_or_else(|error| fail(error));
    assert_eq!(purged.deferred_bytes, 0, "the last purge waits for {:?}", purged.waiting);
    for directory in ["tmp", "sessions", "trash", "quarantine"] {
        assert_eq!(files_below(vfs, directory), Vec::<&Path>::new(), "left in {directory}");
    }
    // From the packs alone, and all of them.
    vfs.remove_file(&store.index_path()).expect("there is an index");
    model.check_restore(&store, "after a purge, with a new index");
    let verified = verify_all(&store).unwrap_or_else(|error| fail(error));
    assert!(verified.is_sound(), "verify: {:?}, {:?}", verified.damaged, verified.damaged_packs);

    let ids: Vec<RevisionId> = model.acknowledged.keys().copied().collect();
    ops::protect(&store, &ids, false).unwrap_or_else(|error| fail(error));
    ops::forget(&store, &ids).unwrap_or_else(|error| fail(error));
    purge_now(&store).unwrap_or_else(|error| fail(error));
    let info = ops::info(&store).unwrap_or_else(|error| fail(error));
    assert_eq!(info.stored_bytes, 0, "a purge does not free what nobody needs");
}

/// No two revisions of a source have the same number.
fn check_sequences(store: &Store) {
    let history = store.history(None).expect("the history can be read");
    let mut seen = BTreeSet::new();
    for revision in history.revisions {
        let record = revision.record;
        let (source, sequence) = (record.source.to_string(), record.sequence);
        assert!(seen.insert((source.clone(), sequence)), "{source} has two of number {sequence}");
    }
}
