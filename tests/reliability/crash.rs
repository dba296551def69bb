//! Everything stops at any call, and the machine comes back with what a power cut may leave: the fault model
//! is that of `chunkstore::vfs::simulated`, the search that of `support::crash`.
//!
//! The checks use nothing but what a user would call; there is no repair for tests. A failure is made small and prints
//! what runs it again. `BACKY_LONG_TESTS=1` looks at `BACKY_CRASH_STATES` states, a million without it.

mod repack;

use std::env;

use support::attempt::panic_of;
use support::crash::{Cut, Depth, Explored, explore, replay};
use support::history::History;
use support::long_tests::choose;

/// Tests into which the random histories are divided, so that all processors have some.
const SHARDS: u64 = 8;

/// States of all random histories of a long run together.
fn state_count_max() -> u64 {
    let text = env::var("BACKY_CRASH_STATES").unwrap_or_else(|_| "1000000".to_owned());
    text.parse().expect("BACKY_CRASH_STATES is a number")
}

/// Looks at the states of the history in which each operation has something to do, at every `parts`-th call.
fn explore_everything(part: u64, parts: u64) {
    let depth = Depth {
        step: parts,
        first: part,
        modes: choose(2, 21),
        seeds: choose(1, 4),
        second_step: choose(20, 10),
        full_step: 8,
    };
    match explore(&History::of_everything(), &depth) {
        Ok(explored) => println!("crash: {explored}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_first_quarter() {
    explore_everything(0, 4);
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_second_quarter() {
    explore_everything(1, 4);
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_third_quarter() {
    explore_everything(2, 4);
}

#[test]
fn acknowledged_revisions_survive_a_stop_at_any_call_fourth_quarter() {
    explore_everything(3, 4);
}

/// Looks at the states of random histories: of one for every day, of as many as it takes for the share of this test in a long run.
fn explore_random(shard: u64) {
    let states_max = choose(1, state_count_max().div_ceil(SHARDS));
    let mut total = Explored::default();
    let mut seed = shard;
    while total.states < states_max {
        let history = History::random(seed, 16);
        // Every call of a history is stopped at in the one above; here it matters that there are many.
        let step = choose(23, 3);
        let depth = Depth {
            step,
            first: seed % step,
            modes: choose(2, 21),
            seeds: choose(1, 3),
            second_step: 10,
            full_step: choose(4, 16),
        };
        match explore(&history, &depth) {
            Ok(explored) => total += explored,
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
        seed += SHARDS;
    }
    println!("crash, random histories: {total}");
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_0() {
    explore_random(0);
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_1() {
    explore_random(1);
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_2() {
    explore_random(2);
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_3() {
    explore_random(3);
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_4() {
    explore_random(4);
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_5() {
    explore_random(5);
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_6() {
    explore_random(6);
}

#[test]
fn random_histories_survive_a_stop_at_any_call_shard_7() {
    explore_random(7);
}

/// Runs the state that `BACKY_CRASH` names, in the words of a failure: a history, a blank, a cut.
#[test]
fn failing_state_that_is_named_is_run_again() {
    let Ok(text) = env::var("BACKY_CRASH") else { return };
    let (history, cut) = text.split_once(' ').expect("a history, a blank, and a cut");
    let history: History = history.parse().expect("a history");
    let cut: Cut = cut.parse().expect("a cut");
    println!("{history:?}\n{cut:?}");
    match replay(&history, &cut) {
        Some(reason) => panic!("{reason}"),
        None => println!("everything holds"),
    }
}

#[test]
fn the_same_history_makes_the_same_states() {
    for seed in 0..4 {
        let history = History::random(seed, 8);
        let depth =
            Depth { step: 31, first: 0, modes: 3, seeds: 1, second_step: 0, full_step: 1000 };
        let explored = [0, 1].map(|_| explore(&history, &depth).expect("nothing fails"));
        assert_eq!(explored[0], explored[1], "seed {seed}");
        assert!(panic_of(|| panic!("a panic is noticed")).is_some());
    }
}
