//! What must hold of a store that was damaged: whoever must find it does and names it, and whatever is read is right or an error that
//! names what is damaged.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use chunkstore::error::{Error, ObjectName, Result};
use chunkstore::id::RevisionId;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::{self, RestoreError, RestoreOptions, ScrubOptions, ScrubStats, repair};
use chunkstore::progress::{NoProgress, Progress};
use chunkstore::store::Store;
use chunkstore::vfs::simulated::SimulatedVfs;

use super::content::{Content, Sparse, SparseTarget};
use super::regions::{Finder, SAME_BYTES, name_of};
use super::scene::{Held, StoreAtRest, backup_image, backup_tree, points};
use crate::memory_tree::{self, MemoryTree};
use crate::simulated_store::{describe, verify_all};

/// Most calls of the file system in one examination of a small store: a loop that does not end would make more. An undamaged store
/// takes a tenth of them.
const CALLS_MAX: u64 = 40_000;

/// What came of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was found and named, by whom.
    Named(&'static str),
    /// It costs nothing, and why.
    Harmless(&'static str),
}

/// What is restored once damage was found. If it is one revision, a scrub and a verification that must find nothing are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// One revision; the seed says which.
    One,
    /// All revisions.
    All,
}

/// Collects what an operation has to say.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn note(&self, message: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_owned());
    }
}

impl Notes {
    /// Returns what was said.
    #[must_use]
    pub fn into_messages(self) -> Vec<String> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether something was said about a path.
    #[must_use]
    pub fn name(&self, path: &str) -> bool {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().any(|note| note.contains(path))
    }
}

impl StoreAtRest {
    /// Checks that damage is found by whom it must be, and costs no more than it may. Several finders: all of them.
    ///
    /// # Panics
    ///
    /// If it is not so.
    pub fn check_found(
        &self,
        damaged: &SimulatedVfs,
        (finders, restored): (&[Finder], Restored),
        seed: u64,
    ) -> Outcome {
        let vfs = damaged.kill();
        let opened = self.open(&vfs, seed);
        if finders.contains(&Finder::Open) {
            check_config(&opened.map(drop).expect_err("a damaged configuration is used"));
            return Outcome::Named("open");
        }
        let store = opened.unwrap_or_else(|error| panic!("open: {}", describe(&error)));
        check_history(&store, finders);
        let notes = Notes::default();
        let is_scrubbed = restored == Restored::All || finders.iter().any(Finder::needs_scrub);
        let stats = if is_scrubbed { scrub(&store, &notes) } else { Ok(ScrubStats::default()) };
        let stats = stats.unwrap_or_else(|error| panic!("scrub: {}", describe(&error)));
        let named = stats.damaged.iter().flat_map(|damage| &damage.revisions);
        let mut may_be_lost: BTreeSet<RevisionId> = named.map(|revision| revision.id).collect();
        assert!(may_be_lost.is_empty() || finders.iter().any(Finder::is_scrub), "{stats:?}");
        let lost = match restored {
            Restored::All => self.check_restore(&store, "at first"),
            Restored::One => {
                let index = usize::try_from(seed).expect("seeds are small") % self.held.len();
                check_restored(&store, &self.held[index..=index], "at first")
            }
        };
        let mut outcome = None;
        for finder in finders {
            outcome.get_or_insert(finder.outcome());
            match finder {
                Finder::Open | Finder::Stray(_) => {}
                Finder::Misnamed(path) => {
                    let name = path.display();
                    assert!(is_pack_named(&stats, path), "scrub does not name {name}: {stats:?}");
                }
                Finder::FoundAgain => assert!(!stats.is_sound() && lost.is_empty(), "{stats:?}"),
                Finder::Replaced(path) => {
                    let name = path.display();
                    assert!(is_pack_named(&stats, path), "scrub does not name {name}: {stats:?}");
                    let stats = verify_all(&store);
                    let stats = stats.unwrap_or_else(|error| panic!("{}", describe(&error)));
                    let named = stats.damaged.iter().flat_map(|damage| &damage.revisions);
                    may_be_lost.extend(named.map(|revision| revision.id));
                }
                Finder::Gone(path) => {
                    let named = |damage: &ops::DamagedChunk| damage.pack == Some(name_of(path));
                    assert!(lost.is_empty() || stats.damaged.iter().any(named), "{stats:?}");
                }
                Finder::HistoryOfRecord(id) | Finder::HistoryOfState(id) | Finder::Absent(id) => {
                    may_be_lost.insert(*id);
                }
                Finder::ScrubOfRecord(path)
                | Finder::ScrubOfPayload(path)
                | Finder::ScrubOfTable(path)
                | Finder::ScrubOfPack(path) => {
                    let is_named = is_pack_named(&stats, path);
                    if !is_named && matches!(finder, Finder::ScrubOfPayload(_)) {
                        // Then it is not damaged for any reader: that is checked here.
                        outcome = Some(Outcome::Harmless(SAME_BYTES));
                        assert!(verify_all(&store).is_ok_and(|it| it.is_sound()), "{stats:?}");
                        assert!(lost.is_empty(), "{lost:?} is lost");
                        continue;
                    }
                    assert!(is_named, "scrub does not name {}: {stats:?}", path.display());
                    let is_table = matches!(finder, Finder::ScrubOfTable(_));
                    assert!(!is_table || lost.is_empty(), "{lost:?} is lost by a damaged table");
                }
                Finder::Note(path) | Finder::NoteOfQuarantine(path) => {
                    let path = path.to_str().expect("ASCII");
                    assert!(notes.name(path), "{path} is not named: {notes:?}");
                }
                Finder::Plan(generation) => {
                    let plan = repair::plan(&store, &NoProgress);
                    let plan = plan.unwrap_or_else(|it| panic!("plan: {}", describe(&it)));
                    assert!(plan.expected().condemned_lists.contains(generation), "{plan:?}");
                }
                Finder::Nobody(_) if restored == Restored::One => {}
                Finder::Nobody(_) => {
                    let verified = verify_all(&store);
                    let verified = verified.unwrap_or_else(|it| panic!("{}", describe(&it)));
                    let is_scrub = finders.iter().any(Finder::is_scrub);
                    assert!(is_scrub || verified.is_sound(), "{verified:?}");
                }
            }
        }
        let is_sound = stats.is_sound() || finders.iter().any(Finder::is_scrub);
        assert!(is_sound, "scrub finds damage that is not there: {stats:?}");
        assert!(lost.is_subset(&may_be_lost), "lost {lost:?}, named {may_be_lost:?}");
        check_calls(&vfs);
        outcome.expect("somebody finds it, or nobody needs to")
    }

