//! Bugs that are planted, and the scenarios that find them. Without these nobody would know whether the search sees anything.

use support::explorer::{Bug, Scenario, explore, repeats};

use super::scenarios;

/// Schedules in which a bug must show.
const COUNT_MAX: usize = 2000;

#[track_caller]
fn assert_finds(bug: Bug, scenario: Scenario, preemptions: usize) {
    let scenario = scenario.with_bug(bug);
    let failure = match explore(&scenario, preemptions, COUNT_MAX) {
        Err(failure) => failure,
        Ok(explored) => panic!("{bug:?} is not found in {}: {explored}", scenario.name),
    };
    let reason = failure.reason.lines().next().unwrap_or_default();
    println!("{bug:?}: {} after {}: {reason}", failure.schedule, failure.explored);
    assert!(!failure.reason.contains("deadlock"), "{failure}");
}

#[test]
fn purge_that_sees_no_sessions_is_found() {
    assert_finds(Bug::SessionsUnseen, scenarios::reader_of_forgotten(), 1);
}

#[test]
fn purge_that_reads_pins_once_is_found() {
    assert_finds(Bug::PinsReadOnce, scenarios::reader_of_forgotten(), 2);
}

#[test]
fn sweep_that_does_not_wait_for_older_writers_is_found() {
    assert_finds(Bug::OlderWritersIgnored, scenarios::shared_with_forgotten(), 1);
}

#[test]
fn session_without_a_lock_is_found() {
    assert_finds(Bug::SessionsUnlocked, scenarios::two_backups(), 1);
}

#[test]
fn reader_that_does_not_look_again_is_found() {
    assert_finds(Bug::RecordReadOnce, scenarios::reader_of_forgotten(), 1);
}

#[test]
fn list_that_forgets_a_pack_before_it_has_left_is_found() {
    assert_finds(Bug::ListShortenedFirst, scenarios::rebuilt_index(), 1);
}

#[test]
fn edits_without_the_lock_of_the_history_are_found() {
    assert_finds(Bug::HistoryUnlocked, scenarios::doubted_revision(), 1);
}

#[test]
fn backups_without_the_lock_of_their_source_are_found() {
    assert_finds(Bug::SourceUnlocked, scenarios::same_source(), 1);
}

#[test]
fn purges_beside_each_other_are_found() {
    assert_finds(Bug::PurgeUnlocked, scenarios::two_purges(), 1);
}

#[test]
fn deadlock_is_reported_with_its_schedule() {
    let failure = explore(&scenarios::deadlock(), 1, COUNT_MAX).expect_err("there is one");
    assert!(failure.reason.starts_with("deadlock: one locks /store/locks/"), "{failure}");
    let again = failure.schedule.to_string().parse();
    assert_eq!(again, Ok(failure.schedule), "what is printed can be run again");
}

#[test]
fn schedule_determines_all_that_happens() {
    for scenario in [scenarios::two_backups(), scenarios::dying_purge()] {
        for seed in 0..10 {
            assert!(repeats(&scenario, seed), "{} of seed {seed} differs", scenario.name);
        }
    }
}
