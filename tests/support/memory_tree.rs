//! A tree of files in memory, and what a store has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chunkstore::TreeReader;
use chunkstore::error::Result;
use chunkstore::format::{FileMetadata, TreeEntry, TreePath};
use chunkstore::id::RevisionId;
use chunkstore::ops::{self, BackupError, BackupOptions, TreeBackupOptions, TreeBackupStats};
use chunkstore::progress::NoProgress;
use chunkstore::source::{FileError, FilePiece, FileStatus, Found, SourceError, TreeSource};
use chunkstore::store::Store;
use chunkstore::time::Timestamp;
use chunkstore::versions::{PathFilter, Versions};

/// Files are cut into chunks of so many bytes.
pub const CHUNK_LEN: usize = 4096;

/// One file: its bytes, and a number that tells whether it was changed.
#[derive(Clone, Debug)]
struct MemoryFile {
    bytes: Vec<u8>,
    change: i64,
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, MemoryFile>,
    /// Files that are there and cannot be read.
    pub unreadable: BTreeSet<String>,
    /// Files that are not to be backed up.
    pub excluded: BTreeSet<String>,
    /// Files that give other bytes whenever they are read, with the same times: each reading adds 1 to the last byte.
    pub unfaithful: BTreeSet<String>,
    /// Files that can be read once.
    pub readable_once: BTreeSet<String>,
    reads: Arc<AtomicU8>,
    read_once: Arc<Mutex<BTreeSet<String>>>,
    /// The tree as a whole cannot be listed.
    pub is_broken: bool,
    changes: i64,
}

impl MemoryTree {
    /// Gives a file other bytes, or makes it.
    pub fn write(&mut self, path: &str, bytes: &[u8]) {
        self.changes += 1;
        let file = MemoryFile { bytes: bytes.to_vec(), change: self.changes };
        self.files.insert(path.to_owned(), file);
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &str) {
        self.files.remove(path);
        self.unreadable.remove(path);
        self.excluded.remove(path);
    }

    /// Returns the bytes of a file.
    #[must_use]
    pub fn read_all(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|file| file.bytes.as_slice())
    }

    fn file(&self, path: &TreePath) -> Result<&MemoryFile, FileError> {
        let name = String::from_utf8(path.as_bytes().to_vec()).expect("paths of tests are ASCII");
        if self.unreadable.contains(&name) {
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(FileError::Io { action: "open", source });
        }
        self.files.get(&name).ok_or(FileError::Vanished)
    }

    fn check_is_first_reading(&self, path: &TreePath) -> Result<(), FileError> {
        let Some(name) = self.readable_once.iter().find(|it| it.as_bytes() == path.as_bytes())
        else {
            return Ok(());
        };
        let mut read = self.read_once.lock().unwrap_or_else(PoisonError::into_inner);
        if read.insert(name.clone()) {
            return Ok(());
        }
        Err(FileError::Io { action: "read", source: io::Error::other("the disk is broken") })
    }
}

impl MemoryFile {
    fn status(&self) -> FileStatus {
        let metadata = FileMetadata {
            mode: 0o644,
            modified_nanoseconds: self.change,
            changed_nanoseconds: self.change,
            ..FileMetadata::default()
        };
        FileStatus { metadata, len: self.bytes.len() as u64 }
    }
}

impl TreeSource for MemoryTree {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn includes(&self, path: &TreePath) -> bool {
        !self.excluded.iter().any(|name| name.as_bytes() == path.as_bytes())
    }

    fn walk(&self) -> Result<Box<dyn Iterator<Item = Found> + Send + '_>, SourceError> {
        if self.is_broken {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(SourceError::Open { name: "memory".into(), source });
        }
        Ok(Box::new(self.files.keys().map(|name| Found::File(path(name)))))
    }

    fn status(&self, path: &TreePath) -> Result<FileStatus, FileError> {
        self.file(path).map(MemoryFile::status)
    }

    fn read(
        &self,
        path: &TreePath,
        take: &mut dyn FnMut(FilePiece<'_>) -> ControlFlow<()>,
    ) -> Result<FileStatus, FileError> {
        let file = self.file(path)?;
        self.check_is_first_reading(path)?;
        let mut bytes = file.bytes.clone();
        let is_unfaithful = self.unfaithful.iter().any(|name| name.as_bytes() == path.as_bytes());
        if let Some(last) = bytes.last_mut().filter(|_| is_unfaithful) {
            *last = last.wrapping_add(self.reads.fetch_add(1, Ordering::Relaxed));
        }
        for bytes in bytes.chunks(CHUNK_LEN) {
            if take(FilePiece::Chunk { bytes, is_points: false }).is_break() {
                return Err(FileError::Ended);
            }
        }
        Ok(file.status())
    }
}

/// Returns a path.
///
/// # Panics
///
/// If it is none.
#[must_use]
pub fn path(name: &str) -> TreePath {
    TreePath::new(name.as_bytes()).expect("paths of tests are valid")
}

/// Backs up a tree as a revision of `source`, with one thread.
///
/// # Errors
///
/// As [`ops::backup_tree`].
///
/// # Panics
///
/// If a name or tag is none.
pub fn backup_tree(
    store: &Store,
    source: &str,
    tree: &MemoryTree,
    tags: &[&str],
) -> Result<TreeBackupStats, BackupError> {
    let source = source.parse().expect("names of tests are valid");
    let common = BackupOptions {
        threads: NonZero::new(1),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..BackupOptions::new(source)
    };
    ops::backup_tree(store, tree, &TreeBackupOptions::new(common), &NoProgress)
}

/// What files had, by their paths.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Returns the newest version before `date` of each file of a source.
///
/// # Errors
///
/// If a list or chunk cannot be read.
///
/// # Panics
///
/// If the source has no revision, or a path is not ASCII.
pub fn files_at(store: &Store, source: &str, date: Option<Timestamp>) -> Result<Files> {
    let source = source.parse().expect("names of tests are valid");
    let selection = Versions::open(store, &source, PathFilter::all())?.select(date);
    let newest = selection.revisions().last().expect("there are revisions").record.id;
    let reader = TreeReader::open(store, &newest)?;
    selection.map(|entry| read(&reader, &entry?)).collect()
}

/// Returns the files of one revision.
///
/// # Errors
///
/// As [`TreeReader::open`], and if a list or chunk cannot be read.
pub fn files_of(store: &Store, id: &RevisionId) -> Result<Files> {
    let reader = TreeReader::open(store, id)?;
    reader.entries().map(|entry| read(&reader, &entry?)).collect()
}

fn read(reader: &TreeReader, entry: &TreeEntry) -> Result<(String, Vec<u8>)> {
    Ok((entry.path.to_string(), reader.read(entry)?))
}
