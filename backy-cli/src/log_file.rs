//! The log file that `-l` asks for: one line for each message, appended.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// An open log file.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
}

impl LogFile {
    /// Opens or creates a log file for appending.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).mode(0o640).open(path)?;
        Ok(Self { file })
    }

    /// Appends a line. A log that cannot be written does not end a backup.
    pub(crate) fn write(&self, level: &str, message: &str) {
        let time = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S %:z");
        let process = std::process::id();
        // One call, so that lines of two processes do not mix.
        let line = format!("{time} [{process}] {level} {}\n", message.replace('\n', " "));
        (&self.file).write_all(line.as_bytes()).ok();
    }
}
