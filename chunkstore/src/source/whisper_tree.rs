//! A directory with the whisper files of Graphite as a source.
//!
//! Invariants: a file is read under the lock that its writers take (`flock`), and not believed if it was written to without one; nothing
//! below the directory is changed; only one directory's names and some windows of files are in memory.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::vec;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::{FileError, FilePiece, FileStatus, Found, SourceError, TreeSource};
use crate::chunking::{PointArchive, PointRange, is_zero, point_ranges};
use crate::format::{FileMetadata, TreePath};
use crate::whisper::{Archive, Header};

/// End of the names of whisper files.
const SUFFIX: &[u8] = b".wsp";

/// Bytes that are read at once: most files are read whole by one call, and unlocked before anything else is done with them.
const WINDOW_LEN: usize = 1 << 20;

/// How often a file is read that is written to without a lock.
const ATTEMPT_COUNT_MAX: usize = 3;

/// Time between two attempts to get a lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// A file that is younger and has no header yet is looked at again, after this interval.
const NEW_FILE_AGE: Duration = Duration::from_secs(1);
const NEW_FILE_INTERVAL: Duration = Duration::from_millis(20);

/// Buffers that are kept for the next files: one for each thread that reads.
const BUFFER_COUNT_MAX: usize = 16;

/// Decides by the name of a metric whether it is meant.
pub type MetricFilter = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The whisper files below a directory.
pub struct WhisperTree {
    name: String,
    directory: PathBuf,
    filter: Option<MetricFilter>,
    lock_timeout: Duration,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl WhisperTree {
    /// How long a file is waited for that somebody else has locked, unless it is told otherwise. Writers hold the lock for milliseconds.
    pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// - [`SourceError::Open`] if it cannot be opened, or is no directory.
    pub fn open(directory: &Path) -> Result<Self, SourceError> {
        let name = directory.display().to_string();
        fs::read_dir(directory)
            .map_err(|source| SourceError::Open { name: name.clone(), source })?;
        Ok(Self {
            name,
            directory: directory.to_owned(),
            filter: None,
            lock_timeout: Self::LOCK_TIMEOUT_DEFAULT,
            buffers: Mutex::default(),
        })
    }

    /// Includes only metrics whose names the filter accepts.
    #[must_use]
    pub fn with_filter(self, filter: MetricFilter) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// Waits so long for a file that somebody else has locked.
    #[must_use]
    pub fn with_lock_timeout(self, lock_timeout: Duration) -> Self {
        Self { lock_timeout, ..self }
    }

    /// Returns the name of the metric in a file: its path without `.wsp`, with `.` between names. What is not UTF-8 is replaced.
    #[must_use]
    pub fn metric_name(path: &TreePath) -> String {
        let bytes = path.as_bytes();
        let stem = bytes.strip_suffix(SUFFIX).unwrap_or(bytes);
        String::from_utf8_lossy(stem).replace('/', ".")
    }

    /// Returns whether a file was made or changed a moment ago.
    fn is_new(&self, path: &TreePath) -> bool {
        let changed = fs::metadata(self.path_of(path)).and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        age.is_some_and(|age| age < NEW_FILE_AGE)
    }

    fn path_of(&self, path: &TreePath) -> PathBuf {
        self.directory.join(OsStr::from_bytes(path.as_bytes()))
    }

    /// Opens a file and gets the lock of its writers, shared. It is held until the file is closed. Whoever takes the pieces is asked
    /// meanwhile whether to go on.
    fn open_locked(
        &self,
        path: &TreePath,
        take: &mut dyn FnMut(FilePiece<'_>) -> ControlFlow<()>,
    ) -> Result<File, FileError> {
        let failed = |action| move |source: io::Error| file_error(action, source);
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.path_of(path))
            .map_err(failed("open"))?;
        let begun = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < self.lock_timeout => {
                    if take(FilePiece::Again).is_break() {
                        return Err(FileError::Ended);
                    }
                    thread::sleep(LOCK_INTERVAL);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    return Err(FileError::Locked { seconds: self.lock_timeout.as_secs() });
                }
                Err(errno) => return Err(file_error("lock", errno.into())),
            }
        }
    }

    fn buffer(&self) -> Vec<u8> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.pop().unwrap_or_default()
    }

    fn keep_buffer(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < BUFFER_COUNT_MAX && buffer.capacity() <= 2 * WINDOW_LEN {
            buffers.push(buffer);
        }
    }

    /// Reads the file once. `None`: it was written to meanwhile.
    fn read_once(
        &self,
        path: &TreePath,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(FilePiece<'_>) -> ControlFlow<()>,
    ) -> Result<Option<FileStatus>, FileError> {
        let mut file = Some(self.open_locked(path, take)?);
        let open = file.as_ref().expect("it was just opened");
        let before = open.metadata().map_err(|error| file_error("look at", error))?;
        let status = status_of(&before)?;
        let header_len = Header::LEN_MAX.min(usize::try_from(status.len).unwrap_or(usize::MAX));
        if read_window(open, buffer, 0, window_len(status.len))? < header_len {
            return Ok(None);
        }
        let ranges = match Header::decode(&buffer[..header_len], status.len) {
            Ok(header) => ranges_of(&header, status.len),
            // Written to without a lock, it may be half a header.
            Err(_) if is_written(open, &before)? => return Ok(None),
            Err(error) => return Err(FileError::Corrupt { reason: error.to_string() }),
        };
        let (mut start, mut end) = (0, buffer.len() as u64);
        if end == status.len {
            if is_written(open, &before)? {
                return Ok(None);
            }
            // Writers may go on.
            file = None;
        }
        for PointRange { offset, len, has_points } in ranges {
            if let Some(open) = &file
                && end < offset + len
            {
                let range_len = usize::try_from(len).unwrap_or(usize::MAX);
                start = offset;
                let wanted = window_len(status.len - offset).max(range_len);
                end = start + read_window(open, buffer, start, wanted)? as u64;
                if end < offset + len {
                    return Ok(None);
                }
            }
            let place = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
            let bytes = &buffer[place(offset)..place(offset + len)];
            let piece = if is_zero(bytes) {
                FilePiece::Zeros { len }
            } else {
                FilePiece::Chunk { bytes, is_points: has_points }
            };
            if take(piece).is_break() {
                return Err(FileError::Ended);
            }
        }
        match &file {
            Some(open) if is_written(open, &before)? => Ok(None),
            _ => Ok(Some(status)),
        }
    }
}