    /// Checks that all operations go on with a damaged store, in one of two orders: what could be read before can be read after each of
    /// them. `is_harmless`: none of them fails.
    ///
    /// # Panics
    ///
    /// If it is not so.
    pub fn check_survival(&self, damaged: &SimulatedVfs, is_harmless: bool, seed: u64) {
        let vfs = damaged.kill();
        let store = match self.open(&vfs, seed) {
            Ok(store) => store,
            Err(error) => return check_config(&error),
        };
        let run = Run { store: &store, all: self, is_harmless };
        if seed.is_multiple_of(2) {
            let lost = self.check_restore(&store, "at first");
            assert!(!is_harmless || lost.is_empty(), "{lost:?} is lost");
            run.diff();
            run.read_by_ranges();
            run.allow("verify", verify_all(&store).map(drop));
            run.still(&lost, "after a verification");
            run.back_up();
            run.still(&lost, "after backups");
            run.repair_and_purge();
            run.still(&lost, "after a repair and a purge");
        } else {
            let lost = {
                let vfs = damaged.kill();
                let store = self.open(&vfs, seed + 1).expect("it opened");
                self.check_restore(&store, "in a copy")
            };
            run.allow("purge", purge_all(&store));
            run.still(&lost, "after a purge");
            run.allow("rebuild", ops::rebuild_index(&store, &NoProgress).map(drop));
            run.allow("space", ops::space(&store, &NoProgress).map(drop));
            run.back_up();
            run.allow("scrub", scrub(&store, &Notes::default()).map(drop));
            run.still(&lost, "after a scrub");
            run.repair_and_purge();
            run.still(&lost, "at last");
        }
        check_calls(&vfs);
    }

    /// Restores everything: right bytes, or an error that names what is damaged. Returns what is lost.
    ///
    /// # Panics
    ///
    /// If it is not so.
    pub fn check_restore(&self, store: &Store, when: &str) -> BTreeSet<RevisionId> {
        check_restored(store, &self.held, when)
    }
}

/// Returns whether a scrub names a pack, or a record in it.
fn is_pack_named(stats: &ScrubStats, path: &Path) -> bool {
    let pack = name_of(path);
    stats.damaged_packs.iter().any(|(damaged, _)| *damaged == pack)
        || stats.damaged.iter().any(|damage| damage.pack == Some(pack))
}

