//! Is anything noticed? Bugs that break one rule each are planted, one after the other, and the harness must see every one of
//! them, with the same searches that find nothing where no bug is planted.
//!
//! Bugs in the order of operations that run beside each other are planted in `tests/it/schedules/planted.rs`.

mod scenes;
mod searches;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use chunkstore::planted::{Bug, plant};
use support::attempt::panic_of;

/// Returns what a search found, if it found something.
type Search = fn() -> Option<String>;

/// Every bug with the search that must find it.
const TABLE: [(Bug, Search); 23] = [
    (Bug::FileNotSynced, searches::power_cuts),
    (Bug::NameNotSynced, searches::power_cuts),
    (Bug::DirectoryNotSynced, searches::power_cuts),
    (Bug::RemovalNotSynced, searches::power_cuts),
    (Bug::ReplacedInTwoSteps, searches::power_cuts),
    (Bug::StateRemovedFirst, searches::power_cuts),
    (Bug::ProtectionIgnored, searches::power_cuts),
    (Bug::RevisionUnmarked, searches::power_cuts),
    (Bug::EvidenceRemoved, searches::repairs),
    (Bug::RevisionsNotSynced, searches::removals_that_come_back),
    (Bug::SyncRetried, searches::failing_syncs),
    (Bug::SyncErrorIgnored, searches::failing_syncs),
    (Bug::WriteErrorIgnored, searches::failing_calls),
    (Bug::ListErrorIgnored, searches::failing_calls),
    (Bug::ChunkUnhashed, searches::flips),
    (Bug::DamageReadsAsZeros, searches::flips),
    (Bug::DocumentUnchecked, searches::flips),
    (Bug::PredictionUnconfirmed, scenes::chunk_list_after_a_change),
    (Bug::DoubtIgnored, scenes::backup_after_a_doubt),
    (Bug::IndexBeforePack, searches::power_cuts),
    (Bug::HitUnchecked, scenes::backup_of_what_the_index_has_alone),
    (Bug::ZerosTakenForDamage, scenes::image_with_zeros),
    (Bug::AdoptionNotSynced, searches::packs_of_a_dead_backup),
];

/// A bug is planted in the whole process: one search at a time.
static PLANTING: Mutex<()> = Mutex::new(());

/// Returns what a search finds with this bug, or without one.
fn find(bug: Option<Bug>, search: Search) -> Option<String> {
    plant(bug);
    let mut found = None;
    let panic = panic_of(|| found = search());
    plant(None);
    found.or(panic)
}

/// Plants the bugs of a part of the table; each search must find nothing without them.
fn assert_noticed(part: usize, parts: usize) {
    let _alone = PLANTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut unnoticed = Vec::new();
    for (bug, search) in TABLE.into_iter().skip(part).step_by(parts) {
        assert_eq!(find(None, search), None, "the search for {bug:?} finds something without it");
        match find(Some(bug), search) {
            Some(reason) => println!("planted {bug:?}: {}", reason.lines().next().unwrap_or("")),
            None => unnoticed.push(bug),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
}

#[test]
fn every_planted_bug_is_noticed_first_part() {
    assert_noticed(0, 4);
}

#[test]
fn every_planted_bug_is_noticed_second_part() {
    assert_noticed(1, 4);
}

#[test]
fn every_planted_bug_is_noticed_third_part() {
    assert_noticed(2, 4);
}

#[test]
fn every_planted_bug_is_noticed_fourth_part() {
    assert_noticed(3, 4);
}

#[test]
fn every_bug_is_in_the_table() {
    let name = |bug: Bug| format!("{bug:?}");
    let planted: BTreeSet<String> = TABLE.into_iter().map(|(bug, _)| name(bug)).collect();
    assert_eq!(planted, Bug::ALL.into_iter().map(name).collect());
}
