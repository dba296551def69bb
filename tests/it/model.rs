//! Random operations against a map of images.
//!
//! After each operation every revision that must be there is compared byte for byte, and no other one is
//! there. The environment is simulated, so a case is determined by its steps and the seed that a failure prints;
//! `PROPTEST_RNG_SEED` runs that seed again, `PROPTEST_CASES` sets how many cases are run.

use std::collections::BTreeMap;
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chunkstore::environment::Environment;
use chunkstore::error::Error;
use chunkstore::id::RevisionId;
use chunkstore::image_reader::ImageReader;
use chunkstore::ops::purge::{self, PurgeOptions};
use chunkstore::ops::{self, BackupError};
use chunkstore::progress::NoProgress;
use chunkstore::store::Store;
use chunkstore::time::Timestamp;
use chunkstore::vfs::Vfs;
use chunkstore::vfs::simulated::{
    FaultPlan, SeededEntropy, SimulatedClock, SimulatedVfs, environment,
};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use support::model_store::{
    ImageSource, Numbers, SparseImage, assert_restores, assert_revision, assert_sound, purge_now,
    small_chunks, try_backup, try_purge,
};

/// Cases without `PROPTEST_CASES`: about half a minute.
const CASES_DEFAULT: u32 = 250;

const SPAN_LEN: u64 = 64 << 20;
const SOURCES: [&str; 3] = ["alpha", "beta", "gamma"];
const HOUR: u64 = 3600;

/// A change of the image of a source.
#[derive(Clone, Debug)]
enum Edit {
    /// Random bytes of this seed.
    Write {
        place: u64,
        len: usize,
        seed: u64,
    },
    /// Bytes that another source may have as well.
    WriteCommon {
        place: u64,
        len: usize,
    },
    Clear {
        place: u64,
        len: u64,
    },
    Resize {
        len: u64,
    },
}

#[derive(Clone, Debug)]
enum Step {
    Backup {
        source: usize,
        edits: Vec<Edit>,
    },
    /// The source cannot be read from some place on.
    FailedBackup {
        source: usize,
        edits: Vec<Edit>,
        place: u64,
    },
    Restore {
        pick: usize,
    },
    Read {
        pick: usize,
        seed: u64,
    },
    Verify {
        picks: Vec<usize>,
    },
    Forget {
        pick: usize,
    },
    Purge {
        grace_hours: u64,
    },
    DeleteIndex,
    RebuildIndex,
    Reopen,
    /// Hours, back too.
    MoveClock {
        hours: i64,
    },
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<u64>(), 1..40_000_usize, any::<u64>())
            .prop_map(|(place, len, seed)| Edit::Write { place, len, seed }),
        2 => (any::<u64>(), 1..200_000_usize)
            .prop_map(|(place, len)| Edit::WriteCommon { place, len }),
        2 => (any::<u64>(), 1..300_000_u64).prop_map(|(place, len)| Edit::Clear { place, len }),
        1 => Just(Edit::Resize { len: 0 }),
        4 => (0..400_000_u64).prop_map(|len| Edit::Resize { len }),
        1 => (0..3_u64, 0..10_000_u64)
            .prop_map(|(spans, more)| Edit::Resize { len: spans * SPAN_LEN + more }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let source = 0..SOURCES.len();
    let edits = || prop::collection::vec(edit(), 0..5);
    prop_oneof![
        8 => (source.clone(), edits()).prop_map(|(source, edits)| Step::Backup { source, edits }),
        2 => (source, edits(), any::<u64>())
            .prop_map(|(source, edits, place)| Step::FailedBackup { source, edits, place }),
        2 => any::<usize>().prop_map(|pick| Step::Restore { pick }),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(pick, seed)| Step::Read { pick, seed }),
        2 => prop::collection::vec(any::<usize>(), 0..4).prop_map(|picks| Step::Verify { picks }),
        5 => any::<usize>().prop_map(|pick| Step::Forget { pick }),
        4 => prop_oneof![2 => Just(0), 1 => 1..40_u64]
            .prop_map(|grace_hours| Step::Purge { grace_hours }),
        1 => Just(Step::DeleteIndex),
        1 => Just(Step::RebuildIndex),
        2 => Just(Step::Reopen),
        2 => (-30..60_i64).prop_map(|hours| Step::MoveClock { hours }),
    ]
}

/// The store, and what must be in it.
struct World {
    vfs: SimulatedVfs,
    environment: Environment,
    clock: SimulatedClock,
    now: i64,
    store: Store,
    /// Image of each source as it is now.
    images: [SparseImage; SOURCES.len()],
    /// Revisions of each source, oldest first.
    history: [Vec<RevisionId>; SOURCES.len()],
    truth: BTreeMap<RevisionId, SparseImage>,
}

