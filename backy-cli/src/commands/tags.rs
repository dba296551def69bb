//! `tags`: changes the tags of revisions.

use std::path::Path;

use chunkstore::ops::{self, TagChange, TagEdit, TagOptions};

use super::damage;
use crate::arguments::TagsCommand;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::reports::{TagChangeReport, TagsReport};
use crate::tags;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, command: &TagsCommand, ui: &Ui) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let schedule = directory.schedule().cloned().unwrap_or_default();
    let (arguments, edit) = match command {
        TagsCommand::Set(new) => {
            let parse = |text: &str| tags::parse(text, &schedule, new.force);
            (&new.tags, TagEdit::Set(tags::or_none(&new.tags.tags, parse)?))
        }
        TagsCommand::Add(new) => {
            (&new.tags, TagEdit::Add(tags::parse(&new.tags.tags, &schedule, new.force)?))
        }
        TagsCommand::Remove(arguments) => {
            (arguments, TagEdit::Remove(tags::parse_any(&arguments.tags)?))
        }
    };
    let expect = arguments.expect.as_deref().map(|text| tags::or_none(text, tags::parse_any));
    let options = TagOptions { expect: expect.transpose()?, autoremove: arguments.autoremove };
    let store = directory.open_store()?;
    let selection = directory.select(&store, &arguments.revision, ui)?;
    if !selection.is_by_name {
        // "The newest" may be one that cannot be read, and another would be changed in its place.
        damage::records(selection.damaged_count)?;
    }
    let stats = ops::edit_tags(&store, &selection.ids(), &edit, &options)?;
    let report =
        TagsReport { revisions: stats.changes.iter().map(TagChangeReport::from).collect() };
    ui.result(&report, || stats.changes.iter().map(line).collect())?;
    if stats.changes.is_empty() {
        ui.note("no revision matches: nothing was changed");
    }
    if stats.changes.iter().any(|change| change.is_removed) {
        ui.note(&format!("`backy -b {} purge` gives the space back", path.display()));
    }
    Ok(())
}

fn line(change: &TagChange) -> String {
    let id = change.id;
    let change_of_tags = change_of_tags(&change.before, &change.after);
    let end = if change.is_removed { ", removed" } else { "" };
    format!("revision {id}: {change_of_tags}{end}\n")
}

/// Returns the tags, and what they become if that is something else.
pub(super) fn change_of_tags(before: &[String], after: &[String]) -> String {
    let text = |tags: &[String]| if tags.is_empty() { "-".to_owned() } else { tags.join(",") };
    if before == after { text(before) } else { format!("{} -> {}", text(before), text(after)) }
}
