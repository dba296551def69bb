//! Making a backup directory: the steps that `init` and the first `backup --source` share.
//!
//! The store comes first and the configuration last, so that what an interrupted attempt leaves
//! behind is taken up by the next one. A store that is there already is used as it is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chunkstore::chunking::ChunkingParams;
use chunkstore::id::SourceName;
use chunkstore::ops::purge;
use chunkstore::source::{FileSource, SourceError, WhisperTree};
use chunkstore::{Store, StoreOptions};

use crate::backup_directory::{absolute, default_name, holds_store};
use crate::command_error::CommandError;
use crate::config::{self, Config, SourceConfig, SourceKind};
use crate::human;
use crate::own_files;
use crate::ui::Ui;

/// What a new backup directory shall be.
#[derive(Debug)]
pub(crate) struct InitOptions {
    /// Absolute path.
    pub(crate) directory: PathBuf,
    pub(crate) source: SourceConfig,
    pub(crate) name: Option<SourceName>,
    /// Absolute path of the store, if it is not in the directory itself.
    pub(crate) store: Option<PathBuf>,
    pub(crate) chunking: Option<ChunkingParams>,
    pub(crate) compression_level: Option<i32>,
}

/// Makes a backup directory and returns its store.
pub(crate) fn initialise(options: &InitOptions, ui: &Ui) -> Result<Store, CommandError> {
    let path = options.directory.join(config::FILE_NAME);
    if path.exists() {
        return Err(config::ConfigError::Exists { path }.into());
    }
    let store_path = options.store.as_ref().unwrap_or(&options.directory);
    own_files::refuse("source", &options.source.filename, &options.directory, store_path)?;
    check_source(&options.source, ui)?;
    create_directories(&options.directory)?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => default_name(&options.directory)?,
    };
    let store = open_or_create_store(options, ui)?;
    if options.store.is_some() && options.name.is_none() {
        refuse_name_in_use(&store, &name)?;
    }
    let config = Config {
        source: options.source.clone(),
        whisper: None,
        schedule: None,
        store: options.store.clone(),
        // Written even if it is the default: the directory may be moved.
        name: Some(name),
    };
    config.write_new(&options.directory)?;
    Ok(store)
}

/// Reads a type and a path as the command line has them.
pub(crate) fn parse_source(kind: &str, path: &Path) -> Result<SourceConfig, CommandError> {
    let kind = match kind {
        "file" => SourceKind::File,
        "whisper" => SourceKind::Whisper,
        other => {
            return Err(CommandError::Usage(format!(
                "unknown type of source {other:?}: there are \"file\" (an image file or block device) and \"whisper\" (a directory with whisper files)"
            )));
        }
    };
    let filename = absolute(path)?;
    if filename.to_str().is_none() {
        return Err(CommandError::Usage(format!(
            "the path of source {} is not UTF-8, a configuration cannot hold it",
            path.display()
        )));
    }
    Ok(SourceConfig { kind, filename })
}

/// Reads the chunking options: three lengths, or an average that gives the two others.
pub(crate) fn parse_chunking(
    lengths: Option<&str>,
    average: Option<&str>,
) -> Result<Option<ChunkingParams>, CommandError> {
    let wrong = |text: &str| CommandError::Usage(format!("not a chunk size: {text:?}"));
    let len = |text: &str| {
        human::parse_size(text).and_then(|len| u32::try_from(len).ok()).ok_or_else(|| wrong(text))
    };
    let (min, average, max) = match (lengths, average) {
        (Some(text), _) => {
            let lens = text.split(',').map(len).collect::<Result<Vec<_>, _>>()?;
            match lens.as_slice() {
                [min, average, max] => (*min, *average, *max),
                _ => return Err(wrong(text)),
            }
        }
        (None, Some(text)) => {
            let average = len(text)?;
            (average / 4, average, average.checked_mul(4).ok_or_else(|| wrong(text))?)
        }
        (None, None) => return Ok(None),
    };
    match ChunkingParams::new(min, average, max) {
        Ok(chunking) => Ok(Some(chunking)),
        Err(error) => Err(CommandError::Usage(error.to_string())),
    }
}

