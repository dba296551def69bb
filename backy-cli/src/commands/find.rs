//! `find`: prints paths or ids of revisions.

use std::path::Path;

use crate::arguments::FindArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::reports::FoundReport;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &FindArguments, ui: &Ui) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let selection = directory.select(&store, &arguments.revision, ui)?;
    let found = selection.revisions.iter().map(|revision| {
        let path = store.revision_path(&revision.record);
        let path = std::path::absolute(&path).unwrap_or(path);
        FoundReport { id: revision.record.id, path: path.display().to_string() }
    });
    let found: Vec<_> = found.collect();
    ui.result(&found, || {
        let line = |found: &FoundReport| match arguments.uuid {
            true => format!("{}\n", found.id),
            false => format!("{}\n", found.path),
        };
        found.iter().map(line).collect()
    })
}
