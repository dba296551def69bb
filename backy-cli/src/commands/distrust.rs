//! `distrust`: doubts revisions, so that the next backup writes every chunk again.

use std::path::Path;

use chunkstore::ops;
use chunkstore::revision_spec::Days;
use jiff::tz::TimeZone;

use super::damage;
use crate::arguments::DistrustArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::reports::DistrustReport;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &DistrustArguments, ui: &Ui) -> Result<(), CommandError> {
    let days = Days { from: arguments.from, until: arguments.until };
    if days.is_empty() {
        return Err(CommandError::Usage("--until is a day before --from".to_owned()));
    }
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let spec = arguments.revision.as_deref().unwrap_or("all");
    let mut selection = directory.select(&store, spec, ui)?;
    if !selection.is_by_name {
        // "The newest" may be one that cannot be read, and another would be changed in its place.
        damage::records(selection.damaged_count)?;
    }
    let timezone = TimeZone::system();
    selection.revisions.retain(|revision| days.contain(revision.record.time, &timezone));
    let ids = selection.ids();
    let stats = ops::distrust(&store, &ids)?;
    let report = DistrustReport { changed: &stats.changed, unchanged: &stats.unchanged };
    ui.result(&report, || ids.iter().map(|id| format!("revision {id} is in doubt\n")).collect())?;
    ui.note(if ids.is_empty() {
        "no revision matches: nothing was changed"
    } else {
        "the next backup writes every chunk again"
    });
    Ok(())
}