impl std::fmt::Debug for WhisperTree {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "WhisperTree({})", self.name)
    }
}

impl TreeSource for WhisperTree {
    fn name(&self) -> &str {
        &self.name
    }

    fn includes(&self, path: &TreePath) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter(&Self::metric_name(path)))
    }

    fn walk(&self) -> Result<Box<dyn Iterator<Item = Found> + Send + '_>, SourceError> {
        let cannot_open = |source| SourceError::Open { name: self.name.clone(), source };
        let top = list(&self.directory, b"").map_err(cannot_open)?;
        Ok(Box::new(Walk { directory: &self.directory, levels: vec![top.into_iter()] }))
    }

    fn status(&self, path: &TreePath) -> Result<FileStatus, FileError> {
        let metadata = fs::metadata(self.path_of(path));
        status_of(&metadata.map_err(|error| file_error("look at", error))?)
    }

    fn read(
        &self,
        path: &TreePath,
        take: &mut dyn FnMut(FilePiece<'_>) -> ControlFlow<()>,
    ) -> Result<FileStatus, FileError> {
        let mut buffer = self.buffer();
        let mut read = Err(FileError::Unsteady);
        for attempt in 0..ATTEMPT_COUNT_MAX {
            if attempt != 0 && take(FilePiece::Again).is_break() {
                read = Err(FileError::Ended);
                break;
            }
            match self.read_once(path, &mut buffer, take) {
                Ok(None) => {}
                Ok(Some(status)) => {
                    read = Ok(status);
                    break;
                }
                // Carbon makes a file before it locks it: it may be about to write the header.
                Err(error @ FileError::Corrupt { .. }) if self.is_new(path) => {
                    read = Err(error);
                    thread::sleep(NEW_FILE_INTERVAL);
                }
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
        self.keep_buffer(buffer);
        read
    }
}

/// Something in a directory, by its path below the top.
struct Node {
    path: Vec<u8>,
    is_directory: bool,
}

impl Node {
    /// Orders nodes as the paths of the files in them are ordered: a directory as if its name ended with `/`.
    fn order(&self, other: &Self) -> Ordering {
        let end = |node: &Self| -> &'static [u8] { if node.is_directory { b"/" } else { b"" } };
        let own = self.path.iter().chain(end(self));
        own.cmp(other.path.iter().chain(end(other)))
    }
}

/// Goes through directories in the order of paths.
struct Walk<'a> {
    directory: &'a Path,
    levels: Vec<vec::IntoIter<Node>>,
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        while let Some(level) = self.levels.last_mut() {
            let Some(Node { path, is_directory }) = level.next() else {
                self.levels.pop();
                continue;
            };
            if !is_directory {
                return Some(match TreePath::new(&path) {
                    Ok(path) => Found::File(path),
                    Err(error) => {
                        let error = FileError::Name { reason: error.to_string() };
                        Found::Unreadable { path, is_directory, error }
                    }
                });
            }
            match list(&self.directory.join(OsStr::from_bytes(&path)), &path) {
                Ok(nodes) => self.levels.push(nodes.into_iter()),
                // Removed a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let error = FileError::Io { action: "list", source };
                    return Some(Found::Unreadable { path, is_directory, error });
                }
            }
        }
        None
    }
}

