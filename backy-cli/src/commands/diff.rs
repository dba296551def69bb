//! `diff`: prints which bytes differ between two revisions.
//!
//! Ranges are printed as they are found, so that memory does not depend on how many there are. The document of `--json` is
//! closed whatever happens: its last key says whether it is complete.

use std::path::Path;

use chunkstore::ops::{self, DiffStats};
use chunkstore::{Revision, Store};

use super::damage;
use crate::arguments::DiffArguments;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::ui::Ui;

/// Bytes that are printed at once.
const PRINT_LEN: usize = 64 << 10;

pub(crate) fn run(path: &Path, arguments: &DiffArguments, ui: &Ui) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let ([old, new], damaged_count) = select(&directory, &store, &arguments.revision, ui)?;
    let progress = ui.progress();
    let mut diff = ops::diff(&store, &old.record.id, &new.record.id, &progress)?;
    let mut printer = Printer { ui, text: String::new(), is_first: true };
    printer.begin(&old, &new);
    let mut result = Ok(());
    for range in diff.by_ref() {
        match range {
            Ok(range) => printer.range(range.start, range.end - range.start)?,
            Err(error) => result = Err(CommandError::from(error)),
        }
    }
    printer.end(&diff.stats(), result.is_ok())?;
    result?;
    damage::records(damaged_count)
}

/// Returns the two revisions, and how many records of the history cannot be read.
fn select(
    directory: &BackupDirectory,
    store: &Store,
    specs: &[String],
    ui: &Ui,
) -> Result<([Revision; 2], usize), CommandError> {
    match specs {
        [old, new] => {
            let old = directory.select_one(store, old, ui)?;
            Ok(([old, directory.select_one(store, new, ui)?], 0))
        }
        [spec] => {
            let selection = directory.select(store, spec, ui)?;
            let pair = <[Revision; 2]>::try_from(selection.revisions).map_err(|found| {
                let count =
                    human::count(u64::try_from(found.len()).unwrap_or(u64::MAX), "revision");
                CommandError::Usage(format!("{spec:?} selects {count}, and two can be compared"))
            })?;
            Ok((pair, selection.damaged_count))
        }
        more => {
            let what = format!("two revisions can be compared, not {}", more.len());
            Err(CommandError::Usage(what))
        }
    }
}

struct Printer<'a> {
    ui: &'a Ui,
    text: String,
    is_first: bool,
}

impl Printer<'_> {
    fn begin(&mut self, old: &Revision, new: &Revision) {
        if self.ui.is_json() {
            let [old, new] = [old, new].map(|revision| {
                serde_json::json!({ "id": revision.record.id, "size": revision.record.size })
            });
            self.text = format!("{{\n  \"old\": {old},\n  \"new\": {new},\n  \"ranges\": [");
        }
    }

    fn range(&mut self, offset: u64, len: u64) -> Result<(), CommandError> {
        if self.ui.is_json() {
            let comma = if self.is_first { "" } else { "," };
            self.text.push_str(&format!("{comma}\n    [{offset}, {len}]"));
        } else {
            self.text.push_str(&format!("{len} bytes at byte {offset}\n"));
        }
        self.is_first = false;
        if PRINT_LEN <= self.text.len() {
            self.ui.print_part(&std::mem::take(&mut self.text))?;
        }
        Ok(())
    }

    fn end(&mut self, stats: &DiffStats, is_complete: bool) -> Result<(), CommandError> {
        let DiffStats { changed_bytes, range_count, .. } = stats;
        if self.ui.is_json() {
            let indent = if self.is_first { "" } else { "\n  " };
            self.text.push_str(&format!(
                "{indent}],\n  \"changed_bytes\": {changed_bytes},\n  \"range_count\": {range_count},\n  \
                 \"complete\": {is_complete}\n}}\n"
            ));
        } else {
            self.text.push_str(&format!(
                "{} in {} of {}{}\n",
                human::size(*changed_bytes),
                human::count(*range_count, "range"),
                human::size(stats.old_size.max(stats.new_size)),
                if is_complete { "" } else { ", and the rest is unknown" },
            ));
        }
        self.ui.print_part(&self.text)
    }
}
