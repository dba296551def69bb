//! The protocol of sessions and condemnations, in every order that matters: `docs/concurrency.md`.
//!
//! Each scenario is run in all schedules with so many preemptions; `support::explorer` says what that means. A failure prints
//! its schedule; `BACKY_SCHEDULE="..."` with the name of the test runs that one again, and tells what happened.

mod planted;
mod scenarios;

use support::explorer::{Scenario, explore, sample};
use support::long_tests;

/// Most schedules of one scenario: a sample for every day, minutes in the long form.
fn count_max() -> usize {
    long_tests::choose(70, 8_000)
}

/// Runs a scenario, and prints how much of it.
#[track_caller]
fn assert_holds(scenario: &Scenario, preemptions: usize) {
    let bound = long_tests::choose(preemptions, preemptions + 1);
    match explore(scenario, bound, count_max()) {
        Ok(explored) => println!("{}: {explored}", scenario.name),
        Err(failure) => panic!("{}: {failure}", scenario.name),
    }
    match sample(scenario, 1, long_tests::choose(10, 1_000), 3) {
        Ok(explored) => println!("{}: random: {explored}", scenario.name),
        Err(failure) => panic!("{}: random: {failure}", scenario.name),
    }
}

#[test]
fn backup_keeps_what_it_shares_with_a_forgotten_revision() {
    assert_holds(&scenarios::shared_with_forgotten(), 1);
}

#[test]
fn two_purges_beside_a_backup_lose_nothing() {
    assert_holds(&scenarios::two_purges(), 1);
}

#[test]
fn reader_gets_a_forgotten_revision_or_is_told_that_there_is_none() {
    assert_holds(&scenarios::reader_of_forgotten(), 1);
}

#[test]
fn restore_and_verify_get_a_forgotten_revision_or_are_told() {
    assert_holds(&scenarios::restore_and_verify_of_forgotten(), 1);
}

#[test]
fn two_backups_of_the_same_bytes_keep_them() {
    assert_holds(&scenarios::two_backups(), 1);
}

#[test]
fn two_backups_of_a_source_come_one_after_the_other() {
    assert_holds(&scenarios::same_source(), 1);
}

#[test]
fn backup_keeps_what_it_takes_over_from_a_forgotten_parent() {
    assert_holds(&scenarios::forgotten_parent(), 1);
}

#[test]
fn index_that_is_built_anew_offers_nothing_that_goes_away() {
    assert_holds(&scenarios::rebuilt_index(), 1);
}

#[test]
fn chunks_that_are_written_again_are_kept_in_one_copy_or_the_other() {
    assert_holds(&scenarios::rewritten_chunks(), 1);
}

#[test]
fn backup_that_dies_anywhere_harms_nothing() {
    assert_holds(&scenarios::dying_backup(), 1);
}

#[test]
fn purge_that_dies_anywhere_harms_nothing() {
    assert_holds(&scenarios::dying_purge(), 1);
}

#[test]
fn expiry_of_a_source_that_is_backed_up_keeps_the_rest() {
    assert_holds(&scenarios::expiring_source(), 1);
}

#[test]
fn edits_of_a_state_are_not_lost() {
    assert_holds(&scenarios::doubted_revision(), 1);
}

#[test]
fn doubt_beside_a_verification_has_an_answer() {
    assert_holds(&scenarios::doubt_while_verified(), 1);
}
