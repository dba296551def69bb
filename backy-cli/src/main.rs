//! The binary `backy`: arguments, configuration, printing, exit codes. The work is done by `chunkstore`.

mod arguments;
mod backup_directory;
mod command_error;
mod commands;
mod config;
mod exit_code;
mod hint;
mod human;
mod init;
mod log_file;
mod own_files;
mod progress;
mod reports;
mod signals;
mod syslog;
mod table;
mod tags;
mod ui;
mod whisper_arguments;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::command_error::CommandError;
use crate::signals::Signals;
use crate::ui::Ui;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return arguments::explain(&error),
    };
    let mut ui = Ui::new(&arguments.global);
    let result = run(&arguments, &mut ui);
    ExitCode::from(ui.finish(result))
}

fn run(arguments: &Arguments, ui: &mut Ui) -> Result<(), CommandError> {
    let signals = Signals::install().map_err(CommandError::Signals)?;
    ui.set_signals(signals);
    if let Some(path) = &arguments.global.log_file {
        ui.open_log(path)?;
    }
    if let Some(job) = arguments.job() {
        ui.follow(job);
    }
    commands::run(arguments, ui)
}
