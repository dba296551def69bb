//! `backup`: makes one revision of the source.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chunkstore::error::Error;
use chunkstore::id::{RevisionId, SourceName};
use chunkstore::ops::{self, BackupOptions, BackupStats, Recheck, SampleStats, TreeBackupOptions};
use chunkstore::source::{FileSource, Source, SourceError, WhisperTree};
use chunkstore::{Overlay, Store};

use super::{damage, whisper};
use crate::arguments::BackupArguments;
use crate::backup_directory::{BackupDirectory, holds_store};
use crate::command_error::CommandError;
use crate::config::{Config, SourceConfig, SourceKind};
use crate::human;
use crate::init::{InitOptions, initialise, parse_source};
use crate::own_files;
use crate::reports::BackupReport;
use crate::tags;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &BackupArguments, ui: &Ui) -> Result<(), CommandError> {
    if let Some(overlay) = &arguments.from_overlay {
        return back_up_overlay(path, overlay, arguments, ui);
    }
    let named = arguments.source.as_deref().map(split_source).transpose()?;
    let config = Config::read(path)?;
    let schedule = config.as_ref().and_then(|config| config.schedule.clone()).unwrap_or_default();
    let tags = tags::parse(&arguments.tags, &schedule, arguments.force)?;
    let source = choose_source(path, config.as_ref(), named.as_ref())?;
    let sample = arguments.sample;
    let options = |name| BackupOptions { tags, sample, ..BackupOptions::new(name) };
    // Opened first: where there is nothing to back up, nothing is created.
    match source.kind {
        SourceKind::File if arguments.read_all => Err(CommandError::Usage(
            "--read-all is for whisper sources: an image is always read".to_owned(),
        )),
        SourceKind::File => {
            let image = FileSource::open(&source.filename)?;
            let (store, name) = open_or_begin(path, config.is_none(), source, ui)?;
            back_up(&store, &image, &options(name), ui).map(drop)
        }
        SourceKind::Whisper => {
            let tree = WhisperTree::open(&source.filename)?;
            let (store, name) = open_or_begin(path, config.is_none(), source, ui)?;
            let options = TreeBackupOptions {
                read_all: arguments.read_all,
                accept_empty: arguments.force,
                ..TreeBackupOptions::new(options(name))
            };
            let stats = whisper::make_revision(&store, &tree, &options, ui)?;
            whisper::print(&stats, &options, ui)?;
            whisper::finish(&stats.counts)
        }
    }
}

/// Returns what is to be backed up: what is configured, or else what is named.
pub(super) fn choose_source(
    path: &Path,
    config: Option<&Config>,
    named: Option<&SourceConfig>,
) -> Result<SourceConfig, CommandError> {
    match (config, named) {
        (Some(config), named) => {
            let filename = configured_source(path, config, named)?;
            // It would change while it is read, and grow with every backup.
            let directory = BackupDirectory::open(path)?;
            own_files::refuse("source", &filename, path, &directory.store_path())?;
            Ok(SourceConfig { kind: config.source.kind, filename })
        }
        (None, Some(source)) => {
            refuse_foreign_directory(path)?;
            Ok(source.clone())
        }
        (None, None) => Err(nothing_configured(path)),
    }
}

/// Returns the store and the name of the source in it. Where nothing is configured yet, the source is.
pub(super) fn open_or_begin(
    path: &Path,
    is_new: bool,
    source: SourceConfig,
    ui: &Ui,
) -> Result<(Store, SourceName), CommandError> {
    let store = match is_new {
        true => begin(path, source, ui)?,
        false => BackupDirectory::open(path)?.open_store()?,
    };
    let name = BackupDirectory::open(path)?.source_name()?;
    Ok((store, name.expect("there is a configuration, or it was just written")))
}

/// Backs up what an overlay has become, as a revision of the source that it lies over. The overlay is not changed.
fn back_up_overlay(
    path: &Path,
    overlay: &Path,
    arguments: &BackupArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let directory = BackupDirectory::open(path)?;
    let schedule = directory.schedule().cloned().unwrap_or_default();
    let tags = tags::parse(&arguments.tags, &schedule, arguments.force)?;
    let store = directory.open_store()?;
    let source = open_overlay(overlay, &store)?;
    let base = &source.revision().record;
    if let Some(name) = directory.source_name()?
        && name != base.source
    {
        return Err(CommandError::Refused {
            what: format!(
                "overlay {} lies over a revision of {}, and {} is for {name}",
                overlay.display(),
                base.source,
                path.display()
            ),
            hint: format!("use the backup directory of {}", base.source),
        });
    }
    let (sample, parent) = (arguments.sample, Some(base.id));
    let options = BackupOptions { tags, sample, parent, ..BackupOptions::new(base.source.clone()) };
    let stats = back_up(&store, &source, &options, ui)?;
    ui.note(&format!(
        "overlay {} stays as it is, over revision {}; to go on from revision {}, make a new one over that, and remove this file",
        overlay.display(),
        base.id,
        stats.id
    ));
    Ok(())
}

