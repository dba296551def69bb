//! `forget`: drops revisions.

use std::path::Path;

use chunkstore::Revision;
use chunkstore::ops;
use jiff::tz::TimeZone;

use super::damage;
use crate::arguments::ForgetArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::reports::ForgetReport;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &ForgetArguments, ui: &Ui) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let selection = directory.select(&store, &arguments.revision, ui)?;
    if !selection.is_by_name {
        // "The newest" may be one that cannot be read, and another would be dropped in its place.
        damage::records(selection.damaged_count)?;
    }
    let stats = ops::forget(&store, &selection.ids())?;
    let is_forgotten = |revision: &&Revision| stats.forgotten.contains(&revision.record.id);
    ui.result(&ForgetReport { forgotten: &stats.forgotten }, || {
        let zone = TimeZone::system();
        let line = |revision: &Revision| {
            let time = human::time(revision.record.time, &zone);
            format!("forgot revision {} of {time}\n", revision.record.id)
        };
        selection.revisions.iter().filter(is_forgotten).map(line).collect()
    })?;
    if stats.forgotten.is_empty() {
        ui.note("no revision matches: nothing was forgotten");
    } else {
        ui.note(&format!("`backy -b {} purge` gives their space back", path.display()));
    }
    Ok(())
}
