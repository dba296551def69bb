//! `scrub`: reads packs as a whole, the stalest first, and checks every byte.

use std::path::Path;
use std::time::Duration;

use chunkstore::Store;
use chunkstore::ops::{self, Coverage, ScrubOptions};
use jiff::tz::TimeZone;

use super::damage;
use crate::arguments::ScrubArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::ScrubReport;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &ScrubArguments, ui: &Ui) -> Result<(), CommandError> {
    let store = BackupDirectory::open(path)?.open_store()?;
    let options = ScrubOptions {
        older_than: arguments.older_than.map(|age| Duration::from_secs(age.seconds())),
        bytes_per_second: arguments.limit,
        ..ScrubOptions::default()
    };
    let stats = ops::scrub(&store, &options, &ui.progress())?;
    damage::tell(&store, &stats.damaged, ui);
    for (pack, reason) in &stats.damaged_packs {
        ui.warning(&format!("pack {pack} is damaged: {reason}"));
    }
    let coverage = find_coverage(&store, ui)?;
    ui.result(&ScrubReport::new(&stats, &coverage), || {
        format!(
            "checked {}: {}, {}: {}\n{}",
            human::count(stats.checked_packs, "pack"),
            human::count(stats.checked_chunks, "chunk"),
            human::size(stats.checked_bytes),
            if stats.is_sound() { "no damage" } else { "DAMAGED" },
            tell_coverage(&coverage, &TimeZone::system()),
        )
    })?;
    damage::tell_healed(&stats.healed, ui);
    damage::result(&stats.damaged, "a backup that meets the same bytes again heals them")?;
    if !stats.is_sound() {
        let count = u64::try_from(stats.damaged_packs.len()).unwrap_or(u64::MAX);
        return Err(CommandError::DamageFound { what: human::count(count, "damaged pack") });
    }
    Ok(())
}

/// Returns how much of the store was read, and warns if that is not known.
pub(super) fn find_coverage(store: &Store, ui: &Ui) -> Result<Coverage, CommandError> {
    let coverage = ops::coverage(store)?;
    if let Some(damage) = &coverage.ledger_damage {
        ui.warning(&format!("{damage}: all packs count as never read"));
    }
    Ok(coverage)
}

/// Returns how much of the store was read, and when.
pub(super) fn tell_coverage(coverage: &Coverage, zone: &TimeZone) -> String {
    let Coverage { packs, read_packs, .. } = coverage;
    let packs = human::count(*packs, "pack");
    match coverage.stalest {
        None => format!("none of {packs} was read as a whole yet"),
        Some(stalest) if *read_packs == coverage.packs => {
            format!("all of {packs} were read since {}", human::time(stalest, zone))
        }
        Some(stalest) => format!(
            "{read_packs} of {packs} ({} of {}) were read since {}, the others never",
            human::size(coverage.read_bytes),
            human::size(coverage.pack_bytes),
            human::time(stalest, zone)
        ),
    }
}
