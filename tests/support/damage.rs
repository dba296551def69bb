//! A small store with every kind of file, and what must hold after one of its files was damaged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chunkstore::error::Error;
use chunkstore::id::RevisionId;
use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::{self, ScrubOptions};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{FaultKind, FaultPlan, SimulatedVfs};

use crate::images;
use crate::model::Model;
use crate::simulated_store::{backup, create, describe, open, purge_now, restore, verify_all};

/// What a file of a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FileKind {
    Config,
    Pack,
    Record,
    State,
    Condemned,
    Ledger,
    Index,
    Session,
    Lock,
}

impl FileKind {
    /// Returns the kind of a file by its path.
    ///
    /// # Panics
    ///
    /// If a store has no such file.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let inside = path.strip_prefix("/store").expect("a file of the store");
        let top = inside.iter().next().and_then(|top| top.to_str()).expect("an ASCII name");
        match (top, path.extension().and_then(|end| end.to_str())) {
            ("store.json", _) => Self::Config,
            ("index.redb", _) => Self::Index,
            ("packs", _) => Self::Pack,
            ("revisions", Some("rev")) => Self::Record,
            ("revisions", Some("state")) => Self::State,
            ("condemned", _) => Self::Condemned,
            ("ledger", _) => Self::Ledger,
            ("sessions", _) => Self::Session,
            ("locks", _) => Self::Lock,
            _ => panic!("unexpected file {}", path.display()),
        }
    }

    /// Returns whether damage to such a file may make a revision unreadable.
    #[must_use]
    pub fn carries_revisions(self) -> bool {
        matches!(self, Self::Pack | Self::Record | Self::State)
    }
}

/// A store with two revisions of one source and one of another, a condemned list that names packs, a session
/// that failed, states, and locks.
#[derive(Debug)]
pub struct SmallStore {
    /// Its file system.
    pub vfs: SimulatedVfs,
    /// Its revisions.
    pub model: Model,
}

impl SmallStore {
    /// Makes the store.
    ///
    /// # Panics
    ///
    /// If that does not work.
    #[must_use]
    pub fn new() -> Self {
        let vfs = SimulatedVfs::new();
        let store = create(&vfs, 1).expect("a new store");
        let mut model = Model { is_created: true, ..Model::default() };
        let image = images::image(3, 1500);
        let mut next = image.clone();
        next[1100..1110].fill(7);
        model.backup(&store, "a", &image).expect("a backup");
        model.backup(&store, "a", &next).expect("a backup");
        model.backup(&store, "b", &image[..700]).expect("a backup");
        let forgotten = model.backup(&store, "c", &images::image(5, 600)).expect("a backup");
        model.forget(&store, forgotten).expect("a forget");
        let plan = purge::plan(&store, &PurgeOptions::default(), &NoProgress).expect("a plan");
        assert_eq!(plan.execute(&NoProgress).expect("a purge").condemned_packs, 2);
        model.verify(&store).expect("a verification");
        drop(store);
        Self::leave_session(&vfs);
        Self { vfs: vfs.kill(), model }
    }

    /// Lets a backup fail at its record: its packs and its session stay.
    fn leave_session(vfs: &SimulatedVfs) {
        let image = images::image(6, 500);
        let rehearsal = vfs.kill();
        backup(&open(&rehearsal, 2).expect("it opens"), "d", &image).expect("a backup");
        let calls = rehearsal.calls();
        let mut mutations = calls.iter().filter(|call| call.kind.is_mutating());
        let record = mutations.position(|call| {
            call.to.as_ref().is_some_and(|to| to.extension().is_some_and(|end| end == "rev"))
        });
        let record = record.expect("a backup ends with its record") as u64;
        vfs.set_faults(FaultPlan::fail_mutation(record, FaultKind::Device));
        let store = open(vfs, 2).expect("it opens");
        backup(&store, "d", &image).expect_err("its record cannot be written");
        vfs.set_faults(FaultPlan::none());
    }

