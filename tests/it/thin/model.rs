//! Random histories of files, thinned at random, against a plain model.
//!
//! The model knows of each revision which content of which version each file has in it. After each thinning the store has just that, every
//! version that is kept answers for every date that it covers, and what nobody needs is gone after a purge.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::env;
use std::hash::{BuildHasher, RandomState};

use chunkstore::format::{ObjectKind, PageEntry};
use chunkstore::id::{ChunkId, RevisionId};
use chunkstore::ops;
use chunkstore::ops::thin::ThinOptions;
use chunkstore::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use support::long_tests::are_wanted;
use support::memory_tree::{backup_tree, files_at};
use support::simulated_store::purge_now;

use super::scene::{DAY, SOURCE, Scene, content, keep, records, seed_of};

const FILES: [&str; 4] = ["a", "b/c", "b/d", "e"];
const CASES_DEFAULT: u32 = 24;
const SEED_DEFAULT: u64 = 1;

#[derive(Clone, Debug)]
enum Step {
    Write { file: usize, seed: u64 },
    Remove { file: usize },
    Unreadable { file: usize, is: bool },
    Exclude { file: usize, is: bool },
    Backup { is_tagged: bool },
    Untag { pick: usize },
    Forget { pick: usize },
    Thin { versions: u32, gone_days: Option<u32> },
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..FILES.len();
    prop_oneof![
        8 => (file.clone(), 1..6_u64).prop_map(|(file, seed)| Step::Write { file, seed }),
        2 => file.clone().prop_map(|file| Step::Remove { file }),
        1 => (file.clone(), any::<bool>()).prop_map(|(file, is)| Step::Unreadable { file, is }),
        1 => (file, any::<bool>()).prop_map(|(file, is)| Step::Exclude { file, is }),
        8 => prop::bool::weighted(0.2).prop_map(|is_tagged| Step::Backup { is_tagged }),
        1 => any::<usize>().prop_map(|pick| Step::Untag { pick }),
        1 => any::<usize>().prop_map(|pick| Step::Forget { pick }),
        3 => (0..4_u32, prop::option::of(0..6_u32))
            .prop_map(|(versions, gone_days)| Step::Thin { versions, gone_days }),
        1 => Just(Step::Purge),
    ]
}

/// A version of a file: since when, and the seed of its content.
type ModelVersion = (Timestamp, u64);

