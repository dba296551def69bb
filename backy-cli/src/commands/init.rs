//! `init`: writes a configuration and creates the store.

use std::path::Path;

use crate::arguments::InitArguments;
use crate::backup_directory::{BackupDirectory, absolute};
use crate::command_error::CommandError;
use crate::init::{InitOptions, initialise, parse_chunking, parse_source};
use crate::reports::InitReport;
use crate::ui::Ui;

pub(crate) fn run(
    directory: &Path,
    arguments: &InitArguments,
    ui: &Ui,
) -> Result<(), CommandError> {
    let name = arguments.name.as_deref().map(str::parse).transpose();
    let options = InitOptions {
        directory: directory.to_owned(),
        source: parse_source(&arguments.kind, &arguments.source)?,
        name: name.map_err(|error| CommandError::Usage(format!("--name: {error}")))?,
        store: arguments.store.as_deref().map(absolute).transpose()?,
        chunking: parse_chunking(
            arguments.chunk_size.as_deref(),
            arguments.average_chunk_size.as_deref(),
        )?,
        compression_level: arguments.compression_level,
    };
    let store = initialise(&options, ui)?;
    let made = BackupDirectory::open(directory)?;
    let name = made.source_name()?.expect("the configuration was just written");
    let report = InitReport {
        backup_dir: made.path(),
        store: store.path(),
        store_id: store.id(),
        name: &name,
        source: &options.source.filename,
    };
    ui.result(&report, || {
        format!(
            "{} is ready: `backy -b {} backup` backs {} up as {name}",
            directory.display(),
            directory.display(),
            options.source.filename.display(),
        )
    })
}
