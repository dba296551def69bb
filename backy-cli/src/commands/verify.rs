//! `verify`: reads revisions from the store and checks every byte.

use std::path::Path;

use chunkstore::ops::{self, VerifyOptions};

use super::damage;
use crate::arguments::VerifyArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::VerifyReport;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &VerifyArguments, ui: &Ui) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let selection = directory.select(&store, &arguments.revision, ui)?;
    let ids = selection.ids();
    let options = VerifyOptions { all_data: arguments.all_data, ..VerifyOptions::default() };
    let stats = ops::verify(&store, &ids, &options, &ui.progress())?;
    damage::tell(&store, &stats.damaged, ui);
    for (pack, reason) in &stats.damaged_packs {
        ui.warning(&format!("pack {pack} is damaged: {reason}"));
    }
    ui.result(&VerifyReport::from(&stats), || {
        format!(
            "checked {}: {}, {}: {}",
            human::count(u64::try_from(ids.len()).unwrap_or(u64::MAX), "revision"),
            human::count(stats.checked_chunks, "chunk"),
            human::size(stats.checked_bytes),
            if stats.is_sound() { "no damage" } else { "DAMAGED" },
        )
    })?;
    if stats.proven_chunks != 0 {
        let proven = human::count(stats.proven_chunks, "chunk");
        ui.note(&format!(
            "not read again, proven by verified revisions: {proven}; --all-data reads them"
        ));
    }
    damage::tell_healed(&stats.healed, ui);
    damage::result(&stats.damaged, "a backup that meets the same bytes again heals them")?;
    if !stats.is_sound() {
        let count = u64::try_from(stats.damaged_packs.len()).unwrap_or(u64::MAX);
        return Err(CommandError::DamageFound { what: human::count(count, "damaged pack") });
    }
    damage::records(selection.damaged_count)
}
