//! A file that is there already: locked, read, compared, and filled, replaced or set aside.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, openat, statat};
use rustix::io::Errno;

use super::directories::describe;
use super::new_file::{NewFile, errno_of, rename_to_free};
use super::{Content, Existing, Fault, FileWriter, Outcome, TargetFileError, TreeWriter};
use crate::format::TreeEntry;
use crate::whisper::{Backfill, BackfillStats, Header, WhisperError, WhisperFile, backfill};

/// Time between two attempts to get a lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// What was done about a file that may exist.
pub(super) enum Update {
    Done(Outcome),
    /// It was no whisper file and has this name now; its own is free.
    SetAside(OsString),
    /// There is none.
    Absent,
    /// It was replaced meanwhile.
    Again,
}

/// How opening went.
enum Opened {
    File { file: File, len: u64 },
    Absent,
    Again,
}

impl FileWriter<'_> {
    /// Does with an existing file what the rules say.
    pub(super) fn update(
        &mut self,
        entry: &TreeEntry,
        content: &mut Content<'_>,
        room: u64,
    ) -> Result<Update, Fault> {
        let tree = self.tree;
        let rules = &tree.rules;
        let Some(place) = self.directories.enter(entry)? else { return Ok(Update::Absent) };
        let (directory, name) = (place.directory, place.name);
        if rules.existing == Existing::Skip {
            return match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(Update::Done(Outcome::Skipped)),
                Err(Errno::NOENT) => Ok(Update::Absent),
                Err(errno) => Err(tree.fault("look at", errno)),
            };
        }
        let (file, len) = match open_locked(tree, directory, name, self.is_ended)? {
            Opened::File { file, len } => (file, len),
            Opened::Absent => return Ok(Update::Absent),
            Opened::Again => return Ok(Update::Again),
        };
        let is_as_long = len == content.bytes().len() as u64;
        if is_as_long || matches!(rules.existing, Existing::Backfill(_)) {
            if room < len {
                return Ok(Update::Done(Outcome::NeedsRoom { len }));
            }
            read_whole(&file, len, &mut self.found).map_err(|errno| tree.fault("read", errno))?;
            if self.found == content.bytes() {
                return Ok(Update::Done(Outcome::Unchanged));
            }
        }
        match rules.existing {
            Existing::Skip => Ok(Update::Done(Outcome::Skipped)),
            Existing::Refuse => Err(Fault::File(TargetFileError::Exists)),
            Existing::Replace => {
                let mut keeps_owner = false;
                if !rules.is_dry_run {
                    let new = NewFile::write(tree, directory, name, entry, content.bytes())
                        .map_err(|errno| tree.fault("create", errno))?;
                    if !is_at(&file, directory, name) {
                        return Ok(Update::Again);
                    }
                    new.rename_over().map_err(|errno| tree.fault("rename", errno))?;
                    keeps_owner = new.keeps_owner();
                }
                Ok(Update::Done(Outcome::Replaced { keeps_owner }))
            }
            Existing::Backfill(mode) => {
                let bytes = content.bytes();
                Header::decode(bytes, bytes.len() as u64).map_err(|error| not_whisper(&error))?;
                let Ok(target) = WhisperFile::decode(std::mem::take(&mut self.found)) else {
                    let aside = set_aside(tree, &file, directory, name)?;
                    return Ok(aside.map_or(Update::Again, Update::SetAside));
                };
                let writer = if rules.is_dry_run { None } else { Some(&file) };
                let fill = Fill { tree, writer, mode };
                let (stats, len, found) = fill.run(content, target, &mut self.source)?;
                self.found = found;
                Ok(Update::Done(if len == 0 {
                    Outcome::Unchanged
                } else {
                    Outcome::Backfilled { stats, len }
                }))
            }
        }
    }
}

fn not_whisper(error: &WhisperError) -> Fault {
    Fault::File(TargetFileError::NotWhisper { reason: error.to_string() })
}

/// Fills the gaps of one file.
struct Fill<'a> {
    tree: &'a TreeWriter,
    /// Where the points are written; `None` in a dry run.
    writer: Option<&'a File>,
    mode: Backfill,
}