fn check_restored(store: &Store, all: &[Held], when: &str) -> BTreeSet<RevisionId> {
    let mut lost = BTreeSet::new();
    for held in all {
        if let Err(error) = restore(store, held) {
            assert!(is_named(&error), "{when}: {}", describe(&error));
            lost.insert(held.id);
        }
    }
    lost
}

/// Restores a revision, and checks the bytes.
///
/// # Errors
///
/// Those of the store.
///
/// # Panics
///
/// If bytes are wrong.
pub fn restore(store: &Store, held: &Held) -> Result<()> {
    let what = format!("revision {} of {}", held.id, held.source);
    match &held.content {
        Content::Tree(files) => {
            let found = memory_tree::files_of(store, &held.id)?;
            assert!(found == *files, "WRONG FILES in {what}");
        }
        Content::Image(image) => {
            let target = SparseTarget::default();
            let options = RestoreOptions { threads: NonZero::new(1), ..RestoreOptions::default() };
            match ops::restore(store, &held.id, &target, &options, &NoProgress) {
                Ok(_) => target.check(image, &what),
                Err(RestoreError::Store(error)) => return Err(error),
                Err(other) => panic!("the target is blamed: {other:?}"),
            }
        }
    }
    Ok(())
}

fn scrub(store: &Store, notes: &Notes) -> Result<ScrubStats> {
    ops::scrub(store, &ScrubOptions { threads: NonZero::new(1), ..ScrubOptions::default() }, notes)
}

fn purge_all(store: &Store) -> Result<()> {
    let grace = std::time::Duration::ZERO;
    let options = PurgeOptions { grace, ballast_len: 512, ..PurgeOptions::default() };
    purge::plan(store, &options, &NoProgress)?.execute(&NoProgress).map(drop)
}

fn check_calls(vfs: &SimulatedVfs) {
    let calls = vfs.call_count();
    assert!(calls <= CALLS_MAX, "{calls} calls: something goes round in circles");
}

fn check_config(error: &Error) {
    let is_config = match error {
        Error::Damaged { object, .. } | Error::UnsupportedFormat { object, .. } => {
            matches!(object, ObjectName::Config { .. })
        }
        Error::NotAStore { .. } => true,
        _ => false,
    };
    assert!(is_config, "the configuration is not named: {}", describe(error));
}

/// The history names what is damaged in it, and nothing else.
fn check_history(store: &Store, finders: &[Finder]) {
    let history = store.history(None).unwrap_or_else(|error| panic!("{}", describe(&error)));
    let named = |error: &Error| match error {
        Error::Damaged { object, .. } | Error::UnsupportedFormat { object, .. } => match object {
            ObjectName::Revision { id, .. } => Finder::HistoryOfRecord(*id),
            ObjectName::State { id, .. } => Finder::HistoryOfState(*id),
            _ => panic!("it names no revision: {}", describe(error)),
        },
        _ => panic!("it names no revision: {}", describe(error)),
    };
    let found: BTreeSet<Finder> = history.damaged.iter().map(named).collect();
    let is_of_history =
        |it: &&Finder| matches!(it, Finder::HistoryOfRecord(_) | Finder::HistoryOfState(_));
    let mut expected: BTreeSet<Finder> = finders.iter().filter(is_of_history).cloned().collect();
    expected.extend(finders.iter().filter_map(|finder| match finder {
        Finder::Stray(id) => Some(Finder::HistoryOfRecord(*id)),
        _ => None,
    }));
    assert_eq!(found, expected, "{:?}", history.damaged);
}

/// Returns whether an error says which object is damaged, missing, or of a newer format.
#[must_use]
pub fn is_named(error: &Error) -> bool {
    matches!(
        error,
        Error::Damaged { .. }
            | Error::Missing { .. }
            | Error::UnsupportedFormat { .. }
            | Error::NoSuchRevision { .. }
    )
}

/// Operations on a damaged store.
struct Run<'a> {
    store: &'a Store,
    all: &'a StoreAtRest,
    is_harmless: bool,
}

