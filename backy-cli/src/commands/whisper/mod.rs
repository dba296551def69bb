//! Whisper sources: their part of `backup`, and the commands `whisper backup|restore|list|purge`.

mod back_up;
mod backup;
mod glob;
mod job;
mod list;
mod report;
mod restore;
mod retention;

use std::path::{Path, PathBuf};

use chunkstore::Store;
use chunkstore::id::SourceName;
use chunkstore::source::{MetricFilter, WhisperTree};

use self::glob::Glob;
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::config::{Config, SourceKind};
use crate::ui::Ui;
use crate::whisper_arguments::WhisperCommand;

pub(super) use self::back_up::{finish, make_revision, print};
pub(super) use self::report::TreeRestoreReport;
pub(super) use self::restore::{
    finish as finish_restore, summary as restore_summary, tell as tell_restore,
};
pub(super) use self::retention::{counted as thinning, thin_options};

/// Unique versions of each metric that are kept, and days after which metrics go that are no longer there: the defaults of
/// whisper-backup.
const RETENTION_DEFAULT: u32 = 5;
const PURGE_DAYS_DEFAULT: i32 = 45;

pub(super) fn run(directory: &Path, command: &WhisperCommand, ui: &Ui) -> Result<(), CommandError> {
    match command {
        WhisperCommand::Backup(arguments) => {
            job::run(directory, &arguments.job, arguments.noop, ui, || {
                backup::run(directory, arguments, ui)
            })
        }
        WhisperCommand::Restore(arguments) => {
            job::run(directory, &arguments.job, arguments.noop, ui, || {
                restore::run(directory, arguments, ui)
            })
        }
        WhisperCommand::List(arguments) => list::run(directory, arguments, ui),
        WhisperCommand::Purge(arguments) => {
            job::run(directory, &arguments.job, arguments.noop, ui, || {
                retention::run(directory, arguments, ui)
            })
        }
    }
}

/// A backup directory for whisper files.
struct WhisperDirectory {
    store: Store,
    name: SourceName,
    prefix: PathBuf,
    config: Config,
}

impl WhisperDirectory {
    fn open(path: &Path) -> Result<Self, CommandError> {
        let directory = BackupDirectory::open(path)?;
        let (Some(config), Some(name)) = (Config::read(path)?, directory.source_name()?) else {
            return Err(CommandError::Usage(format!(
                "{} has no configuration: nothing says which metrics are meant",
                path.display()
            )));
        };
        require_whisper(path, config.source.kind)?;
        let prefix = path.join(&config.source.filename);
        Ok(Self { store: directory.open_store()?, name, prefix, config })
    }
}

fn require_whisper(path: &Path, kind: SourceKind) -> Result<(), CommandError> {
    if kind == SourceKind::Whisper {
        return Ok(());
    }
    Err(CommandError::Refused {
        what: format!("{} is for an image, not for whisper files", path.display()),
        hint: "use a backup directory of its own for each source; they can share a store"
            .to_owned(),
    })
}

/// Returns what decides which metrics are meant; `None`: all.
fn filter(pattern: &str) -> Option<MetricFilter> {
    if pattern == "*" {
        return None;
    }
    let glob = Glob::new(pattern);
    Some(Box::new(move |name| glob.matches(name)))
}

fn open_tree(prefix: &Path, pattern: &str) -> Result<WhisperTree, CommandError> {
    let tree = WhisperTree::open(prefix)?;
    Ok(match filter(pattern) {
        Some(filter) => tree.with_filter(filter),
        None => tree,
    })
}
