//! `protect` and `unprotect`: keep revisions whatever the schedule says, or no longer.

use std::path::Path;

use chunkstore::ops;

use super::damage;
use crate::arguments::ProtectArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::reports::ProtectReport;
use crate::ui::Ui;

pub(crate) fn run(
    path: &Path,
    arguments: &ProtectArguments,
    protected: bool,
    ui: &Ui,
) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let selection = directory.select(&store, &arguments.revision, ui)?;
    if !selection.is_by_name {
        // "The newest" may be one that cannot be read, and another would be changed in its place.
        damage::records(selection.damaged_count)?;
    }
    let ids = selection.ids();
    let stats = ops::protect(&store, &ids, protected)?;
    let report = ProtectReport { protected, changed: &stats.changed, unchanged: &stats.unchanged };
    ui.result(&report, || {
        let now = if protected { "is protected" } else { "is not protected" };
        ids.iter().map(|id| format!("revision {id} {now}\n")).collect()
    })?;
    if ids.is_empty() {
        ui.note("no revision matches: nothing was changed");
    }
    Ok(())
}
