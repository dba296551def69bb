//! What a job of cron needs around its work: it begins at a random time, runs once at a time, and leaves a stamp when all went well.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chunkstore::error::Error;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::command_error::CommandError;
use crate::config::{Config, SourceKind};
use crate::ui::Ui;
use crate::whisper_arguments::JobArguments;

/// Names in the backup directory.
const LOCK_NAME: &str = "whisper.lock";
const STAMP_NAME: &str = "whisper.success";

/// Time between two looks at the lock, and at signals.
const INTERVAL: Duration = Duration::from_millis(50);

/// Does `work` as the arguments say. `changes_nothing`: there will be no stamp, and no lock but one that was named.
pub(super) fn run(
    directory: &Path,
    arguments: &JobArguments,
    changes_nothing: bool,
    ui: &Ui,
    work: impl FnOnce() -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    sleep(splay(arguments.splay), ui)?;
    let _lock = match (&arguments.lock_file, arguments.no_lock) {
        (_, true) => None,
        (Some(path), false) => Some(lock(path, arguments.lock_timeout, ui)?),
        // What is no backup directory yet must be empty to become one, and what is not meant for metrics stays as it is.
        (None, false) if changes_nothing || !holds_metrics(directory)? => None,
        (None, false) => Some(lock(&directory.join(LOCK_NAME), arguments.lock_timeout, ui)?),
    };
    work()?;
    if arguments.no_stamp || changes_nothing {
        return Ok(());
    }
    match &arguments.stamp_file {
        Some(path) => touch(path),
        None => touch(&directory.join(STAMP_NAME)),
    }
}

/// Returns whether this is a backup directory of whisper files.
fn holds_metrics(directory: &Path) -> Result<bool, CommandError> {
    let config = Config::read(directory)?;
    Ok(config.is_some_and(|config| config.source.kind == SourceKind::Whisper))
}

/// Returns a random time of at most so many seconds.
fn splay(seconds: u64) -> Duration {
    let milliseconds = seconds.saturating_mul(1000);
    let random = RandomState::new().hash_one(seconds);
    Duration::from_millis(random % milliseconds.saturating_add(1))
}

fn sleep(duration: Duration, ui: &Ui) -> Result<(), CommandError> {
    let begun = Instant::now();
    while let Some(left) = duration.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        if ui.stop_wanted() {
            return Err(Error::Cancelled.into());
        }
        thread::sleep(left.min(INTERVAL));
    }
    Ok(())
}

/// Locks a file until it is dropped. It stays: whoever removed it could lock out nobody.
fn lock(path: &Path, timeout_seconds: u64, ui: &Ui) -> Result<File, CommandError> {
    let failed =
        |action| move |source| CommandError::File { action, path: path.to_owned(), source };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed("open lock file"))?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(failed("lock")(errno.into())),
        }
        if timeout_seconds <= begun.elapsed().as_secs() {
            let path = path.to_owned();
            return Err(CommandError::JobLocked { path, seconds: timeout_seconds });
        }
        sleep(INTERVAL, ui)?;
    }
    // Who has it, for people. The lock holds without it.
    let text = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| (&file).write_all(text.as_bytes())).ok();
    Ok(file)
}

/// Makes a file, or sets its time to now.
fn touch(path: &Path) -> Result<(), CommandError> {
    let stamp = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        file.set_modified(SystemTime::now())
    };
    stamp().map_err(|source| CommandError::File { action: "touch", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splay_lies_within_its_limit() {
        assert_eq!(splay(0), Duration::ZERO);
        for _ in 0..1000 {
            assert!(splay(2) <= Duration::from_secs(2));
        }
    }
}
