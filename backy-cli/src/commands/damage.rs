//! What commands tell about damaged chunks.

use chunkstore::id::RevisionId;
use chunkstore::ops::DamagedChunk;
use chunkstore::{Store, TreeReader};

use crate::command_error::CommandError;
use crate::human;
use crate::ui::Ui;

/// Most ranges that are named for one chunk and revision; `--json` has all.
const RANGE_COUNT_MAX: usize = 8;

/// Tells which chunks are damaged, and what they hit. With `--json` the document has it.
pub(crate) fn tell(store: &Store, damaged: &[DamagedChunk], ui: &Ui) {
    if ui.is_json() {
        return;
    }
    for damage in damaged {
        let pack = damage.pack.map(|pack| format!(" in pack {pack}")).unwrap_or_default();
        let damaged = format!("chunk {}{pack} is damaged: ", damage.chunk);
        // The reason may begin with the same.
        let reason = damage.reason.strip_prefix(&damaged).unwrap_or(&damage.reason);
        ui.warning(&format!("{damaged}{reason}"));
        for hit in &damage.revisions {
            if let Some(files) = files_at(store, &hit.id, &hit.ranges) {
                ui.warning(&format!("revision {} is hit: {files}", hit.id));
                continue;
            }
            let named = hit.ranges.iter().take(RANGE_COUNT_MAX);
            let mut ranges: Vec<String> =
                named.map(|(offset, len)| format!("{len} bytes at byte {offset}")).collect();
            if RANGE_COUNT_MAX < hit.ranges.len() {
                ranges.push(format!("{} more ranges", hit.ranges.len() - RANGE_COUNT_MAX));
            }
            ui.warning(&format!("revision {} is hit: {}", hit.id, ranges.join(", ")));
        }
    }
}

/// Returns the names of the files that damage hits; `None` if the revision has none, or if they cannot be found out.
fn files_at(store: &Store, id: &RevisionId, ranges: &[(u64, u64)]) -> Option<String> {
    // An image has no files, and where a list is damaged the ranges say enough.
    let files = TreeReader::open(store, id).ok()?.files_at(ranges, RANGE_COUNT_MAX + 1).ok()?;
    let mut names: Vec<String> =
        files.iter().take(RANGE_COUNT_MAX).map(ToString::to_string).collect();
    if names.is_empty() {
        return None;
    }
    if RANGE_COUNT_MAX < files.len() {
        names.push("and more".to_owned());
    }
    Some(names.join(", "))
}

/// Warns as long as there are reports of mismatches.
pub(crate) fn tell_mismatches(store: &Store, ui: &Ui) -> Result<(), CommandError> {
    let mismatches = store.mismatches()?;
    if let Some(first) = mismatches.first() {
        let reports = count(mismatches.len(), "report");
        let place = first.parent().unwrap_or(first).display();
        ui.warning(&format!(
            "{reports} of what a backup read back wrongly in {place}: remove them when the cause is found"
        ));
    }
    Ok(())
}

/// Tells which revisions are damaged no more.
pub(crate) fn tell_healed(healed: &[RevisionId], ui: &Ui) {
    for id in healed {
        ui.note(&format!("revision {id} is healed: the store has again all that it needs"));
    }
}

/// Returns the error that ends a command which found damage.
pub(crate) fn result(damaged: &[DamagedChunk], consequence: &str) -> Result<(), CommandError> {
    if damaged.is_empty() {
        return Ok(());
    }
    let mut revisions: Vec<_> =
        damaged.iter().flat_map(|damage| &damage.revisions).map(|hit| hit.id).collect();
    revisions.sort_unstable();
    revisions.dedup();
    let chunks = count(damaged.len(), "damaged chunk");
    let revisions = count(revisions.len(), "revision");
    Err(CommandError::DamageFound { what: format!("{chunks} in {revisions}: {consequence}") })
}

/// Returns the error that ends a command which met records that it cannot read.
pub(crate) fn records(damaged_count: usize) -> Result<(), CommandError> {
    if damaged_count == 0 {
        return Ok(());
    }
    let what = format!("{} cannot be read", count(damaged_count, "revision record"));
    Err(CommandError::DamageFound { what })
}

/// Returns the error that ends a command which met lists of files that it cannot read.
pub(crate) fn lists(damaged_count: usize) -> Result<(), CommandError> {
    if damaged_count == 0 {
        return Ok(());
    }
    let what = format!("{} of files cannot be read", count(damaged_count, "list"));
    Err(CommandError::DamageFound { what })
}

fn count(number: usize, noun: &str) -> String {
    human::count(u64::try_from(number).unwrap_or(u64::MAX), noun)
}
