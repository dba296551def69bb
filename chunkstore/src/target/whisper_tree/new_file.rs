//! A file that is written whole under a temporary name, and then gets its own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    UTIME_OMIT, Uid, fallocate, fchmod, fchown, flock, futimens, linkat, openat, renameat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::leftovers::temporary_name;
use super::{ATTEMPT_COUNT_MAX, TreeWriter};
use crate::format::{FileMetadata, PageEntry, TreeEntry};

/// Zeros of a file that are written like other bytes: taking the space without writing costs more for fewer.
const WRITTEN_ZEROS_MAX: u64 = 64 << 10;

const SECOND: i64 = 1_000_000_000;

/// A complete file without its own name. Removed when dropped, unless it got that.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    directory: &'a File,
    name: &'a OsStr,
    temporary: OsString,
    /// Holds the lock that keeps others from taking it for a leftover.
    file: File,
    keeps_owner: bool,
    is_renamed: std::cell::Cell<bool>,
}

impl<'a> NewFile<'a> {
    pub(super) fn write(
        tree: &TreeWriter,
        directory: &'a File,
        name: &'a OsStr,
        entry: &TreeEntry,
        bytes: &[u8],
    ) -> Result<Self, Errno> {
        let mut new = Self::create(tree, directory, name, &entry.metadata)?;
        new.write_bytes(entry, bytes)?;
        new.set_metadata(&entry.metadata)?;
        Ok(new)
    }

    fn create(
        tree: &TreeWriter,
        directory: &'a File,
        name: &'a OsStr,
        metadata: &FileMetadata,
    ) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(metadata.mode & 0o777 | 0o600);
        let mut last = Errno::EXIST;
        for _ in 0..ATTEMPT_COUNT_MAX {
            let temporary = temporary_name(name, tree.temporary_number());
            let file = match openat(directory, &temporary, flags, mode) {
                Ok(file) => File::from(file),
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno),
            };
            let is_renamed = std::cell::Cell::new(false);
            let keeps_owner = false;
            let new = Self { directory, name, temporary, file, keeps_owner, is_renamed };
            match flock(&new.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(new),
                // Somebody takes it for a leftover.
                Err(Errno::WOULDBLOCK) => last = Errno::WOULDBLOCK,
                // Without locks there are no such mistakes either: nothing can be locked.
                Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK) => return Ok(new),
                Err(errno) => return Err(errno),
            }
        }
        Err(last)
    }

    fn write_bytes(&self, entry: &TreeEntry, bytes: &[u8]) -> Result<(), Errno> {
        let zeros: u64 = entry
            .content
            .iter()
            .map(|part| if matches!(part, PageEntry::Zero { .. }) { part.len() } else { 0 })
            .sum();
        // Not every file system can take space without writing.
        if zeros <= WRITTEN_ZEROS_MAX || !self.take_space(bytes.len() as u64)? {
            return self.write_at(bytes, 0);
        }
        let mut start = 0;
        for run in entry.content.chunk_by(|one, next| {
            matches!(one, PageEntry::Data { .. }) == matches!(next, PageEntry::Data { .. })
        }) {
            let len: u64 = run.iter().map(PageEntry::len).sum();
            let end = start + usize::try_from(len).map_err(|_| Errno::FBIG)?;
            if matches!(run.first(), Some(PageEntry::Data { .. })) {
                self.write_at(&bytes[start..end], start as u64)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Returns whether the file system could take space for the file, which has its length and reads as zeros then.
    fn take_space(&self, len: u64) -> Result<bool, Errno> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(true),
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG)) => Err(errno),
            Err(_) => Ok(false),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        self.file.write_all_at(bytes, offset).map_err(|error| errno_of(&error))
    }

    /// Gives the file the owner, the permissions and the time that it had, as far as this process may.
    fn set_metadata(&mut self, wanted: &FileMetadata) -> Result<(), Errno> {
        let found = self.file.metadata().map_err(|error| errno_of(&error))?;
        let user = (found.uid() != wanted.user).then(|| Uid::from_raw(wanted.user));
        let group = (found.gid() != wanted.group).then(|| Gid::from_raw(wanted.group));
        if user.is_some() || group.is_some() {
            match fchown(&self.file, user, group) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => {
                    self.keeps_owner = true;
                    // A group of their own everybody may give.
                    let _kept = fchown(&self.file, None, group);
                }
                Err(errno) => return Err(errno),
            }
        }
        // What runs with the rights of its owner must not do so with those of another one.
        let mode = if self.keeps_owner { wanted.mode & 0o777 } else { wanted.mode };
        if found.mode() & 0o7777 != mode || mode & 0o7000 != 0 {
            match fchmod(&self.file, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => {}
                Err(errno) => return Err(errno),
            }
        }
        let modified = Timespec {
            tv_sec: wanted.modified_nanoseconds.div_euclid(SECOND),
            tv_nsec: wanted.modified_nanoseconds.rem_euclid(SECOND),
        };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: modified,
        };
        futimens(&self.file, &times)
    }

    pub(super) const fn keeps_owner(&self) -> bool {
        self.keeps_owner
    }

    /// Gives the file its own name, if that is free.
    pub(super) fn rename(&self) -> Result<(), Errno> {
        rename_to_free(self.directory, &self.temporary, self.name)?;
        self.is_renamed.set(true);
        Ok(())
    }

    /// Gives the file its own name, whatever has it now.
    pub(super) fn rename_over(&self) -> Result<(), Errno> {
        renameat(self.directory, &*self.temporary, self.directory, self.name)?;
        self.is_renamed.set(true);
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_renamed.get() {
            // The next restore removes it if this fails.
            let _removed = unlinkat(self.directory, &*self.temporary, AtFlags::empty());
        }
    }
}

/// Renames a file to a name that must be free.
pub(super) fn rename_to_free(directory: &File, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
    match renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        // Not all file systems can do that, but a link never replaces anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            linkat(directory, from, directory, to, AtFlags::empty())?;
            unlinkat(directory, from, AtFlags::empty())
        }
        other => other,
    }
}

/// Returns the number of an error of the operating system.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
