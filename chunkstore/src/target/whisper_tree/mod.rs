//! A directory of whisper files as the target of a restore, while Graphite may be writing to it.
//!
//! Document: `docs/durability.md`, section "A restore of a tree".
//!
//! Invariants:
//!
//! - A name that ends in `.wsp` never stands for a file that is not complete: new files are written under temporary names.
//! - A file that exists is written to only under the lock that its writers take (`flock`), and only slot by slot.
//! - Nothing outside of the directory is touched: below it no symbolic link is followed, neither to a directory nor to a file.

mod directories;
mod existing;
mod leftovers;
mod new_file;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, accessat, syncfs};
use rustix::io::Errno;

use self::directories::{Directories, Seen};
use self::existing::Update;
use self::new_file::NewFile;
use super::TargetError;
use crate::format::{TreeEntry, TreePath};
use crate::whisper::{Backfill, BackfillStats};

/// How often a file is tried that others create, remove or replace at the same time.
const ATTEMPT_COUNT_MAX: usize = 16;

/// What to do with a file that exists and has another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Fill its gaps from the backup. It is not replaced, and is set aside only if it is no whisper file.
    Backfill(Backfill),
    /// Put the file of the backup in its place, at once and whole.
    Replace,
    /// Leave it as it is.
    Skip,
    /// Leave it as it is and call it a problem.
    Refuse,
}

impl Default for Existing {
    fn default() -> Self {
        Self::Backfill(Backfill::Safe)
    }
}

/// Why one file could not be written. The others are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetFileError {
    /// Somebody else has it locked all the time.
    #[error("it was locked by somebody else for {} seconds", .timeout.as_secs_f64())]
    Locked {
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It exists, with another content, and such files are refused.
    #[error("it exists and has another content")]
    Exists,
    /// What has its name, or that of a directory above it, is something else.
    #[error("{name} is {found}")]
    Occupied {
        /// The name that is taken.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// What the backup has of it is no whisper file, so that the one in the target cannot be filled from it.
    #[error("the backup of it is no whisper file: {reason}")]
    NotWhisper {
        /// What is wrong.
        reason: String,
    },
    /// Others created, removed or replaced it whenever it was to be written.
    #[error("it was replaced by somebody else again and again")]
    Unsteady,
    /// The caller wants to stop.
    #[error("waiting for it was ended")]
    Ended,
    /// The operating system refuses.
    #[error("cannot {action} it")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why a file was not written.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is a matter of this file.
    File(TargetFileError),
    /// It would go the same way with all the others.
    Target(TargetError),
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It was absent and is there now.
    Written { keeps_owner: bool },
    /// It had another content, which was replaced.
    Replaced { keeps_owner: bool },
    /// Gaps of it were filled.
    Backfilled { stats: BackfillStats, len: u64 },
    /// It has all that the backup could give.
    Unchanged,
    /// It exists, and was to be left alone.
    Skipped,
    /// It exists and is so long that memory has to be taken for it first. Nothing was done.
    NeedsRoom { len: u64 },
}

/// What became of a file, and of what was in its place.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) outcome: Outcome,
    /// The name that a file which was no whisper file has now, in the same directory.
    pub(crate) set_aside: Option<OsString>,
}

/// How files are restored.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) existing: Existing,
    pub(crate) lock_timeout: Duration,
    /// The present, in seconds since 1970.
    pub(crate) now: u32,
    /// The present, as the names of corrupt files tell it.
    pub(crate) stamp: String,
    /// Nothing is written.
    pub(crate) is_dry_run: bool,
    /// Begins the random part of temporary names.
    pub(crate) token: u64,
}

/// The bytes of a file as the backup has them.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// Among those of others.
    Part(&'a [u8]),
    /// On their own: they need not be copied.
    Whole(&'a mut Vec<u8>),
}

impl Content<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Part(bytes) => bytes,
            Self::Whole(bytes) => bytes,
        }
    }
}

/// A directory of whisper files.
#[derive(Debug)]
pub struct WhisperTarget {
    name: String,
    directory: PathBuf,
}

impl WhisperTarget {
    /// Names a directory. It need not exist: a restore creates it.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { name: directory.display().to_string(), directory: directory.to_owned() }
    }

    /// Returns the name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the directory if need be, and looks whether it can be written.
    pub(crate) fn begin(&self, rules: Rules) -> Result<TreeWriter, TargetError> {
        let io_error = |action, source| TargetError::Io { action, name: self.name.clone(), source };
        if !rules.is_dry_run {
            fs::create_dir_all(&self.directory).map_err(|source| io_error("create", source))?;
        }
        let top = match directories::open_top(&self.directory) {
            Ok(top) => Some(top),
            Err(Errno::NOENT) if rules.is_dry_run => None,
            Err(errno) => return Err(io_error("open", errno.into())),
        };
        let seen = Seen::default();
        if let Some(top) = &top {
            if !rules.is_dry_run {
                accessat(top, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                    .map_err(|errno| io_error("write to", errno.into()))?;
            }
            seen.note_file_system(top).map_err(|source| io_error("look at", source))?;
        }
        Ok(TreeWriter {
            name: self.name.clone(),
            top,
            rules,
            seen,
            next_temporary: AtomicU64::new(0),
        })
    }
}

/// What all threads of a restore share.
#[derive(Debug)]
pub(crate) struct TreeWriter {
    name: String,
    /// `None` in a dry run if there is no such directory.
    top: Option<File>,
    rules: Rules,
    seen: Seen,
    next_temporary: AtomicU64,
}

