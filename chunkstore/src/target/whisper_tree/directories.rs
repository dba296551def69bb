//! The directories below the top: opened step by step, so that no symbolic link is followed, and kept open for the next file.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, statat,
};
use rustix::io::Errno;

use super::leftovers::remove_leftovers;
use super::{Fault, TargetFileError, TreeWriter, names_of};
use crate::format::{FileMetadata, TreeEntry};

/// Permissions of a new directory, before the umask: those that Graphite gives.
const DIRECTORY_MODE: u32 = 0o755;

/// Directories of which it is known that leftovers were removed.
const CLEAN_COUNT_MAX: usize = 1 << 16;

pub(super) fn open_top(path: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map(File::from)
}

fn open_below(directory: &File, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map(File::from)
}

/// What all threads know of the directories that they came to.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// A directory of each file system, by its number.
    file_systems: Mutex<HashMap<u64, Arc<File>>>,
    /// Numbers of directories without leftovers.
    clean: Mutex<HashSet<(u64, u64)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Remembers the file system that a directory is on, so that it is synced in the end. It stays open: errors of writing are
    /// told to those who had a file open by then.
    pub(super) fn note_file_system(&self, directory: &File) -> io::Result<(u64, u64)> {
        let metadata = directory.metadata()?;
        let mut file_systems = lock(&self.file_systems);
        if let Entry::Vacant(place) = file_systems.entry(metadata.dev()) {
            place.insert(Arc::new(directory.try_clone()?));
        }
        Ok((metadata.dev(), metadata.ino()))
    }

    pub(super) fn file_systems(&self) -> Vec<Arc<File>> {
        lock(&self.file_systems).values().cloned().collect()
    }

    /// Returns whether leftovers are still to be looked for.
    fn is_news(&self, directory: (u64, u64)) -> bool {
        let mut clean = lock(&self.clean);
        if CLEAN_COUNT_MAX <= clean.len() {
            // Memory is bounded; looking twice does no harm.
            clean.clear();
        }
        clean.insert(directory)
    }
}

/// Where a file belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) directory: &'a File,
    pub(super) name: &'a OsStr,
    /// The directory was created by this thread a moment ago.
    pub(super) is_new: bool,
}

struct Level {
    name: OsString,
    directory: File,
    is_new: bool,
}

/// The open directories above the last file.
pub(super) struct Directories<'a> {
    tree: &'a TreeWriter,
    levels: Vec<Level>,
    is_top_clean: bool,
}

impl<'a> Directories<'a> {
    pub(super) fn new(tree: &'a TreeWriter) -> Self {
        Self { tree, levels: Vec::new(), is_top_clean: false }
    }

    /// Opens everything anew for the next file.
    pub(super) fn forget(&mut self) {
        self.levels.clear();
    }

    /// Returns where a file belongs, and creates the directories above it. `None` in a dry run if they are not there.
    pub(super) fn enter<'b>(
        &'b mut self,
        entry: &'b TreeEntry,
    ) -> Result<Option<Place<'b>>, Fault> {
        let Some(top) = &self.tree.top else { return Ok(None) };
        if !self.is_top_clean {
            self.is_top_clean = true;
            self.clean(top)?;
        }
        let (above, name) = names_of(&entry.path);
        let known = self.levels.iter().zip(&above).take_while(|(level, name)| level.name == **name);
        let known = known.count();
        self.levels.truncate(known);
        for name in &above[known..] {
            let parent = self.levels.last().map_or(top, |level| &level.directory);
            let Some((directory, is_new)) = self.open(parent, name, &entry.metadata)? else {
                return Ok(None);
            };
            if is_new {
                let noted = self.tree.seen.note_file_system(&directory);
                noted.map_err(|error| file_fault("look at the directory of", error))?;
            } else {
                self.clean(&directory)?;
            }
            self.levels.push(Level { name: (*name).to_owned(), directory, is_new });
        }
        let (directory, is_new) =
            self.levels.last().map_or((top, false), |level| (&level.directory, level.is_new));
        Ok(Some(Place { directory, name, is_new }))
    }

    /// Opens a directory, or creates it; it gets the owner of the file that it is created for, who has to write there.
    fn open(
        &self,
        parent: &File,
        name: &OsStr,
        metadata: &FileMetadata,
    ) -> Result<Option<(File, bool)>, Fault> {
        let mut is_new = false;
        for _ in 0..super::ATTEMPT_COUNT_MAX {
            match open_below(parent, name) {
                Ok(directory) => return Ok(Some((directory, is_new))),
                Err(Errno::NOENT) if self.tree.rules.is_dry_run => return Ok(None),
                Err(Errno::NOENT) => {}
                Err(errno @ (Errno::LOOP | Errno::NOTDIR)) => {
                    return Err(self.occupied(parent, name, errno));
                }
                Err(errno) => return Err(self.tree.fault("open the directory of", errno)),
            }
            match mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
                Ok(()) => {
                    is_new = true;
                    let (user, group) =
                        (Uid::from_raw(metadata.user), Gid::from_raw(metadata.group));
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    // Who may not give files away keeps what is created.
                    let _kept = chownat(parent, name, Some(user), Some(group), flags);
                }
                // Created by somebody else at this moment.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.tree.fault("create the directory of", errno)),
            }
        }
        Err(Fault::File(TargetFileError::Unsteady))
    }

    fn occupied(&self, parent: &File, name: &OsStr, errno: Errno) -> Fault {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Fault::File(TargetFileError::Occupied {
                name: name.display().to_string(),
                found: describe(FileType::from_raw_mode(found.st_mode)),
            }),
            Err(_) => self.tree.fault("open the directory of", errno),
        }
    }

    /// Removes what a restore that was killed has left in a directory.
    fn clean(&self, directory: &File) -> Result<(), Fault> {
        let number = self.tree.seen.note_file_system(directory);
        let number = number.map_err(|error| file_fault("look at the directory of", error))?;
        if !self.tree.rules.is_dry_run && self.tree.seen.is_news(number) {
            remove_leftovers(directory)
                .map_err(|errno| self.tree.fault("remove leftovers beside", errno))?;
        }
        Ok(())
    }
}

fn file_fault(action: &'static str, source: io::Error) -> Fault {
    Fault::File(TargetFileError::Io { action, source })
}

/// Says what something is that is not what was expected.
pub(super) const fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        _ => "a special file",
    }
}
