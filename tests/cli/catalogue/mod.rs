//! The catalogue of faults: what can go wrong, and what must happen then.
//!
//! Every row names a fault, the exit code, what the message names, and what proves it: a case that is run here by one driver, a test
//! elsewhere, or the reason why there is none. `docs/faults.md` shows the same table to people; a test compares the two.

#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot prepare fails it, and the place says what"
)]

mod configuration;
mod damage;
mod document;
mod driver;
mod hostile;
mod later;
mod moments;
mod nbd;
mod restore;
mod row;
mod running;
mod source;
mod stage;
mod store_io;
mod whisper;

use row::{Proof, Row};

/// All rows, by what is hit.
const SECTIONS: [(&str, &[Row]); 10] = [
    ("Sources", source::ROWS),
    ("Calls on the store that fail", store_io::ROWS),
    ("Damage", damage::ROWS),
    ("Files that were made to deceive", hostile::ROWS),
    ("Crashes, concurrency, clocks", running::ROWS),
    ("Clients of the NBD server", nbd::ROWS),
    ("Restores", restore::ROWS),
    ("Configuration and arguments", configuration::ROWS),
    ("Trees of whisper files", whisper::ROWS),
    ("What is not there yet", later::ROWS),
];

/// Runs all cases of a section and tells of all that are wrong.
#[track_caller]
fn prove(rows: &[Row]) {
    let mut problems = Vec::new();
    for row in rows {
        match row.proof {
            Proof::Case(case) => problems.extend(driver::prove(row.id, &case).err()),
            Proof::Scene(test) => test(),
            Proof::Tests(_) | Proof::None(_) => {}
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn faults_of_sources_end_as_the_catalogue_says() {
    prove(source::ROWS);
}

#[test]
fn failing_calls_end_as_the_catalogue_says() {
    prove(store_io::ROWS);
}

#[test]
fn damage_ends_as_the_catalogue_says() {
    prove(damage::ROWS);
}

#[test]
fn files_that_deceive_end_as_the_catalogue_says() {
    prove(hostile::ROWS);
}

#[test]
fn signals_locks_and_clocks_end_as_the_catalogue_says() {
    prove(running::ROWS);
}

#[test]
fn faults_of_targets_end_as_the_catalogue_says() {
    prove(restore::ROWS);
}

#[test]
fn faults_of_configurations_end_as_the_catalogue_says() {
    prove(configuration::ROWS);
}