/// An overlay that cannot be opened is a source that cannot be read.
fn open_overlay(path: &Path, store: &Store) -> Result<Overlay, CommandError> {
    Overlay::open_for_reading(path, store).map_err(|error| match error {
        Error::Storage { action: "open", source, .. } => {
            CommandError::Source(SourceError::Open { name: path.display().to_string(), source })
        }
        other => CommandError::Store(other),
    })
}

/// Makes the revision, and says what came of it.
fn back_up(
    store: &Store,
    source: &dyn Source,
    options: &BackupOptions,
    ui: &Ui,
) -> Result<BackupStats, CommandError> {
    let stats = ops::backup(store, source, options, &ui.progress())?;
    tell(&stats.warnings, stats.recheck, &stats.sample, &stats.healed, ui);
    let report = BackupReport::new(&stats, &options.source_name, &options.tags);
    ui.result(&report, || summary(&stats))?;
    Ok(stats)
}

/// Tells what a person should know of a revision that was made.
pub(super) fn tell(
    warnings: &[String],
    recheck: Option<Recheck>,
    sample: &SampleStats,
    healed: &[RevisionId],
    ui: &Ui,
) {
    for warning in warnings {
        ui.warning(warning);
    }
    if let Some(Recheck { id, is_sound: true }) = recheck {
        ui.note(&format!("distrusted revision {id} is verified now"));
    }
    if sample.in_doubt {
        ui.note(&format!(
            "something speaks against this source or its revisions: {} of it were read back and compared",
            human::size(sample.bytes)
        ));
    }
    damage::tell_healed(healed, ui);
}

fn split_source(text: &str) -> Result<SourceConfig, CommandError> {
    match text.split_once(':') {
        Some((kind, path)) if !path.is_empty() => parse_source(kind, Path::new(path)),
        _ => Err(CommandError::Usage(format!(
            "not a source: {text:?}, expected file:PATH or whisper:DIRECTORY"
        ))),
    }
}

/// Returns the configured source; relative paths begin at the backup directory.
fn configured_source(
    directory: &Path,
    config: &Config,
    named: Option<&SourceConfig>,
) -> Result<PathBuf, CommandError> {
    let filename = directory.join(&config.source.filename);
    if let Some(named) = named
        && (std::path::absolute(&filename).ok().as_deref() != Some(&named.filename)
            || config.source.kind != named.kind)
    {
        return Err(CommandError::Refused {
            what: format!(
                "{} is for source {}, not for {}",
                directory.display(),
                filename.display(),
                named.filename.display()
            ),
            hint: "use a backup directory of its own for each source; they can share a store"
                .to_owned(),
        });
    }
    Ok(filename)
}

/// A directory that holds other files was probably not meant to become a backup directory. What a start that was interrupted
/// has left is no other file.
fn refuse_foreign_directory(path: &Path) -> Result<(), CommandError> {
    let failed = |source| CommandError::File { action: "list", path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        // A fresh file system has the first one.
        let is_expected = name == "lost+found"
            || own_files::is_left_by_a_start(Path::new(&name))
            || holds_store(path);
        if !is_expected {
            return Err(CommandError::Refused {
                what: format!("{} is neither empty nor a backup directory", path.display()),
                hint: "use an empty directory, or `backy init` to make this one a backup directory"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

fn nothing_configured(path: &Path) -> CommandError {
    match BackupDirectory::open(path) {
        Ok(_) => CommandError::Usage(format!(
            "{} holds a store and no configuration: name what to back up with --source file:PATH or whisper:DIRECTORY",
            path.display()
        )),
        Err(error) => error,
    }
}

fn begin(path: &Path, source: SourceConfig, ui: &Ui) -> Result<Store, CommandError> {
    let options = InitOptions {
        directory: path.to_owned(),
        source,
        name: None,
        store: None,
        chunking: None,
        compression_level: None,
    };
    let store = initialise(&options, ui)?;
    ui.note(&format!("{} is now a backup directory", path.display()));
    Ok(store)
}

fn summary(stats: &BackupStats) -> String {
    let numbers = &stats.statistics;
    format!(
        "revision {}: {}, of which {} are new ({} stored), in {}; {} compared",
        stats.id,
        human::size(stats.size),
        human::size(numbers.new_bytes),
        human::size(numbers.stored_bytes),
        human::duration(numbers.duration_milliseconds),
        human::count(stats.sample.count, "sample"),
    )
}