/// Returns the whisper files and the directories in a directory, in order. Symbolic links to directories are not followed.
fn list(directory: &Path, path: &[u8]) -> io::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name: OsString = entry.file_name();
        let kind = entry.file_type()?;
        let is_named = name.as_bytes().ends_with(SUFFIX);
        let is_file = is_named
            && (kind.is_file()
                || kind.is_symlink() && !fs::metadata(entry.path()).is_ok_and(|it| it.is_dir()));
        if is_file || kind.is_dir() {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name.into_vec());
            nodes.push(Node { path: below, is_directory: kind.is_dir() });
        }
    }
    nodes.sort_by(Node::order);
    Ok(nodes)
}

fn ranges_of(header: &Header, len: u64) -> Vec<PointRange> {
    let archive = |archive: &Archive| PointArchive {
        offset: u64::from(archive.offset),
        point_count: archive.points,
    };
    let mut archives: Vec<PointArchive> = header.archives().iter().map(archive).collect();
    archives.sort_unstable_by_key(|archive| archive.offset);
    point_ranges(len, &archives).collect()
}

fn window_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(WINDOW_LEN)
}

/// Replaces `buffer` by at most `len` bytes at `offset`, and returns how many there are.
fn read_window(
    file: &File,
    buffer: &mut Vec<u8>,
    offset: u64,
    len: usize,
) -> Result<usize, FileError> {
    buffer.resize(len, 0);
    let mut found = 0;
    while found < len {
        match file.read_at(&mut buffer[found..], offset + found as u64) {
            Ok(0) => break,
            Ok(count) => found += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(file_error("read", error)),
        }
    }
    buffer.truncate(found);
    Ok(found)
}

/// Returns whether the file is another than it was.
fn is_written(file: &File, before: &Metadata) -> Result<bool, FileError> {
    let now = file.metadata().map_err(|error| file_error("look at", error))?;
    let state = |metadata: &Metadata| {
        (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.nlink() == 0)
    };
    Ok(state(before) != state(&now))
}

fn status_of(metadata: &Metadata) -> Result<FileStatus, FileError> {
    if !metadata.is_file() {
        return Err(FileError::Corrupt { reason: "it is no regular file".to_owned() });
    }
    let nanoseconds =
        |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let metadata = FileStatus {
        metadata: FileMetadata {
            mode: metadata.mode() & 0o7777,
            user: metadata.uid(),
            group: metadata.gid(),
            inode: metadata.ino(),
            modified_nanoseconds: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_nanoseconds: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        },
        len: metadata.len(),
    };
    Ok(metadata)
}

fn file_error(action: &'static str, source: io::Error) -> FileError {
    if source.kind() == io::ErrorKind::NotFound {
        return FileError::Vanished;
    }
    FileError::Io { action, source }
}