/// A source may be attached later, but what is no image never becomes one.
fn check_source(source: &SourceConfig, ui: &Ui) -> Result<(), CommandError> {
    let opened = match source.kind {
        SourceKind::File => FileSource::open(&source.filename).map(drop),
        SourceKind::Whisper => WhisperTree::open(&source.filename).map(drop),
    };
    match opened {
        Ok(()) => Ok(()),
        Err(error @ SourceError::Open { .. }) => {
            ui.warnings([&error]);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory, and those above it that are missing. The name of each is durable before anything is made below it, also of the
/// lowest one that is there already: whoever made that, perhaps an `init` that died, need not have synced it.
fn create_directories(path: &Path) -> Result<(), CommandError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|directory| !directory.is_dir()).collect();
    if let Some(present) = path.ancestors().nth(missing.len()) {
        sync_name_of(present).map_err(failed("sync the directory of", present))?;
    }
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            created => created.map_err(failed("create directory", directory))?,
        }
        if let Some(parent) = directory.parent() {
            config::sync_directory(parent).map_err(failed("sync the directory of", directory))?;
        }
    }
    Ok(())
}

/// Makes the name of a directory durable that was there before.
fn sync_name_of(directory: &Path) -> io::Result<()> {
    let directory = directory.canonicalize()?;
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    // A mounted file system has its name in no directory.
    if directory.metadata()?.dev() != parent.metadata()?.dev() {
        return Ok(());
    }
    match config::sync_directory(parent) {
        // Above one's own directory, as in many homes. Its owner made the names in it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CommandError {
    move |source| CommandError::File { action, path: path.to_owned(), source }
}

fn open_or_create_store(options: &InitOptions, ui: &Ui) -> Result<Store, CommandError> {
    let path = options.store.as_ref().unwrap_or(&options.directory);
    if holds_store(path) {
        let store = Store::open(path)?;
        refuse_other_parameters(&store, options)?;
        return Ok(store);
    }
    if let Err(source) = fs::create_dir(path)
        && source.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(CommandError::File { action: "create directory", path: path.clone(), source });
    }
    let mut store_options = StoreOptions::default();
    if let Some(chunking) = options.chunking {
        store_options.chunking = chunking;
    }
    if let Some(level) = options.compression_level {
        store_options.compression_level = level;
    }
    let store = Store::create(path, &store_options)?;
    ui.detail(&format!("created store {} in {}", store.id(), path.display()));
    // The store is there; what it lacks is made by the first purge.
    if let Err(error) = purge::restore_ballast(&store) {
        ui.warnings([&error]);
    }
    Ok(store)
}

fn refuse_other_parameters(store: &Store, options: &InitOptions) -> Result<(), CommandError> {
    let is_other_chunking = options.chunking.is_some_and(|chunking| *store.chunking() != chunking);
    let is_other_level =
        options.compression_level.is_some_and(|level| level != store.config().compression_level);
    if !is_other_chunking && !is_other_level {
        return Ok(());
    }
    Err(CommandError::Usage(format!(
        "store {} exists and has other parameters; they are fixed when a store is created",
        store.path().display()
    )))
}

fn refuse_name_in_use(store: &Store, name: &SourceName) -> Result<(), CommandError> {
    let history = store.history(Some(name))?;
    let count = history.revisions.len() + history.damaged.len();
    if count == 0 {
        return Ok(());
    }
    Err(CommandError::Refused {
        what: format!(
            "store {} already has {count} revisions of a source named {name}",
            store.path().display()
        ),
        hint: format!("use another name, or --name {name} to continue that history"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunking_is_read_from_three_lengths_or_an_average() {
        let three = parse_chunking(Some("16KiB, 64 KiB,262144"), None).unwrap();
        assert_eq!(three, Some(ChunkingParams::IMAGE));
        assert_eq!(parse_chunking(None, Some("64KiB")).unwrap(), Some(ChunkingParams::IMAGE));
        assert_eq!(parse_chunking(None, None).unwrap(), None);
        for wrong in ["", "1,2", "64KiB", "a,b,c", "64KiB,16KiB,256KiB", "1,2,3,4", "1EiB,1,1"] {
            assert!(parse_chunking(Some(wrong), None).is_err(), "{wrong:?}");
        }
        for wrong in ["0", "65000", "4GiB", "x"] {
            assert!(parse_chunking(None, Some(wrong)).is_err(), "{wrong:?}");
        }
    }
}
