//! The few file-system calls that a store needs, as a trait with two implementations.
//!
//! [`real::RealVfs`] is the operating system; `simulated::SimulatedVfs` (feature `simulation`)
//! keeps live and durable bytes apart, loses what was not synced, and fails on demand. Everything
//! that touches a file of a store goes through this trait, the index included, so that packs and
//! index crash together. What each call must guarantee is listed in `docs/format.md`, section
//! "Assumptions about the medium".

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

mod aligned;
#[cfg(test)]
mod behaviour;
pub mod real;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;

pub use aligned::{ALIGNMENT, AlignedBuffer};

/// Bytes that [`VfsFile::allocate`] and [`VfsFile::reserve`] write at once.
const ALLOCATION_LEN: usize = 1 << 20;

/// Whether a lock admits others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Any number of holders, as long as no one holds it exclusively.
    Shared,
    /// One holder.
    Exclusive,
}

/// What [`Vfs::list`] found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else, symbolic links included: never followed, never touched.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without its directory. Names that are not UTF-8 are not ours and are left out.
    pub name: String,
    /// What it names.
    pub kind: EntryKind,
}

impl PartialOrd for EntryKind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EntryKind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

/// The file-system calls of a store. Paths are absolute or relative to the working directory.
///
/// No call retries a failed sync: after an error of [`VfsFile::sync_data`] the file counts as lost.
pub trait Vfs: Debug + Send + Sync {
    /// Creates a file for reading and writing.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Creates a file for reading and writing that other users can neither read nor write.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn create_private(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.create_new(path)
    }

    /// Opens an existing regular file, for writing too if `writable`.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn VfsFile>>;

    /// Returns the length of a regular file in bytes.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    fn file_len(&self, path: &Path) -> io::Result<u64>;

    /// Renames a file atomically.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::AlreadyExists`] if `to` is taken.
    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file atomically and replaces `to`.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    fn rename_replace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory; its parent must exist.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable. The only call that does.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::Unsupported`] if the file system has no such call for directories.
    /// - Others of the file system.
    ///
    /// The names are then lost or not, nobody knows: the operation fails.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists a directory, without `.` and `..`, sorted by name.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such directory.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Takes an advisory lock (`flock`) on an existing regular file, which is opened for it.
    /// The lock ends when the returned value is dropped, or with the process.
    ///
    /// With `wait` the call blocks until the lock is free; without it, `None` says that another
    /// open file description holds it.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::NotFound`] if there is no such file.
    fn lock(&self, path: &Path, mode: LockMode, wait: bool)
    -> io::Result<Option<Box<dyn VfsLock>>>;

    /// Returns the bytes that this user can still write, where the file system tells.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    fn free_space(&self, path: &Path) -> io::Result<Option<u64>>;
}

/// An open regular file.
#[expect(
    clippy::len_without_is_empty,
    reason = "files are asked for their length, not for emptiness"
)]
pub trait VfsFile: Debug + Send + Sync {
    /// Returns the length in bytes.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// - [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, and grows the file if need be.
    ///
    /// # Errors
    ///
    /// Those of the file system; any part of `bytes` may then be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Does what [`Self::write_all_at`] does, for bytes that nobody will read soon. Where the system can, they go to
    /// the medium without a copy in memory; that takes an [`AlignedBuffer`] and an `offset` that is a multiple of
    /// [`ALIGNMENT`]. They are no more durable than others.
    ///
    /// # Errors
    ///
    /// Those of the file system; any part of `bytes` may then be written.
    fn write_bulk_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    /// Cuts the file or extends it by zeros.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Extends an empty file to `len` bytes for which the medium sets space aside. What they are is of no
    /// interest; they cannot be compressed.
    ///
    /// # Errors
    ///
    /// Those of the file system; any part of the space may then be set aside.
    fn allocate(&self, len: u64) -> io::Result<()> {
        write_noise(len, |bytes, offset| self.write_all_at(bytes, offset))
    }

    /// Sets space aside for a range, so that writing there later does not fail for want of it. Its bytes stay, or become
    /// zeros: the caller has no use for what they were. Where there were none they are zeros.
    ///
    /// # Errors
    ///
    /// Those of the file system; any part of the space may then be set aside.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        write_zeros(len, |bytes, start| self.write_all_at(bytes, offset.saturating_add(start)))
    }

    /// Gives the space of a range back, where the file system can do that. Its bytes become zeros or stay: the caller has no use
    /// for them.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Makes the bytes and the length durable (`fdatasync`).
    ///
    /// # Errors
    ///
    /// Those of the file system. The file then counts as lost: what was written may be gone
    /// although a second call would say that all is well.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes an advisory lock on this open file without waiting; `false` if another holds it. It
    /// ends when the file is dropped, not before. This is how a file is locked before anybody else
    /// can see its name.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    fn try_lock(&self, mode: LockMode) -> io::Result<bool>;
}

/// A lock that is held until this value is dropped.
pub trait VfsLock: Debug + Send + Sync {
    /// Replaces the content of the lock file by `text`, for those who wait. Not made durable; a
    /// failure is of no consequence to the lock.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    fn describe(&self, text: &str) -> io::Result<()>;
}

/// Writes `len` bytes that cannot be compressed.
fn write_noise(len: u64, write: impl Fn(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut bytes = vec![0; ALLOCATION_LEN];
    let mut offset = 0;
    while offset < len {
        noise.fill(&mut bytes);
        let count = usize::try_from(len - offset).unwrap_or(usize::MAX).min(bytes.len());
        write(&bytes[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// Writes `len` zeros.
fn write_zeros(len: u64, write: impl Fn(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(ALLOCATION_LEN)];
    let mut offset = 0;
    while offset < len {
        let count = usize::try_from(len - offset).unwrap_or(usize::MAX).min(zeros.len());
        write(&zeros[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// Reads a whole file of at most `len_max` bytes.
///
/// # Errors
///
/// - [`io::ErrorKind::NotFound`] if there is no such file.
/// - [`io::ErrorKind::FileTooLarge`] if it is longer.
pub fn read_file(vfs: &dyn Vfs, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let file = vfs.open(path, false)?;
    let len = file.len()?;
    if len_max < len {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{len} bytes, at most {len_max} are expected"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Returns the directory of `path`.
#[must_use]
pub fn parent_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
