//! The store of a random history, and what must be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chunkstore::environment::Environment;
use chunkstore::error::Error;
use chunkstore::id::RevisionId;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::{self, BackupError, BackupOptions, BackupStats};
use chunkstore::progress::NoProgress;
use chunkstore::source::Source;
use chunkstore::store::Store;
use chunkstore::time::Timestamp;
use chunkstore::vfs::Vfs;
use chunkstore::vfs::simulated::{
    FaultPlan, SeededEntropy, SimulatedClock, SimulatedVfs, environment,
};
use support::model_store::{
    ImageSource, Numbers, SparseImage, assert_reads, assert_restores, assert_sound, small_chunks,
    try_purge,
};

use super::misfortune::{Rot, try_reads};
use super::{Edit, HOUR, SOURCES, Step, TAGS};

/// A revision as it must be.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) image: SparseImage,
    pub(super) tags: BTreeSet<String>,
    pub(super) protected: bool,
}

/// Returns tags as a set.
pub(super) fn set<S: AsRef<str>>(tags: &[S]) -> BTreeSet<String> {
    tags.iter().map(|tag| tag.as_ref().to_owned()).collect()
}

/// The store, and what must be in it.
pub(super) struct World {
    pub(super) vfs: SimulatedVfs,
    pub(super) environment: Environment,
    clock: SimulatedClock,
    now: i64,
    pub(super) store: Store,
    /// Image of each source as it is now.
    pub(super) images: [SparseImage; SOURCES.len()],
    /// Revisions of each source, oldest first.
    pub(super) history: [Vec<RevisionId>; SOURCES.len()],
    pub(super) truth: BTreeMap<RevisionId, Truth>,
    pub(super) rot: Rot,
    /// Nobody was killed since the last purge: the index knows all packs, and nothing is in the trash.
    pub(super) is_tidy: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let vfs = SimulatedVfs::new();
        let clock = SimulatedClock::default();
        let environment = Environment {
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SeededEntropy::new(1)),
            ..environment(vfs.clone(), 1)
        };
        let store = Store::create_in(environment.clone(), "/store", &small_chunks()).unwrap();
        let mut world = Self {
            vfs,
            environment,
            clock,
            now: 0,
            store,
            images: Default::default(),
            history: Default::default(),
            truth: BTreeMap::new(),
            rot: Rot::default(),
            is_tidy: true,
        };
        world.move_clock(500_000);
        world
    }

    pub(super) fn run(&mut self, step: &Step) {
        // The log of calls is not looked at here, and would only grow.
        self.vfs.set_faults(FaultPlan::none());
        match step {
            Step::Backup { source, edits, tags } => self.back_up(*source, edits, *tags),
            Step::FailedBackup { source, edits, place } => self.fail(*source, edits, *place),
            Step::Restore { pick } => self.restore(*pick),
            Step::Read { pick, seed } => self.read(*pick, *seed),
            Step::Verify { picks } => self.verify(picks),
            Step::Scrub => self.scrub(),
            Step::Forget { pick } => self.forget(*pick),
            Step::Expire { source, keep, force } => self.expire(*source, *keep, *force),
            Step::SetTags { pick, tags } => self.set_tags(*pick, TAGS[*tags]),
            Step::Protect { pick, protected } => self.protect(*pick, *protected),
            Step::Distrust { pick } => self.distrust(*pick),
            Step::Purge { grace_hours } => self.purge(*grace_hours),
            Step::DeleteIndex => self.delete_index(),
            Step::RebuildIndex => {
                let stats = ops::rebuild_index(&self.store, &NoProgress).unwrap();
                assert!(stats.damaged.is_empty() || self.rot.is_there(), "{stats:?}");
            }
            Step::Reopen => self.reopen(),
            Step::MoveClock { hours } => self.move_clock(*hours),
            Step::Kill { what, call, seed } => self.kill(what, *call, *seed),
            Step::Damage { pack, place } => self.rot(*pack, *place),
        }
    }

    pub(super) fn reopen(&mut self) {
        self.store = Store::open_in(self.environment.clone(), "/store").unwrap();
    }

    fn purge(&mut self, grace_hours: u64) {
        let grace = Duration::from_secs(grace_hours * HOUR);
        let before = ops::info(&self.store).unwrap().stored_bytes;
        let options = PurgeOptions { grace, ballast_len: 0, ..PurgeOptions::default() };
        let summary = purge::preview(&self.store, &options, &NoProgress);
        let stats = match try_purge(&self.store, grace) {
            Ok(stats) => stats,
            // What a page needs that cannot be read is not known.
            Err(error) if self.rot.explains(&error) => return,
            Err(error) => panic!("purge: {error:?}"),
        };
        let after = ops::info(&self.store).unwrap().stored_bytes;
        let was_tidy = std::mem::replace(&mut self.is_tidy, true);
        assert!(grace_hours != 0 || stats.deferred_bytes == 0, "{stats:?}");
        if !self.rot.is_there() {
            assert_eq!(after, stats.kept_bytes + stats.deferred_bytes);
            assert!(
                !was_tidy || before + stats.repacked_bytes == after + stats.freed_bytes,
                "{before}, {after}, {stats:?}"
            );
            let summary = summary.unwrap();
            let told = (summary.free_bytes, summary.repack_bytes, summary.keep_bytes);
            let done = (stats.freed_bytes, stats.repacked_bytes, stats.kept_bytes);
            assert!(!was_tidy || told == done, "{summary:?}, {stats:?}");
            assert!(
                !was_tidy || summary.defer_bytes == stats.deferred_bytes,
                "{summary:?}, {stats:?}"
            );
        }
    }

    fn delete_index(&self) {
        match self.vfs.remove_file(&self.store.index_path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.unwrap(),
        }
    }

    fn move_clock(&mut self, hours: i64) {
        self.now += hours * 3_600_000;
        self.clock.set(Timestamp(1_767_225_600_000 + self.now));
    }

    pub(super) fn pick(&self, pick: usize) -> Option<RevisionId> {
        let count = self.truth.len();
        self.truth.keys().nth(pick.checked_rem(count)?).copied()
    }

    pub(super) fn edit(&mut self, source: usize, edits: &[Edit]) {
        let image = &mut self.images[source];
        for edit in edits {
            let place = |place: &u64| place.checked_rem(image.len()).unwrap_or(0);
            match edit {
                Edit::Write { place: at, len, seed } => {
                    image.write(place(at), &Numbers(*seed).bytes(*len));
                }
                Edit::WriteCommon { place: at, len } => {
                    image.write(place(at), &Numbers(7).bytes(*len));
                }
                Edit::Clear { place: at, len } => {
                    let start = place(at);
                    image.clear(start..(start + len).min(image.len()));
                }
                Edit::Resize { len } => image.resize(*len),
            }
        }
    }

    /// Backs up the image of a source as it is now.
    pub(super) fn try_back_up(
        &self,
        source: usize,
        tags: &[&str],
        image: &dyn Source,
    ) -> Result<BackupStats, BackupError> {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        let name = SOURCES[source].parse().unwrap();
        let options = BackupOptions { tags, ..BackupOptions::new(name) };
        ops::backup(&self.store, image, &options, &NoProgress)
    }

    pub(super) fn remember(&mut self, source: usize, id: RevisionId, tags: BTreeSet<String>) {
        self.history[source].push(id);
        let image = self.images[source].clone();
        self.truth.insert(id, Truth { image, tags, protected: false });
    }

    fn back_up(&mut self, source: usize, edits: &[Edit], tags: usize) {
        self.edit(source, edits);
        let doubts = self.doubts(source);
        let image = &self.images[source];
        let stats = match self.try_back_up(source, TAGS[tags], &ImageSource::new(image)) {
            Ok(stats) => stats,
            // What it took over and read back has rotted: there is no revision.
            Err(BackupError::Store(error)) if self.rot.explains(&error) => return,
            Err(error) => panic!("backup: {error:?}"),
        };
        if doubts.is_in_doubt {
            assert_eq!(stats.parent, None);
        } else {
            assert_eq!(stats.parent, self.history[source].last().copied());
            assert!(stats.warnings.is_empty() || self.rot.is_there(), "{:?}", stats.warnings);
        }
        let rechecked = stats.recheck.map(|recheck| recheck.id);
        assert_eq!(rechecked, doubts.rechecked(&stats.healed), "{:?}", stats.warnings);
        let statistics = stats.statistics;
        assert_eq!(statistics.read_bytes + statistics.hole_bytes, image.len());
        self.remember(source, stats.id, set(TAGS[tags]));
        if doubts.is_in_doubt {
            // All of it was written again.
            let reader = ImageReader::open(&self.store, &stats.id).unwrap();
            assert_reads(&reader, &self.images[source]);
        }
    }

    fn fail(&mut self, source: usize, edits: &[Edit], place: u64) {
        self.edit(source, edits);
        let image = self.images[source].clone();
        let place = place.checked_rem(image.len()).unwrap_or(0);
        match self.try_back_up(source, &[], &ImageSource::new(&image).failing_at(place)) {
            Err(BackupError::Source(_)) => {}
            Err(BackupError::Store(error)) if self.rot.explains(&error) => {}
            Err(error) => panic!("an error of the source, not {error}"),
            // All that cannot be read lies in a hole.
            Ok(stats) => self.remember(source, stats.id, BTreeSet::new()),
        }
    }

    fn restore(&self, pick: usize) {
        let Some(id) = self.pick(pick) else { return };
        if self.is_readable(&id) {
            assert_restores(&self.store, &id, &self.truth[&id].image);
        }
    }

    /// Reads a revision; it is right, or it cannot be read because of what has rotted.
    pub(super) fn is_readable(&self, id: &RevisionId) -> bool {
        let reader = ImageReader::open(&self.store, id);
        match reader.and_then(|reader| try_reads(&reader, &self.truth[id].image)) {
            Ok(()) => true,
            Err(error) if self.rot.explains(&error) => false,
            Err(error) => panic!("revision {id}: {error:?}"),
        }
    }

    fn read(&self, pick: usize, seed: u64) {
        let Some(id) = self.pick(pick) else { return };
        if !self.is_readable(&id) {
            return;
        }
        let truth = &self.truth[&id].image;
        let reader = ImageReader::open(&self.store, &id).unwrap();
        let mut numbers = Numbers(seed);
        for _ in 0..8 {
            let offset = numbers.below(truth.len() + 1);
            let len = numbers.below((truth.len() - offset).min(100_000) + 1);
            let len = usize::try_from(len).unwrap();
            let (mut found, mut expected) = (vec![1; len], vec![2; len]);
            reader.read_exact_at(&mut found, offset).unwrap();
            truth.read(offset, &mut expected);
            assert!(found == expected, "{len} bytes at {offset} differ");
        }
        let behind = reader.read_exact_at(&mut [0], truth.len());
        assert!(matches!(behind, Err(Error::InvalidOption { .. })));
    }

    /// Everything that must be there is there, and nothing else.
    pub(super) fn check(&self) {
        for (source, expected) in SOURCES.iter().zip(&self.history) {
            let name = source.parse().unwrap();
            let history = self.store.history(Some(&name)).unwrap();
            assert!(history.damaged.is_empty(), "{:?}", history.damaged);
            let found: Vec<RevisionId> =
                history.revisions.iter().map(|revision| revision.record.id).collect();
            assert_eq!(&found, expected);
            for revision in &history.revisions {
                let (truth, state) = (&self.truth[&revision.record.id], &revision.state);
                assert_eq!(
                    (set(&state.tags), state.protected),
                    (truth.tags.clone(), truth.protected)
                );
            }
        }
        for id in self.truth.keys() {
            self.is_readable(id);
        }
    }

    /// What is left after all is forgotten, the graces are over and nobody works here: nothing.
    pub(super) fn end(mut self) {
        let ids: Vec<RevisionId> = self.truth.keys().copied().collect();
        self.delete_index();
        if !self.rot.is_there() {
            assert_sound(&self.store, &ids);
        }
        ops::protect(&self.store, &ids, false).unwrap();
        ops::forget(&self.store, &ids).unwrap();
        self.move_clock(1000);
        try_purge(&self.store, Duration::ZERO).unwrap();
        let info = ops::info(&self.store).unwrap();
        assert_eq!((info.packs, info.chunks, info.revisions), (0, 0, 0));
        let quarantine = if self.rot.is_there() { None } else { Some("quarantine") };
        for directory in ["tmp", "sessions", "trash"].into_iter().chain(quarantine) {
            let entries = self.vfs.list(&Path::new("/store").join(directory)).unwrap();
            assert!(entries.is_empty(), "{directory}: {entries:?}");
        }
        let lists = self.vfs.list(Path::new("/store/condemned")).unwrap();
        assert!(lists.len() <= 1, "{lists:?}");
    }
}
