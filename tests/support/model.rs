//! What a store must hold, and the check that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;

use crate::images;
use crate::simulated_store::{self, backup, describe, purge_now, restore, verify_all};

/// One revision as it was given to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Name of the source.
    pub source: String,
    /// The image.
    pub bytes: Arc<Vec<u8>>,
}

/// What was acknowledged, and what was on the way when everything stopped.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Whether creating the store was acknowledged.
    pub is_created: bool,
    /// Revisions that must be there.
    pub acknowledged: BTreeMap<RevisionId, Expected>,
    /// Revisions that may be there or not.
    pub being_forgotten: BTreeMap<RevisionId, Expected>,
    /// Backups that were not acknowledged: the revision of each is complete or not there.
    pub in_flight: Vec<Expected>,
    /// Revisions that are noted as verified.
    pub verified: BTreeSet<RevisionId>,
    /// Packs that purges have repacked.
    pub repacked_packs: u64,
}

impl Model {
    /// Backs up and remembers.
    ///
    /// # Errors
    ///
    /// As [`backup`].
    pub fn backup(
        &mut self,
        store: &Store,
        source: &str,
        bytes: &[u8],
    ) -> chunkstore::error::Result<RevisionId> {
        let expected = Expected { source: source.to_owned(), bytes: Arc::new(bytes.to_vec()) };
        self.in_flight.push(expected.clone());
        let id = backup(store, source, bytes)?.id;
        self.in_flight.pop();
        self.acknowledged.insert(id, expected);
        Ok(id)
    }

    /// Forgets a revision and remembers that.
    ///
    /// # Errors
    ///
    /// As [`chunkstore::ops::forget`].
    pub fn forget(&mut self, store: &Store, id: RevisionId) -> chunkstore::error::Result<()> {
        self.being_forgotten.extend(self.acknowledged.remove_entry(&id));
        chunkstore::ops::forget(store, &[id])?;
        self.being_forgotten.remove(&id);
        Ok(())
    }

    /// Purges without grace and counts what is repacked.
    ///
    /// # Errors
    ///
    /// As [`purge_now`].
    pub fn purge(&mut self, store: &Store) -> chunkstore::error::Result<()> {
        self.repacked_packs += purge_now(store)?.repacked_packs;
        Ok(())
    }

    /// Checks that the history is the acknowledged revisions and nothing else that is not explained, and takes over
    /// what turned out to be there.
    ///
    /// # Panics
    ///
    /// If it is not so.
    pub fn check_history(&mut self, store: &Store) {
        let history = store.history(None).expect("the history can be read");
        assert!(history.damaged.is_empty(), "damaged records: {:?}", history.damaged);
        let mut found = BTreeMap::new();
        for revision in &history.revisions {
            let record = &revision.record;
            let known = self.acknowledged.get(&record.id).or(self.being_forgotten.get(&record.id));
            let expected = match known {
                Some(expected) => expected.clone(),
                None => self.explain(store, record.source.as_str(), &record.id),
            };
            if self.verified.contains(&record.id) {
                assert_eq!(revision.state.trust, Trust::Verified, "trust of {}", record.id);
            }
            assert_eq!(record.source.as_str(), expected.source, "source of {}", record.id);
            assert_eq!(record.size, expected.bytes.len() as u64, "size of {}", record.id);
            found.insert(record.id, expected);
        }
        for id in self.acknowledged.keys() {
            assert!(found.contains_key(id), "acknowledged revision {id} is gone");
        }
        self.acknowledged = found;
        self.being_forgotten.clear();
        self.in_flight.clear();
    }

    /// Returns which of the backups on the way became a revision that nobody was told of.
    fn explain(&self, store: &Store, source: &str, id: &RevisionId) -> Expected {
        let bytes = restore(store, id).unwrap_or_else(|error| {
            panic!("unacknowledged revision {id} is not complete: {}", describe(&error))
        });
        let is_this = |expected: &&Expected| expected.source == source && *expected.bytes == bytes;
        let found = self.in_flight.iter().find(is_this);
        found.cloned().unwrap_or_else(|| panic!("revision {id} was never made"))
    }

