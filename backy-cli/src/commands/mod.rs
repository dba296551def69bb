//! The commands: each one parses, calls one operation, and prints through [`Ui`].

mod backup;
mod completions;
mod damage;
mod diff;
mod distrust;
mod expire;
mod find;
mod forget;
mod index;
mod init;
mod nbd_server;
mod protect;
mod purge;
mod repair;
mod restore;
mod scrub;
mod status;
mod store;
mod tags;
mod verify;
mod whisper;

use clap::CommandFactory;

use crate::arguments::{Arguments, Command, IndexCommand, StoreCommand};
use crate::backup_directory::absolute;
use crate::command_error::CommandError;
use crate::ui::Ui;

/// Runs the command that the arguments name; without one, prints how to use the program.
pub(crate) fn run(arguments: &Arguments, ui: &Ui) -> Result<(), CommandError> {
    let directory = &absolute(&arguments.global.backup_dir)?;
    match &arguments.command {
        None => ui.print(&Arguments::command().render_help().to_string()),
        Some(Command::Init(arguments)) => init::run(directory, arguments, ui),
        Some(Command::Backup(arguments)) => backup::run(directory, arguments, ui),
        Some(Command::Restore(arguments)) => restore::run(directory, arguments, ui),
        Some(Command::Status(arguments)) => status::run(directory, arguments, ui),
        Some(Command::Find(arguments)) => find::run(directory, arguments, ui),
        Some(Command::Verify(arguments)) => verify::run(directory, arguments, ui),
        Some(Command::Scrub(arguments)) => scrub::run(directory, arguments, ui),
        Some(Command::Diff(arguments)) => diff::run(directory, arguments, ui),
        Some(Command::Distrust(arguments)) => distrust::run(directory, arguments, ui),
        Some(Command::Forget(arguments)) => forget::run(directory, arguments, ui),
        Some(Command::Tags(command)) => tags::run(directory, command, ui),
        Some(Command::Protect(arguments)) => protect::run(directory, arguments, true, ui),
        Some(Command::Unprotect(arguments)) => protect::run(directory, arguments, false, ui),
        Some(Command::Expire(arguments)) => expire::run(directory, arguments, ui),
        Some(Command::Purge(arguments)) => purge::run(directory, arguments, ui),
        Some(Command::NbdServer(arguments)) => nbd_server::run(directory, arguments, ui),
        Some(Command::Repair(arguments)) => repair::run(directory, arguments, ui),
        Some(Command::Index(IndexCommand::Rebuild)) => index::rebuild(directory, ui),
        Some(Command::Store(StoreCommand::Info)) => store::info(directory, ui),
        Some(Command::Whisper(command)) => whisper::run(directory, command, ui),
        Some(Command::Completions(arguments)) => completions::run(arguments, ui),
    }
}