/// A file, a date, and the seed of what the file had before it.
type Question = (&'static str, Option<Timestamp>, u64);

#[derive(Clone, Debug)]
struct ModelRevision {
    time: Timestamp,
    is_tagged: bool,
    is_complete: bool,
    files: BTreeMap<&'static str, ModelVersion>,
}

/// A store, and what it should have.
struct World {
    scene: Scene,
    /// Oldest first.
    model: Vec<ModelRevision>,
}

impl World {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Write { file, seed } => {
                self.scene.tree.unreadable.remove(FILES[file]);
                self.scene.tree.write(FILES[file], &content(seed));
            }
            Step::Remove { file } => self.scene.tree.remove(FILES[file]),
            Step::Unreadable { file, is } => {
                let tree = &mut self.scene.tree;
                if is && tree.read_all(FILES[file]).is_some() {
                    tree.unreadable.insert(FILES[file].to_owned());
                } else {
                    tree.unreadable.remove(FILES[file]);
                }
            }
            Step::Exclude { file, is } => {
                let excluded = &mut self.scene.tree.excluded;
                if is {
                    excluded.insert(FILES[file].to_owned());
                } else {
                    excluded.remove(FILES[file]);
                }
            }
            Step::Backup { is_tagged } => self.back_up(is_tagged),
            Step::Untag { pick } => self.untag(pick),
            Step::Forget { pick } => {
                let ids = self.ids();
                if ids.len() < 2 {
                    return;
                }
                let place = pick % ids.len();
                ops::forget(&self.scene.store, &[ids[place]]).unwrap();
                self.model.remove(place);
            }
            Step::Thin { versions, gone_days } => self.thin(versions, gone_days),
            Step::Purge => self.purge(),
        }
        self.check();
    }

    fn ids(&self) -> Vec<RevisionId> {
        self.scene.revisions().iter().map(|revision| revision.record.id).collect()
    }

    fn back_up(&mut self, is_tagged: bool) {
        let tags: &[&str] = if is_tagged { &["daily"] } else { &[] };
        let made = backup_tree(&self.scene.store, SOURCE, &self.scene.tree, tags);
        self.scene.clock.advance(DAY);
        // A tree without a file is refused if there was one.
        let Ok(stats) = made else { return };
        let before = self.model.last().map(|revision| revision.files.clone()).unwrap_or_default();
        let mut files = BTreeMap::new();
        for path in FILES {
            let tree = &self.scene.tree;
            let is_hidden = tree.unreadable.contains(path) || tree.excluded.contains(path);
            let version = match (tree.read_all(path), before.get(path)) {
                // Whether an excluded file is there is not asked.
                (_, known) if tree.excluded.contains(path) => known.copied(),
                (Some(_), known) if is_hidden => known.copied(),
                (Some(bytes), Some((since, seed))) if seed_of(bytes) == *seed => {
                    Some((*since, *seed))
                }
                (Some(bytes), _) => Some((stats.time, seed_of(bytes))),
                (None, _) => None,
            };
            files.extend(version.map(|version| (path, version)));
        }
        let time = stats.time;
        self.model.push(ModelRevision { time, is_tagged, is_complete: true, files });
    }

    fn untag(&mut self, pick: usize) {
        let ids = self.ids();
        if ids.is_empty() {
            return;
        }
        let place = pick % ids.len();
        let edit = ops::TagEdit::Set(Vec::new());
        let options = ops::TagOptions::default();
        ops::edit_tags(&self.scene.store, &[ids[place]], &edit, &options).unwrap();
        self.model[place].is_tagged = false;
    }

    fn thin(&mut self, versions: u32, gone_days: Option<u32>) {
        let gone_after = gone_days.map(|days| DAY * days);
        // The clock of these histories is right however long nothing is backed up.
        let options = ThinOptions { gone_after, force: true, ..keep(versions) };
        let now = chunkstore::environment::Clock::now(&self.scene.clock);
        let expected = self.thinned(versions, gone_days, now);
        let kept: BTreeSet<(&str, ModelVersion)> = expected
            .iter()
            .flat_map(|it| it.files.iter().map(|(path, version)| (*path, *version)))
            .collect();
        let questions = self.questions(&kept);
        self.ask(&questions);
        self.scene.thin(&options);
        self.model = expected;
        self.ask(&questions);
    }

    /// Returns for each kept version the first date that it answers for and the last one.
    fn questions(&self, kept: &BTreeSet<(&'static str, ModelVersion)>) -> Vec<Question> {
        let mut questions = Vec::new();
        for (path, (since, seed)) in kept {
            questions.push((*path, Some(Timestamp(since.0 + 1)), *seed));
            let newer = kept.iter().filter(|(other, (time, _))| other == path && since < time);
            let last = newer.map(|(_, (time, _))| *time).min();
            // Versions that go now may be newer than this one, and older than the next that is kept.
            let end = last.unwrap_or(Timestamp(i64::MAX));
            if self.all_since(path).iter().all(|time| time <= since || end <= *time) {
                questions.push((*path, last, *seed));
            }
        }
        questions
    }

    fn ask(&self, questions: &[Question]) {
        for (path, date, seed) in questions {
            let files = files_at(&self.scene.store, SOURCE, *date).unwrap();
            let found = files.get(*path).map(|bytes| seed_of(bytes));
            assert_eq!(found, Some(*seed), "{path} before {date:?}");
        }
    }

    fn all_since(&self, path: &str) -> BTreeSet<Timestamp> {
        self.model.iter().filter_map(|it| it.files.get(path)).map(|(since, _)| *since).collect()
    }

    /// Returns what thinning should leave, by the words of the document.
    fn thinned(&self, versions: u32, gone_days: Option<u32>, now: Timestamp) -> Vec<ModelRevision> {
        let count = self.model.len();
        let complete = self.model.iter().rposition(|it| it.is_complete);
        let may_lose = |place: usize| {
            !self.model[place].is_tagged && place + 1 != count && Some(place) != complete
        };
        let mut after = self.model.clone();
        for path in FILES {
            let places: Vec<usize> =
                (0..count).rev().filter(|it| self.model[*it].files.contains_key(path)).collect();
            let Some(newest) = places.first() else { continue };
            let age = now.milliseconds_since(self.model[*newest].time);
            let is_gone = complete.is_some_and(|complete| *newest < complete)
                && gone_days.is_some_and(|days| u64::from(days) * 24 * 3_600_000 <= age);
            let mut seen = BTreeSet::new();
            let mut last = None;
            for place in places {
                let version = self.model[place].files[path];
                seen.insert(version.1);
                let is_too_many = versions != 0 && u32::try_from(seen.len()).unwrap() > versions;
                let is_again = last.replace(version) == Some(version);
                if may_lose(place) && (is_gone || is_too_many || is_again) {
                    after[place].files.remove(path);
                    after[place].is_complete = false;
                }
            }
        }
        // A revision that was without files before loses none.
        after.into_iter().filter(|it| it.is_complete || !it.files.is_empty()).collect()
    }

    /// Purges. A pack that has nothing that is kept is gone then; one that has something may have more.
    fn purge(&self) {
        purge_now(&self.scene.store).unwrap();
        let places = self.scene.versions().into_iter().flat_map(|file| file.occurrences);
        let chunks: HashSet<ChunkId> = places
            .flat_map(|place| place.entry.content.clone())
            .filter_map(|part| match part {
                PageEntry::Data { id, .. } => Some(id),
                PageEntry::Zero { .. } => None,
            })
            .collect();
        let seeds: BTreeSet<u64> = self
            .model
            .iter()
            .flat_map(|revision| revision.files.values().map(|(_, seed)| *seed))
            .collect();
        assert_eq!(chunks.len(), 3 * seeds.len(), "each content has three chunks");
        for (path, records) in records(&self.scene.vfs) {
            let mut data = records.iter().filter(|it| it.kind == ObjectKind::Data).peekable();
            let is_needed = data.peek().is_none() || data.any(|it| chunks.contains(&it.id));
            assert!(is_needed, "nothing needs {}", path.display());
        }
    }

    fn check(&self) {
        let expected: Vec<Vec<(String, u64)>> = self
            .model
            .iter()
            .map(|it| {
                it.files.iter().map(|(path, (_, seed))| ((*path).to_owned(), *seed)).collect()
            })
            .collect();
        assert_eq!(self.scene.contents(), expected);
        let revisions = self.scene.revisions();
        for (revision, model) in revisions.iter().zip(&self.model) {
            assert_eq!(revision.record.time, model.time);
            assert_eq!(revision.record.thinned.is_none(), model.is_complete);
        }
    }
}

fn config() -> ProptestConfig {
    let given = env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let mut config = ProptestConfig::with_cases(given.unwrap_or(CASES_DEFAULT));
    if env::var_os("PROPTEST_RNG_SEED").is_none() {
        let seed = if are_wanted() { RandomState::new().hash_one(0) } else { SEED_DEFAULT };
        config.rng_seed = RngSeed::Fixed(seed);
    }
    config.failure_persistence = None;
    config.max_shrink_iters = 2000;
    config
}

#[test]
fn random_histories_keep_what_the_document_says_and_nothing_else() {
    let config = config();
    let seed = config.rng_seed;
    let result = TestRunner::new(config).run(&prop::collection::vec(step(), 1..40), |steps| {
        let mut world = World { scene: Scene::new(), model: Vec::new() };
        for step in &steps {
            world.apply(step);
        }
        world.apply(&Step::Thin { versions: 2, gone_days: Some(1) });
        world.apply(&Step::Purge);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("seed {seed:?}: {failure}");
    }
}