    /// Verifies all and remembers what is noted.
    ///
    /// # Errors
    ///
    /// As [`chunkstore::ops::verify`].
    pub fn verify(&mut self, store: &Store) -> chunkstore::error::Result<()> {
        let stats = verify_all(store)?;
        self.verified.extend(stats.verified);
        Ok(())
    }

    /// Checks that every revision restores to its bytes.
    ///
    /// # Panics
    ///
    /// If one does not.
    pub fn check_restore(&self, store: &Store, when: &str) {
        for (id, expected) in &self.acknowledged {
            let found = restore(store, id).unwrap_or_else(|error| {
                panic!("{when}: revision {id} cannot be restored: {}", describe(&error))
            });
            assert!(found == *expected.bytes, "{when}: revision {id} restores other bytes");
        }
    }
}

/// Opens the store with production code, or creates it again if its creation was not acknowledged.
///
/// # Panics
///
/// If neither is possible.
#[must_use]
pub fn reopen(vfs: &SimulatedVfs, model: &Model, seed: u64) -> Store {
    match simulated_store::open(vfs, seed) {
        Ok(store) => store,
        Err(chunkstore::error::Error::NotAStore { .. }) if !model.is_created => {
            simulated_store::create(vfs, seed).expect("a store can be created again")
        }
        Err(error) => panic!("the store does not open: {}", describe(&error)),
    }
}

/// Checks that the store opens, has the acknowledged revisions, and restores them.
///
/// # Panics
///
/// If anything of this does not hold.
pub fn check_contents(vfs: &SimulatedVfs, model: &Model, seed: u64) {
    let mut model = model.clone();
    let store = reopen(vfs, &model, seed);
    model.check_history(&store);
    model.check_restore(&store, "at first");
}

/// Checks a store after whatever happened to it, with nothing but what a user would call: it opens; its history is
/// the acknowledged revisions; each restores byte for byte; verify finds nothing; a
/// further backup restores; and after a purge without grace everything still restores.
///
/// # Panics
///
/// If anything of this does not hold.
pub fn check_store(vfs: &SimulatedVfs, model: &Model, seed: u64) {
    let mut model = model.clone();
    let store = reopen(vfs, &model, seed);
    model.check_history(&store);
    // Half of all states are purged first: nothing may have to be repaired by a backup.
    if seed.is_multiple_of(2) {
        purge_now(&store).unwrap_or_else(|error| panic!("purge: {}", describe(&error)));
    }
    model.check_restore(&store, "at first");
    let verified = verify_all(&store).unwrap_or_else(|error| panic!("{}", describe(&error)));
    assert!(verified.is_sound(), "verify: {:?}, {:?}", verified.damaged, verified.damaged_packs);
    assert_eq!(verified.verified.len(), model.acknowledged.len());

    let newest = model.acknowledged.values().next_back();
    let base = newest.map_or_else(|| images::image(1, 9000), |newest| newest.bytes.to_vec());
    let source = newest.map_or("fresh".to_owned(), |newest| newest.source.clone());
    let bytes = images::changed(&base, seed);
    model
        .backup(&store, &source, &bytes)
        .unwrap_or_else(|error| panic!("a further backup: {}", describe(&error)));
    model.check_restore(&store, "after a further backup");
    purge_now(&store).unwrap_or_else(|error| panic!("purge: {}", describe(&error)));
    let again = simulated_store::open(vfs, seed + 1).expect("it opened before");
    model.check_history(&again);
    model.check_restore(&again, "after a purge");
    let leftovers = simulated_store::files_below(vfs, "tmp");
    assert!(leftovers.is_empty(), "left in tmp: {leftovers:?}");
}
