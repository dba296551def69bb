//! `whisper backup`: a revision, then retention, then the space.

use std::path::Path;

use chunkstore::ops::{self, BackupOptions, TreeBackupOptions};

use super::back_up::{counted, finish, make_revision, summary, tell_problems};
use super::report::{PreviewReport, SpaceReport, TreeBackupReport, WhisperBackupReport};
use super::{WhisperDirectory, open_tree, require_whisper, retention};
use crate::backup_directory::absolute;
use crate::command_error::CommandError;
use crate::commands::backup::{choose_source, open_or_begin};
use crate::config::{Config, SourceConfig, SourceKind};
use crate::human;
use crate::reports::ThinReport;
use crate::tags;
use crate::ui::Ui;
use crate::whisper_arguments::WhisperBackupArguments;

/// Tag of revisions that are kept for the versions in them, whatever a schedule has.
pub(super) const TAG: &str = "whisper";

pub(super) fn run(
    path: &Path,
    arguments: &WhisperBackupArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let config = Config::read(path)?;
    let named = arguments.prefix.as_deref().map(absolute).transpose()?;
    let named = named.map(|filename| SourceConfig { kind: SourceKind::Whisper, filename });
    let source = choose_source(path, config.as_ref(), named.as_ref())?;
    require_whisper(path, source.kind)?;
    let tree = open_tree(&source.filename, &arguments.metrics.metrics)?;
    let tags = revision_tags(arguments, config.as_ref())?;
    let thin_options = retention::thin_options(
        config.as_ref(),
        arguments.retention,
        arguments.purge_days,
        &arguments.metrics.metrics,
    );
    let options = |name| TreeBackupOptions {
        read_all: arguments.read_all,
        accept_empty: arguments.force,
        ..TreeBackupOptions::new(BackupOptions {
            tags,
            sample: arguments.sample,
            threads: arguments.processes,
            ..BackupOptions::new(name)
        })
    };
    if arguments.noop {
        let WhisperDirectory { store, name, .. } = WhisperDirectory::open(path)?;
        let thinned = retention::thin(&store, &name, &thin_options, true, ui)?;
        let options = options(name);
        let (counts, problems) = ops::preview_tree(&store, &tree, &options, &ui.progress())?;
        tell_problems(&problems, counts.problems, ui);
        let report = PreviewReport::new(counts, &problems, thinned);
        ui.result(&report, || {
            format!(
                "would store {}, without what would be new in this one: {}",
                counted(&counts),
                retention::counted(&thinned, "would be ")
            )
        })?;
        return finish(&counts);
    }
    let (store, name) = open_or_begin(path, config.is_none(), source, ui)?;
    let options = options(name.clone());
    let stats = make_revision(&store, &tree, &options, ui)?;
    // The revision is there. What then fails is told, with what was done.
    let thinned = retention::thin(&store, &name, &thin_options, false, ui);
    let counts = thinned.as_ref().copied().unwrap_or_default();
    let purged = if retention::is_nothing(&counts) {
        Ok(None)
    } else {
        retention::purge_store(&store, ui).map(Some)
    };
    let report = WhisperBackupReport {
        backup: TreeBackupReport::new(&stats, &options.common),
        thinned: ThinReport::from(counts),
        space: purged.as_ref().ok().and_then(Option::as_ref).map(SpaceReport::from),
    };
    ui.result(&report, || {
        let mut text = summary(&stats);
        if !retention::is_nothing(&counts) {
            text.push('\n');
            text.push_str(&retention::counted(&counts, ""));
        }
        if let Ok(Some(purged)) = &purged {
            let (freed, deferred) = (purged.freed_bytes, purged.deferred_bytes);
            text.push_str(&format!(
                "; freed {}, deferred {}",
                human::size(freed),
                human::size(deferred)
            ));
        }
        text
    })?;
    thinned?;
    purged?;
    finish(&stats.counts)
}

/// Returns the tags of the revision: those of the schedule, manual ones, or the one that all such revisions can have.
fn revision_tags(
    arguments: &WhisperBackupArguments,
    config: Option<&Config>,
) -> Result<Vec<String>, CommandError> {
    let schedule = config.and_then(|config| config.schedule.clone()).unwrap_or_default();
    let mut tags = tags::parse_any(&arguments.tags)?;
    let own = tags.iter().position(|tag| tag == TAG).map(|index| tags.remove(index));
    if !tags.is_empty() {
        tags::parse(&tags.join(","), &schedule, arguments.force)?;
    }
    tags.extend(own);
    Ok(tags)
}