impl Fill<'_> {
    /// Returns what was filled, how many bytes that were, and the memory of `target`.
    fn run(
        &self,
        content: &mut Content<'_>,
        mut target: WhisperFile,
        copy: &mut Vec<u8>,
    ) -> Result<(BackfillStats, u64, Vec<u8>), Fault> {
        let bytes = match content {
            Content::Whole(bytes) => std::mem::take(*bytes),
            Content::Part(bytes) => {
                let mut copied = std::mem::take(copy);
                copied.clear();
                copied.extend_from_slice(bytes);
                copied
            }
        };
        let source = WhisperFile::decode(bytes).map_err(|error| not_whisper(&error))?;
        let stats = backfill(&source, &mut target, self.tree.rules.now, self.mode);
        match content {
            Content::Whole(bytes) => **bytes = source.into_bytes(),
            Content::Part(_) => *copy = source.into_bytes(),
        }
        let ranges = target.changed_ranges();
        let target = target.into_bytes();
        let mut len = 0;
        for range in ranges {
            len += range.end - range.start;
            if let Some(file) = self.writer {
                let place = |offset: u64| usize::try_from(offset).expect("it is in memory");
                let part = &target[place(range.start)..place(range.end)];
                file.write_all_at(part, range.start)
                    .map_err(|error| self.tree.fault("write", errno_of(&error)))?;
            }
        }
        Ok((stats, len, target))
    }
}

/// Opens a file and gets the lock of its writers, which is held until the file is closed.
fn open_locked(
    tree: &TreeWriter,
    directory: &File,
    name: &OsStr,
    is_ended: &(dyn Fn() -> bool + Sync),
) -> Result<Opened, Fault> {
    let (access, mode) = if tree.rules.is_dry_run {
        (OFlags::RDONLY, FlockOperation::NonBlockingLockShared)
    } else {
        (OFlags::RDWR, FlockOperation::NonBlockingLockExclusive)
    };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Opened::Absent),
        Err(errno @ (Errno::LOOP | Errno::ISDIR | Errno::NXIO)) => {
            return Err(occupied(tree, directory, name, errno));
        }
        Err(errno) => return Err(tree.fault("open", errno)),
    };
    let metadata = file.metadata().map_err(|error| tree.fault("look at", errno_of(&error)))?;
    if !metadata.is_file() {
        return Err(occupied(tree, directory, name, Errno::NXIO));
    }
    let begun = Instant::now();
    let timeout = tree.rules.lock_timeout;
    loop {
        match flock(&file, mode) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK | Errno::INTR) if is_ended() => {
                return Err(Fault::File(TargetFileError::Ended));
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < timeout => {
                thread::sleep(LOCK_INTERVAL);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                return Err(Fault::File(TargetFileError::Locked { timeout }));
            }
            Err(errno) => return Err(tree.fault("lock", errno)),
        }
    }
    if !is_at(&file, directory, name) {
        return Ok(Opened::Again);
    }
    // It may have grown while it was waited for.
    let len = file.metadata().map_err(|error| tree.fault("look at", errno_of(&error)))?.len();
    Ok(Opened::File { file, len })
}

/// Returns whether a name still stands for this file.
fn is_at(file: &File, directory: &File, name: &OsStr) -> bool {
    let Ok(found) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.st_dev, found.st_ino))
}

fn occupied(tree: &TreeWriter, directory: &File, name: &OsStr, errno: Errno) -> Fault {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Fault::File(TargetFileError::Occupied {
            name: name.display().to_string(),
            found: describe(FileType::from_raw_mode(found.st_mode)),
        }),
        Err(_) => tree.fault("open", errno),
    }
}

/// Replaces `bytes` by those of a file of `len` bytes, or by fewer if it is shorter by now.
fn read_whole(file: &File, len: u64, bytes: &mut Vec<u8>) -> Result<(), Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::FBIG)?;
    if bytes.len() < len {
        bytes.reserve_exact(len - bytes.len());
    }
    bytes.resize(len, 0);
    let mut found = 0;
    while found < len {
        match file.read_at(&mut bytes[found..], found as u64) {
            Ok(0) => break,
            Ok(count) => found += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno_of(&error)),
        }
    }
    bytes.truncate(found);
    Ok(())
}

/// Gives a locked file that is no whisper file a name that nobody reads as one. `None` if another one has its place by now.
fn set_aside(
    tree: &TreeWriter,
    file: &File,
    directory: &File,
    name: &OsStr,
) -> Result<Option<OsString>, Fault> {
    for attempt in 0_u32.. {
        let mut aside = name.to_owned();
        aside.push(format!(".corrupt-{}", tree.rules.stamp));
        if attempt != 0 {
            aside.push(format!("-{attempt}"));
        }
        if tree.rules.is_dry_run {
            return Ok(Some(aside));
        }
        match rename_to_free(directory, name, &aside) {
            Ok(()) if is_at(file, directory, &aside) => return Ok(Some(aside)),
            Ok(()) => {
                // It was another file, created a moment ago, whose name that is.
                rename_to_free(directory, &aside, name)
                    .map_err(|errno| tree.fault("give its name back to", errno))?;
                return Ok(None);
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(tree.fault("set aside", errno)),
        }
    }
    Ok(None)
}
