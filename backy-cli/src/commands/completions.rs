//! `completions`: prints a completion script for a shell.

use clap::CommandFactory;

use crate::arguments::{Arguments, CompletionsArguments};
use crate::command_error::CommandError;
use crate::ui::Ui;

pub(crate) fn run(arguments: &CompletionsArguments, ui: &Ui) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "backy", &mut script);
    ui.print(&String::from_utf8_lossy(&script))
}
