//! Carries a history out on a simulated store, and keeps account of what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use chunkstore::environment::Environment;
use chunkstore::error::{Error, Result};
use chunkstore::id::RevisionId;
use chunkstore::ops::expire::{self, ExpireError, ExpireOptions};
use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::{self, BackupError, ScrubOptions, TagEdit, TagOptions, repair};
use chunkstore::progress::NoProgress;
use chunkstore::retention::{Schedule, TagRule};
use chunkstore::store::Store;
use chunkstore::vfs::simulated::{SimulatedClock, SimulatedVfs, environment};

use super::History;
use super::operation::Operation;
use crate::images;
use crate::memory_tree::{Files, MemoryTree, backup_tree};
use crate::model::{Content, Expected, Marks, Model};
use crate::simulated_store::{BALLAST_LEN, STORE_PATH, describe, options};

const SOURCES: [&str; 3] = ["a", "b", "c"];
const TREE: &str = "tree";
const FILES: [&str; 4] = ["cpu/idle", "cpu/user", "disk/free", "load"];

/// Length of the images in bytes, about.
const IMAGE_LEN: usize = 6 << 10;

/// Room for a ballast, and for everything that small stores grow to.
const CAPACITY: u64 = 1 << 30;

const HOUR: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// A store, those who use it, and what they were told.
#[derive(Debug)]
pub struct World {
    /// The file system of the store.
    pub vfs: SimulatedVfs,
    /// What must be in the store.
    pub model: Model,
    /// Whether calls may fail: damage that is reported then need not be there.
    pub has_faults: bool,
    clock: SimulatedClock,
    environments: u64,
    store: Option<Store>,
    images: [Vec<u8>; SOURCES.len()],
    /// Which image was backed up last, or was about to be.
    last: usize,
    tree: MemoryTree,
}

impl World {
    /// Returns a world without a store.
    #[must_use]
    pub fn new(vfs: SimulatedVfs) -> Self {
        vfs.set_capacity(Some(CAPACITY));
        let images = [1, 2, 3].map(|seed| images::image(seed, IMAGE_LEN));
        Self {
            vfs,
            model: Model::default(),
            has_faults: false,
            clock: SimulatedClock::default(),
            environments: 0,
            store: None,
            images,
            last: 0,
            tree: MemoryTree::default(),
        }
    }

