//! Everything that is printed: results on stdout, the rest on stderr and in the log file.
//!
//! With `--json` stdout has one document, and each line on stderr is a JSON object; the one of an error has
//! the key `error`. A reader that closes stdout ends the printing quietly: no message, no exit code.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::arguments::{GlobalArguments, When};
use crate::command_error::CommandError;
use crate::exit_code;
use crate::hint;
use crate::log_file::LogFile;
use crate::progress::{ProgressReporter, Style};
use crate::signals::Signals;
use crate::syslog::Syslog;
use crate::whisper_arguments::JobArguments;

/// Prints for one command.
#[derive(Debug)]
pub(crate) struct Ui {
    backup_dir: PathBuf,
    json: bool,
    quiet: bool,
    verbose: bool,
    progress: When,
    signals: Signals,
    log: Option<LogFile>,
    syslog: Option<Syslog>,
    stdout_is_closed: AtomicBool,
}

impl Ui {
    pub(crate) fn new(arguments: &GlobalArguments) -> Self {
        Self {
            backup_dir: arguments.backup_dir.clone(),
            json: arguments.json,
            quiet: arguments.quiet,
            verbose: arguments.verbose,
            progress: arguments.progress,
            signals: Signals::default(),
            log: None,
            syslog: None,
            stdout_is_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_signals(&mut self, signals: Signals) {
        self.signals = signals;
    }

    /// Logs to this file from now on, beginning with the command line.
    pub(crate) fn open_log(&mut self, path: &Path) -> Result<(), CommandError> {
        let log = LogFile::open(path)
            .map_err(|source| CommandError::LogFile { path: path.to_owned(), source })?;
        let words: Vec<_> = std::env::args_os().map(|word| word.display().to_string()).collect();
        log.write("INFO", &format!("$ {}", words.join(" ")));
        self.log = Some(log);
        Ok(())
    }

    /// Says from now on as much, and there, as a job wants it.
    pub(crate) fn follow(&mut self, job: &JobArguments) {
        self.verbose |= job.debug;
        if job.syslog {
            match Syslog::open() {
                Ok(syslog) => self.syslog = Some(syslog),
                Err(error) => self.warning(&format!("nothing goes to the system log: {error}")),
            }
        }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the result of a command: `document` with `--json`, else `text`.
    pub(crate) fn result(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        if !self.json {
            return self.print(&text());
        }
        let document = serde_json::to_string_pretty(document)
            .expect("documents have text keys, and writing to memory does not fail");
        self.print(&document)
    }

    /// Prints `text` on stdout, and a line end unless it is empty or has one.
    pub(crate) fn print(&self, text: &str) -> Result<(), CommandError> {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.print_part(&format!("{text}{end}"))
    }

    /// Prints `text` on stdout as it stands.
    pub(crate) fn print_part(&self, text: &str) -> Result<(), CommandError> {
        if text.is_empty() || self.stdout_is_closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdout_is_closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            result => result.map_err(CommandError::Output),
        }
    }

    /// Tells what happens.
    pub(crate) fn note(&self, message: &str) {
        self.log("INFO", message);
        if !self.quiet {
            self.tell("note", message, message);
        }
    }

    /// Tells what only those want to know who ask for it.
    pub(crate) fn detail(&self, message: &str) {
        self.log("DEBUG", message);
        if self.verbose {
            self.tell("note", message, message);
        }
    }

    /// Tells what somebody should look after.
    pub(crate) fn warning(&self, message: &str) {
        self.log("WARNING", message);
        self.tell("warning", message, &format!("warning: {message}"));
    }

    /// Tells about errors that do not end the command.
    pub(crate) fn warnings<'a, E: Error + 'static>(&self, errors: impl IntoIterator<Item = &'a E>) {
        for error in errors {
            self.warning(&chain(error).join(": "));
        }
    }

    /// Tells how far an operation is.
    pub(crate) fn progress_line(&self, line: &str) {
        self.tell("progress", line, line);
    }

    /// Returns the receiver of an operation's progress.
    pub(crate) fn progress(&self) -> ProgressReporter<'_> {
        let is_silent = self.json || self.quiet;
        let style = match self.progress {
            When::Never => Style::Silent,
            When::Auto if is_silent => Style::Silent,
            _ if io::stderr().is_terminal() => Style::Bars,
            _ => Style::Lines,
        };
        ProgressReporter::new(self, style)
    }

    /// Returns whether a signal asked the command to stop.
    pub(crate) fn stop_wanted(&self) -> bool {
        self.signals.stop_wanted()
    }

    /// Prints the error, if there is one, and returns the exit code.
    pub(crate) fn finish(&self, result: Result<(), CommandError>) -> u8 {
        let Err(error) = result else {
            self.log("INFO", "Backy operation complete.");
            return exit_code::DONE;
        };
        let code = exit_code::of(&error, self.signals.number());
        let messages = chain(&error);
        let line = messages.join(": ");
        let hint = hint::of(&error, &self.backup_dir);
        self.log("ERROR", &line);
        self.log("INFO", &format!("Backy operation failed. Exit code {code}."));
        if self.json {
            let (message, causes) = messages
                .split_first()
                .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
            print_json_error(message, causes, code, hint.as_deref());
            return code;
        }
        to_stderr(&format!("error: {line}"));
        if let Some(hint) = hint {
            to_stderr(&format!("hint: {hint}"));
        }
        code
    }

    fn tell(&self, key: &str, message: &str, line: &str) {
        if self.json {
            to_stderr(&serde_json::json!({ key: message }).to_string());
        } else {
            to_stderr(line);
        }
    }

    fn log(&self, level: &str, message: &str) {
        if let Some(log) = &self.log {
            log.write(level, message);
        }
        if let Some(syslog) = &self.syslog {
            syslog.write(level, message);
        }
    }
}

/// Prints an error as one JSON object on stderr.
pub(crate) fn print_json_error(message: &str, causes: &[String], code: u8, hint: Option<&str>) {
    let mut object = serde_json::json!({ "error": message, "causes": causes, "exit_code": code });
    if let Some(hint) = hint {
        object["hint"] = hint.into();
    }
    to_stderr(&object.to_string());
}

/// Prints a line on stderr. Nobody can be told if that fails.
fn to_stderr(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Returns the messages of an error and of its causes.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        messages.push(error.to_string());
        cause = error.source();
    }
    messages
}
