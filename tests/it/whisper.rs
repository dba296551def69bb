//! Whisper files: random schemas and histories against the Python package `whisper`, and what filling promises.
//!
//! The package runs in one process for each test (`tests/whisper/oracle.py`), with the interpreter in `BACKY_PYTHON`. Without
//! it these tests say that they were skipped. A failure prints the smallest case found and a seed, which `PROPTEST_RNG_SEED` runs
//! again; `PROPTEST_CASES` sets how many cases are run.

mod agreement;
mod cases;
mod golden;
mod oracle;
mod safe;
mod scenarios;

use std::env;
use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use support::long_tests;

const SEED_DEFAULT: u64 = 20_261_121;

/// Runs `check` on random cases: so many, and forty times as many in long runs, with a new seed each time.
#[track_caller]
fn run_cases<S: Strategy>(case_count: u32, strategy: S, check: impl Fn(S::Value)) {
    let seed = match env::var("PROPTEST_RNG_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => seed,
        None if long_tests::are_wanted() => RandomState::new().hash_one("seed"),
        None => SEED_DEFAULT,
    };
    let cases = env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config = ProptestConfig {
        cases: cases.unwrap_or(long_tests::choose(case_count, case_count * 40)),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&strategy, |case| {
        check(case);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("PROPTEST_RNG_SEED={seed}\n{failure}");
    }
}