impl Run<'_> {
    /// Checks that an operation works, or that the damage is of a kind that may stop it, and is named.
    fn allow<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                assert!(!self.is_harmless, "{what}: {}", describe(error));
                assert!(is_named(error), "{what} does not name it: {}", describe(error));
            })
            .ok()
    }

    fn still(&self, lost: &BTreeSet<RevisionId>, when: &str) {
        let now = self.all.check_restore(self.store, when);
        assert!(now.is_subset(lost), "{when}: {now:?} is lost, before it was {lost:?}");
    }

    fn image(&self, held: &Held) -> Option<Sparse> {
        let _ = self;
        match &held.content {
            Content::Image(image) => Some(image.clone()),
            Content::Tree(_) => None,
        }
    }

    /// Between two ranges of a comparison, both images are the same.
    fn diff(&self) {
        let [old, new, ..] = &self.all.held[..] else { panic!("two revisions") };
        let result = ops::diff(self.store, &old.id, &new.id, &NoProgress);
        let Some(diff) = self.allow("diff", result) else { return };
        let Some(ranges) = self.allow("diff", diff.collect::<Result<Vec<Range<u64>>>>()) else {
            return;
        };
        let bytes = [old, new].map(|held| {
            let image = self.image(held).expect("an image");
            let mut bytes = vec![0; usize::try_from(image.len).expect("small")];
            image.read(&mut bytes, 0);
            bytes
        });
        for (place, (old, new)) in bytes[0].iter().zip(&bytes[1]).enumerate() {
            let is_told = ranges.iter().any(|range| range.contains(&(place as u64)));
            assert!(old == new || is_told, "byte {place} differs, {ranges:?}");
        }
    }

    /// Reads as a client over NBD does: pieces of some length, at the ends and across pages.
    fn read_by_ranges(&self) {
        for held in &self.all.held {
            let Some(image) = self.image(held) else { continue };
            let result = ImageReader::open(self.store, &held.id);
            let Some(reader) = self.allow("export", result) else { continue };
            assert_eq!(reader.len(), image.len);
            let ends = [0, image.len / 2, image.len.saturating_sub(600)];
            for offset in ends.into_iter().chain(image.runs.iter().map(|run| run.0)) {
                let len = usize::try_from((image.len - offset).min(600)).expect("small");
                let (mut found, mut right) = (vec![0xa5; len], vec![0; len]);
                image.read(&mut right, offset);
                let result = reader.read_exact_at(&mut found, offset);
                if self.allow("read", result).is_some() {
                    assert!(found == right, "WRONG BYTES over NBD of {} at {offset}", held.id);
                }
            }
            self.allow("extents", reader.extents(0, image.len));
        }
    }

    /// Makes a revision of each source, and restores it.
    fn back_up(&self) {
        let last: Vec<&Held> = self.all.held.iter().rev().collect();
        let mut done = BTreeSet::new();
        for held in last.into_iter().filter(|held| done.insert(held.source)) {
            let content = match &held.content {
                Content::Image(image) => {
                    let mut image = image.clone();
                    let last = image.runs.last_mut().expect("an image has data");
                    let middle = last.1.len() / 2;
                    last.1[middle] ^= 0x55;
                    Content::Image(image)
                }
                Content::Tree(files) => Content::Tree(files.clone()),
            };
            let id = match &content {
                Content::Image(image) => {
                    backup_image(self.store, held.source, image).map(|stats| stats.id)
                }
                Content::Tree(_) => backup_tree(self.store, &tree_of(&content)),
            };
            let Some(id) = self.allow("backup", id) else { continue };
            let content = match content {
                Content::Tree(_) => Content::Tree(files_in(&tree_of(&content))),
                image @ Content::Image(_) => image,
            };
            let new = Held { id, source: held.source, content };
            restore(self.store, &new)
                .unwrap_or_else(|error| panic!("a new revision: {}", describe(&error)));
        }
    }

    /// After a repair nothing stops a purge.
    fn repair_and_purge(&self) {
        let plan = repair::plan(self.store, &NoProgress);
        let stats = plan
            .and_then(|plan| plan.execute(&NoProgress))
            .unwrap_or_else(|error| panic!("repair: {}", describe(&error)));
        assert!(!self.is_harmless || stats.is_sound(), "{stats:?}");
        purge_all(self.store)
            .unwrap_or_else(|error| panic!("a purge after a repair: {}", describe(&error)));
    }
}

/// Returns a tree like one that was backed up, with one file changed.
fn tree_of(content: &Content) -> MemoryTree {
    let Content::Tree(files) = content else { panic!("a tree") };
    let mut tree = MemoryTree::default();
    for (path, bytes) in files {
        tree.write(path, bytes);
    }
    tree.write("new.wsp", &points(9, 20));
    tree
}

fn files_in(tree: &MemoryTree) -> memory_tree::Files {
    let paths = ["a/gone.wsp", "b.wsp", "c", "new.wsp"];
    let file = |path: &str| tree.read_all(path).map(|bytes| (path.to_owned(), bytes.to_vec()));
    paths.into_iter().filter_map(file).collect()
}