impl World {
    fn new() -> Self {
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
        };
        world.move_clock(500_000);
        world
    }

    fn run(&mut self, step: &Step) {
        // The log of calls is not looked at here, and would only grow.
        self.vfs.set_faults(FaultPlan::none());
        match step {
            Step::Backup { source, edits } => self.back_up(*source, edits),
            Step::FailedBackup { source, edits, place } => self.fail(*source, edits, *place),
            Step::Restore { pick } => {
                if let Some(id) = self.pick(*pick) {
                    assert_restores(&self.store, &id, &self.truth[&id]);
                }
            }
            Step::Read { pick, seed } => self.read(*pick, *seed),
            Step::Verify { picks } => {
                let ids: Vec<_> = picks.iter().filter_map(|pick| self.pick(*pick)).collect();
                assert_sound(&self.store, &ids);
            }
            Step::Forget { pick } => self.forget(*pick),
            Step::Purge { grace_hours } => {
                let grace = Duration::from_secs(grace_hours * HOUR);
                let before = ops::info(&self.store).unwrap().stored_bytes;
                let options = PurgeOptions { grace, ballast_len: 0, ..PurgeOptions::default() };
                let summary = purge::preview(&self.store, &options, &NoProgress).unwrap();
                let stats = try_purge(&self.store, grace).unwrap();
                let after = ops::info(&self.store).unwrap().stored_bytes;
                assert_eq!(after, stats.kept_bytes + stats.deferred_bytes);
                assert_eq!(before + stats.repacked_bytes, after + stats.freed_bytes);
                let told = (summary.free_bytes, summary.repack_bytes, summary.keep_bytes);
                assert_eq!(told, (stats.freed_bytes, stats.repacked_bytes, stats.kept_bytes));
                assert_eq!(summary.defer_bytes, stats.deferred_bytes);
                assert!(*grace_hours != 0 || stats.deferred_bytes == 0, "{stats:?}");
            }
            Step::DeleteIndex => self.delete_index(),
            Step::RebuildIndex => {
                let stats = ops::rebuild_index(&self.store, &NoProgress).unwrap();
                assert!(stats.damaged.is_empty(), "{stats:?}");
            }
            Step::Reopen => {
                self.store = Store::open_in(self.environment.clone(), "/store").unwrap();
            }
            Step::MoveClock { hours } => self.move_clock(*hours),
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

    fn pick(&self, pick: usize) -> Option<RevisionId> {
        let count = self.truth.len();
        self.truth.keys().nth(pick.checked_rem(count)?).copied()
    }

    fn edit(&mut self, source: usize, edits: &[Edit]) {
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

    fn back_up(&mut self, source: usize, edits: &[Edit]) {
        self.edit(source, edits);
        let image = &self.images[source];
        let stats = try_backup(&self.store, SOURCES[source], &ImageSource::new(image)).unwrap();
        assert_eq!(stats.parent, self.history[source].last().copied());
        assert_eq!(stats.warnings, Vec::<String>::new());
        let statistics = stats.statistics;
        assert_eq!(statistics.read_bytes + statistics.hole_bytes, image.len());
        self.history[source].push(stats.id);
        self.truth.insert(stats.id, image.clone());
    }

    fn fail(&mut self, source: usize, edits: &[Edit], place: u64) {
        self.edit(source, edits);
        let image = &self.images[source];
        let reader =
            ImageSource::new(image).failing_at(place.checked_rem(image.len()).unwrap_or(0));
        match try_backup(&self.store, SOURCES[source], &reader) {
            Err(BackupError::Source(_)) => {}
            Err(error) => panic!("an error of the source, not {error}"),
            // All that cannot be read lies in a hole.
            Ok(stats) => {
                self.history[source].push(stats.id);
                self.truth.insert(stats.id, image.clone());
            }
        }
    }

    fn read(&self, pick: usize, seed: u64) {
        let Some(id) = self.pick(pick) else { return };
        let truth = &self.truth[&id];
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

    fn forget(&mut self, pick: usize) {
        let Some(id) = self.pick(pick) else { return };
        let stats = ops::forget(&self.store, &[id]).unwrap();
        assert_eq!(stats.forgotten, [id]);
        self.truth.remove(&id);
        for history in &mut self.history {
            history.retain(|known| *known != id);
        }
        let again = ops::forget(&self.store, &[id]);
        assert!(matches!(again, Err(Error::NoSuchRevision { .. })));
    }

    /// Everything that must be there is there, and nothing else.
    fn check(&self) {
        for (source, expected) in SOURCES.iter().zip(&self.history) {
            let name = source.parse().unwrap();
            let history = self.store.history(Some(&name)).unwrap();
            assert!(history.damaged.is_empty(), "{:?}", history.damaged);
            let found: Vec<RevisionId> =
                history.revisions.iter().map(|revision| revision.record.id).collect();
            assert_eq!(&found, expected);
        }
        for (id, truth) in &self.truth {
            assert_revision(&self.store, id, truth);
        }
    }

    /// What is left after all is forgotten, the graces are over and nobody works here: nothing.
    fn end(mut self) {
        let ids: Vec<RevisionId> = self.truth.keys().copied().collect();
        self.delete_index();
        assert_sound(&self.store, &ids);
        ops::forget(&self.store, &ids).unwrap();
        self.move_clock(1000);
        purge_now(&self.store);
        let info = ops::info(&self.store).unwrap();
        assert_eq!((info.packs, info.chunks, info.revisions), (0, 0, 0));
        for directory in ["tmp", "sessions", "trash", "quarantine"] {
            let entries = self.vfs.list(&Path::new("/store").join(directory)).unwrap();
            assert!(entries.is_empty(), "{directory}: {entries:?}");
        }
        let lists = self.vfs.list(Path::new("/store/condemned")).unwrap();
        assert!(lists.len() <= 1, "{lists:?}");
    }
}

#[test]
fn random_operations_keep_every_revision() {
    let seed = match env::var("PROPTEST_RNG_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => seed,
        None => RandomState::new().hash_one("seed"),
    };
    let cases = env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config = ProptestConfig {
        cases: cases.unwrap_or(CASES_DEFAULT),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let steps = prop::collection::vec(step(), 1..30);
    let result = TestRunner::new(config).run(&steps, |steps| {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.end();
        Ok(())
    });
    if let Err(failure) = result {
        panic!("PROPTEST_RNG_SEED={seed}\n{failure}");
    }
}