impl TreeWriter {
    /// Returns the part of one thread.
    pub(crate) fn file_writer<'a>(
        &'a self,
        is_ended: &'a (dyn Fn() -> bool + Sync),
    ) -> FileWriter<'a> {
        FileWriter {
            tree: self,
            is_ended,
            directories: Directories::new(self),
            found: Vec::new(),
            source: Vec::new(),
        }
    }

    /// Makes durable what was written: on every file system that a directory was on.
    pub(crate) fn finish(&self) -> Result<(), TargetError> {
        if self.rules.is_dry_run {
            return Ok(());
        }
        for file_system in self.seen.file_systems() {
            syncfs(&*file_system).map_err(|errno| self.target_error("sync", errno))?;
        }
        Ok(())
    }

    fn target_error(&self, action: &'static str, errno: Errno) -> TargetError {
        TargetError::Io { action, name: self.name.clone(), source: errno.into() }
    }

    /// Tells apart what is wrong with one file and what is wrong with all.
    fn fault(&self, action: &'static str, errno: Errno) -> Fault {
        match errno {
            Errno::NOSPC
            | Errno::DQUOT
            | Errno::ROFS
            | Errno::IO
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM => Fault::Target(self.target_error(action, errno)),
            _ => Fault::File(TargetFileError::Io { action, source: errno.into() }),
        }
    }

    /// Returns a number that no temporary name had before.
    fn temporary_number(&self) -> u64 {
        self.rules.token.wrapping_add(self.next_temporary.fetch_add(1, Ordering::Relaxed))
    }
}

/// Writes files, one after another. Close neighbours in the tree cost less.
pub(crate) struct FileWriter<'a> {
    tree: &'a TreeWriter,
    is_ended: &'a (dyn Fn() -> bool + Sync),
    directories: Directories<'a>,
    /// What a file in the target holds.
    found: Vec<u8>,
    /// What the backup has of it.
    source: Vec<u8>,
}

impl FileWriter<'_> {
    /// Brings a file to the target as the rules say. What it holds there is read only if it has at most `room` bytes.
    pub(crate) fn write(
        &mut self,
        entry: &TreeEntry,
        content: &mut Content<'_>,
        room: u64,
    ) -> Result<Restored, Fault> {
        let mut set_aside = None;
        let mut may_exist = false;
        for _ in 0..ATTEMPT_COUNT_MAX {
            let Some(place) = self.directories.enter(entry)? else {
                return Ok(Restored { outcome: self.absent_in_dry_run(), set_aside });
            };
            if may_exist || !place.is_new {
                let update = self.update(entry, content, room)?;
                match update {
                    Update::Done(outcome) => return Ok(Restored { outcome, set_aside }),
                    Update::SetAside(name) => {
                        set_aside = Some(name);
                        if self.tree.rules.is_dry_run {
                            let outcome = self.absent_in_dry_run();
                            return Ok(Restored { outcome, set_aside });
                        }
                    }
                    Update::Absent if self.tree.rules.is_dry_run => {
                        let outcome = self.absent_in_dry_run();
                        return Ok(Restored { outcome, set_aside });
                    }
                    Update::Absent => {}
                    Update::Again => continue,
                }
            }
            if let Some(keeps_owner) = self.create(entry, content.bytes())? {
                return Ok(Restored { outcome: Outcome::Written { keeps_owner }, set_aside });
            }
            may_exist = true;
        }
        Err(Fault::File(TargetFileError::Unsteady))
    }

    /// Returns the length of the file in the target, 0 if there is none.
    pub(crate) fn existing_len(&mut self, entry: &TreeEntry) -> Result<u64, Fault> {
        let Some(place) = self.directories.enter(entry)? else { return Ok(0) };
        let found = rustix::fs::statat(place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW);
        Ok(found.map_or(0, |found| u64::try_from(found.st_size).unwrap_or(0)))
    }

    /// Forgets buffers that are longer than `len`.
    pub(crate) fn shrink(&mut self, len: usize) {
        for buffer in [&mut self.found, &mut self.source] {
            if len < buffer.capacity() {
                *buffer = Vec::new();
            }
        }
    }

    const fn absent_in_dry_run(&self) -> Outcome {
        Outcome::Written { keeps_owner: false }
    }

    /// Writes a new file. Returns whether it keeps another owner than it had; `None` if there is one of this name by now, or the
    /// directory is gone.
    fn create(&mut self, entry: &TreeEntry, bytes: &[u8]) -> Result<Option<bool>, Fault> {
        let tree = self.tree;
        let Some(place) = self.directories.enter(entry)? else { return Ok(None) };
        let written = NewFile::write(tree, place.directory, place.name, entry, bytes);
        let renamed = written.and_then(|new| new.rename().map(|()| new.keeps_owner()));
        match renamed {
            Ok(keeps_owner) => Ok(Some(keeps_owner)),
            Err(Errno::EXIST) => Ok(None),
            Err(Errno::NOENT) => {
                self.directories.forget();
                Ok(None)
            }
            Err(errno) => Err(tree.fault("write", errno)),
        }
    }
}

impl std::fmt::Debug for FileWriter<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FileWriter({})", self.tree.name)
    }
}

/// Returns the names of the directories above a file, and its own.
fn names_of(path: &TreePath) -> (Vec<&std::ffi::OsStr>, &std::ffi::OsStr) {
    let mut names: Vec<&std::ffi::OsStr> =
        path.as_bytes().split(|byte| *byte == b'/').map(std::ffi::OsStr::from_bytes).collect();
    let name = names.pop().expect("splitting gives one part at least");
    (names, name)
}
