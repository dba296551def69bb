//! A disk whose reads or writes fail under the store, by the script `tests/powerfail/eio`, which says how.

use super::power_loss::run_script;

#[test]
fn disk_whose_writes_fail_for_a_while_loses_nothing_and_needs_no_care() {
    run_script("eio", &["recovers"], &[]);
}

#[test]
fn file_system_that_turns_read_only_stays_readable_and_is_named() {
    run_script("eio", &["aborts"], &[]);
}

#[test]
fn disk_that_cannot_be_read_is_no_damage_and_a_bad_sector_is() {
    run_script("eio", &["unreadable"], &[]);
}

#[test]
fn disk_that_vanishes_under_a_backup_keeps_what_is_stored() {
    run_script("eio", &["vanishes"], &[]);
}
