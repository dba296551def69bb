//! `restore`: writes a revision to a file, a block device or stdout.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use chunkstore::format::{RevisionKind, RevisionRecord};
use chunkstore::ops::{self, RestoreOptions, RestoreStats, TreeRestoreOptions};
use chunkstore::target::{
    Existing, FileTarget, FileTargetOptions, Sparse, StreamTarget, Target, WhisperTarget,
};
use chunkstore::{Revision, Store, TreeReader};

use super::{damage, whisper};
use crate::arguments::{RestoreArguments, When};
use crate::backup_directory::BackupDirectory;
use crate::command_error::CommandError;
use crate::human;
use crate::own_files;
use crate::reports::RestoreReport;
use crate::ui::Ui;

pub(crate) fn run(path: &Path, arguments: &RestoreArguments, ui: &Ui) -> Result<(), CommandError> {
    let is_stream = arguments.target == Path::new("-");
    if is_stream {
        check_stream(arguments)?;
    }
    let directory = BackupDirectory::open(path)?;
    let store = directory.open_store()?;
    let revision = directory.select_one(&store, &arguments.revision, ui)?;
    if revision.record.kind == RevisionKind::Tree {
        return restore_tree(&directory, &store, &revision, arguments, ui);
    }
    let target: Box<dyn Target> = if is_stream {
        Box::new(open_stdout()?)
    } else {
        // It would destroy what it reads.
        own_files::refuse("target", &arguments.target, directory.path(), &directory.store_path())?;
        let sparse = match arguments.sparse {
            When::Auto => Sparse::Auto,
            When::Always => Sparse::Always,
            When::Never => Sparse::Never,
        };
        let overwrite = arguments.overwrite || arguments.delta;
        let options = FileTargetOptions { overwrite, sparse };
        Box::new(FileTarget::open(&arguments.target, &options)?)
    };
    let options = RestoreOptions {
        read_back: arguments.verify,
        keep_going: arguments.keep_going,
        delta: arguments.delta,
        ..RestoreOptions::default()
    };
    let id = revision.record.id;
    let stats = ops::restore(&store, &id, target.as_ref(), &options, &ui.progress())?;
    let text = summary(&revision.record, &arguments.target, &stats);
    if is_stream {
        ui.note(&text);
    } else {
        ui.result(&RestoreReport::new(id, &arguments.target, &stats), || text)?;
    }
    damage::tell(&store, &stats.damaged, ui);
    damage::result(&stats.damaged, "the target has zeros in their place")
}

/// Writes the files of one revision to a directory.
fn restore_tree(
    directory: &BackupDirectory,
    store: &Store,
    revision: &Revision,
    arguments: &RestoreArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let target = &arguments.target;
    let is_image_only = arguments.delta || arguments.verify || arguments.sparse != When::Auto;
    if is_image_only || target == Path::new("-") {
        return Err(CommandError::Usage(
            "revision has files: it needs a directory, and no --delta, --verify or --sparse"
                .to_owned(),
        ));
    }
    own_files::refuse("target", target, directory.path(), &directory.store_path())?;
    let reader = TreeReader::open(store, &revision.record.id)?;
    if let Some(thinned) = &revision.record.thinned {
        ui.warning(&format!(
            "this revision was thinned: it has {} of {} metrics; `backy whisper restore --date` takes the others from other revisions",
            reader.entry_count(),
            thinned.complete_entries
        ));
    }
    let existing = if arguments.overwrite { Existing::Replace } else { Existing::Refuse };
    let size = Some(revision.record.size);
    let options = TreeRestoreOptions { existing, size, ..TreeRestoreOptions::default() };
    let whisper_target = WhisperTarget::new(target);
    let progress = ui.progress();
    let stats =
        ops::restore_tree(store, &mut reader.entries(), &whisper_target, &options, &progress)?;
    whisper::tell_restore(&stats, ui);
    let report = whisper::TreeRestoreReport::new(target, false, 0, &stats);
    ui.result(&report, || whisper::restore_summary(target, false, &stats))?;
    whisper::finish_restore(&stats)
}

fn check_stream(arguments: &RestoreArguments) -> Result<(), CommandError> {
    if arguments.verify {
        return Err(CommandError::Usage("--verify cannot read stdout back".to_owned()));
    }
    if arguments.delta {
        return Err(CommandError::Usage("--delta cannot read what stdout holds".to_owned()));
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

fn summary(record: &RevisionRecord, target: &Path, stats: &RestoreStats) -> String {
    let target = if target == Path::new("-") { Path::new("stdout") } else { target };
    let kept = match stats.kept_bytes {
        0 => String::new(),
        kept => format!(" and {} were there already", human::size(kept)),
    };
    format!(
        "restored revision {} to {}: {}, of which {} are zeros{kept}, in {}",
        record.id,
        target.display(),
        human::size(stats.size),
        human::size(stats.zero_bytes),
        human::duration(stats.duration_milliseconds),
    )
}
