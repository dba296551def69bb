//! `index rebuild`: makes the index anew from the packs.

use std::path::Path;

use chunkstore::ops;

use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::RebuildReport;
use crate::ui::Ui;

pub(crate) fn rebuild(path: &Path, ui: &Ui) -> Result<(), CommandError> {
    let store = BackupDirectory::open(path)?.open_store()?;
    let stats = ops::rebuild_index(&store, &ui.progress())?;
    ui.warnings(&stats.damaged);
    let report = RebuildReport {
        packs: stats.packs,
        chunks: stats.chunks,
        damaged: stats.damaged.iter().map(ToString::to_string).collect(),
    };
    ui.result(&report, || {
        let (packs, chunks) =
            (human::count(stats.packs, "pack"), human::count(stats.chunks, "chunk"));
        format!("rebuilt the index: {packs}, {chunks}")
    })?;
    if stats.damaged.is_empty() {
        return Ok(());
    }
    let count = human::count(u64::try_from(stats.damaged.len()).unwrap_or(u64::MAX), "pack");
    Err(CommandError::DamageFound { what: format!("{count} cannot be read and are left out") })
}
