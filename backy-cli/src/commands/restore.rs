//! `restore`: writes a revision to a file, a block device or stdout.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use chunkstore::format::RevisionRecord;
use chunkstore::layout::Layout;
use chunkstore::ops::{self, RestoreOptions, RestoreStats};
use chunkstore::target::{FileTarget, FileTargetOptions, Sparse, StreamTarget, Target};

use super::damage;
use crate::arguments::{RestoreArguments, When};
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::config;
use crate::human;
use crate::reports::RestoreReport;
use crate::ui::Ui;

/// Files at the top of a store's directory. Its directories are in [`Layout::DIRECTORIES`].
const STORE_FILES: [&str; 3] = ["store.json", "index.redb", "ballast"];

pub(crate) fn run(path: &Path, arguments: &RestoreArguments, ui: &Ui) -> Result<(), CommandError> {
    let is_stream = arguments.target == Path::new("-");
    if is_stream {
        check_stream(arguments)?;
    }
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let revision = directory.select_one(&store, &arguments.revision, ui)?;
    let target: Box<dyn Target> = if is_stream {
        Box::new(open_stdout()?)
    } else {
        refuse_own_file(&arguments.target, &directory)?;
        let sparse = match arguments.sparse {
            When::Auto => Sparse::Auto,
            When::Always => Sparse::Always,
            When::Never => Sparse::Never,
        };
        let options = FileTargetOptions { overwrite: arguments.overwrite, sparse };
        Box::new(FileTarget::open(&arguments.target, &options)?)
    };
    let options = RestoreOptions {
        read_back: arguments.verify,
        keep_going: arguments.keep_going,
        threads: None,
    };
    let id = revision.record.id;
    let stats = ops::restore(&store, &id, target.as_ref(), &options, &ui.progress())?;
    let text = summary(&revision.record, &arguments.target, &stats);
    if is_stream {
        ui.note(&text);
    } else {
        ui.result(&RestoreReport::new(id, &arguments.target, &stats), || text)?;
    }
    damage::tell(&stats.damaged, ui);
    damage::result(&stats.damaged, "the target has zeros in their place")
}

fn check_stream(arguments: &RestoreArguments) -> Result<(), CommandError> {
    if arguments.verify {
        return Err(CommandError::Usage("--verify cannot read stdout back".to_owned()));
    }
    if io::stdout().is_terminal() {
        return Err(CommandError::Usage("stdout is a terminal: redirect it".to_owned()));
    }
    Ok(())
}

/// Returns stdout without the buffering by lines that the runtime puts around it.
fn open_stdout() -> Result<StreamTarget, CommandError> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(CommandError::Output)?;
    Ok(StreamTarget::new("stdout".to_owned(), Box::new(File::from(stdout))))
}

/// A restore over the store's files would destroy what it reads.
fn refuse_own_file(target: &Path, directory: &BackupDirectory) -> Result<(), CommandError> {
    let real_target = real_path(target);
    let first_name_in = |parent: &Path| {
        let inside = real_target.strip_prefix(real_path(parent)).ok()?;
        Some(inside.iter().next().unwrap_or_default().to_owned())
    };
    let is_config = first_name_in(directory.path()).is_some_and(|name| name == config::FILE_NAME);
    let is_store = first_name_in(&directory.store_path()).is_some_and(|name| {
        name.is_empty() || Layout::DIRECTORIES.iter().chain(&STORE_FILES).any(|own| name == *own)
    });
    if !is_config && !is_store {
        return Ok(());
    }
    Err(CommandError::Refused {
        what: format!("target {} belongs to the backup itself", target.display()),
        hint: "restore to a place outside of the store".to_owned(),
    })
}

/// Returns the path without symbolic links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = absolute.ancestors().find_map(|ancestor| {
        let rest = absolute.strip_prefix(ancestor).ok()?;
        // Joining nothing would put a slash behind the name of a file.
        let real = ancestor.canonicalize().ok()?;
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    real.unwrap_or(absolute)
}

fn summary(record: &RevisionRecord, target: &Path, stats: &RestoreStats) -> String {
    let target = if target == Path::new("-") { Path::new("stdout") } else { target };
    format!(
        "restored revision {} to {}: {}, of which {} are zeros, in {}",
        record.id,
        target.display(),
        human::size(stats.size),
        human::size(stats.zero_bytes),
        human::duration(stats.duration_milliseconds),
    )
}