    /// Returns the files with their lengths, without empty ones.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, FileKind, u64)> {
        let files = self.vfs.all_files().into_iter().filter(|(_, len)| *len != 0);
        files.map(|(path, len)| (path.clone(), FileKind::of(&path), len)).collect()
    }

    /// Checks a copy of the store in which a file of this kind was damaged. Every operation either gives
    /// right bytes or an error that names what is damaged; and a purge removes nothing that could be read before.
    ///
    /// # Panics
    ///
    /// If it is not so.
    pub fn check(&self, damaged: &SimulatedVfs, kind: FileKind, seed: u64) {
        let Some(store) = open_damaged(&damaged.kill(), kind, seed) else { return };
        let readable = self.readable(&store, kind);
        let is_whole = readable.len() == self.model.acknowledged.len();
        drop(store);
        let vfs = damaged.kill();
        let store = open(&vfs, seed + 1).expect("it opened before");
        if seed.is_multiple_of(2) {
            self.purge(&store, &readable, kind);
            self.verify(&store, is_whole, kind);
        } else {
            self.verify(&store, is_whole, kind);
            self.back_up(&store, kind, seed);
            self.purge(&store, &readable, kind);
        }
        self.back_up(&store, kind, seed);
        self.check_readable(&store, &readable, "at last");
    }

    /// Checks only that every revision restores right bytes, or that an error names what is damaged.
    ///
    /// # Panics
    ///
    /// If it is not so.
    pub fn check_reading(&self, damaged: &SimulatedVfs, kind: FileKind, seed: u64) {
        if let Some(store) = open_damaged(damaged, kind, seed) {
            self.readable(&store, kind);
        }
    }

    /// Restores everything, and returns what could be restored.
    fn readable(&self, store: &Store, kind: FileKind) -> BTreeSet<RevisionId> {
        let history = store.history(None).expect("the directories can be listed");
        if !kind.carries_revisions() {
            assert!(history.damaged.is_empty(), "{:?}", history.damaged);
        }
        history.damaged.iter().for_each(check_named);
        let mut readable = BTreeSet::new();
        for (id, expected) in &self.model.acknowledged {
            match restore(store, id) {
                Ok(bytes) => {
                    assert!(bytes == expected.bytes(), "revision {id} restores other bytes");
                    readable.insert(*id);
                }
                Err(error) => {
                    assert!(kind.carries_revisions(), "restore: {}", describe(&error));
                    check_named(&error);
                }
            }
        }
        readable
    }

    fn check_readable(&self, store: &Store, readable: &BTreeSet<RevisionId>, when: &str) {
        for id in readable {
            let bytes = restore(store, id)
                .unwrap_or_else(|error| panic!("{when}: {id} is lost: {}", describe(&error)));
            assert!(bytes == self.model.acknowledged[id].bytes(), "{when}: other bytes");
        }
    }

    fn verify(&self, store: &Store, is_whole: bool, kind: FileKind) {
        let is_clean = match verify_all(store) {
            Ok(stats) => stats.is_sound(),
            Err(error) => {
                assert!(kind.carries_revisions(), "verify: {}", describe(&error));
                check_named(&error);
                false
            }
        };
        let history = store.history(None).expect("the directories can be listed");
        let is_complete = history.revisions.len() == self.model.acknowledged.len();
        assert!(is_whole || !is_clean || !is_complete, "damage is not reported");
        assert!(is_clean || kind.carries_revisions(), "verify finds damage that is not there");
        match ops::scrub(store, &ScrubOptions::default(), &NoProgress) {
            Ok(stats) => {
                let is_innocent = !kind.carries_revisions();
                assert!(stats.is_sound() || !is_innocent, "scrub finds damage that is not there");
            }
            Err(error) => {
                assert!(kind.carries_revisions(), "scrub: {}", describe(&error));
                check_named(&error);
            }
        }
    }

    fn purge(&self, store: &Store, readable: &BTreeSet<RevisionId>, kind: FileKind) {
        if let Err(error) = purge_now(store) {
            assert!(kind.carries_revisions(), "purge: {}", describe(&error));
            check_named(&error);
        }
        self.check_readable(store, readable, "after a purge");
    }

    fn back_up(&self, store: &Store, kind: FileKind, seed: u64) {
        let newest = self.model.acknowledged.values().find(|expected| expected.source == "a");
        let bytes = images::changed(newest.expect("a has revisions").bytes(), seed);
        match backup(store, "a", &bytes) {
            Ok(stats) => {
                let found = restore(store, &stats.id)
                    .unwrap_or_else(|error| panic!("a new revision: {}", describe(&error)));
                assert!(found == bytes, "a new revision restores other bytes");
            }
            Err(error) => {
                assert!(kind.carries_revisions(), "backup: {}", describe(&error));
                check_named(&error);
            }
        }
    }
}

impl Default for SmallStore {
    fn default() -> Self {
        Self::new()
    }
}

/// Opens a damaged store; `None` if its configuration is what is damaged.
fn open_damaged(vfs: &SimulatedVfs, kind: FileKind, seed: u64) -> Option<Store> {
    match open(vfs, seed) {
        Ok(store) => Some(store),
        Err(error) => {
            assert_eq!(kind, FileKind::Config, "{}", describe(&error));
            assert!(
                matches!(error, Error::NotAStore { .. }) || is_named(&error),
                "{}",
                describe(&error)
            );
            None
        }
    }
}

/// Returns whether the error says which object is damaged, missing, or of a newer format.
fn is_named(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. } | Error::Missing { .. } | Error::UnsupportedFormat { .. })
}

fn check_named(error: &Error) {
    let is_named = is_named(error) || matches!(error, Error::NoSuchRevision { .. });
    assert!(is_named, "does not name what is damaged: {}", describe(error));
}