    /// Returns the same world on a copy of its file system, the model included; the store is not open.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            vfs: self.vfs.kill(),
            model: self.model.clone(),
            has_faults: self.has_faults,
            clock: self.clock.fork(),
            environments: self.environments,
            store: None,
            images: self.images.clone(),
            last: self.last,
            tree: self.tree.clone(),
        }
    }

    /// Creates the store and carries out the whole history.
    ///
    /// # Errors
    ///
    /// The first error of any of the operations; the model says what was acknowledged before.
    pub fn live(&mut self, history: &History) -> Result<()> {
        self.create()?;
        history.operations.iter().try_for_each(|operation| self.run(*operation))
    }

    /// Creates the store.
    ///
    /// # Errors
    ///
    /// As [`Store::create_in`].
    pub fn create(&mut self) -> Result<()> {
        let environment = self.next_environment();
        self.store = Some(Store::create_in(environment, STORE_PATH, &options())?);
        self.model.is_created = true;
        Ok(())
    }

    /// Each handle has identifiers of its own, as if it were another process.
    fn next_environment(&mut self) -> Environment {
        self.environments += 1;
        Environment {
            clock: Arc::new(self.clock.clone()),
            ..environment(self.vfs.clone(), self.environments)
        }
    }

    /// Returns the store, which is opened if need be.
    ///
    /// # Errors
    ///
    /// As [`Store::open_in`].
    pub fn store(&mut self) -> Result<&Store> {
        if self.store.is_none() {
            self.store = Some(Store::open_in(self.next_environment(), STORE_PATH)?);
        }
        Ok(self.store.as_ref().expect("it was opened a moment ago"))
    }

    /// Carries out one operation. What it may refuse, because of rot or protection, is no error.
    ///
    /// # Errors
    ///
    /// That of the operation, if nothing that was done before explains it.
    pub fn run(&mut self, operation: Operation) -> Result<()> {
        self.store()?;
        let store = self.store.take().expect("it was opened a moment ago");
        let result = self.run_on(&store, operation);
        if operation != Operation::Reopen {
            self.store = Some(store);
        }
        match result {
            Err(error) if self.explains(&error) => Ok(()),
            other => other,
        }
    }

    /// Returns whether rot or protection may be the reason of an error.
    fn explains(&self, error: &Error) -> bool {
        let has_rotten = !self.model.rotten.is_empty();
        match error {
            Error::Damaged { .. } => has_rotten,
            Error::Protected { id } => {
                has_rotten || self.model.marks.get(id).is_none_or(|marks| marks[0].is_protected)
            }
            _ => false,
        }
    }

    fn run_on(&mut self, store: &Store, operation: Operation) -> Result<()> {
        match operation {
            Operation::BackUp { source, edit } => self.back_up(store, source, edit),
            Operation::BackUpTree { edit } => self.back_up_tree(store, edit),
            Operation::Forget { pick } => match self.pick(pick) {
                Some(id) if self.is_protected(&id) => ops::forget(store, &[id]).map(drop),
                Some(id) => self.model.forget(store, id),
                None => Ok(()),
            },
            Operation::Tag { pick, tags, autoremove } => self.tag(store, pick, tags, autoremove),
            Operation::Protect { pick, is_protected } => self.protect(store, pick, is_protected),
            Operation::Distrust { pick } => self.distrust(store, pick),
            Operation::Expire { source, keep } => self.expire(store, source, keep),
            Operation::Purge { has_grace } => self.purge(store, has_grace),
            Operation::Verify => self.model.verify(store),
            Operation::Scrub => self.scrub(store),
            Operation::RebuildIndex => ops::rebuild_index(store, &NoProgress).map(drop),
            Operation::Repair => self.repair(store),
            Operation::Reopen => Ok(()),
            Operation::PassTime { hours } => {
                self.clock.advance(HOUR * u32::from(hours));
                Ok(())
            }
            Operation::Rot { fate, place } => {
                self.rot(fate, place);
                Ok(())
            }
        }
    }

    fn pick(&self, pick: u8) -> Option<RevisionId> {
        let count = self.model.acknowledged.len();
        self.model.acknowledged.keys().nth(usize::from(pick).checked_rem(count)?).copied()
    }

    fn is_protected(&self, id: &RevisionId) -> bool {
        self.model.marks.get(id).is_some_and(|marks| marks[0].is_protected)
    }

    fn marks(&self, id: &RevisionId) -> Option<Marks> {
        self.model.marks.get(id).map(|marks| marks[0].clone())
    }

    fn back_up(&mut self, store: &Store, source: u8, edit: u8) -> Result<()> {
        self.last = usize::from(source);
        let (name, image) = (SOURCES[self.last], &mut self.images[self.last]);
        *image = images::changed(image, u64::from(edit));
        let tags: &[&str] = if edit.is_multiple_of(2) { &["daily"] } else { &[] };
        self.end_doubts(name);
        let image = &self.images[self.last];
        self.model.backup_with_tags(store, name, image, tags)?;
        self.clock.advance(HOUR * 25);
        Ok(())
    }

    /// Returns the image that was backed up last, or was about to be, and its source.
    #[must_use]
    pub fn last_image(&self) -> (&'static str, &[u8]) {
        (SOURCES[self.last], &self.images[self.last])
    }

    /// A backup may settle what was doubted of its source.
    fn end_doubts(&mut self, source: &str) {
        let acknowledged = &self.model.acknowledged;
        self.model
            .doubted
            .retain(|id| acknowledged.get(id).is_some_and(|expected| expected.source != source));
    }

    fn back_up_tree(&mut self, store: &Store, edit: u8) -> Result<()> {
        let path = FILES[usize::from(edit) % FILES.len()];
        if edit % 7 == 6 && 1 < self.files().len() {
            self.tree.remove(path);
        } else {
            let mut bytes = vec![0; 1000 + usize::from(edit) * 20];
            images::Numbers::new(u64::from(edit)).fill(&mut bytes, true);
            self.tree.write(path, &bytes);
        }
        let content = Content::Tree(Arc::new(self.files()));
        let expected = Expected { source: TREE.to_owned(), content };
        self.end_doubts(TREE);
        let tree = &self.tree;
        let make = || match backup_tree(store, TREE, tree, &[]) {
            Ok(stats) => Ok(stats.id),
            Err(BackupError::Store(error)) => Err(error),
            Err(other) => panic!("the source is blamed for an error of the store: {other:?}"),
        };
        self.model.commit(expected, Marks::default(), make)?;
        self.clock.advance(HOUR);
        Ok(())
    }

    fn files(&self) -> Files {
        let files = FILES
            .into_iter()
            .filter_map(|path| Some((path.to_owned(), self.tree.read_all(path)?.to_vec())));
        files.collect()
    }

    fn tag(&mut self, store: &Store, pick: u8, tags: u8, autoremove: bool) -> Result<()> {
        let Some(id) = self.pick(pick) else { return Ok(()) };
        let tags: Vec<&str> = [(1, "daily"), (2, "manual:x")]
            .into_iter()
            .filter_map(|(bit, tag)| (tags & bit != 0).then_some(tag))
            .collect();
        let edit = TagEdit::Set(tags.iter().map(|&tag| tag.to_owned()).collect());
        let known = self.marks(&id);
        let after =
            known.map(|marks| Marks { is_protected: marks.is_protected, ..Marks::tagged(&tags) });
        if let Some(after) = after.clone() {
            self.model.may_become(id, after);
        }
        let may_go = autoremove && tags.is_empty() && !self.is_protected(&id);
        if may_go {
            self.model.let_go(id);
        }
        let options = TagOptions { autoremove, ..TagOptions::default() };
        let stats = ops::edit_tags(store, &[id], &edit, &options)?;
        if stats.changes[0].is_removed {
            assert!(may_go, "{id} is removed");
            self.model.being_forgotten.remove(&id);
        } else if let Some(expected) = self.model.being_forgotten.remove(&id) {
            self.model.acknowledged.insert(id, expected);
        }
        self.settle(id, after);
        Ok(())
    }

    /// From now on a revision has these marks, if anything is known of it.
    fn settle(&mut self, id: RevisionId, after: Option<Marks>) {
        if let Some(after) = after {
            self.model.marks.insert(id, vec![after]);
        }
    }

    fn protect(&mut self, store: &Store, pick: u8, is_protected: bool) -> Result<()> {
        let Some(id) = self.pick(pick) else { return Ok(()) };
        let after = self.marks(&id).map(|marks| Marks { is_protected, ..marks });
        if let Some(after) = after.clone() {
            self.model.may_become(id, after);
        }
        ops::protect(store, &[id], is_protected)?;
        self.settle(id, after);
        Ok(())
    }

    fn distrust(&mut self, store: &Store, pick: u8) -> Result<()> {
        let Some(id) = self.pick(pick) else { return Ok(()) };
        self.model.verified.remove(&id);
        ops::distrust(store, &[id])?;
        if !self.model.rotten.contains(&id) {
            self.model.doubted.insert(id);
        }
        Ok(())
    }

    fn expire(&mut self, store: &Store, source: u8, keep: u8) -> Result<()> {
        let rule = TagRule::count(
            "1d".parse().expect("an interval"),
            u64::from(keep).try_into().expect("at least 1"),
        );
        let schedule = Schedule::default().with_tag("daily", rule).expect("a valid rule");
        let options = ExpireOptions { schedule, force: true, ..ExpireOptions::default() };
        let source = SOURCES[usize::from(source)].parse().expect("a name");
        let plan = expire::plan(store, &source, &options)?;
        let decisions = plan.verdict().decisions.clone();
        let removed: Vec<RevisionId> = plan.verdict().removed().collect();
        for decision in &decisions {
            let tags: Vec<&str> = decision.tags_after.iter().map(String::as_str).collect();
            let known = self.marks(&decision.id);
            if decision.is_removed {
                self.model.let_go(decision.id);
            } else if let Some(marks) = known {
                let after = Marks { is_protected: marks.is_protected, ..Marks::tagged(&tags) };
                self.model.may_become(decision.id, after);
            }
        }
        let stats = match plan.execute() {
            Ok(stats) => stats,
            Err(ExpireError::Store(error)) => return Err(error),
            Err(error) => panic!("expire: {error}"),
        };
        assert_eq!(stats.removed, removed, "nobody else was there");
        for decision in &decisions {
            if decision.is_removed {
                self.model.being_forgotten.remove(&decision.id);
            } else if let Some(last) = self.model.marks.get_mut(&decision.id) {
                last.drain(..last.len() - 1);
            }
        }
        Ok(())
    }

    fn purge(&mut self, store: &Store, has_grace: bool) -> Result<()> {
        let grace = if has_grace { GRACE } else { Duration::ZERO };
        let options = PurgeOptions { grace, ballast_len: BALLAST_LEN, ..PurgeOptions::default() };
        let stats = purge::plan(store, &options, &NoProgress)?.execute(&NoProgress)?;
        self.model.repacked_packs += stats.repacked_packs;
        Ok(())
    }

    fn scrub(&mut self, store: &Store) -> Result<()> {
        let stats = ops::scrub(store, &ScrubOptions::default(), &NoProgress)?;
        assert!(stats.is_sound() || self.has_faults, "scrub: {stats:?}");
        if !stats.is_sound() {
            // What could not be read is noted as damaged.
            self.model.verified.clear();
            self.model.doubted.clear();
        }
        Ok(())
    }

    fn repair(&mut self, store: &Store) -> Result<()> {
        let stats = repair::plan(store, &NoProgress)?.execute(&NoProgress)?;
        assert!(stats.damaged.is_empty() || self.has_faults, "no image has rotted: {stats:?}");
        for moved in &stats.moved_records {
            assert!(self.model.rotten.contains(&moved.id), "{} is moved aside", moved.id);
            let path = moved.path.display();
            assert!(
                self.vfs.read_all(&moved.path).is_ok(),
                "{path} is not kept for people to look at"
            );
        }
        for replaced in &stats.replaced_states {
            assert!(
                self.model.rotten.contains(&replaced.id),
                "state of {} is replaced",
                replaced.id
            );
        }
        self.model.rotten.clear();
        Ok(())
    }

    /// Carries out an operation that must succeed.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn must_run(&mut self, operation: Operation) {
        if let Err(error) = self.run(operation) {
            panic!("{operation:?}: {}", describe(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Fate;

    #[test]
    fn random_histories_succeed_where_nothing_fails() {
        for seed in 0..40 {
            let history = History::random(seed, 24);
            let mut world = World::new(SimulatedVfs::new());
            world.live(&history).unwrap_or_else(|error| {
                panic!("seed {seed}, {history:?}: {}", describe(&error));
            });
            crate::model::check_store(&world.vfs.kill(), &world.model, 10_000 + seed);
        }
    }

    #[test]
    fn what_rots_twice_in_one_place_stays_rotten() {
        let rot = Operation::Rot { fate: Fate::Record, place: 7 };
        let back_up = Operation::BackUp { source: 0, edit: 1 };
        let mut world = World::new(SimulatedVfs::new());
        world.live(&History { operations: vec![back_up, rot, rot] }).expect("nothing fails");
        assert_eq!(world.model.rotten.len(), 1);
        assert_eq!(world.store().expect("it is open").history(None).unwrap().damaged.len(), 1);
        crate::model::check_store(&world.vfs.kill(), &world.model, 10_000);
    }
}
