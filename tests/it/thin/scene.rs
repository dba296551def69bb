//! A store on a simulated file system with a clock, and a tree that is backed up to it.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chunkstore::environment::{Clock, Environment};
use chunkstore::format::{FooterRecord, PackFooter};
use chunkstore::id::{RevisionId, SourceName};
use chunkstore::ops::thin::{self, Candidates, ThinError, ThinOptions, ThinStats};
use chunkstore::progress::NoProgress;
use chunkstore::revision::Revision;
use chunkstore::store::Store;
use chunkstore::time::Timestamp;
use chunkstore::versions::{FileVersions, PathFilter, Versions};
use chunkstore::vfs::simulated::{SimulatedClock, SimulatedVfs, environment};
use support::memory_tree::{Files, MemoryTree, backup_tree, files_at, files_of};
use support::simulated_store::{STORE_PATH, files_below, options, purge_now};

pub(super) const SOURCE: &str = "graphite";
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Options that keep so many contents of each file; all revisions without tags may lose some.
pub(super) fn keep(versions: u32) -> ThinOptions {
    ThinOptions { versions: NonZero::new(versions), ..ThinOptions::default() }
}

/// Options by which only what is gone for so long goes.
pub(super) fn gone_after(duration: Duration) -> ThinOptions {
    ThinOptions { gone_after: Some(duration), ..ThinOptions::default() }
}

/// Returns bytes that a seed determines: some chunks, and a part of one.
pub(super) fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 9000];
    support::images::Numbers::new(seed).fill(&mut bytes, false);
    bytes
}

pub(super) struct Scene {
    pub(super) vfs: SimulatedVfs,
    pub(super) clock: SimulatedClock,
    pub(super) store: Store,
    pub(super) tree: MemoryTree,
}

impl Scene {
    pub(super) fn new() -> Self {
        let (vfs, clock) = (SimulatedVfs::new(), SimulatedClock::default());
        let environment = with_clock(&vfs, 1, &clock);
        let store = Store::create_in(environment, STORE_PATH, &options()).unwrap();
        Self { vfs, clock, store, tree: MemoryTree::default() }
    }

    /// Returns the same store, at the same time, opened on another file system.
    pub(super) fn on(&self, vfs: SimulatedVfs, seed: u64) -> Self {
        let clock = SimulatedClock::new(self.clock.now(), Duration::from_millis(1));
        let store = Store::open_in(with_clock(&vfs, seed, &clock), STORE_PATH).unwrap();
        Self { vfs, clock, store, tree: self.tree.clone() }
    }

    pub(super) fn source() -> SourceName {
        SOURCE.parse().unwrap()
    }

    /// Writes files; the seed is what is in them.
    pub(super) fn write(&mut self, files: &[(&str, u64)]) {
        for (path, seed) in files {
            self.tree.write(path, &content(*seed));
        }
    }

    /// Makes a revision; a day passes.
    pub(super) fn back_up(&self) -> RevisionId {
        self.back_up_with(&[])
    }

    pub(super) fn back_up_with(&self, tags: &[&str]) -> RevisionId {
        let stats = backup_tree(&self.store, SOURCE, &self.tree, tags).unwrap();
        self.clock.advance(DAY);
        stats.id
    }

    /// Writes one file, and makes a revision.
    pub(super) fn day(&mut self, files: &[(&str, u64)]) -> RevisionId {
        self.write(files);
        self.back_up()
    }

    pub(super) fn try_thin(&self, options: &ThinOptions) -> Result<ThinStats, ThinError> {
        thin::plan(&self.store, &Self::source(), options)?.execute(&NoProgress)
    }

    /// Thins, and checks that it does what its plan says.
    pub(super) fn thin(&self, options: &ThinOptions) -> ThinStats {
        let plan = thin::plan(&self.store, &Self::source(), options).unwrap();
        let (expected, revisions) = (*plan.expected(), plan.revisions().to_vec());
        let stats = plan.execute(&NoProgress).unwrap();
        assert_eq!(stats.counts, expected);
        assert_eq!(stats.skipped, []);
        let gone = revisions.iter().filter(|revision| revision.files_after == 0);
        let gone: BTreeSet<_> = gone.map(|revision| revision.id).collect();
        assert!(gone.is_subset(&stats.removed.iter().copied().collect()), "{stats:?}");
        assert_eq!(stats.replaced.len() + gone.len(), revisions.len());
        stats
    }

    pub(super) fn revisions(&self) -> Vec<Revision> {
        let history = self.store.history(Some(&Self::source())).unwrap();
        assert!(history.damaged.is_empty(), "{:?}", history.damaged);
        history.revisions
    }

    pub(super) fn files_of(&self, id: &RevisionId) -> Files {
        files_of(&self.store, id).unwrap()
    }

    /// Returns the files of each revision, oldest first, with the seeds of what is in them.
    pub(super) fn contents(&self) -> Vec<Vec<(String, u64)>> {
        let seeds = |revision: &Revision| {
            let files = self.files_of(&revision.record.id);
            files.into_iter().map(|(path, bytes)| (path, seed_of(&bytes))).collect()
        };
        self.revisions().iter().map(seeds).collect()
    }

    /// Returns the seed of what a file had before a date.
    pub(super) fn seed_at(&self, path: &str, date: Option<Timestamp>) -> Option<u64> {
        files_at(&self.store, SOURCE, date).unwrap().get(path).map(|bytes| seed_of(bytes))
    }

    pub(super) fn versions(&self) -> Vec<FileVersions> {
        let versions = Versions::open(&self.store, &Self::source(), PathFilter::all()).unwrap();
        versions.collect::<Result<_, _>>().unwrap()
    }

    /// Purges, and returns how many chunks of files and lists are left.
    pub(super) fn chunks_after_purge(&self) -> u64 {
        purge_now(&self.store).unwrap();
        chunkstore::ops::info(&self.store).unwrap().chunks
    }
}

/// Returns the seed of a content; tests use small ones.
pub(super) fn seed_of(bytes: &[u8]) -> u64 {
    (0..200).find(|seed| content(*seed) == bytes).expect("the content of some seed")
}

fn with_clock(vfs: &SimulatedVfs, seed: u64, clock: &SimulatedClock) -> Environment {
    Environment { clock: Arc::new(clock.clone()), ..environment(vfs.clone(), seed) }
}

/// Returns what is in each pack.
pub(super) fn records(vfs: &SimulatedVfs) -> Vec<(PathBuf, Vec<FooterRecord>)> {
    let of_pack = |path: PathBuf| {
        let bytes = vfs.read_all(&path).unwrap();
        let trailer = &bytes[bytes.len() - PackFooter::TRAILER_LEN..];
        let table = PackFooter::table_range(trailer, bytes.len() as u64).unwrap();
        let table = &bytes[usize::try_from(table.start).unwrap()..];
        let footer = PackFooter::decode(table, bytes.len() as u64).unwrap();
        (path, footer.records)
    };
    files_below(vfs, "packs").into_iter().map(of_pack).collect()
}

/// Chooses these revisions.
pub(super) fn chosen(ids: &[RevisionId]) -> Candidates {
    Candidates::Chosen(ids.iter().copied().collect())
}
