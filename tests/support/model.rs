//! What a store must hold, and the check that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chunkstore::format::Trust;
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, repair};
use chunkstore::progress::NoProgress;
use chunkstore::revision::Revision;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;

use crate::damage::Notes;
use crate::images;
use crate::memory_tree::{Files, files_of};
use crate::simulated_store::{
    self, backup, backup_with_tags, describe, purge_now, restore, verify, verify_all,
};

/// What a revision was made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// An image.
    Image(Arc<Vec<u8>>),
    /// Files.
    Tree(Arc<Files>),
}

/// One revision as it was given to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Name of the source.
    pub source: String,
    /// What the source had.
    pub content: Content,
}

impl Expected {
    /// Returns the revision of an image.
    #[must_use]
    pub fn image(source: &str, bytes: &[u8]) -> Self {
        Self { source: source.to_owned(), content: Content::Image(Arc::new(bytes.to_vec())) }
    }

    /// Returns the bytes of the image.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Image(bytes) => bytes,
            Content::Tree(_) => panic!("a revision of {} is no image", self.source),
        }
    }

    /// Returns whether the store gives this back as `id`, or why it gives nothing.
    fn is_restored(&self, store: &Store, id: &RevisionId) -> chunkstore::error::Result<bool> {
        Ok(match &self.content {
            Content::Image(bytes) => restore(store, id)? == **bytes,
            Content::Tree(files) => files_of(store, id)? == **files,
        })
    }
}

/// What people have noted of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Whether it is protected.
    pub is_protected: bool,
}

