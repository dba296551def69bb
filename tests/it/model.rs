//! Random histories against a map of images.
//!
//! After each step every revision that must be there is compared byte for byte, with its tags and its protection, and no
//! other one is there. The environment is simulated, so a case is determined by its steps and the seed that a failure prints;
//! `PROPTEST_RNG_SEED` runs that seed again, `BACKY_LONG_TESTS` another one each time, `PROPTEST_CASES` sets how many cases are run.

mod history;
mod misfortune;
mod world;

use std::env;
use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use self::world::World;

/// Cases without `PROPTEST_CASES`: about half a minute.
const CASES_DEFAULT: u32 = 160;

/// Seed of short runs: a change is judged by the histories that the one before was. Long runs take another one each time.
const SEED_DEFAULT: u64 = 1;

const SPAN_LEN: u64 = 64 << 20;
const SOURCES: [&str; 3] = ["alpha", "beta", "gamma"];
const HOUR: u64 = 3600;

/// Tags that a revision may get.
const TAGS: [&[&str]; 4] = [&[], &["daily"], &["manual:x"], &["daily", "former"]];

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
        tags: usize,
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
    Scrub,
    Forget {
        pick: usize,
    },
    /// The schedule keeps so many of the tag `daily`, a day each.
    Expire {
        source: usize,
        keep: u64,
        force: bool,
    },
    SetTags {
        pick: usize,
        tags: usize,
    },
    Protect {
        pick: usize,
        protected: bool,
    },
    Distrust {
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
    /// The process dies, or the power fails, at one of the calls that change something.
    Kill {
        what: Victim,
        call: u64,
        seed: u64,
    },
    /// A byte of a pack turns into another one.
    Damage {
        pack: usize,
        place: u64,
    },
}

/// What is stopped at a call.
#[derive(Clone, Debug)]
enum Victim {
    Backup { source: usize, edits: Vec<Edit> },
    Forget { pick: usize },
    Verify,
    Purge,
    RebuildIndex,
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
        8 => (source.clone(), edits(), 0..TAGS.len())
            .prop_map(|(source, edits, tags)| Step::Backup { source, edits, tags }),
        2 => (source.clone(), edits(), any::<u64>())
            .prop_map(|(source, edits, place)| Step::FailedBackup { source, edits, place }),
        2 => any::<usize>().prop_map(|pick| Step::Restore { pick }),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(pick, seed)| Step::Read { pick, seed }),
        2 => prop::collection::vec(any::<usize>(), 0..4).prop_map(|picks| Step::Verify { picks }),
        1 => Just(Step::Scrub),
        5 => any::<usize>().prop_map(|pick| Step::Forget { pick }),
        3 => (source.clone(), 1..4_u64, any::<bool>())
            .prop_map(|(source, keep, force)| Step::Expire { source, keep, force }),
        1 => (any::<usize>(), 0..TAGS.len()).prop_map(|(pick, tags)| Step::SetTags { pick, tags }),
        1 => (any::<usize>(), any::<bool>())
            .prop_map(|(pick, protected)| Step::Protect { pick, protected }),
        1 => any::<usize>().prop_map(|pick| Step::Distrust { pick }),
        4 => prop_oneof![2 => Just(0), 1 => 1..40_u64]
            .prop_map(|grace_hours| Step::Purge { grace_hours }),
        1 => Just(Step::DeleteIndex),
        1 => Just(Step::RebuildIndex),
        2 => Just(Step::Reopen),
        2 => (-30..60_i64).prop_map(|hours| Step::MoveClock { hours }),
        3 => (victim(), 0..400_u64, any::<u64>())
            .prop_map(|(what, call, seed)| Step::Kill { what, call, seed }),
    ]
}

fn victim() -> impl Strategy<Value = Victim> {
    let edits = prop::collection::vec(edit(), 0..5);
    prop_oneof![
        4 => (0..SOURCES.len(), edits)
            .prop_map(|(source, edits)| Victim::Backup { source, edits }),
        1 => any::<usize>().prop_map(|pick| Victim::Forget { pick }),
        1 => Just(Victim::Verify),
        3 => Just(Victim::Purge),
        1 => Just(Victim::RebuildIndex),
    ]
}

/// As [`step`], and now and then a pack rots.
fn step_or_damage() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => step(),
        1 => (any::<usize>(), any::<u64>())
            .prop_map(|(pack, place)| Step::Damage { pack, place }),
    ]
}

/// Runs random steps, each of which keeps what must be kept.
#[track_caller]
fn run_cases(step: impl Strategy<Value = Step>, divisor: u32) {
    let seed = match env::var("PROPTEST_RNG_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => seed,
        None if env::var_os("BACKY_LONG_TESTS").is_some() => RandomState::new().hash_one("seed"),
        None => SEED_DEFAULT,
    };
    let cases = env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config = ProptestConfig {
        cases: (cases.unwrap_or(CASES_DEFAULT) / divisor).max(1),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let steps = prop::collection::vec(step, 1..30);
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

#[test]
fn random_operations_keep_every_revision() {
    run_cases(step(), 1);
}

#[test]
fn damage_costs_what_was_hit_and_is_named() {
    run_cases(step_or_damage(), 2);
}