impl Marks {
    /// Returns the marks of a revision that got these tags.
    #[must_use]
    pub fn tagged(tags: &[&str]) -> Self {
        Self { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), is_protected: false }
    }

    fn of(revision: &Revision) -> Self {
        let state = &revision.state;
        Self { tags: state.tags.iter().cloned().collect(), is_protected: state.protected }
    }
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
    /// Revisions that are noted as doubted.
    pub doubted: BTreeSet<RevisionId>,
    /// Marks that a revision has, one of these; nothing is known of the others.
    pub marks: BTreeMap<RevisionId, Vec<Marks>>,
    /// Revisions of which a record or state has rotted.
    pub rotten: BTreeSet<RevisionId>,
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
        self.commit(Expected::image(source, bytes), Marks::default(), || {
            backup(store, source, bytes).map(|stats| stats.id)
        })
    }

    /// Backs up with tags and remembers.
    ///
    /// # Errors
    ///
    /// As [`backup_with_tags`].
    pub fn backup_with_tags(
        &mut self,
        store: &Store,
        source: &str,
        bytes: &[u8],
        tags: &[&str],
    ) -> chunkstore::error::Result<RevisionId> {
        self.commit(Expected::image(source, bytes), Marks::tagged(tags), || {
            backup_with_tags(store, source, bytes, tags).map(|stats| stats.id)
        })
    }

    /// Makes a revision and remembers it.
    ///
    /// # Errors
    ///
    /// Those of `make`.
    pub fn commit(
        &mut self,
        expected: Expected,
        marks: Marks,
        make: impl FnOnce() -> chunkstore::error::Result<RevisionId>,
    ) -> chunkstore::error::Result<RevisionId> {
        self.in_flight.push(expected.clone());
        let id = make()?;
        self.in_flight.pop();
        self.acknowledged.insert(id, expected);
        self.marks.insert(id, vec![marks]);
        Ok(id)
    }

    /// Forgets a revision and remembers that.
    ///
    /// # Errors
    ///
    /// As [`chunkstore::ops::forget`].
    pub fn forget(&mut self, store: &Store, id: RevisionId) -> chunkstore::error::Result<()> {
        self.let_go(id);
        ops::forget(store, &[id])?;
        self.being_forgotten.remove(&id);
        Ok(())
    }

    /// Returns a number that tells models apart in what their checks look at.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let ids = |revisions: &BTreeMap<RevisionId, Expected>| -> Vec<RevisionId> {
            revisions.keys().copied().collect()
        };
        // A revision with the same id always has the same bytes.
        (self.is_created, ids(&self.acknowledged), ids(&self.being_forgotten)).hash(&mut hasher);
        (&self.verified, &self.doubted, &self.rotten).hash(&mut hasher);
        (&self.in_flight, &self.marks).hash(&mut hasher);
        hasher.finish()
    }

    /// Notes that a revision may go from now on.
    pub fn let_go(&mut self, id: RevisionId) {
        self.being_forgotten.extend(self.acknowledged.remove_entry(&id));
    }

    /// Notes that a revision may get these marks from now on.
    pub fn may_become(&mut self, id: RevisionId, marks: Marks) {
        if let Some(known) = self.marks.get_mut(&id) {
            known.push(marks);
        }
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
        let damaged = history.damaged.len();
        assert!(damaged <= self.rotten.len(), "damaged records: {:?}", history.damaged);
        let mut found = BTreeMap::new();
        for revision in &history.revisions {
            let record = &revision.record;
            let known = self.acknowledged.get(&record.id).or(self.being_forgotten.get(&record.id));
            let expected = match known {
                Some(expected) => expected.clone(),
                None => self.explain(store, record.source.as_str(), &record.id),
            };
            self.check_state(revision);
            assert_eq!(record.source.as_str(), expected.source, "source of {}", record.id);
            if let Content::Image(bytes) = &expected.content {
                assert_eq!(record.size, bytes.len() as u64, "size of {}", record.id);
            }
            found.insert(record.id, expected);
        }
        for id in self.acknowledged.keys() {
            assert!(found.contains_key(id), "acknowledged revision {id} is gone");
        }
        self.acknowledged = found;
        self.being_forgotten.clear();
        self.in_flight.clear();
    }

    /// Checks what is noted of a revision, and takes over which of the possible marks it has.
    fn check_state(&mut self, revision: &Revision) {
        let (id, state) = (revision.record.id, &revision.state);
        if self.verified.contains(&id) {
            assert_eq!(state.trust, Trust::Verified, "trust of {id}");
        }
        if self.doubted.contains(&id) {
            assert_eq!(state.trust, Trust::Distrusted, "trust of {id}");
        }
        if let Some(possible) = self.marks.get_mut(&id) {
            let found = Marks::of(revision);
            assert!(possible.contains(&found), "{id} has {found:?}, not one of {possible:?}");
            *possible = vec![found];
        }
    }

    /// Returns which of the backups on the way became a revision that nobody was told of.
    fn explain(&self, store: &Store, source: &str, id: &RevisionId) -> Expected {
        let is_this = |expected: &&Expected| {
            let is_restored = expected.is_restored(store, id).unwrap_or_else(|error| {
                panic!("unacknowledged revision {id} is not complete: {}", describe(&error))
            });
            expected.source == source && is_restored
        };
        let of_source = self.in_flight.iter().filter(|expected| expected.source == source);
        let found = { of_source }.find(is_this);
        found.cloned().unwrap_or_else(|| panic!("revision {id} of {source} was never made"))
    }

    /// Verifies all and remembers what is noted.
    ///
    /// # Errors
    ///
    /// As [`chunkstore::ops::verify`].
    pub fn verify(&mut self, store: &Store) -> chunkstore::error::Result<()> {
        self.doubted.clear();
        let stats = verify_all(store)?;
        if !stats.is_sound() {
            // What could not be read is noted as damaged.
            self.verified.clear();
        }
        self.verified.extend(stats.verified);
        Ok(())
    }

    /// Checks that every revision restores to what it was made of.
    ///
    /// # Panics
    ///
    /// If one does not.
    pub fn check_restore(&self, store: &Store, when: &str) {
        for (id, expected) in &self.acknowledged {
            let is_restored = expected.is_restored(store, id).unwrap_or_else(|error| {
                panic!("{when}: revision {id} cannot be restored: {}", describe(&error))
            });
            assert!(is_restored, "{when}: revision {id} restores other bytes");
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
    check_packs(&store);
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
    check_packs(&store);
    if !model.rotten.is_empty() {
        repair_all(&store, &mut model);
    }
    // Half of all states are purged first: nothing may have to be repaired by a backup.
    if seed.is_multiple_of(2) {
        purge_now(&store).unwrap_or_else(|error| panic!("purge: {}", describe(&error)));
    }
    model.check_restore(&store, "at first");
    let verified = verify_all(&store).unwrap_or_else(|error| panic!("{}", describe(&error)));
    assert!(verified.is_sound(), "verify: {:?}, {:?}", verified.damaged, verified.damaged_packs);
    assert_eq!(verified.verified.len(), model.acknowledged.len());
    model.doubted.clear();

    let is_image = |expected: &&Expected| matches!(expected.content, Content::Image(_));
    let newest = model.acknowledged.values().rfind(is_image);
    let base = newest.map_or_else(|| images::image(1, 9000), |newest| newest.bytes().to_vec());
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

/// Checks that nobody is told of a pack that is gone: it is durable before the index leads to it, and goes after that.
fn check_packs(store: &Store) {
    let notes = Notes::default();
    verify(store, &[], &notes).unwrap_or_else(|error| panic!("packs: {}", describe(&error)));
    let notes = notes.into_messages();
    assert!(notes.is_empty(), "packs: {notes:?}");
}

/// Repairs what has rotted; nothing else may be lost by that.
fn repair_all(store: &Store, model: &mut Model) {
    let repaired = repair::plan(store, &NoProgress).and_then(|plan| plan.execute(&NoProgress));
    repaired.unwrap_or_else(|error| panic!("repair: {}", describe(&error)));
    model.rotten.clear();
    model.check_history(store);
}
